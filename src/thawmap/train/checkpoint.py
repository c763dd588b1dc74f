"""Checkpoints: the state of an unfinished training, written after every epoch.

A training that was killed goes on from there as if nothing had happened.

    <out>/unfinished.txt       stands there until the training has ended; locked as long as it runs
    <out>/state.safetensors    network, average, optimiser and best network, and as JSON in its header the rest

An epoch's randomness follows from the seed and its number alone, and the learning rate from the log, so neither needs
to be kept. The checkpoint is the last that an epoch writes: a training that was killed while it wrote bundles and log
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
from thawmap.train.learner import Learner, without_prefix
from thawmap.train.log import EpochResult, Row, selection_score
from thawmap.train.schedule import epochs_since_best
from thawmap.train.split import Split

UNFINISHED = "unfinished.txt"
"""File that stands in a bundle's folder until its training has ended."""

DECIDING = ("layers", "labels", "tiles", "model", "augment", "training", "split")
"""Sections of the configuration that a training's result depends on."""

_UNFINISHED_TEXT = "This folder's training has not ended; its bundle is the best of the epochs so far.\n"
_CHECKPOINT = "state.safetensors"
_LOG = "metrics.csv"


@dataclass(slots=True)
class BestNetwork:
    """The weights of the best network so far, and its score.

    A later network is better among equals, and always where nothing can be scored.
    """

    score: float = -math.inf
    weights: dict[str, Tensor] | None = None

    def update(self, network: nn.Module, score: float) -> bool:
        """Keep a copy of a network's weights if its score is no lower; return True if so.

        A score of NaN counts as the lowest.
        """
        if math.isnan(score):
            score = -math.inf
        if score < self.score:
            return False
        self.score = score
        self.weights = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
        return True


@dataclass(slots=True, kw_only=True)
class TrainingProgress:
    """The progress of a training: finished epochs, their log, and best network.

    Attributes:
        phase: Number of the running phase, from 0.
        epoch: Finished epochs of it.
        chosen: Positions of its tiles among the training tiles.
        history: Scores of its finished epochs.
        log: Rows of metrics.csv.
        best: The best network so far.
    """

    phase: int = 0
    epoch: int = 0
    chosen: list[int] = field(default_factory=list)
    history: list[float] = field(default_factory=list)
    log: list[Row] = field(default_factory=list)
    best: BestNetwork = field(default_factory=BestNetwork)

    @property
    def epochs(self) -> int:
        """The number of finished epochs of all phases."""
        return sum(row["split"] == "train" for row in self.log)

    @property
    def is_first(self) -> bool:
        """True if exactly one epoch is finished."""
        return self.epochs == 1

    def is_phase_finished(self, phase: Phase, stop_after: int | None) -> bool:
        """Return True if a phase has had its epochs, or ``stop_after`` since the best."""
        return self.epoch >= phase.epochs or (stop_after is not None and epochs_since_best(self.history) >= stop_after)

    def next_phase(self) -> None:
        """Move on to the next phase; clear finished epochs, chosen tiles and scores."""
        self.phase, self.epoch, self.chosen, self.history = self.phase + 1, 0, [], []

    def add_epoch(self, phase: Phase, results: Sequence[EpochResult], network: nn.Module) -> bool:
        """Log a finished epoch; if its network is the best so far, keep it, return True."""
        self.epoch += 1
        self.history.append(selection_score(results))
        self.log += [{"phase": phase.name, "epoch": self.epoch, **result.row()} for result in results]
        scores = [result.score for result in results if result.split == "validation"]
        return self.best.update(network, scores[0] if scores else math.nan)


def training_inputs(config: Config, split: Split, store: str) -> dict[str, Any]:
    """Return all that decides a training as a dict: settings, store, hashes of tiles.

    Its values are JSON; the hashes are of the tiles of each part of the split. ``store`` is the identity of the tile
    store.
    """
    resolved = config.as_json()
    rows = {name: tiles[["scene", "number"]].to_csv(index=False) for name, tiles in split.parts()}
    hashes = {name: sha256(text, digits=12) for name, text in rows.items()}
    return {name: resolved[name] for name in DECIDING} | {"tile store": store, "folds": hashes}


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Lock and mark a folder for one training; clean up if the block succeeds.

    At its end mark, checkpoint and drafts are removed; if it fails they stay, to be resumed.

    Raises:
        TrainingError: If another training runs in it, or it cannot be written.
        ConfigError: If it holds files that are of no training and would be replaced.
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
        _sweep(out, f".{_CHECKPOINT}.*.tmp", f".{_LOG}.*.tmp")
        yield
        mark.unlink()
        forget(out)
        _sweep(out, ".bundle.*.tmp")  # the old bundle, which stayed until there was a whole new one


