"""Layers that are derived from other layers on the same grid.

Each is a pure function, registered with the layers that it needs.
The order of work and the halo follow from the needs; adding a layer is adding one function here and its units and
range to `thawmap.layers`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thawmap.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The layers that one layer is derived from, the function, and its halo.

    Attributes:
        needs: Names of the layers that it is derived from, in the order of the function's arguments.
        function: Takes arrays of one shape, in physical units with NaN where missing, and gives one of that shape;
            only operators and `clip`, so that it serves numpy arrays and torch tensors alike.
        halo: Pixels beyond a window's border that it has to see.
    """

    needs: tuple[str, ...]
    function: Callable[..., Any]
    halo: int = 0


def normalised_difference(first: Any, second: Any) -> Any:
    """Return (first - second) / (first + second), with values below 0 taken as 0.

    Within -1 .. 1, which reflectances below zero (shadow, noise) would leave; NaN where either is missing or both are
    zero.
    """
    first, second = first.clip(0), second.clip(0)
    return (first - second) / (first + second)


RECIPES: Mapping[str, Recipe] = {
    "ndvi": Recipe(needs=("nir", "red"), function=normalised_difference),
    "ndwi": Recipe(needs=("green", "nir"), function=normalised_difference),
}
"""Every derived layer, by name. NDVI is the paper's (section 2.2.1)."""


def plan_layers(layers: Sequence[str], *, available: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return two lists of layer names: those to read, and those to derive from them.

    Together they hold all of ``layers``, and everything that recipes need on the way. A layer that a source has is
    read, never derived. In both lists a layer stands behind those that it needs.

    Raises:
        DataError: If a layer is neither available nor derived.
    """
    read: list[str] = []
    derived: list[str] = []

    def visit(name: str) -> None:
        if name in read or name in derived:
            return
        if name in available:
            read.append(name)
            return
        recipe = RECIPES.get(name)
        if recipe is None:
            msg = (
                f"layer {name!r} is in no source and no recipe makes it; sources have {', '.join(sorted(available))}, "
                f"recipes make {', '.join(RECIPES)}"
            )
            raise DataError(msg)
        for need in recipe.needs:
            visit(need)
        derived.append(name)

    for name in layers:
        visit(name)
    return read, derived


def obtainable(name: str, *, available: frozenset[str]) -> bool:
    """Return whether a layer is available, or can be derived from layers that are."""
    if name in available:
        return True
    recipe = RECIPES.get(name)
    return recipe is not None and all(obtainable(need, available=available) for need in recipe.needs)


def halo(derived: Sequence[str]) -> int:
    """Return the number of pixels beyond a window that deriving some layers needs.

    Args:
        derived: Names of derived layers, each behind those that it needs.
    """
    halos: dict[str, int] = {}
    for name in derived:
        recipe = RECIPES[name]
        halos[name] = recipe.halo + max((halos.get(need, 0) for need in recipe.needs), default=0)
    return max(halos.values(), default=0)
