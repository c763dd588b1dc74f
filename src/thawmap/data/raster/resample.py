"""Open rasters read onto any grid: missing is NaN, positions right to 0.001 pixel."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags, Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as FileWindow

from thawmap.data.raster.upright import Upright
from thawmap.geo.crs import shift_by_turns, to_pixels
from thawmap.grid import Window

_Values = npt.NDArray[np.float32]
_Positions = npt.NDArray[np.float64]

_SNAP_PX = 1e-3  # by which a grid may be off and still count as the same
_TOLERANCE_PX = 1e-3  # of positions; GDAL's own 0.125 px differs from one window to another, and costs the same
_GRID_POINTS = 17  # a side at which a grid is projected, to know what lies under it
_FINEST = 4  # pixels read for one of a much coarser grid, along each axis
_UNTOUCHED = -1e30  # where GDAL finds no pixel, for it knows no NaN there
_SMALL_INTEGERS = frozenset({"uint8", "int8", "uint16", "int16"})  # types of which every number is a float32
_STRIP_ROWS = 256  # read at once
_MAX_NUMBERS = 2**22  # read at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The bands to read of a raster, and their resampling.

    Attributes:
        bands: Numbers of the bands, from 1.
        resampling: nearest, bilinear, cubic or average; None: average when coarsening, else cubic.
        nodata: A stored number that means missing, beside those that the file knows itself.
    """

    bands: tuple[int, ...]
    resampling: str | None = None
    nodata: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Footprint:
    """The window of a grid that lies under another grid, with a margin.

    Attributes:
        window: The pixels.
        rows: Number of them, down, in one of the other grid's.
        cols: Number of them, across, in one of the other grid's.
    """

    window: Window
    rows: float
    cols: float

    @property
    def resampling(self) -> str:
        """Default: "average" where the other grid is over 1.2 times coarser, else "cubic".

        The ratio where they part lies off the ratios of common sensors, so that no two windows of a scene differ.
        """
        return "average" if self.rows * self.cols > 1.2**2 else "cubic"


def read(file: Upright, grid: GeoBox, geobox: GeoBox, choice: Choice) -> _Values:
    """Read bands (band, y, x) of an open raster, unscaled, resampled onto ``geobox``.

    Float32; NaN where missing, infinite or outside.

    Args:
        file: The open raster.
        grid: Its grid.
        geobox: The grid to read onto; a part of the file's own grid is read without resampling.
        choice: The bands, and their resampling.
    """
    grid = shift_by_turns(grid, geobox)
    window = _aligned(grid, geobox)
    if window is not None:
        return _read_window(file, window, choice)
    times = _times_coarser(grid, geobox) if choice.resampling in (None, "average", "nearest") else 1
    return _read_coarser(file, grid, geobox, times, choice) if times > 1 else _read_warped(file, grid, geobox, choice)


def _times_coarser(grid: GeoBox, geobox: GeoBox) -> int:
    """Return how many times coarser ``geobox`` is than ``grid``; 1 unless whole.

    A grid that is no whole number of the file's pixels needs warping.
    """
    times = round(_pixels_in_one(grid, geobox)[0]) if grid.crs == geobox.crs else 1
    blocks = GeoBox(grid.shape, grid.affine * Affine.scale(times), grid.crs)
    return times if times > 1 and _aligned(blocks, geobox) is not None else 1


