"""Windows of a raster's grid: how an axis is cut into overlapping tiles, and the weights that blend them.

Everything here is integer or float arithmetic on pixels: no files, no coordinates.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A rectangle of pixels; it may reach beyond its raster, where nothing is known.

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
        """Check the size."""
        if self.height < 1 or self.width < 1:
            msg = f"a window of {self.height} x {self.width} px is empty; both sides must be at least 1"
            raise ValueError(msg)

    @property
    def rows(self) -> slice:
        """The rows as a slice."""
        return slice(self.row, self.row + self.height)

    @property
    def cols(self) -> slice:
        """The columns as a slice."""
        return slice(self.col, self.col + self.width)


def starts(length: int, *, tile: int, overlap: int) -> list[int]:
    """First pixels of the tiles that cover ``length`` pixels with at least ``overlap`` between neighbours.

    The last tile is shifted back so that it ends at the border; an axis that is shorter than a tile has one.

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
    firsts = list(range(0, length - tile, tile - overlap))
    return [*firsts, length - tile]


def spare(length: int, *, tile: int, overlap: int) -> int:
    """Count the pixels that the tiles of `starts` could cover beyond an axis.

    >>> spare(9, tile=4, overlap=1)
    1
    """
    number = len(starts(length, tile=tile, overlap=overlap))
    return number * tile - (number - 1) * overlap - length


def blocks(shape: tuple[int, int], *, side: int) -> Iterator[Window]:
    """Windows of at most ``side`` pixels that cover a raster of ``shape`` once each, row by row.

    >>> [(block.row, block.height) for block in blocks((5, 2), side=3)]
    [(0, 3), (3, 2)]
    """
    height, width = shape
    for row in range(0, height, side):
        for col in range(0, width, side):
            yield Window(row=row, col=col, height=min(side, height - row), width=min(side, width - col))


def ramp(length: int, *, overlap: int, form: Literal["linear", "cosine"] = "linear") -> npt.NDArray[np.float32]:
    """Blending weights (length,), float32 in (0, 1]: up over the first ``overlap`` pixels, down at the end.

    Linear, as the paper blends its tiles (section 2.3.2, "Inference for Spatial Evaluation"), or along half a cosine;
    strictly positive, so that a scene's border keeps its value. Two neighbours' weights add to one where they share
    exactly ``overlap`` pixels, at most half of the tile.

    >>> ramp(6, overlap=2).astype(float).round(2).tolist()
    [0.33, 0.67, 1.0, 1.0, 0.67, 0.33]
    >>> ramp(6, overlap=2, form="cosine").astype(float).round(2).tolist()
    [0.25, 0.75, 1.0, 1.0, 0.75, 0.25]
    """
    distance = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1))
    rise = np.minimum(distance / (overlap + 1), 1.0)
    return (rise if form == "linear" else np.sin(np.pi / 2 * rise) ** 2).astype(np.float32)
