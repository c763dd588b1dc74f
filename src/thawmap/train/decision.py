"""The decision of a bundle: smoothing, threshold, peak and least area, by validation.

All four are chosen together, as they depend on each other: with a high peak the threshold may be low, which gives whole
outlines. What is compared is the mean over groups of each one's IoU, over a coarse grid; what is taken lies amid those
that are within 2 % of the best, and hang together with it, as on a plateau it serves as well as the best and stays
right for longer. Tiles alone, overlapping tiles of a day and all days are judged apart (law 21).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import ndimage

from thawmap.model.bundle import Bundle
from thawmap.model.decision import KINDS, Decision, Kind
from thawmap.model.metrics.pixels import PLATEAU, Counts
from thawmap.train.tiles.store import TileStore
from thawmap.train.views import TileView, mean_of, overlapping, views_by_place

SMOOTHING_PX = (0.0, 1.0)
THRESHOLDS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8)
PEAKS = (0.0, *(step / 20 for step in range(1, 20)))
AREAS_PX = (1, 4, 9, 25)
"""What is tried of each; a peak at or below the threshold asks for nothing."""

_FEWEST_VIEWS = 1.1  # mean number of views below which a mean of views is none


@dataclass(slots=True)
class ObjectCounts:
    """Objects above each threshold: peak, size, and their labelled pixels; tiles add.

    Attributes:
        labelled: Labelled object pixels by group.
        tables: For each of `THRESHOLDS`, arrays (object, 5) of number of the group, peak, pixels, right and false ones.
        areas_m2: Area of a pixel of each tile, in m2.
        views: Number of views and of pixels of each tile.
    """

    labelled: dict[str, int] = field(default_factory=dict)
    tables: list[list[npt.NDArray[np.float64]]] = field(default_factory=lambda: [[] for _ in THRESHOLDS])
    areas_m2: list[float] = field(default_factory=list)
    views: list[float] = field(default_factory=list)

    def add(self, view: TileView, views: float = 1.0) -> None:
        """Count a view's objects, of the mean of so many views, at every threshold."""
        is_known = np.isfinite(view.probability)
        positive, negative = (is_known & (view.target == value) for value in (1, 0))
        self.labelled[view.group] = self.labelled.get(view.group, 0) + int(positive.sum())
        group = list(self.labelled).index(view.group)
        self.areas_m2.append(view.pixel_m2)
        self.views.append(views)
        for table, threshold in zip(self.tables, THRESHOLDS, strict=True):
            labels, number = ndimage.label(view.probability > np.float64(threshold))
            if number:
                inside = labels > 0
                peaks = np.asarray(ndimage.maximum(view.probability, labels, np.arange(1, number + 1)))
                pixels, right, false = (
                    np.bincount(labels[which], minlength=number + 1)[1:]
                    for which in (inside, inside & positive, inside & negative)
                )
                table.append(np.column_stack([np.full(number, group), peaks, pixels, right, false]))

    def mean_iou(self) -> npt.NDArray[np.float64]:
        """Return the groups' mean IoU (threshold, peak, area).

        Groups without labels left out.

        Of the peaks that a threshold makes idle only the highest stays; minus infinity for the others.
        """
        labelled = np.array(list(self.labelled.values()))
        result = np.full((len(THRESHOLDS), len(PEAKS), len(AREAS_PX)), -np.inf)
        for at, threshold in enumerate(THRESHOLDS):
            objects = np.concatenate([np.empty((0, 5)), *self.tables[at]])
            group = objects[:, 0].astype(np.int64)
            idle = sum(peak <= threshold for peak in PEAKS) - 1
            for number, peak in list(enumerate(PEAKS))[idle:]:
                for size, area_px in enumerate(AREAS_PX):
                    stays = (objects[:, 1] > peak) & (objects[:, 2] >= area_px)
                    right, false = (
                        np.bincount(group[stays], weights=objects[stays, column], minlength=len(labelled))
                        for column in (3, 4)
                    )
                    counted = labelled > 0
                    result[at, number, size] = (right[counted] / (labelled + false)[counted]).mean()
        return result


def choose_decisions(
    bundle: Bundle, store: TileStore, tiles: pd.DataFrame, *, device: torch.device, batch_size: int
) -> dict[Kind, Decision]:
    """Return a bundle's decisions, by kind of views, chosen on labelled tiles.

    Smoothing is chosen on tiles alone, and is that of all kinds, as maps are smoothed before they are averaged. A kind
    of which there is nothing has no decision; nothing has where no object is labelled.

    Args:
        bundle: The bundle, calibrated.
        store: The tile store.
        tiles: Rows of its index: the validation tiles, with the column ``group``.
        device: Device of the network, which is moved to it.
        batch_size: Tiles in a batch.
    """
    counted: dict[tuple[Kind, float], ObjectCounts] = {
        (kind, deviation_px): ObjectCounts() for kind in KINDS for deviation_px in SMOOTHING_PX
    }
    for views in views_by_place(bundle, store, tiles, device=device, batch_size=batch_size):
        for deviation_px in SMOOTHING_PX:
            for kind, view, number in of_kinds([view.smoothed(deviation_px) for view in views]):
                counted[kind, deviation_px].add(view, number)
    return _decisions(counted)


