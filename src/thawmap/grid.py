"""Windows of a raster's pixels, tiles along an axis, and weights to blend them.

Everything here is integer or float arithmetic on pixels: no files, no coordinates.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A rectangle of a raster's pixels, which may reach beyond the raster.

    Attributes:
        row: First row.
        col: First column.
        height: Number of rows, at least 1.
        width: Number of columns, at least 1.
    """

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse a window without rows or without columns."""
        if self.height < 1 or self.width < 1:
            msg = f"a window of {self.height} x {self.width} px is empty; both sides must be at least 1"
            raise ValueError(msg)

    @classmethod
    def of_shape(cls, shape: tuple[int, int]) -> Self:
        """Return the window of all pixels of a raster of ``shape`` (rows, columns).

        >>> Window.of_shape((3, 5))
        Window(row=0, col=0, height=3, width=5)
        """
        height, width = shape
        return cls(row=0, col=0, height=height, width=width)

    @classmethod
    def from_edges(cls, *, top: int, left: int, bottom: int, right: int) -> Self:
        """Return the window between four edges in pixels; bottom and right are exclusive.

        >>> Window.from_edges(top=1, left=2, bottom=4, right=7)
        Window(row=1, col=2, height=3, width=5)
        """
        return cls(row=top, col=left, height=bottom - top, width=right - left)

    @classmethod
    def around(cls, windows: Iterable["Window"]) -> Self:
        """Return the smallest window that holds all of some windows, at least one.

        >>> Window.around([Window(row=0, col=0, height=2, width=2), Window(row=5, col=-1, height=1, width=1)])
        Window(row=0, col=-1, height=6, width=3)
        """
        lefts, tops, rights, bottoms = zip(*(window.bounds for window in windows), strict=True)
        return cls.from_edges(top=min(tops), left=min(lefts), bottom=max(bottoms), right=max(rights))

    @property
    def rows(self) -> slice:
        """Slice of the raster's rows that the window spans."""
        return slice(self.row, self.row + self.height)

    @property
    def cols(self) -> slice:
        """Slice of the raster's columns that the window spans."""
        return slice(self.col, self.col + self.width)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        return self.height, self.width

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """Edges (left, top, right, bottom) in pixels, as shapely takes them."""
        return self.col, self.row, self.col + self.width, self.row + self.height

    def shift(self, rows: int, cols: int) -> Self:
        """Return the window moved down by some rows and to the right by some columns.

        >>> Window(row=1, col=1, height=2, width=2).shift(3, -1)
        Window(row=4, col=0, height=2, width=2)
        """
        return replace(self, row=self.row + rows, col=self.col + cols)

    def pad(self, rows: int, cols: int | None = None) -> Self:
        """Return the window grown by some rows and columns on every side.

        Unset, as many columns as rows.

        >>> Window(row=1, col=1, height=2, width=2).pad(1)
        Window(row=0, col=0, height=4, width=4)
        """
        cols = rows if cols is None else cols
        height, width = self.height + 2 * rows, self.width + 2 * cols
        return replace(self, row=self.row - rows, col=self.col - cols, height=height, width=width)

    def scale(self, rows: int, cols: int | None = None) -> Self:
        """Return the window in pixels, for a window that counts blocks of pixels.

        A block has ``rows`` x ``cols`` px; unset, it is a square.

        >>> Window(row=1, col=2, height=2, width=1).scale(10)
        Window(row=10, col=20, height=20, width=10)
        """
        cols = rows if cols is None else cols
        height, width = self.height * rows, self.width * cols
        return replace(self, row=self.row * rows, col=self.col * cols, height=height, width=width)

    def coarsen(self, side: int) -> Self:
        """Return the window of blocks, ``side`` px wide, that a window of pixels touches.

        >>> Window(row=9, col=20, height=2, width=10).coarsen(10)
        Window(row=0, col=2, height=2, width=1)
        """
        left, top, right, bottom = self.bounds
        return self.from_edges(top=top // side, left=left // side, bottom=-(-bottom // side), right=-(-right // side))

    def intersect(self, other: "Window") -> Self | None:
        """Return the window that two windows share; None where they share none.

        >>> Window(row=0, col=0, height=4, width=4).intersect(Window(row=2, col=3, height=4, width=4))
        Window(row=2, col=3, height=2, width=1)
        """
        top, left = max(self.row, other.row), max(self.col, other.col)
        bottom, right = min(self.rows.stop, other.rows.stop), min(self.cols.stop, other.cols.stop)
        return (
            self.from_edges(top=top, left=left, bottom=bottom, right=right) if top < bottom and left < right else None
        )

    def clip(self, shape: tuple[int, int]) -> Self | None:
        """Return the part of the window inside a raster of a shape; None without any.

        >>> Window(row=-1, col=3, height=4, width=4).clip((10, 5))
        Window(row=0, col=3, height=3, width=2)
        """
        return self.intersect(Window.of_shape(shape)) if min(shape) > 0 else None

    def within(self, other: "Window") -> tuple[slice, slice]:
        """Return slices (rows, columns) that cut this window out of another's array.

        The other one holds this one.

        >>> Window(row=5, col=7, height=2, width=3).within(Window(row=4, col=4, height=9, width=9))
        (slice(1, 3, None), slice(3, 6, None))
        """
        inside = self.shift(-other.row, -other.col)
        return inside.rows, inside.cols

    def strips(self, height: int) -> Iterator[Self]:
        """Yield windows of at most ``height`` rows that make up the window, from the top.

        >>> [(strip.row, strip.height) for strip in Window(row=1, col=0, height=5, width=9).strips(3)]
        [(1, 3), (4, 2)]
        """
        for row in range(self.row, self.row + self.height, height):
            yield replace(self, row=row, height=min(height, self.row + self.height - row))

    def blocks(self, height: int, width: int | None = None) -> Iterator[Self]:
        """Yield windows of at most ``height`` x ``width`` px that make it up, row by row.

        Unset, the width is the height.

        >>> [block.bounds for block in Window.of_shape((5, 2)).blocks(3)]
        [(0, 0, 2, 3), (0, 3, 2, 5)]
        """
        width = height if width is None else width
        for strip in self.strips(height):
            for col in range(self.col, self.col + self.width, width):
                yield replace(strip, col=col, width=min(width, self.col + self.width - col))


def starts(length: int, *, tile: int, overlap: int) -> list[int]:
    """Return the first pixel of each tile that covers an axis of ``length`` pixels.

    Neighbours share at least ``overlap`` pixels. The last tile is shifted back so that it ends at the border; an axis
    that is shorter than a tile has one.

    Raises:
        ValueError: If the overlap is not smaller than the tile, or a size is not positive.

    >>> starts(10, tile=4, overlap=1)
    [0, 3, 6]
    >>> starts(9, tile=4, overlap=1)
    [0, 3, 5]
    >>> starts(3, tile=4, overlap=1)
    [0]
    """
    if length < 1 or tile < 1 or not 0 <= overlap < tile:
        msg = f"tiles of {tile} px cannot cover {length} px with overlap {overlap}; keep it below the tile"
        raise ValueError(msg)
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def spare(length: int, *, tile: int, overlap: int) -> int:
    """Return the number of pixels by which the tiles of an axis could reach beyond it.

    >>> spare(9, tile=4, overlap=1)
    1
    """
    number = len(starts(length, tile=tile, overlap=overlap))
    return number * tile - (number - 1) * overlap - length


def ramp(length: int, *, overlap: int, form: Literal["linear", "cosine"] = "linear") -> npt.NDArray[np.float32]:
    """Return blending weights (length,), float32 in (0, 1], for a tile's axis.

    They go up over the first ``overlap`` pixels and down over the last: linearly, as the paper blends its tiles
    (section 2.3.2, "Inference for Spatial Evaluation"), or along half a cosine; strictly positive, so that a scene's
    border keeps its value. Two neighbours' weights add to one where they share exactly ``overlap`` pixels, at most half
    of the tile.

    >>> ramp(6, overlap=2).astype(float).round(2).tolist()
    [0.33, 0.67, 1.0, 1.0, 0.67, 0.33]
    >>> ramp(6, overlap=2, form="cosine").astype(float).round(2).tolist()
    [0.25, 0.75, 1.0, 1.0, 0.75, 0.25]
    """
    distance = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1))
    rise = np.minimum(distance / (overlap + 1), 1.0)
    return (rise if form == "linear" else np.sin(np.pi / 2 * rise) ** 2).astype(np.float32)
