"""Options that verbs share, reading the YAML, and printing a verb's summary."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from thawmap.errors import ConfigError
from thawmap.text import printable

if TYPE_CHECKING:
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
    """Return whether a file has the name of a YAML."""
    return path.suffix.lower() in _YAML


def load_config(path: Path, overrides: tuple[str, ...]) -> "Config":
    """Read the configuration in a YAML, with the texts of --set put over it."""
    from thawmap.config import load  # noqa: PLC0415

    return load(path, overrides=overrides)


def config_or_file(path: Path, overrides: tuple[str, ...]) -> "Config | Path":
    """Read the configuration if a file is a YAML; else return the path of the file.

    Raises:
        ConfigError: If the YAML is wrong, or --set is given without a YAML.
    """
    if is_yaml(path):
        return load_config(path, overrides)
    if overrides:
        msg = f"--set puts values over a YAML, and {path} is none; name the YAML"
        raise ConfigError(msg)
    return path


def finish(summary: "Summary") -> int:
    """Print a verb's summary and return the exit status.

    4 if work is left because patience ended, else 1 if an item failed, else 0.
    """
    if summary.rows:
        print("\n".join(_table_lines(summary.rows)))
    for line in summary.lines:
        print(printable(line))
    for name, error in summary.failed.items():
        print(printable(f"thawmap: {name} failed: {error}"), file=sys.stderr)
    if summary.failed:
        print(f"thawmap: {len(summary.failed)} failed, {summary.done} done", file=sys.stderr)
    if summary.left:
        print(printable(f"thawmap: {summary.left}"), file=sys.stderr)
        return 4
    return 1 if summary.failed else 0


def _table_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table: names of columns, then rows, all right-aligned."""
    lines = [list(rows[0]), *(row.values() for row in rows)]
    cells = [[printable(_cell(value)) for value in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        yield " ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))


def _cell(value: Any) -> str:
    """Return a table's value as text: floats with six digits, "" for None and NaN."""
    if value is None or value != value:  # noqa: PLR0124 - no number, and no missing one, equals itself
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
