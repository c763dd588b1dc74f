"""Landsat trends of the tasselled-cap indices: running sums of observations, and the slopes of lines through them.

Pure arrays: indices from the stored numbers of Collection 2, and sums that take observations in any order, in parts,
and merged, with the same result to the last bit. Values are rounded to 2^-24, so that all sums are exact.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from thawmap.errors import ConfigError

Numbers = npt.NDArray[np.uint16]
"""Stored numbers."""
Values = npt.NDArray[np.float32]
Usable = npt.NDArray[np.bool_]
Sensor = Literal["tm", "etm", "oli"]
Harmonise = Literal["roy2016", "none"]

BANDS = ("blue", "green", "red", "nir08", "swir16", "swir22")
"""Bands of an observation, in the order in which all functions here take them."""
INDICES = ("brightness", "greenness", "wetness")
DECADE_DAYS = 3650.0
"""Days of a decade, as in the published trends; a calendar's has 3652.5, or 0.07 % more."""
BYTES_OF_SUMS = 66
"""Memory of the sums of a pixel."""
BYTES_OF_DATE = 12
"""Memory of one date of a pixel where all dates are kept."""

_SCALE, _OFFSET = 2.75e-5, -0.2  # from stored numbers of Collection 2 to reflectance
_CRIST = np.array(
    [
        [0.2043, 0.4158, 0.5524, 0.5741, 0.3124, 0.2303],
        [-0.1603, -0.2819, -0.4934, 0.7940, -0.0002, -0.1446],
        [0.0315, 0.2021, 0.3102, 0.1594, -0.6806, -0.6109],
    ]
)
_SLOPES = np.array([0.9785, 0.9542, 0.9825, 1.0073, 1.0171, 0.9949])
_INTERCEPTS = np.array([-0.0095, -0.0016, -0.0022, -0.0021, -0.0030, 0.0029])

_FILL, _DILATED, _CIRRUS, _CLOUD, _SHADOW, _SNOW = (1 << bit for bit in range(6))
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_STEPS = 2.0**24  # in which values are counted: sums of a thousand dates of forty years stay below 2^53
_CHUNK_PX = 2**14  # computed at once, so that they stay in the processor's cache
_PAIRS = 2**22  # pairs of dates whose slopes are computed at once
_FEWEST_PX = 2**16  # of a block, below which its borders would be read over and over
_YEAR_DAYS = 365.25
_NO_DAY = (32767, -32768)  # first and last, of a pixel without observations


def day_of(time: datetime) -> int:
    """Return the whole days from 1 January 2000 to a time, in UTC."""
    return (time.astimezone(UTC) - _EPOCH).days


def tasselled_cap(
    numbers: npt.NDArray[Any],
    sensor: Sensor,
    *,
    harmonise: Harmonise,
    scale: float = _SCALE,
    offset: float = _OFFSET,
) -> Values:
    """Return brightness, greenness and wetness (index, y, x) of bands (band, y, x).

    Float32. Crist (1985), reflectance factors, for all sensors. OLI's reflectance is first made that of ETM+ by the
    reduced major axis of Roy et al. (2016), solved for ETM+, which the published trends take too.

    Args:
        numbers: Stored numbers of `BANDS`.
        sensor: The sensor.
        harmonise: How OLI is made comparable; TM is taken as ETM+.
        scale: Factor from stored numbers to reflectance.
        offset: Added after scaling.
    """
    factors, constants = _factors(sensor, harmonise, scale, offset)
    indices = np.empty((len(INDICES), *numbers.shape[1:]), np.float32)
    for index in range(len(INDICES)):
        total = numbers[0] * factors[index, 0]
        for band in range(1, len(BANDS)):  # one by one: a matrix product rounds as its shape goes
            total += numbers[band] * factors[index, band]
        np.add(total, constants[index], out=indices[index])
    return indices


