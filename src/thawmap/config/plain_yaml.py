"""YAML of unknown origin: bounded, of plain values, with the line of each key.

An alias is a few bytes and can stand for millions of values; a level is one byte, and takes the libraries one call of a
function. So the size of what would be built is counted before anything is built.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from thawmap.errors import ConfigError

KeyPath = tuple[str | int, ...]
"""A key with the sections around it, from outside inwards; numbers count in lists."""
LARGEST_BYTES = 2**20
"""Most bytes of a YAML, far beyond any that a person writes."""
MOST_VALUES = 50_000
"""Most keys and values of a YAML, those of an alias counted wherever it stands."""
DEEPEST = 20
"""Most levels of a YAML."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is twenty times as fast, and not everywhere
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map")}
_STRING, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Document:
    """Content of a YAML, with the line of each key and the text of each value.

    Attributes:
        value: Its values, in dicts and lists; None where it is empty.
        lines: Key to its position, as ``file:line``.
        texts: Key to its value as it is written, of those that are no section or list.
    """

    value: Any
    lines: dict[KeyPath, str] = field(default_factory=dict)
    texts: dict[KeyPath, str] = field(default_factory=dict)


def read_yaml(text: str, name: str) -> Document:
    """Read a YAML text's plain values, with the line and text of each; refuse others.

    ``name`` stands for the text in messages.

    Raises:
        ConfigError: If it is not YAML, too large, too deep, has values that are not plain, or a key that is no text or
            stands twice.
    """
    document = Document(None)
    try:
        check_size(text, name)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return document
            _record(node, (), document, name)
            return replace(document, value=_without_sharing(loader.construct_document(node)))
        finally:
            loader.dispose()
    # PyYAML lets the errors of Python's own conversions out, such as those of a date that is none
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        position = f"{name}:{mark.line + 1}" if mark else name
        reason = " ".join(str(getattr(error, "problem", error)).split())[:200]
        msg = f"{position}: not valid YAML ({reason}); check indentation, colons and quotes"
        raise ConfigError(msg) from error


def check_size(text: str, name: str) -> None:
    """Refuse a YAML text with too many levels or values, before anything is built.

    ``name`` stands for the text in messages.

    Raises:
        ConfigError: If there are too many, or an alias stands within what it stands for.
    """
    sizes: dict[str, int] = {}  # anchor to the number of values that its aliases stand for
    unclosed: list[tuple[str | None, int]] = []  # anchor of each open collection, and the values before it
    count = 0
    for event in yaml.parse(text, Loader=_Loader):
        position = f"{name}:{event.start_mark.line + 1 if event.start_mark else 1}"
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            if anchor in {outer for outer, _ in unclosed}:
                msg = f"{position}: the alias *{anchor} contains itself; write out what it stands for"
                raise ConfigError(msg)
            count += sizes.get(anchor or "", 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            unclosed.append((anchor, count))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed, before = unclosed.pop()
            count += 1
            sizes |= {closed: count - before} if closed else {}
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            sizes |= {anchor: 1} if anchor else {}
        if len(unclosed) > DEEPEST or count > MOST_VALUES:
            excess = f"more than {DEEPEST} levels" if len(unclosed) > DEEPEST else f"more than {MOST_VALUES} values"
            msg = f"{position}: a configuration cannot have {excess}, those of aliases included; write it shorter"
            raise ConfigError(msg)


def _record(node: yaml.Node, path: KeyPath, document: Document, name: str) -> None:
    """Add lines and texts of a YAML node and all in it to a document; refuse repeats.

    Raises:
        ConfigError: If a key stands twice or is no text, or a value is not plain.
    """
    position = f"{name}:{node.start_mark.line + 1}"
    document.lines.setdefault(path, position)
    if node.tag not in _TAGS:
        msg = f"{position}: not valid YAML ('{node.tag}' has no meaning in a configuration); write plain values"
        raise ConfigError(msg)
    if isinstance(node, yaml.ScalarNode):
        document.texts[path] = node.value
    if isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            _record(entry, (*path, index), document, name)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = f"{name}:{key.start_mark.line + 1}"
            inner = (*path, _read_key(key, line))
            if inner in document.lines:
                msg = f"{line}: key '{'.'.join(map(str, inner))}' stands twice; keep one"
                raise ConfigError(msg)
            document.lines[inner] = line
            _record(value, inner, document, name)


def _without_sharing(value: Any) -> Any:
    """Return a copy of a YAML's value in which no section or list is shared.

    Aliases share them; in the copy one can change alone.
    """
    if isinstance(value, dict):
        return {key: _without_sharing(inner) for key, inner in value.items()}
    return [_without_sharing(inner) for inner in value] if isinstance(value, list) else value


def _read_key(node: yaml.Node, line: str) -> str:
    """Return the text of a YAML key; refuse a key that is no text.

    ``line`` is its position, as ``file:line``.

    Raises:
        ConfigError: If the key is no text.
    """
    if not isinstance(node, yaml.ScalarNode):
        msg = f"{line}: a key is a list or a section; keys are texts, such as 'scenes'"
        raise ConfigError(msg)
    text = str(node.value)
    if node.tag not in (_STRING, _MERGE):
        msg = f"{line}: key {text} is no text in YAML; put it in quotes: '{text}'"
        raise ConfigError(msg)
    return text
