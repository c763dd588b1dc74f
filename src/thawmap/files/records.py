"""JSON files that others may have written, checked by a schema.

A value has the type that its schema names, and is not converted to it; numbers are finite.
"""

import json
import reprlib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

_DEEPEST = 50  # levels of lists and objects; our own files have fewer than ten


class Record(BaseModel):
    """Schema of a JSON object; other keys than its own may hold anything."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Record)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file as a dict; refuse what is no object or nested too deeply.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds something else; the message goes on after the file's name.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except ValueError as error:
        msg = "is not JSON"
        raise ValueError(msg) from error
    if not isinstance(content, dict):
        msg = f"holds a {type(content).__name__} where an object with keys is expected"
        raise ValueError(msg)  # noqa: TRY004 - a fault of the file, not of the call
    _check_depth(content)
    return content


def read(path: Path, kind: type[Record]) -> dict[str, Any]:
    """Read a JSON file as a dict, and refuse one that does not fit a schema.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds something else; the message goes on after the file's name.
    """
    content = read_object(path)
    checked(content, kind)
    return content


def checked(content: object, kind: type[Kind]) -> Kind:
    """Return content as an object of a schema; refuse what does not fit it.

    Raises:
        ValueError: If one has another type or is out of range; the message goes on after the file's name.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        got = reprlib.repr(fault["input"])  # which stays short, however much there is
        rule = fault["msg"].replace("Value error, ", "").replace("Input should be", "must be")  # pydantic's words
        complaint = "is missing" if fault["type"] == "missing" else f"is {got}: {rule[:1].lower()}{rule[1:]}"
        msg = f"has a wrong value: '{key}' {complaint}"
        raise ValueError(msg) from error


_TOO_DEEP = f"is nested more than {_DEEPEST} levels deep"


def _check_depth(content: object) -> None:
    """Refuse JSON values that are nested more than 50 levels deep.

    Recursion could not follow them.
    """
    level = [content]
    for _ in range(_DEEPEST):
        parents = [value for value in level if isinstance(value, dict | list)]
        level = [child for parent in parents for child in (parent.values() if isinstance(parent, dict) else parent)]
        if not level:
            return
    raise ValueError(_TOO_DEEP)
