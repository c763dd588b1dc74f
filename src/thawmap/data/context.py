"""Context layers: what surrounds a pixel, from exact sums over squares.

Values are rounded to the whole numbers by which tiles store them, and summed as such. Whole numbers have no order of
summation, so a window with its halo has the values of the whole, bit for bit, and one table of running sums serves
every scale (Crow 1984, doi 10.1145/800031.808600).
"""

from functools import cached_property

import numpy as np
import numpy.typing as npt

from thawmap.layers import CODES, LAYERS, Context

Values = npt.NDArray[np.float32]
_Sums = npt.NDArray[np.int64]
_Means = npt.NDArray[np.float64]

WATER_NDWI = 0.0
"""NDWI above which a pixel counts as water (McFeeters 1996, doi 10.1080/01431169608948714)."""


def reach_px(context: Context, pixel_m: float) -> int:
    """Return the pixels to each side that a context layer looks at: at least one."""
    return max(1, round(context.scale_m / pixel_m))


class Surroundings:
    """One layer's pixels with their surroundings, in a window with its halo.

    Args:
        values: The layer (y, x), float32 in physical units, NaN where missing.
        usable: Pixels that may be looked at, (y, x).
        base: Name of the layer.
        pixel_m: Side of a pixel in metres.
    """

    def __init__(self, values: Values, usable: npt.NDArray[np.bool_], *, base: str, pixel_m: float) -> None:
        self._low, self._step, self._pixel_m = LAYERS[base].code_low, LAYERS[base].code_step, pixel_m
        self._raw, self._known = values, usable & np.isfinite(values)
        self._is_whole = bool(self._known.all())

    def values(self, context: Context) -> Values:
        """Return a context layer (y, x), float32; NaN where the pixel is not known.

        Of the surroundings only known pixels count. Near the window's border, where some are cut off, values are
        those of what is left.
        """
        reach = reach_px(context, self._pixel_m)
        make = {
            "mean": self._mean,
            "minus_mean": self._minus_mean,
            "deviation": self._deviation,
            "gradient": self._gradient,
            "share": self._water_share,
            "distance": self._water_distance,
        }[context.statistic]
        values = make(reach).astype(np.float32)
        if context.statistic == "distance":
            values = np.minimum(values, np.float32(context.scale_m))
        return values if self._is_whole else np.where(self._known, values, np.float32(np.nan))

    @cached_property
    def _codes(self) -> _Sums:
        """The values in steps of the layer's storage code, from 0; 0 where not known."""
        steps = (np.where(self._known, self._raw, self._low) - self._low) / self._step
        return np.rint(steps, out=steps).clip(0, CODES).astype(np.int64)

    @cached_property
    def _sums(self) -> _Sums:
        return _running_sums(self._codes)

    @cached_property
    def _squares(self) -> _Sums:
        return _running_sums(self._codes**2)

    @cached_property
    def _counts(self) -> _Sums:
        return _running_sums(self._known)

    @cached_property
    def _water(self) -> npt.NDArray[np.bool_]:
        """Known pixels of water."""
        return self._known & (self._raw > WATER_NDWI)

    def _mean(self, reach: int) -> _Means:
        return self._mean_steps((reach, reach), (reach, reach)) * self._step + self._low

    def _minus_mean(self, reach: int) -> _Means:
        return (self._codes - self._mean_steps((reach, reach), (reach, reach))) * self._step

    def _deviation(self, reach: int) -> _Means:
        """Return the standard deviation in the square around each pixel."""
        square = (reach, reach), (reach, reach)
        number = self._number(*square)
        mean = _box(self._sums, *square) / number
        return np.sqrt(np.maximum(_box(self._squares, *square) / number - mean * mean, 0)) * self._step

    def _gradient(self, reach: int) -> _Means:
        """Return the steepness per metre, from the means of a square's four halves."""
        across = self._mean_steps((reach, reach), (0, reach)) - self._mean_steps((reach, reach), (reach, 0))
        along = self._mean_steps((0, reach), (reach, reach)) - self._mean_steps((reach, 0), (reach, reach))
        return np.sqrt(across * across + along * along) * (self._step / (reach * self._pixel_m))

    def _water_share(self, reach: int) -> _Means:
        square = (reach, reach), (reach, reach)
        return _box(_running_sums(self._water), *square) / self._number(*square)

    def _water_distance(self, reach: int) -> _Means:
        """Return the distance to the nearest known water in metres, if within reach.

        Elsewhere, more than the reach.
        """
        far = 2 * reach + 1
        rows = np.minimum(_rows_to(self._water, far), _rows_to(self._water[::-1], far)[::-1]).astype(np.int32) ** 2
        squares = rows.copy()
        for step in range(1, reach + 1):  # the nearest water lies in some column: its rows are known
            np.minimum(squares[:, step:], rows[:, :-step] + step**2, out=squares[:, step:])
            np.minimum(squares[:, :-step], rows[:, step:] + step**2, out=squares[:, :-step])
        return np.sqrt(squares) * self._pixel_m

    def _mean_steps(self, rows: tuple[int, int], cols: tuple[int, int]) -> _Means:
        """Return means, in steps, of so many pixels before and behind each one."""
        return _box(self._sums, rows, cols) / self._number(rows, cols)

    def _number(self, rows: tuple[int, int], cols: tuple[int, int]) -> npt.NDArray[np.int64]:
        """Count the known pixels in the rectangle around each pixel: at least 1."""
        if self._is_whole:
            down, across = (_cut_off(side, *reach) for side, reach in zip(self._raw.shape, (rows, cols), strict=True))
            return down[:, None] * across
        return np.maximum(_box(self._counts, rows, cols), 1)


def _running_sums(values: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> _Sums:
    """Return the table (y + 1, x + 1) of sums over everything above and left."""
    height, width = values.shape
    table = np.zeros((height + 1, width + 1), np.int64)
    np.cumsum(values, axis=1, out=table[1:, 1:])
    for row in range(1, height):  # along rows, which lie together in memory
        table[row + 1] += table[row]
    return table


def _box(table: _Sums, rows: tuple[int, int], cols: tuple[int, int]) -> _Sums:
    """Return sums over the rectangle around each pixel, from a table of running sums.

    It reaches so many pixels before and behind the pixel, and ends at the border.
    """
    return _difference(_difference(table, rows).T, cols).T


def _difference(sums: _Sums, reach: tuple[int, int]) -> _Sums:
    """Return differences of running sums, which begin with 0, along the first axis."""
    side = len(sums) - 1
    before, behind = min(reach[0], side), min(reach[1], side - 1)
    difference = np.empty_like(sums[1:])
    difference[: side - behind] = sums[behind + 1 :]
    difference[side - behind :] = sums[side]
    difference[before:] -= sums[: side - before]
    return difference


def _cut_off(side: int, before: int, behind: int) -> npt.NDArray[np.int64]:
    """Count the pixels of an axis that lie in reach of each, within the axis."""
    places = np.arange(side)
    counts: npt.NDArray[np.int64] = np.minimum(places + behind + 1, side) - np.maximum(places - before, 0)
    return counts


def _rows_to(water: npt.NDArray[np.bool_], far: int) -> npt.NDArray[np.int64]:
    """Count the rows up to the nearest water above or at each pixel, at most ``far``."""
    rows = np.arange(len(water))[:, None]
    last = np.maximum.accumulate(np.where(water, rows, -far), axis=0)
    return np.minimum(rows - last, far)
