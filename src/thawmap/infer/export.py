"""From a stream of rows to one folder per scene: rasters, polygons, a picture, a STAC item; all or nothing.

The mask and the polygons are cut from the probability as it is written (hundredths, when it is stored in a byte),
so that the files of a folder agree exactly.
"""

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pystac
import shapely
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from thawmap.config import OutputSettings, PolygonSettings
from thawmap.data.io import Encoding, atomic, raster_writer, write_png, write_text, write_vector
from thawmap.data.sources.base import Scene
from thawmap.infer.predict import Rows
from thawmap.infer.vectorise import Vectoriser, above

NODATA = 255
"""Stored byte of a missing pixel, in probability.tif and mask.tif."""

SHAPEFILE_NAMES = {
    "slump_id": "slump_id",
    "scene_id": "scene_id",
    "acquired": "acquired",
    "area_m2": "area_m2",
    "perimeter_m": "perim_m",
    "pixels": "pixels",
    "probability_mean": "prob_mean",
    "probability_max": "prob_max",
    "probability_min": "prob_min",
    "probability_median": "prob_med",
    "probability_std": "prob_std",
    "touches_edge": "edge",
    "bundle_id": "bundle_id",
    "status": "status",
    "reviewer": "reviewer",
    "reviewed_at": "reviewed",
}
"""Columns of slumps in a Shapefile, whose names have at most 10 characters."""

NO_PHOTOGRAPH_BEFORE = datetime(1858, 1, 1, tzinfo=UTC)
"""Start of the interval of a scene of unknown time: the year of the first photograph from the air."""

_MASK_COLOURS = {0: (255, 255, 255, 0), 1: (215, 48, 39, 255), NODATA: (0, 0, 0, 0)}
_PROBABILITY = {
    "uint8": Encoding(dtype="uint8", nodata=NODATA, scale=0.01, descriptions=("probability",)),
    "float32": Encoding(dtype="float32", nodata=float("nan"), descriptions=("probability",)),
}
_MASK = Encoding(dtype="uint8", nodata=NODATA, descriptions=("slump",), colours=_MASK_COLOURS, overviews="nearest")
_MEDIA = {
    ".tif": pystac.MediaType.COG,
    ".png": pystac.MediaType.PNG,
    ".gpkg": pystac.MediaType.GEOPACKAGE,
    ".parquet": pystac.MediaType.PARQUET,
    ".shp": "application/vnd.shp",
}
_EXTENSIONS = tuple(f"https://stac-extensions.github.io/{name}/v2.0.0/schema.json" for name in ("projection", "raster"))
_OUTLINE = "#56b4e9"  # as predictions in the reports
_PICTURE_PX = 1024  # longer side of a quicklook


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a scene's results are made from.

    Attributes:
        bundle: Id of the bundle.
        threshold: Objects are where the probability is above it.
        config: The settings that decide the result, as JSON values.
        inputs: Each input file, as JSON values: name, size, and sha256 or time of its last change.
    """

    bundle: str
    threshold: float
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[Mapping[str, Any]] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of it: equal exactly when everything is."""
        content = [self.bundle, self.threshold, dict(self.config), [dict(item) for item in self.inputs]]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What became of one scene.

    Attributes:
        folder: Its files.
        valid_pixels: Pixels with a probability.
        slump_pixels: Pixels above the threshold.
        slumps: Number of polygons.
        slump_area_m2: Their area.
    """

    folder: Path
    valid_pixels: int
    slump_pixels: int
    slumps: int
    slump_area_m2: float


def export(
    scene: Scene,
    rows: Iterable[Rows],
    folder: Path,
    *,
    picture: xr.Dataset,
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
        DataError: If a file cannot be written. Whatever fails, also in ``rows``: nothing new is left behind.
    """
    place = folder / scene.id
    with atomic(place) as draft:
        draft.mkdir()
        valid, positive, slumps = _write_rasters(scene, rows, draft, (polygons, outputs, provenance))
        vectors = [_write_vector(draft, slumps, kind) for kind in outputs.vectors]
        write_png(draft / "quicklook.png", quicklook(picture, slumps))
        item = _item(scene, slumps, _assets(vectors, outputs), provenance)
        write_text(draft / "item.json", json.dumps(item.to_dict(include_self_link=False), indent=2) + "\n")
    return Exported(
        folder=place,
        valid_pixels=valid,
        slump_pixels=positive,
        slumps=len(slumps),
        slump_area_m2=float(slumps["area_m2"].sum()),
    )


