"""Rows of probability written as one folder per scene; all or nothing.

Rasters, polygons, a picture, styles and a STAC item. The mask and the polygons are cut from the probability as it is
written (hundredths, when it is stored in a byte), so that the files of a folder agree exactly.

The mask and the polygons are cut from the probability as it is written (hundredths, when it is stored in a byte),
so that the files of a folder agree exactly.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize

from thawmap.data.raster.io import RasterWriter, raster_writer, write_png
from thawmap.data.sources.base import Scene
from thawmap.data.stack import Stack
from thawmap.files.atomic import atomic, write_text
from thawmap.geo.metres import ground_pixel_m
from thawmap.maps.job import MapJob
from thawmap.maps.layout import (
    LEFT_OUT_LAYER,
    MASK_COLOURS,
    MASK_LABELS,
    NODATA,
    QUICKLOOK,
    SHAPEFILE_NAMES,
    MapRaster,
    mask_raster,
    probability_raster,
    spread_raster,
)
from thawmap.maps.polygons.threshold import Disc, masks
from thawmap.maps.polygons.vectorise import SceneObjects, Vectoriser
from thawmap.maps.qgis import mask_style, outline_style, probability_style
from thawmap.maps.replacing import replace_map, write_item
from thawmap.maps.rows import Rows
from thawmap.maps.stac import assets, stac_item

if TYPE_CHECKING:
    import geopandas as gpd

_STRIP_ROWS = 512  # rows of a mask that are corrected at a time: those of its blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenMap:
    """A map that was written.

    Attributes:
        folder: Its files.
        valid_pixels: Pixels with a probability.
        slump_pixels: Pixels of objects, as in the mask.
        slumps: Number of polygons.
        left_out: Number of objects that are left out.
        slump_area_m2: Area of the slumps.
    """

    folder: Path
    valid_pixels: int = 0
    slump_pixels: int = 0
    slumps: int = 0
    left_out: int = 0
    slump_area_m2: float = 0.0


def write_map(job: MapJob, rows: Iterable[Rows], folder: Path, *, picture: Stack) -> WrittenMap:
    """Write a map's folder in one pass over rows, all or nothing; return its counts.

    The folder is ``folder``/<scene id>/. It takes the place of the map of the same scene that is there.

    Args:
        job: What the map is to be.
        rows: Its probabilities, from the top.
        folder: Where the scenes' folders are.
        picture: The whole scene on a coarser grid (`thawmap.data.stack.preview`), for the quicklook.

    Raises:
        DataError: If a file cannot be written, or the folder that is there is none of a map as it was made. Whatever
            fails, also in ``rows``: nothing new is left behind.
    """
    map_folder = folder / job.scene.id
    with atomic(map_folder, replacing=partial(replace_map, job=job)) as draft:
        draft.mkdir()
        if job.rasters_only:
            _write_further(job, rows, draft)
            write_item(draft, stac_item(job, assets(job, {}, ()), None).to_dict(include_self_link=False))
            return WrittenMap(folder=map_folder)
        mapped = _write_rasters(job, rows, draft)
        objects = mapped.objects
        vectors = [
            file
            for kind in job.outputs.vectors
            for file in _write_vectors(draft / f"{job.file_names['slumps']}.{kind}", objects)
        ]
        _write_styles(draft, job.file_names)
        _write_quicklook(draft / QUICKLOOK, job.scene, picture, objects.slumps)
        item = stac_item(job, assets(job, mapped.rasters, vectors), objects)
        write_item(draft, item.to_dict(include_self_link=False))
    return WrittenMap(
        folder=map_folder,
        valid_pixels=mapped.valid_pixels,
        slump_pixels=mapped.slump_pixels,
        slumps=len(objects.slumps),
        left_out=len(objects.left_out),
        slump_area_m2=float(objects.slumps["area_m2"].sum()),
    )


@dataclass(slots=True)
class _RasterFiles:
    """The rasters of a map while they are written.

    Each is opened when its first rows come.

    Attributes:
        folder: Where they are.
        grid: Their grid.
        closing: What closes them.
        rasters: Those that were opened, by name.
        writers: Their writers.
    """

    folder: Path
    grid: GeoBox
    closing: ExitStack
    rasters: dict[str, MapRaster] = field(default_factory=dict)
    writers: dict[str, RasterWriter] = field(default_factory=dict)

    def write(self, raster: MapRaster, first_row: int, stored: npt.NDArray[Any]) -> None:
        """Write rows of stored numbers (y, x) to a raster, opening its file if need be."""
        if raster.name not in self.writers:
            opened = raster_writer(self.folder / raster.file, self.grid, raster.encoding)
            self.writers[raster.name] = self.closing.enter_context(opened)
            self.rasters[raster.name] = raster
        self.writers[raster.name].write(first_row, stored)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mapped:
    """The rasters, objects and numbers of pixels that one pass over the rows gave.

    Attributes:
        rasters: The rasters by name.
        objects: Slumps and what was left out.
        valid_pixels: Pixels with a probability.
        slump_pixels: Pixels of objects, as in the mask.
    """

    rasters: Mapping[str, MapRaster]
    objects: SceneObjects
    valid_pixels: int
    slump_pixels: int


def _write_rasters(job: MapJob, rows: Iterable[Rows], draft: Path) -> _Mapped:
    """Write a map's rasters in one pass over rows; return them, objects and counts."""
    grid = job.scene.geobox
    mask = mask_raster(job.file_names["mask"])
    vectoriser = Vectoriser(job.scene, job.polygons, bundle_id=job.provenance.bundle, least_m2=job.least_m2)
    opening_m = job.polygons.opening_m
    disc = Disc(opening_m, ground_pixel_m(grid)) if opening_m else Disc()
    valid = positive = 0
    with ExitStack() as closing:
        files = _RasterFiles(draft, grid, closing)
        for written, is_object in masks(_written(job, rows, files), job.threshold, disc):
            missing = np.isnan(written.probability)
            files.write(mask, written.first_row, np.where(missing, NODATA, is_object).astype(np.uint8))
            vectoriser.add(written, is_object)
            valid += int((~missing).sum())
            positive += int(is_object.sum())
        objects = vectoriser.finish()
        # which objects are left out is known once they are whole, long after their pixels were written
        positive += _correct(files.writers["mask"], objects, grid.height)
    return _Mapped(rasters=files.rasters, objects=objects, valid_pixels=valid, slump_pixels=positive)


