"""How a scene is cut into the windows that a network sees: the cheapest cut that the memory allows.

Windows lie where the scene has something valid, row of windows by row of windows; what lies beyond is covered too, by
windows that cost nothing but reading as long as nothing valid is found there.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from thawmap.config import InferenceSettings
from thawmap.errors import ConfigError
from thawmap.grid import Window, spare, starts

LARGEST_PX = 4096**2
"""Most pixels of an automatic tile: beyond it nothing is saved that is worth the memory."""

BASE_GB = 1.0
"""Memory of a process that has loaded its libraries and a network, and keeps a small cache of raster blocks."""

ROWS_PX = 2**22
"""Pixels that are handed on at once."""

STRIP_PX = 2**20
"""Pixels that are assembled at once."""

_IDLE_SHARE = 0.3  # of the time for a window, in which the network waits for the first, and the last is written
_OTHER_WIDTH_PX = 1_000_000  # that are computed while a backend gets ready for windows of another width

_STRIP_BYTES = 4  # per pixel of the rows that are not finished, for weights, each network and each further layer
_WIDE_BYTES = 8  # per pixel of these rows, beside that: measured on scenes of 4000 to 16 000 px
_HANDED_BYTES = 24  # per pixel that is handed on at once
_ASSEMBLED_BYTES = 8  # per pixel that is assembled at once, for each layer
_GRAIN_PX = 64  # where something is valid is known so coarsely, so that a missing pixel seldom moves a seam
_ALIGN = 32  # sides of automatic tiles are about multiples of it, whatever the network takes

_Bools = npt.NDArray[np.bool_]
_Span = tuple[int, int]


class Runs(Protocol):
    """What a plan asks of a network: see `thawmap.infer.ensemble.Member`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its layers."""
        ...

    @property
    def tile(self) -> int:
        """Side of the tiles that it was trained with, in pixels."""
        ...

    @property
    def stride(self) -> int:
        """Sides of its inputs are multiples of it."""
        ...

    @property
    def fixed_tile(self) -> bool:
        """Whether its inputs must be of ``tile`` px."""
        ...

    @property
    def bytes_per_pixel(self) -> int:
        """Memory that it takes for each pixel of a batch."""
        ...

    @property
    def base_bytes(self) -> int:
        """Memory that its backend takes whatever the size of a batch."""
        ...

    @property
    def readers(self) -> int:
        """Parts of a window that are read at a time while it computes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A window, and the part of it that decides.

    Attributes:
        window: What a network sees; it may reach beyond the scene on every side.
        own: The part of the scene that other windows do not cover; where nothing of it is valid, the window is not
            computed. None where there is no such part.
    """

    window: Window
    own: Window | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How a scene is cut into windows.

    Attributes:
        shape: Rows and columns of the scene.
        height: Rows of every window; a window may reach beyond a scene that is smaller.
        bands: The rows of windows, from the top.
        pixels: Pixels that a network computes, where nothing is valid but what is known to be.
    """

    shape: tuple[int, int]
    height: int
    bands: tuple[tuple[Tile, ...], ...]
    pixels: int

    @property
    def tiles(self) -> Iterator[Tile]:
        """Every window, row by row."""
        for band in self.bands:
            yield from band

    @property
    def largest(self) -> tuple[int, int]:
        """Rows and columns of the largest window."""
        return self.height, max(self.widths)

    @property
    def widths(self) -> list[int]:
        """Of the windows in each row of them."""
        return [band[0].window.width for band in self.bands]

    @property
    def cost(self) -> float:
        """What it takes, as a number of pixels that a network computes in that time."""
        rows, cols = self.largest
        changes = 1 + sum(one != other for one, other in pairwise(self.widths))
        return self.pixels + _IDLE_SHARE * rows * cols + _OTHER_WIDTH_PX * changes


