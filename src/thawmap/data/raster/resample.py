"""An open raster's numbers on any grid: missing as NaN, each value where it lies to a thousandth of a pixel."""

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
_TOLERANCE_PX = 1e-3  # of positions; GDAL's own 0.125 px differs from one cut of a scene to another, and costs the same
_LATTICE = 17  # points a side at which a grid is projected, to know what lies under it
_FINEST = 4  # pixels read for one of a much coarser grid, along each axis
_UNTOUCHED = -1e30  # where GDAL finds no pixel, for it knows no NaN there
_WHOLE = frozenset({"uint8", "int8", "uint16", "int16"})  # types of which every number is a float32
_STRIP_PX = 256  # rows read at once
_MOST = 2**22  # numbers read at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to read of a raster, and how.

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
    """What of a grid lies under another: its pixels with a margin, and how many of them in one of the other's."""

    window: Window
    rows: float
    cols: float

    @property
    def resampling(self) -> str:
        """A mean of pixels where the other grid is coarser, else an interpolation.

        Where they part lies off the ratios of common sensors, so that no two windows of a scene differ.
        """
        return "average" if self.rows * self.cols > 1.2**2 else "cubic"


def read(file: Upright, own: GeoBox, geobox: GeoBox, choice: Choice) -> _Values:
    """Numbers (band, y, x) of an open raster on ``geobox``, float32, unscaled; NaN where missing, infinite or outside.

    Args:
        file: The open raster.
        own: Its grid.
        geobox: The grid to read onto; a part of the file's own grid is read without resampling.
        choice: Which bands, and how.
    """
    own = shift_by_turns(own, geobox)
    same = _aligned(own, geobox)
    if same is not None:
        return _read_window(file, same, choice)
    times = _times(own, geobox) if choice.resampling in (None, "average", "nearest") else 1
    return _read_coarser(file, own, geobox, times, choice) if times > 1 else _read_warped(file, own, geobox, choice)


def _times(own: GeoBox, geobox: GeoBox) -> int:
    """How many of the file's pixels, along each axis, are one of a grid that is so many times coarser; else 1."""
    times = round(_pixels_in_one(own, geobox)[0]) if own.crs == geobox.crs else 1
    blocks = GeoBox(own.shape, own.affine * Affine.scale(times), own.crs)
    return times if times > 1 and _aligned(blocks, geobox) is not None else 1


