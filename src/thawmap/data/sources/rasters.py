"""Scenes made of any raster files, found by pattern or listed in a table."""

import csv
import glob
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from thawmap.config import Band, SceneSettings
from thawmap.data.io import raster_info, read_raster
from thawmap.data.sources.base import Scene
from thawmap.errors import ConfigError, DataError, ThawmapError

_log = logging.getLogger(__name__)

_COLUMNS = ("id", "path")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A scene that is named somewhere, its files not yet opened.

    Attributes:
        name: Name of its folder, or of its file without the ending.
        place: Its folder or file.
        id: Unique id.
        region: Region, where known.
        acquired: UTC time of the image; None where unknown.
    """

    name: str
    place: Path
    id: str
    region: str | None
    acquired: datetime | None


@dataclass(frozen=True, slots=True)
class RasterSource:
    """Reads the layers that the settings map to files and bands."""

    settings: SceneSettings
    layers: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """List the mapped layers."""
        names = frozenset(name for bands in self.settings.files.values() for name in bands)
        object.__setattr__(self, "layers", names)

    def read(self, scene: Scene, geobox: GeoBox, layers: Sequence[str]) -> xr.Dataset:
        """The layers (y, x), float32 in physical units, NaN where missing, and `valid` where a mask is mapped.

        Raises:
            DataError: If a file is missing, damaged, without CRS, or without a mapped band.
        """
        stack = xr.Dataset(coords=xr_coords(geobox, dims=("y", "x")))
        for file, mapping in self.settings.files.items():
            wanted = {name: band for name, band in mapping.items() if name in layers}
            for alike in _alike(wanted):
                first = next(iter(alike.values()))
                read = read_raster(
                    scene.files[file],
                    geobox,
                    bands=[band.band for band in alike.values()],
                    resampling=first.resampling,
                    nodata=first.nodata,
                ).values
                for values, (name, band) in zip(read, alike.items(), strict=True):
                    stack[name] = (("y", "x"), values * np.float32(band.scale) + np.float32(band.offset))
        mask = self.settings.valid
        if mask is not None:
            stored = read_raster(scene.files[mask.file], geobox, bands=[mask.band], resampling="nearest").values[0]
            stack["valid"] = (("y", "x"), np.isin(stored, mask.usable))
        return stack


def _alike(bands: Mapping[str, Band]) -> Iterator[dict[str, Band]]:
    """Bands of one file that can be read together."""
    groups: dict[tuple[str | None, float | None], dict[str, Band]] = {}
    for name, band in bands.items():
        groups.setdefault((band.resampling, band.nodata), {})[name] = band
    yield from groups.values()


def candidates(settings: SceneSettings, *, places: Sequence[Path] = ()) -> list[Candidate]:
    """The scenes that the settings name, or those at ``places`` instead, in order of their ids.

    Raises:
        ConfigError: If there is none, the table is missing or lacks a column, or two have one id.
    """
    listed = [] if settings.table is None else list(_from_table(settings.table))
    if places:
        known = {one.place.resolve(): one for one in listed}
        found = [known.get(place.resolve()) or _candidate(place, settings) for place in places]
    elif settings.table is not None:
        found = listed
    else:
        found = [_candidate(place, settings) for place in _matches(str(settings.path))]
    if not found:
        msg = f"no scene matches {settings.path or settings.table}; correct 'scenes.path', patterns are as in a shell"
        raise ConfigError(msg)
    found.sort(key=lambda candidate: candidate.id)
    for one, other in pairwise(found):
        if one.id == other.id:
            msg = f"two scenes have the id {one.id!r}: {one.place} and {other.place}; give each its own"
            raise ConfigError(msg)
    return found


def open_scene(candidate: Candidate, settings: SceneSettings, *, labels: str | None = None) -> Scene:
    """The scene with its files found and its grid read; headers only.

    Args:
        candidate: The scene as it was found.
        settings: Which files hold which layers.
        labels: The scene's label raster, named as in `scenes.files`; it becomes the file "labels".

    Raises:
        DataError: If a file is missing, damaged, without CRS, or lacks a mapped band.
    """
    keys = [*settings.files, *([settings.valid.file] if settings.valid else [])]
    try:
        files = {key: find_file(candidate, key) for key in keys}
        if labels is not None:
            files["labels"] = find_file(candidate, labels)
        _check_own_file(candidate, files.values())
        for key, mapping in settings.files.items():
            _check_bands(files[key], mapping)
        if settings.valid is not None:
            _check_bands(files[settings.valid.file], {"valid": Band(band=settings.valid.band)})
        geobox = raster_info(files[settings.grid or next(iter(settings.files))]).geobox
    except ThawmapError as error:
        msg = f"scene {candidate.id}: {error}"
        raise DataError(msg) from error
    return Scene(
        id=candidate.id,
        sensor=settings.kind,
        geobox=geobox,
        files=files,
        acquired=candidate.acquired,
        region=candidate.region,
    )


def find_file(candidate: Candidate, key: str) -> Path:
    """The one file that ``key`` (a name or pattern, with `{name}`) means for a scene.

    Raises:
        DataError: If there is none, or more than one.
    """
    if not candidate.place.exists():
        msg = f"{candidate.place} does not exist; correct the path in 'scenes.table'"
        raise DataError(msg)
    folder = candidate.place if candidate.place.is_dir() else candidate.place.parent
    wanted = key.replace("{name}", glob.escape(candidate.name))
    found = _matches(str(Path(glob.escape(str(folder))) / wanted))
    if len(found) != 1:
        got = "is not there" if not found else f"matches {len(found)} files, such as {found[0].name}, {found[1].name}"
        own = "" if candidate.place.is_dir() else f", and '{{name}}{candidate.place.suffix}' for its own"
        msg = f"file {wanted!r} {got} in {folder}; name exactly one file a scene in 'scenes.files'{own}"
        raise DataError(msg)
    return found[0]


def _matches(pattern: str) -> list[Path]:
    """What a shell would match, in order of names; patterns may be absolute, which `Path.glob` refuses."""
    return sorted(Path(name) for name in glob.glob(pattern))  # noqa: PTH207


def _check_own_file(candidate: Candidate, files: Iterable[Path]) -> None:
    """A scene that is a file must be read from it, not from another scene's."""
    if candidate.place.is_file() and not any(file.samefile(candidate.place) for file in files):
        msg = f"none of 'scenes.files' is the scene's own file; name it '{{name}}{candidate.place.suffix}'"
        raise DataError(msg)


