"""The training loop, to be read from top to bottom.

    for every phase:    its tiles; start from the best network so far; a new optimiser
      for every epoch:  its tiles, augmented on the device; then validation; then metrics.csv,
                        <out>/last, <out> where the epoch is the best so far, and the checkpoint
    at the end:         the best network's temperature and threshold, from validation

The best epoch is the one with the highest validation IoU at the threshold that this epoch chooses, not at 0.5: focal
loss and rare objects leave probabilities low, so at 0.5 a good network can score 0. Several validation regions count
each for itself, by the mean of their IoU, lest the one with the most slumps decide alone. Without labelled objects in
validation the last epoch counts as the best. Nothing is ever chosen on test tiles.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from thawmap.config import Config, TrainingSettings
from thawmap.errors import TrainingError
from thawmap.model.backends.devices import find_device, is_out_of_memory
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import load, save
from thawmap.system import keep_freed_tensors
from thawmap.train import checkpoint, sampling
from thawmap.train.augment import check_augmentation
from thawmap.train.boosting.fit import fit_trees
from thawmap.train.checkpoint import TrainingProgress
from thawmap.train.devices import Report as Report  # noqa: PLC0414 - whoever calls `fit` writes one
from thawmap.train.devices import launch
from thawmap.train.learner import Epoch, Learner
from thawmap.train.log import EpochResult, describe_epoch, tensorboard_curves, write_log
from thawmap.train.outcome import calibrate_folder, data_versions, make_bundle
from thawmap.train.split import Split
from thawmap.train.tiles.store import TileStore


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """The arguments of `fit`, to be sent to processes."""

    store: TileStore
    split: Split
    config: Config
    out: Path
    resume: bool
    score_test: bool
    versions: Mapping[str, Sequence[str]]


def fit(  # noqa: PLR0913 - all that a training is made from
    store: TileStore,
    split: Split,
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    score_test: bool = False,
    versions: Mapping[str, Sequence[str]] | None = None,
    report: Report = lambda _: None,
) -> Bundle:
    """Train a network; write best and last as bundles; return the best, calibrated.

    Boosted trees are trained by `thawmap.train.boosting.fit`, and begin again where they were interrupted.

    The best is written into ``out``, the last into ``out``/last. The best is calibrated where there are validation
    tiles.

    ``out/metrics.csv`` has a row per epoch and split (train, validation), with the paper's metrics at 0.5. On a CPU the
    same seed and number of threads give the same numbers, bit by bit, also when the training was killed and resumed.
    With several devices only the first process writes and reports.

    Args:
        store: The tiles.
        split: Tiles that train, and those that choose epoch and threshold.
        config: All settings of network and training.
        out: Folder of the result; a bundle in it is replaced after the first epoch.
        resume: Whether to go on with a training that was interrupted there; without one, to begin.
        score_test: Whether metrics.csv has rows of the test tiles too; they choose nothing.
        versions: Versions of the data of sources, such as elevation, for the bundle's provenance.
        report: Takes a line per epoch.

    Raises:
        ConfigError: If network, device, augmentation and tiles do not suit each other, or the interrupted training
            had other settings.
        TrainingError: If a phase has no tile, a loss is not finite, memory does not suffice, or another training runs
            in ``out``; the best network until then is in ``out``.
    """
    check_augmentation(config.augment, config.input_layers)
    sampling.check_phases(config.training.phases, split.train)
    versions = versions or {}
    if config.model.has_trees:
        fit_trees(store, split, config, out, score_test=score_test, versions=versions, report=report)
        return load(out)
    job = _Job(
        store=store, split=split, config=config, out=out, resume=resume, score_test=score_test, versions=versions
    )
    device = find_device(config.training.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        launch(partial(_train, job), config.training, report)
        return load(out)


def _train(job: _Job, fabric: Fabric, report: Report) -> None:
    """Train in one process of a training; the first writes bundles, log, checkpoint."""
    split, config, out = job.split, job.config, job.out
    with _prepared(config.training):
        learner = Learner.of(job.store, config, fabric)
        learner.initial.check(split)
        for line in split.lines():
            report(line)
        inputs = checkpoint.training_inputs(config, split, job.store.identity)
        writes = fabric.is_global_zero
        with (
            checkpoint.claimed(out) if writes else nullcontext(),
            tensorboard_curves(out / "tensorboard") as draw_curves,
        ):
            progress = _begin(learner, out, inputs, resume=job.resume, report=report)
            names = ("validation", "test") if job.score_test else ("validation",)
            for epoch, results, improved in _train_epochs(learner, split, progress, names):
                if not writes:
                    continue
                bundle = make_bundle(
                    learner.evaluated,
                    results,
                    config=config,
                    store=learner.store,
                    split=split,
                    traits=learner.traits,
                    provenance={
                        "from": str(epoch),
                        **learner.initial.provenance(),
                        "device": learner.fabric.device.type,
                        **data_versions(job.versions),
                    },
                )
                if progress.is_first:
                    checkpoint.forget(out)  # of a training before, whose bundle is now replaced
                save(bundle, out / "last")
                if improved:
                    save(bundle, out)
                write_log(out / "metrics.csv", progress.log)
                draw_curves(progress.epochs, results)
                checkpoint.save_checkpoint(out, learner, progress, inputs)
                report(f"{epoch} of {epoch.phase.epochs}: {describe_epoch(results)}{', kept' if improved else ''}")
            if writes:
                device, size = fabric.device, config.training.batch_size
                calibrate_folder(out, learner.store, split, device=device, batch_size=size, report=report)


def _train_epochs(
    learner: Learner, split: Split, progress: TrainingProgress, names: Sequence[str]
) -> Iterator[tuple[Epoch, list[EpochResult], bool]]:
    """Train the remaining epochs; yield each, its results, and True if best so far.

    After each, the parts of the split with these names are evaluated, as far as they have tiles; validation must be the
    first of them, as it chooses the threshold of the others.
    """
    settings = learner.config.training
    tiles_by_name = dict(split.parts())
    evaluated = [name for name in names if len(tiles_by_name[name])]
    while progress.phase < len(settings.phases):
        phase = settings.phases[progress.phase]
        if not progress.epoch:
            learner.begin_phase(phase, progress.best.weights)
            progress.chosen = sampling.choose_tiles(phase, split.train, learner.hardness)
        while not progress.is_phase_finished(phase, settings.stop_after):
            position, tiles = (progress.phase, progress.epoch + 1), split.train.iloc[progress.chosen]
            epoch = Epoch(phase=phase, position=position, tiles=tiles, history=progress.history)
            results = [learner.train(epoch)]
            for name in evaluated:
                chosen = [result.threshold for result in results if not math.isnan(result.threshold)]
                threshold = None if name == "validation" else next(iter(chosen), 0.5)
                results.append(learner.evaluate(tiles_by_name[name], name, epoch, threshold=threshold))
            improved = progress.add_epoch(phase, results, learner.evaluated)
            yield epoch, results, improved
        progress.next_phase()


def _begin(learner: Learner, out: Path, inputs: Mapping[str, Any], *, resume: bool, report: Report) -> TrainingProgress:
    """Restore learner and progress from a checkpoint, if asked; else new progress."""
    reached = checkpoint.describe_checkpoint(out)
    if resume and reached:
        progress = checkpoint.load_checkpoint(out, learner, inputs)
        report(f"goes on after {reached}")
        return progress
    if reached:
        report(f"training begins again, though it was interrupted after {reached}; --resume would have gone on")
    return TrainingProgress()


@contextmanager
def _prepared(settings: TrainingSettings) -> Iterator[None]:
    """Seed torch; make a lack of memory in the block a TrainingError with advice.

    Freed memory is kept by the process.

    Raises:
        TrainingError: If memory does not suffice.
    """
    torch.manual_seed(settings.seed)
    keep_freed_tensors()
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # a GPU's is a RuntimeError too
        if not is_out_of_memory(error):
            raise
        msg = (
            f"memory does not hold a batch of {settings.batch_size} tiles; lower training.batch_size, and "
            "raise training.accumulate as much for the same steps, or lower tiles.size"
        )
        raise TrainingError(msg) from error
