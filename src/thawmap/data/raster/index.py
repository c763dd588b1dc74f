"""Which raster files a place holds, and where each of them lies: a folder, a pattern, one file or a VRT.

The headers are read once in a process, and again when the folder or a tile changes. Tiles of one CRS and one lattice
of pixels are one sheet. A file that cannot be used (half written, damaged, without CRS) hinders only where no other
tile lies: nobody knows where it belongs.
"""

import glob
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from thawmap.data.raster.io import RasterInfo, raster_info
from thawmap.errors import ConfigError, DataError
from thawmap.files.listing import files_below, half_written, matches
from thawmap.geo.crs import to_pixels
from thawmap.grid import Window

Choose = Callable[[Sequence[Path]], Sequence[Path]]

_ENDINGS = frozenset({".tif", ".tiff", ".gtiff", ".img", ".jp2", ".asc", ".bil", ".flt", ".hgt", ".dt1", ".dt2"})
_SNAP_PX = 0.01  # by which tiles may be off and still lie on one lattice
_EDGE = 16  # points along each side of a grid, to know what it touches


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A raster of a sheet.

    Attributes:
        info: Its header.
        window: Where it lies in its sheet.
    """

    info: RasterInfo
    window: Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Tiles on one lattice of pixels, in the order of their names.

    Attributes:
        grid: The grid that holds all of them.
        tiles: The tiles.
    """

    grid: GeoBox
    tiles: tuple[Tile, ...]
    _tree: shapely.STRtree = field(repr=False, compare=False)

    def within(self, window: Window) -> list[Tile]:
        """The tiles that a window of the sheet's grid touches."""
        return self._touched(_box(window))

    def under(self, geobox: GeoBox) -> list[Tile]:
        """The tiles that another grid touches."""
        return self._touched(self._outline(geobox))

    def covers(self, geobox: GeoBox) -> bool:
        """Whether tiles lie under all of another grid."""
        outline = self._outline(geobox)
        tiles = shapely.union_all([_box(tile.window) for tile in self._touched(outline)])
        return bool(not shapely.is_empty(outline) and shapely.covers(tiles, outline))

    def _touched(self, shape: Any) -> list[Tile]:
        return [self.tiles[index] for index in sorted(self._tree.query(shape, predicate="intersects"))]

    def _outline(self, geobox: GeoBox) -> Any:
        """A grid's outline in the sheet's pixels (column, row); empty where the sheet's CRS does not know it."""
        height, width = geobox.shape
        edge = shapely.segmentize(shapely.box(0, 0, width, height), max(height, width) / _EDGE)
        corners = shapely.get_coordinates(edge).T
        x, y = geobox.affine * (corners[0], corners[1])
        places = np.column_stack(to_pixels(self.grid, geobox.crs, x, y))
        return shapely.MultiPoint(places[np.isfinite(places).all(axis=1)]).convex_hull


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheets:
    """All that a place holds.

    Attributes:
        place: The folder, pattern or file.
        sheets: From the finest to the coarsest.
        faults: Files that cannot be used, and why.
    """

    place: Path
    sheets: tuple[Sheet, ...]
    faults: Mapping[Path, str]

    def files(self, geobox: GeoBox) -> list[Path]:
        """The files that a grid touches."""
        return [tile.info.path for sheet in self.sheets for tile in sheet.under(geobox)]

    def check(self, geobox: GeoBox) -> None:
        """Refuse a grid that the tiles do not cover while one of the files that cannot be used may be what is missing.

        Raises:
            DataError: If so; the message names the file and what is wrong with it.
        """
        if self.faults and not any(sheet.covers(geobox) for sheet in self.sheets):
            raise DataError(next(iter(self.faults.values())))


def sheets_under(
    ground: GeoBox, geobox: GeoBox, *, scene_id: str, place: Path, setting: str, choose: Choose = tuple
) -> Sheets:
    """As `open_sheets`, where something lies under the scene, whose grid is ``ground``.

    Raises:
        DataError: If nothing does, or one of the files that cannot be used may be what is missing.
        ConfigError: If the place holds no raster.
    """
    sheets = open_sheets(place, geobox, setting=setting, choose=choose)
    if not sheets.files(ground):
        sheets.check(ground)
        msg = f"scene {scene_id}: no raster of {place} lies under it; add those of its place, or correct '{setting}'"
        raise DataError(msg)
    return sheets


def open_sheets(place: Path, geobox: GeoBox, *, setting: str, choose: Choose = tuple) -> Sheets:
    """What a place holds now; headers are read once, and again where something has changed.

    Args:
        place: A folder, whatever lies how deep in it, a pattern, or one file.
        geobox: The grid that will be read: whether the tiles there have changed is looked at each time.
        setting: Key of the YAML that names the place, for messages.
        choose: Which of the rasters found count.

    Raises:
        ConfigError: If there is no raster.
        DataError: If none of them can be used.
    """
    with _INDEXING:
        known = _known.get((place, choose))
        if known is None or known.watched != _times(known.watched) or _changed(known.sheets, geobox):
            watched = _times(_folders(place))
            known = _Known(_index(place, setting, choose), watched)
            _known[place, choose] = known
        return known.sheets


@dataclass(frozen=True, slots=True)
class _Known:
    """What a place holds, and when the folders that it was found in had last changed."""

    sheets: Sheets
    watched: Mapping[Path, int]


_INDEXING = Lock()
_known: dict[tuple[Path, Choose], _Known] = {}


def _times(folders: Iterable[Path]) -> dict[Path, int]:
    """When each folder has last changed; 0 where there is none any more."""
    return {folder: folder.stat().st_mtime_ns if folder.exists() else 0 for folder in folders}


