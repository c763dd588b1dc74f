"""The table of objects by size: how many slumps are found, and false ones per 100 km2."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from thawmap.model.metrics.sizes import SIZE_NUMBERS, SIZE_RATES
from thawmap.report.evaluation.scopes import (
    PLACE,
    by_region,
    mean_rows,
    place_columns,
    summed_shapes,
    typed,
)
from thawmap.report.evaluation.score import Scored

SIZE_COLUMNS = (*PLACE, "threshold_name", "threshold", "size", "iou", *SIZE_NUMBERS, "ground_km2")
"""Columns of the table by size, a row per class of size and one of all; ``iou`` is that of all pixels."""


def tabulate_sizes(
    scored: Sequence[Scored], thresholds: Mapping[str, float], pixel_scores: pd.DataFrame
) -> pd.DataFrame:
    """Return a table of objects by size: regions, mean, pooled, then each scene.

    Its columns are `SIZE_COLUMNS`. Where a cluster was too large for its objects to be known, there is no row.

    Args:
        scored: The scenes.
        thresholds: Name to value.
        pixel_scores: The table of scores of the same scenes, whose IoU stands beside.
    """
    rows = [row for members in by_region(scored).values() for row in _rows("region", members, thresholds)]
    rows += mean_rows(rows, by=("threshold_name", "size"), names=SIZE_RATES)
    rows += _rows("pooled", scored, thresholds)
    rows += [row for item in scored for row in _rows("scene", [item], thresholds)]
    on = [*PLACE, "threshold_name"]
    table = typed(pd.DataFrame(rows, columns=[name for name in SIZE_COLUMNS if name != "iou"]))
    joined = table.merge(pixel_scores[[*on, "iou"]], on=on, how="left")[list(SIZE_COLUMNS)]
    return typed(joined, whole=("labelled", "found", "mapped", "false"))


def _rows(scope: str, members: Sequence[Scored], thresholds: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """Yield a row for each threshold and size, from the sum of several scenes."""
    ground_m2 = sum(item.histogram.total * item.pixel_m2 for item in members)
    for name, value in thresholds.items():
        sizes = summed_shapes(members, name).sizes
        if sizes is None:
            continue
        for row in sizes.rows(ground_m2=ground_m2):
            about = {**place_columns(scope, members), "threshold_name": name, "threshold": value}
            yield {**about, **row, "ground_km2": ground_m2 / 1e6}
