"""What the verbs of the command line share: options, reading the YAML, printing what came out."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from thawmap.errors import ConfigError
from thawmap.text import printable

if TYPE_CHECKING:
    import pandas as pd

    from thawmap import Summary
    from thawmap.config import Config

Sets = Annotated[tuple[str, ...], Parameter(name="--set", negative="", consume_multiple=False)]
DryRun = Annotated[bool, Parameter(name="--dry-run", negative="")]
Resume = Annotated[bool, Parameter(name="--resume", negative="")]
Out = Annotated[Path, Parameter(name="--out")]
OptionalOut = Annotated[Path | None, Parameter(name="--out")]
Models = Annotated[tuple[Path, ...], Parameter(name="--model", negative="", consume_multiple=False)]
OptionalModel = Annotated[Path | None, Parameter(name="--model")]
Tiles = Annotated[Path | None, Parameter(name="--tiles")]
ConfigFile = Annotated[Path, Parameter(name="--config")]
OptionalConfigFile = Annotated[Path | None, Parameter(name="--config")]

_YAML = (".yaml", ".yml")


def is_yaml(path: Path) -> bool:
    """Whether a file is a YAML by its name."""
    return path.suffix in _YAML


def load_config(path: Path, overrides: tuple[str, ...]) -> "Config":
    """The configuration in a YAML, with what --set puts over it."""
    from thawmap.config import load  # noqa: PLC0415

    return load(path, overrides=overrides)


def config_or_file(path: Path, overrides: tuple[str, ...]) -> "Config | Path":
    """The configuration in a YAML, or a file that is none."""
    if is_yaml(path):
        return load_config(path, overrides)
    if overrides:
        msg = f"--set puts values over a YAML, and {path} is none; name the YAML"
        raise ConfigError(msg)
    return path


def finish(summary: "Summary") -> int:
    """Print what came out; the exit status."""
    if summary.table is not None and len(summary.table):
        print(_readable(summary.table).to_string(index=False))
    for line in summary.lines:
        print(printable(line))
    for name, error in summary.failed.items():
        print(printable(f"thawmap: {name} failed: {error}"), file=sys.stderr)
    if summary.failed:
        print(f"thawmap: {len(summary.failed)} failed, {summary.done} done", file=sys.stderr)
    return 1 if summary.failed else 0


def _readable(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with texts that can be shown."""
    return table.rename(columns=printable).map(lambda cell: printable(cell) if isinstance(cell, str) else cell)
