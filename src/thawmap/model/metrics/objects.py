"""Objects in masks, matched with labelled ones, counted and ranked.

An object is a group of valid pixels that touch by their sides (4-connected, as the polygons are); those of one raster
of a stack never touch those of another. What is missing is in no object, labelled or predicted, so a slump under a
cloud's edge counts as what can be seen of it, and a perfect prediction has no fault.

Pixels that the labels ignore can be in a predicted object and count in no intersection or union. A predicted object
that is not matched, and has fewer than half of its pixels outside of them, is left out: nothing is known of most of
it. So a detection of a slump that the labels ignore is no false alarm, not even by the border that lies outside of the
ignored pixels. Each object is matched with one other at most, and every labelled one is found (tp) or missed (fn).

Counts of objects add, and `thawmap.model.metrics.pixels.scores` makes the scores of them (its F1 is the object F1); as
there, empty against empty is NaN, not 1. There is no `tn`: where nothing is labelled and nothing predicted, there is
nothing to count.
"""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse.csgraph import maximum_bipartite_matching

from thawmap.errors import DataError
from thawmap.model.metrics.pixels import Counts

Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]

Match = Literal["iou", "centroid"]
"""Rule by which a predicted and a labelled object match.

Their IoU, or that the centre of one of them lies on the other.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """Predicted objects with confidences, for average precision; they add.

    Attributes:
        confidence: Mean probability of each predicted object, (n,) float64.
        correct: Whether it was matched with a labelled object, (n,) bool.
        labelled: Number of labelled objects.
    """

    confidence: npt.NDArray[np.float64]
    correct: Bools
    labelled: int

    @classmethod
    def empty(cls) -> Self:
        """Return detections of no objects."""
        return cls(confidence=np.zeros(0), correct=np.zeros(0, np.bool_), labelled=0)

    def __add__(self, other: "Detections") -> "Detections":
        """Return the detections of both together."""
        return Detections(
            confidence=np.concatenate([self.confidence, other.confidence]),
            correct=np.concatenate([self.correct, other.correct]),
            labelled=self.labelled + other.labelled,
        )

    def __radd__(self, other: Literal[0]) -> Self:
        """Return the same detections, so that ``sum`` can begin at 0."""
        return self if other == 0 else NotImplemented


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """Predicted and labelled objects of one mask, to be matched in several ways.

    Attributes:
        predicted: The predicted objects.
        labelled: The labelled ones.
        overlaps: Pairs that share usable pixels: index of the predicted, of the labelled, and their IoU, (n,) each.
    """

    predicted: "_Objects"
    labelled: "_Objects"
    overlaps: tuple[Integers, Integers, npt.NDArray[np.float64]]

    @classmethod
    def of(cls, prediction: Bools, target: Integers, valid: Bools) -> Self:
        """Return the objects of a predicted mask and of labels, with their overlaps.

        Args:
            prediction: True where an object is predicted, (H, W) or (N, H, W) for N rasters.
            target: 1 object, 0 not; anything else (255) is ignored; same shape.
            valid: True where the pixel could be used; same shape.
        """
        usable = valid & ((target == 0) | (target == 1))
        # ignored pixels may belong to a predicted object: without them it would fall into fragments
        predicted, labelled = _Objects.of(prediction & valid, usable), _Objects.of((target == 1) & valid, usable)
        return cls(predicted=predicted, labelled=labelled, overlaps=_overlaps(predicted, labelled, usable))

    def counts(self, *, match: Match = "iou", min_iou: float = 0.5) -> Counts:
        """Count matched (tp), only predicted (fp) and only labelled (fn) objects.

        `object_counts` tells the rules.

        Raises:
            DataError: If ``min_iou`` lies outside 0..1.
        """
        _check_iou(min_iou)
        if match == "centroid":
            first, second = _by_centroid(self.predicted, self.labelled)
        else:
            first, second, _ = self._pairs(min_iou)
        matched, judged = _count_matches(first, second), self.predicted.is_judged[first]
        judged_matched = _count_matches(first[judged], second[judged])
        return Counts(
            tp=matched, fp=int(self.predicted.is_judged.sum()) - judged_matched, fn=len(self.labelled) - matched
        )

    def detections(self, probability: Floats, *, min_iou: float = 0.5) -> Detections:
        """Return each predicted object's mean probability, and whether it is matched.

        Unmatched objects that are mostly ignored are left out; `detections` tells the rules.

        Args:
            probability: 0..1, in the shape of the masks.
            min_iou: Smallest IoU of a match; 0 takes any shared pixel.

        Raises:
            DataError: If ``min_iou`` lies outside 0..1.
        """
        _check_iou(min_iou)
        confidence = self.predicted.mean(probability)
        first, second, iou = self._pairs(min_iou)
        correct, taken = np.zeros(len(self.predicted), np.bool_), np.zeros(len(self.labelled), np.bool_)
        # Greedy on purpose, unlike the counts: average precision is defined so that the most confident choose first.
        for pair in np.lexsort((-iou, first, -confidence[first])):
            if not correct[first[pair]] and not taken[second[pair]]:
                correct[first[pair]] = taken[second[pair]] = True
        counted = correct | self.predicted.is_judged
        return Detections(confidence=confidence[counted], correct=correct[counted], labelled=len(self.labelled))

    def _pairs(self, min_iou: float) -> tuple[Integers, Integers, npt.NDArray[np.float64]]:
        """Return overlapping pairs with at least this IoU: two indices, and IoU."""
        first, second, iou = self.overlaps
        enough = iou >= min_iou
        return first[enough], second[enough], iou[enough]


def object_counts(
    prediction: Bools, target: Integers, valid: Bools, *, match: Match = "iou", min_iou: float = 0.5
) -> Counts:
    """Count matched (tp), only predicted (fp) and only labelled (fn) objects.

    As many objects are matched as can be, and of those predicted objects that would be false alarms as many as can be:
    so nothing depends on an order. (Both at once is possible: Mendelsohn and Dulmage 1958, doi
    10.4153/CJM-1958-052-0.)

    Args:
        prediction: True where an object is predicted, (H, W) or (N, H, W) for N rasters.
        target: 1 object, 0 not; anything else (255) is ignored; same shape.
        valid: True where the pixel could be used; same shape.
        match: iou: two objects match with an IoU of at least ``min_iou``; centroid: where that pixel of one
            object that is nearest to its centroid belongs to the other, either way. (The centroid itself would not
            do: that of a horseshoe, as slumps are, lies outside of it, and outside of its perfect prediction.)
        min_iou: Smallest IoU of a match; 0 takes any shared pixel.

    Raises:
        DataError: If ``min_iou`` lies outside 0..1.
    """
    return Comparison.of(prediction, target, valid).counts(match=match, min_iou=min_iou)


def detections(
    probability: Floats, target: Integers, valid: Bools, *, threshold: float, min_iou: float = 0.5
) -> Detections:
    """Return the objects above a threshold: mean probability, and if each is matched.

    In order of confidence (equals in that of their first pixels), each takes of the labelled objects that are
    left the one with the highest IoU, if that is at least ``min_iou`` (Everingham et al. 2010, doi
    10.1007/s11263-009-0275-4, section 4.2).

    Args:
        probability: 0..1, NaN = missing, (H, W) or (N, H, W) for N rasters.
        target: 1 object, 0 not; anything else (255) is ignored; same shape.
        valid: True where the pixel could be used; same shape.
        threshold: Objects are where the probability is above it, compared in float64.
        min_iou: Smallest IoU of a match; 0 takes any shared pixel.

    Raises:
        DataError: If ``min_iou`` lies outside 0..1.
    """
    comparison = Comparison.of(probability > np.float64(threshold), target, valid)
    return comparison.detections(probability, min_iou=min_iou)


def average_precision(detected: Detections) -> float:
    """Return the average precision of detections, NaN where none is labelled.

    That is the mean precision over the labelled objects in order of confidence.

    The sum of precision times gain in recall, without interpolation; objects of equal confidence count together.
    An object that is never found counts with a precision of 0.

    >>> average_precision(Detections(confidence=np.array([0.9, 0.6]), correct=np.array([True, False]), labelled=2))
    0.5
    """
    if not detected.labelled:
        return float("nan")
    order = np.argsort(-detected.confidence, kind="stable")
    confidence, correct = detected.confidence[order], np.cumsum(detected.correct[order])
    last = np.flatnonzero(np.diff(confidence, append=-np.inf))  # of each group of equals
    gained = np.diff(correct[last], prepend=0)
    return float((gained * correct[last] / (last + 1)).sum() / detected.labelled)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Objects:
    """The connected groups of pixels of a mask, numbered from 1.

    Attributes:
        labels: The number of each pixel's object from 1, 0 = none, (..., H, W) int32.
        pixels: Pixels of each object, (n,) int64.
        usable: Usable pixels of each object, (n,) int64.
    """

    labels: Integers
    pixels: npt.NDArray[np.int64]
    usable: npt.NDArray[np.int64]

    @classmethod
    def of(cls, mask: Bools, usable: Bools) -> Self:
        """Return the 4-connected objects of a mask; rasters of a stack stay apart."""
        touching = np.zeros((3,) * mask.ndim, np.bool_)
        touching[(1,) * (mask.ndim - 2)] = ndimage.generate_binary_structure(2, 1)
        labels, count = ndimage.label(mask, touching)
        pixels = np.bincount(labels[mask], minlength=count + 1)[1:]
        return cls(labels=labels, pixels=pixels, usable=np.bincount(labels[mask & usable], minlength=count + 1)[1:])

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def is_judged(self) -> Bools:
        """True for each object of which at least half the pixels are usable, bool (n,)."""
        enough: Bools = 2 * self.usable >= self.pixels
        return enough

    def mean(self, values: Floats) -> npt.NDArray[np.float64]:
        """Return the mean of a raster's values over each object, (n,)."""
        inside = self.labels > 0
        sums = np.bincount(self.labels[inside], weights=values[inside], minlength=len(self) + 1)[1:]
        return sums / self.pixels

    def centres(self) -> tuple[Integers, ...]:
        """Return each object's pixel nearest to its centroid, as one index array per axis.

        Arrays are (n,); of pixels that are equally near, the first.
        """
        indices = np.nonzero(self.labels)
        labels = self.labels[indices]
        distance = np.zeros(labels.shape)
        for axis in indices:
            mean = np.bincount(labels, weights=axis, minlength=len(self) + 1)[1:] / self.pixels
            distance += (axis - mean[labels - 1]) ** 2
        # sorted by object and then by distance, each object begins with its nearest pixel
        order = np.lexsort((distance, labels))
        first = order[np.flatnonzero(np.diff(labels[order], prepend=0))]
        return tuple(axis[first] for axis in indices)


