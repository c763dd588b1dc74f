"""What a cross-validation or a tuning was begun with: its file, and reading it."""

from pathlib import Path
from typing import Any

from pydantic import Field

from thawmap.errors import ConfigError
from thawmap.files.records import Record, read


class CrossvalRecord(Record):
    """Keys of the section `crossval` that a report shows."""

    grid: dict[str, list[Any]] = Field(default_factory=dict)
    inner: int = 1


class ConfigRecord(Record):
    """The configuration; the sections that are compared may hold anything."""

    project: str
    crossval: CrossvalRecord = CrossvalRecord()
    tune: dict[str, Any] = Field(default_factory=dict)


class PlanRecord(Record):
    """The file as a whole."""

    config: ConfigRecord
    tile_store: str


def read_plan(path: Path) -> dict[str, Any]:
    """Read what a cross-validation or a tuning was begun with: its configuration, and the identity of its tiles.

    Raises:
        OSError: If there is no such file.
        ConfigError: If it is damaged.
    """
    try:
        return read(path, PlanRecord)
    except ValueError as error:
        msg = f"{path} is damaged, it {error}; restore it, or name another --out and begin again"
        raise ConfigError(msg) from error
