"""Which tiles a phase sees, how often, and in which batches."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Generator

from thawmap.config import Phase, SamplerSettings
from thawmap.errors import TrainingError
from thawmap.text import counted


def seeded(seed: int, *place: int) -> Generator:
    """A generator for one place in a training: the same numbers whenever it is made."""
    return Generator().manual_seed(seed_of(seed, *place))


def seed_of(seed: int, *place: int) -> int:
    """The seed of one place in a training (phase, epoch, process, purpose); all places have as many numbers."""
    return int(np.random.SeedSequence([seed % 2**64, *place]).generate_state(1, np.uint64)[0])


def check(phases: Sequence[Phase], tiles: pd.DataFrame) -> None:
    """Refuse phases that have no tile to train on.

    Raises:
        TrainingError: If there is one.
    """
    positive = int((tiles["positive_pixels"] > 0).sum())
    for phase in phases:
        if not (len(tiles) if phase.tiles == "all" else positive):
            msg = (
                f"phase {phase.name!r} trains on {phase.tiles} tiles, but of {counted(len(tiles), 'training tile')} "
                "there is none with an object; label objects in the training regions, or set its 'tiles' to all"
            )
            raise TrainingError(msg)


def choose(phase: Phase, tiles: pd.DataFrame, wrong: Callable[[pd.DataFrame], npt.NDArray[np.floating]]) -> list[int]:
    """Positions in ``tiles`` of those that a phase trains on, ascending.

    Args:
        phase: The phase.
        tiles: All training tiles.
        wrong: How wrong the network is about each of some tiles, asked for mined negatives only.
    """
    positive = tiles["positive_pixels"].to_numpy() > 0
    if phase.tiles == "all":
        return list(range(len(tiles)))
    chosen = np.flatnonzero(positive)
    if phase.tiles == "mined" and not positive.all():
        negative = np.flatnonzero(~positive)
        worst = np.argsort(-wrong(tiles.iloc[negative]), kind="stable")[: len(chosen)]
        chosen = np.sort(np.concatenate([chosen, negative[worst]]))
    return [int(position) for position in chosen]


def draw(tiles: pd.DataFrame, sampler: SamplerSettings | None, generator: Generator) -> npt.NDArray[np.int64]:
    """Positions of the tiles in the order of an epoch: each once, or as often as its weight has it by chance."""
    if sampler is None:
        return torch.randperm(len(tiles), generator=generator).numpy()
    weights = torch.from_numpy(weights_of(tiles, sampler))
    return torch.multinomial(weights, len(tiles), replacement=True, generator=generator).numpy()


def weights_of(tiles: pd.DataFrame, sampler: SamplerSettings) -> npt.NDArray[np.float64]:
    """How often each tile is drawn, in proportion; tiles of no region are one region together."""
    weights = np.where(tiles["positive_pixels"] > 0, sampler.positive, sampler.negative).astype(np.float64)
    if sampler.regions == "equal":
        _, region = np.unique(tiles["region"].fillna("").astype(str), return_inverse=True)
        weights /= np.bincount(region, weights=weights)[region]
    return weights


def batches(
    tiles: pd.DataFrame, order: npt.NDArray[np.int64], size: int, *, process: int = 0, processes: int = 1
) -> list[pd.DataFrame]:
    """The part of one process of the tiles in their ``order``, in batches as even as can be, none larger than ``size``.

    Every batch is divided among the processes; where it has fewer tiles than there are processes, some are in several
    parts. A part of one stands twice in it, to be augmented in two ways: batch norm after global pooling has one value
    per tile and channel, and needs two.
    """
    whole = np.array_split(order, math.ceil(len(order) / size))
    parts = [np.array_split(np.resize(one, max(len(one), processes)), processes)[process] for one in whole]
    return [tiles.iloc[part if len(part) > 1 else np.repeat(part, 2)] for part in parts]
