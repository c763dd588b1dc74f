"""Relative elevation, slope, aspect, hillshade and curvature of a height field.

Pure functions of heights (y, x) in metres, float32, NaN where missing; they give an array of that shape, NaN where
missing. A pixel's value depends on its neighbourhood alone, so that a window with the halo `reach` (or one pixel) has,
bit for bit, the values of the whole. Rows run south, columns east, unless ``north`` says otherwise.

The size of a pixel, ``pixel_m``, is in metres: one number where pixels are square, else height and width; on a grid of
degrees the width is one for each row.
"""

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
_Integers = npt.NDArray[Any]  # int32 or int64

_STEPS = 1024  # in a metre: heights are counted in whole steps, so that sums are exact in any order
_LIMIT = 2**31  # sums below it fit into 32 bits
_HIGHEST_M = 1e5  # more is no height, and would not fit into whole numbers
_BLOCK = (128, 256)  # rows and columns whose sums stay in the processor's cache


def relative_elevation(
    height: Heights, *, pixel_m: Pixel, diameter_m: float, block: tuple[int, int] = _BLOCK
) -> Heights:
    """Return each height minus the mean height of the circle around it, in metres.

    The circle holds the pixels whose centres are at most half of ``diameter_m`` away. Where it meets gaps or the end
    of the array, the mean is of the heights that are not missing, if at least half of its pixels have one; else the
    value is missing, as it is where the height itself is. Heights count in steps of 1/1024 m, so that the sums, and
    with them the values of any window, are exact. Paper, section 2.2.2: a circular window of 50 pixels of 2 m.

    Cost per pixel grows with the diameter: sums along rows are differences of running sums, and rows of one length
    share theirs. ``block``, the rows and columns that are computed at once, changes no value.

    Raises:
        DataError: If a height is beyond any on Earth.
    """
    pixel_h, width = _sides(pixel_m)
    widths = np.broadcast_to(np.asarray(width, np.float64), (height.shape[0],))
    result = np.empty(height.shape, np.float32)
    high = int(diameter_m / 2 / pixel_h + 1e-6)
    chord_m = np.sqrt(np.maximum((diameter_m / 2) ** 2 - (np.arange(high + 1) * pixel_h) ** 2, 0))
    half_widths = (chord_m / widths[:, None] + 1e-6).astype(np.int64)  # (row, row of its circle from the middle on)
    # Where pixels narrow from row to row, neighbouring rows share a circle as long as it holds the same pixels.
    changes = np.flatnonzero((half_widths[1:] != half_widths[:-1]).any(axis=1)) + 1
    for first, last in pairwise([0, *changes.tolist(), len(widths)]):
        circle = _Circle.of(half_widths[first].tolist())
        for top in range(first, last, block[0]):
            for left in range(0, height.shape[1], block[1]):
                rows, cols = slice(top, min(top + block[0], last)), slice(left, min(left + block[1], height.shape[1]))
                result[rows, cols] = _minus_mean(_with_halo(height, rows, cols, circle), circle)
    return result


def reach(pixel_m: Pixel, diameter_m: float) -> tuple[int, int]:
    """Return the radius of a circle in whole rows and columns of pixels.

    They are the halo that `relative_elevation` needs.

    >>> reach(2.0, 100.0)
    (25, 25)
    """
    height, width = _sides(pixel_m)
    rows, cols = (int(diameter_m / 2 / side + 1e-6) for side in (height, np.min(width)))
    return rows, cols


