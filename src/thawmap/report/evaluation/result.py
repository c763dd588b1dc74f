"""From maps and labels to tidy tables of scores.

    scene --window by window--> histogram, boundaries, objects --sum over scenes--> regions, pooled --> scores

Counts are summed over scenes and regions, scores come last (law 10); what could not be scored is listed by name.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from thawmap.data.labels.polygons import Labels
from thawmap.data.sources.base import Scene
from thawmap.engine.run import Outcome, run
from thawmap.errors import DataError
from thawmap.files.atomic import atomic, write_json
from thawmap.files.tables import write_table
from thawmap.model.metrics.objects import average_precision
from thawmap.model.metrics.pixels import (
    BINS,
    SCORES,
    best_threshold,
    calibration_error,
    reliability,
    scores,
)
from thawmap.report.evaluation.scopes import (
    ORACLE,
    PLACE,
    by_region,
    counts_at,
    mean_rows,
    place_columns,
    scopes,
    summed,
    summed_shapes,
    total,
    typed,
)
from thawmap.report.evaluation.score import MAIN, MAPPED, Scored, Shapes, score
from thawmap.report.evaluation.sizes import tabulate_sizes
from thawmap.text import counted

COUNTED = ("tp", "fp", "fn", "tn", "pixels", "pixels_ignored", "pixels_missing")
"""Columns of pixels: those scored (the sum of the first four), labelled as ignore, and labelled but not mapped."""

OBJECTS = ("objects_mapped", "objects_labelled")
"""Columns of polygons: those mapped, in rows of the threshold that they were cut at, and those labelled."""

_BANDS = ("boundary_tp", "boundary_fp", "boundary_fn")
_FOUND = ("object_tp", "object_fp", "object_fn")
_KINDS = ("precision", "recall", "f1")

SHAPE_COUNTED = (*_BANDS, *_FOUND)
"""Columns of pixels along outlines, and of objects that match by an IoU of 0.5 or do not.

