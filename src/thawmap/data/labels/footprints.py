"""Footprints of scenes, and polygons that lie on none of them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from rasterio.features import shapes as outlines
from shapely.geometry.base import BaseGeometry

from thawmap.data.labels.attributes import Texts
from thawmap.data.sources.base import Scene
from thawmap.geo.crs import EQUAL_AREA, crs_name, crs_of
from thawmap.geo.shapes import LONLAT, is_finite, meridian_of, reproject
from thawmap.text import counted

Bools = npt.NDArray[np.bool_]
_Points = npt.NDArray[np.float64]

_FEW = 0.1
"""Share of polygons on scenes below which something is wrong, where there is an explanation."""
_MOST_CRS = 8  # of the scenes, that are tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The ground that a scene shows, and the time at which it does.

    Attributes:
        outline: The ground that it shows, in ``crs``.
        crs: EPSG code or WKT.
        pixel_m: Side of a pixel.
        acquired: UTC time of the image; None where unknown.
    """

    outline: BaseGeometry
    crs: str
    pixel_m: float
    acquired: datetime | None = None


def footprint(scene: Scene, valid: Bools | None = None) -> Footprint:
    """Return a scene's footprint: its grid's outline, or that of its valid pixels.

    Args:
        scene: The scene.
        valid: Where it has pixels (y, x), on its grid or on a coarser one of the same extent; the outline reaches
            beyond them by a pixel of that.
    """
    geobox, crs = scene.geobox, crs_of(scene.geobox)
    extent = geobox.extent.geom
    outline = extent
    if valid is not None and not valid.all():
        coarse = geobox.zoom_to(valid.shape).affine
        polygons = outlines(valid.astype(np.uint8), mask=valid, transform=coarse)
        ground = shapely.union_all([shapely.geometry.shape(polygon) for polygon, _ in polygons])
        pixel = max(np.hypot(coarse.a, coarse.d), np.hypot(coarse.b, coarse.e))  # the longer side, rotated or not
        outline = shapely.intersection(ground.buffer(pixel), extent)
    area_m2 = gpd.GeoSeries([extent], crs=crs).to_crs(EQUAL_AREA).area.iloc[0]
    pixel_m = float(np.sqrt(area_m2 / (geobox.height * geobox.width)))
    return Footprint(outline=outline, crs=crs, pixel_m=pixel_m, acquired=scene.acquired)


@dataclass(frozen=True, slots=True, kw_only=True)
class Astray:
    """The finding that polygons lie on no scene, or hardly any of them do.

    Attributes:
        message: What is wrong with them, a clause.
        explained: Whether the message says what would put them there.
    """

    message: str
    explained: bool


def astray(frame: gpd.GeoDataFrame, scenes: Mapping[str, Footprint], named: Texts | None = None) -> Astray | None:
    """Return a finding if polygons lie on no scene, or hardly any do; else None.

    That hardly any do is a finding only with an explanation. Tried for it are axes that are swapped, the scenes' CRS
    and degrees in place of the file's own, and longitudes of the other sign.

    Args:
        frame: The polygons.
        scenes: The scenes, by id.
        named: The scene that each polygon is of; unset: every polygon may lie on any.
    """
    shapes = np.asarray(frame.geometry.values)
    drawn = is_finite(shapes) & ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    if named is not None:
        drawn &= np.isin(named.astype(str), list(scenes))
    if frame.crs is None or not scenes or not drawn.any():
        return None
    frame, named = frame[drawn], None if named is None else named[drawn]
    points = shapely.bounds(np.asarray(frame.geometry.values)).reshape(-1, 2, 2).mean(axis=1)
    # quick, and enough for labels that are in order: middles of boxes, before whole polygons
    if _in_boxes(points, frame.crs, scenes, named).mean() >= _FEW:
        return None
    number = int(_touching(frame, scenes, named).sum())
    if number >= _FEW * len(frame):
        return None
    reached = {
        words: int(_in_boxes(moved, crs, scenes, named).sum())
        for words, moved, crs in _corrections(points, frame.crs, scenes)
    }
    best = max(reached, key=lambda words: reached[words])
    explained = reached[best] > max(10 * number, _FEW * len(frame))
    if number and not explained:
        return None
    aim = "its scene" if named is not None else f"any of {counted(len(scenes), 'scene')}"
    polygons = counted(len(frame), "polygon")
    few = f"only {number} of {polygons} lie" if number else f"none of {polygons} lies"
    would = f", and {reached[best]} would {best}" if explained else ""
    return Astray(message=f"{few} on {aim}{would}", explained=explained)


def _corrections(
    points: _Points, own: pyproj.CRS, scenes: Mapping[str, Footprint]
) -> Iterator[tuple[str, _Points, pyproj.CRS]]:
    """Yield possible corrections: words, the points (n, 2) corrected, and their CRS."""
    swapped = points[:, ::-1]
    yield "with x and y swapped", swapped, own
    if own.is_geographic:
        yield "with longitudes of the other sign", points * [-1, 1], own
    for crs in list(dict.fromkeys([LONLAT, *(scene.crs for scene in scenes.values())]))[: _MOST_CRS + 1]:
        if pyproj.CRS(crs) != own:
            words = f"in {crs_name(crs)} in place of {crs_name(own.to_wkt())}"
            yield words, points, pyproj.CRS(crs)
            yield f"{words} with x and y swapped", swapped, pyproj.CRS(crs)


def _zones(scenes: Mapping[str, Footprint]) -> Iterable[tuple[str, float, list[str]]]:
    """Return scenes' ids grouped by CRS and meridian, as (crs, meridian, ids).

    Around the meridian a CRS of degrees counts.
    """
    zones: dict[tuple[str, float], list[str]] = {}
    for name, scene in scenes.items():
        zones.setdefault((scene.crs, meridian_of(scene.crs, scene.outline.centroid.x)), []).append(name)
    return [(crs, meridian, names) for (crs, meridian), names in zones.items()]


def _in_boxes(points: _Points, crs: pyproj.CRS, scenes: Mapping[str, Footprint], named: Texts | None) -> Bools:
    """Return a bool by point: True if inside the bounding box of its scene, or of any.

    Any counts where ``named``, the scene of each point, is None.
    """
    reached = np.zeros(len(points), np.bool_)
    for target, meridian, names in _zones(scenes):
        x, y = pyproj.Transformer.from_crs(crs, target, always_xy=True).transform(*points.T)
        if pyproj.CRS(target).is_geographic:  # -181 and 179 degrees are the same: take what is near the scenes
            x = x + 360 * np.round((meridian - np.where(np.isfinite(x), x, 0)) / 360)
        for name in names:
            west, south, east, north = scenes[name].outline.bounds
            reached |= (west <= x) & (x <= east) & (south <= y) & (y <= north) & (named is None or named == name)
    return reached


def _touching(frame: gpd.GeoDataFrame, scenes: Mapping[str, Footprint], named: Texts | None) -> Bools:
    """Return a bool by polygon: True if any of it lies in its scene, or in any scene.

    Any counts where ``named``, the scene of each polygon, is None.
    """
    reached = np.zeros(len(frame), np.bool_)
    for crs, meridian, names in _zones(scenes):
        tree = reproject(frame, crs, meridian=meridian).tree
        for name in names:
            rows = tree.query(scenes[name].outline, predicate="intersects")
            reached[rows if named is None else rows[named[rows] == name]] = True
    return reached
