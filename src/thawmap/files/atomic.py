"""Files and folders that appear whole or not at all, and the right to write one."""

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
    """Yield a draft's path to write to, renamed to ``path`` if the block succeeds.

    It vanishes when the block fails. For a file, which is replaced, or a whole folder, which is replaced where it is
    empty or ``replacing`` allows it. Missing parent folders are made; a link stays, and where it leads is written.

    Args:
        path: What is to appear.
        replacing: Is asked last, with the folder that is there and the one that is to take its place; it raises a
            DataError where the first must stay.

    Raises:
        DataError: If it cannot be written, or what is there must stay.
    """
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    except OSError as error:
        raise unwritable(path, str(error.strerror)) from error
    draft = folder / target.name
    try:
        yield draft
        if draft.is_dir() and target.exists():
            (replacing or _check_empty)(path, draft)
        _publish(draft, target)
    except OSError as error:
        raise unwritable(path, error.strerror or str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the only right to write ``path`` for a block, waiting for other processes.

    Drafts that killed processes left of it are removed. The right is a lock on a file beside it, so that a draft of
    `atomic` which is found by the process that holds it belongs to nobody. A disk without locks is written to without,
    and nothing is removed there.

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
    """Write a text file in UTF-8, whole or not at all."""
    with atomic(path) as draft:
        draft.write_text(text, encoding="utf-8")
        sync(draft)


def write_json(path: Path, content: object, *, indent: int | None = 2, ascii_only: bool = True) -> None:
    """Write a JSON file that ends with a line break, whole or not at all.

    Args:
        path: The file.
        content: Dicts, lists, texts, numbers, bools and None.
        indent: Spaces for each level; None: all on one line.
        ascii_only: Write characters beyond ASCII as escapes.
    """
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=ascii_only) + "\n")


def sync(path: Path) -> None:
    """Wait until the disk holds what was written to a file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, reason: str) -> DataError:
    """Return a DataError for an unwritable path and a reason, under its final name.

    Of a full disk libraries say what it led them to; here that is said of every disk with hardly any room.
    """
    final = re.sub(rf"(?:\.([^/]+)\.{_RANDOM}\.tmp/)+\1(?=/|$)", r"\1", str(path))
    if is_disk_full(path):
        reason = os.strerror(errno.ENOSPC)
    return DataError(f"{final} cannot be written ({reason}); choose another place or free some room")


def is_disk_full(path: Path) -> bool:
    """Return whether the disk that a file is to lie on has less than a megabyte free."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return shutil.disk_usage(folder).free < _FULL


def _check_empty(path: Path, _: Path) -> None:
    """Refuse to replace a file, or a folder that holds something."""
    if not path.is_dir() or any(path.iterdir()):
        msg = f"{path} exists, and nothing is replaced unasked; name another place, or move it away"
        raise DataError(msg)


def _publish(draft: Path, path: Path) -> None:
    """Replace ``path`` by a draft, after moving the files beside the draft there.

    Files beside a draft are a Shapefile's.
    """
    for file in sorted(draft.parent.iterdir()):
        if file != draft:
            file.replace(path.with_name(file.name))
    if draft.is_dir() and path.exists():  # a folder cannot be renamed onto another one
        path.replace(draft.parent / "replaced")
    draft.replace(path)
