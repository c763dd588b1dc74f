"""Layers that follow from other layers on the scene's grid: pure functions, registered with their needs.

The order of work and the halo follow from the needs; adding a layer is adding one function here and its units and
range to `thawmap.layers`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thawmap.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one layer is made from others.

    Attributes:
        needs: Layers that it is made from, in the order of the function's arguments.
        function: Takes arrays of one shape, in physical units with NaN where missing, and gives one of that shape;
            only operators and `clip`, so that it serves numpy arrays and torch tensors alike.
        halo: Pixels beyond a window's border that it has to see.
    """

    needs: tuple[str, ...]
    function: Callable[..., Any]
    halo: int = 0


def normalised_difference(first: Any, second: Any) -> Any:
    """(first - second) / (first + second), within -1 .. 1; NaN where either is missing or both are zero.

    Reflectances below zero (shadow, noise) count as zero, so that the index stays in its range.
    """
    first, second = first.clip(0), second.clip(0)
    return (first - second) / (first + second)


RECIPES: Mapping[str, Recipe] = {
    "ndvi": Recipe(needs=("nir", "red"), function=normalised_difference),
    "ndwi": Recipe(needs=("green", "nir"), function=normalised_difference),
}
"""Every derived layer, by name. NDVI is the paper's (section 2.2.1)."""


def order(layers: Sequence[str], *, available: frozenset[str]) -> tuple[list[str], list[str]]:
    """What to read and what to make, in this order, so that all of ``layers`` come out.

    A layer that a source has is read, never made.

    Raises:
        DataError: If a layer is neither read nor made.
    """
    reads: list[str] = []
    makes: list[str] = []
    for name in layers:
        _visit(name, reads, makes, available=available)
    return reads, makes


def obtainable(name: str, *, available: frozenset[str]) -> bool:
    """Whether a layer can be read, or made from what can."""
    recipe = RECIPES.get(name)
    made = recipe is not None and all(obtainable(need, available=available) for need in recipe.needs)
    return name in available or made


def _visit(name: str, reads: list[str], makes: list[str], *, available: frozenset[str]) -> None:
    if name in reads or name in makes:
        return
    if name in available:
        reads.append(name)
        return
    recipe = RECIPES.get(name)
    if recipe is None:
        msg = (
            f"layer {name!r} is in no source and no recipe makes it; sources have {', '.join(sorted(available))}, "
            f"recipes make {', '.join(RECIPES)}"
        )
        raise DataError(msg)
    for need in recipe.needs:
        _visit(need, reads, makes, available=available)
    makes.append(name)


def halo(makes: Sequence[str]) -> int:
    """Pixels beyond a window's border that all of ``makes`` together have to see."""
    reach: dict[str, int] = {}
    for name in makes:
        recipe = RECIPES[name]
        reach[name] = recipe.halo + max((reach.get(need, 0) for need in recipe.needs), default=0)
    return max(reach.values(), default=0)
