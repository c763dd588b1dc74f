"""Random fields over an endless plane, whose numbers depend on the position alone.

A field is a sum of octaves; an octave is a lattice of independent normal numbers, drawn cell by cell from a
counter-based generator, between which cubic B-splines run. Every value follows from its position by a fixed order
of operations, so that a window's values equal those of the whole, bit for bit, and nothing needs a scene's memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

PIXEL_M = 3.0
"""Side of a pixel of the ground, in metres: PlanetScope's."""

_CELL = 64  # side of the squares of random numbers that are drawn at once
_SPLINE_STD = (
    151 / 315
)  # standard deviation of a surface of cubic B-splines over normal numbers: its mean over positions
_NODES_PER_WAVE = 3.0  # nodes of an octave on the wavelength that it is named after


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """Points of the plane: every ``step``-th pixel of every ``step``-th row.

    Attributes:
        row: Row of the first point, in pixels; it may be negative, as may the column.
        col: Column of the first point, in pixels.
        height: Number of rows of points.
        width: Number of columns of points.
        step: Pixels from point to point.
    """

    row: int
    col: int
    height: int
    width: int
    step: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and number of columns of points."""
        return self.height, self.width

    @property
    def y(self) -> npt.NDArray[np.int64]:
        """Row in pixels of each row of points, as an array."""
        return self.row + self.step * np.arange(self.height)

    @property
    def x(self) -> npt.NDArray[np.int64]:
        """Column in pixels of each column of points, as an array."""
        return self.col + self.step * np.arange(self.width)

    def pad(self, points: int) -> "Lattice":
        """Return a larger lattice, with so many points more on each of its four sides."""
        shift = self.step * points
        return Lattice(
            row=self.row - shift,
            col=self.col - shift,
            height=self.height + 2 * points,
            width=self.width + 2 * points,
            step=self.step,
        )

    def coarse(self, step: int) -> "Lattice":
        """Return a lattice of another step around this one, with room for cubic splines.

        Its points lie at multiples of ``step`` pixels; a cubic spline needs one before and two after a position.
        """
        row, col = self.row // step - 1, self.col // step - 1
        last_row = (self.row + self.step * (self.height - 1)) // step + 2
        last_col = (self.col + self.step * (self.width - 1)) // step + 2
        return Lattice(row=row * step, col=col * step, height=last_row - row + 1, width=last_col - col + 1, step=step)


_Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Plane:
    """The random fields of one seed, each with a name of its own.

    Attributes:
        seed: Whole numbers from which everything follows; none is negative.
    """

    seed: tuple[int, ...]

    def noise(
        self, name: str, lattice: Lattice, *, longest_m: float, shortest_m: float = 9.0, roughness: float = 2.0
    ) -> Field:
        """Return the random field of a name at a lattice, of mean 0 and deviation 1.

        An array (row, column). The spectrum's amplitude is level above the wavelength ``longest_m``, falls below it
        with the power ``roughness`` of the wavelength, and ends at ``shortest_m``.
        """
        return _sum_octaves(_octave, _key(self.seed, name), lattice, _octaves(longest_m, shortest_m, roughness))

    def forms(
        self, name: str, lattice: Lattice, *, longest_m: float, shortest_m: float = 9.0, roughness: float = 2.0
    ) -> Field:
        """Return the random field of a name at a lattice, free of row and column patterns.

        As `noise` does, slower: every octave is turned by another angle.
        """
        return _sum_octaves(_turned_octave, _key(self.seed, name), lattice, _octaves(longest_m, shortest_m, roughness))

    def white(self, name: str, lattice: Lattice) -> Field:
        """Return independent standard normal numbers (row, column) at a step-1 lattice."""
        return _normals(_key(self.seed, name), 0, lattice.row, lattice.col, lattice.shape)

    def rng(self, name: str, *numbers: int) -> np.random.Generator:
        """Return a random generator seeded by the plane's seed, a name and whole numbers."""
        return np.random.default_rng([*_key(self.seed, name), *(number & _WORD for number in numbers)])


_WORD = 2**64 - 1  # brings negative numbers into the 64 bits of a generator's seed


@lru_cache(maxsize=4096)
def _key(seed: tuple[int, ...], name: str) -> _Key:
    """Return two 64-bit numbers that seed a field's generators, from seed and name.

    A name is a seed: with another name a field has other numbers, and a simulation other pixels.
    """
    first, second = np.random.SeedSequence([*seed, crc32(name.encode())]).generate_state(2, np.uint64)
    return int(first), int(second)


@lru_cache(maxsize=256)
def _octaves(longest_m: float, shortest_m: float, roughness: float) -> tuple[tuple[float, float], ...]:
    """Return node spacing in pixels and amplitude of each octave, longest wave first.

    The variances of all octaves add to one.
    """
    waves = [longest_m]
    while waves[-1] / 2 >= shortest_m * 0.999:
        waves.append(waves[-1] / 2)
    frequency = 1 / np.array(waves)
    amplitude = (frequency**2 + longest_m**-2.0) ** (-roughness / 2) * frequency
    amplitude /= np.sqrt(np.sum(amplitude**2))
    spacing = [wave / _NODES_PER_WAVE / PIXEL_M for wave in waves]
    return tuple(zip(spacing, (amplitude / _SPLINE_STD).tolist(), strict=True))


