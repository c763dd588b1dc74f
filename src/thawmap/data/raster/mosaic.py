"""Rasters cut into tiles, read as one onto any grid, in memory that the grid's size bounds.

A sheet (tiles on one lattice of pixels) is read without resampling: in the order of names, the first tile that knows
a pixel gives it. Layers are made on the sheet's own grid, then warped. Sheets are asked from the finest to the
coarsest, each where those before it have gaps.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox

from thawmap.data.raster.index import Sheet, Sheets, Tile
from thawmap.data.raster.io import RasterInfo, read_means, read_raster
from thawmap.data.raster.resample import footprint, warp
from thawmap.errors import DataError
from thawmap.geo.crs import to_pixels
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window

Values = npt.NDArray[np.float32]

_MOST = 2**23  # numbers that are read or made at once
_NEAR = 8  # means in which to look for the pixel that spoilt one


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What the files of a mosaic hold, and how it becomes values.

    Attributes:
        what: Name of the values, such as "height", for messages.
        bands: Numbers of the bands, from 1.
        setting: Section of the YAML that names the files, for messages.
        encoding: Factor from stored numbers to values, and what is added after it, as a file's header tells; raises
            a DataError for a file that cannot hold such values.
        nodata: Stored number that means missing, beside those that the files know themselves.
        limits: Smallest and largest value that can be; others are refused.
    """

    what: str
    bands: tuple[int, ...]
    setting: str
    encoding: Callable[[RasterInfo], tuple[float, float]]
    nodata: float | None = None
    limits: tuple[float, float] = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A sheet's values: its pixels, or means of ``step`` x ``step`` of them.

    Attributes:
        sheet: The sheet.
        content: What its files hold.
        step: Pixels that are read as one, along each axis; means come from the files' overviews where there are some.
    """

    sheet: Sheet
    content: Content
    step: int = 1

    @property
    def grid(self) -> GeoBox:
        """Its grid."""
        if self.step == 1:
            return self.sheet.grid
        height, width = (math.ceil(side / self.step) for side in self.sheet.grid.shape)
        return GeoBox((height, width), self.sheet.grid.affine * Affine.scale(self.step), self.sheet.grid.crs)

    def read(self, window: Window) -> Values:
        """Values (band, y, x) of a window of the view's grid, which may reach beyond it; NaN where missing.

        Raises:
            DataError: If a file is damaged, cannot hold such values, or holds one that cannot be.
        """
        if self.step > 1 and self.content.nodata is not None:
            return self._read_strips(window)
        values = np.full((len(self.content.bands), window.height, window.width), np.nan, np.float32)
        for tile in self.sheet.within(_finer(window, self.step)):
            part = overlap(window, _coarser(tile.window, self.step))
            if part is None:
                continue
            top, left = part.row - window.row, part.col - window.col
            place = values[:, top : top + part.height, left : left + part.width]
            gap = np.isnan(place)
            if gap.any():
                np.copyto(place, self._read_tile(tile, part), where=gap)
        return values

    def _read_tile(self, tile: Tile, part: Window) -> Values:
        """Values of a tile in a part of the view's grid."""
        scale, offset = self.content.encoding(tile.info)
        if not (math.isfinite(scale) and math.isfinite(offset) and scale):
            msg = (
                f"{tile.info.path} says scale {scale:g} and offset {offset:g}, which make its numbers no "
                f"{self.content.what}; correct them, such as with gdal_edit -scale 1 -offset 0"
            )
            raise DataError(msg)
        values = _read_pixels(tile, part, self.content) if self.step == 1 else self._read_means(tile, part)
        if (scale, offset) != (1, 0):
            with np.errstate(over="ignore"):  # infinite is missing
                values = values * np.float32(scale) + np.float32(offset)
        low, high = self.content.limits
        strange = (values < low) | (values > high)
        if strange.any():
            self._refuse(tile, part, strange)
        return values

    def _read_means(self, tile: Tile, part: Window) -> Values:
        """Stored means of the blocks of a tile; of those that its edge cuts, the mean of what it has."""
        means = np.empty((len(self.content.bands), part.height, part.width), np.float32)
        for rows, top, tall in _spans(part.rows, self.step, tile.window.rows):
            for cols, left, wide in _spans(part.cols, self.step, tile.window.cols):
                pixels = Window(row=top, col=left, height=tall, width=wide)
                shape = (rows.stop - rows.start, cols.stop - cols.start)
                means[:, rows, cols] = read_means(tile.info.path, pixels, shape, bands=self.content.bands)
        return means

    def _read_strips(self, window: Window) -> Values:
        """As `read`, from every single pixel: the means in a file know nothing of a ``nodata`` that it does not."""
        step, single = self.step, View(sheet=self.sheet, content=self.content)
        lines = max(1, _MOST // (window.width * step * step))
        strips = []
        for first in range(0, window.height, lines):
            count = min(lines, window.height - first)
            strip = Window(row=window.row + first, col=window.col, height=count, width=window.width)
            pixels = single.read(_finer(strip, step))
            strips.append(_means(pixels.reshape(len(pixels), count, step, window.width, step)))
        return np.concatenate(strips, axis=1)

    def _refuse(self, tile: Tile, part: Window, strange: npt.NDArray[np.bool_]) -> None:
        """Name the stored number behind a value that cannot be; behind a mean, look for it among the pixels."""
        _, row, col = (int(axis) for axis in np.argwhere(strange)[0])
        around = 0 if self.step == 1 else _NEAR
        side = 1 + 2 * around
        near = Window(row=part.row + row - around, col=part.col + col - around, height=side, width=side)
        pixels = overlap(_finer(near, self.step), tile.window)
        assert pixels is not None
        stored = _read_pixels(tile, pixels, self.content)
        scale, offset = self.content.encoding(tile.info)
        low, high = self.content.limits
        from_middle = np.abs(stored * scale + offset - (low + high) / 2)
        worst = float(stored.flat[np.nan_to_num(from_middle, nan=-1).argmax()])
        msg = (
            f"{tile.info.path} holds {worst:.9g}, a {self.content.what} of {worst * scale + offset:.6g} where "
            f"{low:g} to {high:g} are possible; if it means missing, set '{self.content.setting}.nodata: {worst:.9g}'"
        )
        raise DataError(msg)


Make = Callable[[View, Window], Values]
"""Makes layers (layer, y, x) of a window of a view's grid; it may read beyond the window."""


def read_mosaic(
    sheets: Sheets,
    geobox: GeoBox,
    content: Content,
    *,
    make: Make = View.read,
    layers: int | None = None,
    step: Callable[[GeoBox], int] | None = None,
) -> Values:
    """Layers (layer, y, x) on exactly ``geobox``, float32; NaN where missing.

    Args:
        sheets: Where the files lie.
        geobox: The grid to read onto.
        content: What the files hold.
        make: Makes the layers on a sheet's own grid; unset: they are what is stored.
        layers: How many it makes; unset: as many as bands.
        step: Pixels of a sheet's grid that are read as one; unset: so many that one of ``geobox`` has four still.

    Raises:
        DataError: If a file that is needed cannot be used.
    """
    sheets.check(geobox)
    result = np.full((layers or len(content.bands), *geobox.shape), np.nan, np.float32)
    for sheet in sheets.sheets:
        taken = step(sheet.grid) if step else max(1, int(coarseness(sheet.grid, geobox) / 4))
        _fill(result, View(sheet=sheet, content=content, step=taken), geobox, make)
    return result


def _fill(result: Values, view: View, geobox: GeoBox, make: Make) -> None:
    """Put what a view knows into the gaps of a result, half by half where it is too much for the memory."""
    if not np.isnan(result).any():
        return
    whole = Window(row=0, col=0, height=view.grid.height, width=view.grid.width)
    under = footprint(view.grid, geobox)
    window = None if under is None else overlap(under, whole)
    if window is None or not view.sheet.under(geobox):
        return
    rows, cols = geobox.shape
    if len(result) * window.height * window.width > _MOST and max(rows, cols) > 1:
        middle, along_rows = max(rows, cols) // 2, rows >= cols
        for half in (slice(None, middle), slice(middle, None)):
            place = (half, slice(None)) if along_rows else (slice(None), half)
            _fill(result[:, *place], view, geobox[place], make)
        return
    made = make(view, window)
    np.copyto(result, warp(made, window_geobox(view.grid, window), geobox), where=np.isnan(result))


def coarseness(grid: GeoBox, geobox: GeoBox) -> float:
    """Pixels of ``grid`` in one of ``geobox``, along an axis, at its centre; 1 where nothing is known there."""
    y, x = (side / 2 for side in geobox.shape)
    east, north = geobox.affine * (np.array([x, x + 1, x]), np.array([y, y, y + 1]))
    col, row = to_pixels(grid, geobox.crs, east, north)
    area = abs((col[1] - col[0]) * (row[2] - row[0]) - (col[2] - col[0]) * (row[1] - row[0]))
    return float(np.sqrt(area)) if np.isfinite(area) else 1.0


def overlap(one: Window, other: Window) -> Window | None:
    """What two windows share; None where that is nothing."""
    top, left = max(one.row, other.row), max(one.col, other.col)
    height, width = min(one.rows.stop, other.rows.stop) - top, min(one.cols.stop, other.cols.stop) - left
    return Window(row=top, col=left, height=height, width=width) if height > 0 and width > 0 else None


def _read_pixels(tile: Tile, part: Window, content: Content) -> Values:
    """Stored numbers (band, y, x) of a tile in a part of its sheet's grid."""
    row, col = part.row - tile.window.row, part.col - tile.window.col
    own = window_geobox(tile.info.geobox, Window(row=row, col=col, height=part.height, width=part.width))
    values: Values = read_raster(tile.info.path, own, bands=content.bands, nodata=content.nodata)
    return values


def _means(blocks: Values) -> Values:
    """Means (band, y, x) of what is known in blocks (band, y, rows, x, columns); NaN where nothing is."""
    known = np.isfinite(blocks)
    number = known.sum(axis=(2, 4))
    total = np.where(known, blocks, 0).sum(axis=(2, 4))
    return np.where(number > 0, total / np.maximum(number, 1), np.nan).astype(np.float32)


def _finer(window: Window, step: int) -> Window:
    """The pixels of a window of blocks."""
    return Window(row=window.row * step, col=window.col * step, height=window.height * step, width=window.width * step)


def _coarser(window: Window, step: int) -> Window:
    """The blocks that a window of pixels touches."""
    row, col = window.row // step, window.col // step
    return Window(row=row, col=col, height=-(-window.rows.stop // step) - row, width=-(-window.cols.stop // step) - col)


def _spans(blocks: slice, step: int, tile: slice) -> Iterator[tuple[slice, int, int]]:
    """Blocks along an axis as runs: of those that are whole in a tile, and each that its edge cuts.

    Yields places among ``blocks``, then first pixel and number of pixels in the tile.
    """
    first_whole = min(max(-(-tile.start // step), blocks.start), blocks.stop)
    last_whole = min(max(tile.stop // step, first_whole), blocks.stop)
    runs = [(block, block + 1) for block in (*range(blocks.start, first_whole), *range(last_whole, blocks.stop))]
    for first, last in [*runs, *([(first_whole, last_whole)] if last_whole > first_whole else [])]:
        low, high = max(first * step, tile.start), min(last * step, tile.stop)
        yield slice(first - blocks.start, last - blocks.start), low - tile.start, high - low
