"""The tiling of a scene: the cheapest that the memory allows.

Tiles lie where the scene has something valid, row of tiles by row of tiles; what lies beyond is covered too, by tiles
that cost nothing but reading as long as nothing valid is found there.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from thawmap.config import InferenceSettings
from thawmap.errors import ConfigError
from thawmap.grid import Window, spare, starts
from thawmap.infer.member import Member

LARGEST_PX = 4096**2
"""Most pixels of an automatic tile: beyond it nothing is saved that is worth the memory."""

BASE_GB = 1.0
"""Memory of a process that has loaded its libraries and a network, and keeps a small cache of raster blocks."""

ROWS_PX = 2**22
"""Pixels that are handed on at once."""

STRIP_PX = 2**20
"""Pixels that are assembled at once."""

_IDLE_SHARE = 0.3  # of the time for a tile, in which the network waits for the first, and the last is written
_OTHER_WIDTH_PX = 1_000_000  # that are computed while a backend gets ready for tiles of another width

_STRIP_BYTES = 4  # per pixel of the rows that are not finished, for weights, each network and each extra layer
_WIDE_BYTES = 8  # per pixel of these rows, beside that: measured on scenes of 4000 to 16 000 px
_HANDED_BYTES = 24  # per pixel that is handed on at once
_ASSEMBLED_BYTES = 8  # per pixel that is assembled at once, for each layer
_GRAIN_PX = 64  # where something is valid is known so coarsely, so that a missing pixel seldom moves a seam
_ALIGN = 32  # sides of automatic tiles are about multiples of it, whatever the network takes

_Bools = npt.NDArray[np.bool_]
_Span = tuple[int, int]  # first pixel of an axis, and the one behind the last


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A tile of a tiling: a window, and the pixels of it that no other tile covers.

    Attributes:
        window: What a network sees; it may reach beyond the scene on every side.
        own: The pixels of the scene that other tiles do not cover; where none of them is valid, the tile is not
            computed. None where there are no such pixels.
    """

    window: Window
    own: Window | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """The tiles of a scene.

    Attributes:
        shape: Rows and columns of the scene.
        height: Rows of every tile; a tile may reach beyond a scene that is smaller.
        tile_rows: The rows of tiles, from the top; the tiles of a row are equally wide.
        pixels: Pixels that a network computes, where nothing is valid but what is known to be.
    """

    shape: tuple[int, int]
    height: int
    tile_rows: tuple[tuple[Tile, ...], ...]
    pixels: int

    @property
    def tiles(self) -> Iterator[Tile]:
        """An iterator over all tiles, row by row from the top."""
        for row in self.tile_rows:
            yield from row

    @property
    def largest(self) -> tuple[int, int]:
        """Rows and columns of the largest tile."""
        return self.height, max(self.widths)

    @property
    def widths(self) -> list[int]:
        """A list of the tiles' width in pixels, one per row of tiles."""
        return [row[0].window.width for row in self.tile_rows]

    @property
    def cost(self) -> float:
        """The estimated time of mapping, as the number of pixels computed meanwhile."""
        height, width = self.largest
        changes = 1 + sum(above != below for above, below in pairwise(self.widths))
        return self.pixels + _IDLE_SHARE * height * width + _OTHER_WIDTH_PX * changes


