"""One HTML page that says how good a map is: self-contained, for colleagues; every word and number from the data."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from thawmap.data.io import write_text
from thawmap.model.metrics import SCORES, Counts, Histogram, best_threshold, scores
from thawmap.report.evaluate import Evaluation, tabulate
from thawmap.report.figures import (
    confusion,
    map_panel,
    png,
    precision_recall,
    region_scores,
    thousands,
    threshold_label,
    training_curves,
)
from thawmap.report.gallery import Place
from thawmap.report.scoring import Scored

ROLES = {
    "test": "never seen by the model",
    "validation": "chose epoch and threshold",
    "train": "trained on",
}
"""What the parts of a split are called on the page."""

_ASIDES = {
    "test": ", which the model has never seen,",
    "validation": ", which chose the model's epoch and threshold,",
    "train": ", which the model was trained on,",
}
_SHOWN = {"iou": "IoU", "precision": "precision", "recall": "recall"}
_REM_PER_INCH = 6.8  # makes the letters of all figures as large as each other


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What was evaluated.

    Attributes:
        project: Name of the project.
        made: When the page is made.
        roles: Region to "train", "validation" or "test"; regions that are not named have no role.
        facts: Further facts by name, such as the layers or the network.
    """

    project: str
    made: datetime
    roles: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure as it stands on the page.

    Attributes:
        title: Its heading.
        uri: The PNG, as a data URI.
        alt: What it shows, in words.
        caption: How it is read.
        width_rem: How wide it needs to be at most, in units of the page's letters.
    """

    title: str
    uri: str
    alt: str
    caption: str
    width_rem: float


def write_page(
    path: Path,
    evaluation: Evaluation,
    about: About,
    *,
    places: Sequence[Place] = (),
    training: pd.DataFrame | None = None,
) -> None:
    """Write the page, atomically.

    Args:
        path: The HTML file.
        evaluation: What to show.
        about: What was evaluated.
        places: Parts of scenes to show.
        training: The training's CSV, for its curves.

    Raises:
        DataError: If it cannot be written.
    """
    name = main_threshold(evaluation)
    html = render(
        "page.html.j2",
        about=about,
        evaluation=evaluation,
        bundles=sorted({item.bundle for item in evaluation.scenes if item.bundle}),
        threshold=evaluation.thresholds[name],
        threshold_text=threshold_label(name),
        summary=summary(evaluation, about),
        rows=_rows(evaluation, about, name),
        columns=_columns(evaluation, name),
        figures=_figures(evaluation, about, training),
        places=[_panel(place, evaluation, name) for place in places],
        pixels=_pixels(evaluation),
    )
    write_text(path, html)


def render(template: str, **values: Any) -> str:
    """A page from one of this folder's templates, which know the filters `score` and `thousands`."""
    environment = Environment(
        loader=PackageLoader("thawmap", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"score": score, "thousands": thousands}
    return environment.get_template(template).render(version=version("thawmap"), **values)


def main_threshold(evaluation: Evaluation) -> str:
    """Name of the threshold whose scores are the result: the one chosen on validation, else the first."""
    return "validation" if "validation" in evaluation.thresholds else next(iter(evaluation.thresholds))


def summary(evaluation: Evaluation, about: About) -> list[str]:
    """The result in plain sentences: what was found in the regions that count, and what the threshold does to it."""
    name = main_threshold(evaluation)
    value = evaluation.thresholds[name]
    regions = regions_that_count(evaluation, about)
    together = _histogram(item for members in regions.values() for item in members)
    if len(regions) > 3:
        result = (
            f"Over {len(regions)} regions together it {_finding(together.counts(value))}. {_extremes(regions, value)}"
        )
    else:
        result = " ".join(_sentence(key, members, value, about.roles.get(key)) for key, members in regions.items())
    return [result, _about_thresholds(evaluation, together, name)]


def _extremes(regions: Mapping[str, Sequence[Scored]], value: float) -> str:
    """Where it works best, and where worst, as a sentence."""
    reached = {region: _iou(members, value) for region, members in regions.items()}
    order = sorted((region for region in reached if not math.isnan(reached[region])), key=lambda name: -reached[name])
    if not order:
        return "No region has an object."
    best, worst = order[0], order[-1]
    return f"It works best in {best} (IoU {reached[best]:.2f}) and worst in {worst} (IoU {reached[worst]:.2f})."


def _sentence(region: str, members: Sequence[Scored], value: float, role: str | None) -> str:
    aside = _ASIDES.get(role or "", "")
    return f"In {region or 'all scenes'}{aside} it {_finding(_histogram(members).counts(value))}."


def _finding(counts: Counts) -> str:
    """What was found, as the rest of a sentence."""
    reached = scores(counts)
    if counts.tp + counts.fn == 0:
        return f"maps {thousands(counts.fp)} pixels where nothing is labelled"
    if counts.tp + counts.fp == 0:
        return f"finds none of the {thousands(counts.fn)} labelled pixels"
    return (
        f"finds {reached['recall']:.0%} of the labelled area (recall), and {reached['precision']:.0%} of what it "
        f"maps is labelled (precision): an IoU of {reached['iou']:.2f}"
    )


def _about_thresholds(evaluation: Evaluation, together: Histogram, name: str) -> str:
    """What other thresholds would have given, in the same regions."""
    value = evaluation.thresholds[name]
    chosen = "was chosen on validation regions" if name == "validation" else "was fixed beforehand"
    text = f"A pixel counts as mapped where its probability is above {value:.2f}; this threshold {chosen}."
    others = {key: other for key, other in evaluation.thresholds.items() if key != name}
    for other in others.values():
        text += f" At {other:.2f} the IoU would be {score(scores(together.counts(other))['iou'])}."
    best = best_threshold(together)
    if together.positive.any():
        text += (
            f" The best threshold in hindsight, {best:.2f}, would give {score(scores(together.counts(best))['iou'])}: "
            "a bound for what a threshold can do, and no result."
        )
    return text


def regions_that_count(evaluation: Evaluation, about: About) -> dict[str, tuple[Scored, ...]]:
    """The regions that the model has never seen; all, where the split names none of them."""
    unseen = {name: members for name, members in evaluation.regions.items() if about.roles.get(name) == "test"}
    return unseen or evaluation.regions


def _ordered(evaluation: Evaluation, about: About) -> dict[str, tuple[Scored, ...]]:
    """All regions: those never seen first, then those that chose, those trained on, and the rest."""
    order = {role: place for place, role in enumerate(ROLES)}
    regions = evaluation.regions
    names = sorted(regions, key=lambda name: (order.get(about.roles.get(name, ""), len(order)), name))
    return {name: regions[name] for name in names}


def _columns(evaluation: Evaluation, name: str) -> list[str]:
    """Headings of the IoU columns of the thresholds that are only compared with."""
    others = [f"IoU at {value:.2f}" for key, value in evaluation.thresholds.items() if key != name]
    return [*others, "IoU, oracle"]


def _rows(evaluation: Evaluation, about: About, name: str) -> list[dict[str, Any]]:
    """The page's table: every region, then the mean and the sum of those that count."""
    counting = regions_that_count(evaluation, about)
    members = [item for region in counting.values() for item in region]
    sums = tabulate(members, evaluation.thresholds)
    which = "never seen" if len(counting) < len(evaluation.regions) else "all regions"
    rows = []
    for region, scored in _ordered(evaluation, about).items():
        part = _where(evaluation.table, scope="region", region=region)
        role = ROLES.get(about.roles.get(region, ""), "")
        rows.append(_row(part, name, title=region or "All scenes", role=role, scenes=len(scored)))
    if len(counting) > 1:
        rows.append(_row(_where(sums, scope="mean"), name, title=f"Mean, {which}"))
        rows.append(_row(_where(sums, scope="pooled"), name, title=f"Pooled, {which}", scenes=len(members)))
    return rows


def _row(part: pd.DataFrame, name: str, *, title: str, role: str = "", scenes: int | None = None) -> dict[str, Any]:
    """One line of the page's table, from the rows of all thresholds."""
    by_name = part.set_index("threshold_name")
    main = by_name.loc[name]
    return {
        **{key: main[key] for key in SCORES},
        "title": title,
        "role": role,
        "scenes": scenes,
        "labelled": None if pd.isna(main["tp"]) else int(main["tp"] + main["fn"]),
        "others": [by_name.loc[other, "iou"] for other in by_name.index if other != name],
        "sum": main["scope"] != "region",
    }


def _where(table: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table


def _pixels(evaluation: Evaluation) -> dict[str, int]:
    """How many pixels were scored, and how many not, and why."""
    return {
        "scored": sum(item.histogram.total for item in evaluation.scenes),
        "ignored": sum(item.ignored for item in evaluation.scenes),
        "missing": sum(item.missing for item in evaluation.scenes),
    }


def _figures(evaluation: Evaluation, about: About, training: pd.DataFrame | None) -> list[Picture]:
    name = main_threshold(evaluation)
    counting = regions_that_count(evaluation, about)
    counts = _histogram(item for members in counting.values() for item in members).counts(evaluation.thresholds[name])
    regions = _ordered(evaluation, about)
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
            precision_recall(_curves(regions), _marks(table)),
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
    if training is not None and len(training):
        pictures.append(
            picture(
                "How it learned",
                training_curves(training),
                "Loss, IoU, precision and recall of each epoch, for the training and the validation regions.",
                "Loss and scores of each epoch, as training logs them: at a threshold of 0.5. A gap between the "
                "lines that widens is overfitting.",
            )
        )
    return pictures


def _panel(place: Place, evaluation: Evaluation, name: str) -> Picture:
    value = evaluation.thresholds[name]
    counts = place.scored.histogram.counts(value)
    figure = map_panel(
        place.image,
        place.probability,
        place.target,
        threshold=value,
        pixel_m=place.pixel_m,
        ceiling=_ceiling(evaluation),
    )
    region = f", {place.scored.region}" if place.scored.region else ""
    reached = scores(counts)
    result = ", ".join(f"{title} {score(reached[key])}" for key, title in _SHOWN.items())
    return picture(
        f"{place.rank.capitalize()}: {place.scored.scene}{region}",
        figure,
        f"Scene {place.scored.scene} twice, the image and the probability, with labelled and mapped outlines.",
        f"{result} over the whole scene. Left: {', '.join(place.layers)} shown as red, green, blue.",
    )


def _curves(regions: Mapping[str, Sequence[Scored]]) -> dict[str, Histogram]:
    """The histogram of every region in which an object is labelled; without one there is no curve."""
    summed = {region or "all": _histogram(members) for region, members in regions.items()}
    return {region: counted for region, counted in summed.items() if counted.positive.any()}


def _marks(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    marks: dict[str, dict[str, float]] = {}
    for row in table.dropna(subset=["threshold"]).itertuples():
        marks.setdefault(str(row.region), {})[str(row.threshold_name)] = float(str(row.threshold))
    return marks


def _ceiling(evaluation: Evaluation) -> float:
    """The probability that maps show as white; low where a model is never sure, so that something is to be seen.

    At most one pixel in a thousand is above it.
    """
    counted = _histogram(evaluation.scenes)
    return next(limit for limit in (0.25, 0.5, 1.0) if _share_above(counted, limit) <= 0.001)


def _share_above(counted: Histogram, probability: float) -> float:
    counts = counted.counts(probability)
    return (counts.tp + counts.fp) / counted.total


def picture(title: str, figure: Figure, alt: str, caption: str) -> Picture:
    """A figure as it stands on a page."""
    uri = "data:image/png;base64," + base64.b64encode(png(figure)).decode("ascii")
    width_rem = round(_REM_PER_INCH * float(figure.get_size_inches()[0]), 1)
    return Picture(title=title, uri=uri, alt=alt, caption=caption, width_rem=width_rem)


def _histogram(members: Iterable[Scored]) -> Histogram:
    return sum((item.histogram for item in members), Histogram.empty())


def _iou(members: Sequence[Scored], threshold: float) -> float:
    return scores(_histogram(members).counts(threshold))["iou"]


def score(value: float) -> str:
    """Two decimals; n/a where the score is not defined."""
    return "n/a" if pd.isna(value) else f"{round(value, 2) + 0.0:.2f}"
