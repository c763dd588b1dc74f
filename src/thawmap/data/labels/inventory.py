"""Counts and areas of inventories of slumps, and their columns in ARTS.

ARTS, the Arctic inventory (doi 10.1038/s41597-025-04372-7), has one row a polygon with required columns (centroid,
region, creator, date, source, resolution, class, type), and an identifier made of them.
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
    """Names of the columns that thawmap reads of labels; None: there is none."""

    scene: str | None = "image_id"
    region: str | None = "region"
    start: str | None = "start"
    end: str | None = "end"
    target: str | None = "label"


_USUAL_NAMES = {
    "scene": ("image_id", "scene_id", "BaseMapID"),
    "region": ("region", "RegionName"),
    "start": ("start", "image_date", "date", "acquired", "BaseMapDate"),
    "end": ("end",),
    "target": ("label", "target", "TrainClass"),
}


def columns_of(frame: gpd.GeoDataFrame) -> Columns:
    """Return the names of a frame's columns of scene, region, days and target.

    Found by the names that inventories use; None where there is none.
    """
    return Columns(
        **{role: next((name for name in names if name in frame.columns), None) for role, names in _USUAL_NAMES.items()}
    )


def area_m2(frame: gpd.GeoDataFrame) -> npt.NDArray[np.float64]:
    """Return the area of each polygon in m2, in an equal-area projection.

    NaN where there is no geometry, or the projection has no place for it.
    """
    with np.errstate(invalid="ignore"):  # of coordinates that have no place in it
        area: npt.NDArray[np.float64] = frame.geometry.to_crs(EQUAL_AREA).area.to_numpy(np.float64)
    return area


def site_table(
    frame: gpd.GeoDataFrame,
    *,
    by: str | None = None,
    scene: str | None = None,
    date: str | None = None,
) -> pd.DataFrame:
    """Return a table of counts and areas of an inventory, a row for each site.

    As Table 2 of Nitze et al. 2021. Columns: the site, ``objects``, ``scenes``, ``dates``, ``fewest`` and ``most``
    objects of a date, ``median_m2`` and ``total_m2`` (equal-area). What the frame does not say is missing.

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
    objects = pd.DataFrame({"site": site, "m2": area_m2(frame)})
    for name, column in (("scene", scene), ("date", date)):
        objects[name] = None if column is None else texts(frame[column])
        objects[name] = objects[name].where(objects[name] != "")
    rows = []
    for site_name, of_site in objects.groupby("site"):
        dates = of_site["date"].value_counts()
        rows.append(
            {
                by or "site": site_name,
                "objects": len(of_site),
                "scenes": pd.NA if scene is None else of_site["scene"].nunique(),
                "dates": pd.NA if dates.empty else len(dates),
                "fewest": pd.NA if dates.empty else int(dates.min()),
                "most": pd.NA if dates.empty else int(dates.max()),
                "median_m2": float(of_site["m2"].median()),
                "total_m2": float(of_site["m2"].sum()),
            }
        )
    return pd.DataFrame(rows)


