"""What is done aside: in a process of its own, and kept in a folder for the next time.

Tracing a network takes more memory than running it, and a library that is tried may crash or never come back. None of
that is the business of the process that maps.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from thawmap.errors import ConfigError, ThawmapError
from thawmap.files.hashes import json_sha256
from thawmap.model import bundle_folder
from thawmap.model.bundle import Bundle, library_versions

LIMIT_S = 600.0
"""Seconds after which work in a process of its own is given up."""

REWRITING = "1"
"""Changes wherever `thawmap.model.backends.folding` rewrites networks otherwise, so that what it made is made again."""

_BUNDLE, _TASK, _REFUSAL, _OUTPUT = "bundle", "task.json", "refusal.txt", "output.txt"


class AsideError(Exception):
    """Work in a process of its own came to nothing; the message says why, in a few words."""


def cache_folder() -> Path:
    """Where answers are kept that hold for this machine: ``thawmap`` in XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thawmap"


def identity(bundle: Bundle) -> str:
    """A short hash of what decides a bundle's answers: its network, its weights and its layers.

    Other than the bundle's id it does not change when scores are written into a bundle, and one that was never saved
    has it.
    """
    described = [bundle.architecture, bundle.encoder, bundle.stride, asdict(bundle.reading)]
    return json_sha256({"described": described, "weights": bundle_folder.weights_sha256(bundle)}, digits=16)


def versions() -> dict[str, str]:
    """Versions of the libraries that a kept answer depends on, and of our own rewriting of networks."""
    ours = library_versions() | {"folding": REWRITING}
    try:
        return ours | {"openvino": version("openvino")}
    except PackageNotFoundError:
        return ours


@contextmanager
def room(bundle: Bundle) -> Iterator[Path]:
    """A folder beside the kept answers that holds the bundle, and is gone in the end.

    Raises:
        ConfigError: If the cache folder cannot be written.
        BundleError: If the network's answers are not numbers.
    """
    home = cache_folder()
    try:
        home.mkdir(parents=True, exist_ok=True)
        place = TemporaryDirectory(prefix=".room.", dir=home, ignore_cleanup_errors=True)
    except OSError as error:
        msg = (
            f"the cache folder {home} cannot be written ({error.strerror}); set the environment variable "
            "XDG_CACHE_HOME to a folder that can, or inference.backend to eager"
        )
        raise ConfigError(msg) from error
    with place as name:
        bundle_folder.save(bundle, Path(name) / _BUNDLE)
        yield Path(name)


def bundle_of(folder: Path) -> Bundle:
    """The bundle that lies in a `room`."""
    return bundle_folder.load(folder / _BUNDLE)


def run_aside(module: str, folder: Path, task: Mapping[str, Any], *, limit_s: float = LIMIT_S) -> None:
    """Have ``module`` do ``task`` in ``folder``, in a process of its own; it begins with `task_of`.

    The process and all that it started are gone when this returns.

    Raises:
        AsideError: If it fails, crashes, or takes longer than ``limit_s``.
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
            raise AsideError(msg) from error
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        raise AsideError(_why(folder, status))


@contextmanager
def task_of(folder: Path) -> Iterator[dict[str, Any]]:
    """In the process of its own: the task; refusals of it reach who asked."""
    try:
        yield json.loads((folder / _TASK).read_text(encoding="utf-8"))
    except ThawmapError as error:
        (folder / _REFUSAL).write_text(str(error), encoding="utf-8")
        sys.exit(1)


def _why(folder: Path, status: int) -> str:
    """What a process that failed said last."""
    if (folder / _REFUSAL).exists():
        return (folder / _REFUSAL).read_text(encoding="utf-8")
    if status < 0:
        return f"it was ended by signal {-status}"
    lines = (folder / _OUTPUT).read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if "Error" in line and not line.startswith(" ")]
    return (said or [f"exit status {status}"])[-1][:200]
