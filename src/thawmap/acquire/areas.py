"""Areas: the ground that is asked for, by site, repaired and measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from shapely.geometry.base import BaseGeometry

from thawmap.acquire.outward import fewer_vertices
from thawmap.config import AcquireSettings
from thawmap.data.sources.finding import usable_id
from thawmap.data.vector.io import read_vector
from thawmap.errors import ConfigError, DataError
from thawmap.geo.crs import EQUAL_AREA
from thawmap.geo.shapes import LONLAT, repair, reproject, to_lonlat
from thawmap.text import counted

_STRAIGHT_DEGREES = 0.02  # a line of this length is as good as straight in the equal-area projection
_MOST_GROWTH = 0.01  # of an area, by having fewer vertices
_FINEST = 1e-9  # degrees; points that are nearer are one
_TURN = np.array([360.0, 0.0])


@dataclass(frozen=True)
class Area:
    """The ground of one site.

    Attributes:
        name: Name of the site; can name a folder.
        outline: Polygon or multipolygon in EPSG:4326, valid, cut at the antimeridian.
        notes: Sentences on what was repaired.
    """

    name: str
    outline: BaseGeometry
    notes: tuple[str, ...] = ()

    @cached_property
    def km2(self) -> float:
        """Square kilometres of it, in an equal-area projection."""
        return km2(self.outline)


def read_areas(settings: AcquireSettings) -> list[Area]:
    """Return the areas of a vector file or a box, one for each site, by name.

    Crossings are repaired, and what belongs to one site is joined.

    Raises:
        ConfigError: If the file has no area, lacks the column of the sites, or names them so that none can be a folder.
        DataError: If it cannot be read.
    """
    if isinstance(settings.area, tuple):
        west, south, east, north = settings.area
        boxes = [(west, east)] if west < east else [(west, 180.0), (-180.0, east)]
        box = shapely.union_all([shapely.box(left, south, right, north) for left, right in boxes])
        return [Area("area", box)]
    path = settings.area
    frame = read_vector(path)
    if settings.site is not None and settings.site not in frame.columns:
        columns = ", ".join(repr(str(name)) for name in frame.columns if name != frame.geometry.name) or "none"
        msg = f"{path} has no column {settings.site!r} for 'acquire.site'; its columns: {columns}"
        raise ConfigError(msg)
    names = [usable_id(path.stem)] * len(frame) if settings.site is None else _site_names(path, frame[settings.site])
    kept, note = _with_area(path, frame)
    areas = [_joined(name, frame[kept & (np.array(names) == name)], note) for name in sorted(set(names))]
    empty = next((area.name for area in areas if shapely.is_empty(area.outline)), None)
    if not areas or empty is not None:
        msg = f"{path} has no area{f' for the site {empty!r}' if empty else ''}; draw polygons, or leave the site out"
        raise ConfigError(msg)
    return areas


def _site_names(path: Path, column: Sequence[Any]) -> list[str]:
    """Return the names of sites in a column as names of folders, by row.

    Raises:
        ConfigError: If a row has none, or two names would make one folder.
    """
    texts = ["" if value is None or value != value else str(value).strip() for value in column]  # noqa: PLR0124
    if "" in texts:
        msg = f"{path}: row {texts.index('') + 1} names no site; fill the column of 'acquire.site'"
        raise ConfigError(msg)
    folders: dict[str, str] = {}
    for text in texts:
        other = folders.setdefault(usable_id(text).casefold(), text)
        if other != text:
            msg = f"{path}: the sites {other!r} and {text!r} would make one folder; rename one of them"
            raise ConfigError(msg)
    return [usable_id(text) for text in texts]


def _with_area(path: Path, frame: gpd.GeoDataFrame) -> tuple[npt.NDArray[np.bool_], str]:
    """Return which rows have a shape, as bools, and a sentence on those that have none.

    Raises:
        DataError: If a shape is no polygon.
    """
    shapes = np.asarray(frame.geometry.values)
    kept = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    foreign = kept & (shapely.get_dimensions(shapes) < 2)
    if foreign.any():
        row = int(np.argmax(foreign))
        msg = f"{path}: row {row + 1} is a {shapes[row].geom_type}, which has no area; draw a polygon around it"
        raise DataError(msg)
    left_out = int((~kept).sum())
    return kept, f"{counted(left_out, 'row')} without a shape left out" if left_out else ""


def _joined(name: str, frame: gpd.GeoDataFrame, note: str) -> Area:
    """Return the area of one site from its polygons."""
    shapes = np.asarray(frame.geometry.values)
    notes = [note] if note else []
    faulty = ~shapely.is_valid(shapes)
    if faulty.any():
        notes.append(f"{counted(int(faulty.sum()), 'polygon')} repaired: {shapely.is_valid_reason(shapes[faulty][0])}")
    lonlat = [to_lonlat(shape, LONLAT) for shape in reproject(frame, LONLAT).shapes]
    outline = shapely.set_precision(shapely.union_all(lonlat), _FINEST)
    return Area(name, repair(np.array([outline], object))[0], tuple(notes))


def km2(outline: BaseGeometry) -> float:
    """Return the square kilometres of a shape in EPSG:4326, in an equal-area projection."""
    return float(shapely.area(equal_area(np.array([outline], object))[0]) / 1e6)


def equal_area(shapes: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """Return shapes of EPSG:4326 in the equal-area projection EPSG:6931, in metres.

    Lines are cut into short ones first, since they are curved there.
    """
    project = pyproj.Transformer.from_crs(LONLAT, EQUAL_AREA, always_xy=True).transform
    moved: npt.NDArray[np.object_] = shapely.transform(
        shapely.segmentize(shapes, _STRAIGHT_DEGREES), lambda points: np.column_stack(project(*points.T))
    )
    return moved


def grown(area: Area, metres: float) -> BaseGeometry:
    """Return an area's outline with a margin, in EPSG:4326, cut at the antimeridian."""
    crs = _local_crs(area.outline)
    flat = reproject(gpd.GeoDataFrame(geometry=[area.outline], crs=LONLAT), crs).shapes[0]
    return to_lonlat(shapely.buffer(flat, metres), crs)


