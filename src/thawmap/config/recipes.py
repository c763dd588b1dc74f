"""Named ways of training: what stands in the YAML where the user says nothing."""

from typing import Any, Literal

Name = Literal["thawmap2026", "nitze2021"]

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "thawmap2026": {
        "training": {"loss": ["bce", "dice"], "schedule": "cosine"},
        "augment": {"gaps": {}},
    },
    "nitze2021": {"model": {"fill": "zero"}},
}
"""Section, key and value of what each differs in from the defaults of the keys, which are the paper's.

thawmap2026 is what did best on regions left out of 151 real scenes (docs/experiments.md).
"""

DEFAULT: Name = "thawmap2026"
"""The recipe of a YAML that names none."""


def under(raw: dict[str, Any]) -> dict[str, Any]:
    """A YAML's content with its recipe laid under it: a key that it names, whatever its value, is as it says.

    What is no recipe, or no section, stays as it is, for the check that follows.

    >>> under({"recipe": "nitze2021", "training": {"batch_size": 6}})
    {'recipe': 'nitze2021', 'training': {'batch_size': 6}, 'model': {'fill': 'zero'}}
    >>> under({"training": {"loss": "focal", "batch_size": 6}})["training"]
    {'loss': 'focal', 'schedule': 'cosine', 'batch_size': 6}
    """
    whole, name = dict(raw), raw.get("recipe", DEFAULT)
    for section, keys in RECIPES.get(name, {}).items() if isinstance(name, str) else ():
        said = whole.get(section, {})
        if isinstance(said, dict):
            whole[section] = keys | said
    return whole
