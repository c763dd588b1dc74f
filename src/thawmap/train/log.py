"""Results of epochs: counts, rows of metrics.csv, and TensorBoard curves."""

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from thawmap.errors import TrainingError
from thawmap.files.atomic import write_text
from thawmap.model.losses import usable
from thawmap.model.metrics.objects import object_counts
from thawmap.model.metrics.pixels import BINS, Counts, Histogram, histogram, mean_scores, plateau_threshold, scores
from thawmap.train.tiles.store import Batch

_AHEAD = 8  # batches whose objects may wait to be counted

Row = dict[str, Any]
"""A row of metrics.csv by column: phase, epoch, split, and numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """Loss and counts of one epoch on its training, validation or test tiles.

    Attributes:
        split: "train", "validation" or "test".
        loss: Mean over the pixels that count; 0 where none does.
        counts: Pixels by prediction and label at 0.5.
        objects: Objects by prediction and label at 0.5, matched by an IoU of at least 0.5.
        histograms: Pixels by probability and label, by group of tiles (`thawmap.train.split.GROUP`); None in training.
        threshold: The threshold that the epoch's validation chooses; NaN where there is none.
        lr: Learning rate of the last step.
        seconds: Time of the pass over the tiles.
    """

    split: str
    loss: float
    counts: Counts
    objects: Counts
    histograms: Mapping[str, Histogram] | None = None
    threshold: float = math.nan
    lr: float = math.nan
    seconds: float = math.nan

    @property
    def score(self) -> float:
        """The groups' mean IoU at the chosen threshold; NaN in training or without one.

        Groups without a labelled object are left out, unless all are.
        """
        if self.histograms is None or math.isnan(self.threshold):
            return math.nan
        labelled = [pixels for pixels in self.histograms.values() if pixels.positive.any()]
        counted = labelled or [sum(self.histograms.values(), Histogram.empty())]
        return mean_scores([scores(pixels.counts(self.threshold)) for pixels in counted], ["iou"])["iou"]

    def row(self) -> Row:
        """Return a dict of metrics.csv's columns but phase and epoch; NaN if undefined."""
        return {
            "split": self.split,
            "loss": self.loss,
            **scores(self.counts),
            "object_f1": scores(self.objects)["f1"],
            "threshold": self.threshold,
            "iou_at_threshold": self.score,
            **{name: getattr(self.counts, name) for name in ("tp", "fp", "fn", "tn")},
            "lr": self.lr,
            "seconds": self.seconds,
        }


def selection_score(results: Sequence[EpochResult]) -> float:
    """Return an epoch's validation IoU, or minus its training loss if it has none.

    Epochs are compared by it; more is better. The IoU is that at the threshold which the epoch chose.
    """
    score = validation_result(results).score
    return -results[0].loss if math.isnan(score) else score


def describe_epoch(results: Sequence[EpochResult]) -> str:
    """Return an epoch's losses and, if defined, validation IoU as a phrase for people."""
    losses = ", ".join(f"{result.split} loss {result.loss:.4g}" for result in results)
    last = validation_result(results)
    return losses if math.isnan(last.score) else f"{losses}, validation IoU {last.score:.3f} at {last.threshold:.2f}"


def validation_result(results: Sequence[EpochResult]) -> EpochResult:
    """Return an epoch's result on validation tiles; without one, on training tiles."""
    return next((result for result in results if result.split == "validation"), results[0])


