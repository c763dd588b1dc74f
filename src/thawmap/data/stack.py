"""A scene's layers on one grid, with the mask of its usable pixels.

Hides which source has which layer, the order of recipes, halos and masks.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox

from thawmap.data.derive import derive, halo, looks_around, missing_is_nan, obtainable, plan_layers
from thawmap.data.sources.base import Scene, Source
from thawmap.engine.run import in_order
from thawmap.errors import DataError
from thawmap.geo.geobox import window_geobox
from thawmap.geo.metres import square_pixel_m
from thawmap.grid import Window
from thawmap.layers import LAYERS, Layer, usual_layer

_STRIP_ROWS = 256  # of a preview that one thread reads at a time
_RANGE_FACTOR = 1.5  # how far beyond its range a layer's median may lie (law 14)
_DARKEST = 1e-3  # reflectance that some band of any scene exceeds, be it deep water in shadow
_SETTINGS = {
    **dict.fromkeys(("blue", "green", "red", "nir", "swir1", "swir2"), "'scenes.offset' of Sentinel-2"),
    **dict.fromkeys(("relative_elevation", "slope", "elevation"), "'unit', 'nodata' or 'scale' in 'sources.elevation'"),
    **dict.fromkeys(("tc_brightness", "tc_greenness", "tc_wetness"), "'low' and 'high' in 'sources.trends'"),
}
"""Settings by which a layer is read, beside 'scale' and 'offset' in 'scenes.files'; for messages."""


@dataclass(frozen=True, slots=True, eq=False)
class Stack(Mapping[str, npt.NDArray[Any]]):
    """Layers (y, x) by name on one grid, with `valid` (y, x), bool, True = usable.

    Layers are float32 in physical units, NaN where missing.

    Attributes:
        geobox: The grid of all of them.
        layers: Name to values, `valid` among them.
    """

    geobox: GeoBox
    layers: Mapping[str, npt.NDArray[Any]] = field(repr=False)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return the values (y, x) of a layer, or of `valid`, by name."""
        return self.layers[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the layers, `valid` among them."""
        return iter(self.layers)

    def __len__(self) -> int:
        """Count the layers, `valid` among them."""
        return len(self.layers)


def assemble(
    scene: Scene,
    layers: Sequence[str],
    geobox: GeoBox,
    sources: Sequence[Source],
    *,
    optional: frozenset[str] = frozenset(),
) -> Stack:
    """Return a stack of a scene's layers on a grid, read from sources or derived.

    Every layer is (y, x), float32 in physical units, NaN where missing. `valid` is the sensor's mask and every layer
    finite, except those in ``optional``, which may be missing altogether.

    Raises:
        DataError: If a layer is in no source and no recipe makes it, or a file cannot be read.
    """
    available = frozenset[str]().union(*(source.layers for source in sources))
    absent = [name for name in layers if name in optional and not obtainable(name, available=available)]
    stored, derived = plan_layers([name for name in layers if name not in absent], available=available)
    pixel_m = square_pixel_m(geobox) if looks_around(derived) else None
    border = halo(derived, pixel_m=pixel_m)  # recipes look at pixels beyond the grid
    values, usable = _read(scene, stored, geobox.pad(border) if border else geobox, sources)
    for name in stored:
        if name in values:
            continue
        if name not in optional:
            msg = (
                f"scene {scene.id} has no {name}, which others have; leave the scene out, or the layer out of 'layers'"
            )
            raise DataError(msg)
        values[name] = np.full(usable.shape, np.nan, np.float32)
    values = derive(values, derived, usable=usable, pixel_m=pixel_m)
    rows, cols = (slice(border, border + side) for side in geobox.shape)
    # optional layers that no source has are missing everywhere
    values |= {name: np.full(tuple(geobox.pad(border).shape), np.nan, np.float32) for name in absent}
    stack = {name: values[name][rows, cols] for name in layers}
    usable = usable[rows, cols]
    for name in layers:
        if name not in optional:
            usable &= np.isfinite(stack[name])
    return Stack(geobox, {**stack, "valid": usable})


def _read(
    scene: Scene, layers: Sequence[str], geobox: GeoBox, sources: Sequence[Source]
) -> tuple[dict[str, npt.NDArray[np.float32]], npt.NDArray[np.bool_]]:
    """Return a dict of layers read from sources, and the mask of usable pixels.

    The first source that has a layer gives it; a layer that the scene lacks is not in the mapping.
    """
    usable = np.ones(tuple(geobox.shape), bool)
    values: dict[str, npt.NDArray[np.float32]] = {}
    for source in sources:
        wanted = [name for name in layers if name in source.layers and name not in values]
        if not wanted:
            continue
        arrays = source.read(scene, geobox, wanted)
        if "valid" in arrays:
            usable &= np.asarray(arrays["valid"])
        values |= {name: missing_is_nan(np.asarray(arrays[name])) for name in wanted if name in arrays}
    return values, usable


def preview(
    scene: Scene,
    layers: Sequence[str],
    sources: Sequence[Source],
    *,
    size: int = 512,
    optional: frozenset[str] = frozenset(),
) -> Stack:
    """Read the stack of a whole scene, coarsened to at most ``size`` pixels a side.

    Its last row and column may reach beyond the scene.

    Raises:
        DataError: If a layer is in no source and no recipe makes it, or a file cannot be read.
    """
    factor = math.ceil(max(scene.geobox.shape) / size)  # whole, so that files' overviews fit
    rows, cols = (math.ceil(side / factor) for side in scene.geobox.shape)
    geobox = GeoBox((rows, cols), scene.geobox.affine * Affine.scale(factor), scene.geobox.crs)
    strips = list(Window.of_shape((rows, cols)).strips(_STRIP_ROWS))

    def read(strip: Window) -> Stack:
        return assemble(scene, layers, window_geobox(geobox, strip), sources, optional=optional)

    stacks = list(in_order(read, strips, threads=2, ahead=len(strips)))
    return Stack(geobox, {name: np.concatenate([stack[name] for stack in stacks]) for name in stacks[0]})


def as_array(stack: Stack, layers: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return layers of a stack as one array (layer, y, x) in the given order.

    Float32, NaN where missing.
    """
    return np.stack([stack[name] for name in layers]).astype(np.float32, copy=False)


def check_ranges(stack: Stack, layers: Sequence[Layer], *, scene_id: str) -> None:
    """Refuse a stack with a layer whose median lies far outside its range (law 14).

    A layer's median over the usable pixels may lie up to 1.5 times its range from the middle of it. Of reflectances,
    one in a hundred has to be larger than any scale would leave it that was applied twice.

    Raises:
        DataError: If they are not; the message names scene, layer, median and range.
    """
    usable = stack["valid"]
    optical = [layer.name for layer in layers if LAYERS.get(layer.name, layer).optical]
    _check_brightness(stack, optical, scene_id=scene_id)
    for requested in layers:
        layer = usual_layer(requested.name) or requested  # a network may see a part of the range
        values = stack[layer.name][usable]
        values = values[~np.isnan(values)]  # an optional layer may be missing altogether
        median = float(np.median(values)) if values.size else np.nan
        middle, half = (layer.low + layer.high) / 2, (layer.high - layer.low) / 2
        if abs(median - middle) > _RANGE_FACTOR * half:
            units = f" {layer.units}" if layer.units != "1" else ""
            others = f", {_SETTINGS[layer.name]}" if layer.name in _SETTINGS else ""
            msg = (
                f"scene {scene_id}: the median of {layer.name} is {median:.6g}, far outside of its range "
                f"{layer.low:g} .. {layer.high:g}{units}; correct how it is read ('scale' and 'offset' in "
                f"'scenes.files'{others}), or leave the scene out"
            )
            raise DataError(msg)


def _check_brightness(stack: Stack, names: Sequence[str], *, scene_id: str) -> None:
    """Refuse a stack whose reflectances are all too small, as if scaled twice.

    Such are floats that were reflectance already, and were scaled once more as if they were whole numbers.
    """
    usable = stack["valid"]
    reflectance = {name: np.abs(values[np.isfinite(values)]) for name in names if len(values := stack[name][usable])}
    bright = {name: float(np.percentile(values, 99)) for name, values in reflectance.items() if len(values)}
    if bright and max(bright.values()) < _DARKEST:
        msg = (
            f"scene {scene_id}: {', '.join(bright)} hardly exceed {max(bright.values()):.2g}, too little for any "
            f"reflectance; correct how they are read ('scale' in 'scenes.files', which is 1 for files of reflectance "
            f"itself), or leave the scene out"
        )
        raise DataError(msg)
