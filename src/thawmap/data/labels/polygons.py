"""What people digitised, burnt onto a scene's grid: polygons of one vector file, or one raster per scene.

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

_ZONES = 8  # placements that are kept

IGNORE = 255
"""Target of a pixel that is neither trained on nor scored."""


class Labels(Protocol):
    """What people said of each pixel."""

    def burn(self, scene: Scene, geobox: GeoBox) -> npt.NDArray[np.uint8]:
        """Target (y, x) on any grid: 1 = object, 0 = not, 255 = ignore.

        Raises:
            LabelError: If the scene's labels are missing or hold other values than the settings name.
        """
        ...

    def region(self, scene: Scene) -> str | None:
        """The region that the labels give the scene; None where they say nothing."""
        ...

    def outlines(self, scene: Scene) -> gpd.GeoDataFrame | None:
        """The objects' polygons in the scene's CRS; None where labels are rasters."""
        ...


def open_labels(settings: LabelSettings) -> Labels:
    """The labels that the settings describe.

    Raises:
        LabelError: If the file is missing, empty, without CRS, or lacks a named column.
    """
    if settings.raster is not None:
        return RasterLabels(settings)
    return _open_polygons(settings)


@dataclass(frozen=True, slots=True)
class RasterLabels:
    """One raster per scene; outside of the raster is ignored."""

    settings: LabelSettings

    def burn(self, scene: Scene, geobox: GeoBox) -> npt.NDArray[np.uint8]:
        """Target (y, x); see `Labels`."""
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
        strange = (target == IGNORE) & np.isfinite(stored) & ~np.isin(stored, ignore)
        if strange.any():
            msg = (
                f"{scene.files['labels']} holds the value {stored[strange][0]:g}, which is not in labels.positive "
                f"{settings.positive}, negative {settings.negative} or ignore {ignore}; add it to one of them"
            )
            raise LabelError(msg)
        return target

    def region(self, scene: Scene) -> str | None:  # noqa: ARG002 - rasters name no region
        """None: rasters name no region."""
        return None

    def outlines(self, scene: Scene) -> gpd.GeoDataFrame | None:  # noqa: ARG002 - rasters have no outlines
        """None: rasters have no outlines of their own."""
        return None


@dataclass(frozen=True)
class PolygonLabels:
    """Polygons of one file, each for one scene, for a period, or for all; outside of the extent is ignored."""

    settings: LabelSettings
    polygons: gpd.GeoDataFrame
    extent: gpd.GeoDataFrame | None

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets what was digitised, not what was made of it here."""
        return type(self), (self.settings, self.polygons, self.extent)

    def burn(self, scene: Scene, geobox: GeoBox) -> npt.NDArray[np.uint8]:
        """Target (y, x), burnt by pixel centre; see `Labels`."""
        looked = 0 if self.extent is None else IGNORE
        target = np.full(tuple(geobox.shape), looked, np.uint8)
        if self.extent is not None:
            extent = self._placed("extent", self.extent, geobox)
            _burn(target, extent.shapes[extent.touching(geobox)], geobox, 0)
        rows = self._over(scene, geobox)
        shapes = self._placed("polygons", self.polygons, geobox).shapes[rows]
        said = self._targets[rows]
        _burn(target, shapes[~np.isin(said, [0, 1])], geobox, IGNORE)
        _burn(target, shapes[said == 0], geobox, 0)
        _burn(target, shapes[said == 1], geobox, 1)
        return target

    def region(self, scene: Scene) -> str | None:
        """The region of the polygons that lie on the scene; None without a region column or such a polygon.

        Raises:
            LabelError: If they name more than one.
        """
        if self.settings.region is None:
            return None
        rows = self._of(scene, self._there(scene.geobox), dated=False)
        column = self.polygons[self.settings.region].iloc[rows]
        names = sorted(set(column.dropna().astype(str)))
        if len(names) > 1:
            msg = f"scene {scene.id} has polygons of the regions {', '.join(names)}; give it one in 'scenes.table'"
            raise LabelError(msg)
        return names[0] if names else None

    def outlines(self, scene: Scene) -> gpd.GeoDataFrame | None:
        """The scene's objects in its CRS; those elsewhere left out."""
        rows = self._over(scene, scene.geobox)
        rows = rows[self._targets[rows] == 1]
        shapes = self._placed("polygons", self.polygons, scene.geobox).shapes[rows]
        return self.polygons.iloc[rows].set_geometry(gpd.GeoSeries(shapes, crs=crs_of(scene.geobox)).values)

    def astray(self, scenes: Sequence[Scene]) -> Astray | None:
        """What is wrong where the extent or the polygons lie on none of the scenes; None where they do."""
        there = {scene.id: footprint(scene) for scene in scenes}
        lost = None if self.extent is None else astray(self.extent, there)
        if lost is not None:
            return Astray(said=f"labels.extent: {self.settings.extent}: {lost.said}", explained=True)
        named = None
        if self.settings.scene is not None:
            written, ids = self._names
            named = np.where(np.isin(written.astype(str), list(there)), written, ids)
        lost = astray(self.polygons, there, named)
        return None if lost is None else replace(lost, said=f"{self.settings.path}: {lost.said}")

    def check_names(self, scene_ids: Sequence[str]) -> None:
        """Refuse labels that name none of the scenes; say how many scenes they do not name, and the other way round.

        A scene without polygons counts as empty, polygons of a scene that is not there count nowhere.

        Raises:
            LabelError: If the settings name a column of scenes, and it has none of ``scene_ids``.
        """
        column = self.settings.scene
        if column is None:
            return
        there, named = set(scene_ids), pd.unique(self._names[0])
        known = {name: name if name in there else scene_id(name) for name in named if name}
        absent = [name for name in scene_ids if name not in known.values()]
        strange = [name for name, scene in known.items() if scene not in there]
        if len(strange) == len(known):
            example = f"scenes such as {strange[0]!r}" if strange else "no scene"
            msg = (
                f"{self.settings.path}: column {column!r} names {example}, and none of the "
                f"{len(scene_ids)} scenes, such as {scene_ids[0]!r}; correct labels.scene, or the scenes' ids"
            )
            raise LabelError(msg)
        if absent:
            _log.warning(
                "%d of %d scenes are named by no polygon and count as empty, such as %s",
                len(absent), len(scene_ids), absent[0],
            )  # fmt: skip
        if strange:
            _log.warning(
                "%d of %d scenes that polygons name are not there, such as %s; these polygons are left out",
                len(strange), len(known), strange[0],
            )  # fmt: skip

    @cached_property
    def _targets(self) -> npt.NDArray[np.float64]:
        """What each polygon says: 1 = object, 0 = no object, anything else = ignore."""
        column = self.settings.target
        if column is None:
            return np.ones(len(self.polygons))
        return numbers(self.polygons[column])

    @cached_property
    def _names(self) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
        """The scene that each polygon names, as it stands and as its id."""
        named = texts(self.polygons[self.settings.scene])
        ids = {name: scene_id(name) for name in pd.unique(named)}
        return named, np.array([ids[name] for name in named], object)

    @cached_property
    def _period(self) -> tuple[npt.NDArray[np.datetime64], npt.NDArray[np.datetime64]]:
        """The first and last day of each polygon."""
        return period(self.polygons, self.settings)

    @cached_property
    def _places(self) -> dict[tuple[str, str, float], ShapeIndex]:
        return {}

    def _placed(self, what: str, frame: gpd.GeoDataFrame, geobox: GeoBox) -> ShapeIndex:
        """Polygons in a grid's CRS, made once; a few of these are kept, as scenes come zone by zone."""
        crs = crs_of(geobox)
        key = (what, crs, meridian_of(crs, geobox.extent.geom.centroid.x))
        placed = self._places.get(key)
        if placed is None:
            placed = reproject(frame, crs, meridian=key[2])
            if len(self._places) >= _ZONES:
                self._places.clear()
            self._places[key] = placed
        return placed

    def _over(self, scene: Scene, geobox: GeoBox) -> Rows:
        """Rows of the scene's polygons that touch a grid."""
        return self._of(scene, self._there(geobox))

    def _there(self, geobox: GeoBox) -> Rows:
        return self._placed("polygons", self.polygons, geobox).touching(geobox)

    def _of(self, scene: Scene, rows: Rows, *, dated: bool = True) -> Rows:
        """Those of the rows that are a scene's; a region is asked for whatever the day."""
        if self.settings.scene is not None:
            written, ids = (names[rows] for names in self._names)
            mine = (written == scene.id) | (ids == scene.id)
        elif self.settings.start is not None and dated:
            first, last = (column[rows] for column in self._period)
            day = _day(scene)
            mine = (first <= day) & (day <= last)
        else:
            mine = np.ones(len(rows), np.bool_)
        found: Rows = rows[mine]
        return found


