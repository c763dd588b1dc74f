"""Pixels drawn from tiles, on which trees grow: all of objects, some near them, some far."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import ndimage

from thawmap.config import AugmentSettings, Config, TreeSettings
from thawmap.errors import TrainingError
from thawmap.model.boosting import as_codes
from thawmap.model.forest import Tree, sum_of_leaves
from thawmap.model.losses import usable
from thawmap.model.network import scale
from thawmap.model.reading import Reading
from thawmap.text import counted
from thawmap.train.augment import augment
from thawmap.train.inference import network_input
from thawmap.train.sampling import seed_of
from thawmap.train.tiles.store import Batch, TileStore

_DROPPED, _DRAWN = 4, 5  # purposes of random numbers, each with a seed of its own
_NOTHING = {"flip": 0, "rotate90": 0, "blur": 0}  # of what moves pixels: trees see none beside their own


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """Labelled pixels with their layers, drawn from tiles.

    Attributes:
        codes: Scaled layers as whole numbers (n, layer), int16.
        target: True where an object is labelled, (n,).
        weight: What a pixel counts, (n,) float32, 1 on average.
        log_odds: Logarithm of the odds of an object among these pixels, as they are weighted.
    """

    codes: npt.NDArray[np.int16]
    target: npt.NDArray[np.bool_]
    weight: npt.NDArray[np.float32]
    log_odds: float

    @classmethod
    def draw(cls, store: TileStore, tiles: pd.DataFrame, config: Config, *, phase: int) -> Self:
        """Draw the pixels of a phase from tiles, rows of a store's index.

        A region counts by the root of its pixels of objects, so that none is the teacher of all.

        Raises:
            TrainingError: If no pixel of the tiles is labelled and usable.
        """
        drawn = list(_draw_tiles(store, tiles, config, phase=phase))
        if not any(len(tile.target) for tile in drawn):
            msg = f"there is no labelled, usable pixel in {counted(len(tiles), 'training tile')}; label some, or train "
            msg += "in other regions"
            raise TrainingError(msg)
        codes, target = (np.concatenate([getattr(tile, name) for tile in drawn]) for name in ("codes", "target"))
        region = np.repeat([tile.region for tile in drawn], [len(tile.target) for tile in drawn])
        names, number = np.unique(region, return_inverse=True)
        positive = np.bincount(number, weights=target, minlength=len(names))
        weight = (1 / np.sqrt(np.maximum(positive, 1)))[number]
        weight *= len(weight) / weight.sum()
        odds = max(weight[target].sum(), 0.5) / max(weight[~target].sum(), 0.5)
        return cls(codes=codes, target=target, weight=weight.astype(np.float32), log_odds=float(np.log(odds)))

    def sums(self, trees: Sequence[Tree]) -> npt.NDArray[np.float32]:
        """Return the sums of trees' leaves for the pixels, (n,)."""
        return sum_of_leaves(trees, self.codes.T)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _TileSamples:
    """Pixels drawn from one tile, and its region."""

    codes: npt.NDArray[np.int16]
    target: npt.NDArray[np.bool_]
    region: str


def tree_input(batch: Batch, store: TileStore, reading: Reading) -> npt.NDArray[np.int16]:
    """Return the whole numbers (N, layer, y, x), int16, that trees see of a batch."""
    stored = [code.name for code in store.codes]
    codes: npt.NDArray[np.int16] = as_codes(
        scale(network_input(batch, stored=stored, reading=reading), reading)
    ).numpy()
    return codes


def _draw_tiles(store: TileStore, tiles: pd.DataFrame, config: Config, *, phase: int) -> Iterator[_TileSamples]:
    """Yield the pixels drawn from each tile, in order; layers are dropped where asked."""
    settings, seed, size = config.model.trees or TreeSettings(), config.training.seed, config.training.batch_size
    reading = Reading(layers=config.input_layers, fill=config.model.fill)
    dropping = AugmentSettings(**_NOTHING, drop=config.augment.drop)
    stored = [code.name for code in store.codes]
    batches = [tiles.iloc[first : first + size] for first in range(0, len(tiles), size)]
    for number, (rows, encoded) in enumerate(zip(batches, store.stream(batches), strict=True)):
        batch = store.to_device(encoded, torch.device("cpu"))
        if dropping.drop is not None:
            generator = torch.Generator().manual_seed(seed_of(seed, phase, number, 0, _DROPPED))
            batch = replace(batch, image=augment(batch, stored, dropping, generator).image)
        codes = tree_input(batch, store, reading)
        labelled = usable(batch.target, batch.valid).numpy()
        for tile, region in enumerate(rows["region"].fillna("").astype(str)):
            rng = np.random.default_rng(seed_of(seed, phase, number * size + tile, 0, _DRAWN))
            target = batch.target[tile].numpy() == 1
            chosen = _chosen_pixels(target, labelled[tile], settings, rng)
            yield _TileSamples(
                codes=codes[tile].reshape(len(reading.layers), -1).T[chosen],
                target=target.ravel()[chosen],
                region=region,
            )


def _chosen_pixels(
    target: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_], settings: TreeSettings, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw positions of a tile's pixels: all of objects, and some near and far ones."""
    positive = np.flatnonzero(target & counted)
    near = ndimage.distance_transform_edt(~target) <= settings.near_px if target.any() else target
    drawn = [positive]
    for zone, share in ((near, settings.near), (~near, settings.far)):
        others = np.flatnonzero(zone & counted & ~target)
        number = min(len(others), max(round(share * len(positive)), settings.least))
        drawn.append(np.sort(rng.choice(others, number, replace=False)))
    return np.concatenate(drawn)
