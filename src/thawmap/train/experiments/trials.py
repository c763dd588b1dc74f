"""Trials of a tuning: what each tried, what came of it, and which is the best; kept in files of plain JSON.

<out>/trials/<number>/trial.json    what a trial tried, and what came of it
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
"""What a tuning writes for people, unless they have changed it; the last is the report's."""

_TRIAL = "trial.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training of a tuning.

    Attributes:
        number: From 0.
        values: Key of the YAML to what is tried: a number, or one of a list as JSON.
        state: What became of it; pruned ones were given up.
        scores: Validation IoU at the best threshold after each epoch, phase after phase.
        reason: Why it failed.
        seconds: Time that it took since it was last begun.
    """

    number: int
    values: Mapping[str, Any]
    state: Literal["running", "finished", "pruned", "failed"] = "running"
    scores: Sequence[float] = field(default=())
    reason: str = ""
    seconds: float = 0.0

    @property
    def id(self) -> str:
        """What it is called in messages."""
        return f"trial {self.number}"

    @property
    def folder(self) -> Path:
        """Where it is, in the folder of the tuning."""
        return Path("trials", f"{self.number:04d}")

    @property
    def score(self) -> float:
        """The best epoch's; NaN where there is none."""
        return max(self.scores, default=math.nan)

    @property
    def epoch(self) -> int:
        """The best epoch, from 1 through all phases, the last among equals; 0 where there is none."""
        return max((place for place, one in enumerate(self.scores, start=1) if one == self.score), default=0)

    def said(self) -> str:
        """Its values, where people read them."""
        return ", ".join(f"{key} {_plain(value)}" for key, value in self.values.items())

    def apply(self, config: Config) -> Config:
        """``config`` with its values.

        Raises:
            ConfigError: If they do not go together.
        """
        return applied(config, {key: _json(value) for key, value in self.values.items()})


class TrialRecord(Record, extra="forbid"):
    """A `Trial` in its file."""

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
            _plain(value)
        return values


def applied(config: Config, changes: Mapping[str, str]) -> Config:
    """``config`` with other values (as JSON), checked as any YAML is, and with nothing left to search.

    Raises:
        ConfigError: If a key does not exist, or a value is not allowed.
    """
    overrides = [f"{key}={value}" for key, value in changes.items()]
    try:
        chosen = parse(config.as_yaml(), name="tune", folder=Path(), overrides=overrides)
    except ConfigError as error:
        msg = f"tune.keys: {str(error).removeprefix('--set ')}"
        raise ConfigError(msg) from error
    return chosen.model_copy(update={"tune": TuneSettings()})


def trials(out: Path) -> list[Trial]:
    """All that was begun in ``out``, by number.

    Raises:
        DataError: If a file is damaged.
    """
    found = []
    for path in sorted((out / "trials").glob(f"*/{_TRIAL}")):
        try:
            found.append(Trial(**read(path, TrialRecord)))
        except (OSError, ValueError) as error:
            msg = f"{path} is damaged; remove the folder {path.parent}, and its trial is made again"
            raise DataError(msg) from error
    return sorted(found, key=lambda one: one.number)


def missing(out: Path, config: Config) -> list[int]:
    """Numbers of the trials that are still to be made: not begun, interrupted or failed."""
    ended = {one.number for one in trials(out) if one.state in ENDED}
    return [number for number in range(config.tune.trials) if number not in ended]


def keep(out: Path, trial: Trial) -> None:
    """Write what is known of a trial."""
    write_json(out / trial.folder / _TRIAL, asdict(trial))


def best(known: Sequence[Trial]) -> Trial | None:
    """The finished trial with the highest score, the first among equals; None where none is finished."""
    finished = [one for one in known if one.state == "finished" and not math.isnan(one.score)]
    return max(finished, key=lambda one: (one.score, -one.number), default=None)


def table(known: Sequence[Trial]) -> pd.DataFrame:
    """A row per trial: ``trial``, ``state``, ``validation_iou``, ``epoch``, ``epochs``, its values, and the rest."""
    return pd.DataFrame(
        [
            {
                "trial": one.number,
                "state": one.state,
                "validation_iou": one.score,
                "epoch": one.epoch,
                "epochs": len(one.scores),
                **{key: _plain(value) for key, value in one.values.items()},
                "seconds": one.seconds,
                "reason": one.reason,
            }
            for one in known
        ]
    )


def gather(out: Path, config: Config) -> None:
    """Write the table and, once a trial is finished, the best configuration; drop the bundles of all others."""
    known = trials(out)
    chosen = best(known)
    with result(out) as draft:
        write_table(draft / RESULTS[0], table(known))
        if chosen is not None:
            write_text(draft / RESULTS[1], _best_yaml(config, chosen, known))
    for one in known:
        if one.state in ENDED and one != chosen:
            discard(out / one.folder)


def _best_yaml(config: Config, chosen: Trial, known: Sequence[Trial]) -> str:
    """The configuration with the best values put in; what they reached as comments."""
    ended = sum(one.state in ENDED for one in known)
    said = [
        f"The best of {ended} trials of 'thawmap tune' is trial {chosen.number}: validation IoU {chosen.score:.4f} at",
        f"its best threshold, after epoch {chosen.epoch}. Chosen by validation alone; no test tile was looked at, so",
        "that a map of the test part still says what it reaches elsewhere.",
        *(f"    {key}: {_json(value)}" for key, value in chosen.values.items()),
    ]
    resolved = chosen.apply(config).as_json()
    del resolved["tune"]
    return "".join(f"# {line}\n" for line in said) + yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _plain(value: Any) -> str | float:
    """A value where people read it, as in YAML: names without quotes, numbers short."""
    known = json.loads(value) if isinstance(value, str) else value
    if isinstance(known, float):
        return float(f"{known:.4g}")
    return known if isinstance(known, str | int) else json.dumps(known).replace('"', "")
