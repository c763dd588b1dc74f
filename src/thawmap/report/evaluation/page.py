"""One HTML page that says how good a map is, for colleagues.

Self-contained; every word and number is from the data.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from thawmap.files.atomic import write_text
from thawmap.model.metrics.pixels import SCORES, Histogram, scores
from thawmap.model.metrics.sizes import ALL_SIZES, SIZES
from thawmap.report.diagnostics import object_scores, reliability_diagram
from thawmap.report.evaluation.examples import Example
from thawmap.report.evaluation.result import (
    CALIBRATION,
    SHAPE_COUNTED,
    SHAPE_SCORES,
    Evaluation,
    tabulate,
    tabulate_objects,
)
from thawmap.report.evaluation.scopes import counts_at, summed
from thawmap.report.evaluation.score import BOUNDARY_PX, MAIN, Scored
from thawmap.report.evaluation.sizes import tabulate_sizes
from thawmap.report.evaluation.summary import About, main_threshold, regions_that_count, summary
from thawmap.report.figures import (
    confusion,
    map_panel,
    precision_recall,
    region_scores,
    thousands,
    threshold_label,
    training_curves,
)
from thawmap.report.html import Picture, picture, render, score

__all__ = [
    "ROLES",
    "About",
    "main_threshold",
    "picture",
    "regions_that_count",
    "render",
    "score",
    "summary",
    "write_page",
]

ROLES = {
    "test": "never seen by the model",
    "validation": "chose epoch and threshold",
    "train": "trained on",
}
"""What the parts of a split are called on the page."""

_SHOWN = {"iou": "IoU", "precision": "precision", "recall": "recall"}


def write_page(
    path: Path,
    evaluation: Evaluation,
    about: About,
    *,
    examples: Sequence[Example] = (),
    training: pd.DataFrame | None = None,
) -> None:
    """Write an evaluation's page of sentences, table, figures and examples as HTML.

    The file is written atomically.

    Args:
        path: The HTML file.
        evaluation: What to show.
        about: What was evaluated.
        examples: Windows of scenes to show.
        training: The training's CSV, for its curves.

    Raises:
        DataError: If it cannot be written.
    """
    name = main_threshold(evaluation)
    html = render(
        "evaluation/page.html.j2",
        about=about,
        evaluation=evaluation,
        bundles=sorted({item.bundle for item in evaluation.scenes if item.bundle}),
        threshold=evaluation.thresholds[name],
        threshold_text=threshold_label(name),
        summary=summary(evaluation, about),
        rows=_rows(evaluation, about, name),
        sizes=SIZES,
        columns=[
            *(f"IoU at {value:.2f}" for key, value in evaluation.thresholds.items() if key != name),
            "IoU, oracle",
        ],
        figures=_figures(evaluation, about, training),
        examples=[_panel(example, evaluation, name) for example in examples],
        pixels=_pixels(evaluation),
        boundary_px=BOUNDARY_PX,
        main_iou=MAIN,
    )
    write_text(path, html)


def _ordered(evaluation: Evaluation, about: About) -> dict[str, tuple[Scored, ...]]:
    """Return tuples of scenes by region: test regions first, then validation, train.

    Then those without a role; of one role by name.
    """
    order = {role: number for number, role in enumerate(ROLES)}
    regions = evaluation.regions
    names = sorted(regions, key=lambda name: (order.get(about.roles.get(name, ""), len(order)), name))
    return {name: regions[name] for name in names}


def _rows(evaluation: Evaluation, about: About, name: str) -> list[dict[str, Any]]:
    """Return rows of the page's table: each region, then mean and pooled ones.

    The last two are of the regions that count, where there are several.
    """
    counting = regions_that_count(evaluation, about)
    members = [item for region in counting.values() for item in region]
    sums = tabulate(members, evaluation.thresholds)
    which = "never seen" if len(counting) < len(evaluation.regions) else "all regions"
    rows = []
    for region, scored in _ordered(evaluation, about).items():
        where = {"scope": "region", "region": region}
        role = ROLES.get(about.roles.get(region, ""), "")
        row = _row(_where(evaluation.table, **where), name, title=region or "All scenes", role=role, scenes=len(scored))
        rows.append(row | _sizes(_where(evaluation.sizes, threshold_name=name, **where)))
    if len(counting) > 1:
        mean, pooled = _where(sums, scope="mean"), _where(sums, scope="pooled")
        by_size = _where(tabulate_sizes(members, evaluation.thresholds, sums), threshold_name=name)
        rows.append(_row(mean, name, title=f"Mean, {which}") | _sizes(_where(by_size, scope="mean")))
        row = _row(pooled, name, title=f"Pooled, {which}", scenes=len(members))
        rows.append(row | _sizes(_where(by_size, scope="pooled")))
    return rows


def _sizes(by_size: pd.DataFrame) -> dict[str, Any]:
    """Return columns of a page's row from rows by size: hit rates, false objects."""
    rows = {row["size"]: row for row in by_size.to_dict("records")}
    shown = [rows[size] for size in SIZES if size in rows]
    counts = [None if pd.isna(row["labelled"]) else (int(row["found"]), int(row["labelled"])) for row in shown]
    return {
        "hits": [(row["hit_rate"], count) for row, count in zip(shown, counts, strict=True)],
        "false_rates": [row["false_per_100km2"] for row in shown],
        "false_per_100km2": rows[ALL_SIZES]["false_per_100km2"] if ALL_SIZES in rows else None,
    }


