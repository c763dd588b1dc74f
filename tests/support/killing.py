"""Work that is killed again and again, each time somewhat later than before; for scripts in a process of their own."""

import os
import signal
import sys


def killed_again_and_again(attempt, renames):
    """Exit statuses of ``attempt`` (which returns its own), killed after so many renamed files, until it ends well."""
    statuses = []
    for last in renames:
        child = os.fork()
        if not child:
            _kill_after(last)
            os._exit(attempt() or 0)
        statuses.append(os.waitpid(child, 0)[1])
        if statuses[-1] == 0:
            break
    return statuses


def _kill_after(last):
    done = 0

    def watch(event, _):
        nonlocal done
        done += event == "os.rename"
        if event == "os.rename" and done > last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
