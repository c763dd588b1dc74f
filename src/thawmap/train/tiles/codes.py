"""Encoding of layers in 16 bits, and the choice of the layers that are stored.

Loads no PyTorch, so that processes that only cut tiles stay small.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from thawmap.data.derive import plan_layers, recipe_of
from thawmap.data.sources.base import Source
from thawmap.files.records import Record
from thawmap.layers import CODES, Layer, layer


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCode:
    """The encoding of a layer: 0 = missing, else value = low + (code - 1) * step.

    Attributes:
        name: Name of the layer.
        low: Value of code 1.
        step: Difference of two neighbouring codes.
        units: Physical units of the value.
    """

    name: str
    low: float
    step: float
    units: str

    @classmethod
    def of(cls, layer: Layer) -> Self:
        """Return the encoding of a layer, from its range and step."""
        return cls(name=layer.name, low=layer.code_low, step=layer.code_step, units=layer.units)


class CodeRecord(Record, extra="forbid"):
    """A `LayerCode` as JSON in a file of the store."""

    name: str
    low: float
    step: float = Field(gt=0)
    units: str


class StoreRecord(Record):
    """The description of a tile store: format, size of a tile, and encodings."""

    format: int
    size: int = Field(ge=1, le=65536)
    layers: list[CodeRecord]


class AttributesRecord(StoreRecord):
    """The description of one scene's tiles; the footprint is WKT."""

    fingerprint: str
    region: str | None = None
    footprint: str


class ZarrRecord(Record):
    """The zarr.json of one scene's tiles."""

    attributes: AttributesRecord


def stored_layers(inputs: Sequence[Layer], sources: Sequence[Source]) -> tuple[LayerCode, ...]:
    """Return encodings of the layers to store, from which all inputs can be made.

    They are the layers that sources have, and those made with neighbouring pixels; all others are made from the stored
    ones when tiles are read.

    Raises:
        DataError: If a layer is in no source and no recipe makes it.
    """
    input_by_name = {layer.name: layer for layer in inputs}
    available = frozenset[str]().union(*(source.layers for source in sources))
    reads, makes = plan_layers(list(input_by_name), available=available)
    recipes = {name: recipe_of(name) for name in makes}
    names = [*reads, *(name for name, recipe in recipes.items() if recipe is not None and recipe.looks_around)]
    return tuple(LayerCode.of(input_by_name.get(name) or layer(name)) for name in names)


def encode(values: Sequence[npt.NDArray[np.float32]], codes: Sequence[LayerCode]) -> npt.NDArray[np.uint16]:
    """Encode layers (H, W) in physical units as the nearest codes (C, H, W) uint16.

    NaN = missing becomes 0; values beyond the range of the codes become its ends.
    """
    encoded = np.empty((len(codes), *values[0].shape), np.uint16)
    for codes_of_layer, layer_values, code in zip(encoded, values, codes, strict=True):
        steps = np.rint((layer_values - code.low) / code.step).clip(0, CODES) + 1
        codes_of_layer[:] = np.nan_to_num(steps, copy=False, nan=0)
    return encoded