def _day(scene: Scene) -> np.datetime64:
    if scene.acquired is None:
        msg = f"scene {scene.id} has no acquisition time, and labels.start needs one; add it to 'scenes.table'"
        raise LabelError(msg)
    return day_of(scene.acquired)


def _check_raster(path: Path, scene: Scene, settings: LabelSettings) -> None:
    """Refuse a raster that lies beside its scene, or calls one number both missing and labelled."""
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


def _open_polygons(settings: LabelSettings) -> PolygonLabels:
    path = settings.path
    assert path is not None
    frame = _read_polygons(path, layer=settings.layer)
    check_columns(frame, settings)
    extent = read_extent(settings)
    if settings.scene is None and settings.start is not None:
        first, last = period(frame, settings)
        dayless = np.isnat(first) | np.isnat(last)
        _warn(path, dayless, f"have no day in {settings.start!r}")
    return PolygonLabels(settings, frame, extent)


def read_extent(settings: LabelSettings) -> gpd.GeoDataFrame | None:
    """Where people looked; None where the settings name no file of it.

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
    """See that the columns that the settings name are there.

    Raises:
        LabelError: If one is not.
    """
    for key in ("scene", "start", "end", "region", "target"):
        column = getattr(settings, key)
        if column is not None and column not in frame.columns:
            msg = f"{settings.path} has no column {column!r} for labels.{key}; it has {', '.join(frame.columns)}"
            raise LabelError(msg)


def _read_polygons(path: Path, *, layer: str | None = None) -> gpd.GeoDataFrame:
    try:
        with np.errstate(invalid="ignore"):  # a coordinate that is no number is named below
            frame = read_vector(path, layer=layer)
    except DataError as error:
        raise LabelError(str(error)) from error
    if frame.empty:
        msg = f"{path} holds no polygon; digitise some, or leave it out of 'labels'"
        raise LabelError(msg)
    flat = frame.geom_type.isin(["Polygon", "MultiPolygon"])
    if not flat.all():
        kind = frame.geom_type[~flat].fillna("feature without geometry").iloc[0]
        msg = f"{path} holds a {kind}; labels are polygons, remove the rest"
        raise LabelError(msg)
    shapes = np.array(frame.geometry.values)
    endless = ~is_finite(shapes)
    _warn(path, endless, "have coordinates that are no numbers")
    shapes[endless] = shapely.Polygon()
    return frame.set_geometry(shapes, crs=frame.crs)


def _warn(path: Path, wrong: npt.NDArray[np.bool_], what: str) -> None:
    """Say once which polygons are left out."""
    if wrong.any():
        _log.warning(
            "%s: %d of %d polygons %s, such as the one in row %d; they count nowhere, see 'thawmap labels check'",
            path, wrong.sum(), len(wrong), what, np.argmax(wrong) + 1,
        )  # fmt: skip


def _burn(target: npt.NDArray[np.uint8], shapes: Shapes, geobox: GeoBox, value: int) -> None:
    """Set the pixels whose centre lies in a shape, in place."""
    if len(shapes):
        burnt = rasterio.features.rasterize(shapes, out_shape=target.shape, transform=geobox.affine, dtype="uint8")
        target[burnt == 1] = value
