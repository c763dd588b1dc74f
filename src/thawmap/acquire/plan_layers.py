"""Layers of a plan as a GeoPackage, which a person edits, and the edits in them."""

import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from shapely.geometry.base import BaseGeometry

from thawmap.acquire.areas import Area
from thawmap.acquire.choosing import PlannedDate, PlannedItem
from thawmap.data.vector.io import read_vector, write_vector
from thawmap.errors import ConfigError, DataError
from thawmap.geo.shapes import LONLAT

_YES, _NO = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")
_REMEDY = "undo that, or plan again"

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLayers:
    """A plan as layers in EPSG:4326, a row each.

    Attributes:
        areas: ``name``, ``km2``, ``notes``.
        dates: ``area``, ``date``, ``day``, ``take``, ``chosen``, ``reason``, ``cover``, ``clear``, ``clear_source``,
            ``km2``, ``scenes``, ``catalogue``, ``satellite``, ``acquired``; the ground that its scenes show.
        items: ``area``, ``date``, ``id``, ``take``, ``chosen``, ``reason``, ``cover``, ``clear``, ``clear_source``,
            ``km2``, ``owned``, ``catalogue``, ``collection``, ``satellite``, ``acquired``.
    """

    areas: gpd.GeoDataFrame
    dates: gpd.GeoDataFrame
    items: gpd.GeoDataFrame


def plan_layers(areas: Sequence[Area], dates: Sequence[PlannedDate], items: Sequence[PlannedItem]) -> PlanLayers:
    """Return areas, dates and scenes as layers."""
    area_table = [(area.name, area.km2, "; ".join(area.notes)) for area in areas]
    return PlanLayers(
        areas=_layer(area_table, ["name", "km2", "notes"], [area.outline for area in areas]),
        dates=_date_layer(dates, items),
        items=_item_layer(items),
    )


def taken_as_wholes(dates: Sequence[PlannedDate], items: Sequence[PlannedItem]) -> set[Key]:
    """Return area and name of the dates that are taken, as ``take`` of a date says.

    A date that the program chose is, as long as one of its scenes is; another one if all that make it are.
    """
    chosen = {(each.area, each.name): each.chosen for each in dates}
    some = {(item.area, item.date) for item in items if item.taken}
    lacking = {(item.area, item.date) for item in items if item.part and not item.taken}
    made = {(item.area, item.date) for item in items if item.part}
    return {key for key in some & chosen.keys() if chosen[key] or (key in made and key not in lacking)}


def _date_layer(dates: Sequence[PlannedDate], items: Sequence[PlannedItem]) -> gpd.GeoDataFrame:
    """Return dates as a layer, with the ground of the scenes that make each, or of all."""
    taken = taken_as_wholes(dates, items)
    members: dict[Key, list[PlannedItem]] = {}
    for item in items:
        members.setdefault((item.area, item.date), []).append(item)
    rows, outlines = [], []
    for each in dates:
        key = (each.area, each.name)
        own = members.get(key, [])
        parts = [item.offer.outline for item in own if item.part] or [item.offer.outline for item in own]
        outlines.append(parts[0] if len(parts) == 1 else shapely.union_all(parts))
        rows.append(
            (
                each.area, each.name, each.day.isoformat(), key in taken, each.chosen, each.reason, each.cover,
                each.clear, each.clear_source, each.km2, sum(item.taken for item in own), each.catalogue,
                each.satellite, each.acquired,
            )
        )  # fmt: skip
    names = [
        "area", "date", "day", "take", "chosen", "reason", "cover", "clear", "clear_source", "km2", "scenes",
        "catalogue", "satellite", "acquired",
    ]  # fmt: skip
    return _typed(_layer(rows, names, outlines))


