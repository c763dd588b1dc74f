"""Recipes: named ways of training, which fill the keys that a YAML leaves out."""

from typing import Any, Literal

Name = Literal["thawmap2026", "nitze2021"]

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "thawmap2026": {
        "training": {"loss": ["bce", "dice"], "schedule": "cosine"},
        "augment": {"gaps": {}},
    },
    "nitze2021": {"model": {"fill": "zero"}},
}
"""Recipe to section to key to value, where it differs from the keys' defaults.

The defaults are the paper's.

thawmap2026 is what did best on regions left out of 151 real scenes (docs/experiments.md).
"""

DEFAULT: Name = "thawmap2026"
"""The recipe of a YAML that names none."""


def under(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a YAML's content, with its recipe's keys where it has none.

    A key that the YAML names keeps its value, whatever that is. What is no recipe, or no section, stays as it is, for
    the check that follows.

    >>> under({"recipe": "nitze2021", "training": {"batch_size": 6}})
    {'recipe': 'nitze2021', 'training': {'batch_size': 6}, 'model': {'fill': 'zero'}}
    >>> under({"training": {"loss": "focal", "batch_size": 6}})["training"]
    {'loss': 'focal', 'schedule': 'cosine', 'batch_size': 6}
    """
    content, name = dict(raw), raw.get("recipe", DEFAULT)
    for section, keys in RECIPES.get(name, {}).items() if isinstance(name, str) else ():
        own_keys = content.get(section, {})
        if isinstance(own_keys, dict):
            content[section] = keys | own_keys
    return content
