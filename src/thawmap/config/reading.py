"""Reading the YAML: what is wrong is said with the file, the line, the key, and the nearest known one."""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from thawmap.config.plain_yaml import LARGEST_BYTES, Document, Place, read_yaml
from thawmap.config.schema import Config
from thawmap.errors import ConfigError, suggest
from thawmap.text import printable, whole_number

_KINDS: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", date: "a date"}
_OF_TEXT = ("string_type", "path_type")  # faults of values that had to be text
_SHOWN = 200  # characters of a value that a message shows


def load(path: Path, *, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, with ``KEY=VALUE`` overrides.

    Raises:
        ConfigError: If the file is missing or not YAML, or a key or value is not allowed; the message names
            file, line, key and remedy.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
        text = content.decode()
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); name a YAML file, or make one with 'thawmap init'"
        raise ConfigError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path} is not text; a configuration is a YAML file in UTF-8"
        raise ConfigError(msg) from error
    if len(content) > LARGEST_BYTES:
        msg = f"{path} is larger than a configuration may be (1 MiB); name scenes in a table ('scenes.table')"
        raise ConfigError(msg)
    return parse(text, name=str(path), folder=path.resolve().parent, overrides=overrides)


def parse(text: str, *, name: str, folder: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML text.

    Args:
        text: The YAML.
        name: What stands for it in messages.
        folder: Where relative paths count from.
        overrides: ``KEY=VALUE`` each, such as ``training.batch_size=8``.

    Raises:
        ConfigError: As `load`.
    """
    read = read_yaml(text, name)
    if not isinstance(read.value, dict):
        msg = f"{name}: a configuration has keys such as 'scenes' and 'labels'; see 'thawmap init'"
        raise ConfigError(msg)
    for override in overrides:
        _override(read, override)
    try:
        return Config.model_validate(read.value, context={"folder": folder})
    except ConfigError as error:
        msg = f"{read.lines.get(('layers',), name)}: {error}"
        raise ConfigError(msg) from error
    except ValidationError as error:
        raise ConfigError(_sentence(error, read)) from error


def json_schema() -> str:
    """The JSON schema of the YAML, for editors that complete it."""
    from thawmap.config.descriptions import describe  # noqa: PLC0415 - only the schema needs it

    return json.dumps(describe(Config.model_json_schema(), Config), indent=2)


def _override(read: Document, override: str) -> None:
    """Put one ``a.b=value`` into what was read, and note where it came from; the value is read as YAML."""
    key, equals, text = override.partition("=")
    source = f"--set {printable(override[:_SHOWN])}"
    if not equals or not key:
        msg = f"{source}: not of the form KEY=VALUE, such as training.batch_size=8"
        raise ConfigError(msg)
    try:
        value = read_yaml(text, "")
    except ConfigError as error:
        msg = f"{source}: {str(error).partition(': ')[2]}"
        raise ConfigError(msg) from error
    path: Place = ()
    place: Any = read.value
    try:
        *outer, last = key.split(".")
        for part in outer:
            path = (*path, _step(place, part))
            place = place.setdefault(part, {}) if isinstance(place, dict) else place[path[-1]]
        path = (*path, _step(place, last))
        place[path[-1]] = value.value
    except (TypeError, IndexError, AttributeError) as error:
        msg = f"{source}: the configuration has no place {printable(key[:_SHOWN])!r}; see 'thawmap config' for its keys"
        raise ConfigError(msg) from error
    for noted in (read.lines, read.texts):
        for known in [known for known in noted if known[: len(path)] == path]:
            del noted[known]
    for end in range(1, len(path) + 1):
        read.lines.setdefault(path[:end], source)
    read.texts.update({(*path, *below): written for below, written in value.texts.items()})


def _step(place: Any, part: str) -> str | int:
    """The key of a section, or the number of an item of a list."""
    number = whole_number(part)
    return part if number is None or isinstance(place, dict) else number


def _sentence(error: ValidationError, read: Document) -> str:
    """The most telling fault as one sentence, and how many others there are."""
    faults = [(_path(fault, read.value), fault) for fault in error.errors()]
    first = faults[0][0]
    unknown = [path for path, fault in faults if fault["type"] == "extra_forbidden"]
    within = [path for path, _ in faults if path[: len(first)] == first]
    chosen = unknown[0] if unknown else max(within, key=len)
    said = _said(chosen, [fault for path, fault in faults if path == chosen], read)
    others = {path for path, _ in faults if path != chosen[: len(path)]}
    more = f" (and {len(others)} more)" if others else ""
    known = next(chosen[:end] for end in range(len(chosen), -1, -1) if chosen[:end] in read.lines)
    return f"{read.lines[known]}: {said}{more}"


def _path(fault: ErrorDetails, raw: Mapping[str, Any]) -> Place:
    """The keys of a fault as they stand in the YAML, without the names of the types that were tried."""
    path: list[str | int] = []
    value: Any = raw
    for part in fault["loc"]:
        inside = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        if part in inside:
            value = value[part]
            path.append(part)
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return (*path, fault["ctx"]["discriminator"].strip("'")) if isinstance(value, dict) else tuple(path)
    return (*path, fault["loc"][-1]) if fault["type"] == "missing" else tuple(path)


def _said(path: Place, faults: Sequence[ErrorDetails], read: Document) -> str:
    """What is wrong with the value at ``path``; several faults are what each of several types found."""
    key, fault = _dotted(path) or "the configuration", faults[0]
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {suggest(str(path[-1]), _keys_at(path[:-1], read.value), otherwise='known here')}"
    if fault["type"] == "union_tag_invalid":
        return f"'{key}' is {fault['ctx']['tag']!r}: must be {fault['ctx']['expected_tags'].replace(', ', ' or ')}"
    if fault["type"] in ("missing", "union_tag_not_found"):
        return f"key '{key}' is missing; add it"
    if fault["type"] == "model_type":
        return f"'{key}' must have keys of its own: {', '.join(_keys_at(path, read.value))}; give one, or leave it out"
    if all(each["type"] in _OF_TEXT for each in faults) and path in read.texts and fault["input"] is not None:
        kind = next((said for of, said in _KINDS.items() if isinstance(fault["input"], of)), "no text")
        return f"'{key}' is {read.texts[path]}, which is {kind} in YAML; put it in quotes: '{read.texts[path]}'"
    allowed = " or ".join(dict.fromkeys(_plain(fault["msg"]) for fault in faults)).replace(" or must be ", " or ")
    got = f" is {_shortened(fault['input'])}" if isinstance(fault["input"], str | int | float | bool) else ""
    return f"'{key}'{got}: {allowed}"


def _shortened(value: object) -> str:
    """The value as Python writes it, without the middle of a long one."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _plain(message: str) -> str:
    """A message of pydantic in the words of a YAML."""
    for theirs, ours in (
        ("Value error, ", ""),
        ("Input should be", "must be"),
        (" after validation", ""),
        ("a valid tuple", "a list such as [a, b]"),
        ("a valid dictionary or instance of LayerSettings", "a section of keys"),
        ("a valid dictionary or object to extract fields from", "a section of keys"),
        ("a valid dictionary", "a section of keys"),
    ):
        message = message.replace(theirs, ours)
    return message[:1].lower() + message[1:]


def _dotted(path: Place) -> str:
    return ".".join(str(part) for part in path)


def _keys_at(path: Place, raw: Mapping[str, Any]) -> list[str]:
    """Keys that the section at ``path`` knows, as its `kind` or `name` in the YAML says."""
    schema = Config.model_json_schema()
    place: Any = schema
    value: Any = raw
    for part in path:
        place = _section(place, schema["$defs"], value)
        below = place.get("properties", {}).get(part) or place.get("items")
        place = below or place.get("additionalProperties") or {}
        inside = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
        value = inside.get(part)
    return list(_section(place, schema["$defs"], value).get("properties", {}))


def _section(place: dict[str, Any], definitions: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """A place of the schema, or what it refers to: of several kinds the value's, of several types the section."""
    options: list[dict[str, Any]] = [place, *place.get("anyOf", ()), *place.get("oneOf", ())]
    lists = [option for option in options if "items" in option]
    if lists and isinstance(value, list):
        return lists[0]
    tags = [option["discriminator"] for option in options if "discriminator" in option]
    if tags and isinstance(value, dict):
        options = [{"$ref": tags[0]["mapping"].get(str(value.get(tags[0]["propertyName"])), "")}]
    sections = [option for option in options if option.get("$ref")]
    found: dict[str, Any] = definitions[sections[0]["$ref"].rsplit("/", 1)[-1]] if sections else place
    return found