def of_kinds(views: Sequence[TileView]) -> Iterator[tuple[Kind, TileView, float]]:
    """Yield each view alone, with the mean of its day, and with that of all days.

    With the mean number of views of a pixel.
    """
    for position, near in enumerate(overlapping(views)):
        view, others = views[position], [views[number] for number in near]
        yield "tile", view, 1.0
        yield "overlap", *mean_of(view, [other for other in others if other.day == view.day])
        yield "dates", *mean_of(view, others)


def decide(view: TileView, decision: Decision) -> npt.NDArray[np.bool_]:
    """Return the mask of objects (y, x) of a view's probability, by a decision.

    The probability is taken as it is: smoothed already.
    """
    labels, number = ndimage.label(view.probability > np.float64(decision.threshold))
    if not number:
        return np.zeros(labels.shape, np.bool_)
    peaks = np.asarray(ndimage.maximum(view.probability, labels, np.arange(1, number + 1)))
    large = np.bincount(labels.ravel())[1:] * view.pixel_m2 >= decision.min_area_m2
    stays = np.concatenate([[False], (peaks > decision.peak) & large])
    mask: npt.NDArray[np.bool_] = stays[labels]
    return mask


def count_decided(views: Iterable[list[TileView]], decisions: Mapping[Kind, Decision]) -> dict[Kind, Counts]:
    """Return pixels of views by decision and label, summed, for each kind decided on."""
    counts = dict.fromkeys(decisions, Counts())
    smoothing_px = next((decision.smoothing_px for decision in decisions.values()), 0.0)
    for of_place in views:
        for kind, view, _ in of_kinds([view.smoothed(smoothing_px) for view in of_place]):
            if kind in decisions:
                counts[kind] += _counts(decide(view, decisions[kind]), view)
    return counts


def _counts(mask: npt.NDArray[np.bool_], view: TileView) -> Counts:
    is_known = np.isfinite(view.probability)
    positive, negative = (is_known & (view.target == value) for value in (1, 0))
    tp, fp = int((mask & positive).sum()), int((mask & negative).sum())
    return Counts(tp=tp, fp=fp, fn=int(positive.sum()) - tp, tn=int(negative.sum()) - fp)


def _decisions(counted: Mapping[tuple[Kind, float], ObjectCounts]) -> dict[Kind, Decision]:
    """Return the decision of each kind from counts of objects by kind and smoothing."""
    if not any(counted["tile", SMOOTHING_PX[0]].labelled.values()):
        return {}
    smoothing_px = max(SMOOTHING_PX, key=lambda deviation_px: counted["tile", deviation_px].mean_iou().max())
    least_views = {"tile": 1.0, "overlap": _FEWEST_VIEWS, "dates": _FEWEST_VIEWS}
    chosen: dict[Kind, Decision] = {}
    before = 1.0
    for kind in KINDS:
        objects = counted[kind, smoothing_px]
        views = float(np.mean(objects.views))
        if views >= least_views[kind] * before:
            threshold, peak, area_px = amid_plateau(objects.mean_iou())
            pixel_m2 = float(np.median(objects.areas_m2))
            chosen[kind] = Decision(
                smoothing_px=smoothing_px,
                threshold=THRESHOLDS[threshold],
                peak=max(PEAKS[peak], THRESHOLDS[threshold]),
                # half a pixel less, as areas on the ground are not those of counted pixels to the last digit
                min_area_m2=0.0 if area_px == 0 else round((AREAS_PX[area_px] - 0.5) * pixel_m2, 1),
                views=round(views, 2),
            )
            before = views
    return chosen


def amid_plateau(score: npt.NDArray[np.float64]) -> tuple[int, ...]:
    """Return the indices of a score near the middle of the plateau around the best.

    The plateau are the scores within `PLATEAU` of the best that hang together with it, from neighbour to neighbour; the
    one is taken that is nearest to the mean of their indices, of several the better, then the first.
    """
    best = np.unravel_index(int(np.argmax(score)), score.shape)
    labels, _ = ndimage.label(score >= (1 - math.copysign(PLATEAU, score[best])) * score[best])
    members = np.argwhere(labels == labels[best])
    distance = ((members - members.mean(axis=0)) ** 2).sum(axis=1)
    order = np.lexsort((-score[tuple(members.T)], distance.round(9)))
    return tuple(int(index) for index in members[order[0]])
