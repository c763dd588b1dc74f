"""Trees of thresholds on whole numbers, and the sums of their leaves for many pixels.

A tree asks of a pixel whether a layer is at most a threshold, goes left or right, and ends in a leaf. Going down a tree
pixel by pixel is slow where code is not compiled. Here every question is asked of 64 pixels at once, one bit for each:
a leaf's pixels are those that answer its questions as its way down asks, and a pixel's leaf is a number written in a
few such bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

BOOSTING = "boosting"
"""Name of the architecture of boosted trees."""

MOST_LEAVES = 256
"""Most leaves of a tree: as many as a byte can tell apart."""

BLOCK_PX = 2**18
"""Pixels that are asked together: enough for the calls, few enough for a processor's cache."""

_WORD = 64  # pixels whose answers are one number
_Bits = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tree:
    """A tree: its nodes, each behind the one that it hangs from, and its leaves.

    Attributes:
        layer: Number of the layer that each node asks, (n,) int32.
        threshold: Largest value for which its answer is left, (n,) int16.
        left: Number of the node to the left; below 0, of a leaf: -1 is the first, -2 the second. (n,) int32.
        right: The same to the right.
        value: Value of each leaf, (n + 1,) float32.

    Raises:
        ValueError: If they are not those of a tree.
    """

    layer: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.int16]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    value: npt.NDArray[np.float32]
    _nodes: list[tuple[int, int, int, int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what is no tree: nodes that nobody or two lead to, circles, no numbers."""
        number = len(self.layer)
        if not len(self.threshold) == len(self.left) == len(self.right) == number == len(self.value) - 1:
            msg = f"a tree of {number} nodes has {len(self.value)} leaves"
            raise ValueError(msg)
        if number >= MOST_LEAVES:
            msg = f"a tree has {number + 1} leaves; at most {MOST_LEAVES} are known"
            raise ValueError(msg)
        children = np.concatenate([self.left, self.right])
        nodes, leaves = np.sort(children[children >= 0]), np.sort(-1 - children[children < 0])
        is_below = np.minimum(np.where(self.left < 0, number, self.left), np.where(self.right < 0, number, self.right))
        whole = np.array_equal(nodes, np.arange(1, number)) and (is_below > np.arange(number)).all()
        if number and not (whole and np.array_equal(leaves, np.arange(number + 1))):
            msg = "nodes of a tree do not lead to all others and to every leaf once"
            raise ValueError(msg)
        if (self.layer < 0).any() or not np.isfinite(self.value).all():
            msg = "a tree asks for a layer below 0, or has a leaf without a number"
            raise ValueError(msg)
        columns = (self.layer, self.threshold, self.left, self.right)
        object.__setattr__(self, "_nodes", list(zip(*(column.tolist() for column in columns), strict=True)))

    def leaves_of(self, answers: "Answers") -> npt.NDArray[np.uint8]:
        """Return the number of each pixel's leaf, (pixels,) uint8."""
        digits = max(1, (len(self.value) - 1).bit_length())
        planes = np.zeros((digits, answers.words), np.uint64)
        reached: dict[int, _Bits] = {}
        for number, (layer, threshold, left, right) in enumerate(self._nodes):
            is_left, here = answers.at_most(layer, threshold), reached.pop(number, None)
            to_left = is_left if here is None else here & is_left
            to_right = ~is_left if here is None else here ^ to_left
            for child, pixels in ((left, to_left), (right, to_right)):
                if child >= 0:
                    reached[child] = pixels
                    continue
                for digit in range(digits):
                    if (-1 - child) >> digit & 1:
                        planes[digit] |= pixels
        bits = np.unpackbits(planes.view(np.uint8), axis=1, bitorder="little")
        leaf: npt.NDArray[np.uint8] = bits[-1]
        for digit in bits[-2::-1]:
            np.left_shift(leaf, 1, out=leaf)
            np.bitwise_or(leaf, digit, out=leaf)
        return leaf


class Answers:
    """Answers of a block of pixels to trees' questions, kept as bits.

    Args:
        codes: Layers (layer, pixels), int16, of which the number of pixels is a multiple of 64.
    """

    def __init__(self, codes: npt.NDArray[np.int16]) -> None:
        self._codes, self._kept = codes, dict[tuple[int, int], _Bits]()
        self._is_left = np.empty(codes.shape[1], bool)
        self.words = codes.shape[1] // _WORD

    def at_most(self, layer: int, threshold: int) -> _Bits:
        """Return for each pixel whether a layer is at most a threshold, as bits."""
        bits = self._kept.get((layer, threshold))
        if bits is None:
            np.less_equal(self._codes[layer], threshold, out=self._is_left)
            bits = self._kept[layer, threshold] = np.packbits(self._is_left, bitorder="little").view(np.uint64)
        return bits


def sum_of_leaves(trees: Sequence[Tree], codes: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Return the sum of trees' leaves for each pixel, float32, one tree after the other.

    Args:
        trees: The trees.
        codes: Layers (layer, pixels), int16; of a number of pixels that memory holds some bits of for each question.
    """
    number = codes.shape[1]
    padded = np.ascontiguousarray(np.pad(codes, ((0, 0), (0, -number % _WORD))))
    answers = Answers(padded)
    sums, values = (np.zeros(padded.shape[1], np.float32) for _ in range(2))
    for tree in trees:
        np.take(tree.value, tree.leaves_of(answers), out=values, mode="clip")
        sums += values
    return sums[:number]
