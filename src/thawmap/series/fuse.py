"""Maps of several dates fused into one: mean, median, maximum or number of dates.

    maps --overlap--> places --dates on one grid, window by window--> rows --write--> rasters, polygons, STAC item

The paper shows the mean of all dates beside single ones (figures 6 to 8): what is found on one date only, such as
the shadow of a cloud, fades. A date is a solar day: maps of one day, such as neighbours of one swath, are averaged
first, so that no day counts twice. Memory depends on the width of a place, not on its height or its number of maps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from thawmap.config import OutputSettings
from thawmap.data.stack import Stack
from thawmap.errors import ConfigError
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window
from thawmap.maps.decide import Decided
from thawmap.maps.job import MapJob, Provenance
from thawmap.maps.layout import COUNT, spread_raster
from thawmap.maps.read import MapFolder
from thawmap.maps.rows import Rows
from thawmap.maps.write import WrittenMap, write_map
from thawmap.series.places import Place
from thawmap.series.weights import clear_share, edge_weight, weighted_mean

_Values = npt.NDArray[np.float32]

_STRIP_PX = 2**22  # pixels of a place that are handed on at once, where its rows are not too wide
_STRIP_ROWS = (64, 512)  # fewest, lest blocks of files are read too often, and most: the blocks of files
_BLOCK_PX = 2048  # columns that are fused at once
_DATES_PX = 2**22  # pixels of all dates together that are held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Way in which maps of several dates become one.

    Attributes:
        how: What is made of a pixel's dates; count: nothing but how many there are.
        by: One result for each place (all maps that hang together), or for each scene on its own grid, where its own
            map has a probability, so that it can be scored against that scene's labels.
        min_dates: Pixels with fewer clear dates are missing.
        spread: Whether the standard deviation between dates is written too.
        weights: none: all count alike in a mean; clear: dates and maps by their clear share, and maps of one date by
            the distance to their edge.
    """

    how: Literal["mean", "median", "maximum", "count"] = "mean"
    by: Literal["place", "scene"] = "place"
    min_dates: int = 1
    spread: bool = False
    weights: Literal["none", "clear"] = "none"

    def __post_init__(self) -> None:
        """Refuse a least number of clear dates below 1, and weights without a mean."""
        if self.weights != "none" and self.how != "mean":
            msg = f"weights are for a mean, and not for --how {self.how}; leave --weights out"
            raise ConfigError(msg)
        if self.min_dates < 1:
            msg = f"the least number of dates is {self.min_dates}, but must be at least 1; correct --min-dates"
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """Rows of a place, fused.

    Attributes:
        first_row: Where they begin.
        probability: (rows, place's width), float32, 0..1; NaN where too few dates are clear.
        dates: Number of clear dates, uint16, of the same shape.
        spread: Standard deviation (population) between dates, float32; NaN where fewer than two are clear, or
            where the probability is missing, or nobody asks for it.
    """

    first_row: int
    probability: _Values
    dates: npt.NDArray[np.uint16]
    spread: _Values