def plan(
    shape: tuple[int, int],
    members: Sequence[Runs],
    settings: InferenceSettings,
    *,
    valid: _Bools | None = None,
    further: int = 0,
) -> Cut:
    """How a scene of ``shape`` (rows, columns) is cut for networks that see the same windows.

    A network that sees its whole tile keeps its tile; a tile that is set is obeyed; else the cut is the cheapest of
    all whose memory, by the estimate of `memory`, is allowed.

    Args:
        shape: Rows and columns of the scene.
        members: The networks, which see every window one after the other.
        settings: Tile, overlap, batch and memory.
        valid: Which parts of the scene have a valid pixel: the scene coarsened to any shape; None: all of it.
        further: Number of layers that are handed on beside the probabilities.

    Raises:
        ConfigError: If the tile that is asked for does not suit a network or the overlap, or the memory is too small.
    """
    valid = np.ones((1, 1), np.bool_) if valid is None else valid
    stride = math.lcm(*(one.stride for one in members))
    side = _given_side(members, settings)
    if side is None:
        return _cheapest(_Ground(shape, valid, settings.overlap, settings.margin), members, settings, further)
    _check_side(shape, side, stride, settings)
    margin, overlap = settings.margin, min(settings.overlap, side - 1)
    if any(one.fixed_tile for one in members):  # only what costs no tile more
        margin = min(margin, *(spare(length, tile=side, overlap=overlap) // 2 for length in shape))
    return _Ground(shape, valid, settings.overlap, margin).cut(side, side)


def memory(
    tile: tuple[int, int], members: Sequence[Runs], settings: InferenceSettings, *, width: int, further: int = 0
) -> float:
    """Bytes of a process that maps a scene of ``width`` px with tiles of these rows and columns.

    It is about `BASE_GB`, what backends take in any case, what the hungriest network takes for a batch, the layers of
    every window that is in the batch, waits or is being read, and the rows that are not finished.
    """
    fixed, per_row, per_pixel = _needs(members, settings, width=width, further=further)
    return fixed + per_row * tile[0] + per_pixel * tile[0] * tile[1]


def _needs(
    members: Sequence[Runs], settings: InferenceSettings, *, width: int, further: int
) -> tuple[float, float, float]:
    """Bytes in any case, for each row of a tile, and for each pixel of a tile."""
    layers = len({name for one in members for name in one.names})
    stacks = 2 * settings.batch_size + 1
    network = settings.batch_size * max(one.bytes_per_pixel for one in members)
    assembled = _ASSEMBLED_BYTES * layers * STRIP_PX * max(one.readers for one in members)
    backends = sum(one.base_bytes for one in members)
    fixed = BASE_GB * 1e9 + backends + _HANDED_BYTES * ROWS_PX + assembled
    per_row = (_STRIP_BYTES * (1 + len(members) + further) + _WIDE_BYTES) * width
    return fixed, per_row, network + stacks * 4 * layers


class _Ground:
    """A scene, where something of it is valid, how far windows overlap, and how far they reach beyond it.

    Rows and columns count from the first that windows may see, which lies a margin before the scene's first.

    Args:
        shape: Rows and columns of the scene.
        valid: The scene coarsened to any shape; where a cell is more than one pixel the extent is taken a cell wider
            on every side, as what is small may be lost in a coarse picture.
        overlap: Pixels that neighbours share at least.
        margin: Pixels beyond the scene's border, and beyond what is valid, that windows see.
    """

    def __init__(self, shape: tuple[int, int], valid: _Bools, overlap: int, margin: int) -> None:
        self._scene = shape
        self.shape = (shape[0] + 2 * margin, shape[1] + 2 * margin)
        self.overlap = overlap
        self.margin = margin
        self._valid = valid
        self._cell = tuple(side / cells for side, cells in zip(shape, valid.shape, strict=True))

    @property
    def rows(self) -> _Span | None:
        """The rows between which something is valid."""
        return self._span(np.atleast_1d(self._valid.any(axis=1)), 0)

    def cols(self, first: int, end: int) -> _Span | None:
        """The columns between which something is valid in some rows."""
        cell, wider = self._cell[0], self._wider(0)
        above, below = first - self.margin, end - self.margin
        rows = slice(max(math.floor(above / cell) - wider, 0), max(math.ceil(below / cell) + wider, 0))
        return self._span(np.atleast_1d(self._valid[rows].any(axis=0)), 1)

    def cut(self, height: int, width: int | None, *, most: int = 0, align: int = 1) -> Cut:
        """The windows of this height, and of this width; None: as few as are at most ``most`` columns wide."""
        bands, pixels = [], 0
        rows, main = _cover(self.rows, self.shape[0], tile=height, overlap=self.overlap)
        for row in rows:
            if not self._meets_scene(row, height, 0):
                continue
            own_rows = _outside(row, height, main, self.shape[0])
            span = self.cols(row, row + height) if own_rows == (row, row + height) else None
            first, end = span or (0, self.shape[1])
            side = width or max(_narrowest(end - first, most, overlap=self.overlap, align=align), self.least(1, align))
            cols, known = _cover(span, self.shape[1], tile=side, overlap=self.overlap)
            cols = [col for col in cols if self._meets_scene(col, side, 1)]
            owns = [_outside(col, side, known, self.shape[1]) for col in cols]
            bands.append(
                tuple(
                    self._tile(Window(row=row, col=col, height=height, width=side), own_rows, own)
                    for col, own in zip(cols, owns, strict=True)
                )
            )
            pixels += height * side * sum(known[0] <= col < known[1] - side + 1 for col in cols) if span else 0
        return Cut(shape=self._scene, height=height, bands=tuple(bands), pixels=pixels)

    def least(self, axis: int, align: int) -> int:
        """The smallest side of a tile: more than the overlap, or the whole axis."""
        return min(self.overlap, self.shape[axis] - 1) // align * align + align

    def _meets_scene(self, first: int, side: int, axis: int) -> bool:
        """Whether a window sees anything of the scene along an axis, and not only what is mirrored."""
        return self.margin - side < first < self.margin + self._scene[axis]

    def _tile(self, window: Window, rows: _Span, cols: _Span) -> Tile:
        """A window and its own part, which are said in the scene's rows and columns."""
        back = (-self.margin, -self.margin)
        own = Window.from_edges(top=rows[0], left=cols[0], bottom=rows[1], right=cols[1])
        return Tile(window=window.shift(*back), own=own.shift(*back).clip(self._scene))

    def _span(self, valid: _Bools, axis: int) -> _Span | None:
        found = np.flatnonzero(valid)
        if not len(found):
            return None
        cell, wider = self._cell[axis], self._wider(axis)
        first = math.floor((found[0] - wider) * cell / _GRAIN_PX) * _GRAIN_PX
        end = math.ceil((found[-1] + 1 + wider) * cell / _GRAIN_PX) * _GRAIN_PX
        return max(first, 0), min(end + 2 * self.margin, self.shape[axis])

    def _wider(self, axis: int) -> int:
        return int(1 < self._valid.shape[axis] < self._scene[axis])


def _inside(span: _Span, length: int, *, tile: int, overlap: int) -> list[int]:
    """First pixels of the tiles that cover the pixels from ``span[0]`` to ``span[1]`` of an axis."""
    first, end = span
    if end - first <= tile:
        return [max(min(first, length - tile), 0)]
    return [first + start for start in starts(end - first, tile=tile, overlap=min(overlap, tile - 1))]


def _cover(span: _Span | None, length: int, *, tile: int, overlap: int) -> tuple[list[int], _Span]:
    """First pixels of the tiles that cover an axis, and which pixels those cover that are for ``span``.

    >>> _cover((4, 9), 12, tile=5, overlap=1)
    ([0, 4, 7], (4, 9))
    """
    overlap = min(overlap, tile - 1)
    inside = _inside(span or (0, length), length, tile=tile, overlap=overlap)
    covered = inside[0], inside[-1] + tile
    before = starts(inside[0] + overlap, tile=tile, overlap=overlap) if inside[0] else []
    rest = starts(length - covered[1] + overlap, tile=tile, overlap=overlap) if covered[1] < length else []
    return [*before, *inside, *(length - tile - start for start in reversed(rest))], covered


def _outside(first: int, tile: int, covered: _Span, length: int) -> _Span:
    """The pixels of a tile that are not ``covered``; all of them where the tile is one of those that cover."""
    if first < covered[0]:
        return first, min(first + tile, covered[0])
    if first + tile > covered[1]:
        return max(first, covered[1]), min(first + tile, length)
    return first, first + tile


def _narrowest(length: int, most: int, *, overlap: int, align: int) -> int:
    """Side of the tiles that cover an axis, as few and as small as they can be with sides of at most ``most``.

    >>> _narrowest(3333, 1500, overlap=128, align=32)
    1216
    """
    number = 1 if length <= most else 1 + math.ceil((length - most) / (most - overlap))
    return math.ceil((length + (number - 1) * overlap) / number / align) * align


def _cheapest(ground: _Ground, members: Sequence[Runs], settings: InferenceSettings, further: int) -> Cut:
    """The cut that costs the least; among equals the one with the fewest rows of windows.

    Raises:
        ConfigError: If the memory allows none.
    """
    stride, overlap = math.lcm(*(one.stride for one in members)), settings.overlap
    align = stride * max(1, _ALIGN // stride)
    fixed, per_row, per_pixel = _needs(members, settings, width=ground.shape[1], further=further)
    first, end = ground.rows or (0, ground.shape[0])
    best: Cut | None = None
    for height in _heights(end - first, ground.least(0, align), overlap, align):
        free = settings.memory_gb * 1e9 - fixed - per_row * height
        most = int(min(free / per_pixel, LARGEST_PX) / height) // align * align
        if most >= align and (most > overlap or most >= ground.shape[1]):
            cuts = [ground.cut(height, None, most=most, align=align)]
            widths = set(cuts[0].widths)
            if len(widths) > 1 and (best is None or cuts[0].pixels < best.cost):
                cuts += [ground.cut(height, width) for width in widths]
            best = min(filter(None, (best, *cuts)), key=lambda cut: (cut.cost, len(cut.bands)))
    if best is None:
        msg = (
            f"inference.memory_gb is {settings.memory_gb:g}, which allows no tile here that is larger than the overlap "
            f"of {overlap} px; allow more memory, or a smaller overlap or batch"
        )
        raise ConfigError(msg)
    return best


def _heights(length: int, least: int, overlap: int, align: int) -> list[int]:
    """Heights of tiles worth a look: for every number of tiles the smallest that will do, largest first."""
    most = (side for side in range(align, 2 * math.isqrt(LARGEST_PX), align) if side > overlap or side >= length)
    return sorted({max(_narrowest(length, side, overlap=overlap, align=align), least) for side in most}, reverse=True)


def _given_side(members: Sequence[Runs], settings: InferenceSettings) -> int | None:
    """The side of tiles that networks or settings insist on; None where it is free.

    Raises:
        ConfigError: If they do not agree.
    """
    fixed = sorted({one.tile for one in members if one.fixed_tile})
    if len(fixed) > 1:
        msg = f"these networks' answers depend on tiles of {fixed[0]} and of {fixed[1]} px; map with one at a time"
        raise ConfigError(msg)
    if fixed and settings.tile not in ("auto", fixed[0]):
        msg = (
            f"inference.tile is {settings.tile} px, but this network's answer depends on its tile of "
            f"{fixed[0]} px; set inference.tile to auto"
        )
        raise ConfigError(msg)
    if fixed:
        return fixed[0]
    return None if settings.tile == "auto" else settings.tile


def _check_side(shape: tuple[int, int], side: int, stride: int, settings: InferenceSettings) -> None:
    """Whether the networks take the tile, and the overlap leaves something of it."""
    if side % stride:
        below = side // stride * stride
        fitting = " or ".join(str(other) for other in (below, below + stride) if other)
        msg = f"inference.tile is {side} px, but this network needs a multiple of {stride}; use {fitting}, or auto"
        raise ConfigError(msg)
    if max(shape) > side <= settings.overlap:
        msg = (
            f"inference.overlap is {settings.overlap} px, but must be smaller than the tiles of {side} px; "
            f"set inference.overlap to {side // 4}"
        )
        raise ConfigError(msg)
