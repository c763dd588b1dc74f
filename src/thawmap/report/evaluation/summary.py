"""The result of an evaluation in plain sentences."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from thawmap.model.metrics.pixels import Counts, Histogram, best_threshold, scores
from thawmap.report.evaluation.result import Evaluation
from thawmap.report.evaluation.scopes import counts_at, summed, summed_shapes
from thawmap.report.evaluation.score import MAIN, MAPPED, Scored
from thawmap.report.figures import thousands
from thawmap.report.html import score

_ASIDES = {
    "test": ", which the model has never seen,",
    "validation": ", which chose the model's epoch and threshold,",
    "train": ", which the model was trained on,",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Project, date, roles of regions and facts of the model, as the page tells them.

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


def main_threshold(evaluation: Evaluation) -> str:
    """Return the name of the main threshold: mapped, else validation, else the first.

    The one by which the maps' slumps were made, else the one chosen on validation, else the first.
    """
    names = evaluation.thresholds
    return next((name for name in (MAPPED, "validation") if name in names), next(iter(names)))


def summary(evaluation: Evaluation, about: About) -> list[str]:
    """Return sentences on an evaluation: regions, thresholds, objects found or missed.

    What was found in the regions that count, what the threshold does to it, and what became of objects.
    """
    name = main_threshold(evaluation)
    value = evaluation.thresholds[name]
    regions = regions_that_count(evaluation, about)
    members = [item for region in regions.values() for item in region]
    counted = {region: counts_at(of_region, name, value) for region, of_region in regions.items()}
    if len(regions) > 3:
        result = (
            f"Over {len(regions)} regions together it {_finding(sum(counted.values(), Counts()))}. {_extremes(counted)}"
        )
    else:
        result = " ".join(_sentence(region, counts, about.roles.get(region)) for region, counts in counted.items())
    return [result, _about_thresholds(evaluation, summed(members), name), *_about_objects(members, name)]


def _extremes(counted: Mapping[str, Counts]) -> str:
    """Return a sentence on the regions of best and worst IoU."""
    reached = {region: scores(counts)["iou"] for region, counts in counted.items()}
    order = sorted((region for region in reached if not math.isnan(reached[region])), key=lambda name: -reached[name])
    if not order:
        return "No region has an object."
    best, worst = order[0], order[-1]
    return f"It works best in {best} (IoU {reached[best]:.2f}) and worst in {worst} (IoU {reached[worst]:.2f})."


def _sentence(region: str, counts: Counts, role: str | None) -> str:
    """Return a sentence on a region: its role, and recall, precision and IoU."""
    aside = _ASIDES.get(role or "", "")
    return f"In {region or 'all scenes'}{aside} it {_finding(counts)}."


def _finding(counts: Counts) -> str:
    """Return the end of a sentence: recall, precision and IoU of counts of pixels."""
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
    """Return sentences on the threshold used, and on the IoU at others and the best."""
    value = evaluation.thresholds[name]
    chosen = "was chosen on validation regions" if name == "validation" else "was fixed beforehand"
    text = f"A pixel counts as mapped where its probability is above {value:.2f}; this threshold {chosen}."
    if name == MAPPED:
        text = (
            f"A pixel counts as mapped where it is of a slump of the maps: its probability is above {value:.2f}, and "
            "the slump is large enough and has a peak, all of which were chosen together on validation regions."
        )
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


def _about_objects(members: Sequence[Scored], name: str) -> list[str]:
    """Return sentences on objects found and left out; none where they are unknown."""
    matched = summed_shapes(members, name).matched
    if matched is None:
        return []
    fits, centres = matched[MAIN], matched["centroid"]
    labelled, mapped = fits.tp + fits.fn, fits.tp + fits.fp
    sentence = (
        f"As objects: {thousands(fits.tp)} of {thousands(labelled)} labelled ones are found with an IoU of {MAIN} or "
        f"more, {thousands(centres.tp)} at the right place; {thousands(fits.fp)} of {thousands(mapped)} mapped ones "
        f"fit none that well, and {thousands(centres.fp)} are at no labelled place."
    )
    return [sentence, *_about_left_out(members)]


def _about_left_out(members: Sequence[Scored]) -> list[str]:
    """Return a list: a sentence on objects that maps leave out, by reason, or nothing."""
    reasons: Counter[str] = Counter()
    for scene in members:
        reasons.update(scene.left_out)
    if not reasons:
        return []
    listed = ", ".join(f"{thousands(number)} {reason}" for reason, number in reasons.most_common())
    text = f"Not among these are {thousands(reasons.total())} that the maps leave out: {listed}."
    return [f"{text} They lie in the layer 'left_out' beside the slumps (settings polygons.min_area_m2 and drop)."]


def regions_that_count(evaluation: Evaluation, about: About) -> dict[str, tuple[Scored, ...]]:
    """Return scenes by region, of test regions only, or of all where none is a test.

    Test regions are those that the model has never seen.
    """
    unseen = {name: members for name, members in evaluation.regions.items() if about.roles.get(name) == "test"}
    return unseen or evaluation.regions
