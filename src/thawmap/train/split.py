"""Which tiles train, which choose epoch and threshold, and which are left out; nothing leaks (law 12)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from thawmap.config import CrossvalSettings, FoldSettings, SplitSettings
from thawmap.errors import ConfigError, TrainingError
from thawmap.text import counted

_SLIVER = 1e-6
"""Share of a tile that two tiles may seem to share when their edges touch: rounding of coordinates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One turn of a cross-validation: what is held out, and what chooses epoch and threshold.

    Attributes:
        name: What stands for it in results.
        by: What the names below are.
        test: Names that are held out.
        validation: Names that choose; empty where the last epoch counts.
    """

    name: str
    by: Literal["region", "place", "scene"]
    test: tuple[str, ...]
    validation: tuple[str, ...] = ()


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
            f"{name}: {counted(len(part), 'tile')}, {(part['positive_pixels'] > 0).sum()} with objects{_from(part)}"
            for name, part in self.parts()[:3]
        ]
        if len(self.dropped):
            dropped = counted(len(self.dropped), "tile that overlaps", "tiles that overlap")
            said.append(f"dropped: {dropped} tiles of validation or test")
        return tuple(said)


def deal(index: pd.DataFrame, settings: CrossvalSettings) -> tuple[Fold, ...]:
    """The turns of a cross-validation, in the order of their names.

    Each fold is held out once. The folds after it in their order, round and round, choose epoch and threshold: as many
    as ``inner`` says, and only such with objects. All others train.

    Args:
        index: One row per tile, with ``positive_pixels``.
        settings: How to divide what.

    Raises:
        ConfigError: If a scene belongs nowhere, a given name has no tile, there are too few folds, or nothing with an
            object is left to train on.
    """
    by = settings.folds.by
    _check_all_named(index, by)
    weights = {str(name): int(pixels) for name, pixels in index.groupby(by)["positive_pixels"].sum().items()}
    groups = _groups(settings.folds, weights)
    positive = {name: sum(weights[one] for one in members) > 0 for name, members in groups.items()}
    names = list(groups)
    folds = []
    for place, name in enumerate(names):
        others = [other for other in (*names[place + 1 :], *names[:place]) if positive[other]]
        if len(others) < settings.inner:
            msg = (
                f"crossval.inner asks for {settings.inner} folds that choose while {name!r} is held out, and there are "
                f"{len(others)} others with objects; lower it, or make more folds"
            )
            raise ConfigError(msg)
        chosen = tuple(one for other in others[: settings.inner] for one in groups[other])
        if not any(pixels for one, pixels in weights.items() if one not in (*groups[name], *chosen)):
            msg = (
                f"no {by} with an object is left to train on while {name!r} is held out and {len(chosen)} choose; "
                f"label objects in more {by}s, or lower crossval.inner"
            )
            raise ConfigError(msg)
        folds.append(Fold(name=name, by=by, test=groups[name], validation=chosen))
    return tuple(folds)


def notes(folds: Sequence[Fold], index: pd.DataFrame, regions: Iterable[str | None] = ()) -> tuple[str, ...]:
    """What a person should know of the turns before they run, a sentence each.

    Args:
        folds: The turns.
        index: One row per tile, with ``positive_pixels``.
        regions: Those of all scenes, with tiles or without.
    """
    known, said = set(index[folds[0].by]), []
    if folds[0].by == "region" and (absent := sorted({str(one) for one in regions if one is not None} - known)):
        which = f"region {absent[0]} has" if len(absent) == 1 else f"regions {', '.join(absent)} have"
        said.append(f"{which} scenes but no tile, so they are not held out; look at tiles.min_valid and labels.extent")
    barren = [one.name for one in folds if not index.loc[index[one.by].isin(one.test), "positive_pixels"].any()]
    said += [
        f"nothing is labelled as an object in {name}: held out, it shows false alarms only; its IoU is 0 or not defined"
        for name in barren
    ]
    return tuple(said)


def _groups(settings: FoldSettings, weights: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """What each fold holds out, from the object pixels of every name."""
    names = sorted(weights)
    if settings.given is not None:
        unknown = [name for members in settings.given.values() for name in members if name not in weights]
        if unknown:
            msg = (
                f"crossval.folds.given names the {settings.by} {unknown[0]!r}, which has no tile; there are "
                f"{_listed(names)}"
            )
            raise ConfigError(msg)
        return dict(settings.given)
    number = settings.number or len(names)
    if not 2 <= number <= len(names):
        msg = (
            f"cross-validation in {max(number, 2)} folds needs as many {settings.by}s, and {len(names)} have tiles "
            f"({_listed(names)}); lower crossval.folds.number, or divide by something smaller"
        )
        raise ConfigError(msg)
    if settings.number is None:
        return {name: (name,) for name in names}
    dealt: list[list[str]] = [[] for _ in range(number)]
    for name in sorted(names, key=lambda one: (-weights[one], one)):
        lightest = min(dealt, key=lambda group: (sum(weights[one] for one in group), len(group)))
        lightest.append(name)
    return {f"fold {place}": tuple(sorted(group)) for place, group in enumerate(dealt, start=1)}


def split(
    index: gpd.GeoDataFrame,
    settings: SplitSettings | Fold,
    *,
    scenes: gpd.GeoDataFrame | None = None,
    buffer_m: float = 0.0,
) -> Folds:
    """The tiles of ``index`` as the settings split them.

    A training tile that overlaps a validation or test tile is dropped, and a validation tile that overlaps a test
    tile: scenes of different regions can share ground.

    Args:
        index: One row per tile with ``scene``, ``region``, ``positive_pixels`` and a footprint in an
            equal-area CRS.
        settings: Names to leave out, by region, scene or place; tiles of all other names train.
        scenes: One row per scene with ``scene``, ``region`` and its whole footprint, in the same CRS: maps are made
            and scored of all of it, also where no tile was kept.
        buffer_m: Tiles that are nearer than this to what they must not have seen are dropped too, in metres of the
            CRS (those of `thawmap.train.tiles.store.FOOTPRINT_CRS` are within 4 % of the truth north of 60 degrees).

    Raises:
        ConfigError: If a name has no tile.
        TrainingError: If no tile is left to train on or, though one was asked for, to validate on.
    """
    _check_names(index, settings)
    test = index[settings.by].isin(settings.test)
    validation = index[settings.by].isin(settings.validation)
    whole = index if scenes is None else _placed(scenes, index, settings.by)
    spoilt = _overlapping(index, validation, _ground(index[test], whole, settings.by, settings.test), buffer_m)
    validation &= ~spoilt
    train = ~(test | validation | spoilt)
    left_out = (*settings.validation, *settings.test)
    leaky = _overlapping(index, train, _ground(index[~train], whole, settings.by, left_out), buffer_m)
    train &= ~leaky
    if settings.validation and not validation.any():
        msg = (
            f"split.validation {_listed(settings.validation)} has no tile left that does not overlap a test "
            f"tile; choose another {settings.by}"
        )
        raise TrainingError(msg)
    if not train.any():
        msg = (
            f"no tile is left to train on: {counted(len(index), 'tile')}, {int(test.sum())} for test, "
            f"{int(validation.sum())} for "
            f"validation, {int((leaky | spoilt).sum())} overlap them; leave out fewer {settings.by}s"
        )
        raise TrainingError(msg)
    return Folds(train=index[train], validation=index[validation], test=index[test], dropped=index[leaky | spoilt])


def _placed(scenes: gpd.GeoDataFrame, index: gpd.GeoDataFrame, by: str) -> gpd.GeoDataFrame:
    """The scenes, which know their places from their tiles."""
    if by in scenes:
        return scenes
    known = index.drop_duplicates("scene").set_index("scene")[by]
    return scenes.assign(**{by: scenes["scene"].map(known)})


def _check_all_named(index: pd.DataFrame, by: str) -> None:
    nameless = index[index[by].isna()]
    if len(nameless):
        msg = (
            f"scene {nameless['scene'].iloc[0]} has no {by}, so nobody can tell whether it is left out; "
            f"give it one in 'scenes.table', or leave the scene out"
        )
        raise ConfigError(msg)


def _check_names(index: gpd.GeoDataFrame, settings: SplitSettings | Fold) -> None:
    if settings.validation or settings.test:
        _check_all_named(index, settings.by)
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


def _overlapping(
    index: gpd.GeoDataFrame, chosen: pd.Series, ground: npt.NDArray[np.object_], buffer_m: float
) -> pd.Series:
    """Which of the ``chosen`` tiles lie on any of the ``ground``, or nearer to it, as a mask of the index."""
    mine = np.flatnonzero(chosen)
    shapes = index.geometry.to_numpy()
    tree = shapely.STRtree(ground)
    found = pd.Series(data=False, index=index.index)
    hits, against = tree.query(shapes[mine], predicate="intersects")
    shared = shapely.area(shapely.intersection(shapes[mine[hits]], ground[against]))
    found.iloc[mine[hits[shared > _SLIVER * shapely.area(shapes[mine[hits]])]]] = True
    if buffer_m:
        near, _ = tree.query(shapes[mine], predicate="dwithin", distance=buffer_m)
        found.iloc[mine[near]] = True
    return found


def _listed(names: object) -> str:
    unique = sorted({str(name) for name in pd.Series(names).dropna()})
    return ", ".join(unique)


def _from(tiles: pd.DataFrame) -> str:
    """Where tiles are from: their regions, or the number of their scenes where no region has a name."""
    where = _listed(tiles["region"]) or counted(tiles["scene"].nunique(), "scene")
    return f", from {where}" if len(tiles) else ""
