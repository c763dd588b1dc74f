"""An index of raster files: which there are, and where each of them lies.

They are those below a folder, of a pattern, one file or a VRT. The headers are read once in a process, and again when
the folder or a tile changes. Tiles of one CRS and one alignment of pixels are one tile set. A file that cannot be used
(half written, damaged, without CRS) hinders only where no other tile lies: nobody knows where it belongs.
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
"""Returns those of some rasters that are used."""

_ENDINGS = frozenset({".tif", ".tiff", ".gtiff", ".img", ".jp2", ".asc", ".bil", ".flt", ".hgt", ".dt1", ".dt2"})
_SNAP_PX = 0.01  # by which tiles may be off and still lie on one alignment
_EDGE_POINTS = 16  # along each side of a grid, to know what it touches: a straight side is bent in another CRS


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A raster of a tile set: its header, and its window in the set's grid.

    Attributes:
        info: Its header.
        window: Where it lies in the grid of its tile set.
    """

    info: RasterInfo
    window: Window


@dataclass(frozen=True, slots=True, kw_only=True)
class TileSet:
    """Tiles on one alignment of pixels, in the order of their names.

    Attributes:
        grid: The grid that holds all of them.
        tiles: The tiles.
    """

    grid: GeoBox
    tiles: tuple[Tile, ...]
    _tree: shapely.STRtree = field(repr=False, compare=False)

    def within(self, window: Window) -> list[Tile]:
        """Return the tiles that a window of the tile set's grid touches."""
        return self._touched(shapely.box(*window.bounds))

    def under(self, geobox: GeoBox) -> list[Tile]:
        """Return the tiles that another grid touches, in any CRS."""
        return self._touched(self._outline(geobox))

    def covers(self, geobox: GeoBox) -> bool:
        """Return whether the tiles together cover all of another grid."""
        outline = self._outline(geobox)
        tiles = shapely.union_all([shapely.box(*tile.window.bounds) for tile in self._touched(outline)])
        return bool(not shapely.is_empty(outline) and shapely.covers(tiles, outline))

    def _touched(self, shape: Any) -> list[Tile]:
        """Return the tiles that a shape in the tile set's pixels (column, row) touches."""
        return [self.tiles[index] for index in sorted(self._tree.query(shape, predicate="intersects"))]

    def _outline(self, geobox: GeoBox) -> Any:
        """Return a grid's outline as a shape in the tile set's pixels (column, row).

        Empty where the tile set's CRS does not know the ground.
        """
        height, width = geobox.shape
        edge = shapely.segmentize(shapely.box(0, 0, width, height), max(height, width) / _EDGE_POINTS)
        corners = shapely.get_coordinates(edge).T
        x, y = geobox.affine * (corners[0], corners[1])
        points = np.column_stack(to_pixels(self.grid, geobox.crs, x, y))
        return shapely.MultiPoint(points[np.isfinite(points).all(axis=1)]).convex_hull


@dataclass(frozen=True, slots=True, kw_only=True)
class TileSets:
    """All rasters of a folder, a pattern or one file.

    Attributes:
        path: The folder, pattern or file.
        sets: The tile sets from the finest to the coarsest.
        faults: Files that cannot be used, and why.
    """

    path: Path
    sets: tuple[TileSet, ...]
    faults: Mapping[Path, str]

    def files(self, geobox: GeoBox) -> list[Path]:
        """Return the paths of the tiles that a grid touches, finest tile sets first."""
        return [tile.info.path for tile_set in self.sets for tile in tile_set.under(geobox)]

    def check(self, geobox: GeoBox) -> None:
        """Refuse a grid that no tile set covers while some file cannot be used.

        One of those files may be what is missing: without it the grid would silently have a gap.

        Raises:
            DataError: If so; the message names the file and what is wrong with it.
        """
        if self.faults and not any(tile_set.covers(geobox) for tile_set in self.sets):
            raise DataError(next(iter(self.faults.values())))


