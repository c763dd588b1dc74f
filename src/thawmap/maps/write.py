"""From a stream of rows to one folder per scene: rasters, polygons, a picture, a STAC item; all or nothing.

The mask and the polygons are cut from the probability as it is written (hundredths, when it is stored in a byte),
so that the files of a folder agree exactly.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize

from thawmap.config import OutputSettings, PolygonSettings
from thawmap.data.raster.io import Encoding, RasterWriter, raster_writer, write_png
from thawmap.data.sources.base import Scene
from thawmap.data.stack import Stack
from thawmap.errors import DataError
from thawmap.files.atomic import atomic, write_text
from thawmap.geo.metres import ground_pixel_m
from thawmap.maps.item import MapItem
from thawmap.maps.job import Provenance
from thawmap.maps.layout import (
    FILE_NAMES,
    LEFT_OUT_LAYER,
    MASK_COLOURS,
    MASK_LABELS,
    NODATA,
    QUICKLOOK,
    SHAPEFILE_NAMES,
)
from thawmap.maps.polygons.threshold import Disc, masks
from thawmap.maps.polygons.vectorise import Found, Vectoriser
from thawmap.maps.qgis import mask_style, outline_style, probability_style
from thawmap.maps.replacing import replace_map, write_item
from thawmap.maps.rows import Rows
from thawmap.maps.stac import assets, stac_item

if TYPE_CHECKING:
    import geopandas as gpd

_PROBABILITY = {
    "uint8": Encoding(dtype="uint8", nodata=NODATA, scale=0.01, descriptions=("probability",)),
    "float32": Encoding(dtype="float32", nodata=float("nan"), descriptions=("probability",)),
}
_SPREAD = {name: replace(encoding, descriptions=("spread",)) for name, encoding in _PROBABILITY.items()}
_MASK = Encoding(dtype="uint8", nodata=NODATA, descriptions=("slump",), colours=MASK_COLOURS, overviews="nearest")
_HUNDREDTHS = np.where(np.arange(256) == NODATA, np.nan, np.arange(256) / 100)  # what each stored byte is
_STRIP = 512  # rows of a mask that are corrected at a time: those of its blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What became of one scene.

    Attributes:
        folder: Its files.
        valid_pixels: Pixels with a probability.
        slump_pixels: Pixels of objects, as in the mask.
        slumps: Number of polygons.
        left_out: Number of objects that are left out.
        slump_area_m2: Their area.
    """

    folder: Path
    valid_pixels: int
    slump_pixels: int
    slumps: int
    left_out: int
    slump_area_m2: float


def export(
    scene: Scene,
    rows: Iterable[Rows],
    folder: Path,
    *,
    picture: Stack,
    polygons: PolygonSettings,
    outputs: OutputSettings,
    provenance: Provenance,
) -> Exported:
    """Write ``folder``/<scene id>/, in place of the one that is there, in one pass over the rows.

    Args:
        scene: What was mapped.
        rows: Its probabilities, from the top.
        folder: Where the scenes' folders are.
        picture: The whole scene on a coarser grid (`thawmap.data.stack.preview`), for the quicklook.
        polygons: How objects are made; the threshold is that of ``provenance``.
        outputs: Which files are written.
        provenance: What the rows are made from.

    Raises:
        DataError: If a file cannot be written, or the folder that is there is none of a map as it was made. Whatever
            fails, also in ``rows``: nothing new is left behind.
    """
    place, names = folder / scene.id, FILE_NAMES[outputs.names]
    with atomic(place, replacing=partial(replace_map, scene=scene.id)) as draft:
        draft.mkdir()
        valid, positive, found = _write_rasters(scene, rows, draft, (polygons, outputs, provenance))
        slumps = found.slumps
        vectors = [
            file for kind in outputs.vectors for file in _write_vectors(draft / f"{names['slumps']}.{kind}", found)
        ]
        _write_styles(draft, names)
        _write_quicklook(draft / QUICKLOOK, scene, picture, slumps)
        files = {name: names[name] for name in ("probability", "mask")}
        if (draft / "spread.tif").exists():
            files["spread"] = "spread.tif"
        item = stac_item(scene, found, assets(files, vectors, outputs), provenance)
        write_item(draft, item.to_dict(include_self_link=False))
    return Exported(
        folder=place,
        valid_pixels=valid,
        slump_pixels=positive,
        slumps=len(slumps),
        left_out=len(found.left_out),
        slump_area_m2=float(slumps["area_m2"].sum()),
    )


