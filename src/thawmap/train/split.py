"""Division of tiles into train, validation and test without leaks (law 12)."""

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

GROUP = "group"
"""Column of validation tiles that says which of them choose together, as one group among others."""

_SLIVER = 1e-6
"""Share of a tile that may be rounding: tiles whose edges touch seem to overlap by that much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One held-out group of a cross-validation, and the groups that choose meanwhile.

    Attributes:
        name: Its name in results.
        by: Column of the tile index that the names below are of.
        test: Names that are held out.
        validation: Names that choose epoch and threshold; empty where the last epoch counts.
        groups: The names of ``validation``, in groups that count each for itself; empty: each region does.
    """

    name: str
    by: Literal["region", "place", "scene"]
    test: tuple[str, ...]
    validation: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The rows of a tile index, divided into four frames with the index's columns.

    Attributes:
        train: Tiles that train.
        validation: Tiles that choose epoch and threshold; those of one ``group``, a further column, are pooled, and
            groups count each for itself.
        test: Tiles that are left out completely.
        dropped: Tiles of no use: they overlap tiles that they must not have seen.
    """

    train: gpd.GeoDataFrame
    validation: gpd.GeoDataFrame
    test: gpd.GeoDataFrame
    dropped: gpd.GeoDataFrame

    def parts(self) -> tuple[tuple[str, gpd.GeoDataFrame], ...]:
        """Return the four frames as pairs of name and frame: train first, dropped last."""
        return (
            ("train", self.train),
            ("validation", self.validation),
            ("test", self.test),
            ("dropped", self.dropped),
        )

    def lines(self) -> tuple[str, ...]:
        """Return a sentence per frame: its tiles, objects and regions; on dropped if any."""
        sentences = []
        for name, tiles in self.parts()[:3]:
            sentence = f"{name}: {counted(len(tiles), 'tile')}, {(tiles['positive_pixels'] > 0).sum()} with objects"
            if len(tiles):  # of no region where none of the scenes has a name for it
                sentence += f", from {_listed(tiles['region']) or counted(tiles['scene'].nunique(), 'scene')}"
            sentences.append(sentence)
        if len(self.dropped):
            dropped = counted(len(self.dropped), "tile that overlaps", "tiles that overlap")
            sentences.append(f"dropped: {dropped} tiles of validation or test")
        return tuple(sentences)


def deal_folds(index: pd.DataFrame, settings: CrossvalSettings) -> tuple[Fold, ...]:
    """Deal the regions, places or scenes of a tile index into folds to be held out.

    Each group is held out once. The folds after it in their order, round and round, choose epoch and threshold: as many
    as ``inner`` says, and only such with objects. Of several each counts for itself. All others train.

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
    positive = {name: sum(weights[member] for member in members) > 0 for name, members in groups.items()}
    names = list(groups)
    folds = []
    for position, name in enumerate(names):
        others = [other for other in (*names[position + 1 :], *names[:position]) if positive[other]]
        if len(others) < settings.inner:
            msg = (
                f"crossval.inner asks for {settings.inner} folds that choose while {name!r} is held out, and there are "
                f"{len(others)} others with objects; lower it, or make more folds"
            )
            raise ConfigError(msg)
        inner = tuple(groups[other] for other in others[: settings.inner])
        choosing = tuple(member for members in inner for member in members)
        left_out = (*groups[name], *choosing)
        if not any(pixels for member, pixels in weights.items() if member not in left_out):
            msg = (
                f"no {by} with an object is left to train on while {name!r} is held out and {len(choosing)} choose; "
                f"label objects in more {by}s, or lower crossval.inner"
            )
            raise ConfigError(msg)
        apart = inner if len(inner) > 1 else ()  # of a single group each region counts for itself
        folds.append(Fold(name=name, by=by, test=groups[name], validation=choosing, groups=apart))
    return tuple(folds)


def fold_notes(folds: Sequence[Fold], index: pd.DataFrame, regions: Iterable[str | None] = ()) -> tuple[str, ...]:
    """Return warnings on regions without tiles and folds without objects, for people.

    Args:
        folds: The folds.
        index: One row per tile, with ``positive_pixels``.
        regions: Those of all scenes, with tiles or without.
    """
    notes, names = [], set(index[folds[0].by])
    if folds[0].by == "region":
        absent = sorted({str(region) for region in regions if region is not None} - names)
        if absent:
            have = f"region {absent[0]} has" if len(absent) == 1 else f"regions {', '.join(absent)} have"
            notes.append(
                f"{have} scenes but no tile, so they are not held out; look at tiles.min_valid and labels.extent"
            )
    barren = [fold.name for fold in folds if not index.loc[index[fold.by].isin(fold.test), "positive_pixels"].any()]
    notes += [
        f"nothing is labelled as an object in {name}: held out, it shows false alarms only; its IoU is 0 or not defined"
        for name in barren
    ]
    return tuple(notes)


