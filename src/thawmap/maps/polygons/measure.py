"""From columns and rows to the ground: where outlines lie, and how large they are."""

import numpy as np
import numpy.typing as npt
import shapely
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from thawmap.geo.crs import EQUAL_AREA, crs_of

MEASURED_PX = 64
"""Longest straight line, in pixels, that is taken for straight in another projection."""

_Floats = npt.NDArray[np.float64]
_Objects = npt.NDArray[np.object_]


def on_ground(outlines: _Objects, geobox: GeoBox) -> _Objects:
    """Return outlines moved from columns and rows to the CRS of their grid."""
    grid = geobox.transform

    def to_crs(points: _Floats) -> _Floats:
        x, y = grid * (points[:, 0], points[:, 1])
        return np.column_stack([x, y])

    moved: _Objects = shapely.transform(outlines, to_crs)
    return moved


def measured(outlines: _Objects, geobox: GeoBox) -> tuple[_Floats, _Floats]:
    """Return areas in m2 and perimeters in m of outlines given in columns and rows.

    Both (n,), float64, in `thawmap.geo.crs.EQUAL_AREA`.
    """
    if not len(outlines):
        return np.empty(0), np.empty(0)
    _, points, (ends, polygons) = shapely.to_ragged_array(outlines)
    points, rings = _fine(points, ends)
    project = Transformer.from_crs(crs_of(geobox), EQUAL_AREA, always_xy=True)
    x, y = project.transform(*(geobox.transform * tuple(points.T)))
    first = np.repeat(rings[:-1], np.diff(rings))
    x, y = x - x[first], y - y[first]  # small numbers, whose products lose nothing
    length = np.append(np.hypot(np.diff(x), np.diff(y)), 0.0)
    twice = np.append(x[:-1] * y[1:] - x[1:] * y[:-1], 0.0)
    length[rings[1:] - 1] = twice[rings[1:] - 1] = 0.0  # from the end of a ring to the next one
    area = np.abs(np.add.reduceat(twice, rings[:-1])) / 2
    is_hole = np.ones(len(area), np.bool_)
    is_hole[polygons[:-1]] = False
    area = np.add.reduceat(np.where(is_hole, -area, area), polygons[:-1])
    return area, np.add.reduceat(np.add.reduceat(length, rings[:-1]), polygons[:-1])


def _fine(points: _Floats, rings: npt.NDArray[np.integer]) -> tuple[_Floats, npt.NDArray[np.int64]]:
    """Add points to rings on lines over 64 pixels; return all, and where rings begin.

    A line that is straight on the grid is none in another projection.
    """
    step = np.diff(points, axis=0, append=points[-1:])
    step[rings[1:] - 1] = 0
    count = np.maximum(np.ceil(np.hypot(*step.T) / MEASURED_PX), 1).astype(np.int64)
    begin = np.concatenate([[0], np.cumsum(count)])
    share = (np.arange(begin[-1]) - np.repeat(begin[:-1], count)) / np.repeat(count, count)
    return np.repeat(points, count, axis=0) + share[:, None] * np.repeat(step, count, axis=0), begin[rings]