def to_arts(
    frame: gpd.GeoDataFrame,
    *,
    columns: Columns | None = None,
    creator: str | None = None,
    source: str | None = None,
    resolution: float | None = None,
) -> gpd.GeoDataFrame:
    """Return labels in ARTS' columns, CRS and identifiers; refuse absent fields.

    Scene, region, days and target become BaseMapID, RegionName, BaseMapDate and TrainClass; all other columns stay, and
    so does what ARTS cannot say exactly, such as the time of a day. What ARTS columns say already stays as it is.
    Centroids are those in EPSG:4326, to 5 decimals; the UID is uuid5 in the namespace of DNS of the required columns,
    written one after the other, as ARTS' own scripts make it.

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
    for arts_name, form in _FORMS.items():
        own = {role: name for role in form.roles if (name := getattr(names, role)) in arts and name != arts_name}
        if not own:
            continue
        columns_by_role = arts[list(own.values())].set_axis(list(own), axis=1)
        column = form.to_arts(columns_by_role)
        if arts_name in arts:
            _check_agreement(column, form.to_arts(form.from_arts(arts[arts_name])), arts_name, own)
        arts[arts_name] = arts.get(arts_name, column)
        # what does not come back exactly, such as the time of a day, stays beside its form in ARTS
        if form.from_arts(column)[list(own)].equals(columns_by_role):
            arts = arts.drop(columns=list(own.values()))
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
    """Return an ARTS inventory in thawmap's columns of labels; refuse other files.

    It stays in its CRS, and loses nothing. BaseMapID, RegionName, BaseMapDate and TrainClass become a scene, a region,
    a first and a last day (none where it is a single date) and a target (1 or 0); all other columns stay. Names that a
    Shapefile has cut to 10 letters are whole again.

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
    for arts_name, form in _FORMS.items():
        wanted = {role: name for role in form.roles if (name := getattr(names, role)) is not None}
        if arts_name not in labels or not wanted:
            continue
        columns_by_role = form.from_arts(labels[arts_name])
        present = {role: name for role, name in wanted.items() if name in labels}
        if present:
            stored = labels[list(present.values())].set_axis(list(present), axis=1)
            _check_agreement(form.to_arts(columns_by_role), form.to_arts(stored), arts_name, present)
        for role, name in wanted.items() if not present else ():
            labels[name] = columns_by_role[role]
        if form.to_arts(columns_by_role[list(wanted)]).equals(labels[arts_name]):
            labels = labels.drop(columns=arts_name)
    first = [name for role in Columns.__slots__ if (name := getattr(names, role)) in labels]
    return _ordered(labels, first)


def _ordered(frame: gpd.GeoDataFrame, first: list[str]) -> gpd.GeoDataFrame:
    """Return a frame with some columns first, then the others, the geometry last."""
    geometry = frame.geometry.name
    return frame[[*first, *(name for name in frame.columns if name not in first and name != geometry), geometry]]


@dataclass(frozen=True, slots=True)
class _Form:
    """A column of ARTS, its roles in thawmap's columns, and functions both ways.

    Attributes:
        roles: Fields of `Columns`.
        to_arts: From thawmap's columns, named by role, to the one of ARTS.
        from_arts: From the column of ARTS to thawmap's, named by role.
    """

    roles: tuple[str, ...]
    to_arts: Callable[[pd.DataFrame], pd.Series]
    from_arts: Callable[[pd.Series], pd.DataFrame]


def _dates_to_arts(period: pd.DataFrame) -> pd.Series:
    """Return the days in columns start and end as text, with a comma between two.

    A text that is no day is refused.
    """
    for role, column in period.items():
        _refuse(column, np.isnat(days(column)) & ((texts(column) != "") | (role == "start")), "no date")
    written = zip(*(days(column) for _, column in period.items()), strict=True)
    return pd.Series([",".join(str(day) for day in row if not np.isnat(day)) for row in written], index=period.index)


def _dates_from_arts(dates: pd.Series) -> pd.DataFrame:
    """Return first and last days, as a table, from texts of one or two days.

    The last is None where a text has one day; two stand with a comma between them.
    """
    split = [[day.strip() for day in written.split(",")] for written in texts(dates)]
    _refuse(dates, np.array([len(row) > 2 for row in split], np.bool_), "neither a date nor two")
    rows = [(row[0] or None, row[1] if len(row) == 2 else None) for row in split]
    period = pd.DataFrame(rows, columns=["start", "end"], index=dates.index)
    for role in period:
        _refuse(dates, period[role].notna().to_numpy() & np.isnat(days(period[role])), "no date")
    return period


def _target_to_arts(labels: pd.DataFrame) -> pd.Series:
    """Return texts Positive or Negative for targets 1 or 0; refuse other targets."""
    targets = numbers(labels["target"])
    _refuse(labels["target"], ~np.isin(targets, list(_CLASSES)), "neither 1 (Positive) nor 0 (Negative)")
    return pd.Series([_CLASSES[int(target)] for target in targets], index=labels.index)


