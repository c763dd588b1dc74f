"""Reading the YAML; messages name the file, the line, the key and the nearest key."""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from thawmap.config.plain_yaml import LARGEST_BYTES, Document, KeyPath, read_yaml
from thawmap.config.schema import Config
from thawmap.errors import ConfigError, suggest
from thawmap.text import printable, whole_number

_KINDS: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", date: "a date"}
_NO_TEXT = ("string_type", "path_type")  # types of pydantic's errors for values that had to be text
_MOST_SHOWN = 200  # characters of a value that a message shows


def load(path: Path, *, overrides: Sequence[str] = ()) -> Config:
    """Read and check a configuration from a YAML file, with KEY=VALUE put over it.

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
    """Read and check a configuration from a YAML text, with KEY=VALUE put over it.

    Args:
        text: The YAML.
        name: Name of the text in messages.
        folder: Folder from which relative paths count.
        overrides: ``KEY=VALUE`` each, such as ``training.batch_size=8``.

    Raises:
        ConfigError: If the text is not YAML, or a key or value is not allowed; the message names file, line, key and
            remedy.
    """
    document = read_yaml(text, name)
    if not isinstance(document.value, dict):
        msg = f"{name}: a configuration has keys such as 'scenes' and 'labels'; see 'thawmap init'"
        raise ConfigError(msg)
    for override in overrides:
        _override(document, override)
    try:
        return Config.model_validate(document.value, context={"folder": folder})
    except ConfigError as error:
        msg = f"{document.lines.get(('layers',), name)}: {error}"
        raise ConfigError(msg) from error
    except ValidationError as error:
        raise ConfigError(_sentence(error, document)) from error


def json_schema() -> str:
    """Return the JSON schema of the YAML as text, for editors that complete and check."""
    from thawmap.config.descriptions import describe  # noqa: PLC0415 - only the schema needs it

    return json.dumps(describe(Config.model_json_schema(), Config), indent=2)


def _override(document: Document, override: str) -> None:
    """Set one key of a YAML document, in place, from a text such as "a.b=value".

    Its position becomes "--set a.b=value".

    Raises:
        ConfigError: If it has no such form, its value is not YAML, or the document has no such key.
    """
    key, equals, text = override.partition("=")
    source = f"--set {printable(override[:_MOST_SHOWN])}"
    if not equals or not key:
        msg = f"{source}: not of the form KEY=VALUE, such as training.batch_size=8"
        raise ConfigError(msg)
    try:
        replacement = read_yaml(text, "")
    except ConfigError as error:
        msg = f"{source}: {str(error).partition(': ')[2]}"
        raise ConfigError(msg) from error
    path: KeyPath = ()
    section: Any = document.value
    try:
        *outer, last = key.split(".")
        for word in outer:
            path = (*path, _key_or_index(section, word))
            section = section.setdefault(word, {}) if isinstance(section, dict) else section[path[-1]]
        path = (*path, _key_or_index(section, last))
        section[path[-1]] = replacement.value
    except (TypeError, IndexError, AttributeError) as error:
        shown = printable(key[:_MOST_SHOWN])
        msg = f"{source}: the configuration has no place {shown!r}; see 'thawmap config' for its keys"
        raise ConfigError(msg) from error
    # lines and texts of the value that was replaced, and of all below it, are no longer true
    for records in (document.lines, document.texts):
        for replaced in [other for other in records if other[: len(path)] == path]:
            del records[replaced]
    for end in range(1, len(path) + 1):
        document.lines.setdefault(path[:end], source)
    document.texts.update({(*path, *below): written for below, written in replacement.texts.items()})


def _key_or_index(section: Any, word: str) -> str | int:
    """Return a word of a dotted key: as an int if it is a list's index, else as it is."""
    number = whole_number(word)
    return word if number is None or isinstance(section, dict) else number


def _sentence(error: ValidationError, document: Document) -> str:
    """Return a sentence on the worst of pydantic's faults, with its line in the YAML.

    And with the number of others.
    """
    faults = [(_key_path(fault, document.value), fault) for fault in error.errors()]
    first = faults[0][0]
    unknown = [path for path, fault in faults if fault["type"] == "extra_forbidden"]
    within = [path for path, _ in faults if path[: len(first)] == first]
    # other faults often follow from an unknown key; without one the deepest of the first says the most
    chosen = unknown[0] if unknown else max(within, key=len)
    message = _message(chosen, [fault for path, fault in faults if path == chosen], document)
    others = {path for path, _ in faults if path != chosen[: len(path)]}
    more = f" (and {len(others)} more)" if others else ""
    # a key that is missing has no line; the section that lacks it has
    nearest = next(chosen[:end] for end in range(len(chosen), -1, -1) if chosen[:end] in document.lines)
    return f"{document.lines[nearest]}: {message}{more}"


