"""Inventories of slumps: what they hold, and their form in ARTS, the Arctic inventory.

ARTS (doi 10.1038/s41597-025-04372-7) has one row a polygon with required columns (centroid, region, creator, date,
source, resolution, class, type), and an identifier made of them.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from thawmap.data.labels.attributes import days, numbers, texts
from thawmap.errors import LabelError
from thawmap.geo.crs import EQUAL_AREA

ARTS_CRS = "EPSG:3413"
REQUIRED = (
    "CentroidLat", "CentroidLon", "RegionName", "CreatorLab", "BaseMapDate", "BaseMapSource", "BaseMapResolution",
    "TrainClass", "LabelType",
)  # fmt: skip
"""Columns that ARTS requires, in the order in which its identifiers are made of them."""
_FURTHER = (
    "MergedRTS", "SplitRTS", "NewRTS", "StabilizedRTS", "UnknownRelationship", "ContributionDate", "UID", "BaseMapID",
    "Area", "Notes",
)  # fmt: skip
_CLASSES = {1: "Positive", 0: "Negative"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of the columns of what thawmap reads of labels; None: there is none."""

    scene: str | None = "image_id"
    region: str | None = "region"
    start: str | None = "start"
    end: str | None = "end"
    target: str | None = "label"


_ALSO = {
    "scene": ("image_id", "scene_id", "BaseMapID"),
    "region": ("region", "RegionName"),
    "start": ("start", "image_date", "date", "acquired", "BaseMapDate"),
    "end": ("end",),
    "target": ("label", "target", "TrainClass"),
}


def columns_of(frame: gpd.GeoDataFrame) -> Columns:
    """The columns that hold what thawmap reads, by the names that inventories give them."""
    return Columns(
        **{role: next((name for name in names if name in frame.columns), None) for role, names in _ALSO.items()}
    )


def area_m2(frame: gpd.GeoDataFrame) -> npt.NDArray[np.float64]:
    """Area of each polygon in m2, in `EQUAL_AREA`; NaN where there is no geometry, or it is nowhere there."""
    with np.errstate(invalid="ignore"):  # of coordinates that are nowhere in it
        area: npt.NDArray[np.float64] = frame.geometry.to_crs(EQUAL_AREA).area.to_numpy(np.float64)
    return area


def table2(
    frame: gpd.GeoDataFrame,
    *,
    by: str | None = None,
    scene: str | None = None,
    date: str | None = None,
) -> pd.DataFrame:
    """What an inventory holds, as Table 2 of Nitze et al. 2021, a row for each site.

    Columns: the site, ``objects``, ``scenes``, ``dates``, ``fewest`` and ``most`` objects of a date, ``median_m2`` and
    ``total_m2`` (equal-area). What the frame does not say is missing.

    Args:
        frame: The objects.
        by: Column of sites; unset: one row for all.
        scene: Column of images, where there is one.
        date: Column of dates, where there is one.

    Raises:
        LabelError: If a column is not there.
    """
    for column in (by, scene, date):
        if column is not None and column not in frame.columns:
            msg = f"the polygons have no column {column!r}; they have {', '.join(map(str, frame.columns))}"
            raise LabelError(msg)
    site = np.full(len(frame), "all", object) if by is None else texts(frame[by])
    said = pd.DataFrame({"site": site, "m2": area_m2(frame)})
    if scene is not None:
        said["scene"] = texts(frame[scene])
    if date is not None:
        said["date"] = texts(frame[date])
    return pd.DataFrame([_site(mine, by or "site") for _, mine in said.groupby("site")])


def _site(mine: pd.DataFrame, by: str) -> dict[str, object]:
    """One row of the table."""
    named = {name: mine[name][mine[name] != ""] if name in mine else None for name in ("scene", "date")}
    dates = None if named["date"] is None or named["date"].empty else named["date"].value_counts()
    return {
        by: mine["site"].iloc[0],
        "objects": len(mine),
        "scenes": pd.NA if named["scene"] is None else named["scene"].nunique(),
        "dates": pd.NA if dates is None else len(dates),
        "fewest": pd.NA if dates is None else int(dates.min()),
        "most": pd.NA if dates is None else int(dates.max()),
        "median_m2": float(mine["m2"].median()),
        "total_m2": float(mine["m2"].sum()),
    }


