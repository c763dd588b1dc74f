"""How far a training is, kept after every epoch, so that one that was killed goes on as if nothing had happened.

    <out>/unfinished.txt       stands there until the training has ended; locked as long as it runs
    <out>/state.safetensors    network, average, optimiser and best network, and as JSON in its header the rest

An epoch's randomness follows from the seed and its number alone, and the learning rate from the log, so neither needs
to be kept. The state is the last that an epoch writes: a training that was killed while it wrote bundles and log
trains that epoch again, and writes them again, the same.
"""

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from thawmap.config import Config, Phase
from thawmap.errors import ConfigError, TrainingError
from thawmap.files.atomic import atomic
from thawmap.files.guard import some_of
from thawmap.files.hashes import sha256
from thawmap.files.lock import hold
from thawmap.model.bundle_folder import files_of, remove
from thawmap.provenance import differences
from thawmap.train.learner import Learner, below
from thawmap.train.log import Result, Row, judge
from thawmap.train.schedule import epochs_since_best
from thawmap.train.split import Split

UNFINISHED = "unfinished.txt"  # stands in a bundle's folder until its training has ended
DECIDING = ("layers", "labels", "tiles", "model", "augment", "training", "split")
"""Sections of the configuration that decide what a training gives."""

_UNFINISHED_TEXT = "This folder's training has not ended; its bundle is the best of the epochs so far.\n"
_STATE = "state.safetensors"
_LOG = "metrics.csv"


@dataclass(slots=True)
class Best:
    """The best network so far; a later one is better among equals, and always where nothing can be scored."""

    score: float = -math.inf
    state: dict[str, Tensor] | None = None

    def improves(self, network: nn.Module, score: float) -> bool:
        """Whether ``score`` is at least the best; then the network's numbers are kept."""
        known = -math.inf if math.isnan(score) else score
        if known < self.score:
            return False
        self.score = known
        self.state = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
        return True


@dataclass(slots=True, kw_only=True)
class Course:
    """What a training has done.

    Attributes:
        phase: Number of the running phase, from 0.
        epoch: Epochs of it that are over.
        chosen: Positions of its tiles among the training tiles.
        history: How good its epochs were.
        log: Rows of metrics.csv.
        best: The best network so far.
    """

    phase: int = 0
    epoch: int = 0
    chosen: list[int] = field(default_factory=list)
    history: list[float] = field(default_factory=list)
    log: list[Row] = field(default_factory=list)
    best: Best = field(default_factory=Best)

    @property
    def epochs(self) -> int:
        """Epochs of all phases that are over."""
        return sum(row["split"] == "train" for row in self.log)

    @property
    def is_first(self) -> bool:
        """Whether one epoch is over."""
        return self.epochs == 1

    def is_over(self, phase: Phase, stop_after: int | None) -> bool:
        """Whether the running phase has had its epochs, or no longer gets better."""
        return self.epoch >= phase.epochs or (stop_after is not None and epochs_since_best(self.history) >= stop_after)

    def next_phase(self) -> None:
        """The running phase is over."""
        self.phase, self.epoch, self.chosen, self.history = self.phase + 1, 0, [], []

    def note(self, phase: Phase, results: Sequence[Result], network: nn.Module) -> bool:
        """One more epoch is over; whether its network is the best."""
        self.epoch += 1
        self.history.append(judge(results))
        self.log += [{"phase": phase.name, "epoch": self.epoch, **result.row()} for result in results]
        scores = [result.score for result in results if result.split == "validation"]
        return self.best.improves(network, scores[0] if scores else math.nan)


def made_from(config: Config, split: Split, tiles: str) -> dict[str, Any]:
    """All that decides what a training gives, as JSON values; ``tiles`` is the identity of the store."""
    resolved = config.as_json()
    parts = {name: _identify(part) for name, part in split.parts()}
    return {name: resolved[name] for name in DECIDING} | {"tile store": tiles, "folds": parts}


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """The folder of a result, for one training at a time; it is finished when the block ends well.

    Raises:
        TrainingError: If another training runs in it, or it cannot be written.
        ConfigError: If it holds files of somebody's that would be replaced.
    """
    check_free(out)
    mark = out / UNFINISHED
    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(mark, wait=False, remove=False))
            mark.write_text(_UNFINISHED_TEXT, encoding="utf-8")
        except BlockingIOError as error:
            msg = f"another training runs in {out}; wait for its end, or name another --out"
            raise TrainingError(msg) from error
        except OSError as error:
            msg = f"{out} cannot be written ({error.strerror}); choose another place or free some room"
            raise TrainingError(msg) from error
        _sweep(out, f".{_STATE}.*.tmp", f".{_LOG}.*.tmp")
        yield
        mark.unlink()
        forget(out)
        _sweep(out, ".bundle.*.tmp")


