"""Grids of settings: all combinations of values listed for keys of the YAML."""

import json
import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from thawmap.config import Config, parse
from thawmap.errors import ConfigError
from thawmap.files.hashes import sha256

_LONGEST = 60  # letters of a folder's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One combination of the values of a grid.

    Attributes:
        name: Its name in results, such as "unet resnet34".
        changes: Key of the YAML to its value as JSON, in the order of the grid.
    """

    name: str
    changes: tuple[tuple[str, str], ...]

    def apply(self, config: Config) -> Config:
        """Return a configuration with this combination's values, checked as any YAML is.

        Raises:
            ConfigError: If a key does not exist, or a value is not allowed.
        """
        overrides = [f"{key}={value}" for key, value in self.changes]
        try:
            return parse(config.as_yaml(), name="crossval", folder=Path(), overrides=overrides)
        except ConfigError as error:
            msg = f"crossval.grid: {str(error).removeprefix('--set ')}"
            raise ConfigError(msg) from error


def grid_settings(config: Config) -> tuple[Setting, ...]:
    """Return a setting for each combination of a grid's values; one without a grid.

    That one changes nothing. The last key's values change first.
    """
    grid = config.crossval.grid
    if not grid:
        return (Setting(name=f"{config.model.architecture} {config.model.encoder}", changes=()),)
    combinations = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return tuple(
        Setting(
            name=" ".join(_readable(key, value) for key, value in values.items()),
            changes=tuple((key, json.dumps(value)) for key, value in values.items()),
        )
        for values in combinations
    )


def folder_name(text: str) -> str:
    """Return a text as a safe folder name, ending in a hash where it had to change.

    Blanks become +. Any file system takes the name, and no other text has it.

    >>> folder_name("Banks Island")
    'Banks+Island'
    >>> [folder_name(text).rpartition("-")[0] for text in ("Kolguev/2", "Kolguev:2")]
    ['Kolguev-2', 'Kolguev-2']
    >>> folder_name("Kolguev/2") == folder_name("Kolguev:2")
    False
    """
    safe = "+".join(re.sub(r"[^A-Za-z0-9._=-]+", "-", word) for word in text.split(" ")).lstrip(".-")[:_LONGEST]
    unchanged = safe.replace("+", " ") == text
    return safe if unchanged else f"{safe}-{sha256(text, digits=8)}"


def _readable(key: str, value: Any) -> str:
    """Return a key and value for people: a string alone, anything else as key=JSON."""
    return value if isinstance(value, str) else f"{key.rsplit('.', 1)[-1]}={json.dumps(value)}"