def _item_layer(items: Sequence[PlannedItem]) -> gpd.GeoDataFrame:
    """Return scenes as a layer."""
    rows = [
        (
            each.area, each.date, each.offer.id, each.taken, each.chosen, each.reason, each.cover, each.offer.clear,
            each.offer.clear_source, each.km2, each.offer.is_owned, each.offer.catalogue, each.offer.collection,
            each.offer.satellite, each.offer.acquired,
        )
        for each in items
    ]  # fmt: skip
    names = [
        "area", "date", "id", "take", "chosen", "reason", "cover", "clear", "clear_source", "km2", "owned",
        "catalogue", "collection", "satellite", "acquired",
    ]  # fmt: skip
    return _typed(_layer(rows, names, [each.offer.outline for each in items]))


def _layer(rows: Sequence[tuple[Any, ...]], names: list[str], outlines: Sequence[Any]) -> gpd.GeoDataFrame:
    """Return rows and outlines as features."""
    return gpd.GeoDataFrame(pd.DataFrame(rows, columns=names), geometry=np.array(outlines, object), crs=LONLAT)


def _typed(layer: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return a layer whose columns have their types, without rows too."""
    bools = {name: bool for name in ("take", "chosen", "owned") if name in layer}
    floats = dict.fromkeys(("cover", "clear", "km2"), np.float64)
    return layer.astype(bools | floats).assign(acquired=pd.to_datetime(layer["acquired"], utc=True))


def write_layers(path: Path, layers: PlanLayers, identity: str) -> None:
    """Write the layers of a plan as a GeoPackage: areas, dates, items.

    The areas name the plan's identity, so that its files are not mixed up with another's.
    """
    write_vector(path, layers.areas.assign(plan=identity), layer="areas")
    write_vector(path, layers.dates, layer="dates", append=True)
    write_vector(path, layers.items, layer="items", append=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Takes:
    """What a plan's GeoPackage takes, by key; rows that were deleted are not taken.

    Attributes:
        dates: By area and name.
        items: By area, catalogue, collection and id.
    """

    dates: Mapping[Key, bool]
    items: Mapping[Key, bool]


def read_takes(
    path: Path,
    *,
    areas: Sequence[str],
    dates: Sequence[Key],
    items: Mapping[Key, BaseGeometry],
    lost: tuple[int, int],
    identity: str,
) -> Takes:
    """Read what a plan's GeoPackage takes.

    Args:
        path: The file.
        areas: Names of the areas.
        dates: Area and name of the dates.
        items: Outlines of scenes by area, catalogue, collection and id.
        lost: Dates and items that were deleted in the JSON, and may be left here.
        identity: Of the plan.

    Raises:
        ConfigError: If it was edited into what makes no sense.
    """
    _check_areas(path, _read(path, "areas", ("name", "plan")), areas, identity)
    date_rows = _rows(path, "dates", ("area", "date"), set(dates), lost[0])
    item_rows = _rows(path, "items", ("area", "catalogue", "collection", "id"), items.keys(), lost[1])
    _check_shapes(path, item_rows, items)
    return Takes(
        dates=dict.fromkeys(dates, False) | {key: take for key, (take, _) in date_rows.items()},
        items=dict.fromkeys(items, False) | {key: take for key, (take, _) in item_rows.items()},
    )


def _check_areas(path: Path, frame: gpd.GeoDataFrame, areas: Sequence[str], identity: str) -> None:
    """Refuse a GeoPackage of another plan, or one of which an area was deleted.

    Raises:
        ConfigError: If it is so.
    """
    if not set(frame["plan"]) <= {identity}:
        msg = f"{path} is of another plan than the plan.json beside it; bring the right one back, or plan again"
        raise ConfigError(msg)
    gone = sorted(set(areas) - set(frame["name"]))
    if gone:
        msg = f"{path}: the area {gone[0]!r} was deleted; strike its dates off instead, by 'take', and {_REMEDY}"
        raise ConfigError(msg)


def _rows(path: Path, layer: str, key: Sequence[str], known: Collection[Key], lost: int) -> dict[Key, tuple[bool, Any]]:
    """Return ``take`` and shape of the rows of a layer, by key.

    Raises:
        ConfigError: If one is there twice, has no shape, is not in the plan, or neither taken nor not.
    """
    frame = _read(path, layer, (*key, "take"))
    keys = list(zip(*(frame[name].map(str) for name in key), strict=True))
    twice = next((each for each, times in Counter(keys).items() if times > 1), None)
    if twice is not None:
        msg = f"{path}: {_words(layer, twice)} is there twice; delete one of its rows"
        raise ConfigError(msg)
    unknown = [each for each in keys if each not in known]
    if len(unknown) > lost:
        msg = f"{path}: {_words(layer, unknown[0])} is not in plan.json; a plan takes only what was found: {_REMEDY}"
        raise ConfigError(msg)
    shapes = np.asarray(frame.geometry.values)
    lacking = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    if lacking.any():
        msg = f"{path}: {_words(layer, keys[int(np.argmax(lacking))])} has lost its shape; {_REMEDY}"
        raise ConfigError(msg)
    takes = dict(zip(keys, frame["take"].tolist(), strict=True)) | _stored(path, layer, key)
    return {
        each: (_as_bool(path, layer, each, takes[each]), shape)
        for each, shape in zip(keys, shapes, strict=True)
        if each in known
    }


def _stored(path: Path, layer: str, key: Sequence[str]) -> dict[Key, Any]:
    """Return ``take`` by key as it is stored, for GDAL makes true or false of anything.

    None of a file that is no SQLite base: what GDAL reads of it counts.
    """
    columns = ", ".join(f'"{name}"' for name in key)
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base:
            rows = base.execute(f'select take, {columns} from "{layer}"').fetchall()  # noqa: S608 - names of our own
    except sqlite3.Error:
        return {}
    return {tuple(map(str, values)): take for take, *values in rows}


def _read(path: Path, layer: str, columns: Sequence[str]) -> gpd.GeoDataFrame:
    """Read a layer of a plan that has some columns.

    Raises:
        ConfigError: If it cannot be read, or lacks one.
    """
    try:
        frame = read_vector(path, layer=layer)
    except DataError as error:
        msg = f"{path} cannot be read as a plan ({error}); {_REMEDY}"
        raise ConfigError(msg) from error
    missing = next((name for name in columns if name not in frame.columns), None)
    if missing is not None:
        msg = f"{path}: the layer {layer!r} has lost its column {missing!r}; {_REMEDY}"
        raise ConfigError(msg)
    return frame


def _check_shapes(path: Path, rows: Mapping[Key, tuple[bool, Any]], outlines: Mapping[Key, BaseGeometry]) -> None:
    """Refuse outlines of scenes that were moved; only ``take`` is there to be edited.

    Raises:
        ConfigError: If one was.
    """
    read, written = [shape for _, shape in rows.values()], [outlines[key] for key in rows]
    if np.array_equal(shapely.get_coordinates(read), shapely.get_coordinates(written)):
        return
    for key, shape, outline in zip(rows, read, written, strict=True):
        if not np.array_equal(shapely.get_coordinates(shape), shapely.get_coordinates(outline)):
            msg = f"{path}: the shape of {_words('items', key)} was changed; only 'take' can be edited: {_REMEDY}"
            raise ConfigError(msg)


def _as_bool(path: Path, layer: str, key: Key, value: Any) -> bool:
    """Return a value of ``take`` as a bool.

    Raises:
        ConfigError: If it is neither true nor false.
    """
    text = str(value).strip().casefold()
    if text in _YES:
        return True
    if text in _NO:
        return False
    got = "nothing" if pd.isna(value) else repr(value)
    msg = f"{path}: 'take' of {_words(layer, key)} is {got}; write true or false"
    raise ConfigError(msg)


def _words(layer: str, key: Key) -> str:
    """Return the words for a row of a layer in a message."""
    return f"the {layer.removesuffix('s')} {key[-1]!r} of {key[0]!r}"
