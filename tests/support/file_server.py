"""The file server of tests/servers/files.py, as a test sees it."""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from serving import served


@dataclass(frozen=True)
class FileServer:
    """A running server: its address, and the folder whose files it serves."""

    address: str
    folder: Path

    @property
    def host(self):
        return self.address.partition("://")[2]

    def put(self, name, content):
        """Serve bytes under a name; its address."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return f"{self.address}/{name}"

    def control(self, **words):
        httpx.post(f"{self.address}/_control", json=words, verify=False).raise_for_status()

    def fail(self, name, *faults):
        """Let the next requests of a name, or of all ("*"), have these faults, one each."""
        self.control(faults={name if name == "*" else f"/{name}": list(faults)})

    def log(self, name=None):
        """The requests of a name, or all, in order."""
        entries = httpx.get(f"{self.address}/_log", verify=False).json()
        return [entry for entry in entries if name is None or entry["path"] == f"/{name}"]

    def clear(self):
        self.control(clear=True, etags=True, ranges=True, date=None, tokens=[])


@contextmanager
def file_server(folder, certificate=None):
    """Run a server for a folder; with the path of a certificate, one that only speaks TLS."""
    folder.mkdir(parents=True, exist_ok=True)
    with served("files", folder, *([certificate] if certificate else [])) as address:
        yield FileServer(address.replace("http://", "https://") if certificate else address, folder)
