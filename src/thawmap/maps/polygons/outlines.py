"""The outlines of objects, from the rows of a mask: whole arrays at a time.

    mask --where a row changes--> runs --that overlap--> pieces
      |                                                    |
      +------- corners between two rows ---------> horizontal edges --vertical edges--> rings

Columns and rows are counted at the corners of pixels. A row of a mask is given by where it changes; two rows, one
above the other, change at different places only where the outline of an object turns. An edge lies between two
turns of one row, so an outline is its horizontal edges, and the vertical ones follow from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import shapely

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Integers = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]
Objects = npt.NDArray[np.object_]


def changes(mask: Bools) -> npt.NDArray[np.int64]:
    """Return flat positions where runs of True begin and end in a mask's rows.

    row * (width + 1) + column, ascending, so begins and ends alternate.
    """
    height, width = mask.shape
    flat = np.zeros(height * (width + 1) + 1, np.bool_)
    flat[:-1].reshape(height, width + 1)[:, 1:] = mask
    return np.flatnonzero(flat[1:] != flat[:-1])


def groups(size: int, pairs: tuple[Integers, Integers]) -> tuple[int, Integers]:
    """Return the number of groups and each thing's group, from pairs of indices.

    Things of a pair are of one group; the groups are (size,).
    """
    if not size:
        return 0, np.empty(0, np.int64)
    from scipy.sparse import coo_array  # noqa: PLC0415 - only once a scene is mapped
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    graph = coo_array((np.ones(len(pairs[0]), np.int8), pairs), shape=(size, size))
    count, group = connected_components(graph, directed=False)
    return int(count), group


def overlapping(runs: Integers, width: int) -> tuple[Integers, Integers]:
    """Return indices of upper and lower runs that share a side, a pair per overlap.

    The runs are those of `changes`, in rows of ``width`` pixels.
    """
    begins, ends = runs[::2], runs[1::2]
    first = np.searchsorted(ends, begins - (width + 1), side="right")
    count = np.maximum(np.searchsorted(begins, ends - (width + 1), side="left") - first, 0)
    lower = np.repeat(np.arange(len(begins)), count)
    upper = np.arange(len(lower)) + np.repeat(first - np.cumsum(count) + count, count)
    return upper, lower


@dataclass(frozen=True, slots=True)
class Edges:
    """Horizontal edges of outlines, sorted by row and column.

    Attributes:
        row: Row of the corners that an edge lies in.
        left: Column where it begins.
        right: Column where it ends.
        left_down: Whether the outline goes on downwards at its left end, else upwards.
        right_down: The same at its right end.
        below: Whether the object lies below it, else above.
        owner: Number of what it belongs to.
    """

    row: Integers
    left: Integers
    right: Integers
    left_down: Bools
    right_down: Bools
    below: Bools
    owner: Integers

    def __len__(self) -> int:
        """Number of edges."""
        return len(self.row)

    @property
    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """The seven arrays of the edges, in order of the attributes."""
        return self.row, self.left, self.right, self.left_down, self.right_down, self.below, self.owner

    def of(self, owner: Integers, which: Bools) -> "Edges":
        """Return the edges that a bool array selects, with other owners.

        ``owner`` has a number for every edge, selected or not.
        """
        row, left, right, left_down, right_down, below, _ = (column[which] for column in self.columns)
        return Edges(row, left, right, left_down, right_down, below, owner[which])

    @staticmethod
    def chain(tables: Sequence["Edges"]) -> "Edges":
        """Concatenate several tables of edges into one, in the given order."""
        columns = zip(*(table.columns for table in tables), strict=True)
        row, left, right, left_down, right_down, below, owner = map(np.concatenate, columns)
        return Edges(row, left, right, left_down, right_down, below, owner)


def edges(runs: Integers, owner: Integers, *, height: int, width: int, first_row: int) -> Edges:
    """Return the outlines' horizontal edges along the top of each row, from its runs.

    Args:
        runs: The runs of all these rows, as `changes` gives them.
        owner: What each run belongs to.
        height: Number of rows, without the one above.
        width: Their length.
        first_row: The scene's row that comes after the one above.
    """
    line = width + 1
    upper, lower = runs[: np.searchsorted(runs, height * line)] + line, runs[np.searchsorted(runs, line) :]
    owners = np.repeat(owner, 2)
    from_above = _corners(upper, lower, owners[: len(upper)], down=False)
    from_below = _corners(lower, upper, owners[len(owners) - len(lower) :], down=True)
    corner, to_right, down, below, owners_of_corners = (
        np.concatenate(pair) for pair in zip(from_above, from_below, strict=True)
    )
    order = np.argsort(2 * corner + to_right)  # where two edges meet at one corner, the left one comes first
    corner, down, below, owners_of_corners = corner[order], down[order], below[order], owners_of_corners[order]
    left, right = corner[::2], corner[1::2]
    return Edges(
        (left // line + (first_row - 1)).astype(np.int32),
        (left % line).astype(np.int32),
        (right % line).astype(np.int32),
        down[::2],
        down[1::2],
        below[::2],
        owners_of_corners[::2],
    )


def _corners(changed: Integers, other: Integers, owner: Integers, *, down: bool) -> tuple[npt.NDArray[Any], ...]:
    """Return five arrays that describe outlines' corners at run ends of one row.

    The neighbouring row changes at ``other``.

    Returns:
        Of each corner: where it is, as `changes` counts; whether its edge goes to the right; whether the outline goes
        on downwards; whether the object is below the edge; owner. Where both rows change in the same way the outline
        goes straight on, and has none.
    """
    before = np.searchsorted(other, changed)
    both = np.zeros(len(changed), np.bool_)
    inner = before < len(other)
    both[inner] = other[before[inner]] == changed[inner]
    begins = np.arange(len(changed)) % 2 == 0
    odd = before % 2 == 1
    turns = ~both | (begins == odd)
    concave = odd & ~both  # the neighbour has a run here, so the edge is on the other side
    below = concave != down
    flags = (begins != concave, np.full(len(changed), down), below)
    return (changed[turns], *(flag[turns] for flag in flags), owner[turns])


@dataclass(frozen=True, slots=True)
class Rings:
    """Closed outlines, sorted by owner, the outer one of each before its holes.

    Attributes:
        corners: (corner, 2), column and row; the first of a ring is not repeated at its end.
        length: Number of corners of each ring.
        owner: What each ring belongs to.
        pixels: Enclosed pixels; negative for a hole.
    """

    corners: Integers
    length: Integers
    owner: Integers
    pixels: Integers

    def without(self, left_out: Bools) -> Self:
        """Return the rings without those that a bool array marks."""
        stays = ~left_out
        corners = self.corners[np.repeat(stays, self.length)]
        return type(self)(corners, self.length[stays], self.owner[stays], self.pixels[stays])

    def linear(self) -> Objects:
        """Return each ring, outer or hole, as a shapely LinearRing."""
        number = np.repeat(np.arange(len(self.length)), self.length)
        return _array(shapely.linearrings(self.corners.astype(np.float64), indices=number))

    def polygons(self) -> Objects:
        """Return a shapely polygon for each owner, its holes cut out.

        Owners are 0, 1, 2 and so on, and each has an outer ring.
        """
        return _array(shapely.polygons(self.linear(), indices=self.owner))

    def holes(self, which: Integers) -> Objects:
        """Return the rings at given indices, each filled as a shapely polygon."""
        return _array(shapely.polygons(self.linear()[which]))


def _array(geometries: Any) -> Objects:
    assert isinstance(geometries, np.ndarray)
    return geometries


def rings(edge: Edges) -> Rings:
    """Join the edges of whole objects into closed rings, sorted by owner.

    Where an object meets itself at a corner, its outline does not cross there: a hole touches the outer ring, or
    another hole, in a point.
    """
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415 - only once a scene is mapped

    count = len(edge)
    following = _following(edge)
    rounds, ring = connected_components(_pointing(following), directed=True, connection="strong")
    # areas between edges and row 0, signed by the edges' directions: their sum is the ring's (Green)
    run = np.where(edge.below, 1, -1) * (edge.right - edge.left)
    pixels = -np.bincount(ring, weights=edge.row.astype(np.float64) * run, minlength=rounds).astype(np.int64)
    first = np.empty(rounds, np.int64)
    first[ring[::-1]] = np.arange(count)[::-1]  # written backwards, so that the first edge of a ring stays
    order = np.lexsort((pixels < 0, edge.owner[first]))
    walk = _walk(following, first[order])
    along = np.where(edge.below[walk, None], [0, 1], [1, 0])
    columns = np.take_along_axis(np.stack([edge.left[walk], edge.right[walk]], axis=1), along, axis=1)
    corners = np.stack([columns.ravel(), np.repeat(edge.row[walk], 2)], axis=1)
    return Rings(corners, 2 * np.bincount(ring, minlength=rounds)[order], edge.owner[first[order]], pixels[order])


def _following(edge: Edges) -> Integers:
    """Return, for each edge, the index of the next edge along its outline.

    The object lies on the right hand.
    """
    down = np.stack([edge.left_down, edge.right_down], axis=1)
    _part_at_corners(edge, down)
    column = np.stack([edge.left, edge.right], axis=1).astype(np.int64).ravel()
    tall = int(edge.row.max(initial=0)) + 1
    position = (column * tall + np.repeat(edge.row, 2)) * 2 + down.ravel()
    order = np.argsort(position)  # where two vertical edges meet at one position, the upper one comes first
    partner = np.empty(len(order), np.int64)
    partner[order[::2]], partner[order[1::2]] = order[1::2], order[::2]
    following: Integers = partner[2 * np.arange(len(edge)) + edge.below] // 2
    return following


def _part_at_corners(edge: Edges, down: Bools) -> None:
    """Swap edges' directions, in place, where an object meets itself at a corner.

    So that outlines do not cross themselves; ``down`` is changed.
    """
    meet = (edge.row[1:] == edge.row[:-1]) & (edge.left[1:] == edge.right[:-1]) & (edge.owner[1:] == edge.owner[:-1])
    at = np.flatnonzero(meet)
    down[at, 1], down[at + 1, 0] = down[at + 1, 0].copy(), down[at, 1].copy()


def _pointing(following: Integers, last: int | None = None) -> "csr_array":
    """Return a graph, as a sparse matrix, in which each node points to the next.

    The last one, if named, points to none.
    """
    from scipy.sparse import csr_array  # noqa: PLC0415 - only once a scene is mapped

    count = len(following)
    ends = np.arange(count + 1)
    if last is not None:
        following, ends = np.delete(following, last), ends - (ends > last)
    return csr_array((np.ones(len(following), np.int8), following, ends), shape=(count, count))


def _walk(following: Integers, first: Integers) -> Integers:
    """Return node indices in walking order, ring after ring from given first nodes.

    Rings come in the order of their ``first`` nodes.
    """
    from scipy.sparse.csgraph import breadth_first_order  # noqa: PLC0415 - only once a scene is mapped

    if not len(first):
        return np.empty(0, np.int64)
    # the rings are joined to one path, so that one search walks them all in order
    before = np.empty_like(following)
    before[following] = np.arange(len(following))
    ends = before[first]
    path = following.copy()
    path[ends[:-1]] = first[1:]
    order: Integers = breadth_first_order(_pointing(path, int(ends[-1])), int(first[0]), return_predecessors=False)
    return order