def _check_bands(path: Path, mapping: Mapping[str, Band]) -> None:
    count = raster_info(path).count
    for name, band in mapping.items():
        if band.band > count:
            msg = f"{path.name} has no band {band.band} for layer {name!r}; it has 1 to {count}, correct 'scenes.files'"
            raise DataError(msg)


def _candidate(place: Path, settings: SceneSettings) -> Candidate:
    name = _name(place)
    region = settings.region.replace("{parent}", place.absolute().parent.name) if settings.region else None
    return Candidate(name=name, place=place, id=_safe(name, str(place)), region=region, acquired=None)


def _name(place: Path) -> str:
    return place.stem if place.is_file() else place.absolute().name


def _from_table(table: Path) -> Iterator[Candidate]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            absent = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
            if absent:
                msg = (
                    f"{table} has no column {absent[0]!r}; it needs id and path, may have region and acquired, "
                    f"and separates them by commas"
                )
                raise ConfigError(msg)
            rows = list(enumerate(reader, start=2))
            _warn_of_times({number: (row.get("acquired") or "").strip() for number, row in rows}, table)
            yield from (_from_row(row, table, number) for number, row in rows)
    except OSError as error:
        msg = f"{table} cannot be read ({error.strerror}); correct 'scenes.table'"
        raise ConfigError(msg) from error
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{table} is not a table that can be read ({error}); save it as CSV in UTF-8"
        raise ConfigError(msg) from error


def _from_row(row: Mapping[str, str | None], table: Path, number: int) -> Candidate:
    where = f"{table}:{number}"
    text = {column: (row.get(column) or "").strip() for column in (*_COLUMNS, "region", "acquired")}
    if not text["path"]:
        msg = f"{where}: scene {text['id']!r} has no path; give its folder or file, from the table's folder"
        raise ConfigError(msg)
    place = table.parent / text["path"]
    return Candidate(
        name=_name(place),
        place=place,
        id=_safe(text["id"], where),
        region=text["region"] or None,
        acquired=_time(text["acquired"]),
    )


def _time(text: str) -> datetime | None:
    """A time in UTC; None where it is not given or makes no sense."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _warn_of_times(texts: Mapping[int, str], table: Path) -> None:
    """Say once which lines of a table have a time that makes no sense: it is taken as unknown, not guessed."""
    strange = {number: text for number, text in texts.items() if text and _time(text) is None}
    if strange:
        number, text = next(iter(strange.items()))
        more = f" (and {len(strange) - 1} more lines)" if len(strange) > 1 else ""
        _log.warning(
            "%s:%d: acquired is %r, which is no date such as 2019-07-14; taken as unknown%s", table, number, text, more
        )


def _safe(name: str, where: str) -> str:
    if not name or name.startswith(".") or re.search(r"[^\w.+@-]", name):
        msg = f"{where}: scene id {name!r} cannot name a folder; use letters, digits, '_', '-', '.', '+' and '@'"
        raise ConfigError(msg)
    return name
