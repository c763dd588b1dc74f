"""Tuning: trials of other settings, each tried because of what the trials before it reached.

    <out>/tune.json    the configuration, and the tiles that all trials share
    <out>/trials/      the trials (`thawmap.train.experiments.trials`)

What a trial tries and when it is given up follow from the seed, its number and the trials before it alone, so that
tuning which was killed goes on to the same answer. Trials are compared by validation; test tiles are never looked at.
"""

import json
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from thawmap.config import Config, Range, TuneSettings
from thawmap.config.plan import read_plan
from thawmap.errors import ConfigError, TrainingError
from thawmap.files.atomic import write_json
from thawmap.model.backends.devices import find_device
from thawmap.provenance import differences
from thawmap.text import whole_number
from thawmap.train.augment import check_augmentation
from thawmap.train.checkpoint import DECIDING
from thawmap.train.experiments.trials import ENDED, LOG, Trial, applied, keep, trials
from thawmap.train.fit import Report, fit
from thawmap.train.initial import initial_network
from thawmap.train.split import Split
from thawmap.train.tiles.store import TileStore

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

_PLAN = "tune.json"
_DRAWS = 100  # until a trial may repeat another


class _GivenUpError(Exception):
    """A trial is not worth more epochs."""


def check(config: Config) -> None:
    """Refuse what would fail after hours of cutting and training.

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
    space(config)
    for place, one in enumerate((config, *_alone(config))):
        check_augmentation(one.augment, one.input_layers)
        if not place or (one.model, one.layers) != (config.model, config.layers):
            initial_network(one)


def space(config: Config) -> "dict[str, BaseDistribution]":
    """What is searched, by key: numbers between two ends, or the values of a list as JSON.

    Raises:
        ConfigError: If a range is given for what is no number.
    """
    from optuna.distributions import (  # noqa: PLC0415 - an extra, here and below
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    found: dict[str, BaseDistribution] = {}
    for key, wanted in config.tune.keys.items():
        if not isinstance(wanted, Range):
            found[key] = CategoricalDistribution([json.dumps(value) for value in wanted])
            continue
        now, ends = _value(config, key), (wanted.low, wanted.high)
        if isinstance(now, bool) or not (now is None or isinstance(now, int | float)):
            msg = f"tune.keys gives a range for {key}, which is {json.dumps(now)} and no number; list values instead"
            raise ConfigError(msg)
        whole = isinstance(now, int) or (now is None and all(isinstance(end, int) for end in ends))
        if whole:
            found[key] = IntDistribution(int(ends[0]), int(ends[1]), log=wanted.log, step=int(wanted.step or 1))
        else:
            found[key] = FloatDistribution(*ends, log=wanted.log, step=wanted.step)
    return found


def to_cut(config: Config) -> Config:
    """The configuration that tiles for all trials are cut with: with the layers of each.

    A pixel is usable where all of these are known, so that every trial is scored on the same pixels.
    """
    wanted = {
        layer if isinstance(layer, str) else layer.name: layer
        for one in (config, *_alone(config))
        for layer in one.layers
    }
    return config.model_copy(update={"layers": tuple(wanted.values())})


def check_begun(out: Path, config: Config, *, tiles: str | None = None, resume: bool) -> None:
    """Refuse a folder that holds another tuning; trials may be added to what was begun.

    Args:
        out: Folder of the tuning.
        config: Its configuration.
        tiles: The identity of the tile store; None before it is known.
        resume: Whether to go on with what is there.

    Raises:
        ConfigError: If there is one and nobody asked to go on with it, or it is another.
    """
    if not (out / _PLAN).exists():
        return
    if not resume:
        msg = f"{out} holds a tuning; add --resume to go on with it, or name another --out"
        raise ConfigError(msg)
    begun = read_plan(out / _PLAN)
    wanted = {"config": config.as_json(), "tile_store": tiles or begun["tile_store"]}
    other = differences(_deciding(begun), _deciding(wanted))
    if other:
        msg = f"{out} holds a tuning with other {' and '.join(other)}; set it back, or name another --out"
        raise ConfigError(msg)


def begin(out: Path, config: Config, tiles: str) -> None:
    """Say in ``out`` what is done there, with the tiles of which store."""
    write_json(out / _PLAN, {"config": config.as_json(), "tile_store": tiles})


def check_validation(split: Split) -> None:
    """Refuse tiles on which trials cannot be told apart.

    Raises:
        ConfigError: If no object is labelled in the validation part.
    """
    if not (split.validation["positive_pixels"] > 0).any():
        msg = "no object is labelled in the validation part, so that trials cannot be compared; name another region"
        raise ConfigError(msg)


def run(number: int, *, config: Config, store: TileStore, split: Split, out: Path, report: Report) -> Trial:
    """One trial, from where it was interrupted.

    Args:
        number: Which.
        config: The configuration of the tuning.
        store: The tiles.
        split: Which of them train, and which compare.
        out: Folder of the tuning.
        report: Is told a line per epoch.

    Raises:
        DataError: If the disk is full.
    """
    begun, asked = time.perf_counter(), propose(config, number, trials(out))
    trial = Trial(number=number, values=asked.params)
    keep(out, trial)
    report(f"{trial.id}: {trial.said()}")
    place = out / trial.folder
    state: Literal["finished", "pruned", "failed"] = "finished"
    reason = ""
    try:
        applied = trial.apply(config)
        last = sum(phase.epochs for phase in applied.training.phases)
        listen = _watching(asked, place, lambda line: None if line in split.lines() else report(line), last)
        fit(store, split, applied, place, resume=True, report=listen)
    except _GivenUpError:
        state = "pruned"
    except (ConfigError, TrainingError) as error:
        state, reason = "failed", str(error)
    ended = replace(
        trial, state=state, reason=reason, scores=_scores(place), seconds=round(time.perf_counter() - begun, 1)
    )
    keep(out, ended)
    return ended


def propose(config: Config, number: int, known: Sequence[Trial]) -> "optuna.Trial":
    """What a trial tries, and what tells later whether it is worth more epochs.

    It is optuna's, in a study that is made anew from the trials with smaller numbers and knows no others. What was
    tried is not tried again, where something else is found in some draws.
    """
    searched, settings = space(config), config.tune
    with _quiet():
        import optuna  # noqa: PLC0415

        seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=settings.random),
            pruner=_pruner(settings),
        )
        study.add_trials([_told(one, searched) for one in known if one.number < number and one.state in ENDED])
        tried = [one.values for one in known if one.number < number]
        for one in known:
            if one.number == number:
                study.enqueue_trial(dict(one.values))  # begun before: its values stand
                tried = []
        asked = study.ask(searched)
        for _ in range(_DRAWS):
            if asked.params not in tried:
                break
            asked = study.ask(searched)
        return asked


def _pruner(settings: TuneSettings) -> "optuna.pruners.BasePruner":
    import optuna  # noqa: PLC0415

    if settings.prune_after is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=settings.random, n_warmup_steps=settings.prune_after)


def _told(trial: Trial, searched: "dict[str, BaseDistribution]") -> "optuna.trial.FrozenTrial":
    """A trial in optuna's words."""
    import optuna  # noqa: PLC0415

    states = {"finished": optuna.trial.TrialState.COMPLETE, "pruned": optuna.trial.TrialState.PRUNED}
    return optuna.trial.create_trial(
        state=states[trial.state],
        value=trial.score if trial.state == "finished" else None,
        params=dict(trial.values),
        distributions=searched,
        intermediate_values=dict(enumerate(trial.scores, start=1)),
    )