def _read_coarser(file: Upright, own: GeoBox, geobox: GeoBox, times: int, choice: Choice) -> _Values:
    """Blocks of ``times`` x ``times`` pixels of the file as one; NaN where a block is not whole."""
    blocks = GeoBox((own.height // times, own.width // times), own.affine * Affine.scale(times), own.crs)
    window = _aligned(blocks, geobox)
    assert window is not None
    values = np.full((len(choice.bands), *geobox.shape), np.nan, np.float32)
    inside = _inside((blocks.height, blocks.width), window)
    if inside is not None:
        top, left = inside.row - window.row, inside.col - window.col
        part = read_blocks(file, _pixels(inside, (times, times)), (inside.height, inside.width), choice)
        values[:, top : top + inside.height, left : left + inside.width] = part
    return values


def _aligned(own: GeoBox, geobox: GeoBox) -> Window | None:
    """The window of ``own`` that ``geobox`` is; None where the pixels are not the same."""
    if own.crs != geobox.crs:
        return None
    step = ~own.affine * geobox.affine
    same_size = np.allclose((step.a, step.b, step.d, step.e), (1, 0, 0, 1), rtol=0, atol=_SNAP_PX / max(geobox.shape))
    col, row = round(step.c), round(step.f)
    if not same_size or max(abs(step.c - col), abs(step.f - row)) >= _SNAP_PX:
        return None
    return Window(row=row, col=col, height=geobox.shape[0], width=geobox.shape[1])


def _read_window(file: Upright, window: Window, choice: Choice) -> _Values:
    """A window of the file's own pixels; NaN where missing or outside."""
    inside = _inside(file.shape, window)
    if inside == window:
        return _read_inside(file, window, choice)
    values = np.full((len(choice.bands), window.height, window.width), np.nan, np.float32)
    if inside is not None:
        top, left = inside.row - window.row, inside.col - window.col
        values[:, top : top + inside.height, left : left + inside.width] = _read_inside(file, inside, choice)
    return values


def _read_inside(file: Upright, window: Window, choice: Choice) -> _Values:
    """A window that the file has; NaN where missing.

    Where a whole number is all that says what is missing, comparing here takes a fifth of the time of GDAL's masks.
    """
    bands, place = list(choice.bands), _file_window(window)
    header = file.file
    named = {header.nodatavals[band - 1] for band in bands}
    flags = {flag for band in bands for flag in header.mask_flag_enums[band - 1]}
    if flags == {MaskFlags.nodata} and len(named) == 1 and all(header.dtypes[band - 1] in _WHOLE for band in bands):
        return _as_float(file.read(bands, window=place), (*named, choice.nodata))
    return _unmasked(file.read(bands, window=place, masked=True), choice.nodata)


def _unmasked(stored: npt.NDArray[Any], nodata: float | None) -> _Values:
    """Stored numbers under a mask as float32; NaN where masked or ``nodata``."""
    assert isinstance(stored, np.ma.MaskedArray)
    values = _as_float(stored.data, (nodata,))
    if np.ma.is_masked(stored):
        values[stored.mask] = np.nan
    return values


def _as_float(stored: npt.NDArray[Any], missing: Iterable[float | None]) -> _Values:
    """Stored numbers as float32; NaN where they are one of ``missing``, or no finite number.

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


def _inside(shape: tuple[int, int], window: Window) -> Window | None:
    """The part of a window that a raster of ``shape`` has; None where it has none."""
    top, left = max(window.row, 0), max(window.col, 0)
    height = min(window.row + window.height, shape[0]) - top
    width = min(window.col + window.width, shape[1]) - left
    return Window(row=top, col=left, height=height, width=width) if height > 0 and width > 0 else None


def _file_window(window: Window) -> FileWindow:
    return FileWindow(window.col, window.row, window.width, window.height)


def _read_warped(file: Upright, own: GeoBox, geobox: GeoBox, choice: Choice) -> _Values:
    """The bands warped onto another grid, from just the pixels of the file that it needs."""
    missing = np.full((len(choice.bands), *geobox.shape), np.nan, np.float32)
    under = _footprint(own, geobox)
    if under is None:
        return missing
    choice = replace(choice, resampling=choice.resampling or under.resampling)
    rows, cols = own.shape
    step = (_step(under.rows, rows), _step(under.cols, cols))
    blocks = GeoBox((rows // step[0], cols // step[1]), own.affine * Affine.scale(step[1], step[0]), own.crs)
    under = _footprint(blocks, geobox)
    needed = None if under is None else _inside((rows // step[0], cols // step[1]), under.window)
    if needed is None:
        return missing
    if needed.height * needed.width * len(choice.bands) > _MOST and max(geobox.shape) > 1:
        return _read_halves(file, own, geobox, choice)
    values = read_blocks(file, _pixels(needed, step), (needed.height, needed.width), choice)
    part = GeoBox(values.shape[1:], blocks.affine * Affine.translation(needed.col, needed.row), own.crs)
    return warp(values, part, geobox, resampling=choice.resampling)


def _read_halves(file: Upright, own: GeoBox, geobox: GeoBox, choice: Choice) -> _Values:
    """As `_read_warped`, one half after the other, so that memory stays bounded."""
    rows, cols = geobox.shape
    if rows >= cols:
        halves, axis = (geobox[: rows // 2], geobox[rows // 2 :]), 1
    else:
        halves, axis = (geobox[:, : cols // 2], geobox[:, cols // 2 :]), 2
    return np.concatenate([_read_warped(file, own, half, choice) for half in halves], axis=axis)


def _step(pixels: float, length: int) -> int:
    """Pixels of an axis to read as one, so that the other grid's pixels still are `_FINEST` of them wide."""
    return min(max(int(pixels / _FINEST), 1), length)


def read_blocks(file: Upright, pixels: Window, shape: tuple[int, int], choice: Choice) -> _Values:
    """A window as ``shape`` (rows, columns) of equal blocks, in bounded memory: their means, or middles for nearest.

    Means come from the file's overviews where it has some, rounded to its type.
    """
    tall, wide = pixels.height // shape[0], pixels.width // shape[1]
    if (tall, wide) == (1, 1):
        return _read_window(file, pixels, choice)
    bands, nearest = list(choice.bands), choice.resampling == "nearest"
    if choice.nodata is None and not nearest:
        window, how = _file_window(pixels), Resampling.average
        means = file.read(bands, window=window, out_shape=shape, masked=True, resampling=how)
        if means.dtype.kind != "f" or np.isfinite(np.ma.filled(means, 0)).all():
            return _unmasked(means, None)  # else one number that is not finite has spoilt all of its block
    values = np.empty((len(bands), *shape), np.float32)
    lines = max(1, _STRIP_PX // tall)
    for first in range(0, shape[0], lines):
        strip = replace(pixels, row=pixels.row + first * tall, height=min(lines, shape[0] - first) * tall)
        read = _read_window(file, strip, choice)
        middles = read[:, tall // 2 :: tall, wide // 2 :: wide]
        values[:, first : first + lines] = middles if nearest else _mean(read, tall, wide)
    return values


def _pixels(blocks: Window, step: tuple[int, int]) -> Window:
    """The pixels of a window of blocks of ``step`` (rows, columns)."""
    tall, wide = step
    return Window(row=blocks.row * tall, col=blocks.col * wide, height=blocks.height * tall, width=blocks.width * wide)


def _mean(values: _Values, tall: int, wide: int) -> _Values:
    """Means (band, y, x) of what is not missing in blocks of ``tall`` x ``wide`` values; NaN where all is."""
    known = np.isfinite(values)
    if known.all():
        return _block_sums(values, tall, wide) / np.float32(tall * wide)
    total, count = _block_sums(np.where(known, values, 0), tall, wide), _block_sums(known, tall, wide)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _block_sums(values: npt.NDArray[Any], tall: int, wide: int) -> _Values:
    """Sums of blocks, float32; several times as fast as numpy's sum over short axes."""
    bands, rows, cols = values.shape
    total = np.zeros((bands, rows // tall, cols // wide), np.float32)
    with np.errstate(over="ignore"):  # infinite is missing
        lines = values.reshape(bands, rows // tall, tall, cols).sum(axis=2, dtype=np.float32)
        for col in range(wide):
            total += lines[..., col::wide]
    return total


def _footprint(own: GeoBox, geobox: GeoBox) -> _Footprint | None:
    """What of ``own`` lies under ``geobox``; None where the one's CRS knows no place of the other."""
    height, width = geobox.shape
    across, down = np.linspace(0, width, _LATTICE), np.linspace(0, height, _LATTICE)
    col, row = _positions(own, geobox, np.repeat(across, _LATTICE), np.tile(down, _LATTICE))
    known = np.isfinite(col) & np.isfinite(row)
    if not known.any():
        return None
    rows, cols = _pixels_in_one(own, geobox)
    top, tall = _span(row[known], rows)
    left, wide = _span(col[known], cols)
    return _Footprint(window=Window(row=top, col=left, height=tall, width=wide), rows=rows, cols=cols)


def _span(positions: _Positions, pixels: float) -> tuple[int, int]:
    """First pixel and number of pixels that hold the positions, and what resampling looks at around them."""
    margin = int(np.ceil(3 * max(pixels, 1.0))) + 2
    first = int(np.floor(positions.min())) - margin
    return first, int(np.ceil(positions.max())) + margin - first


def _pixels_in_one(own: GeoBox, geobox: GeoBox) -> tuple[float, float]:
    """Rows and columns of ``own`` in one pixel at the centre of ``geobox``; 1 where nothing is known there.

    Rounded, so that neighbouring windows resample alike.
    """
    y, x = (side / 2 for side in geobox.shape)
    col, row = _positions(own, geobox, np.array([x, x + 1, x]), np.array([y, y, y + 1]))
    rows, cols = (float(np.hypot(*(axis[1:] - axis[0]))) for axis in (row, col))
    return (round(rows, 2), round(cols, 2)) if np.isfinite(rows + cols) else (1.0, 1.0)


def _positions(own: GeoBox, geobox: GeoBox, cols: _Positions, rows: _Positions) -> tuple[_Positions, _Positions]:
    """Columns and rows of ``own`` at those of ``geobox``, in pixels from the corner; not finite where unknown."""
    return to_pixels(own, geobox.crs, *(geobox.affine * (cols, rows)))


def footprint(own: GeoBox, geobox: GeoBox) -> Window | None:
    """The window of ``own`` that lies under ``geobox``, with the margin that resampling needs; it may reach beyond.

    None where the one's CRS knows no place of the other.
    """
    under = _footprint(own, geobox)
    return None if under is None else under.window


def warp(values: _Values, own: GeoBox, geobox: GeoBox, *, resampling: str | None = None) -> _Values:
    """Values (band, y, x), float32, NaN where missing, that lie on ``own``: on ``geobox``, NaN also outside.

    Every band by itself: where one is missing, the others are not.

    Args:
        values: What lies on ``own``.
        own: Their grid.
        geobox: The grid to bring them to.
        resampling: nearest, bilinear, cubic or average; None: average when coarsening, else cubic.
    """
    own = shift_by_turns(own, geobox)
    if resampling is None:
        under = _footprint(own, geobox)
        resampling = "cubic" if under is None else under.resampling
    result = _warp(values, own, geobox, resampling)
    for further in _beyond(own, geobox):
        result = np.where(np.isnan(result), _warp(values, further, geobox, resampling), result)
    return result


def _beyond(own: GeoBox, geobox: GeoBox) -> list[GeoBox]:
    """A grid of degrees where GDAL looks for what it has beyond the antimeridian, which is a turn away from it."""
    assert own.crs is not None
    if own.crs == geobox.crs or not own.crs.geographic:
        return []
    west, east = sorted((own.affine * (col, 0))[0] for col in (0, own.width))
    turns = [turn for turn, beyond in ((-360, east > 180), (360, west < -180)) if beyond]
    return [GeoBox(own.shape, Affine.translation(turn, 0) * own.affine, own.crs) for turn in turns]


def _warp(values: _Values, own: GeoBox, geobox: GeoBox, resampling: str) -> _Values:
    """Values on ``geobox`` from those on ``own``; every band by itself: where one is missing, the others are not.

    Where ``geobox`` is coarser, bilinear and cubic look as far as its pixels reach. The average is a mean of points
    about one pixel apart: GDAL's own takes the box between two corners, which is no pixel where grids are turned.
    """
    rows, cols = _pixels_in_one(own, geobox)
    if resampling == "average":
        times = max(1, int(np.ceil(max(rows, cols) - 0.2)))  # the same for all windows where ratios are near a whole
        height, width = geobox.shape
        fine = GeoBox((height * times, width * times), geobox.affine * Affine.scale(1 / times), geobox.crs)
        points = _warp(values, own, fine, "bilinear")
        return _mean(points, times, times)
    nodata = np.nan if np.isnan(values).any() else None  # without, GDAL takes half of the time
    beyond = {"init_dest_nodata": False, "INIT_DEST": _UNTOUCHED} if nodata is None else {"UNIFIED_SRC_NODATA": "NO"}
    options = {
        "resampling": Resampling[resampling], "tolerance": _TOLERANCE_PX, "XSCALE": 1 / max(cols, 1.0),
        "YSCALE": 1 / max(rows, 1.0), "nodata": nodata, **beyond,
    }  # fmt: skip
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", dtype="float32", nodata=nodata, count=len(values), **_place(own)) as file:
            file.write(values)
        with memory.open() as file, WarpedVRT(file, **_place(geobox), **options) as warped:
            result: _Values = warped.read()
    if nodata is None:
        result[result == np.float32(_UNTOUCHED)] = np.nan
    elif resampling != "nearest":  # GDAL fills the rims of gaps
        result[np.isnan(_warp(values, own, geobox, "nearest"))] = np.nan
    return result


def _place(geobox: GeoBox) -> dict[str, Any]:
    """A grid in rasterio's words."""
    height, width = geobox.shape
    return {"height": height, "width": width, "transform": geobox.affine, "crs": str(geobox.crs)}
