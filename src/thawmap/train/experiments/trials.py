"""Trials of a tuning: their values, outcomes and files.

<out>/trials/<number>/trial.json    a trial's values and outcome
<out>/trials/<number>/metrics.csv   its epochs; beside them, of the best trial only, its bundle
<out>/trials.csv, <out>/best.yaml   all trials in a table, and the configuration with the best one's values
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import yaml
from pydantic import Field, field_validator

from thawmap.config import Config, TuneSettings, parse
from thawmap.errors import ConfigError, DataError
from thawmap.files.atomic import write_json, write_text
from thawmap.files.records import Record, read
from thawmap.files.results import result
from thawmap.files.tables import write_table
from thawmap.train.checkpoint import discard

ENDED = ("finished", "pruned")
"""States of trials that are not tried again."""

LOG = "metrics.csv"
RESULTS = ("trials.csv", "best.yaml", "trials.png")
"""Files that a tuning writes for people, unless they have changed them; the last is the report's."""

_TRIAL = "trial.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training of a tuning.

    Attributes:
        number: From 0.
        values: Key of the YAML to the value that is tried: a number, or one of a list as JSON.
        state: Its outcome; pruned trials were given up.
        scores: Validation IoU at the best threshold after each epoch, phase after phase.
        reason: The error of a failed trial, for people.
        seconds: Time since it was last begun or resumed.
    """

    number: int
    values: Mapping[str, Any]
    state: Literal["running", "finished", "pruned", "failed"] = "running"
    scores: Sequence[float] = field(default=())
    reason: str = ""
    seconds: float = 0.0

    @property
    def id(self) -> str:
        """The trial's number as a phrase for messages, such as trial 3."""
        return f"trial {self.number}"

    @property
    def folder(self) -> Path:
        """The trial's folder, a path relative to that of the tuning."""
        return Path("trials", f"{self.number:04d}")

    @property
    def score(self) -> float:
        """The highest validation IoU of the trial's epochs; NaN before the first."""
        return max(self.scores, default=math.nan)

    @property
    def epoch(self) -> int:
        """The number of the best epoch, from 1 through all phases; 0 where there is none.

        Among equals it is the last.
        """
        return max((number for number, score in enumerate(self.scores, start=1) if score == self.score), default=0)

    def describe_values(self) -> str:
        """Return keys and values of the trial as a phrase for people."""
        return ", ".join(f"{key} {_readable(value)}" for key, value in self.values.items())

    def apply(self, config: Config) -> Config:
        """Return a configuration with the trial's values, and nothing left to search.

        Raises:
            ConfigError: If they do not go together.
        """
        return with_values(config, {key: _as_json(value) for key, value in self.values.items()})


class TrialRecord(Record, extra="forbid"):
    """The trial.json of a `Trial`."""

    number: int = Field(ge=0)
    values: dict[str, int | float | str]
    state: Literal["running", "finished", "pruned", "failed"]
    scores: list[Annotated[float, Field(allow_inf_nan=True)]]
    reason: str
    seconds: float

    @field_validator("values")
    @classmethod
    def _check(cls, values: dict[str, int | float | str]) -> dict[str, int | float | str]:
        for value in values.values():
            _readable(value)  # fails where it is a string and no JSON
        return values


def with_values(config: Config, changes: Mapping[str, str]) -> Config:
    """Return a configuration with JSON values at keys, and nothing left to search.

    It is checked as any YAML is.

    Raises:
        ConfigError: If a key does not exist, or a value is not allowed.
    """
    overrides = [f"{key}={value}" for key, value in changes.items()]
    try:
        changed = parse(config.as_yaml(), name="tune", folder=Path(), overrides=overrides)
    except ConfigError as error:
        msg = f"tune.keys: {str(error).removeprefix('--set ')}"
        raise ConfigError(msg) from error
    return changed.model_copy(update={"tune": TuneSettings()})


def read_trials(out: Path) -> list[Trial]:
    """Read all trials that were begun in a tuning's folder, sorted by number.

    Raises:
        DataError: If a file is damaged.
    """
    trials = []
    for path in sorted((out / "trials").glob(f"*/{_TRIAL}")):
        try:
            trials.append(Trial(**read(path, TrialRecord)))
        except (OSError, ValueError) as error:
            msg = f"{path} is damaged; remove the folder {path.parent}, and its trial is made again"
            raise DataError(msg) from error
    return sorted(trials, key=lambda trial: trial.number)


def remaining_trials(out: Path, config: Config) -> list[int]:
    """Return the numbers of trials that are not begun, were interrupted, or failed."""
    ended = {trial.number for trial in read_trials(out) if trial.state in ENDED}
    return [number for number in range(config.tune.trials) if number not in ended]


def write_trial(out: Path, trial: Trial) -> None:
    """Write a trial as trial.json into its folder below that of the tuning."""
    write_json(out / trial.folder / _TRIAL, asdict(trial))


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the finished trial with the highest score; None where none is finished.

    Among equals it is the first by number.
    """
    finished = [trial for trial in trials if trial.state == "finished" and not math.isnan(trial.score)]
    return max(finished, key=lambda trial: (trial.score, -trial.number), default=None)


def trials_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return a DataFrame with a row per trial: its state, best score and values.

    Its columns are ``trial``, ``state``, ``validation_iou``, ``epoch``, ``epochs``, a column for each searched key,
    ``seconds`` and ``reason``.
    """
    return pd.DataFrame(
        [
            {
                "trial": trial.number,
                "state": trial.state,
                "validation_iou": trial.score,
                "epoch": trial.epoch,
                "epochs": len(trial.scores),
                **{key: _readable(value) for key, value in trial.values.items()},
                "seconds": trial.seconds,
                "reason": trial.reason,
            }
            for trial in trials
        ]
    )


def write_results(out: Path, config: Config) -> None:
    """Write trials.csv and best.yaml; remove bundles of ended trials but the best.

    There is no best.yaml before a trial is finished.
    """
    trials = read_trials(out)
    best = best_trial(trials)
    with result(out) as draft:
        write_table(draft / RESULTS[0], trials_table(trials))
        if best is not None:
            write_text(draft / RESULTS[1], _best_yaml(config, best, trials))
    for trial in trials:
        if trial.state in ENDED and trial != best:
            discard(out / trial.folder)


def _best_yaml(config: Config, best: Trial, trials: Sequence[Trial]) -> str:
    """Return the YAML with the best trial's values, and comments on what they reached."""
    ended = sum(trial.state in ENDED for trial in trials)
    comments = [
        f"The best of {ended} trials of 'thawmap tune' is trial {best.number}: validation IoU {best.score:.4f} at",
        f"its best threshold, after epoch {best.epoch}. Chosen by validation alone; no test tile was looked at, so",
        "that a map of the test part still says what it reaches elsewhere.",
        *(f"    {key}: {_as_json(value)}" for key, value in best.values.items()),
    ]
    resolved = best.apply(config).as_json()
    del resolved["tune"]
    return "".join(f"# {line}\n" for line in comments) + yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _readable(value: Any) -> str | float:
    """Return a number or JSON text for people: without quotes, floats of four digits."""
    parsed = json.loads(value) if isinstance(value, str) else value
    if isinstance(parsed, float):
        return float(f"{parsed:.4g}")
    return parsed if isinstance(parsed, str | int) else json.dumps(parsed).replace('"', "")
