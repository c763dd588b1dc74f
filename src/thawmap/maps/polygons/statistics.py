"""Statistics of the pixels of objects: of their probability, and of other layers."""

from collections.abc import Sequence
from operator import ge, gt, le, lt
from typing import Any

import numpy as np
import numpy.typing as npt

from thawmap.maps.polygons.outlines import Bools, Floats, Integers

Table = tuple[npt.NDArray[Any], ...]
"""Columns of one length, the first of which says whose a row is."""

_COMPARE = {"<": lt, "<=": le, ">": gt, ">=": ge}


def chain(tables: Sequence[Table]) -> Table:
    """Concatenate tables column by column into one; no tables give an empty tuple."""
    return tuple(np.concatenate(columns) for columns in zip(*tables, strict=True))


def counted(pieces: Integers, values: Floats, first: int) -> Table:
    """Return how often each piece has each value: columns piece, value and number.

    The pieces are numbered from ``first``.

    Hundredths are counted; of other numbers hardly one is there twice.
    """
    codes = np.rint(values * 100.0)
    if not len(values) or not np.array_equal(codes / 100.0, values):
        return pieces.astype(np.int32), values, np.ones(len(values), np.int32)
    key, count = np.unique((pieces - first) * 101 + codes.astype(np.int64), return_counts=True)
    return (key // 101 + first).astype(np.int32), key % 101 / 100.0, count.astype(np.int32)


def summed(pieces: Integers, values: Floats, count: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the sum and the number of each piece's values, (piece,), NaN left out."""
    is_known = np.isfinite(values)
    pieces, values = pieces[is_known], values[is_known].astype(np.float64)
    return np.bincount(pieces, values, minlength=count), np.bincount(pieces, minlength=count)


def means(sums: Table, count: int) -> list[Floats]:
    """Return each layer's mean by object, from sums and counts; NaN where none known.

    Args:
        sums: Object, then for each layer the sum and the number of known pixels (`summed`).
        count: Number of objects.
    """
    owner, *columns = sums
    totals = [np.bincount(owner, column, minlength=count) for column in columns]
    with np.errstate(invalid="ignore"):
        return [total / pixels for total, pixels in zip(totals[::2], totals[1::2], strict=True)]


def follows(values: Floats, sign: str, number: float) -> Bools:
    """Return a bool per value, True where a comparison such as < 5 holds.

    False where a value is missing.
    """
    holds: Bools = _COMPARE[sign](values, number)
    return holds


def value_counts(ids: Integers, values: Floats, counts: Integers) -> tuple[Integers, Floats, Integers]:
    """Add up counts of equal values of an object; return rows by object, then value."""
    order = np.lexsort((values, ids))
    ids, values, counts = ids[order], values[order], counts[order]
    begins = np.ones(len(ids), np.bool_)
    begins[1:] = (ids[1:] != ids[:-1]) | (values[1:] != values[:-1])
    at = np.flatnonzero(begins)
    return ids[at], values[at], np.add.reduceat(counts, at, dtype=np.int64)


def statistics(ids: Integers, values: Floats, counts: Integers) -> dict[str, Floats]:
    """Return each object's mean, max, min, median and std of probability, as columns.

    The standard deviation is of the population. From the output of `value_counts`.
    """
    begins = np.flatnonzero(np.diff(ids, prepend=-1))
    ends = np.flatnonzero(np.diff(ids, append=-1))
    values = values.astype(np.float64)
    upto = np.cumsum(counts)
    before = upto[begins] - counts[begins]
    pixels = upto[ends] - before
    mean = np.add.reduceat(values * counts, begins) / pixels
    variance = np.add.reduceat((values - mean[ids]) ** 2 * counts, begins) / pixels
    # the median is between the values of the two middle pixels, found by how many pixels come before
    low = np.searchsorted(upto, before + (pixels - 1) // 2, side="right")
    high = np.searchsorted(upto, before + pixels // 2, side="right")
    return {
        "probability_mean": mean,
        "probability_max": values[ends],
        "probability_min": values[begins],
        "probability_median": (values[low] + values[high]) / 2,
        "probability_std": np.sqrt(variance),
    }
