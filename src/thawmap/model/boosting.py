"""Boosted trees as a network: from scaled layers to logits, pixel by pixel.

Scaled layers are rounded to whole numbers, in which the trees' thresholds are. So an answer does not hang on the last
digits of a machine's arithmetic, and what was learnt is what is asked.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from thawmap.model.forest import BLOCK_PX, Tree, sum_of_leaves

STEPS = 16384
"""Whole numbers in a layer's range; those of values beyond it end at twice the range."""

_COLUMNS = {"layer": torch.int32, "threshold": torch.int16, "left": torch.int32, "right": torch.int32}
_LIMITS = torch.iinfo(torch.int16)
_GATHERED_PX = 2**14  # pixels that go down the trees together where bits are not used


class BoostedTrees(nn.Module):
    """Trees whose leaves add to a logit: (N, C, H, W) scaled layers to (N, 1, H, W).

    Args:
        channels: Number of layers.
        trees: The trees, in order.
        base: What the leaves' values are added to.

    Raises:
        ValueError: If a tree asks for a layer that is not there.
    """

    def __init__(self, channels: int, trees: Sequence[Tree] = (), *, base: float = 0.0) -> None:
        super().__init__()
        self.channels = channels
        self.base = nn.Parameter(torch.tensor([base], dtype=torch.float32), requires_grad=False)
        columns = {name: [getattr(tree, name) for tree in trees] for name in (*_COLUMNS, "value")}
        for name, kind in {**_COLUMNS, "value": torch.float32}.items():
            joined = np.concatenate([np.zeros(0, np.float32), *columns[name]])
            self.register_buffer(name, torch.from_numpy(joined).to(kind))
        self.register_buffer("nodes", torch.tensor([len(tree.layer) for tree in trees], dtype=torch.int32))
        self.trees = self._checked(trees)

    def forward(self, layers: Tensor) -> Tensor:
        """Compute logits (N, 1, H, W) of scaled layers (N, C, H, W) without NaN."""
        codes = as_codes(layers)
        if layers.is_meta:  # which asks for shapes and memory alone
            return codes[:, :1] + self.base
        if torch.compiler.is_compiling() or layers.device.type != "cpu":
            return self._gathered(codes).unsqueeze(1)
        number, _, height, width = codes.shape
        answers = [self._add(image.reshape(self.channels, -1).numpy()) for image in codes]
        sums = torch.from_numpy(np.stack(answers)) if answers else layers.new_zeros((0, height * width))
        return sums.view(number, 1, height, width) + self.base

    def _add(self, codes: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        """Return the sums of leaves of one image's pixels, (pixels,), by threads."""
        blocks = [codes[:, first : first + BLOCK_PX] for first in range(0, codes.shape[1], BLOCK_PX)]
        with ThreadPoolExecutor(max(1, min(torch.get_num_threads(), len(blocks)))) as pool:
            return np.concatenate(list(pool.map(lambda block: sum_of_leaves(self.trees, block), blocks)))

    def _gathered(self, codes: Tensor) -> Tensor:
        """Return logits (N, H, W) by going down all trees at once, step by step.

        Slower than bits, of operations that compilers, GPUs and other formats know.
        """
        number, channels, height, width = codes.shape
        pixels = codes.movedim(1, -1).reshape(-1, channels).to(torch.int32)
        if not self.trees:
            return pixels.new_zeros((number, height, width), dtype=torch.float32) + self.base
        tables = self._tables(pixels.device)
        parts = (pixels,) if torch.compiler.is_compiling() else torch.split(pixels, _GATHERED_PX)
        sums = torch.cat([_go_down(part, *tables) for part in parts])
        return sums.view(number, height, width) + self.base

    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int]:
        """Return layer, threshold, children and value by place; starts; the longest way.

        A tree's nodes have the first places, its leaves the next. A leaf leads to itself.
        """
        rows: list[tuple[int, int, int, int, float]] = []
        starts = []
        for tree in self.trees:
            first, number = len(rows), len(tree.layer)
            starts.append(first)
            for layer, limit, *children in zip(*(getattr(tree, name).tolist() for name in _COLUMNS), strict=True):
                left, right = (first + (child if child >= 0 else number - 1 - child) for child in children)
                rows.append((layer, limit, left, right, 0.0))
            leaves = enumerate(tree.value.tolist(), start=first + number)
            rows += [(0, _LIMITS.max, place, place, value) for place, value in leaves]
        layer, limit, left, right, value = (torch.tensor(column, device=device) for column in zip(*rows, strict=True))
        deepest = max(map(_depth, self.trees))
        return layer, limit, torch.stack([right, left]), value, torch.tensor(starts, device=device), deepest

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take trees of any number from a state, and refuse what are none."""
        for name in (*_COLUMNS, "value", "nodes"):
            given = state_dict.get(prefix + name)
            if given is not None and given.ndim == 1 and given.dtype == getattr(self, name).dtype:
                setattr(self, name, torch.empty_like(given))  # of its size, so that it is copied
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.trees = self._checked(tuple(self._split()))

    def _split(self) -> Iterator[Tree]:
        """Yield the trees that the buffers hold."""
        columns = {name: getattr(self, name).numpy() for name in _COLUMNS}
        nodes, values = self.get_buffer("nodes").tolist(), self.get_buffer("value").numpy()
        if min(nodes, default=0) < 0 or sum(nodes) != len(columns["layer"]) or sum(nodes) + len(nodes) != len(values):
            msg = f"{len(columns['layer'])} nodes and {len(values)} leaves are not those of {len(nodes)} trees"
            raise ValueError(msg)
        node = leaf = 0
        for number in nodes:
            of_tree = {name: column[node : node + number].copy() for name, column in columns.items()}
            yield Tree(**of_tree, value=values[leaf : leaf + number + 1].copy())
            node, leaf = node + number, leaf + number + 1

    def _checked(self, trees: Sequence[Tree]) -> tuple[Tree, ...]:
        """Return trees; refuse those that ask for a layer that is not there."""
        highest = max((int(tree.layer.max(initial=-1)) for tree in trees), default=-1)
        if highest >= self.channels:
            msg = f"a tree asks for layer {highest + 1} of {self.channels}"
            raise ValueError(msg)
        return tuple(trees)


def as_codes(layers: Tensor) -> Tensor:
    """Return scaled layers as whole numbers, int16, in which thresholds are."""
    return (layers * STEPS).round().clamp(_LIMITS.min, _LIMITS.max).to(torch.int16)


def _go_down(
    pixels: Tensor, layer: Tensor, limit: Tensor, children: Tensor, value: Tensor, starts: Tensor, steps: int
) -> Tensor:
    """Return sums of leaves of pixels (P, C), after so many steps down every tree."""
    place = starts.expand(len(pixels), -1)
    for _ in range(steps):
        is_left = pixels.gather(1, layer[place]) <= limit[place]
        place = torch.where(is_left, children[1][place], children[0][place])
    return value[place].sum(1)


def _depth(tree: Tree) -> int:
    """Return the number of questions on a tree's longest way."""
    depth = np.zeros(len(tree.layer) + 1, np.int64)
    for node, (left, right) in enumerate(zip(tree.left.tolist(), tree.right.tolist(), strict=True)):
        for child in (left, right):
            if child >= 0:
                depth[child] = depth[node] + 1
    return int(depth[: len(tree.layer)].max(initial=-1)) + 1