def to_arts(
    frame: gpd.GeoDataFrame,
    *,
    columns: Columns | None = None,
    creator: str | None = None,
    source: str | None = None,
    resolution: float | None = None,
) -> gpd.GeoDataFrame:
    """Labels in the columns and the CRS of ARTS, losing nothing.

    Scene, region, days and target become BaseMapID, RegionName, BaseMapDate and TrainClass; all other columns stay,
    and so does what ARTS cannot say exactly, such as the time of a day. What ARTS columns say already stays as it
    is. Centroids are those in EPSG:4326, to 5 decimals; the UID is uuid5 in the namespace of DNS of the required
    columns, written one after the other, as ARTS' own scripts make it.

    Args:
        frame: The labels.
        columns: What their columns mean; unset: by the names that are usual.
        creator: CreatorLab, such as "INitze, Alfred Wegener Institute", where the labels do not say it.
        source: BaseMapSource, such as "PlanetScope", where they do not say it.
        resolution: BaseMapResolution in m, where they do not say it.

    Raises:
        LabelError: If a required field is nowhere, a day or a target has no form in ARTS, or two columns that say the
            same disagree.
    """
    names = columns or columns_of(frame)
    arts = frame.to_crs(ARTS_CRS)
    for theirs, form in _FORMS.items():
        held = {role: name for role in form.roles if (name := getattr(names, role)) in arts and name != theirs}
        if not held:
            continue
        ours = arts[list(held.values())].set_axis(list(held), axis=1)
        made = form.to_arts(ours)
        if theirs in arts:
            _agree(made, form.to_arts(form.from_arts(arts[theirs])), theirs, held)
        arts[theirs] = arts.get(theirs, made)
        if form.from_arts(made)[list(held)].equals(ours):
            arts = arts.drop(columns=list(held.values()))
    given = {"CreatorLab": creator, "BaseMapSource": source, "BaseMapResolution": resolution, "LabelType": "Polygon"}
    for name, value in {**given, "TrainClass": "Positive"}.items():
        if value is not None:
            arts[name] = _filled(arts.get(name), pd.Series(value, index=arts.index))
    lon, lat = _centroids(arts)
    arts["CentroidLat"] = _filled(arts.get("CentroidLat"), lat)
    arts["CentroidLon"] = _filled(arts.get("CentroidLon"), lon)
    _check_required(arts)
    arts["UID"] = _filled(arts.get("UID"), _uids(arts))
    return _ordered(arts, [name for name in (*REQUIRED, *_FURTHER) if name in arts])


def from_arts(frame: gpd.GeoDataFrame, *, columns: Columns | None = None) -> gpd.GeoDataFrame:
    """An ARTS inventory in the columns of thawmap's labels and its own CRS, losing nothing.

    BaseMapID, RegionName, BaseMapDate and TrainClass become a scene, a region, a first and a last day (none where it
    is a single date) and a target (1 or 0); all other columns stay. Names that a Shapefile has cut to 10 letters are
    whole again.

    Raises:
        LabelError: If it has none of these columns, holds a date or class that is not of ARTS, or two columns that
            say the same disagree.
    """
    names = columns or Columns()
    cut = {name[:10]: name for name in (*REQUIRED, *_FURTHER) if name not in frame}
    frame = frame.rename(columns=cut)
    if frame.columns.intersection(list(_FORMS)).empty:
        msg = f"the file has none of the columns {', '.join(_FORMS)}, so it is no ARTS inventory; convert another"
        raise LabelError(msg)
    labels = frame.copy()
    for theirs, form in _FORMS.items():
        wanted = {role: name for role in form.roles if (name := getattr(names, role)) is not None}
        if theirs not in labels or not wanted:
            continue
        made = form.from_arts(labels[theirs])
        held = {role: name for role, name in wanted.items() if name in labels}
        if held:
            ours = labels[list(held.values())].set_axis(list(held), axis=1)
            _agree(form.to_arts(made), form.to_arts(ours), theirs, held)
        for role, name in wanted.items() if not held else ():
            labels[name] = made[role]
        if form.to_arts(made[list(wanted)]).equals(labels[theirs]):
            labels = labels.drop(columns=theirs)
    first = [name for role in Columns.__slots__ if (name := getattr(names, role)) in labels]
    return _ordered(labels, first)


def _ordered(frame: gpd.GeoDataFrame, first: list[str]) -> gpd.GeoDataFrame:
    """The named columns, the others as they come, the geometry."""
    geometry = frame.geometry.name
    return frame[[*first, *(name for name in frame.columns if name not in first and name != geometry), geometry]]


@dataclass(frozen=True, slots=True)
class _Form:
    """How a column of ARTS says what thawmap's columns of these roles say."""

    roles: tuple[str, ...]
    to_arts: Callable[[pd.DataFrame], pd.Series]
    from_arts: Callable[[pd.Series], pd.DataFrame]


def _arts_date(ours: pd.DataFrame) -> pd.Series:
    """One day, or two with a comma between them."""
    written = [[str(day) for day in days(ours[role])] for role in ours]
    for role in ours:
        _refuse(ours[role], np.isnat(days(ours[role])) & ((texts(ours[role]) != "") | (role == "start")), "no date")
    said = [",".join(day for day in row if day != "NaT") for row in zip(*written, strict=True)]
    return pd.Series(said, index=ours.index)


