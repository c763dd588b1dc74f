"""SHA-256 of files, texts and JSON values, whole or as short ids."""

import hashlib
import json
from pathlib import Path
from typing import Any

_ALL = 64


def file_sha256(path: Path, *, digits: int = _ALL) -> str:
    """Return the first ``digits`` hex digits of the SHA-256 of a file's bytes.

    The file is read piece by piece.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:digits]


def sha256(content: str | bytes, *, digits: int = _ALL) -> str:
    """Return the SHA-256 of bytes, or of a text in UTF-8, as ``digits`` hex digits.

    >>> sha256("thaw", digits=8)
    '8d5264f3'
    """
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:digits]


def json_sha256(value: Any, *, compact: bool = False, digits: int = _ALL) -> str:
    """Return the SHA-256 of a JSON value as hex, whatever the order of its keys.

    Args:
        value: Dicts, lists, texts, numbers, bools and None.
        compact: Without spaces behind commas and colons; which of both a hash on disk is of cannot change any more.
        digits: How many of the 64 digits are wanted.

    >>> json_sha256({"b": 1, "a": [2]}, digits=12) == json_sha256({"a": [2], "b": 1}, digits=12)
    True
    """
    separators = (",", ":") if compact else None
    return sha256(json.dumps(value, sort_keys=True, separators=separators), digits=digits)