def fuse(place: Place, recipe: Recipe) -> Iterator[Fused]:
    """Yield strips of a place's fused probability, date counts and spread, top down.

    Every row comes once; memory is bounded.

    Raises:
        DataError: If a file is damaged.
    """
    height, width = place.geobox.shape
    fewest, most = _STRIP_ROWS
    step = min(max(_STRIP_PX // width, fewest), most)
    shares = _ClearShares.of(place) if recipe.weights == "clear" else None
    for strip in Window.of_shape((height, width)).strips(step):
        blocks = [_fused(place, block, recipe, shares) for block in strip.blocks(strip.height, _BLOCK_PX)]
        probability, dates, spread = np.concatenate(blocks, axis=2)
        yield Fused(first_row=strip.row, probability=probability, dates=dates.astype(np.uint16), spread=spread)


def preview(place: Place, *, size: int = 1024) -> Stack:
    """Return a coarse stack of the mean probability of all maps of a place.

    Its layers are "probability" and "valid".

    Args:
        place: The place.
        size: Longest side of the coarse grid in pixels; a smaller place keeps its own grid.

    Raises:
        DataError: If a file is damaged.
    """
    shape = tuple(place.geobox.shape)
    factor = max(1.0, max(shape) / size)
    rows, cols = (max(1, round(side / factor)) for side in shape)
    geobox = place.geobox if factor == 1 else place.geobox.zoom_to((rows, cols))
    probability = _mean(_probability(scene_map, geobox) for scene_map in place.maps)
    return Stack(geobox, {"probability": probability, "valid": np.isfinite(probability)})


def fusing_job(
    place: Place, recipe: Recipe, *, decided: Decided, outputs: OutputSettings, provenance: Provenance
) -> MapJob:
    """Return the job (settings, rasters, interval) of writing a place's fused map.

    The map has count.tif beside its other files and, if asked for, spread.tif; of a count nothing else. Its time is
    that of its date, or the interval from the first date to the last where all are known.

    Args:
        place: The place.
        recipe: How its maps are fused.
        decided: How objects become slumps.
        outputs: Which files are written.
        provenance: What the map is made from.
    """
    times = [scene_map.acquired for scene_map in place.maps]
    certain = [time for time in times if time is not None]
    return MapJob(
        scene=place.scene,
        polygons=decided.polygons,
        least_m2=decided.least_m2,
        outputs=outputs,
        provenance=provenance,
        rasters=(COUNT, *([spread_raster("dates", outputs.probability)] if recipe.spread else [])),
        rasters_only=recipe.how == "count",
        interval=(min(certain), max(certain)) if len(certain) == len(times) else None,
    )


def write(place: Place, folder: Path, recipe: Recipe, job: MapJob, *, picture: Stack) -> WrittenMap:
    """Fuse a place's maps and write the result as a map folder; return its counts.

    The folder is ``folder``/<place's id>/.

    Raises:
        DataError: If a file cannot be read or written; nothing new is then left behind.
    """
    rows = (
        Rows(
            first_row=fused.first_row,
            probability=fused.probability,
            further={"count": fused.dates, "spread": fused.spread},
        )
        for fused in fuse(place, recipe)
    )
    return write_map(job, rows, folder, picture=picture)


@dataclass(frozen=True, slots=True)
class _ClearShares:
    """Clear shares of a place's dates, in their order, and of its maps by id."""

    dates: tuple[float, ...]
    maps: dict[str, float]

    @classmethod
    def of(cls, place: Place) -> Self:
        """Read the clear shares of a place's dates and maps."""
        dates = [[scene_map for scene_map, _ in date] for date in place.dates]
        return cls(tuple(map(clear_share, dates)), {one.id: clear_share([one]) for date in dates for one in date})


def _weighted(
    date: Sequence[tuple[MapFolder, Window]], shares: _ClearShares, window: Window, geobox: GeoBox
) -> _Values:
    """Return the mean (y, x) of a date's maps by clear share and distance to their edge."""
    values = [_probability(scene_map, geobox) for scene_map, _ in date]
    weights = [shares.maps[scene_map.id] * edge_weight(pixels, window) for scene_map, pixels in date]
    return weighted_mean(values, weights)


def _fused(place: Place, window: Window, recipe: Recipe, shares: _ClearShares | None) -> _Values:
    """Return fused probability, date count and spread of a place's window (3, y, x).

    float32. A window over so many dates that they would not fit into memory is halved. With clear shares the mean is
    weighted.
    """
    dates = place.over(window)
    if len(dates) * window.size > _DATES_PX and window.width > 1:
        half = window.width // 2
        halves = replace(window, width=half), replace(window, col=window.col + half, width=window.width - half)
        return np.concatenate([_fused(place, half_window, recipe, shares) for half_window in halves], axis=2)
    geobox = window_geobox(place.geobox, window)
    result = np.full((3, *window.shape), np.nan, np.float32)
    result[1] = 0
    if not dates:
        return result
    if shares is None:
        stack = np.stack([_mean(_probability(scene_map, geobox) for scene_map, _ in date) for _, date in dates])
    else:
        stack = np.stack([_weighted(date, shares, window, geobox) for _, date in dates])
    clear = np.isfinite(stack).sum(axis=0)
    if shares is None:
        result[:2] = _summary(stack, clear, recipe.how), clear
    else:
        result[:2] = weighted_mean(list(stack), [shares.dates[number] for number, _ in dates]), clear
    if recipe.spread:
        result[2] = _deviation(stack, clear)
    missing = clear < recipe.min_dates
    if place.own is not None:
        missing |= np.isnan(_probability(place.own, geobox))
    result[0, missing] = np.nan
    result[2, missing] = np.nan
    return result


def _probability(scene_map: MapFolder, geobox: GeoBox) -> _Values:
    """Read a map's probability (y, x), resampled onto a grid and clipped to at most 1.

    Weights of neighbours may add up to a hair more.
    """
    probability: _Values = np.minimum(scene_map.read(geobox), np.float32(1))
    return probability


def _summary(stack: _Values, clear: npt.NDArray[np.integer], how: str) -> npt.NDArray[np.floating]:
    """Return mean, median or maximum (y, x) over dates (date, y, x), NaN left out.

    NaN where no date is clear.
    """
    if how == "maximum":
        highest: _Values = np.fmax.reduce(stack, axis=0)
        return highest
    if how != "median":
        return _divide(_total(stack), clear)
    ordered = np.sort(stack, axis=0)  # what is missing comes last
    low, high = (
        np.take_along_axis(ordered, index[None], axis=0)[0].astype(np.float64)
        for index in (np.maximum(clear - 1, 0) // 2, clear // 2)
    )
    middle: npt.NDArray[np.float64] = (low + high) / 2
    return middle


def _deviation(stack: _Values, clear: npt.NDArray[np.integer]) -> npt.NDArray[np.floating]:
    """Return the standard deviation (y, x) over dates (date, y, x), NaN left out.

    Of the population; NaN where fewer than two dates are clear.
    """
    residual = stack - _divide(_total(stack), clear)
    deviation: npt.NDArray[np.float64] = np.sqrt(_divide(_total(residual * residual), np.where(clear > 1, clear, 0)))
    return deviation


def _total(stack: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the sum (y, x) over dates (date, y, x), in which NaN counts as 0."""
    total: npt.NDArray[np.float64] = np.nansum(stack, axis=0, dtype=np.float64)
    return total


def _divide(total: npt.NDArray[np.float64], count: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Divide sums by counts, pixel by pixel; NaN where the count is 0."""
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _mean(maps: Iterator[_Values]) -> _Values:
    """Return the mean (y, x) of probabilities that come one by one, NaN left out.

    Of a single map its very numbers.
    """
    total, count = None, None
    for probability in maps:  # one at a time: a place may have more maps than memory holds
        clear = np.isfinite(probability)
        addend = np.where(clear, probability, 0).astype(np.float64)
        total, count = (addend, clear.astype(np.int32)) if total is None else (total + addend, count + clear)
    assert total is not None
    assert count is not None
    return _divide(total, count).astype(np.float32)
