"""Which tiles train, which choose epoch and threshold, and which are left out; nothing leaks (law 12)."""

from collections.abc import Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from thawmap.config import SplitSettings
from thawmap.errors import ConfigError, TrainingError

_SLIVER = 1e-6
"""Share of a tile that two tiles may seem to share when their edges touch: rounding of coordinates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folds:
    """The tiles of an index, split; each frame has the index's columns.

    Attributes:
        train: Tiles that train.
        validation: Tiles that choose epoch and threshold.
        test: Tiles that are left out completely.
        dropped: Tiles of no use: they lie over tiles that they must not have seen.
    """

    train: gpd.GeoDataFrame
    validation: gpd.GeoDataFrame
    test: gpd.GeoDataFrame
    dropped: gpd.GeoDataFrame

    def parts(self) -> tuple[tuple[str, gpd.GeoDataFrame], ...]:
        """The frames by their names."""
        return (
            ("train", self.train),
            ("validation", self.validation),
            ("test", self.test),
            ("dropped", self.dropped),
        )

    def lines(self) -> tuple[str, ...]:
        """What a person should know, a sentence each."""
        said = [
            f"{name}: {len(part)} tiles, {int((part['positive_pixels'] > 0).sum())} with objects, "
            f"from {_listed(part['region'])}"
            for name, part in self.parts()[:3]
        ]
        if len(self.dropped):
            said.append(f"dropped: {len(self.dropped)} tiles that overlap tiles of validation or test")
        return tuple(said)


def split(index: gpd.GeoDataFrame, settings: SplitSettings, *, scenes: gpd.GeoDataFrame | None = None) -> Folds:
    """The tiles of ``index`` as the settings split them.

    A training tile that overlaps a validation or test tile is dropped, and a validation tile that overlaps a test
    tile: scenes of different regions can share ground.

    Args:
        index: One row per tile with ``scene``, ``region``, ``positive_pixels`` and a footprint in an
            equal-area CRS.
        settings: Names to leave out, by region or by scene; tiles of all other names train.
        scenes: One row per scene with ``scene``, ``region`` and its whole footprint, in the same CRS: maps are made
            and scored of all of it, also where no tile was kept.

    Raises:
        ConfigError: If a name has no tile.
        TrainingError: If no tile is left to train on or, though one was asked for, to validate on.
    """
    _check_names(index, settings)
    test = index[settings.by].isin(settings.test)
    validation = index[settings.by].isin(settings.validation)
    whole = index if scenes is None else scenes
    spoilt = _overlapping(index, validation, ground=_ground(index[test], whole, settings.by, settings.test))
    validation &= ~spoilt
    train = ~(test | validation | spoilt)
    left_out = (*settings.validation, *settings.test)
    leaky = _overlapping(index, train, ground=_ground(index[~train], whole, settings.by, left_out))
    train &= ~leaky
    if settings.validation and not validation.any():
        msg = (
            f"split.validation {_listed(settings.validation)} has no tile left that does not overlap a test "
            f"tile; choose another {settings.by}"
        )
        raise TrainingError(msg)
    if not train.any():
        msg = (
            f"no tile is left to train on: {len(index)} tiles, {int(test.sum())} for test, "
            f"{int(validation.sum())} for "
            f"validation, {int((leaky | spoilt).sum())} overlap them; leave out fewer {settings.by}s"
        )
        raise TrainingError(msg)
    return Folds(train=index[train], validation=index[validation], test=index[test], dropped=index[leaky | spoilt])


def _check_names(index: gpd.GeoDataFrame, settings: SplitSettings) -> None:
    nameless = index[index[settings.by].isna()]
    if len(nameless) and (settings.validation or settings.test):
        msg = (
            f"scene {nameless['scene'].iloc[0]} has no {settings.by}, so nobody can tell whether it is left out; "
            f"give it one in 'scenes.table', or leave the scene out"
        )
        raise ConfigError(msg)
    known = sorted(index[settings.by].dropna().unique())
    for key in ("validation", "test"):
        for name in getattr(settings, key):
            if name not in known:
                msg = f"split.{key} names the {settings.by} {name!r}, which has no tile; there are {_listed(known)}"
                raise ConfigError(msg)


def _ground(
    tiles: gpd.GeoDataFrame, scenes: gpd.GeoDataFrame, by: str, names: Sequence[str]
) -> npt.NDArray[np.object_]:
    """Footprints of the tiles, and of the scenes with these names."""
    return np.concatenate([tiles.geometry.to_numpy(), scenes.geometry[scenes[by].isin(names)].to_numpy()])


def _overlapping(index: gpd.GeoDataFrame, chosen: pd.Series, *, ground: npt.NDArray[np.object_]) -> pd.Series:
    """Which of the ``chosen`` tiles lie on any of the ``ground``, as a mask of the index."""
    mine = np.flatnonzero(chosen)
    shapes = index.geometry.to_numpy()
    hits, against = shapely.STRtree(ground).query(shapes[mine], predicate="intersects")
    shared = shapely.area(shapely.intersection(shapes[mine[hits]], ground[against]))
    found = pd.Series(data=False, index=index.index)
    found.iloc[mine[hits[shared > _SLIVER * shapely.area(shapes[mine[hits]])]]] = True
    return found


def _listed(names: object) -> str:
    unique = sorted({str(name) for name in pd.Series(names).dropna()})
    return ", ".join(unique) if unique else "nowhere named"
