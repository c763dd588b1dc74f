"""Names, keys and columns of a catalogue, and an entry: a scene as it is kept there."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

VERSION = 1
"""Number of the layout; a catalogue of another one is written anew."""

CATALOG = "catalog.json"
INDEX = "catalog.parquet"
ITEMS = "catalog"
OWN = frozenset({CATALOG, INDEX, ITEMS})
"""Names in a folder that are its catalogue's own."""

KIND, REGION, PROCESSING = "thawmap:kind", "thawmap:region", "thawmap:processing"
USABLE, NOTES = "thawmap:usable", "thawmap:notes"
"""Properties of an item."""

RECORD, NAME, PATH, FOUND, FOLDERS = (
    "thawmap:record", "thawmap:name", "thawmap:path", "thawmap:found", "thawmap:folders",
)  # fmt: skip
"""Columns of the index that are no properties: what opening the scene again would read, and its candidate."""

ABOUT = b"thawmap"
"""Key of the index's metadata that holds JSON on the whole catalogue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of a scene, as it was when the scene was opened.

    Attributes:
        key: Role of the file in the scene; the file's own name where the reader leaves it aside.
        path: Where it is, from the catalogue's folder, with slashes.
        size: Bytes.
        mtime_ns: Time of its last change, in nanoseconds.
        sha256: Checksum; None where nobody has told it.
        is_used: Whether the scene's layers, mask or metadata come from it.
    """

    key: str
    path: str
    size: int
    mtime_ns: int
    sha256: str | None = None
    is_used: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A scene as a catalogue keeps it.

    Attributes:
        id: Its id.
        name: Name of its candidate.
        path: Its candidate's folder or file, from the catalogue's folder.
        kind: Kind of scenes: planetscope, sentinel2 or rasters.
        region: Its region; None where it has none.
        found: UTC time that its candidate's name tells; None where it tells none.
        acquired: UTC time of the image; None where unknown.
        processing: What was made of its numbers, such as "baseline 05.11"; "" where unknown.
        files: Its files.
        folders: Folders, from the catalogue's, in which a new file could change how it is read.
        crs: CRS of its grid: EPSG code or WKT.
        shape: Rows and columns of its grid.
        transform: The first six coefficients of its grid's transform.
        outline: Footprint in EPSG:4326, as WKB, cut at the antimeridian.
        bbox: West, south, east, north in degrees; west is larger across the antimeridian.
        readings: JSON values of the scene's readings.
        masks: JSON values of the scene's masks.
        scene_notes: Sentences of the scene itself.
        notes: Sentences after a look at its pixels.
        usable: Share of its pixels that can be used, 0..1; None where the look failed.
    """

    id: str
    name: str
    path: str
    kind: str
    region: str | None
    found: datetime | None
    acquired: datetime | None
    processing: str
    files: tuple[File, ...]
    folders: tuple[str, ...]
    crs: str
    shape: tuple[int, int]
    transform: tuple[float, ...]
    outline: bytes
    bbox: tuple[float, float, float, float]
    readings: Mapping[str, Mapping[str, Any]]
    masks: tuple[Mapping[str, Any], ...]
    scene_notes: tuple[str, ...]
    notes: tuple[str, ...]
    usable: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The contents of a folder in two short hashes.

    Attributes:
        names: Hash of the names of its files and of the folders in it.
        stamps: Hash of these names with the size and time of last change of each file.
    """

    names: str
    stamps: str