def tile_sets_under(
    ground: GeoBox, geobox: GeoBox, *, scene_id: str, path: Path, setting: str, choose: Choose = tuple
) -> TileSets:
    """Return a path's tile sets; refuse them if none covers any of a scene's ground.

    Args:
        ground: The scene's grid.
        geobox: The grid that will be read: whether the tiles there have changed is looked at each time.
        scene_id: The scene's id, for messages.
        path: A folder, whatever lies how deep in it, a pattern, or one file.
        setting: Key of the YAML that names the path, for messages.
        choose: Returns those of the rasters that are used.

    Raises:
        DataError: If nothing lies under the scene, or one of the files that cannot be used may be what is missing.
        ConfigError: If the path holds no raster.
    """
    tile_sets = open_tile_sets(path, geobox, setting=setting, choose=choose)
    if not tile_sets.files(ground):
        tile_sets.check(ground)
        msg = f"scene {scene_id}: no raster of {path} lies under it; add those of its place, or correct '{setting}'"
        raise DataError(msg)
    return tile_sets


def open_tile_sets(path: Path, geobox: GeoBox, *, setting: str, choose: Choose = tuple) -> TileSets:
    """Return the tile sets of a folder, pattern or file, from a cache while unchanged.

    Headers are read once, and again where something has changed.

    Args:
        path: A folder, whatever lies how deep in it, a pattern, or one file.
        geobox: The grid that will be read: whether the tiles there have changed is looked at each time.
        setting: Key of the YAML that names the path, for messages.
        choose: Returns those of the rasters that are used.

    Raises:
        ConfigError: If there is no raster.
        DataError: If none of them can be used.
    """
    with _INDEXING:
        index = _indexes.get((path, choose))
        if index is None or index.changed != _times(index.changed) or _is_outdated(index.tile_sets, geobox):
            changed = _times(_folders(path))  # before the files are listed: what comes meanwhile is seen next time
            index = _Index(_read_tile_sets(path, setting, choose), changed)
            _indexes[path, choose] = index
        return index.tile_sets


@dataclass(frozen=True, slots=True)
class _Index:
    """The tile sets of a path, and when the folders of their files had last changed."""

    tile_sets: TileSets
    changed: Mapping[Path, int]


_INDEXING = Lock()
_indexes: dict[tuple[Path, Choose], _Index] = {}


def _times(folders: Iterable[Path]) -> dict[Path, int]:
    """Return a dict of folders' times of last change in nanoseconds; 0 if gone."""
    return {folder: folder.stat().st_mtime_ns if folder.exists() else 0 for folder in folders}


def _is_outdated(tile_sets: TileSets, geobox: GeoBox) -> bool:
    """Return whether a tile under a grid, or a faulty file, changed since indexing."""
    headers = [tile.info for tile_set in tile_sets.sets for tile in tile_set.under(geobox)]
    return any(not info.path.exists() or _header(info.path) is not info for info in headers) or any(
        _fault(path) is None for path in tile_sets.faults
    )


def _header(path: Path) -> RasterInfo:
    """Return a file's header, read once while the file's size and time are the same."""
    status = path.stat()
    return _header_of(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2**16)
def _header_of(path: Path, _size: int, _mtime_ns: int) -> RasterInfo:
    """Return a file's header; size and time tell one state of the file from another."""
    return raster_info(path)


def _read_tile_sets(path: Path, setting: str, choose: Choose) -> TileSets:
    """Return a path's rasters as tile sets by alignment, and unusable files as faults.

    Their headers are read; ``choose`` may leave some rasters out.
    """
    files = choose(_rasters(path))
    if not files:
        msg = f"{path} is no raster and holds none; correct '{setting}', a folder of rasters, a pattern or one file"
        raise ConfigError(msg)
    faults = {file: fault for file in files if (fault := _fault(file)) is not None}
    usable = [_header(file) for file in files if file not in faults]
    if not usable:
        raise DataError(faults[files[0]])
    groups: list[list[RasterInfo]] = []
    for info in usable:
        group = next((group for group in groups if _offset(group[0].geobox, info.geobox) is not None), None)
        if group is None:
            groups.append([info])
        else:
            group.append(info)
    finest_first = sorted(map(_tile_set, groups), key=lambda tile_set: _rough_metres(tile_set.grid))
    return TileSets(path=path, sets=tuple(finest_first), faults=faults)


