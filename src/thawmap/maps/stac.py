"""The STAC item of a map's folder, for catalogues."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapely
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from thawmap.data.sources.base import Scene
from thawmap.geo.crs import crs_of
from thawmap.maps.job import MapJob
from thawmap.maps.layout import (
    BUNDLE,
    CONFIG,
    FINGERPRINT,
    INPUTS,
    LEFT_OUT,
    QUICKLOOK,
    REASON,
    REGION,
    SENSOR,
    SLUMP_AREA_M2,
    SLUMPS,
    THRESHOLD,
    MapRaster,
)
from thawmap.maps.polygons.vectorise import SceneObjects

if TYPE_CHECKING:
    import pystac

NO_PHOTOGRAPH_BEFORE = datetime(1858, 1, 1, tzinfo=UTC)
"""Start of the interval of a scene of unknown time: the year of the first photograph from the air."""

_MEDIA = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".png": "image/png",
    ".gpkg": "application/geopackage+sqlite3",
    ".parquet": "application/x-parquet",
    ".shp": "application/vnd.shp",
}
_EXTENSIONS = tuple(f"https://stac-extensions.github.io/{name}/v2.0.0/schema.json" for name in ("projection", "raster"))


def stac_item(job: MapJob, assets: Mapping[str, "pystac.Asset"], objects: SceneObjects | None) -> "pystac.Item":
    """Return a map's STAC item: outline, time, provenance, slump counts, assets.

    STAC wants a time of every item. Where the scene's is not known, `datetime` is null and the interval is the job's,
    or all the time in which the image can have been taken: from the first photograph from the air until now.

    Args:
        job: The map.
        assets: Its files.
        objects: Its slumps and what was left out; None where only further rasters were written.
    """
    import pystac  # noqa: PLC0415 - only once a scene is mapped

    scene, made_from = job.scene, job.provenance
    footprint = _footprint(scene)
    now = datetime.now(UTC).replace(microsecond=0)
    since = until = None
    if scene.acquired is None:
        since, until = job.interval or (NO_PHOTOGRAPH_BEFORE, now)
        since, until = since.replace(microsecond=0), until.replace(microsecond=0)
    properties = {
        "created": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        **_crs(scene),
        "proj:shape": list(scene.geobox.shape),
        "proj:transform": list(scene.geobox.transform)[:6],
        SENSOR: scene.sensor,
        REGION: scene.region,
        **({} if objects is None else _slump_counts(objects)),
        BUNDLE: made_from.bundle,
        THRESHOLD: job.threshold,
        CONFIG: dict(made_from.config),
        INPUTS: [dict(file) for file in made_from.inputs],
        FINGERPRINT: job.fingerprint,
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


def _slump_counts(objects: SceneObjects) -> dict[str, Any]:
    """Return STAC properties: number and area of slumps, left-out objects by reason."""
    reasons = objects.left_out[REASON].value_counts().sort_index()
    return {
        SLUMPS: len(objects.slumps),
        SLUMP_AREA_M2: float(objects.slumps["area_m2"].sum()),
        LEFT_OUT: {str(reason): int(count) for reason, count in reasons.items()},
    }


def _crs(scene: Scene) -> dict[str, Any]:
    """Return STAC properties of a scene's CRS: EPSG code, or WKT where it has none."""
    crs = scene.geobox.crs
    assert crs is not None, "data.io reads no raster without a CRS"
    return {"proj:code": f"EPSG:{crs.epsg}"} if crs.epsg else {"proj:code": None, "proj:wkt2": crs.to_wkt()}


def _footprint(scene: Scene) -> BaseGeometry:
    """Return a scene's outline in degrees of lon, lat, cut at the antimeridian."""
    from thawmap.geo.shapes import to_lonlat  # noqa: PLC0415 - only once a scene is mapped

    return shapely.orient_polygons(to_lonlat(scene.geobox.extent.geom, crs_of(scene.geobox)))


def _bbox(footprint: BaseGeometry) -> list[float]:
    """Return west, south, east, north of a footprint in degrees.

    Across the antimeridian west is the larger number (RFC 7946).
    """
    west, south, east, north = footprint.bounds
    if isinstance(footprint, MultiPolygon):
        west = min(half.bounds[0] for half in footprint.geoms if half.bounds[0] > 0)
        east = max(half.bounds[2] for half in footprint.geoms if half.bounds[2] < 0)
    return [west, south, east, north]


def assets(job: MapJob, written: Mapping[str, MapRaster], vectors: Sequence[Path]) -> dict[str, "pystac.Asset"]:
    """Return STAC assets by name, one for each raster, picture and file of polygons.

    Args:
        job: The map.
        written: The rasters that were written, by name.
        vectors: Its files of polygons, the slumps first.
    """
    further = {raster.name: _raster_asset(raster) for raster in job.rasters}
    if job.rasters_only:
        return further
    files = {name: _raster_asset(written[name]) for name in ("probability", "mask")}
    files["quicklook"] = _asset(QUICKLOOK, "False colour with the slumps' outlines")
    files |= {name: _raster_asset(raster) for name, raster in written.items() if name not in files | further}
    for path in vectors:
        is_slumps = path.stem == vectors[0].stem
        name, title = ("slumps", "Outlines of slumps") if is_slumps else ("left_out", "Objects that are none, and why")
        files[f"{name}_{path.suffix[1:]}"] = _asset(path.name, title)
    return files | further


def _raster_asset(raster: MapRaster) -> "pystac.Asset":
    return _asset(raster.file, raster.title, raster.fields)


def _asset(name: str, title: str, stored: Mapping[str, Any] | None = None) -> "pystac.Asset":
    import pystac  # noqa: PLC0415 - only once a scene is mapped

    media = _MEDIA[Path(name).suffix]
    role = "overview" if media == "image/png" else "data"
    return pystac.Asset(href=f"./{name}", media_type=media, roles=[role], title=title, extra_fields=dict(stored or {}))
