"""Scenes made of any raster files, found by pattern or listed in a table."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from thawmap.config import Band, RasterScenes
from thawmap.data.raster.io import RasterInfo, raster_info
from thawmap.data.sources.base import Candidate, Mask, Reading, Scene
from thawmap.data.sources.finding import as_time, find_file, misnamed, safe_id, table_rows, usable_id, warn_of_times
from thawmap.errors import ConfigError, DataError
from thawmap.files.listing import matches


def candidates(settings: RasterScenes, *, places: Sequence[Path] = ()) -> list[Candidate]:
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
        found = [_candidate(place, settings) for place in matches(str(settings.path))]
    if not found and settings.table is not None:
        msg = f"{settings.table} lists no scene; give each a row with id, region, path and acquired"
        raise ConfigError(msg)
    if not found:
        msg = f"no scene matches {settings.path}; correct 'scenes.path', patterns are as in a shell"
        raise ConfigError(msg)
    found.sort(key=lambda candidate: candidate.id)
    for one, other in pairwise(found):
        if one.id == other.id:
            msg = f"two scenes have the id {one.id!r}: {one.place} and {other.place}; give each its own"
            raise ConfigError(msg)
    return found


def open_scene(candidate: Candidate, settings: RasterScenes) -> Scene:
    """The scene with its files found and its grid read; headers only.

    Raises:
        DataError: If a file is missing, damaged, without CRS, or lacks a mapped band.
    """
    keys = [*settings.files, *([settings.valid.file] if settings.valid else [])]
    files = {key: find_file(candidate, key) for key in keys}
    _check_own_file(candidate, files.values())
    infos = {key: raster_info(path) for key, path in files.items()}
    for key, mapping in settings.files.items():
        _check_bands(infos[key], mapping)
    masks: tuple[Mask, ...] = ()
    if settings.valid is not None:
        _check_bands(infos[settings.valid.file], {"valid": Band(band=settings.valid.band)})
        masks = (Mask(file=settings.valid.file, bands=(settings.valid.band,), usable=settings.valid.usable),)
    return Scene(
        id=candidate.id,
        sensor=settings.kind,
        geobox=infos[settings.grid or next(iter(settings.files))].geobox,
        files=files,
        acquired=candidate.acquired,
        region=candidate.region,
        readings={
            name: Reading(file=file, **band.model_dump())
            for file, mapping in settings.files.items()
            for name, band in mapping.items()
        },
        masks=masks,
        notes=tuple(
            note for key, mapping in settings.files.items() for note in _about_numbers(key, infos[key], mapping)
        ),
    )


def _check_own_file(candidate: Candidate, files: Iterable[Path]) -> None:
    """A scene that is a file must be read from it, not from another scene's."""
    if candidate.place.is_file() and not any(file.samefile(candidate.place) for file in files):
        msg = f"none of 'scenes.files' is the scene's own file; name it '{{name}}{candidate.place.suffix}'"
        raise DataError(msg)


def _check_bands(info: RasterInfo, mapping: Mapping[str, Band]) -> None:
    for name, band in mapping.items():
        if band.band > info.count:
            msg = (
                f"{info.path.name} has no band {band.band} for layer {name!r}; it has 1 to {info.count}, correct "
                f"'scenes.files'"
            )
            raise DataError(msg)


def _about_numbers(key: str, info: RasterInfo, mapping: Mapping[str, Band]) -> Iterator[str]:
    """What a file says of its numbers, and the settings do not obey or cannot."""
    scaled = defaultdict[tuple[float, ...], list[str]](list)
    for name, band in mapping.items():
        own = info.scales[band.band - 1], info.offsets[band.band - 1]
        if own != (1, 0) and not np.allclose(own, (band.scale, band.offset), rtol=1e-6):
            scaled[*own, band.scale, band.offset].append(name)
    for (scale, offset, asked_scale, asked_offset), names in scaled.items():
        yield (
            f"{key} itself says scale {scale:g} and offset {offset:g} for {', '.join(names)}, and 'scenes.files' "
            f"{asked_scale:g} and {asked_offset:g}, which are used"
        )
    named = {band.nodata for band in mapping.values() if band.nodata is not None}
    for number in sorted(number for number in named if not _holds(info.dtype, number)):
        yield f"'nodata: {number:g}' is never met in {key}, whose numbers are {info.dtype}; often 0 means missing there"


def _holds(dtype: str, number: float) -> bool:
    """Whether a stored number of a type can be this one."""
    if not np.issubdtype(dtype, np.integer):
        return True
    range_ = np.iinfo(dtype)
    return float(number).is_integer() and range_.min <= number <= range_.max


def _candidate(place: Path, settings: RasterScenes) -> Candidate:
    name = _name(place)
    region = settings.region.replace("{parent}", place.absolute().parent.name) if settings.region else None
    return Candidate(name=name, place=place, id=usable_id(name), region=region, fault=misnamed(place, name))


def _name(place: Path) -> str:
    return place.stem if place.is_file() else place.absolute().name


def _from_table(table: Path) -> Iterator[Candidate]:
    rows = list(table_rows(table, ("id", "path")))
    warn_of_times({number: row.get("acquired", "") for number, row in rows}, table)
    for number, row in rows:
        where = f"{table}:{number}"
        if not row["path"]:
            msg = f"{where}: scene {row['id']!r} has no path; give its folder or file, from the table's folder"
            raise ConfigError(msg)
        place = table.parent / row["path"]
        yield Candidate(
            name=_name(place),
            place=place,
            id=safe_id(row["id"], where),
            region=row.get("region") or None,
            acquired=as_time(row.get("acquired", "")),
        )
