"""Contents of folders in short hashes, by which a change of any file is seen."""

import os
from collections.abc import Iterable, Mapping
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
        with os.scandir(f"{top}/{path}" if path else top or ".") as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") or (not path and name in OWN):
                    continue
                if entry.is_dir():
                    below.append(prefix + name)
                    files.append(f"{name}/")
                    stamps.append(f"{name}/")
                    continue
                files.append(name)
                stamps.append(_stamp(entry))
    except OSError:
        return None, []
    return Folder(names=_hash(files), stamps=_hash(stamps)), below


def _stamp(entry: "os.DirEntry[str]") -> str:
    """Return a file's name, size and time as a text; of a broken link the name alone."""
    try:
        status = entry.stat()
    except OSError:
        return entry.name
    return f"{entry.name}/{status.st_size}/{status.st_mtime_ns}"


def _hash(texts: list[str]) -> str:
    """Return a short hash of some texts, whatever their order."""
    texts.sort()
    return blake2b("\0".join(texts).encode(errors="surrogateescape"), digest_size=_DIGITS).hexdigest()
