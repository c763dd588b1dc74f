"""Sandboxes: processes of their own for work that may crash or hang.

Tracing a network takes more memory than running it, and a library that is tried may crash or never come back. None of
that is the business of the process that maps. Results are kept in a cache folder for the next time.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from thawmap.errors import ConfigError, ThawmapError
from thawmap.files.hashes import json_sha256
from thawmap.model import bundle_folder
from thawmap.model.bundle import Bundle, library_versions
from thawmap.system import installed_versions

LIMIT_S = 600.0
"""Seconds after which work in a process of its own is given up."""

REWRITING = "1"
"""Version of `thawmap.model.backends.folding`.

Of another version, nothing that was kept is used again.
"""

_BUNDLE, _TASK, _REFUSAL, _OUTPUT = "bundle", "task.json", "refusal.txt", "output.txt"


class SandboxError(Exception):
    """Failure of work in a sandbox; the message gives the reason in a few words."""


def cache_folder() -> Path:
    """Return the folder in which results that hold for this machine are cached.

    ``thawmap`` in XDG_CACHE_HOME, or in ~/.cache; it may not exist yet.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thawmap"


def identity(bundle: Bundle) -> str:
    """Return a short hash of a bundle's network, weights and layers.

    They decide its answers. Other than the bundle's id it does not change when scores are written into a bundle, and
    one that was never saved has it.
    """
    described = [bundle.architecture, bundle.encoder, bundle.stride, asdict(bundle.reading)]
    return json_sha256({"described": described, "weights": bundle_folder.weights_sha256(bundle)}, digits=16)


def versions() -> dict[str, str]:
    """Return versions of the libraries that cached results depend on, by name.

    The version of our own rewriting of networks is among them.
    """
    return library_versions() | {"folding": REWRITING} | installed_versions(["openvino"])


@contextmanager
def sandbox(bundle: Bundle) -> Iterator[Path]:
    """Make a temporary folder with a bundle saved in it, and remove it in the end.

    It lies in the cache folder, so that results can be moved there.

    Raises:
        ConfigError: If the cache folder cannot be written.
        BundleError: If the network's answers are not numbers.
    """
    home = cache_folder()
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(prefix=".sandbox.", dir=home, ignore_cleanup_errors=True)
    except OSError as error:
        msg = (
            f"the cache folder {home} cannot be written ({error.strerror}); set the environment variable "
            "XDG_CACHE_HOME to a folder that can, or inference.backend to eager"
        )
        raise ConfigError(msg) from error
    with folder as name:
        bundle_folder.save(bundle, Path(name) / _BUNDLE)
        yield Path(name)


def sandboxed_bundle(folder: Path) -> Bundle:
    """Load the bundle from a sandbox's folder."""
    return bundle_folder.load(folder / _BUNDLE)


def run_in_sandbox(module: str, folder: Path, task: Mapping[str, Any], *, limit_s: float = LIMIT_S) -> None:
    """Run a module on a task in a process of its own, for ``limit_s`` s at most.

    The task is written into the sandbox's folder, which the module is given. The module begins with `sandboxed_task`.
    The process and all that it started are gone when this returns.

    Raises:
        SandboxError: If it fails, crashes, or takes longer than ``limit_s``.
    """
    (folder / _TASK).write_text(json.dumps(task), encoding="utf-8")
    (folder / _REFUSAL).unlink(missing_ok=True)
    with (folder / _OUTPUT).open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - this Python, and a module of this package
            [sys.executable, "-m", module, str(folder)], stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            msg = f"no answer within {limit_s:g} s"
            raise SandboxError(msg) from error
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        raise SandboxError(_reason(folder, status))


@contextmanager
def sandboxed_task(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the task of a sandboxed process as a dict; write its error to a file.

    An error of ours ends the process, and becomes the message of the caller's SandboxError.
    """
    try:
        yield json.loads((folder / _TASK).read_text(encoding="utf-8"))
    except ThawmapError as error:
        (folder / _REFUSAL).write_text(str(error), encoding="utf-8")
        sys.exit(1)


def _reason(folder: Path, status: int) -> str:
    """Return in a few words why a sandboxed process failed, from its files and status."""
    if (folder / _REFUSAL).exists():
        return (folder / _REFUSAL).read_text(encoding="utf-8")
    if status < 0:
        return f"it was ended by signal {-status}"
    lines = (folder / _OUTPUT).read_text(encoding="utf-8", errors="replace").split("\n")
    errors = [line.strip() for line in lines if "Error" in line and not line.startswith(" ")]
    return (errors or [f"exit status {status}"])[-1][:200]