def plan(
    shape: tuple[int, int],
    members: Sequence[Member],
    settings: InferenceSettings,
    *,
    valid: _Bools | None = None,
    extra_layers: int = 0,
) -> Tiling:
    """Return a scene's tiling for networks: of their tile, a set one or the cheapest.

    A network that sees its whole tile keeps its tile; a tile that is set is obeyed; else the tiling is the cheapest of
    all whose memory, by the estimate of `memory`, is allowed.

    Args:
        shape: Rows and columns of the scene.
        members: The networks, which see every tile one after the other.
        settings: Tile, overlap, batch and memory.
        valid: Where the scene has a valid pixel: the scene coarsened to any shape; None: everywhere.
        extra_layers: Number of layers that are handed on beside the probabilities.

    Raises:
        ConfigError: If the tile that is asked for does not suit a network or the overlap, or the memory is too small.
    """
    valid = np.ones((1, 1), np.bool_) if valid is None else valid
    stride = math.lcm(*(member.stride for member in members))
    side = _given_side(members, settings)
    if side is None:
        ground = _Ground(shape, valid, settings.overlap, settings.margin)
        return _cheapest(ground, members, settings, extra_layers)
    _check_side(shape, side, stride, settings)
    margin, overlap = settings.margin, min(settings.overlap, side - 1)
    if any(member.fixed_tile for member in members):  # only what costs no tile more
        margin = min(margin, *(spare(length, tile=side, overlap=overlap) // 2 for length in shape))
    return _Ground(shape, valid, settings.overlap, margin).tiling(side, side)


def memory(
    tile: tuple[int, int], members: Sequence[Member], settings: InferenceSettings, *, width: int, extra_layers: int = 0
) -> float:
    """Estimate the bytes of a process that maps a scene by tiles of a given size.

    About `BASE_GB`, what backends take in any case, what the hungriest network takes for a batch, the layers of every
    tile that is in the batch, waits or is being read, and the rows that are not finished.

    Args:
        tile: Rows and columns of the tiles.
        members: The networks.
        settings: Size of a batch.
        width: Columns of the scene.
        extra_layers: Number of layers that are handed on beside the probabilities.
    """
    fixed, per_row, per_pixel = _memory_terms(members, settings, width=width, extra_layers=extra_layers)
    return fixed + per_row * tile[0] + per_pixel * tile[0] * tile[1]


def _memory_terms(
    members: Sequence[Member], settings: InferenceSettings, *, width: int, extra_layers: int
) -> tuple[float, float, float]:
    """Return three estimates of bytes: fixed, per row of a tile, per pixel of a tile."""
    layers = len({name for member in members for name in member.names})
    stacks = 2 * settings.batch_size + 1  # in the batch, waiting, and being read
    network = settings.batch_size * max(member.bytes_per_pixel for member in members)
    assembled = _ASSEMBLED_BYTES * layers * STRIP_PX * max(member.readers for member in members)
    backends = sum(member.base_bytes for member in members)
    fixed = BASE_GB * 1e9 + backends + _HANDED_BYTES * ROWS_PX + assembled
    per_row = (_STRIP_BYTES * (1 + len(members) + extra_layers) + _WIDE_BYTES) * width
    return fixed, per_row, network + stacks * 4 * layers


class _Ground:
    """A scene to be tiled: where it is valid, how far tiles overlap, and its margin.

    Rows and columns count from the first that tiles may see, which lies a margin before the scene's first.

    Args:
        shape: Rows and columns of the scene.
        valid: The scene coarsened to any shape; where a cell is more than one pixel the valid ground is taken a cell
            wider on every side, as what is small may be lost in a coarse picture.
        overlap: Pixels that neighbours share at least.
        margin: Pixels beyond the scene's border, and beyond what is valid, that tiles see.
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
        """The first row of valid ground and the one behind its last; None without any."""
        return self._span(np.atleast_1d(self._valid.any(axis=1)), 0)

    def cols(self, first: int, end: int) -> _Span | None:
        """Return first and end column of valid ground in a span of rows; None without."""
        cell, wider = self._cell[0], self._wider(0)
        above, below = first - self.margin, end - self.margin
        rows = slice(max(math.floor(above / cell) - wider, 0), max(math.ceil(below / cell) + wider, 0))
        return self._span(np.atleast_1d(self._valid[rows].any(axis=0)), 1)

    def tiling(self, height: int, width: int | None, *, most: int = 0, align: int = 1) -> Tiling:
        """Return the tiling by tiles of one height, with one width or one per row of them.

        Args:
            height: Of all tiles.
            width: Of all tiles; None: in each row of them as few as are at most ``most`` columns wide.
            most: Of columns, without a width.
            align: Widths are multiples of it, without a width.
        """
        tile_rows, pixels = [], 0
        rows, valid_rows = _cover(self.rows, self.shape[0], tile=height, overlap=self.overlap)
        for row in rows:
            if not self._meets_scene(row, height, 0):
                continue
            own_rows = _outside(row, height, valid_rows, self.shape[0])
            # Beyond the valid rows nothing valid is known of: such tiles span the scene, and cost no pixels.
            span = self.cols(row, row + height) if own_rows == (row, row + height) else None
            first, end = span or (0, self.shape[1])
            side = width or max(_narrowest(end - first, most, overlap=self.overlap, align=align), self.least(1, align))
            cols, valid_cols = _cover(span, self.shape[1], tile=side, overlap=self.overlap)
            cols = [col for col in cols if self._meets_scene(col, side, 1)]
            tile_rows.append(
                tuple(
                    self._tile(
                        Window(row=row, col=col, height=height, width=side),
                        own_rows,
                        _outside(col, side, valid_cols, self.shape[1]),
                    )
                    for col in cols
                )
            )
            pixels += (
                height * side * sum(valid_cols[0] <= col < valid_cols[1] - side + 1 for col in cols) if span else 0
            )
        return Tiling(shape=self._scene, height=height, tile_rows=tuple(tile_rows), pixels=pixels)

    def least(self, axis: int, align: int) -> int:
        """Return the smallest side of a tile: more than the overlap, or the whole axis."""
        return min(self.overlap, self.shape[axis] - 1) // align * align + align

    def _meets_scene(self, first: int, side: int, axis: int) -> bool:
        """Return True if a tile sees the scene along an axis, not only what is mirrored."""
        return self.margin - side < first < self.margin + self._scene[axis]

    def _tile(self, window: Window, rows: _Span, cols: _Span) -> Tile:
        """Return a tile, shifted from counts with the margin to the scene's own pixels.

        ``rows`` and ``cols`` are those that no other tile covers; they are clipped to the scene.
        """
        back = (-self.margin, -self.margin)
        own = Window.from_edges(top=rows[0], left=cols[0], bottom=rows[1], right=cols[1])
        return Tile(window=window.shift(*back), own=own.shift(*back).clip(self._scene))

    def _span(self, valid: _Bools, axis: int) -> _Span | None:
        """Return first and end pixel of an axis's valid cells, with margins; or None."""
        cells = np.flatnonzero(valid)
        if not len(cells):
            return None
        cell, wider = self._cell[axis], self._wider(axis)
        first = math.floor((cells[0] - wider) * cell / _GRAIN_PX) * _GRAIN_PX
        end = math.ceil((cells[-1] + 1 + wider) * cell / _GRAIN_PX) * _GRAIN_PX
        return max(first, 0), min(end + 2 * self.margin, self.shape[axis])

    def _wider(self, axis: int) -> int:
        """Return 1 if an axis's valid cells are coarser than pixels, else 0.

        The valid ground is taken wider by as many cells; a single cell is everywhere already.
        """
        return int(1 < self._valid.shape[axis] < self._scene[axis])


def _cover(span: _Span | None, length: int, *, tile: int, overlap: int) -> tuple[list[int], _Span]:
    """Return tiles' first pixels along an axis, and the span that core tiles cover.

    Core tiles are those for ``span``, as few as can be; others go on from them to both ends. None: the whole axis.

    >>> _cover((4, 9), 12, tile=5, overlap=1)
    ([0, 4, 7], (4, 9))
    """
    overlap = min(overlap, tile - 1)
    first, end = span or (0, length)
    if end - first <= tile:
        inside = [max(min(first, length - tile), 0)]
    else:
        inside = [first + start for start in starts(end - first, tile=tile, overlap=overlap)]
    covered = inside[0], inside[-1] + tile
    before = starts(inside[0] + overlap, tile=tile, overlap=overlap) if inside[0] else []
    rest = starts(length - covered[1] + overlap, tile=tile, overlap=overlap) if covered[1] < length else []
    return [*before, *inside, *(length - tile - start for start in reversed(rest))], covered


def _outside(first: int, tile: int, covered: _Span, length: int) -> _Span:
    """Return a tile's span outside of a covered one; its whole span if it lies within."""
    if first < covered[0]:
        return first, min(first + tile, covered[0])
    if first + tile > covered[1]:
        return max(first, covered[1]), min(first + tile, length)
    return first, first + tile


def _narrowest(length: int, most: int, *, overlap: int, align: int) -> int:
    """Return the smallest side, at most ``most``, of the fewest tiles over an axis.

    >>> _narrowest(3333, 1500, overlap=128, align=32)
    1216
    """
    number = 1 if length <= most else 1 + math.ceil((length - most) / (most - overlap))
    return math.ceil((length + (number - 1) * overlap) / number / align) * align


def _cheapest(ground: _Ground, members: Sequence[Member], settings: InferenceSettings, extra_layers: int) -> Tiling:
    """Return the cheapest tiling that memory allows; of equals, of fewest tile rows.

    Raises:
        ConfigError: If the memory allows none.
    """
    stride, overlap = math.lcm(*(member.stride for member in members)), settings.overlap
    align = stride * max(1, _ALIGN // stride)
    fixed, per_row, per_pixel = _memory_terms(members, settings, width=ground.shape[1], extra_layers=extra_layers)
    first, end = ground.rows or (0, ground.shape[0])
    best: Tiling | None = None
    for height in _heights(end - first, ground.least(0, align), overlap, align):
        free = settings.memory_gb * 1e9 - fixed - per_row * height
        most = int(min(free / per_pixel, LARGEST_PX) / height) // align * align
        if most >= align and (most > overlap or most >= ground.shape[1]):
            tilings = [ground.tiling(height, None, most=most, align=align)]
            widths = set(tilings[0].widths)
            # One width for all rows of tiles saves that the backend gets ready anew, and costs pixels.
            if len(widths) > 1 and (best is None or tilings[0].pixels < best.cost):
                tilings += [ground.tiling(height, width) for width in widths]
            best = min(filter(None, (best, *tilings)), key=lambda tiling: (tiling.cost, len(tiling.tile_rows)))
    if best is None:
        msg = (
            f"inference.memory_gb is {settings.memory_gb:g}, which allows no tile here that is larger than the overlap "
            f"of {overlap} px; allow more memory, or a smaller overlap or batch"
        )
        raise ConfigError(msg)
    return best


def _heights(length: int, least: int, overlap: int, align: int) -> list[int]:
    """Return tile heights worth trying for an axis's length, largest first.

    For each number of tiles, the smallest that will do.
    """
    most = (side for side in range(align, 2 * math.isqrt(LARGEST_PX), align) if side > overlap or side >= length)
    return sorted({max(_narrowest(length, side, overlap=overlap, align=align), least) for side in most}, reverse=True)


def _given_side(members: Sequence[Member], settings: InferenceSettings) -> int | None:
    """Return the one tile side that networks or settings demand, else None.

    Raises:
        ConfigError: If they do not agree.
    """
    fixed = sorted({member.tile for member in members if member.fixed_tile})
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
    """Refuse a tile side that is no multiple of the stride or not above the overlap.

    Raises:
        ConfigError: If so.
    """
    if side % stride:
        below = side // stride * stride
        fitting = " or ".join(str(multiple) for multiple in (below, below + stride) if multiple)
        msg = f"inference.tile is {side} px, but this network needs a multiple of {stride}; use {fitting}, or auto"
        raise ConfigError(msg)
    if max(shape) > side <= settings.overlap:
        msg = (
            f"inference.overlap is {settings.overlap} px, but must be smaller than the tiles of {side} px; "
            f"set inference.overlap to {side // 4}"
        )
        raise ConfigError(msg)
