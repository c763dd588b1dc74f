"""Scenes made of any raster files, found by pattern or listed in a table."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from thawmap.config import Band, RasterScenes
from thawmap.data.raster.io import RasterInfo, raster_info
from thawmap.data.sources.base import Candidate, Mask, Reading, Scene
from thawmap.data.sources.finding import (
    check_id,
    find_file,
    name_fault,
    parse_time,
    read_table_rows,
    usable_id,
    warn_of_times,
)
from thawmap.errors import ConfigError, DataError
from thawmap.files.listing import matches


def candidates(settings: RasterScenes, *, paths: Sequence[Path] = ()) -> list[Candidate]:
    """Return the candidates that the settings name, or those at ``paths``, by id.

    In order of their ids. A path that the settings' table lists has its id and region from there.

    Raises:
        ConfigError: If there is none, the table is missing or lacks a column, or two have one id.
    """
    listed = [] if settings.table is None else list(_from_table(settings.table))
    if paths:
        by_path = {candidate.path.resolve(): candidate for candidate in listed}
        scenes = [by_path.get(path.resolve()) or _candidate(path, settings) for path in paths]
    elif settings.table is not None:
        scenes = listed
    else:
        scenes = [_candidate(path, settings) for path in matches(str(settings.path))]
    if not scenes and settings.table is not None:
        msg = f"{settings.table} lists no scene; give each a row with id, region, path and acquired"
        raise ConfigError(msg)
    if not scenes:
        msg = f"no scene matches {settings.path}; correct 'scenes.path', patterns are as in a shell"
        raise ConfigError(msg)
    scenes.sort(key=lambda candidate: candidate.id)
    for first, second in pairwise(scenes):
        if first.id == second.id:
            msg = f"two scenes have the id {first.id!r}: {first.path} and {second.path}; give each its own"
            raise ConfigError(msg)
    return scenes


def open_scene(candidate: Candidate, settings: RasterScenes) -> Scene:
    """Open a candidate as a scene with the settings' files, bands and mask.

    Only headers are read.

    Raises:
        DataError: If a file is missing, damaged, without CRS, or lacks a mapped band.
    """
    keys = [*settings.files, *([settings.valid.file] if settings.valid else [])]
    files = {key: find_file(candidate, key) for key in keys}
    if candidate.path.is_file() and not any(file.samefile(candidate.path) for file in files.values()):
        # else it would silently be read from another scene's file
        msg = f"none of 'scenes.files' is the scene's own file; name it '{{name}}{candidate.path.suffix}'"
        raise DataError(msg)
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
            note for key, mapping in settings.files.items() for note in _number_notes(key, infos[key], mapping)
        ),
    )


def _check_bands(info: RasterInfo, mapping: Mapping[str, Band]) -> None:
    """Refuse a file that lacks a band of the mapping from layers to bands."""
    for name, band in mapping.items():
        if band.band > info.count:
            msg = (
                f"{info.path.name} has no band {band.band} for layer {name!r}; it has 1 to {info.count}, correct "
                f"'scenes.files'"
            )
            raise DataError(msg)


def _number_notes(key: str, info: RasterInfo, mapping: Mapping[str, Band]) -> Iterator[str]:
    """Yield notes on scale, offset and nodata where a file differs from the settings.

    ``mapping`` is layer to band of the settings, which are used.
    """
    scaled = defaultdict[tuple[float, ...], list[str]](list)
    for name, band in mapping.items():
        own = info.scales[band.band - 1], info.offsets[band.band - 1]
        if own != (1, 0) and not np.allclose(own, (band.scale, band.offset), rtol=1e-6):
            scaled[*own, band.scale, band.offset].append(name)
    for (scale, offset, used_scale, used_offset), names in scaled.items():
        yield (
            f"{key} itself says scale {scale:g} and offset {offset:g} for {', '.join(names)}, and 'scenes.files' "
            f"{used_scale:g} and {used_offset:g}, which are used"
        )
    if not np.issubdtype(info.dtype, np.integer):
        return
    low, high = np.iinfo(info.dtype).min, np.iinfo(info.dtype).max
    for number in sorted({band.nodata for band in mapping.values() if band.nodata is not None}):
        if not (float(number).is_integer() and low <= number <= high):
            yield (
                f"'nodata: {number:g}' is never met in {key}, whose numbers are {info.dtype}; often 0 means missing "
                f"there"
            )


def _candidate(path: Path, settings: RasterScenes) -> Candidate:
    """Return a file or folder as a candidate, with the region of the settings."""
    name = _name(path)
    region = settings.region.replace("{parent}", path.absolute().parent.name) if settings.region else None
    return Candidate(name=name, path=path, id=usable_id(name), region=region, fault=name_fault(path, name))


def _name(path: Path) -> str:
    """Return the name of a folder, or of a file without its ending."""
    return path.stem if path.is_file() else path.absolute().name


def _from_table(table: Path) -> Iterator[Candidate]:
    """Yield the candidates of a table, and refuse rows without path or usable id."""
    rows = list(read_table_rows(table, ("id", "path")))
    warn_of_times({number: row.get("acquired", "") for number, row in rows}, table)
    for number, row in rows:
        line = f"{table}:{number}"
        if not row["path"]:
            msg = f"{line}: scene {row['id']!r} has no path; give its folder or file, from the table's folder"
            raise ConfigError(msg)
        path = table.parent / row["path"]
        yield Candidate(
            name=_name(path),
            path=path,
            id=check_id(row["id"], line),
            region=row.get("region") or None,
            acquired=parse_time(row.get("acquired", "")),
        )