def _sum_octaves(
    octave: Callable[[_Key, int, Lattice, float], Field],
    key: _Key,
    lattice: Lattice,
    octaves: tuple[tuple[float, float], ...],
) -> Field:
    """Add up the octaves of a field at a lattice, each times its amplitude.

    ``octave`` computes one; ``octaves`` holds the spacing of nodes and the amplitude of each; the sum is (row, column).
    """
    total = np.zeros(lattice.shape, np.float32)
    for number, (spacing, amplitude) in enumerate(octaves):
        total += np.float32(amplitude) * octave(key, number, lattice, spacing)
    return total


def _octave(key: _Key, number: int, lattice: Lattice, spacing: float) -> Field:
    """Return one octave at a lattice: splines over normal numbers in straight rows.

    Nodes are ``spacing`` pixels apart; an array (row, column).
    """
    # Each octave is shifted by another share of its spacing, so that nodes of several do not coincide.
    row, row_weights = _taps(lattice.y / spacing + 0.37 * number)
    col, col_weights = _taps(lattice.x / spacing + 0.61 * number)
    shape = (int(row[-1] - row[0]) + 4, int(col[-1] - col[0]) + 4)
    nodes = _normals(key, number, int(row[0]), int(col[0]), shape)
    return _spline(nodes, (row - row[0], row_weights), (col - col[0], col_weights))


def _turned_octave(key: _Key, number: int, lattice: Lattice, spacing: float) -> Field:
    """Return one octave at a lattice: splines over normal numbers in oblique rows.

    Nodes are ``spacing`` pixels apart; an array (row, column).
    """
    angle = 0.6 + 1.1 * number
    down, right = lattice.y[:, None] / spacing, lattice.x[None, :] / spacing
    row = down * np.cos(angle) + right * np.sin(angle) + 0.37 * number
    col = right * np.cos(angle) - down * np.sin(angle) + 0.61 * number
    first = (int(np.floor(row.min())) - 1, int(np.floor(col.min())) - 1)
    shape = (int(row.max()) - first[0] + 4, int(col.max()) - first[1] + 4)
    nodes = _normals(key, number, *first, shape)
    positions = np.stack([row - first[0], col - first[1]])
    surface: Field = ndimage.map_coordinates(nodes, positions, order=3, prefilter=False, output=np.float32)
    return surface


def upsample(values: Field, coarse: Lattice, fine: Lattice) -> Field:
    """Return a smooth field at a fine lattice, by splines over values at a coarse one.

    Cubic B-splines smooth: they do not pass through the values.
    """
    rows = _taps((fine.y - coarse.row) / coarse.step)
    cols = _taps((fine.x - coarse.col) / coarse.step)
    return _spline(values, rows, cols)


_Taps = tuple[npt.NDArray[np.int64], Field]


def _taps(position: npt.NDArray[np.float64]) -> _Taps:
    """Return the first of the four nodes about each position, and the nodes' weights.

    The weights (4, position) are those of the cubic B-spline.
    """
    below = np.floor(position)
    t = position - below
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    return below.astype(np.int64) - 1, weights.astype(np.float32)


def _spline(nodes: Field, rows: _Taps, cols: _Taps) -> Field:
    """Return the weighted sum of the 4 x 4 nodes about each position (row, column).

    ``rows`` and ``cols`` hold the first of four nodes and the weights, for each row and each column.
    """
    # Tap by tap in a fixed order: the same sums in every window, which a matrix product would not promise.
    first, weights = rows
    across = weights[0][:, None] * nodes[first]
    for tap in range(1, 4):
        across += weights[tap][:, None] * nodes[first + tap]
    first, weights = cols
    surface: Field = weights[0] * across[:, first]
    for tap in range(1, 4):
        surface += weights[tap] * across[:, first + tap]
    return surface


def _normals(key: _Key, number: int, row: int, col: int, shape: tuple[int, int]) -> Field:
    """Return a window (row, column) of the normal numbers at an octave's nodes."""
    window = np.empty(shape, np.float32)
    for cell_row, window_rows, cell_rows in _cells(row, shape[0]):
        for cell_col, window_cols, cell_cols in _cells(col, shape[1]):
            window[window_rows, window_cols] = _cell(key, number, cell_row, cell_col)[cell_rows, cell_cols]
    return window


def _cells(first: int, length: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield each cell of 64 nodes that a window meets on an axis: number, two slices.

    The first slice is that of the window, the second that of the cell, of what both share.
    """
    for cell in range(first // _CELL, (first + length - 1) // _CELL + 1):
        start, stop = max(first, cell * _CELL), min(first + length, (cell + 1) * _CELL)
        yield cell, slice(start - first, stop - first), slice(start - cell * _CELL, stop - cell * _CELL)


@lru_cache(maxsize=2048)
def _cell(key: _Key, number: int, row: int, col: int) -> Field:
    """Return the 64 x 64 normal numbers of one cell of an octave, read-only."""
    counter = np.array([0, number, col & _WORD, row & _WORD], np.uint64)
    generator = np.random.Generator(np.random.Philox(key=np.array(key, np.uint64), counter=counter))
    numbers = generator.standard_normal((_CELL, _CELL), dtype=np.float32)
    numbers.flags.writeable = False
    return numbers
