"""The networks that map a scene together, what they must be fed, and how the scene is cut for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from thawmap.config import Fill, InferenceSettings
from thawmap.data.sources.base import Scene, Source
from thawmap.data.stack import Stack, check_ranges, preview
from thawmap.errors import ConfigError
from thawmap.infer.plan import Cut, plan
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
        readers: Parts of a window that are read at a time while it computes.
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
        """A bundle and the backend that runs it."""
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
        """Names of the inputs, in order."""
        return tuple(layer.name for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which layers are read: their names, those that may be missing, and which of them each member sees."""

    names: tuple[str, ...]
    optional: frozenset[str]
    seen: tuple[tuple[int, ...], ...]
    further: tuple[int, ...]

    @classmethod
    def of(cls, members: Sequence[Member], further: Sequence[str]) -> Self:
        """What these networks need, and what is handed on."""
        needed = {name for member in members for name in member.names if name not in member.optional}
        names = tuple(dict.fromkeys([*(name for member in members for name in member.names), *further]))
        seen = tuple(tuple(map(names.index, member.names)) for member in members)
        return cls(names, frozenset(names) - needed, seen, tuple(map(names.index, further)))


def look_over(
    scene: Scene,
    members: Sequence[Member],
    sources: Sequence[Source],
    *,
    further: Sequence[str] = (),
    picture: Sequence[str] = (),
    size: int = 1024,
) -> Stack:
    """The scene on a grid of at most ``size`` pixels a side: what networks and pictures need, and what is valid.

    Raises:
        DataError: If a layer is missing, or cannot be read.
    """
    asked = Asked.of(members, further)
    names = dict.fromkeys([*asked.names, *picture])
    optional = asked.optional | (names.keys() - set(asked.names))
    return preview(scene, list(names), sources, size=size, optional=optional)


def plan_scene(
    scene: Scene, members: Sequence[Member], settings: InferenceSettings, overview: Stack, *, further: int = 0
) -> Cut:
    """How `predict` cuts the scene, after a look at it on a coarser grid.

    Raises:
        ConfigError: If the tile or a layer does not suit a network or the settings.
        DataError: If values lie outside of what a network knows (law 14).
    """
    for member in members:
        check_ranges(overview, member.layers, scene_id=scene.id)
    shape = (scene.geobox.height, scene.geobox.width)
    return plan(shape, members, settings, valid=overview["valid"], further=further)


def check_symmetries(members: Sequence[Member], settings: InferenceSettings) -> None:
    """Refuse turns of layers that have a direction.

    Raises:
        ConfigError: If there are such layers.
    """
    turned = [layer.name for member in members for layer in member.layers if layer.directional]
    if turned and settings.symmetries > 1:
        msg = f"layer {turned[0]!r} has a direction, which turns would falsify; set inference.symmetries to 1"
        raise ConfigError(msg)