def _changed(sheets: Sheets, geobox: GeoBox) -> bool:
    """Whether a header under a grid, or a file that could not be used, is not what it was."""
    tiles = [tile.info for sheet in sheets.sheets for tile in sheet.under(geobox)]
    return any(not info.path.exists() or _header(info.path) is not info for info in tiles) or any(
        _fault(path) is None for path in sheets.faults
    )


def _header(path: Path) -> RasterInfo:
    """A file's header, read once while its size and time are the same."""
    status = path.stat()
    return _header_of(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2**16)
def _header_of(path: Path, _size: int, _mtime_ns: int) -> RasterInfo:
    return raster_info(path)


def _index(place: Path, setting: str, choose: Choose) -> Sheets:
    found = choose(_rasters(place))
    if not found:
        msg = f"{place} is no raster and holds none; correct '{setting}', a folder of rasters, a pattern or one file"
        raise ConfigError(msg)
    faults = {path: fault for path in found if (fault := _fault(path)) is not None}
    usable = [_header(path) for path in found if path not in faults]
    if not usable:
        raise DataError(faults[found[0]])
    groups: list[list[RasterInfo]] = []
    for info in usable:
        group = next((group for group in groups if _offset(group[0].geobox, info.geobox) is not None), None)
        if group is None:
            groups.append([info])
        else:
            group.append(info)
    finest_first = sorted(map(_sheet, groups), key=lambda sheet: _rough_metres(sheet.grid))
    return Sheets(place=place, sheets=tuple(finest_first), faults=faults)


def _rasters(place: Path) -> list[Path]:
    """The rasters of a place in order of their names; a VRT only where it is named, or there is nothing else."""
    named = [place] if place.exists() else matches(str(place))
    if not all(path.is_dir() for path in named):
        return [path for path in named if path.is_file()]
    files = files_below(named)
    rasters = [path for path in files if _is_raster(path)]
    return rasters or [path for path in files if path.suffix.lower() == ".vrt"]


def _is_raster(path: Path) -> bool:
    """Whether a file is a raster by its name, or will be one when it is written to its end."""
    if path.suffix.lower() in _ENDINGS:
        return True
    return Path(path.stem).suffix.lower() in _ENDINGS and half_written(path) is not None


def _folders(place: Path) -> Iterator[Path]:
    """The folders whose change may mean other files."""
    roots = [place] if place.exists() else matches(str(place))
    if not place.exists():
        fixed = Path(*takewhile(lambda part: not glob.has_magic(part), place.parts))
        yield from {parent for root in roots for parent in root.parents if parent.is_relative_to(fixed)} | {fixed}
    for root in roots:
        if root.is_dir():
            yield from (Path(folder) for folder, _, _ in os.walk(root))


def _fault(path: Path) -> str | None:
    """Why a file cannot be part of a sheet; None where it can."""
    try:
        why = half_written(path)
        if why is None:
            _header(path)
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}); fetch or copy it again"
    return None if why is None else f"{path} cannot be used: {why}"


def _rough_metres(grid: GeoBox) -> float:
    """About the side of a pixel in metres."""
    assert grid.crs is not None
    return math.sqrt(abs(grid.affine.determinant)) * (1e5 if grid.crs.geographic else 1)


def _offset(first: GeoBox, other: GeoBox) -> tuple[int, int] | None:
    """Rows and columns from one grid's corner to another's; None where they are not of one lattice."""
    if first.crs != other.crs:
        return None
    step = ~first.affine * other.affine
    off = max(abs(step.a - 1), abs(step.e - 1), abs(step.b), abs(step.d)) * max(other.shape)
    row, col = round(step.f), round(step.c)
    return (row, col) if max(off, abs(step.f - row), abs(step.c - col)) < _SNAP_PX else None


def _sheet(group: Sequence[RasterInfo]) -> Sheet:
    """Tiles of one lattice on the grid that holds all of them."""
    first = group[0].geobox
    offsets = _together([_offset(first, info.geobox) or (0, 0) for info in group], first)
    top, left = (min(axis) for axis in zip(*offsets, strict=True))
    tiles = tuple(
        Tile(
            info=info, window=Window(row=row - top, col=col - left, height=info.geobox.height, width=info.geobox.width)
        )
        for info, (row, col) in zip(group, offsets, strict=True)
    )
    shape = (max(tile.window.rows.stop for tile in tiles), max(tile.window.cols.stop for tile in tiles))
    grid = GeoBox(shape, first.affine * Affine.translation(left, top), first.crs)
    return Sheet(grid=grid, tiles=tiles, _tree=shapely.STRtree([_box(tile.window) for tile in tiles]))


def _together(offsets: Sequence[tuple[int, int]], grid: GeoBox) -> list[tuple[int, int]]:
    """Rows and columns of tiles that go on across the antimeridian: the widest gap around the Earth lies outside."""
    assert grid.crs is not None
    turn = abs(360 / grid.affine.a) if grid.crs.geographic and grid.affine.a else 0.5
    if round(turn) < 1 or abs(turn - round(turn)) > _SNAP_PX:  # tiles beyond are of another lattice
        return list(offsets)
    cols = sorted({col for _, col in offsets})
    gaps = [(cols[0] + turn if number == 0 else cols[number]) - cols[number - 1] for number in range(len(cols))]
    start = cols[int(np.argmax(gaps))]
    return [(row, start + (col - start) % round(turn)) for row, col in offsets]


def _box(window: Window) -> Any:
    return shapely.box(window.col, window.row, window.cols.stop, window.rows.stop)
