"""Files and folders that appear whole or not at all: the drafts that they begin as, and who may write one."""

import errno
import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp

from thawmap.errors import DataError
from thawmap.files.lock import hold

_RANDOM = "[a-z0-9_]" * 8  # as `mkdtemp` fills up a name
_FULL = 2**20  # bytes free on a disk that is as good as full


@contextmanager
def atomic(path: Path, *, replacing: Callable[[Path, Path], None] | None = None) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends well, and vanishes when not.

    For a file, which is replaced, or a whole folder, which is replaced where it is empty or ``replacing`` allows it.
    Missing parent folders are made; a link stays, and where it leads is written.

    Args:
        path: What is to appear.
        replacing: Is asked last, with the folder that is there and the one that is to take its place; it raises a
            DataError where the first must stay.

    Raises:
        DataError: If the place cannot be written to, or must stay as it is.
    """
    place = Path(os.path.realpath(path))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        room = Path(mkdtemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent))
    except OSError as error:
        raise unwritable(path, str(error.strerror)) from error
    draft = room / place.name
    try:
        yield draft
        if draft.is_dir() and place.exists():
            (replacing or _check_empty)(path, draft)
        _take_place(draft, place, room)
    except OSError as error:
        raise unwritable(path, error.strerror or str(error)) from error
    finally:
        shutil.rmtree(room, ignore_errors=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the right to write ``path``, once no other process has it, and remove what killed ones left of it.

    The right is a lock on a file beside it, so that a draft of `atomic` which is found by the process that holds it
    belongs to nobody. A disk without locks is written to without, and nothing is removed there.

    Args:
        path: A file or folder that all its writers hold. Who had to wait may find it finished.

    Raises:
        DataError: If it cannot be written.
    """
    path = Path(os.path.realpath(path))
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_held = stack.enter_context(hold(path.with_name(f".{path.name}.lock")))
        except OSError as error:
            raise unwritable(path, str(error.strerror)) from error
        if is_held:
            for draft in path.parent.glob(f".{glob.escape(path.name)}.{_RANDOM}.tmp"):
                shutil.rmtree(draft, ignore_errors=True)
        yield


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8."""
    with atomic(path) as draft:
        draft.write_text(text, encoding="utf-8")
        sync(draft)


def write_json(path: Path, content: object, *, indent: int | None = 2, ascii_only: bool = True) -> None:
    """Write JSON values and a line break; no character beyond ASCII but as an escape, unless asked otherwise."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=ascii_only) + "\n")


def sync(path: Path) -> None:
    """Have the disk hold the file before it takes its name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, reason: str) -> DataError:
    """Why a file cannot be written, under the name that it was to take at last.

    Of a full disk libraries say what it led them to; here that is said of every disk with hardly any room.
    """
    final = re.sub(rf"(?:\.([^/]+)\.{_RANDOM}\.tmp/)+\1(?=/|$)", r"\1", str(path))
    if no_room(path):
        reason = os.strerror(errno.ENOSPC)
    return DataError(f"{final} cannot be written ({reason}); choose another place or free some room")


def no_room(path: Path) -> bool:
    """Whether the disk that a file is to lie on is as good as full."""
    place = next(parent for parent in path.absolute().parents if parent.exists())
    return shutil.disk_usage(place).free < _FULL


def _check_empty(path: Path, _: Path) -> None:
    if not path.is_dir() or any(path.iterdir()):
        msg = f"{path} exists, and nothing is replaced unasked; name another place, or move it away"
        raise DataError(msg)


def _take_place(draft: Path, path: Path, room: Path) -> None:
    """Rename the draft to its name; files of one stem (a Shapefile's) follow, the named one last."""
    for part in sorted(room.iterdir()):
        if part != draft:
            part.replace(path.with_name(part.name))
    if draft.is_dir() and path.exists():
        path.replace(room / "replaced")
    draft.replace(path)
