"""Help texts of the settings, read from the docstrings below their fields when somebody asks for them.

pydantic can read them by itself, but does so whenever the settings are imported, in a third of the time of that.
"""

import ast
import inspect
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from thawmap.config.inputs import Settings


def describe(schema: dict[str, Any], root: type[BaseModel]) -> dict[str, Any]:
    """Add the help text of every field of `Settings` to the JSON schema of ``root``; the same schema."""
    for settings in _below(Settings):
        section = schema if settings is root else schema["$defs"].get(settings.__name__, {})
        texts = {name: text for base in reversed(settings.__mro__) for name, text in _field_texts(base)}
        for name, field in section.get("properties", {}).items():
            if name in texts:
                field["description"] = texts[name]
    return schema


def _below(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for settings in base.__subclasses__():
        yield settings
        yield from _below(settings)


def _field_texts(settings: type) -> Iterator[tuple[str, str]]:
    """Names of a class's own fields and the strings right below them."""
    if not issubclass(settings, Settings):
        return
    (body,) = ast.parse(inspect.getsource(settings)).body
    assert isinstance(body, ast.ClassDef)
    for field, below in zip(body.body, body.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
