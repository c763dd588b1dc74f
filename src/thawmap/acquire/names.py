"""Paths of files that a service names: inside their folder, each once, on any disk."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from thawmap.errors import ServiceError
from thawmap.text import printable

PART, RECORD = ".part", ".part.json"
"""What the name of an unfinished file ends in, and that of the file beside it that says what it is."""
_LONGEST = 255 - len(RECORD)  # bytes of a name


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file that a service names relative to a folder.

    Raises:
        ServiceError: If the name is absolute, leads out of the folder, or is none.
    """
    path = PurePosixPath(name)
    if "\\" in name or "\0" in name or path.is_absolute() or not path.parts or not name.endswith(path.name):
        msg = f"a service names a file {printable(name)!r}, which is no path below {folder}; nothing of it is fetched"
        raise ServiceError(msg)
    _check_parts(path, name)
    return folder / path


def check_paths(paths: Sequence[Path], root: Path) -> None:
    """Refuse paths of files that are to be fetched, unless each has its own place below a folder.

    Places are compared as disks do that tell no upper from lower case.

    Raises:
        ServiceError: If one is not below it, or two would be one file, or a file the folder of another.
    """
    root = root.absolute()
    for path in paths:
        if not path.absolute().is_relative_to(root) or path.absolute() == root:
            msg = f"{printable(str(path))} does not lie in {root}; nothing is fetched"
            raise ServiceError(msg)
        _check_parts(PurePosixPath(path.absolute().relative_to(root)), str(path))
    keys = [_key(path.absolute()) for path in paths]
    for key, number in Counter(keys).items():
        if number > 1:
            twins = sorted({printable(str(path)) for path, its in zip(paths, keys, strict=True) if its == key})
            names = " and ".join(twins) if len(twins) > 1 else f"{twins[0]} twice"
            msg = f"{names} would be one file; nothing is fetched"
            raise ServiceError(msg)
    places = set(keys)
    for path, key in zip(paths, keys, strict=True):
        taken = [*Path(key).parents, *(Path(key + ending) for ending in (PART, RECORD))]
        if any(str(place) in places for place in taken):
            msg = f"{printable(str(path))} is in the way of another file that is to be fetched; nothing is fetched"
            raise ServiceError(msg)


def _check_parts(path: PurePosixPath, name: str) -> None:
    """Refuse a relative path that goes up, or that a disk cannot hold.

    Raises:
        ServiceError: If it is one.
    """
    if ".." in path.parts or "\0" in name:
        msg = f"a service names a file {printable(name)!r}, which leads out of its folder; nothing is fetched"
        raise ServiceError(msg)
    if any(len(part.encode("utf-8", "surrogateescape")) > _LONGEST for part in path.parts):
        msg = f"a service names a file {printable(name)!r}, which is longer than a disk allows; nothing is fetched"
        raise ServiceError(msg)


def _key(path: Path) -> str:
    """Return a text that is equal for paths which are one file on some disk."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", str(path)).casefold())
