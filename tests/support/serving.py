"""Servers of tests as real processes on loopback, started and ended by the test that needs them."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVERS = Path(__file__).parents[1] / "servers"


def free_port() -> int:
    """A port of loopback that nobody listens to."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


@contextmanager
def served(name: str, *arguments: str | Path) -> Iterator[str]:
    """Run tests/servers/NAME.py PORT ARGUMENTS until the block ends; yield its address, http://127.0.0.1:PORT."""
    port = free_port()
    command = [sys.executable, str(SERVERS / f"{name}.py"), str(port), *map(str, arguments)]
    process = subprocess.Popen(command)
    try:
        for _ in range(600):
            if process.poll() is not None:
                msg = f"the server {name} ended with {process.returncode}"
                raise RuntimeError(msg)
            with socket.socket() as asked:
                asked.settimeout(1)
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        else:
            msg = f"the server {name} did not answer within a minute"
            raise RuntimeError(msg)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # a connection that nobody closes
            process.kill()
            process.wait()
