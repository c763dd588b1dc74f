"""From a scene to probabilities, as a stream of finished rows.

    windows of the scene's grid --threads--> stacks --batches--> network --blend--> rows

Memory depends on the tile's size and the scene's width, never on its height: a stack is forgotten when the
network has seen it, a row when no later window touches it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from thawmap.config import InferenceSettings
from thawmap.data.sources.base import Scene, Source
from thawmap.data.stack import as_array, assemble, check_ranges, preview, window_geobox
from thawmap.engine import in_order
from thawmap.errors import ConfigError, DataError
from thawmap.grid import Window, cheapest_tile, ramp, starts, windows
from thawmap.layers import Layer

if TYPE_CHECKING:
    from thawmap.model.bundle import Bundle

Network = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Probability (N, H, W) of images (N, C, H, W), physical units, NaN = missing: a
`thawmap.model.backends.Backend`."""

LARGEST_TILE = 2048
"""Largest side of an automatic tile: beyond it nothing is saved that is worth the memory."""

BASE_GB = 1.0
"""Memory of a process that has loaded its libraries and a network, and keeps a small cache of raster
blocks."""

NETWORK_BYTES = 1200
"""Bytes of activations per pixel: UNet++ with ResNet-34 in float32, the hungriest of the usual networks
(measured on two cores at 512 and 768 px; U-Net with ResNet-34 takes 500, with ResNet-50 570, DeepLabV3
630)."""

ROW_BYTES = 8
"""Bytes per pixel of the rows that are not finished: one sum and its mask, and room for handing them on."""

_READERS = 3  # threads that assemble stacks
_WAITING = 2  # windows that are ready before the network asks for them
_ROWS_PX = 2**22  # pixels that are handed on at once

