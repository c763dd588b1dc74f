"""The training loop, to be read from top to bottom.

    for every phase:    its tiles; start from the best network so far; a fresh optimiser
      for every epoch:  its tiles, augmented on the device; then validation; then metrics.csv,
                        <out>/last, <out> where the epoch is the best so far, and how far the training is
    at the end:         the best network's temperature and threshold, from validation

The best epoch is the one with the highest validation IoU at the threshold that this epoch chooses, not at 0.5: focal
loss and rare objects leave probabilities low, so at 0.5 a good network can score 0. Without labelled objects in
validation the last epoch counts as the best. Nothing is ever chosen on test tiles.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from thawmap.config import Config, TrainingSettings
from thawmap.errors import TrainingError
from thawmap.model.backends.devices import find_device
from thawmap.model.bundle import Bundle, library_versions
from thawmap.model.bundle_folder import load, save
from thawmap.model.metrics.pixels import SCORES
from thawmap.train import checkpoint, sampling
from thawmap.train.augment import check_augmentation, optional_layers
from thawmap.train.calibration import calibrated
from thawmap.train.checkpoint import Course
from thawmap.train.devices import Report as Report  # noqa: PLC0414 - whoever calls `fit` writes one
from thawmap.train.devices import keep_memory, launch
from thawmap.train.learner import Epoch, Learner
from thawmap.train.log import Result, curves, sentence, write_log
from thawmap.train.split import Split
from thawmap.train.tiles.store import TileStore

_MEMORY_IS_FULL = ("out of memory", "allocate memory", "bad_alloc", "could not create a memory object")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What is trained, and where it goes; as `fit` takes it."""

    store: TileStore
    split: Split
    config: Config
    out: Path
    resume: bool
    score_test: bool


