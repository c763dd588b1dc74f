"""Tuning: trials of settings, each chosen by the results of the trials before it.

    <out>/tune.json    the configuration, and the tiles that all trials share
    <out>/trials/      the trials (`thawmap.train.experiments.trials`)

A trial's values, and the epoch after which it is given up, follow from the seed, its number and the trials before it
alone, so that a tuning which was killed goes on to the same answer. Trials are compared by validation; test tiles are
never looked at.
"""

import json
import logging
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from thawmap.config import Config, Range, TuneSettings
from thawmap.errors import ConfigError, TrainingError
from thawmap.model.backends.devices import find_device
from thawmap.text import whole_number
from thawmap.train.augment import check_augmentation
from thawmap.train.checkpoint import DECIDING
from thawmap.train.experiments.folder import check_plan, with_all_layers
from thawmap.train.experiments.trials import ENDED, LOG, Trial, read_trials, with_values, write_trial
from thawmap.train.fit import Report, fit
from thawmap.train.initial import initial_network
from thawmap.train.split import Split
from thawmap.train.tiles.store import TileStore

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

PLAN = "tune.json"
"""File with the configuration and tile store that a tuning was begun with."""

_DRAWS = 100  # draws of values before a trial may repeat another


class _GivenUpError(Exception):
    """A trial that is not worth more epochs."""


def check(config: Config) -> None:
    """Refuse to tune without optuna, keys or validation, or with values that fail.

    Raises:
        ConfigError: If the library is missing, nothing is to be searched, no validation could compare, or a key or one
            of its values cannot be had.
    """
    if find_spec("optuna") is None:
        msg = "'thawmap tune' needs the library optuna, which is not installed; pip install 'thawmap[tune]'"
        raise ConfigError(msg)
    if not config.tune.keys:
        msg = (
            "'tune.keys' names nothing to search; add keys of this YAML, such as "
            "tune: {keys: {training.optimiser.lr: {low: 1e-4, high: 1e-2, log: true}}}"
        )
        raise ConfigError(msg)
    if not config.split.validation:
        msg = "tuning compares trials by validation, and 'split.validation' names nothing; name a region or a scene"
        raise ConfigError(msg)
    find_device(config.training.device)
    search_space(config)
    for number, variant in enumerate((config, *_single_changes(config))):
        check_augmentation(variant.augment, variant.input_layers)
        if not number or (variant.model, variant.layers) != (config.model, config.layers):
            initial_network(variant)


def search_space(config: Config) -> "dict[str, BaseDistribution]":
    """Return a dict of searched keys to optuna's distributions of their values.

    They are numbers between two ends, or the values of a list as JSON.

    Raises:
        ConfigError: If a range is given for a key whose value is no number.
    """
    from optuna.distributions import (  # noqa: PLC0415 - an extra, here and below
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    space: dict[str, BaseDistribution] = {}
    for key, searched in config.tune.keys.items():
        if not isinstance(searched, Range):
            space[key] = CategoricalDistribution([json.dumps(value) for value in searched])
            continue
        now, ends = _value_at(config, key), (searched.low, searched.high)
        if isinstance(now, bool) or not (now is None or isinstance(now, int | float)):
            msg = f"tune.keys gives a range for {key}, which is {json.dumps(now)} and no number; list values instead"
            raise ConfigError(msg)
        if isinstance(now, int) or (now is None and all(isinstance(end, int) for end in ends)):
            space[key] = IntDistribution(int(ends[0]), int(ends[1]), log=searched.log, step=int(searched.step or 1))
        else:
            space[key] = FloatDistribution(*ends, log=searched.log, step=searched.step)
    return space


def tiling_config(config: Config) -> Config:
    """Return a configuration with the layers of all possible trials, to cut tiles."""
    return with_all_layers(config, (config, *_single_changes(config)))


def check_begun(out: Path, config: Config, *, store: str | None = None, resume: bool) -> None:
    """Refuse a folder of another tuning, or of one that is not to be resumed.

    Trials may be added to the one that was begun.

    Args:
        out: Folder of the tuning.
        config: Its configuration.
        store: The identity of the tile store; None before it is known.
        resume: Whether to go on with the one in the folder.

    Raises:
        ConfigError: If there is one and nobody asked to go on with it, or it is another.
    """
    if (out / PLAN).exists():
        check_plan(out / PLAN, config, _deciding, kind="tuning", store=store, resume=resume)


def check_validation(split: Split) -> None:
    """Refuse a split without a labelled object in its validation tiles.

    Trials could not be compared.

    Raises:
        ConfigError: If no object is labelled in the validation part.
    """
    if not (split.validation["positive_pixels"] > 0).any():
        msg = "no object is labelled in the validation part, so that trials cannot be compared; name another region"
        raise ConfigError(msg)


def run_trial(number: int, *, config: Config, store: TileStore, split: Split, out: Path, report: Report) -> Trial:
    """Propose a trial's values, train it, write and return its scores or its failure.

    A trial that was interrupted is resumed; one that is not worth more epochs is given up.

    Args:
        number: Its number.
        config: The configuration of the tuning.
        store: The tiles.
        split: Tiles that train, and those that compare.
        out: Folder of the tuning.
        report: Takes a line per epoch.

    Raises:
        DataError: If the disk is full.
    """
    begin, proposed = time.perf_counter(), propose_trial(config, number, read_trials(out))
    trial = Trial(number=number, values=proposed.params)
    write_trial(out, trial)
    report(f"{trial.id}: {trial.describe_values()}")
    folder = out / trial.folder
    state: Literal["finished", "pruned", "failed"] = "finished"
    reason = ""
    try:
        variant = trial.apply(config)
        epochs = sum(phase.epochs for phase in variant.training.phases)
        common = split.lines()  # the same for all trials
        watch = _pruning_report(proposed, folder, lambda line: None if line in common else report(line), epochs)
        fit(store, split, variant, folder, resume=True, report=watch)
    except _GivenUpError:
        state = "pruned"
    except (ConfigError, TrainingError) as error:
        state, reason = "failed", str(error)
    seconds = round(time.perf_counter() - begin, 1)
    ended = replace(trial, state=state, reason=reason, scores=_read_scores(folder), seconds=seconds)
    write_trial(out, ended)
    return ended


def propose_trial(config: Config, number: int, trials: Sequence[Trial]) -> "optuna.Trial":
    """Return an optuna trial whose values follow from the trials of smaller numbers.

    It tells later, by its scores, when it is to be pruned. A trial that was begun keeps its values. Its study is made
    anew from the trials with smaller numbers, and contains no others. Values that were tried are not tried again, where
    other ones are drawn in some draws.
    """
    space, settings = search_space(config), config.tune
    with _quiet():
        import optuna  # noqa: PLC0415

        seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=settings.random),
            pruner=_pruner(settings),
        )
        before = [trial for trial in trials if trial.number < number]
        study.add_trials([_frozen(trial, space) for trial in before if trial.state in ENDED])
        tried = [trial.values for trial in before]
        for trial in trials:
            if trial.number == number:
                study.enqueue_trial(dict(trial.values))  # begun before: its values stand
                tried = []
        proposed = study.ask(space)
        for _ in range(_DRAWS):
            if proposed.params not in tried:
                break
            proposed = study.ask(space)
        return proposed


