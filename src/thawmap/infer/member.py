"""A network of an ensemble that is ready to run, and what it must be fed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from thawmap.config import Fill
from thawmap.layers import Layer

if TYPE_CHECKING:
    from thawmap.model.bundle import Bundle

Network = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Probability (N, H, W) of images (N, C, H, W), physical units, NaN = missing: a `Backend` of `thawmap.model`."""

NETWORK_BYTES = 1200
"""Bytes of activations per pixel: UNet++ with ResNet-34 in float32, the hungriest of the usual networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A network that is ready to run, and what it must be fed.

    Attributes:
        layers: Inputs in the network's order.
        optional: Names of layers that it was trained to do without.
        fill: What missing pixels look like to it (`thawmap.model.reading.Reading`); its network sees to that.
        tile: Side of the tiles that it was trained with, in pixels.
        stride: Sides of an input must be multiples of it.
        fixed_tile: Whether an answer depends on the whole input, so that inputs must be of ``tile`` px.
        bytes_per_pixel: Memory that it takes for each pixel of a batch.
        base_bytes: Memory that its backend takes whatever the size of a batch.
        readers: Strips of a window that are read at a time while it computes.
        network: Any function from images to probabilities.
    """

    layers: tuple[Layer, ...]
    optional: frozenset[str] = frozenset()
    fill: Fill = "zero"
    tile: int
    stride: int = 1
    fixed_tile: bool = False
    bytes_per_pixel: int = NETWORK_BYTES
    base_bytes: int = 0
    readers: int = 2
    network: Network

    @classmethod
    def of(cls, bundle: "Bundle", backend: Network) -> Self:
        """Make a member of a bundle and its backend, with default memory and readers."""
        return cls(
            layers=bundle.layers,
            optional=bundle.optional,
            fill=bundle.fill,
            tile=bundle.tile,
            stride=bundle.stride,
            fixed_tile=bundle.fixed_tile,
            network=backend,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the member's input layers, in the network's order."""
        return tuple(layer.name for layer in self.layers)
