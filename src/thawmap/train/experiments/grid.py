"""A grid of settings: every combination of the values that are listed for keys of the YAML."""

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
    """One combination of a grid.

    Attributes:
        name: What stands for it in results, such as "unet resnet34".
        changes: Key of the YAML to its value as JSON, in the order of the grid.
    """

    name: str
    changes: tuple[tuple[str, str], ...]

    def apply(self, config: Config) -> Config:
        """``config`` with these values, checked as any YAML is.

        Raises:
            ConfigError: If a key does not exist, or a value is not allowed.
        """
        overrides = [f"{key}={value}" for key, value in self.changes]
        try:
            return parse(config.as_yaml(), name="crossval", folder=Path(), overrides=overrides)
        except ConfigError as error:
            msg = f"crossval.grid: {str(error).removeprefix('--set ')}"
            raise ConfigError(msg) from error


def settings(config: Config) -> tuple[Setting, ...]:
    """All combinations of the configuration's grid, the last key's values changing first; one where it has none."""
    grid = config.crossval.grid
    if not grid:
        return (Setting(name=f"{config.model.architecture} {config.model.encoder}", changes=()),)
    combinations = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    names = [" ".join(_said(key, value) for key, value in one.items()) for one in combinations]
    return tuple(
        Setting(name=name, changes=tuple((key, json.dumps(value)) for key, value in one.items()))
        for name, one in zip(names, combinations, strict=True)
    )


def folder_name(text: str) -> str:
    """A name that every file system takes, another for every other ``text``: what it cannot take ends in a hash.

    >>> folder_name("Banks Island")
    'Banks+Island'
    >>> [folder_name(text).rpartition("-")[0] for text in ("Kolguev/2", "Kolguev:2")]
    ['Kolguev-2', 'Kolguev-2']
    >>> folder_name("Kolguev/2") == folder_name("Kolguev:2")
    False
    """
    plain = "+".join(re.sub(r"[^A-Za-z0-9._=-]+", "-", word) for word in text.split(" ")).lstrip(".-")[:_LONGEST]
    same = plain.replace("+", " ") == text
    return plain if same else f"{plain}-{sha256(text, digits=8)}"


def _said(key: str, value: Any) -> str:
    """A value where people read it: a name stands for itself, anything else needs its key."""
    return value if isinstance(value, str) else f"{key.rsplit('.', 1)[-1]}={json.dumps(value)}"
