"""What a height field tells: height against its surroundings, steepness, where the ground falls, light, curvature.

Pure functions of heights (y, x) in metres, float32, NaN where missing; they give an array of that shape, NaN where
missing. A pixel's value depends on its neighbourhood alone, so that a window with the halo `reach` (or one pixel) has,
bit for bit, the values of the whole. Rows run south, columns east, unless ``north`` says otherwise.

The size of a pixel, ``pixel_m``, is in metres: one number where pixels are square, else height and width; on a grid of
degrees the width is one for each row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from thawmap.errors import DataError
from thawmap.geo.metres import GRID_NORTH, North

Heights = npt.NDArray[np.float32]
Pixel = float | tuple[float, float | npt.NDArray[np.float64]]
"""Metres of a pixel: its side, or its height and its width; the width may be an array, one for each row."""
_Whole = npt.NDArray[Any]  # int32 or int64

_STEPS = 1024  # in a metre: heights are counted in whole steps, so that sums are exact in any order
_FITS = 2**31  # and all below it, in 32 bits
_HIGHEST_M = 1e5  # more is no height, and would not fit into whole numbers
_ROWS, _COLS = 128, 256  # of a block, whose sums stay in the processor's cache


def relative_elevation(height: Heights, *, pixel_m: Pixel, diameter_m: float) -> Heights:
    """Height minus its mean in a circle (y, x), in metres; NaN where the height is missing or little is known.

    The circle holds the pixels whose centres are at most half of ``diameter_m`` away. Where it meets gaps or the end
    of the array, the mean is of what is known, if at least half of its pixels are; else the value is missing. Heights
    count in steps of 1/1024 m, so that the sums, and with them the values of any window, are exact. Paper, section
    2.2.2: a circular window of 50 pixels of 2 m.

    Cost per pixel grows with the diameter: sums along rows are differences of running sums, and rows of one length
    share theirs.

    Raises:
        DataError: If a height is beyond any on Earth.
    """
    pixel_h, width = _sides(pixel_m)
    widths = np.broadcast_to(np.asarray(width, np.float64), (height.shape[0],))
    result = np.empty(height.shape, np.float32)
    for first, last in _runs_of_one_circle(pixel_h, widths, diameter_m):
        circle = _circle(pixel_h, float(widths[first]), diameter_m)
        for top in range(first, last, _ROWS):
            for left in range(0, height.shape[1], _COLS):
                rows, cols = slice(top, min(top + _ROWS, last)), slice(left, min(left + _COLS, height.shape[1]))
                result[rows, cols] = _against_mean(_around(height, rows, cols, circle), circle)
    return result


def reach(pixel_m: Pixel, diameter_m: float) -> tuple[int, int]:
    """Rows and columns beyond a pixel that the circle of `relative_elevation` sees.

    >>> reach(2.0, 100.0)
    (25, 25)
    """
    height, width = _sides(pixel_m)
    rows, cols = (int(diameter_m / 2 / side + 1e-6) for side in (height, np.min(width)))
    return rows, cols


def gradient(
    height: Heights, *, pixel_m: Pixel, method: Literal["neighbours", "horn"] = "neighbours"
) -> tuple[Heights, Heights]:
    """Rise per metre along columns and along rows (y, x), 1; NaN at gaps, beside them, and at the array's end.

    "neighbours" takes the differences of the four neighbours, as Earth Engine's terrain functions; "horn" those of
    eight (Horn 1981, doi 10.1109/PROC.1981.11918), as GDAL's.
    """
    along_rows, along_cols = (np.asarray(side, np.float32).reshape(-1, 1) for side in _sides(pixel_m))
    right, down = (np.full(height.shape, np.nan, np.float32) for _ in range(2))
    across, below = height[:, 2:] - height[:, :-2], height[2:] - height[:-2]
    if method == "horn":
        across = (across[:-2] + 2 * across[1:-1] + across[2:]) / 4
        below = (below[:, :-2] + 2 * below[:, 1:-1] + below[:, 2:]) / 4
    else:
        across, below = across[1:-1], below[:, 1:-1]
    inner_cols = along_cols[1:-1] if len(along_cols) > 1 else along_cols
    right[1:-1, 1:-1] = across / (2 * inner_cols)
    down[1:-1, 1:-1] = below / (2 * along_rows)
    gap = np.isnan(height) | np.isnan(right) | np.isnan(down)
    right[gap] = np.nan
    down[gap] = np.nan
    return right, down


def slope(height: Heights, *, pixel_m: Pixel, method: Literal["neighbours", "horn"] = "neighbours") -> Heights:
    """Steepness (y, x) in degrees, 0 .. 90; NaN as `gradient`."""
    right, down = gradient(height, pixel_m=pixel_m, method=method)
    return _degrees(np.arctan(np.sqrt(right * right + down * down)))


def turned(right: Heights, down: Heights, north: North) -> tuple[Heights, Heights]:
    """A vector along columns and rows as one to the east and to the north (y, x)."""
    north_right, north_down = (np.asarray(part, np.float32) for part in north)
    return north_right * down - north_down * right, north_right * right + north_down * down


def bearing(east: Heights, north: Heights) -> Heights:
    """Where the ground falls (y, x), given its rise to the east and the north: degrees clockwise from north, 0 .. 360.

    0 where it is flat, as Earth Engine and not NaN: a lake is not missing.
    """
    degrees = _degrees(np.arctan2(-east, -north)) % np.float32(360)
    degrees[(east == 0) & (north == 0)] = 0
    return degrees


def aspect(height: Heights, *, pixel_m: Pixel, north: North = GRID_NORTH) -> Heights:
    """Where the ground falls (y, x): degrees clockwise from north, 0 .. 360, 0 where flat; Horn's `gradient`."""
    return bearing(*turned(*gradient(height, pixel_m=pixel_m, method="horn"), north))


