"""From maps and labels to one tidy table of scores.

    scene --window by window--> histogram --sum over scenes--> regions, pooled --thresholds--> counts --> scores

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
import numpy.typing as npt
import pandas as pd
from odc.geo.geobox import GeoBox

from thawmap.data.io import atomic, raster_info, read_raster, read_vector, write_text
from thawmap.data.labels import IGNORE, Labels
from thawmap.data.sources.base import Scene
from thawmap.data.stack import window_geobox
from thawmap.engine import Outcome, run
from thawmap.errors import DataError
from thawmap.grid import Window, blocks
from thawmap.model.metrics import SCORES, Histogram, best_threshold, histogram, mean_scores, scores

ORACLE = "oracle"
"""Name of the threshold with the best IoU on the very pixels that are scored: hindsight, never a result."""

COUNTED = ("tp", "fp", "fn", "tn", "pixels", "pixels_ignored", "pixels_missing")
"""Columns of pixels: those scored (the sum of the first four), labelled as ignore, and labelled but not mapped."""

OBJECTS = ("objects_mapped", "objects_labelled")
"""Columns of polygons: those mapped, in rows of the threshold that they were cut at, and those labelled."""

COLUMNS = ("scope", "region", "scene", "threshold_name", "threshold", *COUNTED, *SCORES, *OBJECTS)
"""Columns of the table, in order; ``scope`` is scene, region, pooled or mean (of the regions' scores)."""

_SIDE = 512  # of the windows that are read, in pixels: the blocks of the maps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """What one scene's map and labels say of each other.

    Attributes:
        scene: Id of the scene.
        region: Its region; "" where it has none.
        histogram: Pixels with a probability and a label.
        ignored: Pixels that the labels leave out.
        missing: Pixels with a label and no probability.
        objects_mapped: Polygons in slumps.gpkg; None without that file.
        objects_labelled: Digitised polygons in the scene; None where labels are rasters.
        cut_at: Threshold of the map's polygons; None where the map does not say.
        bundle: Id of the model that made the map; "" where the map does not say.
        richest: The window with the most labelled object pixels, or else the highest probabilities: where to look.
    """

    scene: str
    region: str
    histogram: Histogram
    ignored: int
    missing: int
    objects_mapped: int | None
    objects_labelled: int | None
    cut_at: float | None
    bundle: str
    richest: Window


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """The scores of several scenes.

    Attributes:
        scenes: What was scored, in the order of ids.
        thresholds: Name to value of the thresholds that were fixed beforehand.
        left_out: Id to reason of the scenes that could not be scored.
        table: One row per scope, region, scene and threshold; see `COLUMNS`.
    """

    scenes: tuple[Scored, ...]
    thresholds: Mapping[str, float]
    left_out: Mapping[str, str]
    table: pd.DataFrame = field(repr=False)

    @property
    def regions(self) -> dict[str, tuple[Scored, ...]]:
        """The scenes by region, in order of their names."""
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
    """Score the maps in ``maps``/<scene id>/ against the labels.

    Args:
        maps: Folder of the scenes' folders.
        scenes: What to score.
        labels: What people said of each pixel.
        thresholds: Name to value, such as ``{"paper": 0.5, "validation": 0.13}``; `ORACLE` is added.
        executor: Where scenes are scored; None: here, one after the other.

    Raises:
        DataError: If a threshold cannot be one, or no scene could be scored.
    """
    return summarise(run(partial(score, maps=maps, labels=labels), scenes, executor), thresholds=thresholds)


def score(scene: Scene, *, maps: Path, labels: Labels) -> Scored:
    """Compare one scene's map with its labels, in bounded memory.

    Raises:
        DataError: If the scene has no map, no pixel has both a probability and a label, or a file is damaged.
    """
    folder = maps / scene.id
    path = folder / "probability.tif"
    if not path.exists():
        msg = f"scene {scene.id} has no map in {maps}; make it with 'thawmap predict'"
        raise DataError(msg)
    counted, ignored, missing, richest = Histogram.empty(), 0, 0, (-1.0, -1.0, Window(row=0, col=0, height=1, width=1))
    geobox = raster_info(path).geobox
    for window in blocks((geobox.height, geobox.width), side=_SIDE):
        here = window_geobox(geobox, window)
        probability, target = read_probability(path, here), labels.burn(scene, here)
        known = np.isfinite(probability)
        counted += histogram(probability, target, known)
        ignored += int((target == IGNORE).sum())
        missing += int(((target != IGNORE) & ~known).sum())
        rich = (float((known & (target == 1)).sum()), float(np.nansum(probability)), window)
        richest = max(richest, rich, key=lambda item: item[:2])
    if not counted.total:
        msg = f"scene {scene.id} has no pixel with both a probability and a label; see its mask and its labels"
        raise DataError(msg)
    outlines = labels.outlines(scene)
    maker = _maker(folder / "item.json")
    return Scored(
        scene=scene.id,
        region=scene.region or "",
        histogram=counted,
        ignored=ignored,
        missing=missing,
        objects_mapped=_polygons(folder / "slumps.gpkg"),
        objects_labelled=None if outlines is None else len(outlines),
        cut_at=maker.get("thawmap:threshold"),
        bundle=maker.get("thawmap:bundle") or "",
        richest=_whole(richest[2], tuple(geobox.shape)),
    )


def read_probability(path: Path, geobox: GeoBox) -> npt.NDArray[np.float32]:
    """Probability (y, x), float32, 0..1, NaN = missing, on a part of the map's grid; bytes hold hundredths."""
    stored: npt.NDArray[np.float32] = read_raster(path, geobox, bands=[1]).values[0]
    return stored if raster_info(path).dtype.startswith("float") else stored / np.float32(100)


def summarise(outcomes: Iterable[Outcome[Scene, Scored]], *, thresholds: Mapping[str, float]) -> Evaluation:
    """The evaluation of what `score` gave for each scene, failures listed.

    Raises:
        DataError: If a threshold cannot be one, or no scene could be scored.
    """
    for name, value in thresholds.items():
        if name == ORACLE or not 0 <= value <= 1:
            msg = f"threshold {name!r} of {value} cannot be used; it must be 0 .. 1 and not be called {ORACLE!r}"
            raise DataError(msg)
    scored, left_out = [], {}
    for outcome in outcomes:
        if outcome.value is None:
            left_out[outcome.item.id] = outcome.error or "nothing came back"
        else:
            scored.append(outcome.value)
    if not scored:
        first = f"; the first: {next(iter(left_out.values()))}" if left_out else ", because there is none"
        msg = f"none of {len(left_out)} scenes could be scored{first}"
        raise DataError(msg)
    scored.sort(key=lambda item: item.scene)
    return Evaluation(
        scenes=tuple(scored),
        thresholds=MappingProxyType(dict(thresholds)),
        left_out=MappingProxyType(dict(sorted(left_out.items()))),
        table=tabulate(scored, thresholds),
    )


def tabulate(scored: Sequence[Scored], thresholds: Mapping[str, float]) -> pd.DataFrame:
    """The table of `COLUMNS`: regions, their mean, all pooled, then each scene.

    The oracle's threshold is the best of each region, and of all for the pooled row; a scene has its region's.
    """
    names = sorted({item.region for item in scored})
    regions = {name: [item for item in scored if item.region == name] for name in names}
    chosen = {name: {**thresholds, ORACLE: best_threshold(_summed(members))} for name, members in regions.items()}
    rows = [row for name, members in regions.items() for row in _rows("region", members, chosen[name])]
    rows += _mean(rows)
    rows += _rows("pooled", scored, {**thresholds, ORACLE: best_threshold(_summed(scored))})
    rows += [row for item in scored for row in _rows("scene", [item], chosen[item.region])]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    whole = dict.fromkeys((*COUNTED, *OBJECTS), "Int64")
    return table.astype({**dict.fromkeys(("scope", "region", "scene", "threshold_name"), "string"), **whole})


def write_scores(evaluation: Evaluation, folder: Path) -> None:
    """Write the table as scores.csv and scores.parquet, and left_out.csv: the scenes without scores, and why."""
    write_text(folder / "scores.csv", evaluation.table.to_csv(index=False))
    with atomic(folder / "scores.parquet") as draft:
        evaluation.table.to_parquet(draft, index=False)
    left_out = pd.DataFrame(list(evaluation.left_out.items()), columns=["scene", "reason"])
    write_text(folder / "left_out.csv", left_out.to_csv(index=False))


def _rows(scope: str, members: Sequence[Scored], thresholds: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """One row per threshold of the members' sum."""
    counted = _summed(members)
    for name, value in thresholds.items():
        counts = counted.counts(value)
        found = [item.objects_mapped if item.cut_at == value else None for item in members]
        yield {
            "scope": scope,
            "region": None if scope == "pooled" else members[0].region,
            "scene": members[0].scene if scope == "scene" else None,
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
            "objects_mapped": _total(found),
            "objects_labelled": _total([item.objects_labelled for item in members]),
        }


def _mean(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The mean of the regions' scores, one row per threshold, regions without the score left out."""
    for name in dict.fromkeys(row["threshold_name"] for row in rows):
        mine = [row for row in rows if row["threshold_name"] == name]
        value = math.nan if name == ORACLE else mine[0]["threshold"]
        yield {"scope": "mean", "threshold_name": name, "threshold": value, **mean_scores(mine)}


def _summed(members: Sequence[Scored]) -> Histogram:
    return sum((item.histogram for item in members), Histogram.empty())


def _total(numbers: Sequence[int | None]) -> int | None:
    """The sum; None where one is not known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _whole(window: Window, shape: tuple[int, ...]) -> Window:
    """The window at full size, shifted back into the raster where it is cut by the border."""
    height, width = min(_SIDE, shape[0]), min(_SIDE, shape[1])
    row, col = min(window.row, shape[0] - height), min(window.col, shape[1] - width)
    return Window(row=row, col=col, height=height, width=width)


def _polygons(path: Path) -> int | None:
    return len(read_vector(path)) if path.exists() else None


def _maker(path: Path) -> dict[str, Any]:
    """The properties of the map's STAC item; none where there is no item.

    Raises:
        DataError: If the item is not JSON.
    """
    if not path.exists():
        return {}
    try:
        properties: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["properties"]
    except (ValueError, KeyError) as error:
        msg = f"{path} is not a STAC item; make the scene's map again with 'thawmap predict'"
        raise DataError(msg) from error
    return properties
