"""Rasters cut into tiles, read as one onto any grid, in bounded memory.

A tile set (tiles on one alignment of pixels) is read without resampling: in the order of names, the first tile that
knows a pixel gives it. Layers are made on the tile set's own grid, then warped. Tile sets are read from the finest to
the coarsest, each where those before it have gaps.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox

from thawmap.data.raster.index import Tile, TileSet, TileSets
from thawmap.data.raster.io import RasterInfo, read_means, read_raster
from thawmap.data.raster.resample import footprint, warp
from thawmap.errors import DataError
from thawmap.geo.crs import to_pixels
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window

Values = npt.NDArray[np.float32]

_MAX_NUMBERS = 2**23  # read or made at once
_SEARCH_RADIUS = 8  # means around an impossible one, in which to look for the pixel that spoilt it


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The meaning of the stored numbers in a mosaic's files.

    Attributes:
        quantity: Name of the values, such as "height", for messages.
        bands: Numbers of the bands, from 1.
        setting: Section of the YAML that names the files, for messages.
        encoding: Factor from stored numbers to values, and what is added after it, as a file's header tells; raises
            a DataError for a file that cannot hold such values.
        nodata: Stored number that means missing, beside those that the files know themselves.
        limits: Smallest and largest value that can be; others are refused.
    """

    quantity: str
    bands: tuple[int, ...]
    setting: str
    encoding: Callable[[RasterInfo], tuple[float, float]]
    nodata: float | None = None
    limits: tuple[float, float] = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The values of a tile set: its pixels, or means of ``step`` x ``step`` of them.

    Attributes:
        tile_set: The tiles that are read.
        content: What its files hold.
        step: Pixels that are read as one, along each axis; means come from the files' overviews where there are some.
    """

    tile_set: TileSet
    content: Content
    step: int = 1

    @property
    def grid(self) -> GeoBox:
        """The grid of the pixels or means."""
        grid = self.tile_set.grid
        if self.step == 1:
            return grid
        height, width = (math.ceil(side / self.step) for side in grid.shape)
        return GeoBox((height, width), grid.affine * Affine.scale(self.step), grid.crs)

    def read(self, window: Window) -> Values:
        """Read values (band, y, x) of a window of the view's grid; NaN where missing.

        The window may reach beyond the grid, where all is missing.

        Raises:
            DataError: If a file is damaged, cannot hold such values, or holds one that cannot be.
        """
        if self.step > 1 and self.content.nodata is not None:
            return self._read_strips(window)
        values = np.full((len(self.content.bands), *window.shape), np.nan, np.float32)
        for tile in self.tile_set.within(window.scale(self.step)):
            shared = window.intersect(tile.window.coarsen(self.step))
            if shared is None:
                continue
            under_tile = values[:, *shared.within(window)]
            gap = np.isnan(under_tile)
            if gap.any():  # else tiles before it know all of its pixels: it is not opened
                np.copyto(under_tile, self._read_tile(tile, shared), where=gap)
        return values

    def _read_tile(self, tile: Tile, window: Window) -> Values:
        """Read scaled values (band, y, x) of a tile in a window; refuse impossible ones.

        The window counts the view's grid.
        """
        scale, offset = self.content.encoding(tile.info)
        if not (math.isfinite(scale) and math.isfinite(offset) and scale):
            msg = (
                f"{tile.info.path} says scale {scale:g} and offset {offset:g}, which make its numbers no "
                f"{self.content.quantity}; correct them, such as with gdal_edit -scale 1 -offset 0"
            )
            raise DataError(msg)
        values = _read_pixels(tile, window, self.content) if self.step == 1 else self._read_means(tile, window)
        if (scale, offset) != (1, 0):
            with np.errstate(over="ignore"):  # infinite is missing
                values = values * np.float32(scale) + np.float32(offset)
        low, high = self.content.limits
        impossible = (values < low) | (values > high)
        if impossible.any():
            self._refuse(tile, window, impossible)
        return values

    def _read_means(self, tile: Tile, window: Window) -> Values:
        """Read unscaled means (band, y, x) of a tile in a window of the view's grid.

        Of blocks that the tile's edge cuts, the mean of the pixels inside.
        """
        means = np.empty((len(self.content.bands), *window.shape), np.float32)
        for rows, top, tall in _spans(window.rows, self.step, tile.window.rows):
            for cols, left, wide in _spans(window.cols, self.step, tile.window.cols):
                pixels = Window(row=top, col=left, height=tall, width=wide)
                shape = (rows.stop - rows.start, cols.stop - cols.start)
                means[:, rows, cols] = read_means(tile.info.path, pixels, shape, bands=self.content.bands)
        return means

    def _read_strips(self, window: Window) -> Values:
        """Read means (band, y, x) of a window from every single pixel, strip by strip.

        The means in a file's overviews have taken a ``nodata`` that only the settings know for a value.
        """
        step, single = self.step, View(tile_set=self.tile_set, content=self.content)
        strips = []
        for strip in window.strips(max(1, _MAX_NUMBERS // (window.width * step * step))):
            pixels = single.read(strip.scale(step))
            strips.append(_means(pixels.reshape(len(pixels), strip.height, step, strip.width, step)))
        return np.concatenate(strips, axis=1)

    def _refuse(self, tile: Tile, window: Window, impossible: npt.NDArray[np.bool_]) -> None:
        """Raise a DataError that names the stored number of a tile's impossible value.

        Behind a mean, it is looked for among the pixels: an overview's mean may come from pixels beside its block.

        Raises:
            DataError: Always.
        """
        _, row, col = (int(axis) for axis in np.argwhere(impossible)[0])
        block = Window(row=window.row + row, col=window.col + col, height=1, width=1)
        searched = block.pad(0 if self.step == 1 else _SEARCH_RADIUS)
        pixels = searched.scale(self.step).intersect(tile.window)
        assert pixels is not None
        stored = _read_pixels(tile, pixels, self.content)
        scale, offset = self.content.encoding(tile.info)
        low, high = self.content.limits
        from_middle = np.abs(stored * scale + offset - (low + high) / 2)
        worst = float(stored.flat[np.nan_to_num(from_middle, nan=-1).argmax()])
        msg = (
            f"{tile.info.path} holds {worst:.9g}, a {self.content.quantity} of {worst * scale + offset:.6g} where "
            f"{low:g} to {high:g} are possible; if it means missing, set '{self.content.setting}.nodata: {worst:.9g}'"
        )
        raise DataError(msg)


Make = Callable[[View, Window], Values]
"""Returns layers (layer, y, x) of a window of a view's grid; it may read beyond the window."""


