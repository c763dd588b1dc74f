"""Probabilities that mean something: a temperature, and the threshold that suits it, from the validation regions.

A network that learnt from labels is surer of itself than it is right, above all on regions that it has never seen. One
number, the temperature that logits are divided by (Guo et al. 2017, arXiv 1706.04599), takes most of that back and
changes no order: what was more probable stays so. Several validation regions count each for itself, as one alone may be
unlike all others.
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
from thawmap.train.inference import Answer, predict_tiles
from thawmap.train.tiles.store import TileStore

LIMITS = (0.2, 20.0)
"""Between which temperatures are looked for."""

_STEPS = 64  # bins of one unit of logits
_LARGEST = 24  # logits beyond it, of probabilities below a ten-billionth, count as it


@dataclass(frozen=True, slots=True, eq=False)
class Logits:
    """Pixels by logit and label, from which probabilities at any temperature follow; they add.

    Attributes:
        negative: Pixels labelled as not an object, int64, by logit in steps of 1/64 from -24 to 24.
        positive: Pixels labelled as object, likewise.
    """

    negative: npt.NDArray[np.int64]
    positive: npt.NDArray[np.int64]

    @classmethod
    def of(cls, answer: Answer, chosen: npt.NDArray[np.bool_]) -> Self:
        """Count the labelled and usable pixels of the chosen tiles of an answer."""
        tiles = torch.from_numpy(chosen).to(answer.logits.device)
        target, valid = answer.batch.target[tiles], answer.batch.valid[tiles]
        counted = usable(target, valid)
        bins = ((answer.logits[tiles][counted].clamp(-_LARGEST, _LARGEST) + _LARGEST) * _STEPS).round().long()
        number = len(_values())
        sums = (bins + number * target[counted].long()).bincount(minlength=2 * number).cpu().numpy()
        return cls(sums[:number], sums[number:])

    def __add__(self, other: "Logits") -> "Logits":
        """The counts of both together."""
        return Logits(self.negative + other.negative, self.positive + other.positive)

    def loss(self, temperature: float) -> float:
        """Mean cross-entropy at a temperature; NaN without a pixel."""
        values = _values() / temperature
        wrong = self.negative @ np.logaddexp(0, values) + self.positive @ np.logaddexp(0, -values)
        total = int(self.negative.sum() + self.positive.sum())
        return float(wrong) / total if total else math.nan

    def histogram(self, temperature: float) -> Histogram:
        """Pixels by probability at a temperature; exact but for steps of logits."""
        hundredths = np.rint(100 / (1 + np.exp(-_values() / temperature))).astype(np.int64)
        negative, positive = (
            np.bincount(hundredths, weights=part, minlength=BINS).astype(np.int64)
            for part in (self.negative, self.positive)
        )
        return Histogram(negative, positive)


def calibrated(
    bundle: Bundle, store: TileStore, tiles: pd.DataFrame, *, device: torch.device, batch_size: int
) -> Bundle:
    """Give a bundle its temperature, and the threshold that suits it, by tiles that it was not trained on.

    The temperature is that of the least cross-entropy, the threshold in the middle of the plateau of IoU; both of the
    mean over the tiles' regions. A bundle is given back as it is where no object is labelled.

    Args:
        bundle: The bundle, not calibrated yet.
        store: The tile store.
        tiles: Rows of its index: the validation tiles.
        device: Where the network runs; it is moved there.
        batch_size: Tiles at a time.
    """
    counted = list(logits_by_region(bundle, store, tiles, device=device, batch_size=batch_size).values())
    if not any(one.positive.any() for one in counted):
        return bundle
    temperature = best_temperature(counted)
    histograms = [one.histogram(temperature) for one in counted]
    threshold = plateau_threshold(histograms)
    reached = mean_scores([scores(one.counts(threshold)) for one in histograms if one.positive.any()], ["iou"])["iou"]
    measured = {"validation_iou_at_threshold": reached}
    return replace(
        bundle,
        temperature=temperature,
        thresholds={**bundle.thresholds, "validation": threshold},
        metrics={**bundle.metrics, **measured},
    )


def best_temperature(regions: Sequence[Logits]) -> float:
    """The temperature, to three digits, of the least mean over regions of their mean cross-entropy."""
    counted = [one for one in regions if one.negative.any() or one.positive.any()]

    def loss(exponent: float) -> float:
        return math.fsum(one.loss(math.exp(exponent)) for one in counted)

    found = minimize_scalar(loss, bounds=tuple(map(math.log, LIMITS)), method="bounded", options={"xatol": 1e-4})
    return float(f"{math.exp(found.x):.3g}")


def logits_by_region(
    bundle: Bundle, store: TileStore, tiles: pd.DataFrame, *, device: torch.device, batch_size: int
) -> Mapping[str, Logits]:
    """Count logits of the tiles by region; those without one are a region of their own."""
    counted: dict[str, Logits] = {}
    for answer in predict_tiles(bundle, store, tiles, device=device, batch_size=batch_size):
        regions = answer.rows["region"].fillna("").to_numpy(dtype=str)
        for region in np.unique(regions):
            part = Logits.of(answer, regions == region)
            counted[region] = counted[region] + part if region in counted else part
    return counted


def _values() -> npt.NDArray[np.float64]:
    """The logit of each bin."""
    return np.arange(2 * _LARGEST * _STEPS + 1) / _STEPS - _LARGEST