def _read_coarser(file: Upright, grid: GeoBox, geobox: GeoBox, times: int, choice: Choice) -> _Values:
    """Read means, or middles, of ``times`` x ``times`` px of a file; NaN where cut.

    A block that the file's edge cuts is missing.
    """
    blocks = GeoBox((grid.height // times, grid.width // times), grid.affine * Affine.scale(times), grid.crs)
    window = _aligned(blocks, geobox)
    assert window is not None
    values = np.full((len(choice.bands), *geobox.shape), np.nan, np.float32)
    inside = window.clip((blocks.height, blocks.width))
    if inside is not None:
        values[:, *inside.within(window)] = read_blocks(file, inside.scale(times), inside.shape, choice)
    return values


def _aligned(grid: GeoBox, geobox: GeoBox) -> Window | None:
    """Return ``geobox`` as a window of ``grid``; None if their pixels do not coincide."""
    if grid.crs != geobox.crs:
        return None
    step = ~grid.affine * geobox.affine
    same_size = np.allclose((step.a, step.b, step.d, step.e), (1, 0, 0, 1), rtol=0, atol=_SNAP_PX / max(geobox.shape))
    col, row = round(step.c), round(step.f)
    if not same_size or max(abs(step.c - col), abs(step.f - row)) >= _SNAP_PX:
        return None
    return Window(row=row, col=col, height=geobox.shape[0], width=geobox.shape[1])


def _read_window(file: Upright, window: Window, choice: Choice) -> _Values:
    """Read stored numbers (band, y, x) of a window; NaN where missing or outside."""
    inside = window.clip(file.shape)
    if inside == window:
        return _read_inside(file, window, choice)
    values = np.full((len(choice.bands), *window.shape), np.nan, np.float32)
    if inside is not None:
        values[:, *inside.within(window)] = _read_inside(file, inside, choice)
    return values


def _read_inside(file: Upright, window: Window, choice: Choice) -> _Values:
    """Read stored numbers (band, y, x) of a window inside the file; NaN where missing.

    Where a whole number is all that says what is missing, comparing here takes a fifth of the time of GDAL's masks.
    """
    bands, file_window = list(choice.bands), _file_window(window)
    header = file.file
    named = {header.nodatavals[band - 1] for band in bands}
    flags = {flag for band in bands for flag in header.mask_flag_enums[band - 1]}
    if (
        flags == {MaskFlags.nodata}
        and len(named) == 1
        and all(header.dtypes[band - 1] in _SMALL_INTEGERS for band in bands)
    ):
        return _as_float(file.read(bands, window=file_window), (*named, choice.nodata))
    return _unmasked(file.read(bands, window=file_window, masked=True), choice.nodata)


def _unmasked(stored: npt.NDArray[Any], nodata: float | None) -> _Values:
    """Return masked stored numbers as float32; NaN where masked or ``nodata``."""
    assert isinstance(stored, np.ma.MaskedArray)
    values = _as_float(stored.data, (nodata,))
    if np.ma.is_masked(stored):
        values[stored.mask] = np.nan
    return values


def _as_float(stored: npt.NDArray[Any], missing: Iterable[float | None]) -> _Values:
    """Return stored numbers as float32; NaN where not finite, or one of ``missing``.

    The one definition of missing: what is infinite here, or beyond float32, is nothing that a sensor has measured.
    """
    with np.errstate(over="ignore"):
        values = stored.astype(np.float32)
    if stored.dtype.kind == "f":
        values[~np.isfinite(values)] = np.nan
    for number in missing:
        if number is not None:
            values[stored == number] = np.nan
    return values


def _file_window(window: Window) -> FileWindow:
    """Return a window as a window of rasterio's type."""
    return FileWindow(window.col, window.row, window.width, window.height)


def _read_warped(file: Upright, grid: GeoBox, geobox: GeoBox, choice: Choice) -> _Values:
    """Read bands (band, y, x) warped onto ``geobox``, from just the pixels it needs.

    Where the other grid is much coarser, blocks of pixels are read as one first.
    """
    missing = np.full((len(choice.bands), *geobox.shape), np.nan, np.float32)
    under = _footprint(grid, geobox)
    if under is None:
        return missing
    choice = replace(choice, resampling=choice.resampling or under.resampling)
    rows, cols = grid.shape
    step = (_step(under.rows, rows), _step(under.cols, cols))
    blocks = GeoBox((rows // step[0], cols // step[1]), grid.affine * Affine.scale(step[1], step[0]), grid.crs)
    under = _footprint(blocks, geobox)
    needed = None if under is None else under.window.clip((blocks.height, blocks.width))
    if needed is None:
        return missing
    if needed.size * len(choice.bands) > _MAX_NUMBERS and max(geobox.shape) > 1:
        return _read_halves(file, grid, geobox, choice)
    values = read_blocks(file, needed.scale(*step), needed.shape, choice)
    values_grid = GeoBox(values.shape[1:], blocks.affine * Affine.translation(needed.col, needed.row), grid.crs)
    return warp(values, values_grid, geobox, resampling=choice.resampling)


def _read_halves(file: Upright, grid: GeoBox, geobox: GeoBox, choice: Choice) -> _Values:
    """Read bands (band, y, x) warped onto ``geobox`` by halves, in bounded memory."""
    rows, cols = geobox.shape
    if rows >= cols:
        halves, axis = (geobox[: rows // 2], geobox[rows // 2 :]), 1
    else:
        halves, axis = (geobox[:, : cols // 2], geobox[:, cols // 2 :]), 2
    return np.concatenate([_read_warped(file, grid, half, choice) for half in halves], axis=axis)


def _step(pixels: float, length: int) -> int:
    """Return how many pixels along an axis to read as one before warping.

    As many as leave a pixel of the other grid, which is ``pixels`` wide, `_FINEST` of them.
    """
    return min(max(int(pixels / _FINEST), 1), length)


def read_blocks(file: Upright, pixels: Window, shape: tuple[int, int], choice: Choice) -> _Values:
    """Read means, or middles, of equal blocks of a window, ``shape`` (rows, columns).

    Gives (band, y, x), in bounded memory; middles are for nearest. Means come from the file's overviews where it has
    some, rounded to its type.
    """
    tall, wide = pixels.height // shape[0], pixels.width // shape[1]
    if (tall, wide) == (1, 1):
        return _read_window(file, pixels, choice)
    bands, nearest = list(choice.bands), choice.resampling == "nearest"
    if choice.nodata is None and not nearest:
        window, average = _file_window(pixels), Resampling.average
        means = file.read(bands, window=window, out_shape=shape, masked=True, resampling=average)
        if means.dtype.kind != "f" or np.isfinite(np.ma.filled(means, 0)).all():
            return _unmasked(means, None)  # else one number that is not finite has spoilt all of its block
    values = np.empty((len(bands), *shape), np.float32)
    for strip in Window.of_shape(shape).strips(max(1, _STRIP_ROWS // tall)):
        stored = _read_window(file, strip.scale(tall, wide).shift(pixels.row, pixels.col), choice)
        middles = stored[:, tall // 2 :: tall, wide // 2 :: wide]
        values[:, strip.rows] = middles if nearest else _mean(stored, tall, wide)
    return values


def _mean(values: _Values, tall: int, wide: int) -> _Values:
    """Return means (band, y, x) of the valid values of blocks; NaN where none is."""
    finite = np.isfinite(values)
    if finite.all():
        return _block_sums(values, tall, wide) / np.float32(tall * wide)
    total, count = _block_sums(np.where(finite, values, 0), tall, wide), _block_sums(finite, tall, wide)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _block_sums(values: npt.NDArray[Any], tall: int, wide: int) -> _Values:
    """Return sums (band, y, x), float32, of blocks of ``tall`` x ``wide`` values.

    Several times as fast as numpy's sum over short axes.
    """
    bands, rows, cols = values.shape
    total = np.zeros((bands, rows // tall, cols // wide), np.float32)
    with np.errstate(over="ignore"):  # infinite is missing
        lines = values.reshape(bands, rows // tall, tall, cols).sum(axis=2, dtype=np.float32)
        for col in range(wide):
            total += lines[..., col::wide]
    return total


def _footprint(grid: GeoBox, geobox: GeoBox) -> _Footprint | None:
    """Return the window of ``grid`` under ``geobox``, and the ratio of their pixels.

    None where the CRS of ``grid`` does not know the ground.
    """
    height, width = geobox.shape
    across, down = np.linspace(0, width, _GRID_POINTS), np.linspace(0, height, _GRID_POINTS)
    col, row = _positions(grid, geobox, np.repeat(across, _GRID_POINTS), np.tile(down, _GRID_POINTS))
    finite = np.isfinite(col) & np.isfinite(row)
    if not finite.any():
        return None
    rows, cols = _pixels_in_one(grid, geobox)
    top, tall = _span(row[finite], rows)
    left, wide = _span(col[finite], cols)
    return _Footprint(window=Window(row=top, col=left, height=tall, width=wide), rows=rows, cols=cols)


def _span(positions: _Positions, pixels: float) -> tuple[int, int]:
    """Return the first pixel and number of pixels that resampling at positions needs.

    ``pixels`` are those that are resampled to one.
    """
    margin = int(np.ceil(3 * max(pixels, 1.0))) + 2  # cubic reaches 2 of them; the rest for rows that bend
    first = int(np.floor(positions.min())) - margin
    return first, int(np.ceil(positions.max())) + margin - first


def _pixels_in_one(grid: GeoBox, geobox: GeoBox) -> tuple[float, float]:
    """Return the rows and columns of ``grid`` that one pixel of ``geobox`` spans.

    At the centre of ``geobox``; 1 where the CRS of ``grid`` does not know it. Rounded, so that neighbouring windows
    resample alike.
    """
    y, x = (side / 2 for side in geobox.shape)
    col, row = _positions(grid, geobox, np.array([x, x + 1, x]), np.array([y, y, y + 1]))
    rows, cols = (float(np.hypot(*(axis[1:] - axis[0]))) for axis in (row, col))
    return (round(rows, 2), round(cols, 2)) if np.isfinite(rows + cols) else (1.0, 1.0)


def _positions(grid: GeoBox, geobox: GeoBox, cols: _Positions, rows: _Positions) -> tuple[_Positions, _Positions]:
    """Return columns and rows of ``grid`` at positions (columns, rows) of ``geobox``.

    In pixels from the corner; not finite where the CRS of ``grid`` does not know them.
    """
    return to_pixels(grid, geobox.crs, *(geobox.affine * (cols, rows)))


def footprint(grid: GeoBox, geobox: GeoBox) -> Window | None:
    """Return the window of ``grid`` under ``geobox``, with a margin for resampling.

    It may reach beyond ``grid``; None where the CRS of ``grid`` does not know the ground.
    """
    under = _footprint(grid, geobox)
    return None if under is None else under.window


def warp(values: _Values, grid: GeoBox, geobox: GeoBox, *, resampling: str | None = None) -> _Values:
    """Return values (band, y, x) on ``grid`` warped onto ``geobox``; NaN also outside.

    Float32, NaN where missing. Every band by itself: where one is missing, the others are not.

    Args:
        values: Values on ``grid``.
        grid: Their grid.
        geobox: The grid to bring them to.
        resampling: nearest, bilinear, cubic or average; None: average when coarsening, else cubic.
    """
    grid = shift_by_turns(grid, geobox)
    if resampling is None:
        under = _footprint(grid, geobox)
        resampling = "cubic" if under is None else under.resampling
    result = _warp(values, grid, geobox, resampling)
    for turned in _a_turn_away(grid, geobox):
        result = np.where(np.isnan(result), _warp(values, turned, geobox, resampling), result)
    return result


def _a_turn_away(grid: GeoBox, geobox: GeoBox) -> list[GeoBox]:
    """Return a list of a grid moved by 360 degrees if it crosses the antimeridian.

    GDAL looks there for what lies beyond the antimeridian. The list is empty for grids that do not cross it.
    """
    assert grid.crs is not None
    if grid.crs == geobox.crs or not grid.crs.geographic:
        return []
    west, east = sorted((grid.affine * (col, 0))[0] for col in (0, grid.width))
    turns = [turn for turn, beyond in ((-360, east > 180), (360, west < -180)) if beyond]
    return [GeoBox(grid.shape, Affine.translation(turn, 0) * grid.affine, grid.crs) for turn in turns]


def _warp(values: _Values, grid: GeoBox, geobox: GeoBox, resampling: str) -> _Values:
    """Return values (band, y, x) on ``grid`` warped onto ``geobox`` by one resampling.

    Where ``geobox`` is coarser, bilinear and cubic look as far as its pixels reach. The average is a mean of points
    about one pixel apart: GDAL's own takes the box between two corners, which is no pixel where grids are turned.
    """
    rows, cols = _pixels_in_one(grid, geobox)
    if resampling == "average":
        times = max(1, int(np.ceil(max(rows, cols) - 0.2)))  # the same for all windows where ratios are near a whole
        height, width = geobox.shape
        fine = GeoBox((height * times, width * times), geobox.affine * Affine.scale(1 / times), geobox.crs)
        points = _warp(values, grid, fine, "bilinear")
        return _mean(points, times, times)
    nodata = np.nan if np.isnan(values).any() else None  # without, GDAL takes half of the time
    beyond = {"init_dest_nodata": False, "INIT_DEST": _UNTOUCHED} if nodata is None else {"UNIFIED_SRC_NODATA": "NO"}
    options = {
        "resampling": Resampling[resampling], "tolerance": _TOLERANCE_PX, "XSCALE": 1 / max(cols, 1.0),
        "YSCALE": 1 / max(rows, 1.0), "nodata": nodata, **beyond,
    }  # fmt: skip
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", dtype="float32", nodata=nodata, count=len(values), **_grid_profile(grid)
        ) as file:
            file.write(values)
        with memory.open() as file, WarpedVRT(file, **_grid_profile(geobox), **options) as warped:
            result: _Values = warped.read()
    if nodata is None:
        result[result == np.float32(_UNTOUCHED)] = np.nan
    elif resampling != "nearest":  # GDAL fills the rims of gaps
        result[np.isnan(_warp(values, grid, geobox, "nearest"))] = np.nan
    return result


def _grid_profile(geobox: GeoBox) -> dict[str, Any]:
    """Return a grid's height, width, transform and CRS as a dict for rasterio."""
    height, width = geobox.shape
    return {"height": height, "width": width, "transform": geobox.affine, "crs": str(geobox.crs)}
