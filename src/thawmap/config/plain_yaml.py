"""YAML from strangers: bounded in size, of plain values only, with the line of every key.

Aliases cost a few bytes where they stand, and can stand for millions of values; a level costs a byte, and the libraries
one call of a function. So the size of what would be built is known before anything is.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from thawmap.errors import ConfigError

Place = tuple[str | int, ...]
"""A key of the YAML, from the outermost section inwards; numbers count the items of a list."""
LARGEST_BYTES = 2**20
"""Size of a YAML, far beyond any that a person writes."""
MOST_VALUES = 50_000
"""Keys and values of a YAML, those of an alias counted wherever it stands."""
DEEPEST = 20
"""Levels of a YAML."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is twenty times as fast, and not everywhere
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map")}
_STRING, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML's content.

    Attributes:
        value: What it says.
        lines: Where each of its keys stands, as ``file:line``.
        texts: How each of its values is written.
    """

    value: Any
    lines: dict[Place, str] = field(default_factory=dict)
    texts: dict[Place, str] = field(default_factory=dict)


def read_yaml(text: str, name: str) -> Document:
    """Read a YAML text; ``name`` stands for it in messages.

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
            _note(node, (), document, name)
            return replace(document, value=_unshared(loader.construct_document(node)))
        finally:
            loader.dispose()
    except (
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        ValueError,
    ) as error:  # of what is in its tags
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark else name
        reason = " ".join(str(getattr(error, "problem", error)).split())[:200]
        msg = f"{place}: not valid YAML ({reason}); check indentation, colons and quotes"
        raise ConfigError(msg) from error


def check_size(text: str, name: str) -> None:
    """Refuse what is too deep or too large to be built, by its events alone.

    Raises:
        ConfigError: If it is, or an alias stands within what it stands for.
    """
    sizes: dict[str, int] = {}  # of what each anchor names
    open_: list[
        tuple[str | None, int]
    ] = []  # anchor and number of values before it, of collections not yet at their end
    count = 0
    for event in yaml.parse(text, Loader=_Loader):
        here = f"{name}:{event.start_mark.line + 1 if event.start_mark else 1}"
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            if anchor in {outer for outer, _ in open_}:
                msg = f"{here}: the alias *{anchor} contains itself; write out what it stands for"
                raise ConfigError(msg)
            count += sizes.get(anchor or "", 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((anchor, count))
        elif isinstance(event, yaml.CollectionEndEvent):
            ended, before = open_.pop()
            count += 1
            sizes |= {ended: count - before} if ended else {}
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            sizes |= {anchor: 1} if anchor else {}
        if len(open_) > DEEPEST or count > MOST_VALUES:
            much = f"more than {DEEPEST} levels" if len(open_) > DEEPEST else f"more than {MOST_VALUES} values"
            msg = f"{here}: a configuration cannot have {much}, those of aliases included; write it shorter"
            raise ConfigError(msg)


def _note(node: yaml.Node, path: Place, document: Document, name: str) -> None:
    """Note where the keys below a node stand, and how its values are written.

    Raises:
        ConfigError: If a key stands twice, or is no text.
    """
    here = f"{name}:{node.start_mark.line + 1}"
    document.lines.setdefault(path, here)
    if node.tag not in _TAGS:
        msg = f"{here}: not valid YAML ('{node.tag}' has no meaning in a configuration); write plain values"
        raise ConfigError(msg)
    if isinstance(node, yaml.ScalarNode):
        document.texts[path] = node.value
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note(item, (*path, index), document, name)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = f"{name}:{key.start_mark.line + 1}"
            inner = (*path, _key(key, line))
            if inner in document.lines:
                msg = f"{line}: key '{'.'.join(map(str, inner))}' stands twice; keep one"
                raise ConfigError(msg)
            document.lines[inner] = line
            _note(value, inner, document, name)


def _unshared(value: Any) -> Any:
    """Copies of what aliases share, so that a change in one place is one in that place only."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _key(node: yaml.Node, line: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        msg = f"{line}: a key is a list or a section; keys are texts, such as 'scenes'"
        raise ConfigError(msg)
    text = str(node.value)
    if node.tag not in (_STRING, _MERGE):
        msg = f"{line}: key {text} is no text in YAML; put it in quotes: '{text}'"
        raise ConfigError(msg)
    return text