def fit(
    store: TileStore,
    split: Split,
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    score_test: bool = False,
    report: Report = lambda _: None,
) -> Bundle:
    """Train as the configuration says; the best network as a bundle in ``out``, the last in ``out/last``.

    ``out/metrics.csv`` has a row per epoch and split (train, validation), with the paper's metrics at 0.5. On a CPU the
    same seed and number of threads give the same numbers, bit by bit, also when the training was killed and resumed.
    With several devices only the first process writes and reports.

    Args:
        store: The tiles.
        split: Which of them train, and which choose epoch and threshold.
        config: Everything else.
        out: Folder of the result; a bundle that is there is replaced after the first epoch.
        resume: Whether to go on with a training that was interrupted there; without one, to begin.
        score_test: Whether metrics.csv has rows of the test tiles too; they choose nothing.
        report: Is told a line per epoch.

    Raises:
        ConfigError: If network, device, augmentation and tiles do not suit each other, or the interrupted training
            was another.
        TrainingError: If a phase has no tile, a loss is not finite, memory does not suffice, or another training runs
            in ``out``; the best network until then is in ``out``.
    """
    check_augmentation(config.augment, config.input_layers)
    sampling.check_phases(config.training.phases, split.train)
    job = _Job(store=store, split=split, config=config, out=out, resume=resume, score_test=score_test)
    device = find_device(config.training.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        launch(partial(_train, job), config.training, report)
        return load(out)


def _train(job: _Job, fabric: Fabric, report: Report) -> None:
    """The training, in each of the processes that share it."""
    split, config, out = job.split, job.config, job.out
    with _prepared(config.training):
        learner = Learner.of(job.store, config, fabric)
        learner.begun.check(split)
        for line in split.lines():
            report(line)
        made = checkpoint.made_from(config, split, job.store.identity)
        writes = fabric.is_global_zero
        with checkpoint.claimed(out) if writes else nullcontext(), curves(out / "tensorboard") as draw:
            course = _begin(learner, out, made, resume=job.resume, report=report)
            names = ("validation", "test") if job.score_test else ("validation",)
            for epoch, results, improved in _epochs(learner, split, course, names):
                if not writes:
                    continue
                _keep_bundles(out, _describe(learner, split, results, epoch), course, improved=improved)
                write_log(out / "metrics.csv", course.log)
                draw(course.epochs, results)
                checkpoint.keep(out, learner, course, made)
                report(f"{epoch} of {epoch.phase.epochs}: {sentence(results)}{', kept' if improved else ''}")
            if writes:
                _calibrate(learner, split, out, report)


def _epochs(
    learner: Learner, split: Split, course: Course, names: Sequence[str]
) -> Iterator[tuple[Epoch, list[Result], bool]]:
    """Every epoch that is still to be trained: what it did, and whether it is the best so far."""
    settings = learner.config.training
    while course.phase < len(settings.phases):
        phase = settings.phases[course.phase]
        if not course.epoch:
            learner.begin(phase, course.best.state)
            course.chosen = sampling.choose_tiles(phase, split.train, learner.wrongness)
        while not course.is_over(phase, settings.stop_after):
            place, tiles = (course.phase, course.epoch + 1), split.train.iloc[course.chosen]
            epoch = Epoch(phase=phase, place=place, tiles=tiles, history=course.history)
            results = [learner.train(epoch)]
            for name in names:
                results += _look(learner, split, name, epoch, results)
            improved = course.note(phase, results, learner.judged)
            yield epoch, results, improved
        course.next_phase()


def _look(learner: Learner, split: Split, name: str, epoch: Epoch, before: Sequence[Result]) -> list[Result]:
    """What the network does on a split after an epoch; validation chooses the threshold. Nothing without tiles."""
    tiles = dict(split.parts())[name]
    if tiles.empty:
        return []
    chosen = [one.threshold for one in before if not math.isnan(one.threshold)]
    threshold = None if name == "validation" else next(iter(chosen), 0.5)
    return [learner.look(tiles, name, epoch, threshold=threshold)]


def _begin(learner: Learner, out: Path, made: Mapping[str, Any], *, resume: bool, report: Report) -> Course:
    """What was done before, where a training is to be resumed; else nothing."""
    before = checkpoint.progress(out)
    if resume and before:
        course = checkpoint.resume(out, learner, made)
        report(f"goes on after {before}")
        return course
    if before:
        report(f"training begins again, though it was interrupted after {before}; --resume would have gone on")
    return Course()


def _keep_bundles(out: Path, bundle: Bundle, course: Course, *, improved: bool) -> None:
    """The network as the last, and where it is the best so far as the best."""
    if course.is_first:
        checkpoint.forget(out)  # of a training before, whose bundle is now replaced
    save(bundle, out / "last")
    if improved:
        save(bundle, out)


def _calibrate(learner: Learner, split: Split, out: Path, report: Report) -> None:
    """Give the best bundle its temperature and threshold, by the validation tiles."""
    if split.validation.empty:
        return
    batch_size = learner.config.training.batch_size
    best = replace(load(out), temperature=1.0)
    found = calibrated(best, learner.store, split.validation, device=learner.fabric.device, batch_size=batch_size)
    save(found, out)
    if found.temperature != 1:
        report(f"calibrated: logits are divided by {found.temperature:g}, threshold {found.threshold:.2f}")


@contextmanager
def _prepared(settings: TrainingSettings) -> Iterator[None]:
    """Torch's own randomness (first weights, dropout) from the seed; memory kept, and said where it does not suffice.

    Raises:
        TrainingError: If memory does not suffice.
    """
    torch.manual_seed(settings.seed)
    keep_memory()
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # a GPU's is a RuntimeError too
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in _MEMORY_IS_FULL):
            raise
        msg = (
            f"memory does not hold a batch of {settings.batch_size} tiles; lower training.batch_size, and "
            "raise training.accumulate as much for the same steps, or lower tiles.size"
        )
        raise TrainingError(msg) from error


def _describe(learner: Learner, split: Split, results: Sequence[Result], epoch: Epoch) -> Bundle:
    """The network as it is now, and how it came to be."""
    config, checked = learner.config, {one.split: one for one in results}.get("validation", results[0])
    measured = {f"{one.split}_{name}": one.row()[name] for one in results for name in ("loss", *SCORES, "object_f1")}
    measured["validation_iou_at_threshold"] = checked.score
    regions = {name: sorted({str(one) for one in part["region"].dropna()}) for name, part in split.parts()}
    return Bundle(
        layers=config.input_layers,
        optional=optional_layers(config.augment.drop, [layer.name for layer in config.input_layers]),
        architecture=config.model.architecture.lower(),
        encoder=config.model.encoder,
        tile=learner.store.size,
        stride=learner.about.stride,
        fixed_tile=learner.about.fixed_tile,
        fill=config.model.fill,
        thresholds={"paper": 0.5} | ({} if math.isnan(checked.threshold) else {"validation": checked.threshold}),
        metrics={name: value for name, value in measured.items() if math.isfinite(value)},
        provenance={
            "made_by": "thawmap train",
            "from": str(epoch),
            **learner.begun.provenance(),
            "config": config.as_json(),
            "tile_store": learner.store.identity,
            "versions": library_versions(),
            "device": learner.fabric.device.type,
            "regions": regions,
            "tiles": {name: len(part) for name, part in split.parts()},
        },
        network=learner.judged.eval(),
    )
