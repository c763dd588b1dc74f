"""Counts of pixels, and the scores that follow from them.

Counts add, and scores come last (law 10). Objects and boundaries are counted by `thawmap.model.metrics.objects` and
`thawmap.model.metrics.boundaries`, and scored here.

A score whose denominator is 0 is NaN, without exception: it is not known, and neither 0 nor 1 would be true.
So, empty against empty (no object pixel labelled, none predicted) has an overall accuracy of 1 and no kappa,
IoU, precision, recall or F1: where there is nothing to find, finding nothing says nothing about objects.
Means leave NaN out. Once a pixel is labelled or predicted as object, IoU and F1 are numbers (0 if none meet).

The scores are the paper's (Nitze et al. 2021, section 2.3, "Cross-Validation: Data Setup").
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from thawmap.errors import DataError

Array: TypeAlias = Any
"""A numpy array or a torch tensor, used by what both can do."""

BINS = 101
"""Bins of a histogram: the hundredths 0.00, 0.01 .. 1.00 that maps store."""

PLATEAU = 0.02
"""Share of the best score that thresholds on the plateau may lose."""

SCORES = ("overall_accuracy", "kappa", "iou", "precision", "recall", "f1")
"""Names of the scores, in the order of tables."""

Score = Literal["overall_accuracy", "kappa", "iou", "precision", "recall", "f1"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of pixels, or objects, by prediction and label; counts add.

    Attributes:
        tp: Predicted and labelled as object.
        fp: Predicted only.
        fn: Labelled only.
        tn: Neither.

    >>> sum([Counts(tp=1), Counts(fp=2, tn=3)], Counts())
    Counts(tp=1, fp=2, fn=0, tn=3)
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        """Return the sums of both counts."""
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    def __radd__(self, other: Literal[0]) -> Self:
        """Return the same counts, so that ``sum`` can begin at 0."""
        return self if other == 0 else NotImplemented

    @property
    def total(self) -> int:
        """The sum of the four counts."""
        return self.tp + self.fp + self.fn + self.tn


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Pixels by predicted probability and label; histograms add.

    The counts at any threshold follow from it.

    Attributes:
        negative: Pixels labelled as not an object, (101,) int64, by hundredths of probability.
        positive: Pixels labelled as object, (101,) int64, by hundredths of probability.
    """

    negative: npt.NDArray[np.int64]
    positive: npt.NDArray[np.int64]

    @classmethod
    def empty(cls) -> Self:
        """Return a histogram of no pixels."""
        return cls(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64))

    def __add__(self, other: "Histogram") -> "Histogram":
        """Return the histogram of both together."""
        return Histogram(self.negative + other.negative, self.positive + other.positive)

    def __radd__(self, other: Literal[0]) -> Self:
        """Return the same histogram, so that ``sum`` can begin at 0."""
        return self if other == 0 else NotImplemented

    @property
    def total(self) -> int:
        """The number of pixels in the histogram."""
        return int(self.negative.sum() + self.positive.sum())

    def counts(self, threshold: float) -> Counts:
        """Return the histogram's tp, fp, fn and tn, objects being above a threshold.

        Exact for probabilities that are whole hundredths; others count as the nearest one.
        """
        above = np.arange(BINS) / 100 > threshold
        return Counts(
            tp=int(self.positive[above].sum()),
            fp=int(self.negative[above].sum()),
            fn=int(self.positive[~above].sum()),
            tn=int(self.negative[~above].sum()),
        )


def counts(prediction: Array, target: Array, valid: Array) -> Counts:
    """Count tp, fp, fn and tn over the pixels that are valid and labelled.

    Numpy arrays or torch tensors of one shape.

    Args:
        prediction: True where an object is predicted, bool.
        target: 1 object, 0 not; anything else (255) is left out.
        valid: True where the pixel could be used, bool.
    """
    labelled, not_labelled = valid & (target == 1), valid & (target == 0)
    tp, fp = int((prediction & labelled).sum()), int((prediction & not_labelled).sum())
    return Counts(tp=tp, fp=fp, fn=int(labelled.sum()) - tp, tn=int(not_labelled.sum()) - fp)