_Answer = npt.NDArray[np.float32] | None  # probability of a window's part inside of the scene, NaN where not valid


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A network that is ready to run, and what it must be fed.

    Attributes:
        layers: Inputs in the network's order.
        optional: Names of layers that it was trained to do without.
        tile: Side of the tiles that it was trained with, in pixels.
        stride: Sides of an input must be multiples of it.
        fixed_tile: Whether an answer depends on the whole input, so that inputs must be of ``tile`` px.
        network: Any function from images to probabilities.
    """

    layers: tuple[Layer, ...]
    optional: frozenset[str] = frozenset()
    tile: int
    stride: int = 1
    fixed_tile: bool = False
    network: Network

    @classmethod
    def of(cls, bundle: "Bundle", backend: Network) -> Self:
        """A bundle and the backend that runs it."""
        return cls(
            layers=bundle.layers,
            optional=bundle.optional,
            tile=bundle.tile,
            stride=bundle.stride,
            fixed_tile=bundle.fixed_tile,
            network=backend,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(layer.name for layer in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Finished rows of a scene.

    Attributes:
        first_row: Where they begin.
        probability: (rows, scene's width), float32, 0..1; NaN where the scene is not valid.
        layers: Further layers by name, of the same shape, float32 in physical units, NaN = missing: those that the
            polygons' rules ask for.
    """

    first_row: int
    probability: npt.NDArray[np.floating]
    layers: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How a scene is cut into windows.

    Attributes:
        shape: Rows and columns of the scene.
        tile: Rows and columns of every window; a window may reach beyond a scene that is smaller.
        overlap: Pixels that neighbours share at least.
    """

    shape: tuple[int, int]
    tile: tuple[int, int]
    overlap: int

    @property
    def rows(self) -> list[int]:
        """First row of every row of windows."""
        return starts(self.shape[0], tile=self.tile[0], overlap=min(self.overlap, self.tile[0] - 1))

    @property
    def cols(self) -> list[int]:
        """First column of every column of windows."""
        return starts(self.shape[1], tile=self.tile[1], overlap=min(self.overlap, self.tile[1] - 1))

    @property
    def windows(self) -> Iterator[Window]:
        """Every window, row by row."""
        return windows(self.shape, tile=self.tile, overlap=self.overlap)

    @property
    def pixels(self) -> int:
        """Pixels that the network computes where every window has something valid."""
        return len(self.rows) * len(self.cols) * self.tile[0] * self.tile[1]


def plan(shape: tuple[int, int], member: Member, settings: InferenceSettings) -> Cut:
    """How a scene of ``shape`` (rows, columns) is cut for ``member``.

    A network that sees its whole tile keeps its tile; a tile that is set is obeyed; else each axis is cut as
    is cheapest, with tiles as large as the memory allows by the estimate of `largest_tile`.

    Raises:
        ConfigError: If the tile that is asked for does not suit the network or the overlap.
    """
    if member.fixed_tile:
        if settings.tile not in ("auto", member.tile):
            msg = (
                f"inference.tile is {settings.tile} px, but this network's answer depends on its tile of "
                f"{member.tile} px; set inference.tile to auto"
            )
            raise ConfigError(msg)
        tile = (member.tile, member.tile)
    elif settings.tile == "auto":
        tile = _automatic_tile(shape, member, settings)
    else:
        tile = (settings.tile, settings.tile)
    _check_tile(shape, tile, member, settings)
    return Cut(shape=shape, tile=tile, overlap=settings.overlap)


def largest_tile(width: int, member: Member, settings: InferenceSettings) -> int:
    """Largest side of a tile, in pixels, for a scene of ``width`` px in ``settings.memory_gb``; may be 0.

    The memory of a process is about `BASE_GB`, plus for each pixel of a batch `NETWORK_BYTES`, plus for each
    pixel of the windows that wait or are being read two copies of their layers, plus for each pixel of a row
    of windows `ROW_BYTES`. The side solves that quadratic equation, is cut to `LARGEST_TILE` and to the
    network's stride.
    """
    free = max((settings.memory_gb - BASE_GB) * 1e9 - 24 * _ROWS_PX, 0.0)
    stacks = settings.batch_size + _READERS + _WAITING
    per_pixel = settings.batch_size * NETWORK_BYTES + stacks * 2 * 4 * len(member.layers)
    per_side = ROW_BYTES * width
    side = (math.sqrt(per_side**2 + 4 * per_pixel * free) - per_side) / (2 * per_pixel)
    return min(int(side), LARGEST_TILE) // member.stride * member.stride


def predict(scene: Scene, member: Member, sources: Sequence[Source], settings: InferenceSettings) -> Iterator[Rows]:
    """Probabilities of a scene, row by row from the top; every row once.

    Where windows overlap, their answers are blended with strictly positive weights (`thawmap.grid.ramp`). A
    window without a valid pixel is not computed.

    Args:
        scene: What to map.
        member: The network.
        sources: Where its layers come from.
        settings: Tile, overlap, batch and memory.

    Raises:
        ConfigError: If the tile does not suit the network.
        DataError: If a layer is missing, or its values lie outside of what the network knows (law 14): at
            once. If a file fails, or the network answers with what is no probability: while the rows are
            taken.
    """
    height, width = scene.geobox.shape
    cut = plan((height, width), member, settings)
    overview = preview(scene, member.names, sources, optional=member.optional)
    check_ranges(overview, member.layers, scene_id=scene.id)

    def read(window: Window) -> _Piece:
        return _read(scene, window, member, sources)

    pieces = in_order(read, cut.windows, threads=_READERS, ahead=settings.batch_size + _WAITING)
    return _blend(_answers(pieces, scene, member.network, settings.batch_size), cut)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """One window: its image (C, tile), and which pixels are valid inside of the scene; None where none is."""

    image: npt.NDArray[np.float32] | None = None
    valid: npt.NDArray[np.bool_] | None = None


def _automatic_tile(shape: tuple[int, int], member: Member, settings: InferenceSettings) -> tuple[int, int]:
    largest = largest_tile(shape[1], member, settings)
    if largest < member.stride or settings.overlap >= largest < max(shape):
        msg = (
            f"inference.memory_gb is {settings.memory_gb:g}, which allows tiles of {largest} px here, but they must "
            f"be larger than the overlap of {settings.overlap} px; allow more memory, or a smaller overlap or batch"
        )
        raise ConfigError(msg)

    def side(length: int) -> int:
        return cheapest_tile(length, overlap=settings.overlap, stride=member.stride, largest=largest)

    return side(shape[0]), side(shape[1])


def _check_tile(shape: tuple[int, int], tile: tuple[int, int], member: Member, settings: InferenceSettings) -> None:
    """Whether the network takes the tile, and the overlap leaves something of it."""
    if tile[0] % member.stride or tile[1] % member.stride:
        below = tile[0] // member.stride * member.stride
        fitting = " or ".join(str(side) for side in (below, below + member.stride) if side)
        msg = (
            f"inference.tile is {tile[0]} px, but this network needs a multiple of {member.stride}; "
            f"use {fitting}, or auto"
        )
        raise ConfigError(msg)
    for length, side in zip(shape, tile, strict=True):
        if length > side and settings.overlap >= side:
            msg = (
                f"inference.overlap is {settings.overlap} px, but must be smaller than the tiles of {side} px; "
                f"set inference.overlap to {side // 4}"
            )
            raise ConfigError(msg)


def _read(scene: Scene, window: Window, member: Member, sources: Sequence[Source]) -> _Piece:
    """The window's layers, missing beyond the scene."""
    geobox = window_geobox(scene.geobox, window)
    stack = assemble(scene, member.names, geobox, sources, optional=member.optional)
    height, width = scene.geobox.shape
    valid = stack["valid"].to_numpy()[: height - window.row, : width - window.col]
    return _Piece(image=as_array(stack, member.names), valid=valid) if valid.any() else _Piece()