def hillshade(
    height: Heights, *, pixel_m: Pixel, north: North = GRID_NORTH, azimuth: float = 315, altitude: float = 45
) -> Heights:
    """Light on the ground (y, x), 0 .. 1, of a sun at ``azimuth`` (degrees clockwise from north) and ``altitude``.

    The cosine of the angle between the light and the ground's normal, by Horn's `gradient`; 0 where it looks away.
    Shadows are not cast.
    """
    east, up = turned(*gradient(height, pixel_m=pixel_m, method="horn"), north)
    from_north, above = np.radians(azimuth), np.radians(altitude)
    flat, to_east, to_north = (
        np.float32(part)
        for part in (np.sin(above), np.cos(above) * np.sin(from_north), np.cos(above) * np.cos(from_north))
    )
    light = (flat - to_east * east - to_north * up) / np.sqrt(1 + east * east + up * up)
    return light.clip(0, 1).astype(np.float32, copy=False)


def curvature(height: Heights, *, pixel_m: Pixel) -> Heights:
    """Minus the sum of the two second derivatives (y, x), 1/m: positive on ridges, negative in hollows.

    From the four neighbours; a ridge of radius r has about 1/r. NaN as `gradient`.
    """
    along_rows, along_cols = (np.asarray(side, np.float32).reshape(-1, 1) for side in _sides(pixel_m))
    inner_cols = along_cols[1:-1] if len(along_cols) > 1 else along_cols
    middle = height[1:-1, 1:-1]
    result = np.full(height.shape, np.nan, np.float32)
    across = (middle - height[1:-1, :-2]) + (middle - height[1:-1, 2:])
    below = (middle - height[:-2, 1:-1]) + (middle - height[2:, 1:-1])
    result[1:-1, 1:-1] = across / (inner_cols * inner_cols) + below / (along_rows * along_rows)
    return result


def _degrees(radians: Heights) -> Heights:
    return radians * np.float32(180 / np.pi)


def _sides(pixel_m: Pixel) -> tuple[float, float | npt.NDArray[np.float64]]:
    """Height and width of a pixel in metres."""
    return pixel_m if isinstance(pixel_m, tuple) else (pixel_m, pixel_m)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Circle:
    """The pixels of a circle: half widths of its rows, and the rows (0 = the middle) that have each.

    Attributes:
        rows: Half width to the distances of its rows from the middle; each counts above and below.
        high: Rows beyond the middle.
        wide: Columns beyond the middle.
        pixels: How many there are.
    """

    rows: dict[int, tuple[int, ...]]
    high: int
    wide: int
    pixels: int

    def pixels_of(self, half: int) -> int:
        """Pixels of all rows with one half width."""
        return (2 * half + 1) * sum(2 if row else 1 for row in self.rows[half])

    @property
    def largest(self) -> int:
        """Pixels of the half width that has most."""
        return max(map(self.pixels_of, self.rows))


def _half_widths(pixel_h: float, pixel_w: npt.NDArray[np.float64], diameter_m: float) -> _Whole:
    """Columns beyond the middle in each row of the circle, from the middle row on (width of a pixel, row)."""
    high = int(diameter_m / 2 / pixel_h + 1e-6)
    chord_m = np.sqrt(np.maximum((diameter_m / 2) ** 2 - (np.arange(high + 1) * pixel_h) ** 2, 0))
    half: _Whole = (chord_m / pixel_w[:, None] + 1e-6).astype(np.int64)
    return half


