"""Labels burnt onto a grid: polygons of a vector file, or a raster per scene.

Polygons were digitised on one image each (a column names the scene), or hold for a period (columns with its first
and last day), or hold for all scenes.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio.features
import shapely
from odc.geo.geobox import GeoBox

from thawmap.config import LabelSettings
from thawmap.data.labels.attributes import day_of, numbers, period, scene_id, texts
from thawmap.data.labels.footprints import Astray, astray, footprint
from thawmap.data.raster.io import raster_info, read_raster
from thawmap.data.raster.resample import footprint as under_grid
from thawmap.data.sources.base import Scene
from thawmap.data.vector.io import read_vector
from thawmap.errors import DataError, LabelError
from thawmap.geo.crs import crs_of
from thawmap.geo.shapes import Rows, ShapeIndex, Shapes, is_finite, meridian_of, reproject

_log = logging.getLogger(__name__)

_MOST_CRS = 8  # in which polygons are kept at a time

IGNORE = 255
"""Target of a pixel that is neither trained on nor scored."""


class Labels(Protocol):
    """Labels of scenes, as rasters or polygons."""

    def burn(self, scene: Scene, geobox: GeoBox) -> npt.NDArray[np.uint8]:
        """Return a scene's target (y, x) on a grid: 1 = object, 0 = not, 255 = ignore.

        Raises:
            LabelError: If the scene's labels are missing or hold other values than the settings name.
        """
        ...

    def region(self, scene: Scene) -> str | None:
        """Return the name of the scene's region in the labels; None where they give none."""
        ...

    def outlines(self, scene: Scene) -> gpd.GeoDataFrame | None:
        """Return a GeoDataFrame of the objects on a scene, in its CRS; None for rasters."""
        ...


def open_labels(settings: LabelSettings) -> Labels:
    """Return the labels that the settings describe, polygons read into memory.

    Raises:
        LabelError: If the file is missing, empty, without CRS, or lacks a named column.
    """
    if settings.raster is not None:
        return RasterLabels(settings)
    path = settings.path
    assert path is not None
    frame = _read_polygons(path, layer=settings.layer)
    check_columns(frame, settings)
    extent = read_extent(settings)
    if settings.scene is None and settings.start is not None:
        first, last = period(frame, settings)
        _warn_of_absent(path, np.isnat(first) | np.isnat(last), f"have no day in {settings.start!r}")
    return PolygonLabels(settings, frame, extent)


@dataclass(frozen=True, slots=True)
class RasterLabels:
    """Labels of one raster per scene; ground outside of it is ignored."""

    settings: LabelSettings

    def burn(self, scene: Scene, geobox: GeoBox) -> npt.NDArray[np.uint8]:
        """Return a scene's target (y, x) on a grid: 1 = object, 0 = not, 255 = ignore."""
        settings = self.settings
        if "labels" not in scene.files:
            msg = f"scene {scene.id} has no label raster {settings.raster!r}; add it, or leave the scene out"
            raise LabelError(msg)
        _check_raster(scene.files["labels"], scene, settings)
        stored = read_raster(scene.files["labels"], geobox, bands=[settings.band], resampling="nearest")[0]
        ignore = settings.ignore if isinstance(settings.ignore, tuple) else (settings.ignore,)
        target = np.full(stored.shape, IGNORE, np.uint8)
        target[np.isin(stored, settings.negative)] = 0
        target[np.isin(stored, settings.positive)] = 1
        meaningless = (target == IGNORE) & np.isfinite(stored) & ~np.isin(stored, ignore)
        if meaningless.any():
            msg = (
                f"{scene.files['labels']} holds the value {stored[meaningless][0]:g}, which is not in labels.positive "
                f"{settings.positive}, negative {settings.negative} or ignore {ignore}; add it to one of them"
            )
            raise LabelError(msg)
        return target

    def region(self, scene: Scene) -> str | None:  # noqa: ARG002 - rasters name no region
        """Return None: rasters name no region."""
        return None

    def outlines(self, scene: Scene) -> gpd.GeoDataFrame | None:  # noqa: ARG002 - rasters have no outlines
        """Return None: rasters have no outlines of their own."""
        return None