def _rasters(path: Path) -> list[Path]:
    """Return the files of the rasters at a path, sorted; a VRT only if named or alone.

    A VRT in a folder mostly joins the very tiles that lie beside it, which would be read twice.
    """
    roots = [path] if path.exists() else matches(str(path))
    if not all(root.is_dir() for root in roots):
        return [root for root in roots if root.is_file()]
    files = files_below(roots)
    rasters = [
        file
        for file in files
        if file.suffix.lower() in _ENDINGS  # or will be a raster when it is written to its end, as `.tif.part`
        or (Path(file.stem).suffix.lower() in _ENDINGS and half_written(file) is not None)
    ]
    return rasters or [file for file in files if file.suffix.lower() == ".vrt"]


def _folders(path: Path) -> Iterator[Path]:
    """Yield the folders in which rasters of a path or pattern may come or go."""
    roots = [path] if path.exists() else matches(str(path))
    if not path.exists():
        fixed = Path(*takewhile(lambda name: not glob.has_magic(name), path.parts))
        yield from {parent for root in roots for parent in root.parents if parent.is_relative_to(fixed)} | {fixed}
    for root in roots:
        if root.is_dir():
            yield from (Path(folder) for folder, _, _ in os.walk(root))


def _fault(path: Path) -> str | None:
    """Return a message on why a file cannot be used as a tile; None where it can."""
    try:
        reason = half_written(path)
        if reason is None:
            _header(path)
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}); fetch or copy it again"
    return None if reason is None else f"{path} cannot be used: {reason}"


def _rough_metres(grid: GeoBox) -> float:
    """Return roughly the side of a grid's pixel in metres, to sort grids by."""
    assert grid.crs is not None
    return math.sqrt(abs(grid.affine.determinant)) * (1e5 if grid.crs.geographic else 1)


def _offset(first: GeoBox, other: GeoBox) -> tuple[int, int] | None:
    """Return (rows, columns) from one grid's corner to another's; None if unaligned.

    Unaligned are grids of another CRS, of other pixels, or off by a fraction of one.
    """
    if first.crs != other.crs:
        return None
    step = ~first.affine * other.affine
    # what a pixel is off adds up over all of the other grid's pixels
    off = max(abs(step.a - 1), abs(step.e - 1), abs(step.b), abs(step.d)) * max(other.shape)
    row, col = round(step.f), round(step.c)
    return (row, col) if max(off, abs(step.f - row), abs(step.c - col)) < _SNAP_PX else None


def _tile_set(headers: Sequence[RasterInfo]) -> TileSet:
    """Return headers of one alignment as a tile set, on the grid that holds them all."""
    first = headers[0].geobox
    offsets = _join_antimeridian([_offset(first, info.geobox) or (0, 0) for info in headers], first)
    top, left = (min(axis) for axis in zip(*offsets, strict=True))
    tiles = tuple(
        Tile(
            info=info,
            window=Window.of_shape((info.geobox.height, info.geobox.width)).shift(row - top, col - left),
        )
        for info, (row, col) in zip(headers, offsets, strict=True)
    )
    shape = Window.around(tile.window for tile in tiles).shape
    grid = GeoBox(shape, first.affine * Affine.translation(left, top), first.crs)
    return TileSet(grid=grid, tiles=tiles, _tree=shapely.STRtree([shapely.box(*tile.window.bounds) for tile in tiles]))


def _join_antimeridian(offsets: Sequence[tuple[int, int]], grid: GeoBox) -> list[tuple[int, int]]:
    """Return tiles' (row, column) offsets, contiguous across the antimeridian.

    Columns are counted on around the Earth from behind the widest gap between tiles, so that it lies outside of the
    tile set's grid. Offsets of projected grids are returned as they are.
    """
    assert grid.crs is not None
    around_px = abs(360 / grid.affine.a) if grid.crs.geographic and grid.affine.a else 0.5
    if round(around_px) < 1 or abs(around_px - round(around_px)) > _SNAP_PX:  # tiles beyond are of another alignment
        return list(offsets)
    cols = sorted({col for _, col in offsets})
    gaps = [(cols[0] + around_px if number == 0 else cols[number]) - cols[number - 1] for number in range(len(cols))]
    start = cols[int(np.argmax(gaps))]
    return [(row, start + (col - start) % round(around_px)) for row, col in offsets]