def _groups(settings: FoldSettings, weights: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Return each fold's held-out names: as given, one each, or balanced by objects.

    ``weights`` are the object pixels of every name, by which folds are balanced.
    """
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
    # Greedy, heaviest first: no two folds differ by more than the heaviest name.
    groups: list[list[str]] = [[] for _ in range(number)]
    for name in sorted(names, key=lambda member: (-weights[member], member)):
        lightest = min(groups, key=lambda group: (sum(weights[member] for member in group), len(group)))
        lightest.append(name)
    return {f"fold {position}": tuple(sorted(group)) for position, group in enumerate(groups, start=1)}


def split_tiles(
    index: gpd.GeoDataFrame,
    settings: SplitSettings | Fold,
    *,
    scenes: gpd.GeoDataFrame | None = None,
    buffer_m: float = 0.0,
) -> Split:
    """Divide tiles by name into train, validation and test, dropping what overlaps.

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
    by = settings.by
    if scenes is None:
        scenes = index
    elif by not in scenes:  # scenes learn their places from their tiles
        scenes = scenes.assign(**{by: scenes["scene"].map(index.drop_duplicates("scene").set_index("scene")[by])})
    test = index[by].isin(settings.test)
    validation = index[by].isin(settings.validation)
    spoilt = _overlapping(index, validation, _ground(index[test], scenes, by, settings.test), buffer_m)
    validation &= ~spoilt
    train = ~(test | validation | spoilt)
    left_out = (*settings.validation, *settings.test)
    leaky = _overlapping(index, train, _ground(index[~train], scenes, by, left_out), buffer_m)
    train &= ~leaky
    if settings.validation and not validation.any():
        msg = (
            f"split.validation {_listed(settings.validation)} has no tile left that does not overlap a test "
            f"tile; choose another {by}"
        )
        raise TrainingError(msg)
    if not train.any():
        msg = (
            f"no tile is left to train on: {counted(len(index), 'tile')}, {int(test.sum())} for test, "
            f"{int(validation.sum())} for "
            f"validation, {int((leaky | spoilt).sum())} overlap them; leave out fewer {by}s"
        )
        raise TrainingError(msg)
    choosing = index[validation]
    return Split(
        train=index[train],
        validation=choosing.assign(**{GROUP: _group_names(choosing, settings)}),
        test=index[test],
        dropped=index[leaky | spoilt],
    )


def _group_names(choosing: gpd.GeoDataFrame, settings: SplitSettings | Fold) -> pd.Series:
    """Return each validation tile's group by name: its region, or a fold's group."""
    if not (isinstance(settings, Fold) and settings.groups):
        return pd.Series(choosing["region"].fillna("").astype(str))
    group_of = {member: ", ".join(group) for group in settings.groups for member in group}
    return pd.Series(choosing[settings.by].map(group_of))


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
    names = sorted(index[settings.by].dropna().unique())
    for key in ("validation", "test"):
        for name in getattr(settings, key):
            if name not in names:
                msg = f"split.{key} names the {settings.by} {name!r}, which has no tile; there are {_listed(names)}"
                raise ConfigError(msg)


def _ground(
    tiles: gpd.GeoDataFrame, scenes: gpd.GeoDataFrame, by: str, names: Sequence[str]
) -> npt.NDArray[np.object_]:
    """Return footprints of tiles, and of scenes with these names, as one array."""
    return np.concatenate([tiles.geometry.to_numpy(), scenes.geometry[scenes[by].isin(names)].to_numpy()])


def _overlapping(
    index: gpd.GeoDataFrame, chosen: pd.Series, ground: npt.NDArray[np.object_], buffer_m: float
) -> pd.Series:
    """Return a bool Series, True for chosen tiles that overlap ground or are near it.

    ``ground`` is an array of footprints, and near is nearer than the buffer. False for tiles that are not chosen.
    """
    rows = np.flatnonzero(chosen)
    footprints = index.geometry.to_numpy()
    tree = shapely.STRtree(ground)
    marked = pd.Series(data=False, index=index.index)
    hits, against = tree.query(footprints[rows], predicate="intersects")
    shared = shapely.area(shapely.intersection(footprints[rows[hits]], ground[against]))
    marked.iloc[rows[hits[shared > _SLIVER * shapely.area(footprints[rows[hits]])]]] = True
    if buffer_m:
        near_hits, _ = tree.query(footprints[rows], predicate="dwithin", distance=buffer_m)
        marked.iloc[rows[near_hits]] = True
    return marked


def _listed(names: object) -> str:
    """Return distinct names as one string, sorted, with commas, missing ones left out."""
    return ", ".join(sorted({str(name) for name in pd.Series(names).dropna()}))