def _written(job: MapJob, rows: Iterable[Rows], files: _RasterFiles) -> Iterator[Rows]:
    """Write probability, spread and further rasters; yield probability as stored.

    The mask and the slumps are cut from these, so that they agree with what is stored.
    """
    storage = job.outputs.probability
    probability = probability_raster(job.file_names["probability"], storage)
    spread = spread_raster("networks", storage)
    for strip in rows:
        stored = probability.stored(strip.probability)
        files.write(probability, strip.first_row, stored)
        if strip.spread is not None:
            files.write(spread, strip.first_row, spread.stored(strip.spread))
        for raster in job.rasters:
            files.write(raster, strip.first_row, raster.stored(strip.further[raster.name]))
        yield replace(strip, probability=probability.values(stored), spread=None, further={})


def _write_further(job: MapJob, rows: Iterable[Rows], draft: Path) -> None:
    """Write a job's further rasters from rows; no probability, no mask, no slumps."""
    with ExitStack() as closing:
        files = _RasterFiles(draft, job.scene.geobox, closing)
        for strip in rows:
            for raster in job.rasters:
                files.write(raster, strip.first_row, raster.stored(strip.further[raster.name]))


def _correct(mask: RasterWriter, objects: SceneObjects, height: int) -> int:
    """Erase left-out objects and fill holes in a mask's file; return pixels gained.

    Returns:
        The number of pixels by which the mask grows, negative where it shrinks.
    """
    outlines = np.concatenate([objects.erased, objects.filled])
    stored = np.repeat([0, 1], [len(objects.erased), len(objects.filled)])
    tops, bottoms = shapely.bounds(outlines).reshape(-1, 4)[:, [1, 3]].T
    for first in range(0, height, _STRIP_ROWS):
        crossing = np.flatnonzero((tops < first + _STRIP_ROWS) & (bottoms > first))
        if len(crossing):
            strip = mask.read(first, min(_STRIP_ROWS, height - first))[0]
            down = Affine.translation(0, first)
            rasterize(zip(outlines[crossing], stored[crossing], strict=True), out=strip, transform=down)
            mask.write(first, strip)
    return int(shapely.area(objects.filled).sum() - shapely.area(objects.erased).sum())


def _write_styles(draft: Path, names: Mapping[str, str]) -> None:
    """Write QGIS styles (.qml) of a map's probability, mask and polygons."""
    styles = {
        "probability": probability_style(),
        "mask": mask_style(MASK_COLOURS, MASK_LABELS),
        "slumps": outline_style(),
    }
    for name, style in styles.items():
        write_text((draft / names[name]).with_suffix(".qml"), style)


def _write_quicklook(path: Path, scene: Scene, picture: Stack, slumps: "gpd.GeoDataFrame") -> None:
    """Write a PNG of a scene's picture with its slumps' outlines and a caption."""
    from thawmap.maps.caption import caption, captioned  # noqa: PLC0415 - only once a scene is mapped
    from thawmap.maps.quicklook import quicklook  # noqa: PLC0415

    write_png(path, captioned(quicklook(picture, slumps), picture.geobox, caption(scene)))


def _write_vectors(path: Path, objects: SceneObjects) -> list[Path]:
    """Write slumps and left-out objects as a path's suffix says; return the files.

    The file of slumps comes first. Left-out objects are a second layer of a GeoPackage, else a file beside; nothing, if
    there is none.
    """
    from thawmap.data.vector.io import write_vector  # noqa: PLC0415 - only once a scene is mapped

    slumps, left_out = objects.slumps, objects.left_out
    if path.suffix == ".shp":
        slumps, left_out = _for_shapefile(slumps), _for_shapefile(left_out)
    write_vector(path, slumps)
    if left_out.empty:
        return [path]
    if path.suffix == ".gpkg":
        write_vector(path, left_out, layer=LEFT_OUT_LAYER, append=True)
        return [path]
    beside = path.with_stem(f"{path.stem}_{LEFT_OUT_LAYER}")
    write_vector(beside, left_out)
    return [path, beside]


def _for_shapefile(slumps: "gpd.GeoDataFrame") -> "gpd.GeoDataFrame":
    """Return slumps with short column names, times as text and flags as 0 or 1.

    Names of 10 characters, times as text (ISO 8601), yes and no as 1 and 0.
    """
    frame = slumps.assign(touches_edge=slumps["touches_edge"].astype("int32"))
    for name in ("acquired", "reviewed_at"):
        frame[name] = frame[name].dt.strftime("%Y-%m-%dT%H:%M:%SZ").astype("string")
    return frame.rename(columns=SHAPEFILE_NAMES)
