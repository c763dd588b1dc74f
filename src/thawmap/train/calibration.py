"""Calibration of a bundle: its temperature and threshold, by validation.

A network that learnt from labels is surer of itself than it is right, above all on regions that it has never seen. One
number, the temperature that logits are divided by (Guo et al. 2017, arXiv 1706.04599), takes most of that back and
changes no order: what was more probable stays so. Several validation regions, or inner folds, count each for itself, as
one alone may be unlike all others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.optimize import minimize_scalar

from thawmap.model.bundle import Bundle
from thawmap.model.losses import usable
from thawmap.model.metrics.pixels import BINS, Histogram, mean_scores, plateau_threshold, scores
from thawmap.train.inference import Prediction, predict_tiles
from thawmap.train.split import GROUP
from thawmap.train.tiles.store import TileStore

LIMITS = (0.2, 20.0)
"""Lowest and highest temperature that calibration may choose."""

_STEPS = 64  # bins in one unit of logits
_LARGEST = 24  # larger logits, of probabilities within a ten-billionth of 1, count as this one; smaller likewise


@dataclass(frozen=True, slots=True, eq=False)
class LogitHistogram:
    """Counts of pixels by logit and label, for probabilities at any temperature.

    Attributes:
        negative: Pixels labelled as not an object, int64, by logit in steps of 1/64 from -24 to 24.
        positive: Pixels labelled as object, likewise.
    """

    negative: npt.NDArray[np.int64]
    positive: npt.NDArray[np.int64]

    @classmethod
    def of(cls, prediction: Prediction, chosen: npt.NDArray[np.bool_]) -> Self:
        """Count usable pixels of a prediction's chosen tiles by logit and label.

        Usable pixels are labelled and valid; ``chosen`` is bool (N,). Logits beyond -24 and 24 count as these.
        """
        tiles = torch.from_numpy(chosen).to(prediction.logits.device)
        target, valid = prediction.batch.target[tiles], prediction.batch.valid[tiles]
        counted = usable(target, valid)
        bins = ((prediction.logits[tiles][counted].clamp(-_LARGEST, _LARGEST) + _LARGEST) * _STEPS).round().long()
        number = len(_bin_logits())
        # A pixel of an object counts in the second half: one pass for both labels.
        sums = (bins + number * target[counted].long()).bincount(minlength=2 * number).cpu().numpy()
        return cls(sums[:number], sums[number:])

    def __add__(self, other: "LogitHistogram") -> "LogitHistogram":
        """Return a histogram with the counts of both added."""
        return LogitHistogram(self.negative + other.negative, self.positive + other.positive)

    def loss(self, temperature: float) -> float:
        """Return the pixels' mean cross-entropy at a temperature; NaN without a pixel."""
        logits = _bin_logits() / temperature
        cross_entropy = self.negative @ np.logaddexp(0, logits) + self.positive @ np.logaddexp(0, -logits)
        total = int(self.negative.sum() + self.positive.sum())
        return float(cross_entropy) / total if total else math.nan

    def histogram(self, temperature: float) -> Histogram:
        """Return counts of pixels by probability in hundredths and label at a temperature.

        They are exact but for the steps of logits.
        """
        hundredths = np.rint(100 / (1 + np.exp(-_bin_logits() / temperature))).astype(np.int64)
        negative, positive = (
            np.bincount(hundredths, weights=pixels, minlength=BINS).astype(np.int64)
            for pixels in (self.negative, self.positive)
        )
        return Histogram(negative, positive)


def calibrate(
    bundle: Bundle, store: TileStore, tiles: pd.DataFrame, *, device: torch.device, batch_size: int
) -> Bundle:
    """Return a copy of a bundle, temperature and threshold chosen on labelled tiles.

    The temperature is that of the least cross-entropy, the threshold in the middle of the plateau of IoU; both of the
    mean over the tiles' groups. Where no object is labelled, the bundle is returned unchanged.

    Args:
        bundle: The bundle, not calibrated yet.
        store: The tile store.
        tiles: Rows of its index: the validation tiles, with the column `GROUP`.
        device: Device of the network, which is moved to it.
        batch_size: Tiles in a batch.
    """
    counted = list(logits_by(GROUP, bundle, store, tiles, device=device, batch_size=batch_size).values())
    if not any(group.positive.any() for group in counted):
        return bundle
    temperature = best_temperature(counted)
    histograms = [group.histogram(temperature) for group in counted]
    threshold = plateau_threshold(histograms)
    by_group = [scores(group.counts(threshold)) for group in histograms if group.positive.any()]
    return replace(
        bundle,
        temperature=temperature,
        thresholds={**bundle.thresholds, "validation": threshold},
        metrics={**bundle.metrics, "validation_iou_at_threshold": mean_scores(by_group, ["iou"])["iou"]},
    )


def best_temperature(regions: Sequence[LogitHistogram]) -> float:
    """Return the temperature of the least cross-entropy, from regions' pixel counts.

    The cross-entropy is the mean over regions of each one's mean; the temperature has three digits.
    """
    counted = [region for region in regions if region.negative.any() or region.positive.any()]

    def loss(exponent: float) -> float:
        return math.fsum(region.loss(math.exp(exponent)) for region in counted)

    minimum = minimize_scalar(loss, bounds=tuple(map(math.log, LIMITS)), method="bounded", options={"xatol": 1e-4})
    return float(f"{math.exp(minimum.x):.3g}")


def logits_by(
    column: str, bundle: Bundle, store: TileStore, tiles: pd.DataFrame, *, device: torch.device, batch_size: int
) -> Mapping[str, LogitHistogram]:
    """Run a bundle over tiles; return pixel counts by logit and label, by a column.

    The column, such as "region", is of the tiles; those without a value are under "".
    """
    counted: dict[str, LogitHistogram] = {}
    for prediction in predict_tiles(bundle, store, tiles, device=device, batch_size=batch_size):
        names = prediction.rows[column].fillna("").to_numpy(dtype=str)
        for name in np.unique(names):
            logits = LogitHistogram.of(prediction, names == name)
            counted[name] = counted[name] + logits if name in counted else logits
    return counted


def _bin_logits() -> npt.NDArray[np.float64]:
    """Return the logits that the histograms' bins stand for, from -24 to 24."""
    return np.arange(2 * _LARGEST * _STEPS + 1) / _STEPS - _LARGEST