def _circle(pixel_h: float, pixel_w: float, diameter_m: float) -> _Circle:
    half = [int(one) for one in _half_widths(pixel_h, np.array([pixel_w]), diameter_m)[0]]
    return _Circle(
        rows={wide: tuple(row for row, other in enumerate(half) if other == wide) for wide in dict.fromkeys(half)},
        high=len(half) - 1,
        wide=half[0],
        pixels=2 * sum(2 * wide + 1 for wide in half) - (2 * half[0] + 1),
    )


def _runs_of_one_circle(
    pixel_h: float, widths: npt.NDArray[np.float64], diameter_m: float
) -> Iterator[tuple[int, int]]:
    """First and last + 1 of neighbouring rows whose circles are of the same pixels."""
    half = _half_widths(pixel_h, widths, diameter_m)
    changes = np.flatnonzero((half[1:] != half[:-1]).any(axis=1)) + 1
    yield from pairwise([0, *changes.tolist(), len(widths)])


def _around(height: Heights, rows: slice, cols: slice, circle: _Circle) -> Heights:
    """A block of heights with what its circles see around it; NaN beyond the array."""
    high, wide = circle.high, circle.wide
    seen = height[max(rows.start - high, 0) : rows.stop + high, max(cols.start - wide, 0) : cols.stop + wide]
    shape = (rows.stop - rows.start + 2 * high, cols.stop - cols.start + 2 * wide)
    if seen.shape == shape:
        return seen
    block = np.full(shape, np.nan, np.float32)
    top, left = max(high - rows.start, 0), max(wide - cols.start, 0)
    block[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
    return block


def _against_mean(block: Heights, circle: _Circle) -> Heights:
    """Heights less the mean of their circles, of a block without the rows and columns that only circles see."""
    inner = (slice(circle.high, block.shape[0] - circle.high), slice(circle.wide, block.shape[1] - circle.wide))
    low, high = np.fmin.reduce(block, axis=None), np.fmax.reduce(block, axis=None)
    if np.isnan(low):
        return block[inner]
    if max(-low, high) > _HIGHEST_M:
        msg = f"heights from {low:.9g} to {high:.9g} m are none of Earth's; name the number that means missing"
        raise DataError(msg)
    least = int(np.rint(low * _STEPS))
    span = int(np.rint(high * _STEPS)) - least
    # Running sums may wrap around: their differences are right nevertheless, as long as these fit.
    whole = np.int32 if max(span, 1) * circle.largest < _FITS else np.int64
    steps = np.rint(block * np.float32(_STEPS))
    known = np.isfinite(block)
    complete = bool(known.all())
    if not complete:
        steps[~known] = least
    raised = steps.astype(whole) - whole(least)
    sums = _circle_sums(raised, circle, span)
    middle = raised[inner].astype(sums.dtype, copy=False)
    if complete:
        return _per_metre(middle * sums.dtype.type(circle.pixels) - sums, circle.pixels)
    pixels = _circle_sums(known.astype(np.int32), circle, 1)
    enough = known[inner] & (2 * pixels >= circle.pixels)
    return np.where(enough, _per_metre(pixels * middle - sums, np.maximum(pixels, 1)), np.float32(np.nan))


def _per_metre(excess: _Whole, pixels: int | _Whole) -> Heights:
    """The mean in metres of a sum of steps."""
    metres: Heights = (excess / (np.float64(_STEPS) * pixels)).astype(np.float32)
    return metres


def _circle_sums(values: _Whole, circle: _Circle, largest: int) -> _Whole:
    """Sums in the circles around all but the outermost values, of which ``largest`` is the largest; exact.

    In 32 bits as far as they fit: sums of parts of the circle are then added in 64.
    """
    height, width = values.shape[0] - 2 * circle.high, values.shape[1] - 2 * circle.wide
    running = np.zeros((values.shape[0], values.shape[1] + 1), values.dtype)
    np.cumsum(values, axis=1, dtype=values.dtype, out=running[:, 1:])
    part, summed = np.zeros((height, width), values.dtype), 0
    whole = part
    rows = np.empty((height, running.shape[1]), values.dtype)
    for half, distances in circle.rows.items():
        pixels = circle.pixels_of(half)
        if part.dtype == np.int32 and (summed + pixels) * largest >= _FITS:
            whole = whole + part if whole is not part else part.astype(np.int64)
            part, summed = np.zeros_like(part), 0
        summed += pixels
        starts = [circle.high + row for distance in distances for row in {distance, -distance}]
        shared: _Whole = running[starts[0] : starts[0] + height]
        for start in starts[1:]:
            shared = np.add(shared, running[start : start + height], out=rows)
        right, left = circle.wide + half + 1, circle.wide - half
        part += shared[:, right : right + width]
        part -= shared[:, left : left + width]
    return whole + part if whole.dtype != part.dtype else part