def gradient(
    height: Heights, *, pixel_m: Pixel, method: Literal["neighbours", "horn"] = "neighbours"
) -> tuple[Heights, Heights]:
    """Return the rise per metre to the right and downwards, two arrays (y, x).

    NaN at gaps, beside them, and at the array's end.

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
    """Return the steepness of heights in degrees, 0 .. 90; NaN at gaps and edges.

    It is that of `gradient`, and NaN where that is.
    """
    right, down = gradient(height, pixel_m=pixel_m, method=method)
    return _degrees(np.arctan(np.sqrt(right * right + down * down)))


def east_north(right: Heights, down: Heights, north: North) -> tuple[Heights, Heights]:
    """Return components to the east and north of vectors to the right and down."""
    north_right, north_down = (np.asarray(component, np.float32) for component in north)
    return north_right * down - north_down * right, north_right * right + north_down * down


def bearing(east: Heights, north: Heights) -> Heights:
    """Return the compass direction downhill, 0 .. 360, from rises to east and north.

    In degrees clockwise from north; 0 where it is flat, as Earth Engine and not NaN: a lake is not missing.
    """
    degrees = _degrees(np.arctan2(-east, -north)) % np.float32(360)
    degrees[(east == 0) & (north == 0)] = 0
    return degrees


def aspect(height: Heights, *, pixel_m: Pixel, north: North = GRID_NORTH) -> Heights:
    """Return the compass direction downhill of heights, 0 .. 360; 0 where flat.

    In degrees clockwise from north, by Horn's `gradient`.
    """
    return bearing(*east_north(*gradient(height, pixel_m=pixel_m, method="horn"), north))


def hillshade(
    height: Heights, *, pixel_m: Pixel, north: North = GRID_NORTH, azimuth: float = 315, altitude: float = 45
) -> Heights:
    """Return the light of a sun at an azimuth and altitude on heights, 0 .. 1.

    The sun stands at ``azimuth``, in degrees clockwise from north, and ``altitude``, in degrees. The light is the
    cosine of the angle between its direction and the ground's normal, by Horn's `gradient`; 0 where it looks away.
    Shadows are not cast.
    """
    east, rise_north = east_north(*gradient(height, pixel_m=pixel_m, method="horn"), north)
    from_north, above = np.radians(azimuth), np.radians(altitude)
    sun_up, sun_east, sun_north = (
        np.float32(component)
        for component in (np.sin(above), np.cos(above) * np.sin(from_north), np.cos(above) * np.cos(from_north))
    )
    light = (sun_up - sun_east * east - sun_north * rise_north) / np.sqrt(1 + east * east + rise_north * rise_north)
    return light.clip(0, 1).astype(np.float32, copy=False)


def curvature(height: Heights, *, pixel_m: Pixel) -> Heights:
    """Return minus the sum of the two second derivatives of height, in 1/m.

    Positive on ridges, negative in hollows. From the four neighbours; a ridge of radius r has about 1/r. NaN where
    `gradient` is.
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
    """Return angles in radians as degrees, of the same dtype."""
    return radians * np.float32(180 / np.pi)


def _sides(pixel_m: Pixel) -> tuple[float, float | npt.NDArray[np.float64]]:
    """Return a pixel's height and width in metres; both the same for one number."""
    return pixel_m if isinstance(pixel_m, tuple) else (pixel_m, pixel_m)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Circle:
    """A circle of pixels as rows of pixels, grouped by their length.

    Attributes:
        rows: Distances of rows from the middle row, by half width: the columns beyond the middle. A distance counts
            above and below.
        high: Rows beyond the middle.
        wide: Columns beyond the middle.
        pixels: Number of pixels.
    """

    rows: dict[int, tuple[int, ...]]
    high: int
    wide: int
    pixels: int

    @classmethod
    def of(cls, half_widths: list[int]) -> "_Circle":
        """Return a circle from its rows' half widths in pixels, from the middle row on."""
        return cls(
            rows={
                wide: tuple(row for row, other in enumerate(half_widths) if other == wide)
                for wide in dict.fromkeys(half_widths)
            },
            high=len(half_widths) - 1,
            wide=half_widths[0],
            pixels=2 * sum(2 * wide + 1 for wide in half_widths) - (2 * half_widths[0] + 1),
        )

    def pixels_of(self, half_width: int) -> int:
        """Return the number of pixels in all rows of one half width."""
        return (2 * half_width + 1) * sum(2 if row else 1 for row in self.rows[half_width])

    @property
    def largest(self) -> int:
        """The number of pixels in the rows of the half width that has most."""
        return max(map(self.pixels_of, self.rows))


