"""Scores of a cross-validation's decisions, on single tiles and on means of several."""

import json
import math
from typing import Any

import pandas as pd

from thawmap.model.decision import KINDS, Decision
from thawmap.model.metrics.pixels import Counts, scores
from thawmap.report.crossval.analysis import LARGE_PX, Crossval

VIEWS = {
    "tile": "single tiles",
    "overlap": "mean of a day's tiles",
    "dates": "mean of all days",
}
"""What the probabilities of each kind are the mean of, in words."""

_SHOWN = ("iou", "precision", "recall", "f1")


def by_views(cv: Crossval) -> pd.DataFrame:
    """Return a table of held-out scores by configuration and kind of views.

    Counts of all folds and seeds are added, each by the decision of its own inner folds. Where inner folds show nothing
    of a kind, the fold's decision on less counts, so that all rows are of the same ground. ``iou_mean_large`` is the
    mean of the folds with `LARGE_PX` object pixels or more. Trainings without decisions are left out.
    """
    columns = ["configuration", "views", *_SHOWN, "iou_mean_large", "threshold", "peak", "smoothing_px", "fits"]
    rows: list[dict[str, Any]] = []
    if "decided" not in cv.fits:
        return pd.DataFrame(columns=columns)
    for configuration, fits in cv.fits.groupby("configuration", sort=False):
        decided = [(row["fold"], *_read(row)) for row in fits.to_dict("records")]
        decided = [fit for fit in decided if fit[1]]
        for kind in [kind for kind in KINDS if any(kind in counts for _, counts, _ in decided)]:
            chosen = [(fold, _at_most(counts, kind), _at_most(of_fit, kind)) for fold, counts, of_fit in decided]
            rows.append({"configuration": configuration, "views": VIEWS[kind], **_row(chosen), "fits": len(chosen)})
    return pd.DataFrame(rows, columns=columns)


def _row(chosen: list[tuple[str, Counts, Decision]]) -> dict[str, float]:
    """Return pooled and mean scores of folds, and the middle of what they chose."""
    pooled = scores(sum((counts for _, counts, _ in chosen), Counts()))
    folds: dict[str, Counts] = {}
    for fold, counts, _ in chosen:
        folds[fold] = folds.get(fold, Counts()) + counts
    seeds = len(chosen) / len(folds)
    large = [scores(counts)["iou"] for counts in folds.values() if counts.tp + counts.fn >= LARGE_PX * seeds]
    names = ("threshold", "peak", "smoothing_px")
    middle = {name: float(pd.Series([getattr(decision, name) for *_, decision in chosen]).median()) for name in names}
    mean = math.fsum(large) / len(large) if large else math.nan
    return {**{name: pooled[name] for name in _SHOWN}, "iou_mean_large": mean, **middle}


def _read(row: dict[Any, Any]) -> tuple[dict[str, Counts], dict[str, Decision]]:
    """Return a training's counts and decisions by kind, from its JSON texts."""
    texts = [row[name] if isinstance(row[name], str) else "{}" for name in ("decided", "decisions")]
    counts, decisions = map(json.loads, texts)
    return (
        {kind: Counts(**numbers) for kind, numbers in counts.items()},
        {kind: Decision(**numbers) for kind, numbers in decisions.items()},
    )


def _at_most(by_kind: dict[str, Any], kind: str) -> Any:
    """Return the value of a kind, or of the one before it that there is."""
    return by_kind[max((name for name in KINDS[: KINDS.index(kind) + 1] if name in by_kind), key=KINDS.index)]