class EpochCounts:
    """Losses, pixel counts and object counts of a running epoch, added up by batch.

    They stay on the device until its end, so that it never waits for the CPU; objects are counted by a thread.

    Args:
        groups: Names of the groups of tiles whose pixels are counted by probability too; none: no pixels are.
    """

    def __init__(self, groups: Sequence[str] = ()) -> None:
        self._losses: list[Tensor] = []
        self._counts: list[Tensor] = []
        self._objects = Counts()
        self._histograms = {group: Histogram.empty() for group in groups}
        self._pending: deque[Future[Counts]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="objects")

    def __enter__(self) -> Self:
        """Return this object, to be used in the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread that counts objects; what it has not begun stays uncounted."""
        self._thread.shutdown(cancel_futures=True)

    def add(self, loss: Tensor, logits: Tensor, batch: Batch, groups: Sequence[str] = ()) -> None:
        """Add a batch's loss, and its counts of pixels and objects at probability 0.5.

        That is a logit of 0. With the group of each of its tiles, its pixels are counted by probability too.
        """
        predicted, labelled = logits > 0, batch.target == 1
        outcomes = (predicted & labelled, predicted & ~labelled, ~predicted & labelled, ~predicted & ~labelled)
        counted = usable(batch.target, batch.valid)
        self._losses.append(loss)
        self._counts.append(torch.stack([(outcome & counted).sum() for outcome in outcomes]))
        self._pending.append(self._thread.submit(_count_objects, predicted, batch.target, batch.valid))
        if len(self._pending) > _AHEAD:
            self._objects += self._pending.popleft().result()
        for group in dict.fromkeys(groups):
            tiles = torch.tensor([name == group for name in groups], device=logits.device)
            pixels = histogram(torch.sigmoid(logits[tiles]), batch.target[tiles], batch.valid[tiles])
            self._histograms[group] += pixels

    def result(self, split: str, epoch: str, *, sum_processes: Callable[[Tensor], Tensor]) -> EpochResult:
        """Return mean loss and counts over all processes; refuse a NaN or infinite loss.

        Args:
            split: "train", "validation" or "test".
            epoch: Name of the epoch in messages.
            sum_processes: Returns the sum of a tensor over all processes that train.

        Raises:
            TrainingError: If a loss is not finite.
        """
        losses = torch.stack(self._losses).double().cpu() if self._losses else torch.zeros(0)
        counts = torch.stack(self._counts).cpu() if self._counts else torch.zeros((0, 4), dtype=torch.int64)
        _check_finite(losses, epoch)
        objects = sum((future.result() for future in self._pending), self._objects)
        self._pending.clear()
        by_probability = [count for pixels in self._histograms.values() for count in (pixels.negative, pixels.positive)]
        # One tensor of all sums, so that processes need to speak once; a batch's loss is a mean over its pixels.
        loss = (losses * counts.sum(1)).sum().view(1)
        numbers = [
            *counts.sum(0).tolist(),
            objects.tp,
            objects.fp,
            objects.fn,
            *np.concatenate([np.empty(0, np.int64), *by_probability]),
        ]
        sums = sum_processes(torch.cat([loss, torch.tensor(numbers, dtype=torch.float64)]))
        summed = [round(number) for number in sums[1:].tolist()]
        pairs = np.array(summed[7:], np.int64).reshape(-1, 2, BINS)
        histograms = {group: Histogram(*pair) for group, pair in zip(self._histograms, pairs, strict=True)}
        return EpochResult(
            split=split,
            loss=sums[0].item() / max(sum(summed[:4]), 1),
            counts=Counts(*summed[:4]),
            objects=Counts(*summed[4:7]),
            histograms=histograms or None,
        )


def _check_finite(losses: Tensor, epoch: str) -> None:
    broken = torch.nonzero(~torch.isfinite(losses)).flatten().tolist()
    if broken:
        msg = (
            f"the loss is {losses[broken[0]]:g} in {epoch}, batch {broken[0] + 1} of {len(losses)}; lower "
            f"the learning rate, or look for values far outside of the layers' ranges"
        )
        raise TrainingError(msg)


def _count_objects(predicted: Tensor, target: Tensor, valid: Tensor) -> Counts:
    return object_counts(predicted.cpu().numpy(), target.cpu().numpy(), valid.cpu().numpy())


def best_threshold_of(result: EpochResult) -> float:
    """Return the threshold of a result's best IoU; NaN without objects or histograms.

    It is in the middle of the plateau of the groups' mean IoU.
    """
    return math.nan if result.histograms is None else plateau_threshold(list(result.histograms.values()))


def write_log(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows as a CSV file, metrics.csv, replacing the one before."""
    write_text(path, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))


@contextmanager
def tensorboard_curves(folder: Path) -> Iterator[Callable[[int, Sequence[EpochResult]], None]]:
    """Yield a function that writes an epoch's results for TensorBoard, if installed.

    It takes the epoch's number and results, and does nothing where TensorBoard is not installed. Curves that an earlier
    run wrote from the first epoch on are taken back.
    """
    if find_spec("tensorboard") is None:
        yield lambda _number, _results: None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that it brings
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
    with ExitStack() as stack:
        writers: list[Any] = []

        def draw(number: int, results: Sequence[EpochResult]) -> None:
            if not writers:
                writers.append(stack.enter_context(SummaryWriter(str(folder), purge_step=number)))
            for result in results:
                for name, value in result.row().items():
                    if isinstance(value, float) and math.isfinite(value):
                        writers[0].add_scalar(f"{result.split}/{name}", value, number)
            writers[0].flush()

        yield draw
