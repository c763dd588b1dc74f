"""Layers that are derived from other layers on the same grid.

Each is a pure function, registered with the layers that it needs, or a context layer, whose name says what it is
(`thawmap.data.context`). The order of work and the halo follow from the needs; adding a layer is adding one function
here and its units and range to `thawmap.layers`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thawmap.data.context import Surroundings, reach_px
from thawmap.errors import DataError
from thawmap.layers import Context, context_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The layers that one layer is derived from, the function, and its halo.

    Attributes:
        needs: Names of the layers that it is derived from, in the order of the function's arguments.
        function: Takes arrays of one shape, in physical units with NaN where missing, and gives one of that shape;
            only operators and `clip`, so that it serves numpy arrays and torch tensors alike.
        halo: Pixels beyond a window's border that it has to see.
        context: The surroundings that the layer describes, where it is a context layer; these have no function, and
            their halo follows from the size of the pixels.
    """

    needs: tuple[str, ...]
    function: Callable[..., Any]
    halo: int = 0
    context: Context | None = None

    @property
    def looks_around(self) -> bool:
        """True if a value depends on other pixels than its own."""
        return self.halo > 0 or self.context is not None


def normalised_difference(first: Any, second: Any) -> Any:
    """Return (first - second) / (first + second), with values below 0 taken as 0.

    Within -1 .. 1, which reflectances below zero (shadow, noise) would leave; NaN where either is missing or both are
    zero.
    """
    first, second = first.clip(0), second.clip(0)
    return (first - second) / (first + second)


def mean_of_three(first: Any, second: Any, third: Any) -> Any:
    """Return the mean of three layers, NaN where one of them is missing."""
    return (first + second + third) / 3


RECIPES: Mapping[str, Recipe] = {
    "ndvi": Recipe(needs=("nir", "red"), function=normalised_difference),
    "ndwi": Recipe(needs=("green", "nir"), function=normalised_difference),
    "redness": Recipe(needs=("red", "green"), function=normalised_difference),
    "visible": Recipe(needs=("blue", "green", "red"), function=mean_of_three),
}
"""Every derived layer but context layers, by name. NDVI is the paper's (section 2.2.1)."""


def recipe_of(name: str) -> Recipe | None:
    """Return the recipe of a derived layer, context layers among them; else None."""
    context = context_of(name)
    if name in RECIPES or context is None:
        return RECIPES.get(name)
    return Recipe(needs=(context.base,), function=_has_no_function, context=context)


def _has_no_function(*_: Any) -> Any:
    """Refuse to make a context layer without its surroundings."""
    msg = "a context layer is made from its surroundings"
    raise NotImplementedError(msg)


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
        recipe = recipe_of(name)
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
    recipe = recipe_of(name)
    return recipe is not None and all(obtainable(need, available=available) for need in recipe.needs)


def halo(derived: Sequence[str], *, pixel_m: float | None = None) -> int:
    """Return the number of pixels beyond a window that deriving some layers needs.

    Args:
        derived: Names of derived layers, each behind those that it needs.
        pixel_m: Side of a pixel in metres, which context layers ask for.
    """
    halos: dict[str, int] = {}
    for name in derived:
        recipe = _recipe(name)
        own = recipe.halo if recipe.context is None else reach_px(recipe.context, _side(name, pixel_m))
        halos[name] = own + max((halos.get(need, 0) for need in recipe.needs), default=0)
    return max(halos.values(), default=0)


def looks_around(derived: Sequence[str]) -> bool:
    """Return whether one of some derived layers is a context layer."""
    return any(_recipe(name).context is not None for name in derived)


def derive(
    values: Mapping[str, npt.NDArray[np.float32]],
    derived: Sequence[str],
    *,
    usable: npt.NDArray[np.bool_],
    pixel_m: float | None = None,
) -> dict[str, npt.NDArray[np.float32]]:
    """Make derived layers (y, x) from layers, in order; return both by name.

    Float32, NaN where missing. Surroundings are those pixels that are usable: a cloud is nobody's context.

    Args:
        values: Layers (y, x) by name, float32, NaN where missing.
        derived: Names of the layers to make, each behind those that it needs.
        usable: Pixels that may be used, (y, x).
        pixel_m: Side of a pixel in metres, which context layers ask for.
    """
    made, surroundings = dict(values), dict[str, Surroundings]()
    for name in derived:
        recipe = _recipe(name)
        if recipe.context is not None:
            base = recipe.context.base
            if base not in surroundings:
                surroundings[base] = Surroundings(made[base], usable, base=base, pixel_m=_side(name, pixel_m))
            made[name] = surroundings[base].values(recipe.context)
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            made[name] = missing_is_nan(recipe.function(*(made[need] for need in recipe.needs)))
    return made


def missing_is_nan(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return values as float32, NaN for infinite ones, as where an index divides by 0."""
    values = values.astype(np.float32, copy=False)
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, np.float32(np.nan))


def _recipe(name: str) -> Recipe:
    """Return the recipe of a layer that is known to have one."""
    recipe = recipe_of(name)
    assert recipe is not None
    return recipe


def _side(name: str, pixel_m: float | None) -> float:
    """Return the side of a pixel in metres; refuse grids whose pixels have none."""
    if pixel_m is None:
        msg = f"layer {name} looks around by metres, and pixels of a grid in degrees have no size in metres of their "
        msg += "own; warp the scene, such as to UTM or EPSG:3413, or leave the layer out"
        raise DataError(msg)
    return pixel_m
