"""Help texts of the settings, read from the strings below their fields on demand.

pydantic can read them by itself, but does so at every import of the settings, and takes a third of its time.
"""

import ast
import inspect
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from thawmap.config.inputs import Settings


def describe(schema: dict[str, Any], root: type[BaseModel]) -> dict[str, Any]:
    """Add the help text of every field to a JSON schema, in place; return it.

    ``schema`` is that of ``root``.
    """
    for settings in _subclasses(Settings):
        section = schema if settings is root else schema["$defs"].get(settings.__name__, {})
        texts = {name: text for base in reversed(settings.__mro__) for name, text in _field_texts(base)}
        for name, field in section.get("properties", {}).items():
            if name in texts:
                field["description"] = texts[name]
    return schema


def _subclasses(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield all subclasses of a class, and those of its subclasses."""
    for settings in base.__subclasses__():
        yield settings
        yield from _subclasses(settings)


def _field_texts(settings: type) -> Iterator[tuple[str, str]]:
    """Yield name and help text of each field that a class itself defines, from source."""
    if not issubclass(settings, Settings):
        return
    (body,) = ast.parse(inspect.getsource(settings)).body
    assert isinstance(body, ast.ClassDef)
    # Python throws away a string below a field, so the source is parsed
    for field, following in zip(body.body, body.body[1:], strict=False):
        match field, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