def _with_halo(height: Heights, rows: slice, cols: slice, circle: _Circle) -> Heights:
    """Return a block of heights and a circle's radius around it; NaN beyond the array."""
    high, wide = circle.high, circle.wide
    inside = height[max(rows.start - high, 0) : rows.stop + high, max(cols.start - wide, 0) : cols.stop + wide]
    shape = (rows.stop - rows.start + 2 * high, cols.stop - cols.start + 2 * wide)
    if inside.shape == shape:
        return inside
    block = np.full(shape, np.nan, np.float32)
    top, left = max(high - rows.start, 0), max(wide - cols.start, 0)
    block[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return block


def _minus_mean(block: Heights, circle: _Circle) -> Heights:
    """Return heights minus the mean of the circle around each; the halo is cut off.

    Raises:
        DataError: If a height is beyond any on Earth.
    """
    inner = (slice(circle.high, block.shape[0] - circle.high), slice(circle.wide, block.shape[1] - circle.wide))
    lowest, highest = np.fmin.reduce(block, axis=None), np.fmax.reduce(block, axis=None)
    if np.isnan(lowest):  # no height in all of the block
        return block[inner]
    if max(-lowest, highest) > _HIGHEST_M:
        msg = f"heights from {lowest:.9g} to {highest:.9g} m are none of Earth's; name the number that means missing"
        raise DataError(msg)
    # Heights count from the lowest one, so that sums are small enough for 32 bits nearly everywhere.
    base = int(np.rint(lowest * _STEPS))
    span = int(np.rint(highest * _STEPS)) - base
    # Running sums may wrap around: their differences are right nevertheless, as long as these fit.
    dtype = np.int32 if max(span, 1) * circle.largest < _LIMIT else np.int64
    steps = np.rint(block * np.float32(_STEPS))
    valid = np.isfinite(block)
    is_complete = bool(valid.all())
    if not is_complete:
        steps[~valid] = base
    raised = steps.astype(dtype) - dtype(base)
    sums = _circle_sums(raised, circle, span)
    middle = raised[inner].astype(sums.dtype, copy=False)
    if is_complete:
        return _per_metre(middle * sums.dtype.type(circle.pixels) - sums, circle.pixels)
    pixels = _circle_sums(valid.astype(np.int32), circle, 1)
    enough = valid[inner] & (2 * pixels >= circle.pixels)
    return np.where(enough, _per_metre(pixels * middle - sums, np.maximum(pixels, 1)), np.float32(np.nan))


def _per_metre(steps: _Integers, pixels: int | _Integers) -> Heights:
    """Return sums of height steps as means in metres, divided by numbers of pixels."""
    metres: Heights = (steps / (np.float64(_STEPS) * pixels)).astype(np.float32)
    return metres


def _circle_sums(values: _Integers, circle: _Circle, largest: int) -> _Integers:
    """Return exact integer sums of values in the circle around each inner pixel.

    In 32 bits as far as they fit, given the ``largest`` value: sums of some rows of the circle are then added in 64.
    """
    height, width = values.shape[0] - 2 * circle.high, values.shape[1] - 2 * circle.wide
    running = np.zeros((values.shape[0], values.shape[1] + 1), values.dtype)
    np.cumsum(values, axis=1, dtype=values.dtype, out=running[:, 1:])
    subtotal, summed = np.zeros((height, width), values.dtype), 0
    total = subtotal  # the same array until a subtotal might overflow
    buffer = np.empty((height, running.shape[1]), values.dtype)
    for half_width, distances in circle.rows.items():
        pixels = circle.pixels_of(half_width)
        if subtotal.dtype == np.int32 and (summed + pixels) * largest >= _LIMIT:
            total = total + subtotal if total is not subtotal else subtotal.astype(np.int64)
            subtotal, summed = np.zeros_like(subtotal), 0
        summed += pixels
        # Rows of one length end at the same columns: their running sums are added first and differenced once.
        starts = [circle.high + row for distance in distances for row in {distance, -distance}]
        shared: _Integers = running[starts[0] : starts[0] + height]
        for start in starts[1:]:
            shared = np.add(shared, running[start : start + height], out=buffer)
        right, left = circle.wide + half_width + 1, circle.wide - half_width
        subtotal += shared[:, right : right + width]
        subtotal -= shared[:, left : left + width]
    return total + subtotal if total.dtype != subtotal.dtype else subtotal
