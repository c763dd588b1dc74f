"""Records of what results were made from: JSON settings, and stamps of files.

Two records are equal exactly when all that decides the result is; a fingerprint stands for one.
"""

import glob
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from thawmap.files.hashes import json_sha256


def stamp(path: Path) -> dict[str, Any]:
    """Return a dict of a file's name, size and time of last change, its stamp.

    Raises:
        OSError: If it cannot be asked.
    """
    status = path.stat()
    return {"name": path.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def stamps(path: Path) -> list[dict[str, Any]]:
    """Return a stamp (name, size, time) of each file with a path's stem, sorted.

    A Shapefile's .dbf, .prj and .aux.xml are among them; an empty list where there is none.
    """
    files = sorted(path.parent.glob(f"{glob.escape(path.stem)}.*"))
    return [stamp(file) for file in files if file.is_file()]


def fingerprint(made_from: Any) -> str:
    """Return the SHA-256 of a record of JSON values; the order of keys does not count."""
    return json_sha256(made_from)


def without(settings: Any, keys: Collection[str]) -> Any:
    """Return JSON settings without some keys, on every level of dicts.

    >>> without({"path": "a", "scale": {"path": "b", "factor": 2}}, {"path"})
    {'scale': {'factor': 2}}
    """
    if not isinstance(settings, dict):
        return settings
    return {key: without(value, keys) for key, value in settings.items() if key not in keys}


def differences(recorded: Mapping[str, Any], wanted: Mapping[str, Any], above: str = "") -> list[str]:
    """Return the dotted keys, such as a.b, whose values differ in two nested records.

    >>> differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}})
    ['a.c']
    """
    keys: list[str] = []
    for key in dict.fromkeys((*wanted, *recorded)):
        old, new = recorded.get(key), wanted.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            keys += differences(old, new, f"{above}{key}.")
        elif old != new:
            keys.append(f"{above}{key}")
    return keys