def _key_path(fault: ErrorDetails, raw: Mapping[str, Any]) -> KeyPath:
    """Return the keys in the YAML that lead to one of pydantic's faults, a tuple.

    pydantic puts the names of the types that it tried between them; these are left out.
    """
    path: list[str | int] = []
    value: Any = raw
    for key in fault["loc"]:
        inside = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        if key in inside:
            value = value[key]
            path.append(key)
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return (*path, fault["ctx"]["discriminator"].strip("'")) if isinstance(value, dict) else tuple(path)
    return (*path, fault["loc"][-1]) if fault["type"] == "missing" else tuple(path)


def _message(path: KeyPath, faults: Sequence[ErrorDetails], document: Document) -> str:
    """Return a sentence on the faults of the value at a path, without its line.

    ``faults`` are several where several types were tried, each with a fault of its own.
    """
    key, fault = ".".join(map(str, path)) or "the configuration", faults[0]
    if fault["type"] == "extra_forbidden":
        allowed_keys = _keys_at(path[:-1], document.value)
        return f"unknown key '{key}'; {suggest(str(path[-1]), allowed_keys, otherwise='known here')}"
    if fault["type"] == "union_tag_invalid":
        return f"'{key}' is {fault['ctx']['tag']!r}: must be {fault['ctx']['expected_tags'].replace(', ', ' or ')}"
    if fault["type"] in ("missing", "union_tag_not_found"):
        return f"key '{key}' is missing; add it"
    if fault["type"] == "model_type":
        return (
            f"'{key}' must have keys of its own: {', '.join(_keys_at(path, document.value))}; give one, or leave it out"
        )
    if all(each["type"] in _NO_TEXT for each in faults) and path in document.texts and fault["input"] is not None:
        kind = next((noun for type_, noun in _KINDS.items() if isinstance(fault["input"], type_)), "no text")
        return f"'{key}' is {document.texts[path]}, which is {kind} in YAML; put it in quotes: '{document.texts[path]}'"
    allowed = " or ".join(dict.fromkeys(_plain(fault["msg"]) for fault in faults)).replace(" or must be ", " or ")
    is_plain, written = isinstance(fault["input"], str | int | float | bool), repr(fault["input"])
    shown = written if len(written) <= _MOST_SHOWN else f"{written[:_MOST_SHOWN]}..."
    return f"'{key}'{f' is {shown}' if is_plain else ''}: {allowed}"


def _plain(message: str) -> str:
    """Return a message of pydantic in the words of a YAML, its first letter small."""
    for pydantic_words, yaml_words in (
        ("Value error, ", ""),
        ("Input should be", "must be"),
        (" after validation", ""),
        ("a valid tuple", "a list such as [a, b]"),
        ("a valid dictionary or instance of LayerSettings", "a section of keys"),
        ("a valid dictionary or object to extract fields from", "a section of keys"),
        ("a valid dictionary", "a section of keys"),
    ):
        message = message.replace(pydantic_words, yaml_words)
    return message[:1].lower() + message[1:]


def _keys_at(path: KeyPath, raw: Mapping[str, Any]) -> list[str]:
    """Return the names of the keys that the section at a path of the YAML may have.

    They depend on the section's `kind` or `name` in the YAML, ``raw``.
    """
    schema = Config.model_json_schema()
    node: Any = schema
    value: Any = raw
    # down the schema and the YAML together: which schema holds below depends on the value beside it
    for key in path:
        node = _section_schema(node, schema["$defs"], value)
        below = node.get("properties", {}).get(key) or node.get("items")
        node = below or node.get("additionalProperties") or {}
        inside = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
        value = inside.get(key)
    return list(_section_schema(node, schema["$defs"], value).get("properties", {}))


def _section_schema(node: dict[str, Any], definitions: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """Return the section or list of a JSON schema that fits a value, at a node.

    References are followed. Where several are allowed, it is that of a list for a list, that of the value's own `kind`
    or `name` for a section, else the first that is defined; the node itself where nothing is.
    """
    options: list[dict[str, Any]] = [node, *node.get("anyOf", ()), *node.get("oneOf", ())]
    lists = [option for option in options if "items" in option]
    if lists and isinstance(value, list):
        return lists[0]
    tags = [option["discriminator"] for option in options if "discriminator" in option]
    if tags and isinstance(value, dict):
        options = [{"$ref": tags[0]["mapping"].get(str(value.get(tags[0]["propertyName"])), "")}]
    sections = [option for option in options if option.get("$ref")]
    section: dict[str, Any] = definitions[sections[0]["$ref"].rsplit("/", 1)[-1]] if sections else node
    return section
