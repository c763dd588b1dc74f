"""The files of a catalogue on disk: each whole, and written only where it is another one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thawmap.data.catalogue import index, stac
from thawmap.data.catalogue.layout import CATALOG, INDEX, ITEMS, Entry
from thawmap.errors import DataError
from thawmap.files.atomic import atomic, sync


def check_own(folder: Path) -> None:
    """Refuse to replace a catalogue that thawmap did not make.

    Raises:
        DataError: If there is one.
    """
    are_own = {CATALOG: _is_own_catalog(folder / CATALOG), INDEX: _is_own_index(folder / INDEX)}
    foreign = [name for name, is_own in are_own.items() if is_own is False]
    if True not in are_own.values():  # what is damaged, and nothing beside it that tells whose it is
        foreign += [name for name in are_own if (folder / name).exists()]
    if foreign:
        msg = f"{folder / foreign[0]} was not made by thawmap, and would be replaced; move it away"
        raise DataError(msg)


def _is_own_catalog(path: Path) -> bool | None:
    """Return whether a STAC catalogue is thawmap's; None if damaged or not there."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return isinstance(content, dict) and content.get("id") == stac.ROOT_ID


def _is_own_index(path: Path) -> bool | None:
    """Return whether an index is thawmap's; None where none is there, or damaged."""
    try:
        return index.read_about(path) is not None if path.exists() else None
    except index.OtherVersionError:
        return True
    except DataError:
        return None


def publish(folder: Path, entries: Sequence[Entry], about: index.About) -> bool:
    """Write the files of a catalogue that are not there as they should be.

    The items first, the index last. Items of scenes that are gone are removed.

    Args:
        folder: The catalogue's folder.
        entries: The scenes, in order of their ids.
        about: What the catalogue says of itself.

    Returns:
        Whether anything was written.

    Raises:
        DataError: If the folder cannot be written to.
    """
    paths = stac.item_paths(entries)
    content = {path: stac.item(entry, path) for entry, path in zip(entries, paths, strict=True)}
    content |= reversed(list(stac.catalogues(entries, paths)))
    written = [_write_if_other(folder / path, _text(value)) for path, value in content.items()]
    removed = _remove_others(folder, set(content))
    is_new = _write_if_other(folder / INDEX, index.index_bytes(entries, paths, about), keep=True)
    return any(written) or removed or is_new


def _text(value: Mapping[str, Any]) -> bytes:
    """Return JSON values as the bytes of a file."""
    return (json.dumps(value, indent=1) + "\n").encode()


def _write_if_other(path: Path, content: bytes, *, keep: bool = False) -> bool:
    """Write a file unless it holds these bytes; return whether it was written.

    ``keep`` waits until the disk holds it.
    """
    try:
        if path.read_bytes() == content:
            return False
    except OSError:
        pass
    with atomic(path) as draft:
        draft.write_bytes(content)
        if keep:
            sync(draft)
    return True


def _remove_others(folder: Path, paths: set[str]) -> bool:
    """Remove the items and catalogues that are no longer named, and emptied folders.

    Files of other people's stay. Returns whether anything was removed.
    """
    has_removed = False
    below = sorted((folder / ITEMS).rglob("*"), reverse=True)  # what is in a folder before the folder
    for path in below:
        is_item = path.name == CATALOG or path.name.endswith(".item.json")
        if is_item and path.relative_to(folder).as_posix() not in paths:
            path.unlink()
            has_removed = True
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return has_removed
