"""From columns and rows to the ground: where outlines lie, how large they are, how large a pixel is."""

import numpy as np
import numpy.typing as npt
import shapely
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer

from thawmap.data.inventory import EQUAL_AREA
from thawmap.data.io import crs_of

MEASURED_PX = 64
"""Longest straight line, in pixels, that is taken for straight in another projection."""

_Floats = npt.NDArray[np.float64]
_Objects = npt.NDArray[np.object_]


def on_ground(outlines: _Objects, geobox: GeoBox) -> _Objects:
    """From columns and rows to the grid's CRS."""
    grid = geobox.transform

    def place(points: _Floats) -> _Floats:
        x, y = grid * (points[:, 0], points[:, 1])
        return np.column_stack([x, y])

    placed: _Objects = shapely.transform(outlines, place)
    return placed


def measured(outlines: _Objects, geobox: GeoBox) -> tuple[_Floats, _Floats]:
    """Area in m2 and perimeter in m, in `thawmap.data.inventory.EQUAL_AREA`; outlines are in columns and rows."""
    project = Transformer.from_crs(crs_of(geobox), EQUAL_AREA, always_xy=True)
    left, top, right, bottom = shapely.bounds(outlines).reshape(-1, 4).T
    large = np.maximum(right - left, bottom - top) > MEASURED_PX
    fine = outlines.copy()
    fine[large] = shapely.segmentize(outlines[large], MEASURED_PX)
    fine = on_ground(fine, geobox)
    equal = shapely.transform(fine, lambda points: np.column_stack(project.transform(*points.T)))
    return shapely.area(equal), shapely.length(equal)


def pixel_m(geobox: GeoBox) -> tuple[float, float]:
    """Height and width in metres, on the ellipsoid, of the pixel in the middle of the grid."""
    row, col = (side / 2 for side in geobox.shape)
    x, y = geobox.transform * (np.array([col, col, col + 1]), np.array([row, row + 1, row]))
    degrees = Transformer.from_crs(crs_of(geobox), "EPSG:4326", always_xy=True)
    lon, lat = degrees.transform(x, y)
    _, _, lengths = Geod(ellps="WGS84").inv(lon[[0, 0]], lat[[0, 0]], lon[1:], lat[1:])
    return float(lengths[0]), float(lengths[1])
