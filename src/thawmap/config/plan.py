"""The file that keeps what a cross-validation or a tuning was begun with."""

from pathlib import Path
from typing import Any

from pydantic import Field

from thawmap.errors import ConfigError
from thawmap.files.records import Record, read


class CrossvalRecord(Record):
    """The section `crossval`, as far as a report shows it."""

    grid: dict[str, list[Any]] = Field(default_factory=dict)
    inner: int = 1


class ConfigRecord(Record):
    """The configuration, as far as reports and reruns read it."""

    project: str
    crossval: CrossvalRecord = CrossvalRecord()
    tune: dict[str, Any] = Field(default_factory=dict)


class PlanRecord(Record):
    """The file as a whole: the configuration, and the identity of the tiles."""

    config: ConfigRecord
    tile_store: str


def read_plan(path: Path) -> dict[str, Any]:
    """Read the plan of a cross-validation or a tuning, as a dict of JSON values.

    Its keys are "config", the whole configuration, and "tile_store", the identity of the tiles.

    Raises:
        OSError: If there is no such file.
        ConfigError: If it is damaged.
    """
    try:
        return read(path, PlanRecord)
    except ValueError as error:
        msg = f"{path} is damaged, it {error}; restore it, or name another --out and begin again"
        raise ConfigError(msg) from error
