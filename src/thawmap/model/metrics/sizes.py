"""Objects found and false objects by their size on the ground.

Whoever acts on a map acts on objects, and large slumps are found where small ones are not: one score hides that. A
labelled object is *found* where at least a tenth of it is mapped; a mapped object is *false* where less than a tenth of
it is labelled. So outlines that are drawn tightly or widely count alike, and swapping map and labels swaps the two.

As in `thawmap.model.metrics.objects`, ignored pixels count for no share, and a mapped object that lies mostly on them
is left out unless it is right.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from thawmap.model.metrics.objects import Comparison

LIMITS_M2 = (5_000.0, 10_000.0)
"""Areas at which a class of size ends and the next begins, in m2."""

SIZES = ("under 0.5 ha", "0.5 to 1 ha", "1 ha and more")
"""Names of the classes of size, the smallest first."""

ALL_SIZES = "all"
"""Name of all classes together."""

_PARTS = 10  # an object is found, or right, by one of so many equal parts

_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SizeCounts:
    """Numbers of objects by class of size; they add.

    Attributes:
        labelled: Labelled objects by their own size, (3,) int64.
        found: Those of them that are found, (3,) int64.
        mapped: Mapped objects by their own size, (3,) int64.
        false: Those of them that are false, (3,) int64.
    """

    labelled: _Integers
    found: _Integers
    mapped: _Integers
    false: _Integers

    @classmethod
    def empty(cls) -> Self:
        """Return counts of no objects."""
        none = np.zeros(len(SIZES), np.int64)
        return cls(labelled=none, found=none, mapped=none, false=none)

    @classmethod
    def of(cls, compared: Comparison, *, pixel_m2: float) -> Self:
        """Count the objects of a comparison by size, from a pixel's area in m2."""
        predicted, labelled = compared.predicted, compared.labelled
        both = (predicted.labels > 0) & (labelled.labels > 0)
        mapped_part, labelled_part = (
            np.bincount(objects.labels[both], minlength=len(objects) + 1)[1:] for objects in (predicted, labelled)
        )
        is_found = _PARTS * labelled_part >= labelled.pixels
        is_right = (predicted.usable > 0) & (_PARTS * mapped_part >= predicted.usable)
        mapped_class, labelled_class = (
            np.digitize(objects.pixels * pixel_m2, LIMITS_M2) for objects in (predicted, labelled)
        )
        return cls(
            labelled=_by_class(labelled_class),
            found=_by_class(labelled_class[is_found]),
            mapped=_by_class(mapped_class[is_right | predicted.is_judged]),
            false=_by_class(mapped_class[~is_right & predicted.is_judged]),
        )

    def __add__(self, other: "SizeCounts") -> "SizeCounts":
        """Return the sums of both counts."""
        return SizeCounts(
            labelled=self.labelled + other.labelled,
            found=self.found + other.found,
            mapped=self.mapped + other.mapped,
            false=self.false + other.false,
        )

    def __radd__(self, other: Literal[0]) -> Self:
        """Return the same counts, so that ``sum`` can begin at 0."""
        return self if other == 0 else NotImplemented

    def rows(self, *, ground_m2: float) -> list[dict[str, Any]]:
        """Return a dict of counts and rates for all sizes, then for each class.

        Its keys are ``size`` and the names of `SIZE_NUMBERS`; a rate is NaN where nothing is labelled, or no ground.

        Args:
            ground_m2: Area that was searched: the pixels that count.
        """
        together = [counts.sum() for counts in astuple(self)]
        by_class = zip(*astuple(self), strict=True)
        return [
            {"size": name, **_rates([int(number) for number in numbers], ground_m2)}
            for name, numbers in zip((ALL_SIZES, *SIZES), (together, *by_class), strict=True)
        ]


SIZE_NUMBERS = ("labelled", "found", "hit_rate", "mapped", "false", "false_per_100km2")
"""Columns of counts and rates in a table by size, in order."""

SIZE_RATES = ("hit_rate", "false_per_100km2")
"""Those of them that are rates."""


def _rates(numbers: Sequence[int], ground_m2: float) -> dict[str, float]:
    labelled, found, mapped, false = numbers
    hit_rate = found / labelled if labelled else float("nan")
    false_rate = false / (ground_m2 / 1e8) if ground_m2 else float("nan")
    return dict(zip(SIZE_NUMBERS, (labelled, found, hit_rate, mapped, false, false_rate), strict=True))


def _by_class(classes: npt.NDArray[np.integer]) -> _Integers:
    return np.bincount(classes, minlength=len(SIZES)).astype(np.int64)