def histogram(probability: Array, target: Array, valid: Array) -> Histogram:
    """Count valid and labelled pixels by label and hundredth of probability.

    Numpy arrays or torch tensors of one shape. Probabilities are rounded to hundredths in float32 (ties to even), so a
    histogram of a network's probabilities equals that of the uint8 map made from it. Tensors are counted on their
    device; only 202 sums leave it.

    Args:
        probability: 0..1, any float type; NaN = missing, left out.
        target: 1 object, 0 not; anything else (255) is left out.
        valid: True where the pixel could be used, bool.

    Raises:
        DataError: If a counted probability lies outside 0..1, as logits do.
    """
    usable = valid & ((target == 0) | (target == 1)) & (probability == probability)  # noqa: PLR0124 - NaN is not itself
    chosen, labels = probability[usable], target[usable]
    if isinstance(chosen, np.ndarray):
        bins = np.rint(chosen.astype(np.float32) * 100)
        _check_bins(bins)
        sums = np.bincount(bins.astype(np.int64) + BINS * labels.astype(np.int64), minlength=2 * BINS)
    else:
        scaled = (chosen.float() * 100).round()
        _check_bins(scaled)
        sums = (scaled.long() + BINS * labels.long()).bincount(minlength=2 * BINS).cpu().numpy()
    return Histogram(sums[:BINS].astype(np.int64), sums[BINS:].astype(np.int64))


def scores(counted: Counts) -> dict[str, float]:
    """Return scores by name, such as IoU and F1, of tp, fp, fn, tn; NaN if undefined.

    They are those of the object class. The names are those in `SCORES`, and the module tells where scores are
    undefined. Cohen's kappa in the closed form for two classes; it is not defined where labels and prediction agree on
    one class everywhere, because chance would agree there too.

    >>> scores(Counts(tp=1, fp=1, fn=0, tn=2))["iou"]
    0.5
    >>> scores(Counts(tn=7))["iou"]
    nan
    """
    tp, fp, fn, tn = counted.tp, counted.fp, counted.fn, counted.tn
    return {
        "overall_accuracy": _ratio(tp + tn, counted.total),
        "kappa": _ratio(2 * (tp * tn - fp * fn), (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)),
        "iou": _ratio(tp, tp + fp + fn),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    }


def mean_scores(scored: Iterable[Mapping[str, float]], names: Sequence[str] = SCORES) -> dict[str, float]:
    """Return each score's mean over several dicts of scores, NaN left out."""
    rows = list(scored)
    defined = {name: [row[name] for row in rows if not math.isnan(row[name])] for name in names}
    return {name: _ratio(math.fsum(values), len(values)) for name, values in defined.items()}