def _answers(pieces: Iterable[_Piece], scene: Scene, network: Network, batch_size: int) -> Iterator[_Answer]:
    """One answer per piece, in order, ``batch_size`` images at a time."""
    waiting: list[_Piece] = []
    images = 0
    for piece in pieces:
        waiting.append(piece)
        images += piece.image is not None
        if images == batch_size:
            yield from _ask(waiting, scene, network)
            waiting, images = [], 0
    yield from _ask(waiting, scene, network)


def _ask(pieces: Sequence[_Piece], scene: Scene, network: Network) -> Iterator[_Answer]:
    """The network's answers for the pieces that have an image, in one batch."""
    images = [piece.image for piece in pieces if piece.image is not None]
    answers = iter(network(np.stack(images)) if images else ())
    for piece in pieces:
        if piece.valid is None:
            yield None
            continue
        height, width = piece.valid.shape
        probability = np.where(piece.valid, next(answers)[:height, :width], np.float32(np.nan))
        _check_answer(probability[piece.valid], scene)
        yield probability


def _check_answer(answers: npt.NDArray[np.float32], scene: Scene) -> None:
    """Whether these are probabilities."""
    wrong = answers[~((answers >= 0) & (answers <= 1))]
    if wrong.size:
        msg = (
            f"scene {scene.id}: the network answers {wrong[0]:g} where a probability from 0 to 1 is due; look for "
            f"values far outside of its layers' ranges, or train it again"
        )
        raise DataError(msg)


def _blend(answers: Iterator[_Answer], cut: Cut) -> Iterator[Rows]:
    """Rows of the weighted sums of the answers, as soon as no later window touches them."""
    height, width = cut.shape
    vertical = _weights(cut.rows, height, tile=cut.tile[0], overlap=cut.overlap)
    horizontal = _weights(cut.cols, width, tile=cut.tile[1], overlap=cut.overlap)
    total = np.zeros((cut.tile[0], width), np.float32)
    for row, end, down in zip(cut.rows, [*cut.rows[1:], height], vertical, strict=True):
        for col, across, answer in zip(cut.cols, horizontal, islice(answers, len(cut.cols)), strict=True):
            place = (slice(0, len(down)), slice(col, col + len(across)))
            total[place] += np.float32(np.nan) if answer is None else answer * (down[:, None] * across)
        finished = end - row
        yield from _slices(row, total[:finished])
        total[: len(total) - finished] = total[finished:].copy()
        total[len(total) - finished :] = 0


def _weights(firsts: list[int], length: int, *, tile: int, overlap: int) -> list[npt.NDArray[np.float32]]:
    """Weights of each tile along one axis, cut at its end; at every pixel those of all tiles add to one."""
    shape = ramp(tile, overlap=overlap).astype(np.float64)
    total = np.zeros(length)
    for first in firsts:
        total[first : first + tile] += shape[: length - first]
    return [(shape[: length - first] / total[first : first + tile]).astype(np.float32) for first in firsts]


def _slices(first_row: int, probability: npt.NDArray[np.float32]) -> Iterator[Rows]:
    """Copies of the rows, in parts that bound the memory of whoever takes them."""
    step = max(_ROWS_PX // probability.shape[1], 1)
    for row in range(0, len(probability), step):
        at_most_one = np.minimum(probability[row : row + step], np.float32(1))  # weights add to one but for rounding
        yield Rows(first_row=first_row + row, probability=at_most_one)