def _pruner(settings: TuneSettings) -> "optuna.pruners.BasePruner":
    import optuna  # noqa: PLC0415

    if settings.prune_after is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=settings.random, n_warmup_steps=settings.prune_after)


def _frozen(trial: Trial, space: "dict[str, BaseDistribution]") -> "optuna.trial.FrozenTrial":
    """Return an ended trial as optuna's FrozenTrial, with its values and scores."""
    import optuna  # noqa: PLC0415

    states = {"finished": optuna.trial.TrialState.COMPLETE, "pruned": optuna.trial.TrialState.PRUNED}
    return optuna.trial.create_trial(
        state=states[trial.state],
        value=trial.score if trial.state == "finished" else None,
        params=dict(trial.values),
        distributions=space,
        intermediate_values=dict(enumerate(trial.scores, start=1)),
    )


def _pruning_report(proposed: "optuna.Trial", folder: Path, report: Report, epochs: int) -> Report:
    """Return a report that passes lines on, and ends a training optuna would prune.

    The training has ``epochs`` epochs in all; it is not ended after the last.

    An epoch is in the folder's metrics.csv before it is reported.
    """
    counted = 0

    def watch(line: str) -> None:
        nonlocal counted
        report(line)
        scores = _read_scores(folder)
        for step in range(counted, len(scores)):
            if math.isnan(scores[step]):
                msg = "no pixel of an object counts in validation, so that trials cannot be compared; name another"
                raise TrainingError(msg)
            proposed.report(scores[step], step + 1)
        counted = max(counted, len(scores))
        if 0 < counted < epochs and proposed.should_prune():
            raise _GivenUpError

    return watch


def _read_scores(folder: Path) -> tuple[float, ...]:
    """Read every epoch's validation IoU from a folder's metrics.csv; () without it.

    It is the IoU at the best threshold.
    """
    if not (folder / LOG).exists():
        return ()
    log = pd.read_csv(folder / LOG)
    return tuple(float(score) for score in log.loc[log["split"] == "validation", "iou_at_threshold"])


def _single_changes(config: Config) -> list[Config]:
    """Return a configuration per searched value, with it alone; of ranges, the ends.

    Raises:
        ConfigError: If a key does not exist, or a value is not allowed.
    """
    return [
        with_values(config, {key: json.dumps(value)})
        for key, searched in config.tune.keys.items()
        for value in ((searched.low, searched.high) if isinstance(searched, Range) else searched)
    ]


def _value_at(config: Config, key: str) -> Any:
    """Return a configuration's value at a key such as training.phases.0.lr; else None."""
    node: Any = config.as_json()
    for name in key.split("."):
        children = dict(enumerate(node)) if isinstance(node, list) else node if isinstance(node, dict) else {}
        number = None if isinstance(node, dict) else whole_number(name)
        node = children.get(name if number is None else number)
    return node


def _deciding(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return, of a configuration as a dict, what decides but the number of trials.

    It must not change when a tuning is resumed.
    """
    settings = {name: resolved.get(name) for name in DECIDING}
    settings["tune"] = {name: value for name, value in resolved.get("tune", {}).items() if name != "trials"}
    return settings


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence optuna's log and all warnings in the block.

    Optuna logs every study, and warns of steps and new features.
    """
    logger = logging.getLogger("optuna")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import optuna  # noqa: F401, PLC0415 - sets its logger's level, when it is first imported

        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