def _local_crs(outline: BaseGeometry) -> str:
    """Return a CRS in metres, equal-area, around the middle of an outline in degrees."""
    points = shapely.get_coordinates(outline)
    lon, lat = np.radians(points).T
    x, y, z = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    middle = np.degrees([np.arctan2(y.mean(), x.mean()), np.arctan2(z.mean(), np.hypot(x.mean(), y.mean()))])
    crs = pyproj.CRS.from_proj4(f"+proj=laea +lon_0={middle[0]:.6f} +lat_0={middle[1]:.6f} +datum=WGS84 +units=m")
    return crs.to_wkt()


def clip_outline(area: Area, *, most: int = 500) -> tuple[BaseGeometry, str]:
    """Return an outline that covers an area with few vertices, and a sentence on it.

    In EPSG:4326, for services that cut images out. The sentence is empty where nothing had to change.

    Args:
        area: The area.
        most: Vertices that the service takes, all rings together, their closing points not counted.

    Raises:
        ConfigError: If it would grow by more than a hundredth.
    """
    if _vertices(area.outline) <= most:
        return area.outline, ""
    crosses = np.ptp(shapely.get_coordinates(area.outline)[:, 0]) > 180
    polygons = list(_in_one_piece(area.outline) if crosses else shapely.get_parts(area.outline))
    rings = fewer_vertices(polygons, most - 8 if crosses else most)  # the cut at the antimeridian adds some
    outline = _cut_at_180(shapely.union_all(repair(np.array(rings, object))))
    grew = km2(outline) / area.km2 - 1
    covers = shapely.area(shapely.difference(area.outline, outline)) <= 1e-9 * shapely.area(area.outline)
    if grew > _MOST_GROWTH or not covers or _vertices(outline) > most:
        msg = (
            f"the site {area.name!r} has {_vertices(area.outline)} vertices, of which a service that cuts images out "
            f"takes {most}, and cannot be drawn with so few within 1 % of its area; divide it, or draw it simpler"
        )
        raise ConfigError(msg)
    note = f"{area.name}: cut out with {_vertices(outline)} vertices instead of {_vertices(area.outline)}"
    return outline, f"{note}, {100 * grew:.2f} % more ground"


def _in_one_piece(outline: BaseGeometry) -> Iterator[BaseGeometry]:
    """Yield the polygons of an outline with longitudes from 0 to 360, joined across 180."""
    parts = shapely.get_parts(outline)
    moved = [
        shapely.transform(part, lambda points: points + _TURN) if shapely.bounds(part)[2] <= 0 else part
        for part in parts
    ]
    yield from shapely.get_parts(shapely.union_all(moved))


def _cut_at_180(outline: BaseGeometry) -> BaseGeometry:
    """Return an outline of longitudes up to 360 cut at 180 degrees, with no vertex more."""
    east = shapely.intersection(outline, shapely.box(180, -90, 540, 90))
    west = shapely.intersection(outline, shapely.box(-180, -90, 180, 90))
    moved = shapely.transform(east, lambda points: points - _TURN)
    return shapely.union_all([west, moved]) if not shapely.is_empty(east) and shapely.area(east) > 0 else west


def _vertices(outline: BaseGeometry) -> int:
    """Return the number of vertices of an outline, closing points not counted."""
    rings = sum(1 + len(part.interiors) for part in shapely.get_parts(outline))
    return int(shapely.get_num_coordinates(outline)) - rings
