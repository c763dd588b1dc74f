"""Records: what a catalogue keeps of a scene, as a text, and the scene made of it again."""

import json
import os
from collections.abc import Iterator, Mapping, ValuesView
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from affine import Affine
from odc.geo.geobox import GeoBox

from thawmap.data.catalogue.layout import Entry
from thawmap.data.sources.base import Mask, Reading, Scene


def record_text(entry: Entry) -> str:
    """Return what of an entry makes its scene again, as JSON on one line."""
    record = {
        "files": [[file.key, file.path, file.size, file.mtime_ns, file.is_used] for file in entry.files],
        "kind": entry.kind,
        "acquired": None if entry.acquired is None else entry.acquired.isoformat(),
        "processing": entry.processing,
        "crs": entry.crs,
        "shape": list(entry.shape),
        "transform": list(entry.transform),
        "readings": entry.readings,
        "masks": list(entry.masks),
        "scene_notes": list(entry.scene_notes),
        "notes": list(entry.notes),
        "usable": entry.usable,
    }
    return json.dumps(record, separators=(",", ":"))


def readings_of(scene: Scene) -> dict[str, dict[str, Any]]:
    """Return a scene's readings as JSON values."""
    return {name: asdict(reading) for name, reading in scene.readings.items()}


def masks_of(scene: Scene) -> tuple[dict[str, Any], ...]:
    """Return a scene's masks as JSON values."""
    return tuple({"file": mask.file, "bands": list(mask.bands), "usable": list(mask.usable)} for mask in scene.masks)


def files_of(text: str) -> list[tuple[str, tuple[int, int]]]:
    """Return the path of each file of a record, with its size and time of change."""
    return [(path, (size, mtime)) for _, path, size, mtime, _ in json.loads(text)["files"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is told of a scene in a table.

    Attributes:
        acquired: UTC time of the image; None where unknown.
        shape: Rows and columns of its grid.
        crs: CRS of its grid: EPSG code or WKT.
        layers: Layers of its own files.
        usable: Share of its pixels that can be used, 0..1; None where nobody has looked.
        notes: Sentences that a user should know.
    """

    acquired: datetime | None
    shape: tuple[int, int]
    crs: str
    layers: frozenset[str]
    usable: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KnownScene:
    """What a catalogue knows of a scene, read when it is asked for.

    Attributes:
        id: Id of the scene.
        folder: The catalogue's folder.
        text: The record, as `record_text` writes it.
        found: Time of the candidate, which is the scene's where settings tell it and files do not.
    """

    id: str
    folder: Path
    text: str
    found: datetime | None

    @property
    def content(self) -> dict[str, Any]:
        """The record's JSON values."""
        content: dict[str, Any] = json.loads(self.text)
        return content

    @property
    def paths(self) -> list[str]:
        """Paths of the scene's files, from the catalogue's folder."""
        return [path for _, path, *_ in self.content["files"]]

    def seen(self) -> Seen:
        """Return what was seen of the scene when the catalogue was written."""
        content = self.content
        return Seen(
            acquired=self._acquired(content),
            shape=tuple(content["shape"]),
            crs=content["crs"],
            layers=frozenset(content["readings"]),
            usable=content["usable"],
            notes=tuple(content["notes"]),
        )

    def scene(self) -> Scene | None:
        """Return the scene, without its region; None if one of its files has changed."""
        content = self.content
        if not all(_is_unchanged(self.folder / path, size, mtime) for _, path, size, mtime, _ in content["files"]):
            return None
        masks = (
            Mask(file=mask["file"], bands=tuple(mask["bands"]), usable=tuple(mask["usable"]))
            for mask in content["masks"]
        )
        return Scene(
            id=self.id,
            sensor=content["kind"],
            geobox=GeoBox(tuple(content["shape"]), Affine(*content["transform"]), content["crs"]),
            files={key: self.folder / path for key, path, _, _, is_used in content["files"] if is_used},
            acquired=self._acquired(content),
            readings={name: Reading(**reading) for name, reading in content["readings"].items()},
            masks=tuple(masks),
            notes=tuple(content["scene_notes"]),
        )

    def _acquired(self, content: Mapping[str, Any]) -> datetime | None:
        """Return the time of the image: of rasters as settings tell it now, if at all."""
        if content["kind"] == "rasters":
            return self.found
        return None if content["acquired"] is None else datetime.fromisoformat(content["acquired"])


class RecordedFiles(Mapping[str, Path]):
    """The files of a candidate by their paths, read from its record when asked for."""

    __slots__ = ("_known",)

    def __init__(self, known: KnownScene) -> None:
        self._known = known

    def _paths(self) -> dict[str, Path]:
        paths = [self._known.folder / path for path in self._known.paths]
        return {str(path): path for path in paths}

    def __getitem__(self, key: str) -> Path:
        """Return the path of a file by its text."""
        return self._paths()[key]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the paths as texts."""
        return iter(self._paths())

    def values(self) -> ValuesView[Path]:
        """Return the paths, read once."""
        return self._paths().values()

    def __len__(self) -> int:
        """Count the files."""
        return len(self._paths())


def _is_unchanged(path: Path, size: int, mtime_ns: int) -> bool:
    """Return whether a file has the size and the time of last change that it had."""
    try:
        status = os.stat(path)  # noqa: PTH116 - quicker, and asked of every file
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (size, mtime_ns)
