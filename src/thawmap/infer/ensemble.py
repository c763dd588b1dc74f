"""Networks that map a scene together: layers read for them, and its tiling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from thawmap.config import InferenceSettings
from thawmap.data.sources.base import Scene, Source
from thawmap.data.stack import Stack, check_ranges, preview
from thawmap.errors import ConfigError
from thawmap.infer.member import Member
from thawmap.infer.plan import Tiling, plan


@dataclass(frozen=True, slots=True)
class InputLayers:
    """Names of the layers read for an ensemble, and which of them each network sees.

    Attributes:
        names: Their names, each once.
        optional: Names of those that a scene may lack.
        of_members: For each member, which of the names it sees, in its order.
        extra: Which of the names are handed on beside the probabilities.
    """

    names: tuple[str, ...]
    optional: frozenset[str]
    of_members: tuple[tuple[int, ...], ...]
    extra: tuple[int, ...]

    @classmethod
    def of(cls, members: Sequence[Member], extra_layers: Sequence[str]) -> Self:
        """Return the layers of members and extra ones, each once, with who needs which."""
        required = {name for member in members for name in member.names if name not in member.optional}
        names = tuple(dict.fromkeys([*(name for member in members for name in member.names), *extra_layers]))
        of_members = tuple(tuple(map(names.index, member.names)) for member in members)
        return cls(names, frozenset(names) - required, of_members, tuple(map(names.index, extra_layers)))


def read_overview(
    scene: Scene,
    members: Sequence[Member],
    sources: Sequence[Source],
    *,
    extra_layers: Sequence[str] = (),
    picture: Sequence[str] = (),
    size: int = 1024,
) -> Stack:
    """Read the members' layers of a scene, coarsened to at most ``size`` px a side.

    The tiling is planned by it, and the scene pictured.

    Args:
        scene: What is to be mapped.
        members: The networks, whose layers are read.
        sources: Where layers come from.
        extra_layers: Names of layers that are handed on beside the probabilities.
        picture: Names of the layers of a picture, which the scene may lack.
        size: Most rows and columns.

    Raises:
        DataError: If a layer is missing, or cannot be read.
    """
    inputs = InputLayers.of(members, extra_layers)
    names = dict.fromkeys([*inputs.names, *picture])
    optional = inputs.optional | (names.keys() - set(inputs.names))
    return preview(scene, list(names), sources, size=size, optional=optional)


def plan_scene(
    scene: Scene, members: Sequence[Member], settings: InferenceSettings, overview: Stack, *, extra_layers: int = 0
) -> Tiling:
    """Return the tiling to map a scene with; refuse values outside of layers' ranges.

    Args:
        scene: What is to be mapped.
        members: The networks.
        settings: Tile, overlap, batch and memory.
        overview: The scene on a coarser grid (`read_overview`), which tells where it is valid.
        extra_layers: Number of layers that are handed on beside the probabilities.

    Raises:
        ConfigError: If the tile or a layer does not suit a network or the settings.
        DataError: If values lie outside of what a network knows (law 14).
    """
    for member in members:
        check_ranges(overview, member.layers, scene_id=scene.id)
    shape = (scene.geobox.height, scene.geobox.width)
    return plan(shape, members, settings, valid=overview["valid"], extra_layers=extra_layers)


def check_symmetries(members: Sequence[Member], settings: InferenceSettings) -> None:
    """Refuse symmetries for layers that have a direction, which turns would falsify.

    Raises:
        ConfigError: If there are such layers.
    """
    directional = [layer.name for member in members for layer in member.layers if layer.directional]
    if directional and settings.symmetries > 1:
        msg = f"layer {directional[0]!r} has a direction, which turns would falsify; set inference.symmetries to 1"
        raise ConfigError(msg)