def is_finished(folder: Path, scene: Scene, fingerprint: str) -> bool:
    """Whether ``folder`` has all of this scene's results, made from what the `Provenance` of this fingerprint says."""
    try:
        item = json.loads((folder / scene.id / "item.json").read_text(encoding="utf-8"))
        files = [folder / scene.id / asset["href"] for asset in item["assets"].values()]
        same = item["properties"]["thawmap:fingerprint"] == fingerprint
    except (OSError, ValueError, KeyError):
        return False
    return same and all(file.exists() for file in files)


def as_written(rows: Rows, storage: Literal["uint8", "float32"]) -> tuple[Rows, npt.NDArray[Any]]:
    """The rows as a reader will see them, NaN = missing, and the numbers that are stored.

    A byte holds hundredths; they are compared and counted as float64, where 57 / 100 is the 0.57 of a
    setting.
    """
    if storage == "float32":
        return rows, rows.probability.astype(np.float32)
    missing = np.isnan(rows.probability)
    hundredths = np.rint(np.where(missing, 0, rows.probability).astype(np.float64) * 100)
    known = Rows(first_row=rows.first_row, probability=np.where(missing, np.nan, hundredths / 100))
    return known, np.where(missing, NODATA, hundredths).astype(np.uint8)


def quicklook(picture: xr.Dataset, slumps: gpd.GeoDataFrame) -> npt.NDArray[np.uint8]:
    """The scene (y, x, 3), uint8, in false colour (NIR, red, green), with the slumps' outlines.

    Each layer is stretched between its 2nd and 98th percentile; missing pixels are dark. Without these three
    layers the first layer is shown in grey.
    """
    geobox = picture.odc.geobox
    height, width = geobox.shape
    figure = Figure(figsize=(width / height, 1) if height >= width else (1, height / width), dpi=_PICTURE_PX)
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(_false_colour(picture), extent=(0, width, height, 0), aspect="auto", interpolation="nearest")
    to_pixels = ~geobox.transform
    rings = [
        np.column_stack(to_pixels * tuple(shapely.get_coordinates(ring).T))
        for polygon in slumps.geometry
        for ring in (polygon.exterior, *polygon.interiors)
    ]
    axes.add_collection(LineCollection(rings, colors=_OUTLINE, linewidths=2.2 * 72 / _PICTURE_PX))
    axes.set(xlim=(0, width), ylim=(height, 0))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _false_colour(picture: xr.Dataset) -> npt.NDArray[np.float32]:
    """The picture (y, x, 3), 0..1."""
    names = ["nir", "red", "green"]
    if not set(names) <= set(picture.data_vars):
        names = [next(str(name) for name in picture.data_vars if name != "valid")] * 3
    return np.stack([_stretched(picture[name].to_numpy()) for name in names], axis=-1)