def best_threshold(counted: Histogram, metric: Score = "iou") -> float:
    """Return the hundredth of probability above which a histogram scores best, or NaN.

    NaN where no pixel is labelled as object. Among equals the middle one: it stays right for the longest when
    probabilities move.

    >>> best_threshold(Histogram.empty())
    nan
    """
    if not counted.positive.any():
        return math.nan
    values = np.array([scores(counted.counts(step / 100))[metric] for step in range(BINS)])
    values = np.nan_to_num(values, nan=-np.inf)
    best = np.flatnonzero(values == values.max())
    return int(best[len(best) // 2]) / 100


def plateau_threshold(counted: Sequence[Histogram], metric: Score = "iou") -> float:
    """Return one threshold amid those where histograms' mean score is near its best.

    One whole hundredth for all. The plateau of several histograms' mean score are the thresholds where that is within
    `PLATEAU` of the best, without a gap between them and the best. The middle serves as well on these histograms, and
    stays right for longer when probabilities move. Histograms without a pixel labelled as object are left out; NaN
    where all are.

    >>> plateau_threshold([Histogram.empty()])
    nan
    """
    labelled = [histogram for histogram in counted if histogram.positive.any()]
    if not labelled:
        return math.nan
    steps = [[scores(histogram.counts(step / 100))[metric] for histogram in labelled] for step in range(BINS)]
    means = np.nan_to_num(np.array(steps), nan=0.0).mean(axis=1)
    gaps = np.flatnonzero(means < (1 - PLATEAU) * means.max())
    peaks = np.flatnonzero(means == means.max())
    peak = peaks[len(peaks) // 2]  # from which the plateau reaches to the nearest gap on either side
    first = gaps[gaps < peak].max(initial=-1) + 1
    last = gaps[gaps > peak].min(initial=BINS) - 1
    return int(first + last) // 2 / 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reliability:
    """Predicted probability and observed share of objects, in equal steps.

    Attributes:
        predicted: Mean probability in each step, (n,) float64; NaN where no pixel is.
        observed: Share of labelled object pixels in each step, (n,) float64; NaN where no pixel is.
        pixels: Pixels in each step, (n,) int64.
    """

    predicted: npt.NDArray[np.float64]
    observed: npt.NDArray[np.float64]
    pixels: npt.NDArray[np.int64]


def reliability(counted: Histogram, *, steps: int = 10) -> Reliability:
    """Return mean probability and labelled share of a histogram, in equal steps.

    The diagram of reliability: is of all pixels with probability 0.3 a share of 0.3 labelled as object? Each step holds
    the probabilities above the one before, its own included (0 is in the first).

    Args:
        counted: Pixels by probability and label.
        steps: Number of steps, 1 to 100.

    Raises:
        DataError: If ``steps`` is another number.
    """
    if not 1 <= steps <= BINS - 1:
        msg = f"hundredths of probability cannot be parted into {steps} steps; allowed is 1 .. {BINS - 1}"
        raise DataError(msg)
    hundredths = np.arange(BINS)
    # the quotient rounded up, in whole numbers: 0.3 is in the third of ten steps whatever floats make of it
    step = np.maximum(-(-hundredths * steps // (BINS - 1)) - 1, 0)
    both = counted.negative + counted.positive
    pixels = np.zeros(steps, np.int64)
    np.add.at(pixels, step, both)
    divisor = np.where(pixels > 0, pixels, np.nan)
    return Reliability(
        predicted=np.bincount(step, weights=both * (hundredths / 100)) / divisor,
        observed=np.bincount(step, weights=counted.positive) / divisor,
        pixels=pixels,
    )


def calibration_error(counted: Histogram, *, steps: int = 10) -> float:
    """Return a histogram's expected calibration error, 0..1; NaN without a pixel.

    The mean distance of predicted probability and labelled share over all pixels, ECE (Naeini et al. 2015, doi
    10.1609/aaai.v29i1.9602). Where objects are rare nearly all pixels lie in the first step and decide it: look at
    `reliability` as well.

    Raises:
        DataError: If ``steps`` is not 1 .. 100.
    """
    diagram = reliability(counted, steps=steps)
    distances = np.nan_to_num(np.abs(diagram.predicted - diagram.observed))
    return _ratio(float((diagram.pixels * distances).sum()), counted.total)


def _ratio(numerator: float, denominator: float) -> float:
    """Return a quotient, NaN for a denominator of 0."""
    return numerator / denominator if denominator else math.nan


def _check_bins(bins: Array) -> None:
    """Refuse hundredths outside 0..100, which would be counted in other bins."""
    outside = (bins < 0) | (bins > BINS - 1)
    if bool(outside.any()):
        msg = (
            f"a probability of {float(bins[outside][0]) / 100:g} cannot be counted; "
            "allowed is 0 .. 1: apply the sigmoid, once, before"
        )
        raise DataError(msg)
