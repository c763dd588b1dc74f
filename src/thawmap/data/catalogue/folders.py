"""Contents of folders in short hashes, by which a change of any file is seen."""

import os
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b

from thawmap.data.catalogue.layout import OWN, Folder

_DEEPEST = 12  # levels below a root, as in `files.listing.files_below`
_DIGITS = 8  # bytes of a hash


def folders_below(top: str, roots: Iterable[str]) -> dict[str, Folder]:
    """Return the folders at and below some roots with their contents, by path.

    Links are followed, hidden files and folders left out, as scenes are found.

    Args:
        top: The catalogue's folder.
        roots: Folders from there, with slashes; "" is the folder itself.
    """
    seen: dict[str, Folder] = {}
    for root in roots:
        level = [root]
        for depth in range(_DEEPEST + 2):
            below: list[str] = []
            for path in level:
                folder, names = _look(top, path)
                if folder is not None:
                    seen[path] = folder
                    below += names
            if depth == _DEEPEST + 1:
                break  # a link that leads back to a folder above
            level = [path for path in below if path not in seen]
    return seen


def folders_at(top: str, paths: Iterable[str]) -> dict[str, Folder]:
    """Return given folders with their contents, by path; absent ones are left out."""
    looks = {path: _look(top, path)[0] for path in paths}
    return {path: folder for path, folder in looks.items() if folder is not None}


def stamps_below(top: str) -> dict[str, tuple[int, int]]:
    """Return size and time of change of each file of a folder, by path from there.

    Links are followed; hidden files and those of the catalogue are left out.
    """
    stamps: dict[str, tuple[int, int]] = {}
    level = [""]
    for _ in range(_DEEPEST + 2):
        below: list[str] = []
        for path in level:
            prefix = f"{path}/" if path else ""
            for entry in _readable(top, path):
                if entry.is_dir():
                    below.append(prefix + entry.name)
                    continue
                status = _status(entry)
                stamps[prefix + entry.name] = (-1, 0) if status is None else (status.st_size, status.st_mtime_ns)
        level = below
    return stamps


def differing(recorded: Mapping[str, Folder], present: Mapping[str, Folder]) -> set[str]:
    """Return the paths of folders whose contents are not as recorded, or not there."""
    return {path for path in recorded.keys() | present.keys() if recorded.get(path) != present.get(path)}


def have_same_names(recorded: Mapping[str, Folder], present: Mapping[str, Folder]) -> bool:
    """Return whether the same files and folders are there, whatever is in the files."""
    if recorded.keys() != present.keys():
        return False
    return all(recorded[path].names == folder.names for path, folder in present.items())


def _look(top: str, path: str) -> tuple[Folder | None, list[str]]:
    """Return a folder's contents and the paths of the folders in it.

    None and no paths where it is no folder, or cannot be read.
    """
    files: list[str] = []
    stamps: list[str] = []
    below: list[str] = []
    prefix = f"{path}/" if path else ""
    try:
        for entry in _entries(top, path):
            if entry.is_dir():
                below.append(prefix + entry.name)
                files.append(f"{entry.name}/")
                stamps.append(f"{entry.name}/")
                continue
            status = _status(entry)
            files.append(entry.name)
            stamps.append(entry.name if status is None else f"{entry.name}/{status.st_size}/{status.st_mtime_ns}")
    except OSError:
        return None, []
    return Folder(names=_hash(files), stamps=_hash(stamps)), below


def _entries(top: str, path: str) -> Iterator["os.DirEntry[str]"]:
    """Yield what is in a folder, without hidden files and those of the catalogue.

    Raises:
        OSError: If it is no folder, or cannot be read.
    """
    with os.scandir(f"{top}/{path}" if path else top) as entries:
        for entry in entries:
            if not (entry.name.startswith(".") or (not path and entry.name in OWN)):
                yield entry


def _readable(top: str, path: str) -> list["os.DirEntry[str]"]:
    """Return what is in a folder; an empty list where it cannot be read."""
    try:
        return list(_entries(top, path))
    except OSError:
        return []


def _status(entry: "os.DirEntry[str]") -> os.stat_result | None:
    """Return the status of a file; None for a broken link."""
    try:
        return entry.stat()
    except OSError:
        return None


def _hash(texts: list[str]) -> str:
    """Return a short hash of some texts, whatever their order."""
    texts.sort()
    return blake2b("\0".join(texts).encode(errors="surrogateescape"), digest_size=_DIGITS).hexdigest()