def _sweep(out: Path, *patterns: str) -> None:
    """Remove what a training that was killed left; a bundle's old files stay until there is a whole new one."""
    for leftover in (path for pattern in patterns for folder in (out, out / "last") for path in folder.glob(pattern)):
        shutil.rmtree(leftover, ignore_errors=True)


def check_free(out: Path) -> None:
    """Refuse a folder with files that a training would replace, where none has been.

    Raises:
        ConfigError: If there is one.
    """
    begun = (out / UNFINISHED).exists() or (out / "bundle.json").exists()
    there = [*files_of(out), *(name for name in (_LOG, _STATE) if os.path.lexists(out / name))]
    if there and not begun:
        msg = f"{out} holds {some_of(there)}, and no training has been there; name another --out, or move it away"
        raise ConfigError(msg)


def discard(out: Path) -> None:
    """Remove all that a training left in ``out`` but its log; what else lies there is not its."""
    for folder in (out / "last", out):
        remove(folder)
    for path in (out / "tensorboard").glob("events.out.tfevents.*"):
        path.unlink()
    with suppress(OSError):
        (out / "tensorboard").rmdir()
    (out / UNFINISHED).unlink(missing_ok=True)
    forget(out)
    _sweep(out, f".{_STATE}.*.tmp", f".{_LOG}.*.tmp", ".bundle.*.tmp")


def forget(out: Path) -> None:
    """Nothing is known any more of how far a training in ``out`` was."""
    (out / _STATE).unlink(missing_ok=True)


def keep(out: Path, learner: Learner, course: Course, made: Mapping[str, Any]) -> None:
    """Write the state, whole or not at all.

    Raises:
        TrainingError: If it cannot be written; the one before stays.
        DataError: If it cannot be written; the one before stays.
    """
    best = course.best.state or {}
    tensors = learner.tensors() | {f"best.{name}": value.contiguous() for name, value in best.items()}
    known = {name: getattr(course, name) for name in ("phase", "epoch", "chosen", "history", "log")}
    content = {"made_from": made, "course": known, "best": course.best.score}
    with atomic(out / _STATE) as draft:
        try:
            save_file(tensors, draft, {"thawmap": json.dumps(content)})
        except SafetensorError as error:
            msg = f"{out / _STATE} cannot be written ({error}); free some room, and go on with --resume"
            raise TrainingError(msg) from error


def progress(out: Path) -> str:
    """How far an unfinished training in ``out`` is; "" where none is known."""
    if not (out / _STATE).exists():
        return ""
    content, course = _read(out)
    return f"epoch {course.epoch} of phase {content['made_from']['training']['phases'][course.phase]['name']}"


def resume(out: Path, learner: Learner, made: Mapping[str, Any]) -> Course:
    """What a training in ``out`` has done, the learner as it was then.

    Raises:
        ConfigError: If it was made from something else.
        TrainingError: If the state is damaged.
    """
    content, course = _read(out)
    other = differences(content["made_from"], made)
    if other:
        msg = (
            f"{out} holds an unfinished training with other {' and '.join(other)}; set it back to go on, "
            "or begin again without --resume"
        )
        raise ConfigError(msg)
    try:
        tensors = load_file(out / _STATE)
        learner.begin(learner.config.training.phases[course.phase])
        learner.restore(tensors)
    except (OSError, SafetensorError, KeyError, IndexError, RuntimeError, ValueError) as error:
        raise _damaged(out) from error
    course.best.state = below("best.", tensors) or None
    return course


def _read(out: Path) -> tuple[dict[str, Any], Course]:
    try:
        with safe_open(out / _STATE, "pt") as file:
            content: dict[str, Any] = json.loads(file.metadata()["thawmap"])
        return content, Course(**content["course"], best=Best(score=content["best"]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(out) from error


def _damaged(out: Path) -> TrainingError:
    return TrainingError(f"{out / _STATE} is damaged, so nobody can go on from it; begin again without --resume")


def _identify(tiles: pd.DataFrame) -> str:
    rows = tiles[["scene", "number"]].to_csv(index=False)
    return sha256(rows, digits=12)
