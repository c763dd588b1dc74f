"""Refuse to replace what is no map, or no longer as it was made.

A map's item lists what every file held, and the item itself.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thawmap.errors import DataError
from thawmap.files.atomic import write_json
from thawmap.files.guard import changed_files, content_hashes, some_of
from thawmap.files.hashes import json_sha256
from thawmap.maps.item import MapItem
from thawmap.maps.job import MapJob
from thawmap.maps.layout import FILES, ITEM

_NOTES = ".qmd"  # what a user noted on a layer in QGIS, beside its file


def write_item(folder: Path, item: Mapping[str, Any]) -> None:
    """Write a map's STAC item as JSON, with the hashes of all files of its folder.

    The other files must be there. Its own hash is listed too.
    """
    files = content_hashes(folder, leave_out=[ITEM]) | {ITEM: _fingerprint(item)}
    complete = {**item, "properties": {**item["properties"], FILES: files}}
    write_json(folder / ITEM, complete)


def is_finished(job: MapJob, folder: Path) -> bool:
    """Return whether a folder has a job's map, with its fingerprint and all files."""
    try:
        item = MapItem.read(folder)
    except DataError:
        return False
    return item.fingerprint == job.fingerprint and all(file.exists() for file in item.assets.values())


def is_due(job: MapJob, folder: Path) -> bool:
    """Return whether a map is not finished; refuse a folder that it may not replace.

    Raises:
        DataError: As `check_replaceable`.
    """
    if is_finished(job, folder):
        return False
    check_replaceable(job, folder)
    return True


def check_replaceable(job: MapJob, folder: Path) -> None:
    """Refuse a folder unless it is absent, empty, or this scene's map and unchanged.

    Raises:
        DataError: If it is anything else, holds other files too, or one was changed.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    item = _item_of_ours(folder)
    if item is None or item.content.get("id") != job.scene.id or item.is_fused != job.is_fused:
        content = f"holds {some_of(sorted(path.name for path in folder.iterdir()))}" if folder.is_dir() else "is a file"
        msg = (
            f"{folder} {content}, which is no map of {job.scene.id} to be made again; move it away, or name "
            "another --out"
        )
        raise DataError(msg)
    fingerprints_then = item.properties.get(FILES)
    if not isinstance(fingerprints_then, dict):
        msg = f"{folder} does not say what was made there, and may hold work of yours; move it away, and run again"
        raise DataError(msg)
    changed = [name for name in changed_files(folder, fingerprints_then, leave_out=[ITEM]) if not name.endswith(_NOTES)]
    changed += [ITEM] if _fingerprint(item.content) != fingerprints_then.get(ITEM) else []
    if changed:
        msg = (
            f"{folder} was changed since it was made ({some_of(changed)}), and a new map would take its place; move it "
            "away to keep it, or name another --out"
        )
        raise DataError(msg)


def replace_map(folder: Path, draft: Path, *, job: MapJob) -> None:
    """Refuse a folder that is not the job's map; else copy its QGIS notes to a draft.

    Notes on layers are files that QGIS writes beside them.

    Raises:
        DataError: As `check_replaceable`.
    """
    check_replaceable(job, folder)
    for path in folder.glob(f"*{_NOTES}"):
        shutil.copy2(path, draft)


def _fingerprint(item: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a STAC item's JSON, without its list of file hashes."""
    properties = {name: value for name, value in item["properties"].items() if name != FILES}
    return json_sha256({**item, "properties": properties})


def _item_of_ours(folder: Path) -> MapItem | None:
    """Return the STAC item in a folder; None unless it is readable and thawmap's own."""
    try:
        item = MapItem.read(folder)
    except DataError:
        return None
    return None if item.fingerprint is None else item
