"""Groups of scored scenes that tables have rows of: regions, all pooled, each scene."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from thawmap.model.metrics.pixels import Counts, Histogram, mean_scores
from thawmap.report.evaluation.score import MAPPED, Scored, Shapes

ORACLE = "oracle"
"""Name of the threshold with the best IoU on the very pixels that are scored: hindsight, never a result."""

PLACE = ("scope", "region", "scene")
"""Columns that say what a row is of; ``scope`` is scene, region, pooled or mean (of the regions' scores)."""


def by_region(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Return lists of scenes by region, in order of the regions' names."""
    names = sorted({item.region for item in scored})
    return {name: [item for item in scored if item.region == name] for name in names}


def scopes(scored: Sequence[Scored]) -> Iterator[tuple[dict[str, str | None], Sequence[Scored]]]:
    """Yield a dict of columns and its scenes, for each region, all pooled, each scene."""
    for members in by_region(scored).values():
        yield place_columns("region", members), members
    yield place_columns("pooled", scored), scored
    for item in scored:
        yield place_columns("scene", [item]), [item]


def place_columns(scope: str, members: Sequence[Scored]) -> dict[str, str | None]:
    """Return columns scope, region and scene of a row; None where not of the scope."""
    region = None if scope == "pooled" else members[0].region
    return {"scope": scope, "region": region, "scene": members[0].scene if scope == "scene" else None}


def summed(members: Iterable[Scored]) -> Histogram:
    """Return the summed histogram of several scenes: pixels by probability and label."""
    return sum((item.histogram for item in members), Histogram.empty())


def summed_shapes(members: Iterable[Scored], name: str) -> Shapes:
    """Return summed counts of boundaries and objects of scenes at a named threshold."""
    return sum((item.shapes[name] for item in members), Shapes.empty())


def counts_at(members: Iterable[Scored], name: str, threshold: float) -> Counts:
    """Return summed counts of several scenes' pixels at a named threshold.

    Under the name `MAPPED` they are those of the masks, where all scenes have one.
    """
    scenes = list(members)
    masks = [item.mapped for item in scenes if item.mapped is not None]
    if name == MAPPED and len(masks) == len(scenes):
        return sum(masks, Counts())
    return summed(scenes).counts(threshold)


def mean_rows(
    rows: Sequence[Mapping[str, Any]], *, by: Sequence[str], names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield rows of mean scores over regions, one per combination of values in ``by``.

    Regions without the score do not count.
    """
    for key in dict.fromkeys(tuple(row[column] for column in by) for row in rows):
        same = [row for row in rows if tuple(row[column] for column in by) == key]
        value = math.nan if ORACLE in key else same[0]["threshold"]
        yield {"scope": "mean", **dict(zip(by, key, strict=True)), "threshold": value, **mean_scores(same, names)}


def typed(table: pd.DataFrame, *, whole: Sequence[str] = ()) -> pd.DataFrame:
    """Return a table with text columns as string, integer columns as nullable Int64."""
    words = [name for name in (*PLACE, "threshold_name", "match") if name in table]
    return table.astype({**dict.fromkeys(words, "string"), **dict.fromkeys(whole, "Int64")})


def total(numbers: Sequence[int | None]) -> int | None:
    """Return the sum of numbers; None where one is not known."""
    certain = [number for number in numbers if number is not None]
    return sum(certain) if len(certain) == len(numbers) else None