def is_finished(folder: Path, scene: Scene, fingerprint: str) -> bool:
    """Whether ``folder`` has all of this scene's results, made from what the `Provenance` of this fingerprint says."""
    try:
        item = MapItem.read(folder / scene.id)
    except DataError:
        return False
    return item.fingerprint == fingerprint and all(file.exists() for file in item.assets.values())


def as_written(rows: Rows, storage: Literal["uint8", "float32"]) -> tuple[Rows, npt.NDArray[Any]]:
    """The rows as a reader will see them, NaN = missing, and the numbers that are stored.

    A byte holds hundredths; they are compared and counted as float64, where 57 / 100 is the 0.57 of a
    setting.
    """
    if storage == "float32":
        return rows, rows.probability.astype(np.float32)
    hundredths = np.rint(np.multiply(rows.probability, 100, dtype=np.float64))
    stored = np.where(np.isnan(rows.probability), NODATA, hundredths).astype(np.uint8)
    return replace(rows, probability=_HUNDREDTHS[stored]), stored


def _write_rasters(
    scene: Scene,
    rows: Iterable[Rows],
    draft: Path,
    how: tuple[PolygonSettings, OutputSettings, Provenance],
) -> tuple[int, int, Found]:
    """Both rasters and the polygons, in one pass; with the number of valid pixels and of those of objects."""
    polygons, outputs, provenance = how
    names = FILE_NAMES[outputs.names]
    vectoriser = Vectoriser(scene, polygons, bundle_id=provenance.bundle)
    disc = Disc(polygons.opening_m, ground_pixel_m(scene.geobox)) if polygons.opening_m else Disc()
    valid = positive = 0
    with ExitStack() as files:
        encoding = _PROBABILITY[outputs.probability]
        probability = files.enter_context(raster_writer(draft / names["probability"], scene.geobox, encoding))
        mask = files.enter_context(raster_writer(draft / names["mask"], scene.geobox, _MASK))
        spread = _Spread(draft / "spread.tif", scene.geobox, outputs.probability, files)
        for known, objects in masks(_written(rows, probability, spread), provenance.threshold, disc):
            missing = np.isnan(known.probability)
            mask.write(known.first_row, np.where(missing, NODATA, objects).astype(np.uint8))
            vectoriser.add(known, objects)
            valid += int((~missing).sum())
            positive += int(objects.sum())
        found = vectoriser.finish()
        positive += _correct(mask, found, scene.geobox.height)
    return valid, positive, found


def _written(rows: Iterable[Rows], probability: RasterWriter, spread: "_Spread") -> Iterator[Rows]:
    """The rows as a reader will see them, after they are written."""
    for part in rows:
        known, stored = as_written(part, spread.storage)
        probability.write(part.first_row, stored)
        spread.write(part)
        yield replace(known, spread=None)


@dataclass(slots=True)
class _Spread:
    """The raster of the spread between networks, which is there when the rows have one.

    Attributes:
        path: Its file.
        geobox: Its grid.
        storage: How it is stored, as the probability.
        files: What closes it.
    """

    path: Path
    geobox: GeoBox
    storage: Literal["uint8", "float32"]
    files: ExitStack
    _writer: RasterWriter | None = None

    def write(self, rows: Rows) -> None:
        if rows.spread is None:
            return
        if self._writer is None:
            self._writer = self.files.enter_context(raster_writer(self.path, self.geobox, _SPREAD[self.storage]))
        self._writer.write(rows.first_row, as_written(replace(rows, probability=rows.spread), self.storage)[1])


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
