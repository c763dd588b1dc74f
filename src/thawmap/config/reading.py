"""Reading the YAML: what is wrong is said with the file, the line, the key, and the nearest known one."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from thawmap.config.schema import Config
from thawmap.errors import ConfigError

Place = tuple[str | int, ...]
"""A key of the YAML, from the outermost section inwards; numbers count the items of a list."""
DEEPEST = 20
"""Levels of a YAML; more means that it contains itself."""


def load(path: Path, *, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, with ``KEY=VALUE`` overrides.

    Raises:
        ConfigError: If the file is missing or not YAML, or a key or value is not allowed; the message names
            file, line, key and remedy.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); name a YAML file, or make one with 'thawmap init'"
        raise ConfigError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path} is not text; a configuration is a YAML file in UTF-8"
        raise ConfigError(msg) from error
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
    raw, places = _read_yaml(text, name)
    for override in overrides:
        _override(raw, places, override)
    try:
        return Config.model_validate(raw, context={"folder": folder})
    except ConfigError as error:
        msg = f"{places.get(('layers',), name)}: {error}"
        raise ConfigError(msg) from error
    except ValidationError as error:
        raise ConfigError(_sentence(error, raw, places)) from error


def json_schema() -> str:
    """The JSON schema of the YAML, for editors that complete it."""
    from thawmap.config.descriptions import describe  # noqa: PLC0415 - only the schema needs it

    return json.dumps(describe(Config.model_json_schema(), Config), indent=2)


def _read_yaml(text: str, name: str) -> tuple[dict[str, Any], dict[Place, str]]:
    """The YAML's content, and where each of its keys stands as ``file:line``."""
    places: dict[Place, str] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            msg = f"{name}: a configuration has keys such as 'scenes' and 'labels'; see 'thawmap init'"
            raise ConfigError(msg)
        _note_lines(node, (), places, name)
        return yaml.safe_load(text), places
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark else name
        reason = " ".join(str(getattr(error, "problem", error)).split())
        msg = f"{place}: not valid YAML ({reason}); check indentation, colons and quotes"
        raise ConfigError(msg) from error


def _note_lines(node: yaml.Node, path: Place, places: dict[Place, str], name: str) -> None:
    here = f"{name}:{node.start_mark.line + 1}"
    places.setdefault(path, here)
    if len(path) > DEEPEST:
        msg = f"{here}: '{path[0]}' is nested more than {DEEPEST} levels deep; an alias must not contain itself"
        raise ConfigError(msg)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*path, index), places, name)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            line = f"{name}:{key.start_mark.line + 1}"
            if inner in places:
                msg = f"{line}: key '{_dotted(inner)}' stands twice; keep one"
                raise ConfigError(msg)
            places[inner] = line
            _note_lines(value, inner, places, name)


def _override(raw: dict[str, Any], places: dict[Place, str], override: str) -> None:
    """Put one ``a.b=value`` into the raw mapping, and note where it came from; the value is read as YAML."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        msg = f"--set {override}: not of the form KEY=VALUE, such as training.batch_size=8"
        raise ConfigError(msg)
    parts = tuple(int(part) if part.isdigit() else part for part in key.split("."))
    place: Any = raw
    try:
        for part in parts[:-1]:
            place = place.setdefault(part, {}) if isinstance(place, dict) else place[part]
        place[parts[-1]] = yaml.safe_load(value)
    except (TypeError, IndexError, AttributeError) as error:
        msg = f"--set {override}: the configuration has no place {key!r}; see 'thawmap config' for its keys"
        raise ConfigError(msg) from error
    except (yaml.YAMLError, ValueError) as error:
        msg = f"--set {override}: the value is not valid YAML; put it in quotes"
        raise ConfigError(msg) from error
    for known in [known for known in places if known[: len(parts)] == parts]:
        del places[known]
    for end in range(1, len(parts) + 1):
        places.setdefault(parts[:end], f"--set {override}")


def _sentence(error: ValidationError, raw: Mapping[str, Any], places: Mapping[Place, str]) -> str:
    """The most telling fault as one sentence, and how many others there are."""
    faults = [(_path(fault, raw), fault) for fault in error.errors()]
    first = faults[0][0]
    unknown = [path for path, fault in faults if fault["type"] == "extra_forbidden"]
    within = [path for path, _ in faults if path[: len(first)] == first]
    chosen = unknown[0] if unknown else max(within, key=len)
    said = _said(chosen, [fault for path, fault in faults if path == chosen], raw)
    others = {path for path, _ in faults if path != chosen[: len(path)]}
    more = f" (and {len(others)} more)" if others else ""
    known = next(chosen[:end] for end in range(len(chosen), -1, -1) if chosen[:end] in places)
    return f"{places[known]}: {said}{more}"


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


def _said(path: Place, faults: Sequence[ErrorDetails], raw: Mapping[str, Any]) -> str:
    """What is wrong with the value at ``path``; several faults are what each of several types found."""
    key, fault = _dotted(path) or "the configuration", faults[0]
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {_nearest(str(path[-1]), _keys_at(path[:-1], raw))}"
    if fault["type"] == "union_tag_invalid":
        return f"'{key}' is {fault['ctx']['tag']!r}: must be {fault['ctx']['expected_tags'].replace(', ', ' or ')}"
    if fault["type"] in ("missing", "union_tag_not_found"):
        return f"key '{key}' is missing; add it"
    if fault["type"] == "model_type":
        return f"'{key}' must have keys of its own: {', '.join(_keys_at(path, raw))}; give one, or leave it out"
    allowed = " or ".join(dict.fromkeys(_plain(fault["msg"]) for fault in faults)).replace(" or must be ", " or ")
    got = f" is {fault['input']!r}" if isinstance(fault["input"], str | int | float | bool) else ""
    return f"'{key}'{got}: {allowed}"


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


def _nearest(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"


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