def _overlaps(
    predicted: _Objects, labelled: _Objects, usable: Bools
) -> tuple[Integers, Integers, npt.NDArray[np.float64]]:
    """Return the index pairs of objects that share usable pixels, and their IoU.

    Index of the predicted object, of the labelled one, and IoU, (n,) each.
    """
    shared = usable & (predicted.labels > 0) & (labelled.labels > 0)
    # one number for each pair, so that the pixels of all pairs are counted in one pass
    codes = (predicted.labels[shared].astype(np.int64) - 1) * len(labelled) + labelled.labels[shared] - 1
    pairs, intersection = np.unique(codes, return_counts=True)
    first, second = np.divmod(pairs, max(len(labelled), 1))
    return first, second, intersection / (predicted.usable[first] + labelled.usable[second] - intersection)


def _by_centroid(predicted: _Objects, labelled: _Objects) -> tuple[Integers, Integers]:
    """Return index pairs of objects of which one covers the other's central pixel."""
    under_predicted = labelled.labels[predicted.centres()]
    under_labelled = predicted.labels[labelled.centres()]
    first = np.concatenate([np.flatnonzero(under_predicted), under_labelled[under_labelled > 0] - 1])
    second = np.concatenate([under_predicted[under_predicted > 0] - 1, np.flatnonzero(under_labelled)])
    pairs = np.unique(np.stack([first, second]), axis=1)
    return pairs[0], pairs[1]


def _count_matches(first: Integers, second: Integers) -> int:
    """Return how many of the index pairs can be taken with no object taken twice."""
    if not first.size:
        return 0
    graph = sparse.csr_matrix((np.ones(first.size, np.int8), (first, second)))
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())


def _check_iou(min_iou: float) -> None:
    """Refuse a smallest IoU outside 0..1."""
    if not 0 <= min_iou <= 1:
        msg = f"an IoU of {min_iou:g} cannot be asked of a match; allowed is 0 .. 1, such as 0.5"
        raise DataError(msg)
