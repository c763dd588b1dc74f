"""Choice of the tiles that a phase trains on, their order, and their batches."""

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


def seeded_generator(seed: int, *position: int) -> Generator:
    """Return a torch generator seeded by a seed and a position in a training.

    A position is phase, epoch, process, purpose. The generator draws the same numbers whenever it is made.
    """
    return Generator().manual_seed(seed_of(seed, *position))


def seed_of(seed: int, *position: int) -> int:
    """Return a 64-bit seed that follows from a seed and a position in a training.

    A position is phase, epoch, process, purpose. Positions have equally many numbers, so that no two share a seed.
    """
    return int(np.random.SeedSequence([seed % 2**64, *position]).generate_state(1, np.uint64)[0])


def check_phases(phases: Sequence[Phase], tiles: pd.DataFrame) -> None:
    """Refuse phases without tiles to train on, or without an object if they need one.

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


def choose_tiles(
    phase: Phase, tiles: pd.DataFrame, hardness: Callable[[pd.DataFrame], npt.NDArray[np.floating]]
) -> list[int]:
    """Return row numbers of the tiles a phase trains on: all, positive or also mined.

    Mined are the negative tiles that the network is most wrong about, as many as there are positive ones. Ascending.

    Args:
        phase: The phase.
        tiles: All training tiles.
        hardness: Returns how wrong the network is about each of some tiles; called for mined negatives only.
    """
    positive = tiles["positive_pixels"].to_numpy() > 0
    if phase.tiles == "all":
        return list(range(len(tiles)))
    chosen = np.flatnonzero(positive)
    if phase.tiles == "mined" and not positive.all():
        negative = np.flatnonzero(~positive)
        hardest = np.argsort(-hardness(tiles.iloc[negative]), kind="stable")[: len(chosen)]
        chosen = np.sort(np.concatenate([chosen, negative[hardest]]))
    return [int(position) for position in chosen]


def draw_order(tiles: pd.DataFrame, sampler: SamplerSettings | None, generator: Generator) -> npt.NDArray[np.int64]:
    """Draw row numbers of tiles for an epoch: shuffled, or by weights with a sampler.

    Without a sampler each comes once; else as many are drawn as there are tiles, with replacement.
    """
    if sampler is None:
        return torch.randperm(len(tiles), generator=generator).numpy()
    weights = torch.from_numpy(sampling_weights(tiles, sampler))
    return torch.multinomial(weights, len(tiles), replacement=True, generator=generator).numpy()


def sampling_weights(tiles: pd.DataFrame, sampler: SamplerSettings) -> npt.NDArray[np.float64]:
    """Return an array of tiles' drawing weights, by objects and, if asked, by region.

    They need not add to 1. Where regions are to be equal, each region's weights add to the same; tiles of no region are
    one region together.
    """
    weights = np.where(tiles["positive_pixels"] > 0, sampler.positive, sampler.negative).astype(np.float64)
    if sampler.regions == "equal":
        _, region = np.unique(tiles["region"].fillna("").astype(str), return_inverse=True)
        weights /= np.bincount(region, weights=weights)[region]
    return weights


def make_batches(
    tiles: pd.DataFrame, order: npt.NDArray[np.int64], size: int, *, process: int = 0, processes: int = 1
) -> list[pd.DataFrame]:
    """Divide tiles, in a given order, into batches; return one process's rows of each.

    Batches are as even as can be, none larger than ``size``. Every batch is divided among the processes; where it has
    fewer tiles than there are processes, some tiles go to several of them. A share of one tile holds it twice, to be
    augmented in two ways: batch norm after global pooling has one value per tile and channel, and needs two.
    """
    batches = np.array_split(order, math.ceil(len(order) / size))
    shares = [np.array_split(np.resize(batch, max(len(batch), processes)), processes)[process] for batch in batches]
    return [tiles.iloc[share if len(share) > 1 else np.repeat(share, 2)] for share in shares]