def _stretched(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    known = np.isfinite(values)
    if not known.any():
        return np.full(values.shape, 0.1, np.float32)
    low, high = np.percentile(values[known], [2, 98])
    stretched = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return np.where(known, stretched, 0.1).astype(np.float32)


def _write_rasters(
    scene: Scene,
    rows: Iterable[Rows],
    draft: Path,
    how: tuple[PolygonSettings, OutputSettings, Provenance],
) -> tuple[int, int, gpd.GeoDataFrame]:
    """Both rasters and the polygons, in one pass; with the number of valid and of positive pixels."""
    polygons, outputs, provenance = how
    threshold = provenance.threshold
    vectoriser = Vectoriser(scene, threshold=threshold, min_area_m2=polygons.min_area_m2, bundle_id=provenance.bundle)
    valid = positive = 0
    with ExitStack() as files:
        encoding = _PROBABILITY[outputs.probability]
        probability = files.enter_context(raster_writer(draft / "probability.tif", scene.geobox, encoding))
        mask = files.enter_context(raster_writer(draft / "mask.tif", scene.geobox, _MASK))
        for part in rows:
            known, stored = as_written(part, outputs.probability)
            missing = np.isnan(known.probability)
            objects = above(known.probability, threshold)
            probability.write(part.first_row, stored)
            mask.write(part.first_row, np.where(missing, NODATA, objects).astype(np.uint8))
            vectoriser.add(known)
            valid += int((~missing).sum())
            positive += int(objects.sum())
        slumps = vectoriser.finish()
    return valid, positive, slumps


def _write_vector(draft: Path, slumps: gpd.GeoDataFrame, kind: str) -> Path:
    path = draft / f"slumps.{kind}"
    write_vector(path, _for_shapefile(slumps) if kind == "shp" else slumps)
    return path


def _for_shapefile(slumps: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The slumps with names of 10 characters, times as text (ISO 8601), yes and no as 1 and 0."""
    frame = slumps.assign(touches_edge=slumps["touches_edge"].astype("int32"))
    for name in ("acquired", "reviewed_at"):
        frame[name] = frame[name].dt.strftime("%Y-%m-%dT%H:%M:%SZ").astype("string")
    return frame.rename(columns=SHAPEFILE_NAMES)


def _item(
    scene: Scene, slumps: gpd.GeoDataFrame, assets: Mapping[str, pystac.Asset], provenance: Provenance
) -> pystac.Item:
    """The STAC item of the scene's folder.

    STAC wants a time of every item. Where the scene's is not known, `datetime` is null and the interval is all
    the time in which it can have been taken: from the first photograph from the air until now.
    """
    footprint = _footprint(scene)
    now = datetime.now(UTC).replace(microsecond=0)
    since, until = (NO_PHOTOGRAPH_BEFORE, now) if scene.acquired is None else (None, None)
    properties = {
        "created": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        **_crs(scene),
        "proj:shape": list(scene.geobox.shape),
        "proj:transform": list(scene.geobox.transform)[:6],
        "thawmap:sensor": scene.sensor,
        "thawmap:region": scene.region,
        "thawmap:slumps": len(slumps),
        "thawmap:slump_area_m2": float(slumps["area_m2"].sum()),
        "thawmap:bundle": provenance.bundle,
        "thawmap:threshold": provenance.threshold,
        "thawmap:config": dict(provenance.config),
        "thawmap:inputs": [dict(item) for item in provenance.inputs],
        "thawmap:fingerprint": provenance.fingerprint,
    }
    return pystac.Item(
        id=scene.id,
        geometry=shapely.geometry.mapping(footprint),
        bbox=_bbox(footprint),
        datetime=scene.acquired,
        start_datetime=since,
        end_datetime=until,
        properties=properties,
        stac_extensions=list(_EXTENSIONS),
        assets=dict(assets),
    )


def _crs(scene: Scene) -> dict[str, Any]:
    """The scene's CRS by its code, or in full where it has none."""
    crs = scene.geobox.crs
    assert crs is not None, "data.io reads no raster without a CRS"
    return {"proj:code": f"EPSG:{crs.epsg}"} if crs.epsg else {"proj:code": None, "proj:wkt2": crs.to_wkt()}


def _footprint(scene: Scene) -> BaseGeometry:
    """The scene's outline in degrees, cut at the antimeridian."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # odc-geo calls what shapely 2.2 wants to drop
        outline = scene.geobox.extent.to_crs("EPSG:4326", resolution="auto", wrapdateline=True)
    return shapely.orient_polygons(outline.geom)


def _bbox(footprint: BaseGeometry) -> list[float]:
    """West, south, east, north in degrees; across the antimeridian west is the larger number (RFC 7946)."""
    west, south, east, north = footprint.bounds
    if isinstance(footprint, MultiPolygon):
        west = min(part.bounds[0] for part in footprint.geoms if part.bounds[0] > 0)
        east = max(part.bounds[2] for part in footprint.geoms if part.bounds[2] < 0)
    return [west, south, east, north]


def _assets(vectors: Sequence[Path], outputs: OutputSettings) -> dict[str, pystac.Asset]:
    """The files beside the item, with their roles."""
    mask: dict[str, Any] = {"data_type": "uint8", "nodata": NODATA}
    stored: dict[str, dict[str, Any]] = {
        "uint8": mask | {"raster:scale": 0.01},
        "float32": {"data_type": "float32", "nodata": "nan"},
    }
    assets = {
        "probability": _asset("probability.tif", "Probability of a slump, 0 to 1", stored[outputs.probability]),
        "mask": _asset("mask.tif", "1 slump, 0 not, 255 no data", mask),
        "quicklook": _asset("quicklook.png", "False colour with the slumps' outlines"),
    }
    return assets | {f"slumps_{path.suffix[1:]}": _asset(path.name, "Outlines of slumps") for path in vectors}


def _asset(name: str, title: str, stored: Mapping[str, Any] | None = None) -> pystac.Asset:
    media = _MEDIA[Path(name).suffix]
    role = "overview" if media == pystac.MediaType.PNG else "data"
    return pystac.Asset(href=f"./{name}", media_type=media, roles=[role], title=title, extra_fields=dict(stored or {}))