def _sweep(out: Path, *patterns: str) -> None:
    """Remove draft folders of some patterns from a folder and its ``last``.

    They are drafts of a killed training.
    """
    for draft in (path for pattern in patterns for folder in (out, out / "last") for path in folder.glob(pattern)):
        shutil.rmtree(draft, ignore_errors=True)


def check_free(out: Path) -> None:
    """Refuse a folder with files that a training would replace but none has written.

    Raises:
        ConfigError: If there is one.
    """
    begun = (out / UNFINISHED).exists() or (out / "bundle.json").exists()
    names = [*files_of(out), *(name for name in (_LOG, _CHECKPOINT) if os.path.lexists(out / name))]
    if names and not begun:
        msg = f"{out} holds {some_of(names)}, and no training has been there; name another --out, or move it away"
        raise ConfigError(msg)


def discard(out: Path) -> None:
    """Remove all files of a training from its folder but its log; other files stay."""
    for folder in (out / "last", out):
        remove(folder)
    for path in (out / "tensorboard").glob("events.out.tfevents.*"):
        path.unlink()
    with suppress(OSError):
        (out / "tensorboard").rmdir()
    (out / UNFINISHED).unlink(missing_ok=True)
    forget(out)
    _sweep(out, f".{_CHECKPOINT}.*.tmp", f".{_LOG}.*.tmp", ".bundle.*.tmp")


def forget(out: Path) -> None:
    """Remove the checkpoint file from a training's folder, if there is one."""
    (out / _CHECKPOINT).unlink(missing_ok=True)


def save_checkpoint(out: Path, learner: Learner, progress: TrainingProgress, inputs: Mapping[str, Any]) -> None:
    """Write a training's tensors, progress and inputs as its checkpoint file.

    It is written whole or not at all.

    Args:
        out: Folder of the training's result.
        learner: Its network, average and optimiser.
        progress: Its progress.
        inputs: All that its result depends on, as JSON values.

    Raises:
        TrainingError: If it cannot be written; the one before stays.
        DataError: If it cannot be written; the one before stays.
    """
    best = progress.best.weights or {}
    tensors = learner.tensors() | {f"best.{name}": value.contiguous() for name, value in best.items()}
    numbers = {name: getattr(progress, name) for name in ("phase", "epoch", "chosen", "history", "log")}
    content = {"made_from": inputs, "course": numbers, "best": progress.best.score}
    with atomic(out / _CHECKPOINT) as draft:
        try:
            save_file(tensors, draft, {"thawmap": json.dumps(content)})
        except SafetensorError as error:
            msg = f"{out / _CHECKPOINT} cannot be written ({error}); free some room, and go on with --resume"
            raise TrainingError(msg) from error


def describe_checkpoint(out: Path) -> str:
    """Return a folder's checkpoint, its epoch and phase, as a phrase; "" without one."""
    if not (out / _CHECKPOINT).exists():
        return ""
    content, progress = _read(out)
    phases = content["made_from"]["training"]["phases"]
    return f"epoch {progress.epoch} of phase {phases[progress.phase]['name']}"


def load_checkpoint(out: Path, learner: Learner, inputs: Mapping[str, Any]) -> TrainingProgress:
    """Restore a learner from a checkpoint, return its progress; refuse other inputs.

    Raises:
        ConfigError: If the interrupted training had other inputs.
        TrainingError: If the checkpoint is damaged.
    """
    content, progress = _read(out)
    other = differences(content["made_from"], inputs)
    if other:
        msg = (
            f"{out} holds an unfinished training with other {' and '.join(other)}; set it back to go on, "
            "or begin again without --resume"
        )
        raise ConfigError(msg)
    try:
        tensors = load_file(out / _CHECKPOINT)
        learner.begin_phase(learner.config.training.phases[progress.phase])
        learner.restore(tensors)
    except (OSError, SafetensorError, KeyError, IndexError, RuntimeError, ValueError) as error:
        raise _damaged(out) from error
    progress.best.weights = without_prefix("best.", tensors) or None
    return progress


def _read(out: Path) -> tuple[dict[str, Any], TrainingProgress]:
    try:
        with safe_open(out / _CHECKPOINT, "pt") as file:
            content: dict[str, Any] = json.loads(file.metadata()["thawmap"])
        return content, TrainingProgress(**content["course"], best=BestNetwork(score=content["best"]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(out) from error


def _damaged(out: Path) -> TrainingError:
    return TrainingError(f"{out / _CHECKPOINT} is damaged, so nobody can go on from it; begin again without --resume")
