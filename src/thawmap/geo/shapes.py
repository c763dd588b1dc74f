"""Polygons that are brought to a CRS: valid, in one piece where it has an edge, and found by a tree."""

from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from odc.geo.geobox import GeoBox
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

Shapes = npt.NDArray[np.object_]
Rows = npt.NDArray[np.intp]
_Floats = npt.NDArray[np.float64]

LONLAT = "EPSG:4326"
_STRAIGHT_M, _STRAIGHT_DEGREES = 2000.0, 0.02
"""Longest straight lines that are taken for straight in another CRS: off by less than half a metre."""
_WHOLE_M, _WHOLE_DEGREES = 4e7, 1000.0  # boundaries around the Earth; what is longer is damaged
_STEP = 90.0  # degrees between the meridians around which degrees are counted


@dataclass(frozen=True, slots=True)
class ShapeIndex:
    """Shapes in one CRS, valid, and a tree that finds them; those that have no place there are empty."""

    shapes: Shapes
    tree: shapely.STRtree

    def touching(self, geobox: GeoBox) -> Rows:
        """Rows of the shapes that touch a grid of their CRS, in order."""
        rows: Rows = np.sort(self.tree.query(geobox.extent.geom, predicate="intersects"))
        return rows


def reproject(frame: gpd.GeoDataFrame, crs: str, *, meridian: float = 0.0) -> ShapeIndex:
    """Polygons in another CRS; those too far away for it are empty.

    Args:
        frame: The polygons.
        crs: An EPSG code or WKT.
        meridian: Longitude around which a CRS of degrees counts: what lies west of the antimeridian and what lies
            east of it are neighbours on a grid around 180.
    """
    shapes = np.asarray(frame.geometry.values)
    if pyproj.CRS(crs) != frame.crs:
        longest, whole = (_STRAIGHT_DEGREES, _WHOLE_DEGREES) if frame.crs.is_geographic else (_STRAIGHT_M, _WHOLE_M)
        with np.errstate(all="ignore"):  # of points that are damaged, which stay as they are
            shapes, long = shapes.copy(), shapely.length(shapes) < whole
        shapes[long] = shapely.segmentize(shapes[long], longest)
        shapes = np.asarray(gpd.GeoSeries(shapes, crs=frame.crs).to_crs(crs).values)
    if pyproj.CRS(crs).is_geographic:
        shapes = gather_around(shapes, meridian)
    shapes = repair(shapes)
    return ShapeIndex(shapes, shapely.STRtree(shapes))


def meridian_of(crs: str, middle: float) -> float:
    """The meridian around which a grid of degrees counts, from the longitude of its middle; 0 for other grids."""
    return round(middle / _STEP) * _STEP if pyproj.CRS(crs).is_geographic else 0.0


def gather_around(shapes: Shapes, meridian: float) -> Shapes:
    """Polygons in degrees, each part in one piece and near a meridian; those as wide as half the Earth thrice."""
    west, _, east, _ = shapely.bounds(shapes).T
    made = shapes.copy()
    for row in np.flatnonzero((east - west > 180) | (abs((west + east) / 2 - meridian) > 180)):
        parts = [_in_one_piece(part, meridian) for part in shapely.get_parts(shapes[row])]
        made[row] = shapely.multipolygons(shapely.get_parts(parts))
    return made


def to_lonlat(outline: BaseGeometry, crs: str) -> BaseGeometry:
    """An outline in EPSG:4326, between -180 and 180 degrees, cut at the antimeridian."""
    placed = _thrice(reproject(gpd.GeoDataFrame(geometry=[outline], crs=crs), LONLAT).shapes[0])
    return shapely.intersection(placed, shapely.box(-180, -90, 180, 90))


def _in_one_piece(part: shapely.Polygon, meridian: float) -> BaseGeometry:
    """A polygon in degrees whose neighbouring points are neighbours, near a meridian."""
    points = shapely.get_coordinates(part.exterior)
    lon, lat = points.T
    if (lon.min(), lon.max()) == (-180, 180):  # all around the Earth, as drawn on a map
        return _thrice(part)
    lon = np.unwrap(lon, period=360)
    middle = (lon.min() + lon.max()) / 2
    middle += 360 * np.round((meridian - middle) / 360)

    def near(of: _Floats) -> _Floats:
        return np.column_stack([of[:, 0] + 360 * np.round((middle - of[:, 0]) / 360), of[:, 1]])

    if abs(lon[-1] - lon[0]) > 180:  # once around a pole, to which its ground reaches
        pole = np.copysign(90.0, lat.mean())
        ring = np.column_stack([[*lon, lon[-1], lon[0]], [*lat, pole, pole]])
        holes = np.array([shapely.Polygon(hole) for hole in part.interiors], object)
        return shapely.difference(_thrice(shapely.Polygon(ring)), shapely.union_all(repair(holes)))
    whole = shapely.transform(part, near)
    return whole if np.ptp(lon) < 180 else _thrice(whole)


def _thrice(part: shapely.Polygon) -> BaseGeometry:
    """A polygon in degrees with what it is one turn further to the west and to the east."""
    turns = [translate(part, turn) for turn in (-360, 0, 360)]
    return shapely.union_all(repair(np.array(turns, object)))


def repair(shapes: Shapes) -> Shapes:
    """Polygons without crossings, by `shapely.make_valid` for each part; what has no area goes.

    Ground on which two parts lie stays; what one boundary encloses twice is outside, as for a rasteriser. Those with
    coordinates that are not finite become empty, the missing stay missing. (GEOS' other method, "structure", keeps
    what is enclosed twice, and loses other ground.)
    """
    made = shapes.copy()
    made[~is_finite(shapes)] = shapely.Polygon()
    wrong = np.flatnonzero(~(shapely.is_valid(made) | shapely.is_missing(made)))
    for row in wrong:
        made[row] = shapely.union_all(polygons_of(shapely.make_valid(shapely.get_parts(made[row]))))
        made[row] = shapely.Polygon() if shapely.is_empty(made[row]) else made[row]
    return made


def polygons_of(shapes: Shapes) -> Shapes:
    """The polygons among the parts of each shape, as one; None where there is none."""
    parts, owner = shapely.get_parts(shapes, return_index=True)
    parts, part = shapely.get_parts(parts, return_index=True)  # a collection may hold polygons of several parts
    flat = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    none = np.full(len(shapes), None, object)
    return np.asarray(shapely.multipolygons(parts[flat], indices=owner[part][flat], out=none))


def is_finite(shapes: Shapes) -> npt.NDArray[np.bool_]:
    """Which shapes have no coordinate that is missing or infinite; True for those without any coordinate."""
    points, owner = shapely.get_coordinates(shapes, return_index=True)
    fine = np.ones(len(shapes), np.bool_)
    fine[owner[~np.isfinite(points).all(axis=1)]] = False
    return fine