def read_mosaic(
    tile_sets: TileSets,
    geobox: GeoBox,
    content: Content,
    *,
    make: Make = View.read,
    layers: int | None = None,
    step: Callable[[GeoBox], int] | None = None,
) -> Values:
    """Read layers (layer, y, x) from tiles onto exactly ``geobox``; NaN where missing.

    Float32; finer tile sets first, coarser ones where those have gaps.

    Args:
        tile_sets: Where the files lie.
        geobox: The grid to read onto.
        content: What the files hold.
        make: Returns the layers on a tile set's own grid; unset: they are what is stored.
        layers: Number of layers that ``make`` returns; unset: as many as bands.
        step: Returns the pixels of a tile set's grid, along an axis, that are read as one; unset: so many that a pixel
            of ``geobox`` has four still.

    Raises:
        DataError: If a file that is needed cannot be used.
    """
    tile_sets.check(geobox)
    result = np.full((layers or len(content.bands), *geobox.shape), np.nan, np.float32)
    for tile_set in tile_sets.sets:
        # of the four pixels that are left, `warp` still makes its own average
        as_one = step(tile_set.grid) if step else max(1, int(coarseness(tile_set.grid, geobox) / 4))
        _fill(result, View(tile_set=tile_set, content=content, step=as_one), geobox, make)
    return result


def _fill(result: Values, view: View, geobox: GeoBox, make: Make) -> None:
    """Fill NaNs of a result, in place, with a view's layers warped onto its grid.

    Half by half where it is too much for the memory.
    """
    if not np.isnan(result).any():
        return
    under = footprint(view.grid, geobox)
    window = None if under is None else under.clip((view.grid.height, view.grid.width))
    if window is None or not view.tile_set.under(geobox):
        return
    rows, cols = geobox.shape
    # half of the result needs about half of the pixels, so halving ends where they fit
    if len(result) * window.size > _MAX_NUMBERS and max(rows, cols) > 1:
        middle, along_rows = max(rows, cols) // 2, rows >= cols
        for half in (slice(None, middle), slice(middle, None)):
            axes = (half, slice(None)) if along_rows else (slice(None), half)
            _fill(result[:, *axes], view, geobox[axes], make)
        return
    layers = make(view, window)
    np.copyto(result, warp(layers, window_geobox(view.grid, window), geobox), where=np.isnan(result))


def coarseness(grid: GeoBox, geobox: GeoBox) -> float:
    """Return how many times ``geobox`` is coarser than ``grid``, along an axis.

    At the centre of ``geobox``; 1 where the CRS of ``grid`` does not know it.
    """
    y, x = (side / 2 for side in geobox.shape)
    east, north = geobox.affine * (np.array([x, x + 1, x]), np.array([y, y, y + 1]))
    col, row = to_pixels(grid, geobox.crs, east, north)
    area = abs((col[1] - col[0]) * (row[2] - row[0]) - (col[2] - col[0]) * (row[1] - row[0]))
    return float(np.sqrt(area)) if np.isfinite(area) else 1.0


def _read_pixels(tile: Tile, window: Window, content: Content) -> Values:
    """Read stored numbers (band, y, x) of a tile in a window of its tile set's grid."""
    grid = window_geobox(tile.info.geobox, window.shift(-tile.window.row, -tile.window.col))
    values: Values = read_raster(tile.info.path, grid, bands=content.bands, nodata=content.nodata)
    return values


def _means(blocks: Values) -> Values:
    """Return means (band, y, x) of blocks (band, y, rows, x, columns).

    Missing values do not count; NaN where a block has no other.
    """
    finite = np.isfinite(blocks)
    number = finite.sum(axis=(2, 4))
    total = np.where(finite, blocks, 0).sum(axis=(2, 4))
    return np.where(number > 0, total / np.maximum(number, 1), np.nan).astype(np.float32)


def _spans(blocks: slice, step: int, tile: slice) -> Iterator[tuple[slice, int, int]]:
    """Yield runs of blocks along an axis: slice, first pixel in the tile, number.

    A run can be read at once. First each block that the tile's edge cuts, by itself, then all others. A run is the
    slice of ``blocks``, the first pixel in the tile, and the number of its pixels there. The blocks that are not cut
    are one run because they are of equal size, which one call can read.
    """
    first_whole = min(max(-(-tile.start // step), blocks.start), blocks.stop)
    last_whole = min(max(tile.stop // step, first_whole), blocks.stop)
    runs = [(block, block + 1) for block in (*range(blocks.start, first_whole), *range(last_whole, blocks.stop))]
    for first, last in [*runs, *([(first_whole, last_whole)] if last_whole > first_whole else [])]:
        low, high = max(first * step, tile.start), min(last * step, tile.stop)
        yield slice(first - blocks.start, last - blocks.start), low - tile.start, high - low
