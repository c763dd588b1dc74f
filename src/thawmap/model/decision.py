"""Decisions: how probabilities become objects, chosen together on validation.

Smoothing, threshold, peak and least area depend on each other, and on how many views of the ground a probability is the
mean of: the mean of three dates is high nowhere by chance. So a bundle carries one decision for each kind of views
(law 21), and a threshold of one is never applied to another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal, Self, TypeAlias

Kind: TypeAlias = Literal["tile", "overlap", "dates"]
"""What a probability is the mean of: one tile, all tiles of a day over the same ground, or all of all days."""

KINDS: tuple[Kind, ...] = ("tile", "overlap", "dates")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How objects are made of probabilities.

    Attributes:
        smoothing_px: Deviation of the Gaussian that probabilities are smoothed by, in pixels; 0: they are not.
        threshold: Objects are where the probability is above it.
        peak: Only objects with a probability above it somewhere.
        min_area_m2: Only objects that are not smaller.
        views: Mean number of views of a pixel that it was chosen for.
    """

    smoothing_px: float
    threshold: float
    peak: float
    min_area_m2: float
    views: float

    @classmethod
    def mean(cls, decisions: Sequence["Decision"]) -> Self:
        """Return the mean of several bundles' decisions, for the mean of their answers."""
        columns = {name: [getattr(decision, name) for decision in decisions] for name in cls.__dataclass_fields__}
        return cls(**{name: fmean(values) for name, values in columns.items()})

    def as_json(self) -> dict[str, float]:
        """Return the decision as a dict of JSON values."""
        return asdict(self)


def common(decisions: Sequence[Mapping[Kind, Decision]]) -> dict[Kind, Decision]:
    """Return the mean decision of several bundles by kind, of kinds that all have."""
    kinds = [kind for kind in KINDS if all(kind in of_bundle for of_bundle in decisions)]
    return {kind: Decision.mean([of_bundle[kind] for of_bundle in decisions]) for kind in kinds}


def from_json(stored: Mapping[str, Mapping[str, Any]]) -> dict[Kind, Decision]:
    """Return decisions by kind from JSON values, as `Decision.as_json` gives them."""
    return {kind: Decision(**stored[kind]) for kind in KINDS if kind in stored}
