"""Polygons in a CRS: valid, in one piece across its edge, found by a tree."""

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
_Points = npt.NDArray[np.float64]

LONLAT = "EPSG:4326"
_STRAIGHT_M, _STRAIGHT_DEGREES = 2000.0, 0.02
"""Longest straight lines that are taken for straight in another CRS: off by less than half a metre."""
_LONGEST_M, _LONGEST_DEGREES = 4e7, 1000.0  # boundaries around the Earth; what is longer is damaged
_STEP_DEGREES = 90.0  # between the meridians around which degrees are counted


@dataclass(frozen=True, slots=True)
class ShapeIndex:
    """Valid shapes in one CRS, and a tree that finds them.

    Attributes:
        shapes: Polygons, one for each row of the frame that they are from; empty where the CRS has no such place.
        tree: The shapes by their bounds.
    """

    shapes: Shapes
    tree: shapely.STRtree

    def touching(self, geobox: GeoBox) -> Rows:
        """Return the row numbers of the shapes that touch a grid of their CRS, sorted."""
        rows: Rows = np.sort(self.tree.query(geobox.extent.geom, predicate="intersects"))
        return rows


def reproject(frame: gpd.GeoDataFrame, crs: str, *, meridian: float = 0.0) -> ShapeIndex:
    """Return a `ShapeIndex` of a frame's polygons, repaired, in another CRS.

    Those too far away for the CRS are empty.

    Args:
        frame: The polygons.
        crs: An EPSG code or WKT.
        meridian: Longitude around which a CRS of degrees counts: what lies west of the antimeridian and what lies
            east of it are neighbours on a grid around 180.
    """
    shapes = np.asarray(frame.geometry.values)
    if pyproj.CRS(crs) != frame.crs:
        # A straight line is curved in another projection: its ends alone would cut the corner.
        straight, longest = (
            (_STRAIGHT_DEGREES, _LONGEST_DEGREES) if frame.crs.is_geographic else (_STRAIGHT_M, _LONGEST_M)
        )
        with np.errstate(all="ignore"):  # of points that are damaged, which stay as they are
            shapes, sound = shapes.copy(), shapely.length(shapes) < longest
        shapes[sound] = shapely.segmentize(shapes[sound], straight)
        shapes = np.asarray(gpd.GeoSeries(shapes, crs=frame.crs).to_crs(crs).values)
    if pyproj.CRS(crs).is_geographic:
        shapes = gather_around(shapes, meridian)
    shapes = repair(shapes)
    return ShapeIndex(shapes, shapely.STRtree(shapes))


def meridian_of(crs: str, middle: float) -> float:
    """Return the multiple of 90 degrees nearest to a longitude; 0 for a CRS in metres.

    Around it the longitudes of a grid are counted.

    Args:
        crs: The grid's CRS; in any other than degrees the meridian is 0.
        middle: The longitude of the grid's middle.
    """
    return round(middle / _STEP_DEGREES) * _STEP_DEGREES if pyproj.CRS(crs).is_geographic else 0.0


def to_lonlat(outline: BaseGeometry, crs: str) -> BaseGeometry:
    """Return an outline in EPSG:4326, cut at the antimeridian to -180 .. 180 degrees.

    What lies beyond is moved there.
    """
    unwrapped = _three_turns(reproject(gpd.GeoDataFrame(geometry=[outline], crs=crs), LONLAT).shapes[0])
    return shapely.intersection(unwrapped, shapely.box(-180, -90, 180, 90))


def gather_around(shapes: Shapes, meridian: float) -> Shapes:
    """Return polygons in degrees moved near a meridian, uncut at the antimeridian.

    Each part is in one piece. A part as wide as half the Earth is there three times: on the turn of the meridian and on
    its neighbours.
    """
    west, _, east, _ = shapely.bounds(shapes).T
    gathered = shapes.copy()
    for row in np.flatnonzero((east - west > 180) | (abs((west + east) / 2 - meridian) > 180)):
        pieces = [_in_one_piece(polygon, meridian) for polygon in shapely.get_parts(shapes[row])]
        gathered[row] = shapely.multipolygons(shapely.get_parts(pieces))
    return gathered


def _in_one_piece(polygon: shapely.Polygon, meridian: float) -> BaseGeometry:
    """Return a polygon in degrees near a meridian, without jumps of 360 degrees."""
    points = shapely.get_coordinates(polygon.exterior)
    lon, lat = points.T
    if (lon.min(), lon.max()) == (-180, 180):  # all around the Earth, as drawn on a map
        return _three_turns(polygon)
    lon = np.unwrap(lon, period=360)
    middle = (lon.min() + lon.max()) / 2
    middle += 360 * np.round((meridian - middle) / 360)

    def unwrap(coordinates: _Points) -> _Points:
        turns = np.round((middle - coordinates[:, 0]) / 360)
        return np.column_stack([coordinates[:, 0] + 360 * turns, coordinates[:, 1]])

    if abs(lon[-1] - lon[0]) > 180:  # once around a pole, to which its ground reaches
        pole = np.copysign(90.0, lat.mean())
        ring = np.column_stack([[*lon, lon[-1], lon[0]], [*lat, pole, pole]])
        holes = np.array([shapely.Polygon(hole) for hole in polygon.interiors], object)
        return shapely.difference(_three_turns(shapely.Polygon(ring)), shapely.union_all(repair(holes)))
    piece = shapely.transform(polygon, unwrap)
    return piece if np.ptp(lon) < 180 else _three_turns(piece)


def _three_turns(polygon: shapely.Polygon) -> BaseGeometry:
    """Return the union of a polygon and its copies moved 360 degrees west and east."""
    turns = [translate(polygon, degrees) for degrees in (-360, 0, 360)]
    return shapely.union_all(repair(np.array(turns, object)))


def repair(shapes: Shapes) -> Shapes:
    """Return polygons without crossings and without parts that have no area.

    By `shapely.make_valid`, for each part of a multipolygon by itself.
    Ground on which two parts lie stays; what one boundary encloses twice is outside, as for a rasteriser. Those with
    coordinates that are not finite become empty, the missing stay missing. (GEOS' other method, "structure", keeps
    what is enclosed twice, and loses other ground.)
    """
    repaired = shapes.copy()
    repaired[~is_finite(shapes)] = shapely.Polygon()
    for row in np.flatnonzero(~(shapely.is_valid(repaired) | shapely.is_missing(repaired))):
        polygon = shapely.union_all(polygons_of(shapely.make_valid(shapely.get_parts(repaired[row]))))
        repaired[row] = shapely.Polygon() if shapely.is_empty(polygon) else polygon
    return repaired


def polygons_of(shapes: Shapes) -> Shapes:
    """Return each shape's polygons as one multipolygon, None if it has none."""
    members, owner = shapely.get_parts(shapes, return_index=True)
    polygons, member = shapely.get_parts(members, return_index=True)  # a collection may hold multipolygons
    is_polygon = shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON
    joined = np.full(len(shapes), None, object)
    return np.asarray(shapely.multipolygons(polygons[is_polygon], indices=owner[member][is_polygon], out=joined))


def is_finite(shapes: Shapes) -> npt.NDArray[np.bool_]:
    """Return a bool by shape: True if all its coordinates are finite numbers.

    True for a shape without any coordinate.
    """
    points, owner = shapely.get_coordinates(shapes, return_index=True)
    finite = np.ones(len(shapes), np.bool_)
    finite[owner[~np.isfinite(points).all(axis=1)]] = False
    return finite