def _target_from_arts(classes: pd.Series) -> pd.DataFrame:
    """Return a table of targets 1 or 0 for Positive or Negative; refuse other texts."""
    targets = {name: target for target, name in _CLASSES.items()}
    _refuse(classes, ~classes.isin(list(targets)).to_numpy(), "neither Positive nor Negative")
    return pd.DataFrame({"target": classes.map(targets).astype("int64")})


_FORMS = {
    "RegionName": _Form(("region",), lambda labels: labels["region"], lambda arts: pd.DataFrame({"region": arts})),
    "BaseMapDate": _Form(("start", "end"), _dates_to_arts, _dates_from_arts),
    "TrainClass": _Form(("target",), _target_to_arts, _target_from_arts),
    "BaseMapID": _Form(("scene",), lambda labels: labels["scene"], lambda arts: pd.DataFrame({"scene": arts})),
}


def _refuse(column: pd.Series, wrong: npt.NDArray[np.bool_], fault: str) -> None:
    """Raise a LabelError at the first row of a column that is wrong, if any is."""
    if wrong.any():
        row = int(np.argmax(wrong))
        msg = f"{column.name} {str(column.iloc[row])!r} in row {row + 1} is {fault}; correct it, or leave the row out"
        raise LabelError(msg)


def _check_agreement(column: pd.Series, stored: pd.Series, arts_name: str, names: dict[str, str]) -> None:
    """Refuse two columns in ARTS' form whose texts differ; the message names a row.

    ``column`` is made of thawmap's columns ``names``, and ``stored`` is that of ARTS, or the other way round.
    """
    differ = texts(column) != texts(stored)
    if differ.any():
        msg = (
            f"row {int(np.argmax(differ)) + 1} says one thing in {arts_name!r} and another in "
            f"{' and '.join(map(repr, names.values()))}; rename or remove one of these columns"
        )
        raise LabelError(msg)


def _filled(column: pd.Series | None, default: pd.Series) -> pd.Series:
    """Return a column with a default in its empty rows, or the default without one."""
    if column is None or column.isna().all():
        return default
    if pd.api.types.is_string_dtype(column):
        return column.where(column.notna(), default.astype(str))
    return column.astype(object).where(column.notna(), default).infer_objects()


def _centroids(arts: gpd.GeoDataFrame) -> tuple[pd.Series, pd.Series]:
    """Return two columns: longitude and latitude of centroids, to 5 decimals.

    A polygon across the antimeridian is taken as one piece.
    """
    shapes = np.array(arts.geometry.to_crs("EPSG:4326").values)
    west, _, east, _ = shapely.bounds(shapes).T
    wide = east - west > 180  # no slump is: its boundary crosses the antimeridian
    shapes[wide] = shapely.transform(
        shapes[wide], lambda points: points + np.array([[360.0, 0.0]]) * (points[:, :1] < 0)
    )
    centres = shapely.centroid(shapes)
    lon = (shapely.get_x(centres) + 180) % 360 - 180
    return pd.Series(lon.round(5), index=arts.index), pd.Series(shapely.get_y(centres).round(5), index=arts.index)


def _check_required(arts: gpd.GeoDataFrame) -> None:
    """Refuse a frame in which a column that ARTS requires is absent or has empty rows."""
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
    """Return a column of identifiers, each a uuid5 of the row's required columns.

    The columns stand one after the other. Coordinates are written with 5 decimals, a resolution of whole metres
    without, the rest as it stands.
    """
    metres = numbers(arts["BaseMapResolution"])
    _refuse(arts["BaseMapResolution"], ~np.isfinite(metres), "no number of metres")
    written = {name: [str(round(float(value), 5)) for value in numbers(arts[name])] for name in REQUIRED[:2]}
    written["BaseMapResolution"] = [str(int(value) if value % 1 == 0 else float(value)) for value in metres]
    seeds = zip(*(written.get(name, texts(arts[name])) for name in REQUIRED), strict=True)
    return pd.Series([str(uuid.uuid5(uuid.NAMESPACE_DNS, "".join(seed))) for seed in seeds], index=arts.index)