def _watching(asked: "optuna.Trial", place: Path, report: Report, last: int) -> Callable[[str], None]:
    """What listens to a training and ends it when it is hopeless; an epoch is in its metrics.csv before it is said."""
    told = 0

    def listen(line: str) -> None:
        nonlocal told
        report(line)
        scores = _scores(place)
        for step in range(told, len(scores)):
            if math.isnan(scores[step]):
                msg = "no pixel of an object counts in validation, so that trials cannot be compared; name another"
                raise TrainingError(msg)
            asked.report(scores[step], step + 1)
        told = max(told, len(scores))
        if 0 < told < last and asked.should_prune():
            raise _GivenUpError

    return listen


def _scores(place: Path) -> tuple[float, ...]:
    """Validation IoU at the best threshold of every epoch of a training; none before the first."""
    if not (place / LOG).exists():
        return ()
    log = pd.read_csv(place / LOG)
    return tuple(float(score) for score in log.loc[log["split"] == "validation", "iou_at_threshold"])


def _alone(config: Config) -> list[Config]:
    """The configuration with each of the searched values put in alone; of a range, with its ends.

    Raises:
        ConfigError: If a key does not exist, or a value is not allowed.
    """
    return [
        applied(config, {key: json.dumps(value)})
        for key, wanted in config.tune.keys.items()
        for value in ((wanted.low, wanted.high) if isinstance(wanted, Range) else wanted)
    ]


def _value(config: Config, key: str) -> Any:
    """What the configuration has at ``key``; None where that is unset, or not there."""
    place: Any = config.as_json()
    for part in key.split("."):
        inside = dict(enumerate(place)) if isinstance(place, list) else place if isinstance(place, dict) else {}
        number = None if isinstance(place, dict) else whole_number(part)
        place = inside.get(part if number is None else number)
    return place


def _deciding(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What must not change: everything but the number of trials, of which there may be more."""
    resolved = plan["config"]
    kept = {name: resolved.get(name) for name in DECIDING}
    kept["tune"] = {name: value for name, value in resolved.get("tune", {}).items() if name != "trials"}
    return kept | {"tile store": plan["tile_store"]}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what optuna says of itself: it tells every study, and advises on steps and new features."""
    chatter = logging.getLogger("optuna")
    level = chatter.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import optuna  # noqa: F401, PLC0415 - sets its logger's level, when it is first imported

        chatter.setLevel(logging.ERROR)
        try:
            yield
        finally:
            chatter.setLevel(level)
