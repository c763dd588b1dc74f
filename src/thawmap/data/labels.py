"""What people digitised, burnt onto a scene's grid: polygons of one vector file, or one raster per scene."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio.features
from odc.geo.geobox import GeoBox

from thawmap.config import LabelSettings
from thawmap.data.io import crs_of, raster_info, read_raster, read_vector
from thawmap.data.sources.base import Scene
from thawmap.errors import DataError, LabelError

_log = logging.getLogger(__name__)

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
        _check_nodata(scene.files["labels"], settings)
        stored = read_raster(scene.files["labels"], geobox, bands=[settings.band], resampling="nearest").values[0]
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


@dataclass(frozen=True, slots=True)
class PolygonLabels:
    """Polygons of one file, each for one scene or for all; outside of the extent is ignored."""

    settings: LabelSettings
    polygons: gpd.GeoDataFrame
    extent: gpd.GeoDataFrame | None

    def burn(self, scene: Scene, geobox: GeoBox) -> npt.NDArray[np.uint8]:
        """Target (y, x), burnt by pixel centre; see `Labels`."""
        looked = 0 if self.extent is None else IGNORE
        target = np.full(tuple(geobox.shape), looked, np.uint8)
        if self.extent is not None:
            _burn(target, self.extent, geobox, 0)
        mine = self._of(scene)
        column = self.settings.target
        if column is None:
            _burn(target, mine, geobox, 1)
            return target
        said = _numbers(mine[column])
        _burn(target, mine[~said.isin([0, 1])], geobox, IGNORE)
        _burn(target, mine[said == 0], geobox, 0)
        _burn(target, mine[said == 1], geobox, 1)
        return target

    def region(self, scene: Scene) -> str | None:
        """The region of the polygons that lie on the scene; None without a region column or such a polygon.

        Raises:
            LabelError: If they name more than one.
        """
        if self.settings.region is None:
            return None
        names = sorted(set(_over(self._of(scene), scene.geobox)[self.settings.region].dropna().astype(str)))
        if len(names) > 1:
            msg = f"scene {scene.id} has polygons of the regions {', '.join(names)}; give it one in 'scenes.table'"
            raise LabelError(msg)
        return names[0] if names else None

    def outlines(self, scene: Scene) -> gpd.GeoDataFrame | None:
        """The scene's objects in its CRS; those elsewhere left out."""
        mine = self._of(scene)
        if self.settings.target is not None:
            mine = mine[_numbers(mine[self.settings.target]) == 1]
        return _over(mine, scene.geobox)

    def check_names(self, scene_ids: Sequence[str]) -> None:
        """Refuse labels that name none of the scenes, and say how many are not named: they count as empty.

        Raises:
            LabelError: If the settings name a column of scenes, and it has none of ``scene_ids``.
        """
        column = self.settings.scene
        if column is None:
            return
        named = sorted(set(self.polygons[column].astype(str)))
        absent = [name for name in scene_ids if name not in named]
        if absent and len(absent) < len(scene_ids):
            _log.warning(
                "%d of %d scenes are named by no polygon and count as empty, such as %s",
                len(absent), len(scene_ids), absent[0],
            )  # fmt: skip
        if set(named).isdisjoint(scene_ids):
            msg = (
                f"{self.settings.path}: column {column!r} names scenes such as {named[0]!r}, and none of the "
                f"{len(scene_ids)} scenes, such as {scene_ids[0]!r}; correct labels.scene, or the scenes' ids"
            )
            raise LabelError(msg)

    def _of(self, scene: Scene) -> gpd.GeoDataFrame:
        column = self.settings.scene
        return self.polygons if column is None else self.polygons[self.polygons[column].astype(str) == scene.id]


def _check_nodata(path: Path, settings: LabelSettings) -> None:
    nodata = raster_info(path).nodata
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
    for key in ("scene", "region", "target"):
        column = getattr(settings, key)
        if column is not None and column not in frame.columns:
            msg = f"{path} has no column {column!r} for labels.{key}; it has {', '.join(frame.columns)}"
            raise LabelError(msg)
    extent = None if settings.extent is None else _read_polygons(settings.extent)
    return PolygonLabels(settings, frame, extent)


def _read_polygons(path: Path, *, layer: str | None = None) -> gpd.GeoDataFrame:
    try:
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
    return frame


def _numbers(column: pd.Series) -> pd.Series:
    """A column of the attribute table as numbers, whatever its type; NaN where it is none."""
    return pd.to_numeric(column, errors="coerce")


def _over(frame: gpd.GeoDataFrame, geobox: GeoBox) -> gpd.GeoDataFrame:
    """The polygons that touch a grid, in its CRS; those too far away for that CRS are not there."""
    frame = frame.to_crs(crs_of(geobox))
    frame = frame[np.isfinite(frame.bounds).all(axis=1)]
    return frame[frame.intersects(geobox.extent.geom)]


def _burn(target: npt.NDArray[np.uint8], frame: gpd.GeoDataFrame, geobox: GeoBox, value: int) -> None:
    """Set the pixels whose centre lies in a polygon, in place."""
    shapes = list(_over(frame, geobox).geometry)
    if shapes:
        burnt = rasterio.features.rasterize(shapes, out_shape=target.shape, transform=geobox.affine, dtype="uint8")
        target[burnt == 1] = value
