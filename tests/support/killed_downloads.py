"""Downloads that are killed at random moments and run again; as a script, the download that is killed.

killed_downloads.py ADDRESS FOLDER MANIFEST.json downloads the manifest's files (name: sha256) and says when it begins.
"""

import faulthandler
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path

CONNECTIONS = 3


def killed_rounds(server, folder, rounds, *, seed, number=8, size=600_000, pace=0.01, by=signal.SIGKILL):
    """Download again and again, killed so often at random moments; how many kills hit a running download.

    After each kill: what has its final name is right, and what the next run asks for is what was missing, by the
    server's count.
    """
    chance = random.Random(seed)
    hits = 0
    out, manifest = folder, {}
    for trial in range(rounds):
        if not _missing(manifest, out):
            server.clear()
            out = folder / f"out{trial}"
            manifest = _serve(server, number, size, pace, chance, rounds)
        before = _state(manifest, out)
        asked = len(server.log())
        process = _begun(server, out, manifest)
        time.sleep(chance.uniform(0, 0.4))
        process.send_signal(by)
        hits += process.wait(30) != 0
        _check_names(manifest, out)
        _check_requests(server.log()[asked:], before, size)
    process = _begun(server, out, manifest)
    assert process.wait(120) == 0
    assert not _missing(manifest, out)
    _check_names(manifest, out)
    assert not list(out.rglob("*.part*"))
    before = len(server.log())
    assert _begun(server, out, manifest).wait(60) == 0
    assert len(server.log()) == before, "a rerun of a finished download asked for something"
    return hits


def _serve(server, number, size, pace, chance, rounds):
    manifest = {}
    for index in range(number):
        content = chance.randbytes(size)
        server.put(f"f{index}", content)
        manifest[f"f{index}"] = sha256(content).hexdigest()
        server.fail(f"f{index}", *[{"pace": pace}] * (2 * rounds))
    return manifest


def _begun(server, out, manifest):
    """A download in a process of its own that has begun."""
    command = [sys.executable, __file__, server.address, str(out), json.dumps(manifest)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begins\n"
    process.stdout.close()
    return process


def _missing(manifest, out):
    return [name for name in manifest if not (out / name).exists()]


def _state(manifest, out):
    """Bytes on disk by name, and whether the file is finished."""
    state = {}
    for name in manifest:
        path, part = out / name, out / f"{name}.part"
        state[name] = (
            (path.stat().st_size, True) if path.exists() else (part.stat().st_size if part.exists() else 0, False)
        )
    return state


def _check_names(manifest, out):
    for name, digest in manifest.items():
        if (out / name).exists():
            assert sha256((out / name).read_bytes()).hexdigest() == digest


def _check_requests(log, before, size):
    """A finished file is not asked for; of the others the first byte that is asked for is the first that is missing."""
    names = [entry["path"].lstrip("/") for entry in log]
    assert max(Counter(names).values(), default=0) <= 1
    for name, entry in zip(names, log, strict=True):
        there, is_finished = before[name]
        assert not is_finished
        assert there < size
        assert entry["headers"].get("range") in ((f"bytes={there}-",) if there else (None,))
        assert entry["status"] in (None, 206 if there else 200)


def _download(address, out, manifest):
    from thawmap.acquire.download import Wanted, download  # noqa: PLC0415 - takes a moment
    from thawmap.acquire.http import Http  # noqa: PLC0415
    from thawmap.acquire.ledger import Ledger, alone  # noqa: PLC0415

    wanted = [Wanted(url=f"{address}/{name}", path=out / name, sha256=digest) for name, digest in manifest.items()]
    os.write(1, b"begins\n")
    with alone(out), Http(rates={address.removeprefix("http://"): 1e6}) as http:
        ledger = Ledger.open(out / "ledger.jsonl")
        for landed in download(http, wanted, ledger=ledger, root=out, connections=CONNECTIONS):
            if landed.error:
                raise landed.error


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
    faulthandler.dump_traceback_later(50, exit=True)  # where it hangs, if it does
    try:
        _download(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
    except KeyboardInterrupt:
        sys.exit(130)