@lru_cache(maxsize=32)
def _factors(sensor: Sensor, harmonise: Harmonise, scale: float, offset: float) -> tuple[Values, Values]:
    """Return factors (index, band) and constants (index) from stored numbers to indices."""
    factors, constants = np.full(len(BANDS), scale), np.full(len(BANDS), offset)
    if sensor == "oli" and harmonise == "roy2016":
        factors, constants = factors / _SLOPES, (constants - _INTERCEPTS) / _SLOPES
    return (_CRIST * factors).astype(np.float32), (_CRIST @ constants).astype(np.float32)


def usable(
    numbers: Numbers, quality: Numbers, saturation: Numbers, sensor: Sensor, *, dilated_cloud: bool = True
) -> Usable:
    """Return where an observation (y, x) can be used.

    Not under fill, cloud, its shadow, snow, cirrus (which only OLI sees), nor where any band is saturated or missing.

    Args:
        numbers: Stored numbers (band, y, x); 0 is missing.
        quality: QA_PIXEL of Collection 2 (y, x); the bits of Collection 1 meant something else.
        saturation: QA_RADSAT (y, x).
        sensor: The sensor.
        dilated_cloud: Whether the rims that are drawn around clouds are left out too.
    """
    clear: Usable = is_clear(quality, sensor, dilated_cloud=dilated_cloud)
    clear &= saturation == 0
    for band in numbers:
        clear &= band != 0
    return clear


def is_clear(quality: Numbers, sensor: Sensor, *, dilated_cloud: bool = True) -> Usable:
    """Return where QA_PIXEL (y, x) names no fill, cloud, shadow, snow or cirrus."""
    hidden = _FILL | _CLOUD | _SHADOW | _SNOW | (_DILATED if dilated_cloud else 0) | (_CIRRUS if sensor == "oli" else 0)
    clear: Usable = (quality & np.uint16(hidden)) == 0
    return clear


