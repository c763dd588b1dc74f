"""Smoothing of probabilities, whole or in a stream of rows."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from thawmap.maps.rows import Rows

_REACH = 3  # deviations beyond which a Gaussian's weights are left out


def reach(deviation_px: float) -> int:
    """Return how many pixels a Gaussian of a deviation in pixels reaches."""
    return round(_REACH * deviation_px)


def smooth(probability: npt.NDArray[np.floating], deviation_px: float) -> npt.NDArray[np.float32]:
    """Return probability (y, x) smoothed by a Gaussian; missing pixels stay missing.

    Weights are of the pixels that are there, so that nothing is drawn towards 0 beside a gap or a border.
    """
    from scipy import ndimage  # noqa: PLC0415 - only once a scene is mapped

    if not deviation_px:
        return probability.astype(np.float32, copy=False)
    is_known = np.isfinite(probability)
    values = np.where(is_known, probability, 0).astype(np.float64)
    total, weight = (
        ndimage.gaussian_filter(array, deviation_px, mode="constant", radius=reach(deviation_px))
        for array in (values, is_known.astype(np.float64))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        smoothed: npt.NDArray[np.float32] = np.where(is_known, total / weight, np.nan).astype(np.float32)
    return np.clip(smoothed, 0, 1)


def smoothed(rows: Iterable[Rows], deviation_px: float) -> Iterator[Rows]:
    """Yield strips of rows with their probability smoothed, in order.

    All else as it is.

    Rows wait until those below that they depend on have come, so they do not come in the same strips. A spread between
    networks is not smoothed.
    """
    if not deviation_px:
        yield from rows
        return
    margin = reach(deviation_px)
    waiting: list[Rows] = []
    above: npt.NDArray[np.floating] = np.empty((0, 0), np.float32)
    for strip in rows:
        waiting.append(strip)
        ready = sum(len(part.probability) for part in waiting) - margin
        if ready > 0:
            above = yield from _hand_on(waiting, above, ready, deviation_px)
    if waiting:
        ready = sum(len(part.probability) for part in waiting)
        yield from _hand_on(waiting, above, ready, deviation_px)


def _hand_on(
    waiting: list[Rows], above: npt.NDArray[np.floating], ready: int, deviation_px: float
) -> Generator[Rows, None, npt.NDArray[np.floating]]:
    """Yield the first rows of waiting strips, smoothed, and take them off the list.

    Returns:
        The last rows before smoothing, which the next ones depend on.
    """
    pending = [part.probability for part in waiting]
    raw = np.concatenate([*([above] if len(above) else []), *pending])
    values = smooth(raw, deviation_px)[len(above) :]
    end = len(above) + ready
    done = 0
    while done < ready:
        strip = waiting.pop(0)
        count = min(len(strip.probability), ready - done)
        if count < len(strip.probability):
            waiting.insert(0, strip.part(count, None))
        yield replace(strip.part(0, count), probability=values[done : done + count])
        done += count
    return raw[max(end - reach(deviation_px), 0) : end]