def _arts_days(theirs: pd.Series) -> pd.DataFrame:
    """First and last day, the last None where it is a single one."""
    parts = [[day.strip() for day in said.split(",")] for said in texts(theirs)]
    _refuse(theirs, np.array([len(row) > 2 for row in parts], np.bool_), "neither a date nor two")
    rows = [(row[0] or None, row[1] if len(row) == 2 else None) for row in parts]
    both = pd.DataFrame(rows, columns=["start", "end"], index=theirs.index)
    for role in both:
        _refuse(theirs, both[role].notna().to_numpy() & np.isnat(days(both[role])), "no date")
    return both


def _arts_class(ours: pd.DataFrame) -> pd.Series:
    values = numbers(ours["target"])
    _refuse(ours["target"], ~np.isin(values, list(_CLASSES)), "neither 1 (Positive) nor 0 (Negative)")
    return pd.Series([_CLASSES[int(value)] for value in values], index=ours.index)


def _arts_target(theirs: pd.Series) -> pd.DataFrame:
    known = {name: target for target, name in _CLASSES.items()}
    _refuse(theirs, ~theirs.isin(list(known)).to_numpy(), "neither Positive nor Negative")
    return pd.DataFrame({"target": theirs.map(known).astype("int64")})


_FORMS = {
    "RegionName": _Form(("region",), lambda ours: ours["region"], lambda theirs: pd.DataFrame({"region": theirs})),
    "BaseMapDate": _Form(("start", "end"), _arts_date, _arts_days),
    "TrainClass": _Form(("target",), _arts_class, _arts_target),
    "BaseMapID": _Form(("scene",), lambda ours: ours["scene"], lambda theirs: pd.DataFrame({"scene": theirs})),
}


def _refuse(column: pd.Series, wrong: npt.NDArray[np.bool_], what: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        msg = f"{column.name} {str(column.iloc[row])!r} in row {row + 1} is {what}; correct it, or leave the row out"
        raise LabelError(msg)


def _agree(made: pd.Series, there: pd.Series, theirs: str, held: dict[str, str]) -> None:
    """See that a column of ARTS and one of thawmap that are both there say the same."""
    differ = texts(made) != texts(there)
    if differ.any():
        msg = (
            f"row {int(np.argmax(differ)) + 1} says one thing in {theirs!r} and another in "
            f"{' and '.join(map(repr, held.values()))}; rename or remove one of these columns"
        )
        raise LabelError(msg)


def _filled(column: pd.Series | None, made: pd.Series) -> pd.Series:
    """A column, or what is made where there is none or it is empty."""
    if column is None or column.isna().all():
        return made
    if pd.api.types.is_string_dtype(column):
        return column.where(column.notna(), made.astype(str))
    return column.astype(object).where(column.notna(), made).infer_objects()


def _centroids(arts: gpd.GeoDataFrame) -> tuple[pd.Series, pd.Series]:
    """Longitude and latitude of each centroid in EPSG:4326, degrees to 5 decimals.

    A polygon across the antimeridian is taken as one piece.
    """
    shapes = np.array(arts.geometry.to_crs("EPSG:4326").values)
    west, _, east, _ = shapely.bounds(shapes).T
    wide = east - west > 180
    shapes[wide] = shapely.transform(
        shapes[wide], lambda points: points + np.array([[360.0, 0.0]]) * (points[:, :1] < 0)
    )
    centres = shapely.centroid(shapes)
    lon = (shapely.get_x(centres) + 180) % 360 - 180
    return pd.Series(lon.round(5), index=arts.index), pd.Series(shapely.get_y(centres).round(5), index=arts.index)


def _check_required(arts: gpd.GeoDataFrame) -> None:
    lacking = [name for name in REQUIRED if name not in arts or (texts(arts[name]) == "").any()]
    if lacking:
        remedies = {
            "RegionName": "a column 'region'", "BaseMapDate": "a column 'start'", "CreatorLab": "creator",
            "BaseMapSource": "source", "BaseMapResolution": "resolution",
        }  # fmt: skip
        give = [remedies.get(name, f"a column {name!r}") for name in lacking]
        msg = f"ARTS requires {', '.join(lacking)}, which the labels do not say in every row; give {', '.join(give)}"
        raise LabelError(msg)


def _uids(arts: gpd.GeoDataFrame) -> pd.Series:
    """The identifier of each row: coordinates with 5 decimals and whole metres as such, then the rest as it stands."""
    metres = numbers(arts["BaseMapResolution"])
    _refuse(arts["BaseMapResolution"], ~np.isfinite(metres), "no number of metres")
    written = {name: [str(round(float(value), 5)) for value in numbers(arts[name])] for name in REQUIRED[:2]}
    written["BaseMapResolution"] = [str(int(value) if value % 1 == 0 else float(value)) for value in metres]
    seeds = zip(*(written.get(name, texts(arts[name])) for name in REQUIRED), strict=True)
    return pd.Series([str(uuid.uuid5(uuid.NAMESPACE_DNS, "".join(seed))) for seed in seeds], index=arts.index)
