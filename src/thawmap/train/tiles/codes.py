"""How layers are stored in 16 bits, and which of them are. Without PyTorch, so that who only cuts tiles is light."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from thawmap.data.derive import RECIPES, plan_layers
from thawmap.data.sources.base import Source
from thawmap.files.records import Record
from thawmap.layers import CODES, Layer, layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """How a layer is stored: code 0 = missing, else v = low + (code - 1) * step.

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
        """The code of a layer."""
        return cls(name=layer.name, low=layer.code_low, step=layer.code_step, units=layer.units)


class CodeRecord(Record, extra="forbid"):
    """A `Code` in a file of the store."""

    name: str
    low: float
    step: float = Field(gt=0)
    units: str


class StoreRecord(Record):
    """What a tile store says of itself."""

    format: int
    size: int = Field(ge=1, le=65536)
    layers: list[CodeRecord]


class AttributesRecord(StoreRecord):
    """What the tiles of a scene say of themselves."""

    fingerprint: str
    region: str | None = None
    footprint: str


class ZarrRecord(Record):
    """The metadata of a scene's tiles."""

    attributes: AttributesRecord


def stored_layers(inputs: Sequence[Layer], sources: Sequence[Source]) -> tuple[Code, ...]:
    """What is stored: layers that sources have, and those made with neighbours; the rest follows.

    Raises:
        DataError: If a layer is in no source and no recipe makes it.
    """
    known = {layer.name: layer for layer in inputs}
    available = frozenset[str]().union(*(source.layers for source in sources))
    reads, makes = plan_layers(list(known), available=available)
    names = [*reads, *(name for name in makes if RECIPES[name].halo)]
    return tuple(Code.of(known.get(name) or layer(name)) for name in names)


def encode(values: Sequence[npt.NDArray[np.float32]], codes: Sequence[Code]) -> npt.NDArray[np.uint16]:
    """Codes (C, H, W) uint16 of layers (H, W) each, physical units, NaN = missing: the nearest there is."""
    found = np.empty((len(codes), *values[0].shape), np.uint16)
    for stored, plane, code in zip(found, values, codes, strict=True):
        steps = np.rint((plane - code.low) / code.step).clip(0, CODES) + 1
        stored[:] = np.nan_to_num(steps, copy=False, nan=0)
    return found