class Observations(Protocol):
    """Observations of an area's pixels, of which slopes can be made."""

    def add(self, day: int, values: Values, valid: Usable, *, row: int = 0, col: int = 0) -> None:
        """Take values (index, y, x) of one day where they are valid, from a row and column on."""

    def slopes(self, *, min_observations: int, min_span_years: float) -> Values:
        """Return slopes per decade (index, y, x), float32.

        NaN where there are too few dates.
        """

    @property
    def number(self) -> npt.NDArray[np.uint16]:
        """Number of observations (y, x)."""

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return all that is known, as arrays by name."""


@dataclass(slots=True, eq=False)
class TrendSums:
    """Running sums of observations, for least squares; `BYTES_OF_SUMS` a pixel.

    Attributes:
        number: Number of observations (y, x).
        first: First day of them.
        last: Last day of them.
        days: Sum of their days.
        days2: Sum of the squares.
        values: Sums of the values (index, y, x), in steps of 2^-24.
        products: Sums of day times value.
    """

    number: npt.NDArray[np.uint16]
    first: npt.NDArray[np.int16]
    last: npt.NDArray[np.int16]
    days: npt.NDArray[np.int32]
    days2: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    products: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Self:
        """Return the sums of no observation of an area (rows, columns)."""
        several = (len(INDICES), *shape)
        return cls(
            number=np.zeros(shape, np.uint16),
            first=np.full(shape, _NO_DAY[0], np.int16),
            last=np.full(shape, _NO_DAY[1], np.int16),
            days=np.zeros(shape, np.int32),
            days2=np.zeros(shape, np.float64),
            values=np.zeros(several, np.float64),
            products=np.zeros(several, np.float64),
        )

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return the sums as arrays by name; what `TrendSums` takes."""
        return {name: getattr(self, name) for name in self.__slots__}

    def add(self, day: int, values: Values, valid: Usable, *, row: int = 0, col: int = 0) -> None:
        """Add values (index, y, x) of one day where they are valid, from a row and column on."""
        height, width = valid.shape
        cols = slice(col, col + width)
        step = max(_CHUNK_PX // max(width, 1), 1)
        for top in range(0, height, step):
            part = slice(top, min(top + step, height))
            seen = valid[part]
            if not seen.any():
                continue
            rows = slice(row + part.start, row + part.stop)
            self.number[rows, cols] += seen
            self.days[rows, cols] += seen * np.int32(day)
            self.days2[rows, cols] += seen * float(day * day)
            for extreme, better in ((self.first, np.minimum), (self.last, np.maximum)):
                under = extreme[rows, cols]
                better(under, np.int16(day), out=under, where=seen)
            for index in range(len(INDICES)):
                steps = np.rint(values[index, part] * np.float64(_STEPS))
                steps *= seen
                self.values[index, rows, cols] += steps
                steps *= day
                self.products[index, rows, cols] += steps

    def merge(self, other: Self) -> None:
        """Add the sums of other observations of the same area."""
        np.minimum(self.first, other.first, out=self.first)
        np.maximum(self.last, other.last, out=self.last)
        for name in ("number", "days", "days2", "values", "products"):
            getattr(self, name)[...] += getattr(other, name)

    def slopes(self, *, min_observations: int, min_span_years: float) -> Values:
        """Return slopes per decade (index, y, x) of least squares, float32.

        NaN where observations are too few, or span too little.
        """
        slopes = np.full(self.values.shape, np.nan, np.float32)
        for rows in _row_chunks(self.number.shape):
            number = self.number[rows].astype(np.float64)
            days = self.days[rows].astype(np.float64)
            spread = number * self.days2[rows] - days * days
            enough = _enough(self.number[rows], self.first[rows], self.last[rows], min_observations, min_span_years)
            enough &= spread > 0
            for index in range(len(INDICES)):
                rise = number * self.products[index, rows] - days * self.values[index, rows]
                np.copyto(
                    slopes[index, rows],
                    np.divide(rise, spread, out=rise, where=enough) * (DECADE_DAYS / _STEPS),
                    where=enough,
                    casting="same_kind",
                )
        return slopes


@dataclass(slots=True, eq=False)
class DatedValues:
    """All observations of an area, for Theil and Sen's median of slopes.

    Attributes:
        dates: Day of each slot.
        stored: Values (slot, index, y, x), float32; NaN where there is no observation.
        used: Number of slots in use.
    """

    dates: npt.NDArray[np.int16]
    stored: Values
    used: int = 0

    @classmethod
    def empty(cls, shape: tuple[int, int], dates: int) -> Self:
        """Return room for a number of dates of an area (rows, columns)."""
        return cls(dates=np.zeros(dates, np.int16), stored=np.full((dates, len(INDICES), *shape), np.nan, np.float32))

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return the observations as arrays by name."""
        return {"dates": self.dates[: self.used], "stored": self.stored[: self.used]}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take the observations that `arrays` gave."""
        self.used = len(arrays["dates"])
        self.dates[: self.used], self.stored[: self.used] = arrays["dates"], arrays["stored"]

    def add(self, day: int, values: Values, valid: Usable, *, row: int = 0, col: int = 0) -> None:
        """Take values (index, y, x) of one day where they are valid, from a row and column on."""
        height, width = valid.shape
        self.dates[self.used] = day
        self.stored[self.used, :, row : row + height, col : col + width] = np.where(valid, values, np.nan)
        self.used += 1

    @property
    def number(self) -> npt.NDArray[np.uint16]:
        """Number of observations (y, x)."""
        total = np.zeros(self.stored.shape[2:], np.uint16)
        for values in self.stored[: self.used, 0]:
            total += np.isfinite(values)
        return total

    def slopes(self, *, min_observations: int, min_span_years: float) -> Values:
        """Return slopes per decade (index, y, x), the medians of all pairs of dates.

        Float32; NaN where observations are too few, or span too little.
        """
        order = np.argsort(self.dates[: self.used], kind="stable")
        days, stored = (
            self.dates[order].astype(np.float32),
            self.stored[: self.used].reshape(self.used, len(INDICES), int(np.prod(self.stored.shape[2:]))),
        )
        seen = np.isfinite(stored[:, 0])
        first, last = (np.full(seen.shape[1], day, np.int16) for day in _NO_DAY)
        for slot in range(self.used):
            np.minimum(first, self.dates[slot], out=first, where=seen[slot])
            np.maximum(last, self.dates[slot], out=last, where=seen[slot])
        enough = _enough(seen.sum(axis=0), first, last, min_observations, min_span_years)
        slopes = np.full(stored.shape[1:], np.nan, np.float32)
        pixels = np.flatnonzero(enough)
        step = max(2 * _PAIRS // max(self.used * self.used, 1), 1)
        for start in range(0, len(pixels), step):
            part = pixels[start : start + step]
            for index in range(len(INDICES)):
                slopes[index, part] = theil_sen(days, stored[:, index, part][order]) * DECADE_DAYS
        return slopes.reshape(self.stored.shape[1:])


def theil_sen(days: Values, values: Values) -> Values:
    """Return the median of the slopes of all pairs of dates, by pixel.

    Args:
        days: The dates, ascending (date); pairs of one day have no slope.
        values: Values (date, pixel); NaN where there is none.
    """
    earlier, later = np.triu_indices(len(days), 1)
    apart = days[later] > days[earlier]
    earlier, later = earlier[apart], later[apart]
    slopes = (values[later] - values[earlier]) / (days[later] - days[earlier])[:, None]
    slopes.sort(axis=0)  # NaN last
    number = np.isfinite(slopes).sum(axis=0)
    column = np.arange(slopes.shape[1])
    low, high = (np.maximum(rank, 0) for rank in ((number - 1) // 2, number // 2))
    if not len(slopes):
        return np.full(values.shape[1], np.nan, np.float32)
    high = np.minimum(high, len(slopes) - 1)
    medians: Values = np.where(number > 0, (slopes[low, column] + slopes[high, column]) / 2, np.nan)
    return medians


def _enough(number: Any, first: Any, last: Any, min_observations: int, min_span_years: float) -> Usable:
    """Return where there are enough observations, over a long enough time."""
    span = np.subtract(last, first, dtype=np.int32)
    enough: Usable = (number >= min_observations) & (span >= min_span_years * _YEAR_DAYS)
    return enough


def _row_chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield slices of an area's rows that are computed at once."""
    step = max(_CHUNK_PX // max(shape[1], 1), 1)
    for top in range(0, shape[0], step):
        yield slice(top, min(top + step, shape[0]))


def rows_at_once(width: int, *, dates: int, method: str, readers: int, memory: float) -> int:
    """Return how many rows of an area are worked on at once in a given memory.

    Args:
        width: Columns of the area.
        dates: Number of its dates.
        method: least-squares, of which sums are kept; or theil-sen, of which all dates are.
        readers: Scenes that are read at once, each with its bands.
        memory: Bytes that may be used.

    Raises:
        ConfigError: If they do not suffice for all dates of a few rows.
    """
    kept = BYTES_OF_DATE * dates if method == "theil-sen" else BYTES_OF_SUMS
    row_bytes = width * (kept + _BYTES_OF_READER * readers)
    rows, fewest = int(memory // row_bytes), -(-_FEWEST_PX // width)
    if rows < fewest and method == "theil-sen":
        msg = (
            f"'acquire.trends.method: theil-sen' keeps {dates} dates, {kept} bytes a pixel; {fewest} rows of {width} "
            f"pixels need {fewest * row_bytes / 1e9:.2g} GB of the {memory / 1e9:.2g} GB that it may take: ask for "
            "least-squares, fewer years, or smaller areas"
        )
        raise ConfigError(msg)
    return max(rows, 1)


_BYTES_OF_READER = 34  # a pixel of a scene that is read: eight bands of 2 bytes, three indices of 4, and masks
