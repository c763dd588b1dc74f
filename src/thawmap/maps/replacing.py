"""Whether a map is to be made, and may take the place of what is there: of a map only just as it was made."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thawmap.errors import DataError
from thawmap.files.atomic import write_json
from thawmap.files.guard import fingerprints, not_as_made, some_of
from thawmap.files.hashes import json_sha256
from thawmap.maps.item import MapItem
from thawmap.maps.job import MapJob
from thawmap.maps.layout import FILES, ITEM

_NOTES = ".qmd"  # what a user noted on a layer in QGIS, beside its file


def write_item(folder: Path, item: Mapping[str, Any]) -> None:
    """Write the STAC item of a map whose other files are there, with what each of them and the item itself hold."""
    files = fingerprints(folder, but=[ITEM]) | {ITEM: _fingerprint(item)}
    whole = {**item, "properties": {**item["properties"], FILES: files}}
    write_json(folder / ITEM, whole)


def is_finished(job: MapJob, folder: Path) -> bool:
    """Return whether a map's folder has all of its files, made from just what the job says."""
    try:
        item = MapItem.read(folder)
    except DataError:
        return False
    return item.fingerprint == job.fingerprint and all(file.exists() for file in item.assets.values())


def is_due(job: MapJob, folder: Path) -> bool:
    """Return whether a map is still to be made in its folder.

    Raises:
        DataError: As `check_replaceable`.
    """
    if is_finished(job, folder):
        return False
    check_replaceable(job, folder)
    return True


def check_replaceable(job: MapJob, folder: Path) -> None:
    """Refuse to replace what stands in a map's folder, unless it is a map of the job's scene just as it was made.

    Raises:
        DataError: If it is anything else, holds other files too, or one was changed.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    item = _item_of_ours(folder)
    if item is None or item.content.get("id") != job.scene.id or item.is_fused != job.is_fused:
        what = f"holds {some_of(sorted(path.name for path in folder.iterdir()))}" if folder.is_dir() else "is a file"
        msg = (
            f"{folder} {what}, which is no map of {job.scene.id} to be made again; move it away, or name another --out"
        )
        raise DataError(msg)
    made = item.properties.get(FILES)
    if not isinstance(made, dict):
        msg = f"{folder} does not say what was made there, and may hold work of yours; move it away, and run again"
        raise DataError(msg)
    changed = [name for name in not_as_made(folder, made, but=[ITEM]) if not name.endswith(_NOTES)]
    changed += [ITEM] if _fingerprint(item.content) != made.get(ITEM) else []
    if changed:
        msg = (
            f"{folder} was changed since it was made ({some_of(changed)}), and a new map would take its place; move it "
            "away to keep it, or name another --out"
        )
        raise DataError(msg)


def replace_map(folder: Path, draft: Path, *, job: MapJob) -> None:
    """Let a new map take the place of one; what a user noted on its layers in QGIS is copied to the new one.

    Raises:
        DataError: As `check_replaceable`.
    """
    check_replaceable(job, folder)
    for path in folder.glob(f"*{_NOTES}"):
        shutil.copy2(path, draft)


def _fingerprint(item: Mapping[str, Any]) -> str:
    """SHA-256 of an item, without what it says of files."""
    properties = {name: value for name, value in item["properties"].items() if name != FILES}
    return json_sha256({**item, "properties": properties})


def _item_of_ours(folder: Path) -> MapItem | None:
    """Return the item of a map; None where there is none that this program wrote."""
    try:
        item = MapItem.read(folder)
    except DataError:
        return None
    return None if item.fingerprint is None else item