def _row(
    thresholds: pd.DataFrame, name: str, *, title: str, role: str = "", scenes: int | None = None
) -> dict[str, Any]:
    """Return one row of the page's table as a dict, from scores at all thresholds."""
    by_name = thresholds.set_index("threshold_name")
    main = by_name.loc[name]
    return {
        **{key: main[key] for key in (*SCORES, *SHAPE_SCORES, CALIBRATION)},
        **{key: None if pd.isna(main[key]) else int(main[key]) for key in SHAPE_COUNTED},
        "title": title,
        "role": role,
        "scenes": scenes,
        "labelled": None if pd.isna(main["tp"]) else int(main["tp"] + main["fn"]),
        "others": [by_name.loc[other, "iou"] for other in by_name.index if other != name],
        "sum": main["scope"] != "region",
    }


def _where(table: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """Return the rows of a table in which each named column equals its value."""
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table


def _pixels(evaluation: Evaluation) -> dict[str, int]:
    """Return numbers of pixels over all scenes, by "scored", "ignored" and "missing"."""
    return {
        "scored": sum(item.histogram.total for item in evaluation.scenes),
        "ignored": sum(item.ignored for item in evaluation.scenes),
        "missing": sum(item.missing for item in evaluation.scenes),
    }


def _figures(evaluation: Evaluation, about: About, training: pd.DataFrame | None) -> list[Picture]:
    """Return all figures of the page with captions, that of training only with a log."""
    name = main_threshold(evaluation)
    counting = regions_that_count(evaluation, about)
    members = [item for region in counting.values() for item in region]
    counts = counts_at(members, name, evaluation.thresholds[name])
    regions = _ordered(evaluation, about)
    curves = _curves(regions)
    table = pd.concat([_where(evaluation.table, scope="region", region=region) for region in regions]).assign(
        region=lambda rows: rows["region"].replace("", "all")
    )
    where = ", ".join(region for region in counting if region) or "all scenes"
    pictures = [
        picture(
            "Scores by region",
            region_scores(table),
            "Bars of IoU, precision, recall and F1 for every region and threshold; the numbers are in scores.csv.",
            "Blue bars are the result. Hatched bars use the threshold that suits each region best, which only "
            "its labels can tell: hindsight, not a result.",
        ),
        picture(
            "Precision against recall",
            precision_recall(curves, _marks(table)),
            "Curves of precision against recall over all thresholds, a line per region, with thresholds marked.",
            "Each line runs through all thresholds, from high ones on the left to low ones on the right. "
            "Along a grey line the IoU is the same.",
        ),
        picture(
            "What was right and what was wrong",
            confusion(counts),
            f"Pixels by label and prediction: {thousands(counts.tp)} of {thousands(counts.tp + counts.fn)} "
            f"labelled pixels found, {thousands(counts.fp)} mapped without a label.",
            f"Pixels of {where}; each row adds up to 100 %.",
        ),
    ]
    pictures += _shape_pictures(members, name, where, evaluation.thresholds)
    pictures.append(
        picture(
            "What probabilities are worth",
            reliability_diagram(curves, summed(evaluation.scenes)),
            "Share of labelled pixels against predicted probability, a line per region, over the number of pixels.",
            "On the dotted line a probability is what it says: of the pixels with 0.3, three in ten are labelled. "
            "Below it the model is too sure, above it not sure enough. Where objects are rare nearly all pixels have "
            "a low probability, and they alone decide the calibration error.",
        )
    )
    return pictures + ([_learning(training)] if training is not None and len(training) else [])


def _learning(training: pd.DataFrame) -> Picture:
    """Return a captioned figure of a training's loss and scores by epoch."""
    return picture(
        "How it learned",
        training_curves(training),
        "Loss, IoU, precision and recall of each epoch, for the training and the validation regions.",
        "Loss and scores of each epoch, as training logs them: at a threshold of 0.5. A gap between the lines that "
        "widens is overfitting.",
    )


def _shape_pictures(members: Sequence[Scored], name: str, where: str, thresholds: Mapping[str, float]) -> list[Picture]:
    """Return a list of one figure, object scores by IoU, or none where unknown."""
    table = tabulate_objects(members, {name: thresholds[name]})
    if table["f1"].isna().all():
        return []
    return [
        picture(
            "Objects by how well they have to fit",
            object_scores(table),
            "Precision, recall and F1 of objects against the IoU that makes a match, together and F1 by region.",
            f"Objects of {where}. To the right a match has to fit better. Diamonds: objects match where the centre of "
            "one lies on the other, however well their outlines fit.",
        )
    ]


def _panel(example: Example, evaluation: Evaluation, name: str) -> Picture:
    """Return a captioned figure of an example's image, probability and outlines."""
    value = evaluation.thresholds[name]
    counts = counts_at([example.scored], name, value)
    figure = map_panel(
        example.image,
        example.probability,
        example.target,
        threshold=value,
        pixel_m=example.pixel_m,
        ceiling=_ceiling(evaluation),
        mapped=example.mapped if value == example.scored.threshold else None,
    )
    region = f", {example.scored.region}" if example.scored.region else ""
    reached = scores(counts)
    result = ", ".join(f"{title} {score(reached[key])}" for key, title in _SHOWN.items())
    return picture(
        f"{example.rank.capitalize()}: {example.scored.scene}{region}",
        figure,
        f"Scene {example.scored.scene} twice, the image and the probability, with labelled and mapped outlines.",
        f"{result} over the whole scene. Left: {', '.join(example.layers)} shown as red, green, blue.",
    )


def _curves(regions: Mapping[str, Sequence[Scored]]) -> dict[str, Histogram]:
    """Return summed histograms by region, of regions with a labelled pixel only.

    Without one there is no curve.
    """
    pixels = {region or "all": summed(members) for region, members in regions.items()}
    return {region: counted for region, counted in pixels.items() if counted.positive.any()}


def _marks(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return thresholds by region, then by name, without those that are NaN."""
    marks: dict[str, dict[str, float]] = {}
    for row in table.dropna(subset=["threshold"]).itertuples():
        marks.setdefault(str(row.region), {})[str(row.threshold_name)] = float(str(row.threshold))
    return marks


def _ceiling(evaluation: Evaluation) -> float:
    """Return 0.25, 0.5 or 1: the probability that example maps show as white.

    Low where a model is never sure, so that something is to be seen.

    The least that at most one pixel in a thousand is above.
    """
    pixels = summed(evaluation.scenes)
    counts = {limit: pixels.counts(limit) for limit in (0.25, 0.5, 1.0)}  # of 1.0 none is above it
    return next(limit for limit, above in counts.items() if (above.tp + above.fp) / above.total <= 0.001)
