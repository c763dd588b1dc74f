"""What is wrong with digitised polygons, a row for each fault, and a copy in which a machine has mended what it can."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from thawmap.config import LabelSettings
from thawmap.data.labels.attributes import Texts, texts
from thawmap.data.labels.examine import TESTS, Case, Found, case_of, competing, corners, flat
from thawmap.data.labels.footprints import Footprint, astray, footprint
from thawmap.data.labels.polygons import check_columns
from thawmap.geo.shapes import is_finite, repair

__all__ = ["KINDS", "Footprint", "Repaired", "check", "footprint", "repaired", "summary"]

KINDS = {
    "crs": "write the CRS that the coordinates are in into the file",
    "nowhere": "correct its CRS or its axes, or name the scenes of its ground",
    "extent": "correct its CRS or its axes, or name another file in 'labels.extent'",
    "no geometry": "draw it, or remove the row; the repaired copy is without it",
    "no polygon": "draw it as a polygon, or remove it",
    "no numbers": "draw it again; the repaired copy is without it",
    "invalid": "draw it again, or take the repaired copy",
    "duplicate": "remove one of the two; the repaired copy has one",
    "near duplicate": "keep the better one",
    "overlap": "cut one along the other, or merge them",
    "sliver": "remove it, if it is what cutting left",
    "tiny": "remove it, if it is no object",
    "huge": "see whether it is one object",
    "unusual size": "look at it; it may be right",
    "no scene": "name the image on which it was digitised",
    "unknown scene": "correct the name, or add the scene",
    "outside": "correct the name of its scene, or move it to where it belongs",
    "partly outside": "cut it at the edge of the image, or see whether it lies well",
    "date": "correct the date, or the name of the scene",
    "no region": "name its region",
    "mixed regions": "give all polygons of a scene one region",
}
"""Kinds of faults, with what to do."""

_ID_COLUMNS = ("id", "uid", "slump_id", "fid", "objectid")


def check(
    frame: gpd.GeoDataFrame,
    *,
    settings: LabelSettings,
    scenes: Mapping[str, Footprint],
    extent: gpd.GeoDataFrame | None = None,
    pixel_m: float = 3.0,
    today: datetime | None = None,
) -> gpd.GeoDataFrame:
    """The faults of digitised polygons, one a row, in the polygons' CRS.

    Columns: ``row`` (from 1; missing where it is the file as a whole), ``id`` (of the polygon, where a column has it),
    ``scene``, ``kind`` (of `KINDS`), ``fault``, ``remedy``, ``other`` (the row that it repeats or overlaps), and as
    geometry the polygon, or the part of it that overlaps or lies outside; none where it cannot be drawn.

    Args:
        frame: The polygons; may be without a CRS.
        settings: What their columns mean.
        scenes: The scenes that are there, by id; empty: nothing is compared with scenes.
        extent: Where people looked; unset: everywhere.
        pixel_m: Side of a pixel where the scene is not there.
        today: Until when a date is possible; unset: now.

    Raises:
        LabelError: If a column that the settings name is not there.
    """
    check_columns(frame, settings)
    case = case_of(frame, settings, scenes, pixel_m=pixel_m, today=today or datetime.now(UTC))
    found = [one for test in TESTS for one in test(case) if len(one.rows)]
    lost = None if extent is None else astray(extent, scenes)
    if lost is not None:
        found.append(Found("extent", np.array([-1]), [f"has an extent of which {lost.said}"], np.array([None])))
    ids = next((texts(frame[name]) for name in frame.columns if str(name).lower() in _ID_COLUMNS), None)
    tables = [_table(one, case, ids) for one in found] or [_table(Found("crs", np.array([], np.intp), []), case, ids)]
    return pd.concat(tables).sort_values("row", kind="stable", na_position="first", ignore_index=True)


def _table(found: Found, case: Case, ids: Texts | None) -> gpd.GeoDataFrame:
    rows = found.rows
    whole = rows < 0
    where = found.where
    if where is None:
        where = case.shapes[rows]
        where[~is_finite(where)] = None
    others = np.full(len(rows), -1) if found.others is None else found.others
    columns = {
        "row": pd.array(rows + 1, "Int64"),
        "id": np.full(len(rows), "", object) if ids is None else np.where(whole, "", ids[rows]),
        "scene": np.where(whole, "", case.names[rows]),
        "kind": found.kind,
        "fault": found.said,
        "remedy": KINDS[found.kind],
        "other": pd.array(others + 1, "Int64"),
    }
    return gpd.GeoDataFrame(columns, geometry=where, crs=case.frame.crs).replace(
        {"row": {0: pd.NA}, "other": {0: pd.NA}}
    )


def summary(faults: gpd.GeoDataFrame) -> pd.DataFrame:
    """A row for each kind of fault: ``kind``, ``number``, ``example`` and ``remedy``, in the order of `KINDS`."""
    rows = []
    for kind, remedy in KINDS.items():
        mine = faults[faults["kind"] == kind]
        if len(mine):
            first = mine.iloc[0]
            example = "the file" if pd.isna(first["row"]) else f"row {first['row']}"
            rows.append((kind, len(mine), f"{example} {first['fault']}", remedy))
    return pd.DataFrame(rows, columns=["kind", "number", "example", "remedy"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """A mended copy of labels.

    Attributes:
        frame: The polygons that are left, with all their columns, in order.
        said: What was done, a clause each; empty where there was nothing to do.
    """

    frame: gpd.GeoDataFrame
    said: tuple[str, ...]


def repaired(frame: gpd.GeoDataFrame, *, settings: LabelSettings) -> Repaired:
    """A copy without crossings, without rows that have no ground, and with one of several equal polygons.

    Equal are those of one scene (or period) with the same corners and the same target. Lines and points stay, for
    a person to look at, and so does all else.

    Raises:
        LabelError: If a column that the settings name is not there.
    """
    check_columns(frame, settings)
    shapes, areal = np.array(frame.geometry.values), flat(frame)
    mended = shapes.copy()
    mended[areal] = repair(shapes[areal])
    empty = shapely.is_missing(mended) | shapely.is_empty(mended)
    crossing = areal & ~empty & ~shapely.is_valid(shapes)
    left = np.flatnonzero(~empty)
    alike = pd.DataFrame({"group": competing(frame, settings)[left], "corners": corners(mended[left])})
    if settings.target is not None:
        alike["target"] = texts(frame[settings.target])[left]
    again = alike.duplicated().to_numpy()
    done = {
        "polygons that crossed themselves are mended": crossing.sum(),
        "rows without ground are left out": empty.sum(),
        "polygons that were there already are left out": again.sum(),
    }
    copy = frame.set_geometry(mended, crs=frame.crs).iloc[left[~again]].reset_index(drop=True)
    return Repaired(frame=copy, said=tuple(f"{number} {what}" for what, number in done.items() if number))
