"""Objects by size over the held-out folds of a cross-validation."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from thawmap.model.metrics.sizes import SIZE_NUMBERS, SizeCounts
from thawmap.report.crossval.analysis import Crossval

SIZES = "sizes"
"""Column of the trainings' table with counts of objects by size; None where a training did not count them."""


def by_size(cv: Crossval, scored: pd.DataFrame) -> pd.DataFrame:
    """Return a table of found and false objects by configuration and size.

    Counts of all folds and seeds are added, at the thresholds chosen inside training; ``iou`` is that of their pixels.
    Trainings that did not count objects are left out; without any other the table is empty.
    """
    columns = ["configuration", "size", "iou", *SIZE_NUMBERS, "fits"]
    if SIZES not in cv.fits:
        return pd.DataFrame(columns=columns)
    chosen = scored[scored["choice"] == "chosen"]
    rows: list[dict[str, Any]] = []
    for configuration, fits in cv.fits[cv.fits[SIZES].notna()].groupby("configuration", sort=False):
        pixels = chosen.merge(fits[["fold", "configuration", "seed"]])[["tp", "fp", "fn"]].sum()
        counted = sum(map(_counts, fits[SIZES]), SizeCounts.empty())
        about = {
            "configuration": configuration,
            "iou": float(pixels["tp"] / pixels.sum()) if pixels.sum() else math.nan,
            "fits": len(fits),
        }
        rows += [about | row for row in counted.rows(ground_m2=float(fits["ground_m2"].sum()))]
    return pd.DataFrame(rows, columns=columns)


def _counts(stored: Mapping[str, Any]) -> SizeCounts:
    """Return counts by size from the columns of a training's result."""
    return SizeCounts(**{name: np.asarray(numbers, np.int64) for name, numbers in stored.items()})
