"""From a stream of rows to one folder per scene: rasters, polygons, a picture, a STAC item; all or nothing.

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
from thawmap.maps.polygons.vectorise import Found, Vectoriser
from thawmap.maps.qgis import mask_style, outline_style, probability_style
from thawmap.maps.replacing import replace_map, write_item
from thawmap.maps.rows import Rows
from thawmap.maps.stac import assets, stac_item

if TYPE_CHECKING:
    import geopandas as gpd

_STRIP = 512  # rows of a mask that are corrected at a time: those of its blocks


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
    """Write ``folder``/<scene id>/, in place of the map that is there, in one pass over the rows.

    Args:
        job: What the map is to be.
        rows: Its probabilities, from the top.
        folder: Where the scenes' folders are.
        picture: The whole scene on a coarser grid (`thawmap.data.stack.preview`), for the quicklook.

    Raises:
        DataError: If a file cannot be written, or the folder that is there is none of a map as it was made. Whatever
            fails, also in ``rows``: nothing new is left behind.
    """
    place = folder / job.scene.id
    with atomic(place, replacing=partial(replace_map, job=job)) as draft:
        draft.mkdir()
        if job.rasters_only:
            item = stac_item(job, assets(job, _write_further(job, rows, draft), ()), None)
            write_item(draft, item.to_dict(include_self_link=False))
            return WrittenMap(folder=place)
        rasters = _write_rasters(job, rows, draft)
        found = rasters.found
        vectors = [
            file
            for kind in job.outputs.vectors
            for file in _write_vectors(draft / f"{job.file_names['slumps']}.{kind}", found)
        ]
        _write_styles(draft, job.file_names)
        _write_quicklook(draft / QUICKLOOK, job.scene, picture, found.slumps)
        item = stac_item(job, assets(job, rasters.written, vectors), found)
        write_item(draft, item.to_dict(include_self_link=False))
    return WrittenMap(
        folder=place,
        valid_pixels=rasters.valid_pixels,
        slump_pixels=rasters.slump_pixels,
        slumps=len(found.slumps),
        left_out=len(found.left_out),
        slump_area_m2=float(found.slumps["area_m2"].sum()),
    )


@dataclass(slots=True)
class _RasterFiles:
    """The rasters of a map while they are written; each is opened when its first rows come.

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
        """Write rows of stored numbers (y, x)."""
        if raster.name not in self.writers:
            opened = raster_writer(self.folder / raster.file, self.grid, raster.encoding)
            self.writers[raster.name] = self.closing.enter_context(opened)
            self.rasters[raster.name] = raster
        self.writers[raster.name].write(first_row, stored)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mapped:
    """What one pass over the rows gave: rasters on the disk, slumps, and how many pixels.

    Attributes:
        written: The rasters by name.
        found: Slumps and what was left out.
        valid_pixels: Pixels with a probability.
        slump_pixels: Pixels of objects, as in the mask.
    """

    written: Mapping[str, MapRaster]
    found: Found
    valid_pixels: int
    slump_pixels: int


def _write_rasters(job: MapJob, rows: Iterable[Rows], draft: Path) -> _Mapped:
    """Write all rasters in one pass over the rows; return them with the slumps."""
    grid = job.scene.geobox
    mask = mask_raster(job.file_names["mask"])
    vectoriser = Vectoriser(job.scene, job.polygons, bundle_id=job.provenance.bundle)
    opening_m = job.polygons.opening_m
    disc = Disc(opening_m, ground_pixel_m(grid)) if opening_m else Disc()
    valid = positive = 0
    with ExitStack() as closing:
        files = _RasterFiles(draft, grid, closing)
        for part, objects in masks(_written(job, rows, files), job.threshold, disc):
            missing = np.isnan(part.probability)
            files.write(mask, part.first_row, np.where(missing, NODATA, objects).astype(np.uint8))
            vectoriser.add(part, objects)
            valid += int((~missing).sum())
            positive += int(objects.sum())
        found = vectoriser.finish()
        positive += _correct(files.writers["mask"], found, grid.height)
    return _Mapped(written=files.rasters, found=found, valid_pixels=valid, slump_pixels=positive)