They are not known where the threshold is the oracle's, which nobody knows before all pixels are counted.
"""

SHAPE_SCORES = (
    "boundary_iou",
    "boundary_f1",
    *(f"object_{kind}" for kind in _KINDS),
    "object_average_precision",
    *(f"centroid_{kind}" for kind in _KINDS),
)
"""Columns of scores of outlines and of objects: matched by an IoU of 0.5, and by their centres."""

CALIBRATION = "calibration_error"
"""Column of the expected calibration error, which depends on no threshold."""

_THRESHOLD = ("threshold_name", "threshold")

COLUMNS = (*PLACE, *_THRESHOLD, *COUNTED, *SCORES, *OBJECTS, *SHAPE_COUNTED, *SHAPE_SCORES, CALIBRATION)
"""Columns of the table, in order; ``scope`` is scene, region, pooled or mean (of the regions' scores)."""

OBJECT_COLUMNS = (*PLACE, *_THRESHOLD, "match", "min_iou", "tp", "fp", "fn", *_KINDS)
"""Columns of the table of objects, a row per rule by which they match: "iou" of at least ``min_iou``, or "centroid"."""

CURVE_COLUMNS = (*PLACE, "threshold", "negative", "positive", "precision", "recall")
"""Columns of the table of curves: pixels whose probability is ``threshold``, by label, and scores above it."""

RELIABILITY_COLUMNS = (*PLACE, "low", "high", "promised", "kept", "pixels")
"""Columns of the table of reliability: pixels with a probability above ``low`` and up to ``high``."""


_TABLES = ("scores", "objects", "sizes", "reliability", "curves")

FILES = (*(f"{name}.{kind}" for name in _TABLES for kind in ("csv", "parquet")), "scores.json", "left_out.csv")
"""What `write_scores` writes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """The scores of several scenes.

    Attributes:
        scenes: What was scored, in the order of ids.
        thresholds: Name to value of the thresholds that were fixed beforehand.
        left_out: Id to reason of the scenes that could not be scored.
        table: One row per scope, region, scene and threshold; see `COLUMNS`.
        objects: One row per scope, region, scene, threshold and rule; see `OBJECT_COLUMNS`.
        sizes: One row per scope, region, scene, threshold and size (`thawmap.report.evaluation.sizes`).
    """

    scenes: tuple[Scored, ...]
    thresholds: Mapping[str, float]
    left_out: Mapping[str, str]
    table: pd.DataFrame = field(repr=False)
    objects: pd.DataFrame = field(repr=False)
    sizes: pd.DataFrame = field(repr=False)

    @property
    def regions(self) -> dict[str, tuple[Scored, ...]]:
        """Tuples of the scenes' counts by region, in order of the regions' names."""
        names = sorted({item.region for item in self.scenes})
        return {name: tuple(item for item in self.scenes if item.region == name) for name in names}


def evaluate(
    maps: Path,
    scenes: Iterable[Scene],
    labels: Labels,
    *,
    thresholds: Mapping[str, float],
    executor: Executor | None = None,
) -> Evaluation:
    """Score scenes' maps against labels; return their scores, and failures by scene.

    Args:
        maps: Folder of the scenes' folders.
        scenes: What to score.
        labels: What people said of each pixel.
        thresholds: Name to value, such as ``{"paper": 0.5, "validation": 0.13}``; `ORACLE` is added.
        executor: Where scenes are scored; None: here, one after the other.

    Raises:
        DataError: If a threshold cannot be one, or no scene could be scored.
    """
    _check(thresholds)
    work = partial(score, maps=maps, labels=labels, thresholds=thresholds)
    return summarise(run(work, scenes, executor), thresholds=thresholds)


def summarise(outcomes: Iterable[Outcome[Scene, Scored]], *, thresholds: Mapping[str, float]) -> Evaluation:
    """Return an evaluation of scored scenes, with reasons by scene for the failed.

    Raises:
        DataError: If no scene could be scored.
    """
    scored, left_out = [], {}
    for outcome in outcomes:
        if outcome.value is None:
            left_out[outcome.item.id] = outcome.error or "nothing came back"
        else:
            scored.append(outcome.value)
    if not scored:
        first = f"; the first: {next(iter(left_out.values()))}" if left_out else ", because there is none"
        msg = f"none of {counted(len(left_out), 'scene')} could be scored{first}"
        raise DataError(msg)
    scored.sort(key=lambda item: item.scene)
    table = tabulate(scored, thresholds)
    return Evaluation(
        scenes=tuple(scored),
        thresholds=MappingProxyType(dict(thresholds)),
        left_out=MappingProxyType(dict(sorted(left_out.items()))),
        table=table,
        objects=tabulate_objects(scored, thresholds),
        sizes=tabulate_sizes(scored, thresholds, table),
    )


def tabulate(scored: Sequence[Scored], thresholds: Mapping[str, float]) -> pd.DataFrame:
    """Return a table of scores by threshold: regions, mean, pooled, then each scene.

    Its columns are `COLUMNS`.

    The oracle's threshold is the best of each region, and of all for the pooled row; a scene has its region's.
    """
    regions = by_region(scored)
    chosen = {name: {**thresholds, ORACLE: best_threshold(summed(members))} for name, members in regions.items()}
    rows = [row for name, members in regions.items() for row in _rows("region", members, chosen[name])]
    rows += mean_rows(rows, by=("threshold_name",), names=(*SCORES, *SHAPE_SCORES, CALIBRATION))
    rows += _rows("pooled", scored, {**thresholds, ORACLE: best_threshold(summed(scored))})
    rows += [row for item in scored for row in _rows("scene", [item], chosen[item.region])]
    return typed(pd.DataFrame(rows, columns=list(COLUMNS)), whole=(*COUNTED, *OBJECTS, *SHAPE_COUNTED))


def tabulate_objects(scored: Sequence[Scored], thresholds: Mapping[str, float]) -> pd.DataFrame:
    """Return a table of object scores by rule: regions, mean, pooled, then each scene.

    Its columns are `OBJECT_COLUMNS`.
    """
    rows = [row for members in by_region(scored).values() for row in _object_rows("region", members, thresholds)]
    rows += mean_rows(rows, by=("threshold_name", "match", "min_iou"), names=_KINDS)
    rows += _object_rows("pooled", scored, thresholds)
    rows += [row for item in scored for row in _object_rows("scene", [item], thresholds)]
    return typed(pd.DataFrame(rows, columns=list(OBJECT_COLUMNS)), whole=("tp", "fp", "fn"))


def tabulate_curves(scored: Sequence[Scored]) -> pd.DataFrame:
    """Return the table of pixels, precision and recall by threshold, in hundredths.

    Its columns are `CURVE_COLUMNS`: regions, all pooled, then each scene.
    """
    rows = []
    for about, members in scopes(scored):
        counted = summed(members)
        for step in range(BINS):
            reached = scores(counted.counts(step / 100))
            pixels = {"negative": int(counted.negative[step]), "positive": int(counted.positive[step])}
            shown_scores = {kind: reached[kind] for kind in ("precision", "recall")}
            rows.append({**about, "threshold": step / 100, **pixels, **shown_scores})
    return typed(pd.DataFrame(rows, columns=list(CURVE_COLUMNS)))


def tabulate_reliability(scored: Sequence[Scored]) -> pd.DataFrame:
    """Return the table of predicted and labelled shares in ten steps of probability.

    Its columns are `RELIABILITY_COLUMNS`, ten rows each for regions, all pooled, and each scene.
    """
    frames = []
    for about, members in scopes(scored):
        shares = reliability(summed(members))
        edges = np.linspace(0, 1, len(shares.pixels) + 1)
        numbers = {"promised": shares.predicted, "kept": shares.observed, "pixels": shares.pixels}
        frames.append(pd.DataFrame({"low": edges[:-1], "high": edges[1:], **numbers}).assign(**about))
    return typed(pd.concat(frames, ignore_index=True)[list(RELIABILITY_COLUMNS)])


def write_scores(evaluation: Evaluation, folder: Path) -> None:
    """Write an evaluation's tables as CSV and Parquet, scores.json and left_out.csv.

    The JSON holds scores, objects, sizes and reliability as lists of rows, null where something is not known;
    left_out.csv holds the scenes without scores, and why.
    """
    frames = (
        evaluation.table,
        evaluation.objects,
        evaluation.sizes,
        tabulate_reliability(evaluation.scenes),
        tabulate_curves(evaluation.scenes),
    )
    tables = dict(zip(_TABLES, frames, strict=True))
    for name, table in tables.items():
        write_table(folder / f"{name}.csv", table)
        with atomic(folder / f"{name}.parquet") as draft:
            table.to_parquet(draft, index=False)
    del tables["curves"]  # too long for a file that is read as a whole
    content = {
        "thresholds": dict(evaluation.thresholds),
        **{name: json.loads(table.to_json(orient="records", double_precision=15)) for name, table in tables.items()},
        "left_out": dict(evaluation.left_out),
    }
    write_json(folder / "scores.json", content, indent=1, ascii_only=False)
    left_out = pd.DataFrame(list(evaluation.left_out.items()), columns=["scene", "reason"])
    write_table(folder / "left_out.csv", left_out)


def _check(thresholds: Mapping[str, float]) -> None:
    """Refuse thresholds outside 0..1, or with the name oracle."""
    for name, value in thresholds.items():
        if name == ORACLE or not 0 <= value <= 1:
            msg = f"threshold {name!r} of {value} cannot be used; it must be 0 .. 1 and not be called {ORACLE!r}"
            raise DataError(msg)


def _rows(scope: str, members: Sequence[Scored], thresholds: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """Yield a row of scores for each threshold, from the sum of several scenes."""
    counted = summed(members)
    promised = calibration_error(counted)
    for name, value in thresholds.items():
        counts = counts_at(members, name, value)
        mapped = [scene.objects_mapped if name == MAPPED or scene.threshold == value else None for scene in members]
        yield {
            **place_columns(scope, members),
            "threshold_name": name,
            "threshold": value,
            "tp": counts.tp,
            "fp": counts.fp,
            "fn": counts.fn,
            "tn": counts.tn,
            "pixels": counts.total,
            "pixels_ignored": sum(item.ignored for item in members),
            "pixels_missing": sum(item.missing for item in members),
            **scores(counts),
            "objects_mapped": total(mapped),
            "objects_labelled": total([item.objects_labelled for item in members]),
            **dict.fromkeys(SHAPE_SCORES, math.nan),
            **({} if name == ORACLE else _shape_columns(summed_shapes(members, name))),
            CALIBRATION: promised,
        }


def _shape_columns(shapes: Shapes) -> dict[str, Any]:
    """Return columns of boundary and object counts and scores, from summed shapes.

    Without those of objects where they are not known.
    """
    bands, outlines = shapes.boundary, scores(shapes.boundary)
    row: dict[str, Any] = dict(zip(_BANDS, (bands.tp, bands.fp, bands.fn), strict=True))
    row |= {"boundary_iou": outlines["iou"], "boundary_f1": outlines["f1"]}
    if shapes.matched is None or shapes.ranked is None:
        return row
    objects = shapes.matched[MAIN]
    row |= zip(_FOUND, (objects.tp, objects.fp, objects.fn), strict=True)
    for prefix, counts in (("object", objects), ("centroid", shapes.matched["centroid"])):
        row |= {f"{prefix}_{kind}": scores(counts)[kind] for kind in _KINDS}
    return row | {"object_average_precision": average_precision(shapes.ranked)}


def _object_rows(scope: str, members: Sequence[Scored], thresholds: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """Yield a row of object scores per threshold and matching rule, of summed scenes.

    No row where objects are not known.
    """
    for name, value in thresholds.items():
        for rule, counts in (summed_shapes(members, name).matched or {}).items():
            reached = scores(counts)
            yield {
                **place_columns(scope, members),
                "threshold_name": name,
                "threshold": value,
                "match": "centroid" if rule == "centroid" else "iou",
                "min_iou": None if rule == "centroid" else rule,
                "tp": counts.tp,
                "fp": counts.fp,
                "fn": counts.fn,
                **{kind: reached[kind] for kind in _KINDS},
            }
