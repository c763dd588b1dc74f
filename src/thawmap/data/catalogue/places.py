"""Places of a catalogue: its folder, what it searches, and paths that count from there."""

import os
from pathlib import Path

from thawmap.config import RasterScenes, SceneSettings
from thawmap.data.catalogue.layout import INDEX
from thawmap.files.hashes import json_sha256
from thawmap.files.listing import matches

_MOST_ABOVE = 2  # levels above a searched folder at which its catalogue may lie
_WILD = frozenset("*?[")


def settings_fingerprint(settings: SceneSettings) -> str:
    """Return a hash of the settings that decide how scenes are read, not where."""
    return json_sha256(settings.model_dump(mode="json", exclude={"path", "table", "region"}), digits=16)


def searched_folders(settings: SceneSettings) -> list[Path]:
    """Return the folders in which the settings look for scenes, as far as they exist.

    Of rasters it is the folder of the table, or the last one of the pattern that is plain.
    """
    if not isinstance(settings, RasterScenes):
        return [path for path in matches(str(settings.path)) if path.is_dir()]
    if settings.table is not None:
        return [settings.table.parent]
    assert settings.path is not None
    plain = settings.path.parent
    while _WILD & set(str(plain)):
        plain = plain.parent
    return [plain] if plain.is_dir() else []


def nearest_index(folder: Path) -> tuple[Path, str] | None:
    """Return the folder of the nearest catalogue, and the path from there to a folder.

    It lies in the folder itself or up to two levels above it, by names: links are not followed. None where there is
    none.
    """
    spelled = _with_parents(folder)
    below: list[str] = []
    for _ in range(_MOST_ABOVE + 1):
        if (spelled / INDEX).is_file():
            return spelled, "/".join(reversed(below))
        if spelled.parent == spelled:
            return None
        below.append(spelled.name)
        spelled = spelled.parent
    return None


def relative(path: Path, folder: Path) -> str | None:
    """Return a path as it counts from a folder, with slashes; None if it is not below.

    "" for the folder itself. Names are compared, links are not followed.
    """
    prefix = os.path.join(folder, "")  # noqa: PTH118 - with the slash at its end
    text = str(path)
    if text.startswith(prefix) and ".." not in text:  # as most are: asked of every file
        return text[len(prefix) :].replace(os.sep, "/")
    top, below = os.path.abspath(folder), os.path.abspath(path)  # noqa: PTH100 - keeps links
    if below == top:
        return ""
    prefix = os.path.join(top, "")  # noqa: PTH118 - with the slash at its end
    return below[len(prefix) :].replace(os.sep, "/") if below.startswith(prefix) else None


def folder_of(path: str) -> str:
    """Return the folder of a path with slashes; "" for the catalogue's own."""
    return path.rpartition("/")[0]


def _with_parents(folder: Path) -> Path:
    """Return a folder spelled with so many parents that the highest place has a name."""
    usual = Path(os.path.normpath(folder))
    names = [part for part in usual.parts if part != os.sep]
    if usual.is_absolute() or (len(names) > _MOST_ABOVE and ".." not in names[-_MOST_ABOVE:]):
        return usual
    return Path(os.path.abspath(folder))  # noqa: PTH100 - keeps links
