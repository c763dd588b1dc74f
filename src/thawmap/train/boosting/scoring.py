"""Scores of growing trees: on the parts of the split, and on the pixels they grew on."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from thawmap.config import Config
from thawmap.model.forest import Tree, sum_of_leaves
from thawmap.model.losses import bce
from thawmap.model.metrics.pixels import Counts
from thawmap.model.reading import Reading
from thawmap.train.boosting.samples import Samples, tree_input
from thawmap.train.log import EpochCounts, EpochResult, best_threshold_of
from thawmap.train.split import GROUP
from thawmap.train.tiles.store import Batch, TileStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """Tiles of a store as trees see them, and scores on parts of its split.

    Attributes:
        store: The tiles.
        config: All settings.
        parts: Rows of the index that are scored, by name; validation is the first.
    """

    store: TileStore
    config: Config
    parts: Mapping[str, pd.DataFrame]

    def batches(self, tiles: pd.DataFrame) -> Iterator[tuple[npt.NDArray[np.int16], Batch]]:
        """Yield each batch of tiles, and before it what trees see of it, (N, C, H, W)."""
        size = self.config.training.batch_size
        rows = [tiles.iloc[first : first + size] for first in range(0, len(tiles), size)]
        reading = Reading(layers=self.config.input_layers, fill=self.config.model.fill)
        for encoded in self.store.stream(rows):
            batch = self.store.to_device(encoded, torch.device("cpu"))
            yield tree_input(batch, self.store, reading), batch

    def logits(self, trees: Sequence[Tree], codes: npt.NDArray[np.int16], *, base: float = 0.0) -> Tensor:
        """Return the sums of trees' leaves (N, H, W) float32 for a batch, added to a base."""
        number, layers, height, width = codes.shape
        sums = [sum_of_leaves(trees, image.reshape(layers, -1)) for image in codes]
        return torch.from_numpy(np.stack(sums)).view(number, height, width) + base

    def evaluate(
        self, before: Sequence[Tree], grown: Sequence[Tree], ends: Sequence[int], *, base: float
    ) -> list[list[EpochResult]]:
        """Return for each number of grown trees the results of all parts, in order.

        Args:
            before: Trees before those.
            grown: Trees of which the first so many count.
            ends: These numbers, ascending.
            base: What the leaves are added to.
        """
        results: list[list[EpochResult]] = [[] for _ in ends]
        for name, tiles in self.parts.items():
            begin = time.perf_counter()
            with ExitStack() as stack:
                own = tiles[GROUP] if GROUP in tiles else tiles["scene"].map(lambda _: "")  # the test part has none
                groups = sorted(own.unique())
                counts = [stack.enter_context(EpochCounts(groups)) for _ in ends]
                for number, (codes, batch) in enumerate(self.batches(tiles)):
                    first_row = number * self.config.training.batch_size
                    shown = own.iloc[first_row : first_row + len(codes)].tolist()
                    answer = self.logits(before, codes, base=base)
                    for first, end, counted in zip([0, *ends], ends, counts, strict=False):
                        answer = answer + self.logits(grown[first:end], codes)
                        loss = bce(answer, batch.target, batch.valid, positive_weight=1.0)
                        counted.add(loss, answer, batch, shown)
                scored = [counted.result(name, name, sum_processes=lambda sums: sums) for counted in counts]
            seconds = (time.perf_counter() - begin) / len(ends)
            for earlier, result in zip(results, scored, strict=True):
                threshold = next((other.threshold for other in earlier), None)
                chosen = best_threshold_of(result) if threshold is None else threshold
                earlier.append(replace(result, threshold=chosen, seconds=seconds))
        return results


def sample_result(samples: Samples, logits: npt.NDArray[np.float32], *, lr: float, seconds: float) -> EpochResult:
    """Return loss and counts of the pixels that trees grew on, which form no objects."""
    predicted, target = logits > 0, samples.target
    costs = samples.weight * np.logaddexp(0, np.where(target, -logits, logits))
    outcomes = (predicted & target, predicted & ~target, ~predicted & target, ~predicted & ~target)
    counts = Counts(*(int(outcome.sum()) for outcome in outcomes))
    return EpochResult(split="train", loss=float(costs.mean()), counts=counts, objects=Counts(), lr=lr, seconds=seconds)