def _written(job: MapJob, rows: Iterable[Rows], files: _RasterFiles) -> Iterator[Rows]:
    """Write probability, spread and further rasters; yield the rows as readers will see them.

    The mask and the slumps are cut from these, so that they agree with what is stored.
    """
    storage = job.outputs.probability
    probability, spread = (
        probability_raster(job.file_names["probability"], storage),
        spread_raster("networks", storage),
    )
    for part in rows:
        stored = probability.stored(part.probability)
        files.write(probability, part.first_row, stored)
        if part.spread is not None:
            files.write(spread, part.first_row, spread.stored(part.spread))
        for raster in job.rasters:
            files.write(raster, part.first_row, raster.stored(part.further[raster.name]))
        yield replace(part, probability=probability.values(stored), spread=None, further={})


def _write_further(job: MapJob, rows: Iterable[Rows], draft: Path) -> Mapping[str, MapRaster]:
    """Write nothing but the further rasters; return them by name."""
    with ExitStack() as closing:
        files = _RasterFiles(draft, job.scene.geobox, closing)
        for part in rows:
            for raster in job.rasters:
                files.write(raster, part.first_row, raster.stored(part.further[raster.name]))
    return files.rasters


def _correct(mask: RasterWriter, found: Found, height: int) -> int:
    """Take objects that are none out of the mask, and put filled holes into it; by how many pixels it grows."""
    outlines = np.concatenate([found.erased, found.filled])
    stored = np.repeat([0, 1], [len(found.erased), len(found.filled)])
    tops, bottoms = shapely.bounds(outlines).reshape(-1, 4)[:, [1, 3]].T
    for first in range(0, height, _STRIP):
        here = np.flatnonzero((tops < first + _STRIP) & (bottoms > first))
        if len(here):
            block = mask.read(first, min(_STRIP, height - first))[0]
            down = Affine.translation(0, first)
            rasterize(zip(outlines[here], stored[here], strict=True), out=block, transform=down)
            mask.write(first, block)
    return int(shapely.area(found.filled).sum() - shapely.area(found.erased).sum())


def _write_styles(draft: Path, names: Mapping[str, str]) -> None:
    """A style for QGIS beside each raster, and one for the polygons in all formats."""
    styles = {
        "probability": probability_style(),
        "mask": mask_style(MASK_COLOURS, MASK_LABELS),
        "slumps": outline_style(),
    }
    for name, style in styles.items():
        write_text((draft / names[name]).with_suffix(".qml"), style)


def _write_quicklook(path: Path, scene: Scene, picture: Stack, slumps: "gpd.GeoDataFrame") -> None:
    from thawmap.maps.caption import caption, captioned  # noqa: PLC0415 - only once a scene is mapped
    from thawmap.maps.quicklook import quicklook  # noqa: PLC0415

    write_png(path, captioned(quicklook(picture, slumps), picture.geobox, caption(scene)))


def _write_vectors(path: Path, found: Found) -> list[Path]:
    """Write the slumps; what was left out, if anything, in a GeoPackage as a second layer, else as a file beside."""
    from thawmap.data.vector.io import write_vector  # noqa: PLC0415 - only once a scene is mapped

    slumps, left_out = (
        map(_for_shapefile, (found.slumps, found.left_out)) if path.suffix == ".shp" else (found.slumps, found.left_out)
    )
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
    """The slumps with names of 10 characters, times as text (ISO 8601), yes and no as 1 and 0."""
    frame = slumps.assign(touches_edge=slumps["touches_edge"].astype("int32"))
    for name in ("acquired", "reviewed_at"):
        frame[name] = frame[name].dt.strftime("%Y-%m-%dT%H:%M:%SZ").astype("string")
    return frame.rename(columns=SHAPEFILE_NAMES)
