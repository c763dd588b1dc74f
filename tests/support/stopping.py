"""The command line in a process of its own that stops itself, as by Ctrl-Z, at the same point on any machine.

Run as a script it patches PyTorch, in its workers too, which load it again: as soon as the network is asked while so
many files are there, the process that asked stops, and no other one after it: what goes on once goes on to its end.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch


def stopped(words, *, files, number=1):
    """The process of the command ``words``, in a session of its own, once ``number`` of ``files`` (a pattern) exist."""
    first = Path(tempfile.mkdtemp(prefix="stopping-")) / "first"  # made by the process that stops
    command = [sys.executable, __file__, str(files), str(number), str(first), *map(str, words)]
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests that a shell runs in the background ignore Ctrl-C
    try:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    finally:
        signal.signal(signal.SIGINT, handler)
    while not _has_stopped(process.pid):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


def _has_stopped(session):
    """Whether a process of the session stands still."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session, *_ = status.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it ended meanwhile
            continue
        if state == "T" and int(its_session) == session:
            return True
    return False


def _stop_when_asked(files, number, first):
    forward = torch.nn.Conv2d.forward
    pattern = str(files.relative_to(files.anchor))

    def stopping(self, images):
        if not first.exists() and len(list(Path(files.anchor).glob(pattern))) >= number:
            try:
                first.touch(exist_ok=False)
            except FileExistsError:
                return forward(self, images)
            os.kill(os.getpid(), signal.SIGSTOP)
        return forward(self, images)

    torch.nn.Conv2d.forward = stopping


if __name__ in ("__main__", "__mp_main__"):
    _stop_when_asked(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
if __name__ == "__main__":
    from thawmap.cli import _run

    sys.exit(_run(sys.argv[4:]))
