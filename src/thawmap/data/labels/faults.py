"""Faults of digitised polygons as a table, and a mended copy of the polygons."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from thawmap.config import LabelSettings
from thawmap.data.labels.attributes import Texts, texts
from thawmap.data.labels.examine import CHECKS, Case, Faults, case_of, corner_keys, group_keys, is_polygon
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
"""Kinds of faults, each with what to do about it, in the order in which they are listed."""

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
    """Return a GeoDataFrame of the faults of digitised polygons, one a row.

    It is in the polygons' CRS. Columns: ``row`` (from 1; missing where it is the file as a whole), ``id`` (of the
    polygon, where a column has it), ``scene``, ``kind`` (of `KINDS`), ``fault``, ``remedy``, ``other`` (the row that it
    repeats or overlaps), and as geometry the polygon, or the part of it that overlaps or lies outside; none where it
    cannot be drawn.

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
    faults = [kind for examine in CHECKS for kind in examine(case) if len(kind.rows)]
    lost = None if extent is None else astray(extent, scenes)
    if lost is not None:
        faults.append(Faults.of_file("extent", f"has an extent of which {lost.message}"))
    ids = next((texts(frame[name]) for name in frame.columns if str(name).lower() in _ID_COLUMNS), None)
    none = Faults("crs", np.array([], np.intp), [])  # a table with all columns and no row
    tables = [_table(kind, case, ids) for kind in faults or [none]]
    return pd.concat(tables).sort_values("row", kind="stable", na_position="first", ignore_index=True)


def _table(faults: Faults, case: Case, ids: Texts | None) -> gpd.GeoDataFrame:
    """Return the faults of one kind as a GeoDataFrame, one a row.

    It has the columns of `check`.
    """
    rows = faults.rows
    of_file = rows < 0
    shapes = faults.shapes
    if shapes is None:
        shapes = case.shapes[rows]
        shapes[~is_finite(shapes)] = None
    others = np.full(len(rows), -1) if faults.others is None else faults.others
    columns = {
        "row": pd.array(rows + 1, "Int64"),
        "id": np.full(len(rows), "", object) if ids is None else np.where(of_file, "", ids[rows]),
        "scene": np.where(of_file, "", case.names[rows]),
        "kind": faults.kind,
        "fault": faults.messages,
        "remedy": KINDS[faults.kind],
        "other": pd.array(others + 1, "Int64"),
    }
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=case.frame.crs).replace(
        {"row": {0: pd.NA}, "other": {0: pd.NA}}
    )


def summary(faults: gpd.GeoDataFrame) -> pd.DataFrame:
    """Return a table of the kinds of faults that occur: number, example, remedy.

    A row for each kind, in the order of `KINDS`. Columns: ``kind``, ``number``, ``example`` (the first, in words) and
    ``remedy``.
    """
    rows = []
    for kind, remedy in KINDS.items():
        of_kind = faults[faults["kind"] == kind]
        if len(of_kind):
            first = of_kind.iloc[0]
            example = "the file" if pd.isna(first["row"]) else f"row {first['row']}"
            rows.append((kind, len(of_kind), f"{example} {first['fault']}", remedy))
    return pd.DataFrame(rows, columns=["kind", "number", "example", "remedy"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """A mended copy of labels, and what was changed.

    Attributes:
        frame: The polygons that are left, with all their columns, in order.
        changes: What was done, a clause each; empty where there was nothing to do.
    """

    frame: gpd.GeoDataFrame
    changes: tuple[str, ...]


def repaired(frame: gpd.GeoDataFrame, *, settings: LabelSettings) -> Repaired:
    """Return polygons without crossings, empty rows and duplicates, and the changes.

    Empty rows are those without ground; of equal polygons one stays. Equal are those of one scene (or period) with the
    same corners and the same target. Lines and points stay, for a person to look at, and so does all else.

    Raises:
        LabelError: If a column that the settings name is not there.
    """
    check_columns(frame, settings)
    shapes, polygons = np.array(frame.geometry.values), is_polygon(frame)
    mended = shapes.copy()
    mended[polygons] = repair(shapes[polygons])
    empty = shapely.is_missing(mended) | shapely.is_empty(mended)
    crossing = polygons & ~empty & ~shapely.is_valid(shapes)
    left = np.flatnonzero(~empty)
    keys = pd.DataFrame({"group": group_keys(frame, settings)[left], "corners": corner_keys(mended[left])})
    if settings.target is not None:
        keys["target"] = texts(frame[settings.target])[left]
    repeats = keys.duplicated().to_numpy()
    counts = {
        "polygons that crossed themselves are mended": crossing.sum(),
        "rows without ground are left out": empty.sum(),
        "polygons that were there already are left out": repeats.sum(),
    }
    copy = frame.set_geometry(mended, crs=frame.crs).iloc[left[~repeats]].reset_index(drop=True)
    return Repaired(frame=copy, changes=tuple(f"{number} {change}" for change, number in counts.items() if number))
