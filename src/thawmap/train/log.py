"""What an epoch did: its counts, its rows in metrics.csv, and TensorBoard's curves where that is installed."""

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
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
from thawmap.model.metrics.pixels import BINS, Counts, Histogram, histogram, plateau_threshold, scores
from thawmap.train.tiles.store import Batch

_AHEAD = 8  # batches whose objects may wait to be counted

Row = dict[str, Any]
"""A row of metrics.csv: phase, epoch, split, and numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an epoch did on one split.

    Attributes:
        split: "train", "validation" or "test".
        loss: Mean over the pixels that count; 0 where none does.
        counts: Pixels by prediction and label at 0.5.
        objects: Objects by prediction and label at 0.5, matched by an IoU of at least 0.5.
        seen: Pixels by probability and label; None in training.
        threshold: The one that the epoch's validation chooses; NaN where there is none.
        lr: Learning rate of the last step.
        seconds: Time that it took.
    """

    split: str
    loss: float
    counts: Counts
    objects: Counts
    seen: Histogram | None = None
    threshold: float = math.nan
    lr: float = math.nan
    seconds: float = math.nan

    @property
    def score(self) -> float:
        """IoU at the threshold; NaN where there is none."""
        if self.seen is None or math.isnan(self.threshold):
            return math.nan
        return scores(self.seen.counts(self.threshold))["iou"]

    def row(self) -> Row:
        """Its columns of metrics.csv; NaN where a score is not defined."""
        chosen = {"threshold": self.threshold, "iou_at_threshold": self.score}
        pixels = {name: getattr(self.counts, name) for name in ("tp", "fp", "fn", "tn")}
        about = {"lr": self.lr, "seconds": self.seconds}
        object_f1 = scores(self.objects)["f1"]
        numbers = scores(self.counts) | {"object_f1": object_f1}
        return {"split": self.split, "loss": self.loss, **numbers, **chosen, **pixels, **about}


def judge(results: Sequence[Result]) -> float:
    """How good an epoch was, more is better: IoU at the best threshold in validation, else less loss."""
    return -results[0].loss if math.isnan(_checked(results).score) else _checked(results).score


def sentence(results: Sequence[Result]) -> str:
    """An epoch in a sentence."""
    losses = ", ".join(f"{one.split} loss {one.loss:.4g}" for one in results)
    last = _checked(results)
    return losses if math.isnan(last.score) else f"{losses}, validation IoU {last.score:.3f} at {last.threshold:.2f}"


def _checked(results: Sequence[Result]) -> Result:
    """The validation, or the training where there is none."""
    return next((one for one in results if one.split == "validation"), results[0])


class Sums:
    """Losses and counts of an epoch, kept on the device until its end, so that it never waits for the CPU.

    Objects are counted beside, by a thread.
    """

    def __init__(self, *, seen: bool = False) -> None:
        self._losses: list[Tensor] = []
        self._counts: list[Tensor] = []
        self._objects = Counts()
        self._seen = Histogram.empty() if seen else None
        self._waiting: deque[Future[Counts]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="objects")

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is counted any more."""
        self._thread.shutdown(cancel_futures=True)

    def add(self, loss: Tensor, answer: Tensor, batch: Batch) -> None:
        """One batch's loss, and its counts at a probability of 0.5, which is a logit of 0."""
        predicted, labelled = answer > 0, batch.target == 1
        kinds = (predicted & labelled, predicted & ~labelled, ~predicted & labelled, ~predicted & ~labelled)
        counted = usable(batch.target, batch.valid)
        self._losses.append(loss)
        self._counts.append(torch.stack([(kind & counted).sum() for kind in kinds]))
        self._waiting.append(self._thread.submit(_count_objects, predicted, batch.target, batch.valid))
        if len(self._waiting) > _AHEAD:
            self._objects += self._waiting.popleft().result()
        if self._seen is not None:
            self._seen += histogram(torch.sigmoid(answer), batch.target, batch.valid)

    def result(self, split: str, where: str, *, together: Callable[[Tensor], Tensor]) -> Result:
        """Mean loss over all pixels that count, and all counts.

        Args:
            split: Name of the tiles.
            where: Stands for the epoch in messages.
            together: The sum of a tensor over all processes that train.

        Raises:
            TrainingError: If a loss is not finite.
        """
        losses = torch.stack(self._losses).double().cpu() if self._losses else torch.zeros(0)
        counts = torch.stack(self._counts).cpu() if self._counts else torch.zeros((0, 4), dtype=torch.int64)
        _check_finite(losses, where)
        objects = sum((one.result() for one in self._waiting), self._objects)
        self._waiting.clear()
        seen = self._seen or Histogram.empty()
        loss = (losses * counts.sum(1)).sum().view(1)
        numbers = [*counts.sum(0).tolist(), objects.tp, objects.fp, objects.fn, *seen.negative, *seen.positive]
        whole = together(torch.cat([loss, torch.tensor(numbers, dtype=torch.float64)]))
        summed = [round(number) for number in whole[1:].tolist()]
        return Result(
            split=split,
            loss=whole[0].item() / max(sum(summed[:4]), 1),
            counts=Counts(*summed[:4]),
            objects=Counts(*summed[4:7]),
            seen=None if self._seen is None else Histogram(*np.array(summed[7:], np.int64).reshape(2, BINS)),
        )


def _check_finite(losses: Tensor, where: str) -> None:
    broken = torch.nonzero(~torch.isfinite(losses)).flatten().tolist()
    if broken:
        msg = (
            f"the loss is {losses[broken[0]]:g} in {where}, batch {broken[0] + 1} of {len(losses)}; lower "
            f"the learning rate, or look for values far outside of the layers' ranges"
        )
        raise TrainingError(msg)


def _count_objects(predicted: Tensor, target: Tensor, valid: Tensor) -> Counts:
    return object_counts(predicted.cpu().numpy(), target.cpu().numpy(), valid.cpu().numpy())


def threshold_of(result: Result) -> float:
    """The threshold in the middle of the plateau of IoU; NaN where no object is labelled."""
    return math.nan if result.seen is None else plateau_threshold([result.seen])


def write_log(path: Path, rows: Sequence[Row]) -> None:
    """metrics.csv, as a whole."""
    write_text(path, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))


@contextmanager
def curves(folder: Path) -> Iterator[Callable[[int, Sequence[Result]], None]]:
    """What draws the results of an epoch, by its number, in TensorBoard; nothing where that is not installed.

    What was drawn of the first and later epochs before is taken back.
    """
    if find_spec("tensorboard") is None:
        yield lambda _number, _results: None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that it brings
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
    with ExitStack() as stack:
        writers: list[Any] = []

        def draw(number: int, results: Sequence[Result]) -> None:
            if not writers:
                writers.append(stack.enter_context(SummaryWriter(str(folder), purge_step=number)))
            for result in results:
                for name, value in result.row().items():
                    if isinstance(value, float) and math.isfinite(value):
                        writers[0].add_scalar(f"{result.split}/{name}", value, number)
            writers[0].flush()

        yield draw