@dataclass(frozen=True)
class PolygonLabels:
    """Labels of one vector file; ground outside of the extent is ignored.

    Each polygon is for one scene, for a period, or for all scenes.
    """

    settings: LabelSettings
    polygons: gpd.GeoDataFrame
    extent: gpd.GeoDataFrame | None

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what pickling needs: settings, polygons and extent, without the caches."""
        return type(self), (self.settings, self.polygons, self.extent)

    def burn(self, scene: Scene, geobox: GeoBox) -> npt.NDArray[np.uint8]:
        """Return a scene's target (y, x) on a grid: 1 = object, 0 = not, 255 = ignore.

        A pixel is a polygon's when its centre lies in it.
        """
        target = np.full(tuple(geobox.shape), 0 if self.extent is None else IGNORE, np.uint8)
        if self.extent is not None:
            extent = self._reprojected("extent", self.extent, geobox)
            _burn(target, extent.shapes[extent.touching(geobox)], geobox, 0)
        rows = self._rows(scene, geobox)
        shapes, values = self._reprojected("polygons", self.polygons, geobox).shapes[rows], self._targets[rows]
        # where polygons overlap, an object is one whatever else is drawn there
        _burn(target, shapes[~np.isin(values, [0, 1])], geobox, IGNORE)
        _burn(target, shapes[values == 0], geobox, 0)
        _burn(target, shapes[values == 1], geobox, 1)
        return target

    def region(self, scene: Scene) -> str | None:
        """Return the one region of the polygons on a scene, or None; refuse several.

        Polygons of any day count; None without a column of regions, or without such a polygon.

        Raises:
            LabelError: If they name more than one.
        """
        if self.settings.region is None:
            return None
        rows = self._rows(scene, scene.geobox, dated=False)
        column = self.polygons[self.settings.region].iloc[rows]
        names = sorted(set(column.dropna().astype(str)))
        if len(names) > 1:
            msg = f"scene {scene.id} has polygons of the regions {', '.join(names)}; give it one in 'scenes.table'"
            raise LabelError(msg)
        return names[0] if names else None

    def outlines(self, scene: Scene) -> gpd.GeoDataFrame | None:
        """Return a GeoDataFrame of the objects that touch a scene, in its CRS.

        It has all columns of the file.
        """
        rows = self._rows(scene, scene.geobox)
        rows = rows[self._targets[rows] == 1]
        shapes = self._reprojected("polygons", self.polygons, scene.geobox).shapes[rows]
        return self.polygons.iloc[rows].set_geometry(gpd.GeoSeries(shapes, crs=crs_of(scene.geobox)).values)

    def astray(self, scenes: Sequence[Scene]) -> Astray | None:
        """Return a finding if the labels lie on none of the scenes, or hardly; else None.

        The message begins with the file of the extent or of the polygons.
        """
        footprints = {scene.id: footprint(scene) for scene in scenes}
        lost = None if self.extent is None else astray(self.extent, footprints)
        if lost is not None:
            return Astray(message=f"labels.extent: {self.settings.extent}: {lost.message}", explained=True)
        named = None
        if self.settings.scene is not None:
            written, ids = self._names
            named = np.where(np.isin(written.astype(str), list(footprints)), written, ids)
        lost = astray(self.polygons, footprints, named)
        return None if lost is None else replace(lost, message=f"{self.settings.path}: {lost.message}")

    def check_names(self, scene_ids: Sequence[str]) -> None:
        """Refuse labels that name none of the scenes, and warn where some do not match.

        A scene that no polygon names counts as empty, polygons of a scene that is not there count nowhere.

        Raises:
            LabelError: If the settings name a column of scenes, and it has none of ``scene_ids``.
        """
        column = self.settings.scene
        if column is None:
            return
        given, named = set(scene_ids), pd.unique(self._names[0])
        id_by_name = {name: name if name in given else scene_id(name) for name in named if name}
        unnamed = [name for name in scene_ids if name not in id_by_name.values()]
        absent = [name for name, scene in id_by_name.items() if scene not in given]
        if len(absent) == len(id_by_name):
            example = f"scenes such as {absent[0]!r}" if absent else "no scene"
            msg = (
                f"{self.settings.path}: column {column!r} names {example}, and none of the "
                f"{len(scene_ids)} scenes, such as {scene_ids[0]!r}; correct labels.scene, or the scenes' ids"
            )
            raise LabelError(msg)
        if unnamed:
            _log.warning(
                "%d of %d scenes are named by no polygon and count as empty, such as %s",
                len(unnamed), len(scene_ids), unnamed[0],
            )  # fmt: skip
        if absent:
            _log.warning(
                "%d of %d scenes that polygons name are not there, such as %s; these polygons are left out",
                len(absent), len(id_by_name), absent[0],
            )  # fmt: skip

    @cached_property
    def _targets(self) -> npt.NDArray[np.float64]:
        """Array of polygons' targets: 1 = object, 0 = no object, anything else = ignore."""
        column = self.settings.target
        if column is None:
            return np.ones(len(self.polygons))
        return numbers(self.polygons[column])

    @cached_property
    def _names(self) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
        """Two arrays: the scene each polygon names, as it is written and as its id."""
        written = texts(self.polygons[self.settings.scene])
        ids = {name: scene_id(name) for name in pd.unique(written)}
        return written, np.array([ids[name] for name in written], object)

    @cached_property
    def _period(self) -> tuple[npt.NDArray[np.datetime64], npt.NDArray[np.datetime64]]:
        """Two arrays: the first and the last day of each polygon."""
        return period(self.polygons, self.settings)

    @cached_property
    def _cache(self) -> dict[tuple[str, str, float], ShapeIndex]:
        """Cache of reprojected shapes by file, CRS and meridian; empty at first."""
        return {}

    def _reprojected(self, file: str, frame: gpd.GeoDataFrame, geobox: GeoBox) -> ShapeIndex:
        """Return a frame's polygons in a grid's CRS as an index of shapes, from a cache."""
        crs = crs_of(geobox)
        key = (file, crs, meridian_of(crs, geobox.extent.geom.centroid.x))
        index = self._cache.get(key)
        if index is None:
            index = reproject(frame, crs, meridian=key[2])
            if len(self._cache) >= _MOST_CRS:  # scenes come zone by zone, so old ones are rarely asked for again
                self._cache.clear()
            self._cache[key] = index
        return index

    def _rows(self, scene: Scene, geobox: GeoBox, *, dated: bool = True) -> Rows:
        """Return row numbers of the polygons for a scene, and its day, that touch a grid.

        Args:
            scene: The scene.
            geobox: The grid, in any CRS.
            dated: Whether polygons of a period count on its days only.
        """
        rows = self._reprojected("polygons", self.polygons, geobox).touching(geobox)
        if self.settings.scene is not None:
            written, ids = (names[rows] for names in self._names)
            rows = rows[(written == scene.id) | (ids == scene.id)]
        elif self.settings.start is not None and dated:
            if scene.acquired is None:
                msg = f"scene {scene.id} has no acquisition time, and labels.start needs one; add it to 'scenes.table'"
                raise LabelError(msg)
            first, last = (column[rows] for column in self._period)
            day = day_of(scene.acquired)
            rows = rows[(first <= day) & (day <= last)]
        return rows


def _check_raster(path: Path, scene: Scene, settings: LabelSettings) -> None:
    """Refuse a label raster apart from its scene, or whose nodata is a label's number."""
    info = raster_info(path)
    under = under_grid(info.geobox, scene.geobox)
    if under is None or under.clip((info.geobox.height, info.geobox.width)) is None:
        msg = f"{path} lies beside its scene {scene.id}, so that nothing is labelled; correct its CRS or its transform"
        raise LabelError(msg)
    nodata = info.nodata
    for meaning in ("positive", "negative"):
        if nodata in getattr(settings, meaning):
            msg = (
                f"{path} calls {nodata:g} missing, labels.{meaning} calls it labelled; take the one out of the file, "
                f"as with gdal_edit -unsetnodata, or the other out of labels.{meaning}"
            )
            raise LabelError(msg)


def read_extent(settings: LabelSettings) -> gpd.GeoDataFrame | None:
    """Read the extent's polygons as a GeoDataFrame; None where settings name no file.

    The extent is where people looked.

    Raises:
        LabelError: If the file is missing, empty, without CRS, or holds something else than polygons.
    """
    if settings.extent is None:
        return None
    try:
        return _read_polygons(settings.extent)
    except LabelError as error:
        msg = f"labels.extent: {error}"
        raise LabelError(msg) from error


def check_columns(frame: gpd.GeoDataFrame, settings: LabelSettings) -> None:
    """Refuse a table of polygons that lacks a column that the settings name.

    Raises:
        LabelError: If they lack one.
    """
    for key in ("scene", "start", "end", "region", "target"):
        column = getattr(settings, key)
        if column is not None and column not in frame.columns:
            msg = f"{settings.path} has no column {column!r} for labels.{key}; it has {', '.join(frame.columns)}"
            raise LabelError(msg)


def _read_polygons(path: Path, *, layer: str | None = None) -> gpd.GeoDataFrame:
    """Read a vector file of polygons; refuse other shapes, and empty infinite ones.

    Raises:
        LabelError: If the file is missing, empty, without CRS, or holds something else than polygons.
    """
    try:
        with np.errstate(invalid="ignore"):  # a coordinate that is no number is named below
            frame = read_vector(path, layer=layer)
    except DataError as error:
        raise LabelError(str(error)) from error
    if frame.empty:
        msg = f"{path} holds no polygon; digitise some, or leave it out of 'labels'"
        raise LabelError(msg)
    is_polygon = frame.geom_type.isin(["Polygon", "MultiPolygon"])
    if not is_polygon.all():
        kind = frame.geom_type[~is_polygon].fillna("feature without geometry").iloc[0]
        msg = f"{path} holds a {kind}; labels are polygons, remove the rest"
        raise LabelError(msg)
    shapes = np.array(frame.geometry.values)
    infinite = ~is_finite(shapes)
    _warn_of_absent(path, infinite, "have coordinates that are no numbers")
    shapes[infinite] = shapely.Polygon()
    return frame.set_geometry(shapes, crs=frame.crs)


def _warn_of_absent(path: Path, wrong: npt.NDArray[np.bool_], fault: str) -> None:
    """Log a warning of the number of wrong polygons in a file, if there are any."""
    if wrong.any():
        _log.warning(
            "%s: %d of %d polygons %s, such as the one in row %d; they count nowhere, see 'thawmap labels check'",
            path, wrong.sum(), len(wrong), fault, np.argmax(wrong) + 1,
        )  # fmt: skip


def _burn(target: npt.NDArray[np.uint8], shapes: Shapes, geobox: GeoBox, value: int) -> None:
    """Write a value into a target, in place, where pixels' centres lie in a shape."""
    if len(shapes):
        burnt = rasterio.features.rasterize(shapes, out_shape=target.shape, transform=geobox.affine, dtype="uint8")
        target[burnt == 1] = value
