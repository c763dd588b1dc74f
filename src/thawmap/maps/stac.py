"""A scene's folder for catalogues: a STAC item, which says what everything was made from."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapely
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from thawmap.config import OutputSettings
from thawmap.data.sources.base import Scene
from thawmap.geo.crs import crs_of
from thawmap.maps.job import Provenance
from thawmap.maps.layout import NODATA, QUICKLOOK, REASON
from thawmap.maps.polygons.vectorise import Found

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


def stac_item(
    scene: Scene, found: Found, assets: Mapping[str, "pystac.Asset"], provenance: Provenance
) -> "pystac.Item":
    """The STAC item of the scene's folder.

    STAC wants a time of every item. Where the scene's is not known, `datetime` is null and the interval is all
    the time in which it can have been taken: from the first photograph from the air until now.
    """
    import pystac  # noqa: PLC0415 - only once a scene is mapped

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
        "thawmap:slumps": len(found.slumps),
        "thawmap:slump_area_m2": float(found.slumps["area_m2"].sum()),
        "thawmap:left_out": {str(why): int(n) for why, n in found.left_out[REASON].value_counts().sort_index().items()},
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
    from thawmap.geo.shapes import to_lonlat  # noqa: PLC0415 - only once a scene is mapped

    return shapely.orient_polygons(to_lonlat(scene.geobox.extent.geom, crs_of(scene.geobox)))


def _bbox(footprint: BaseGeometry) -> list[float]:
    """West, south, east, north in degrees; across the antimeridian west is the larger number (RFC 7946)."""
    west, south, east, north = footprint.bounds
    if isinstance(footprint, MultiPolygon):
        west = min(part.bounds[0] for part in footprint.geoms if part.bounds[0] > 0)
        east = max(part.bounds[2] for part in footprint.geoms if part.bounds[2] < 0)
    return [west, south, east, north]


def assets(rasters: Mapping[str, str], vectors: Sequence[Path], outputs: OutputSettings) -> dict[str, "pystac.Asset"]:
    """The files beside the item, with their roles; ``rasters`` are those of probability, mask and, if any, spread."""
    mask: dict[str, Any] = {"data_type": "uint8", "nodata": NODATA}
    stored: dict[str, dict[str, Any]] = {
        "uint8": mask | {"raster:scale": 0.01},
        "float32": {"data_type": "float32", "nodata": "nan"},
    }
    found = {
        "probability": _asset(rasters["probability"], "Probability of a slump, 0 to 1", stored[outputs.probability]),
        "mask": _asset(rasters["mask"], "1 slump, 0 not, 255 no data", mask),
        "quicklook": _asset(QUICKLOOK, "False colour with the slumps' outlines"),
    }
    if "spread" in rasters:
        found["spread"] = _asset(rasters["spread"], "Standard deviation between networks", stored[outputs.probability])
    for path in vectors:
        is_slumps = path.stem == vectors[0].stem
        name, title = ("slumps", "Outlines of slumps") if is_slumps else ("left_out", "Objects that are none, and why")
        found[f"{name}_{path.suffix[1:]}"] = _asset(path.name, title)
    return found


def _asset(name: str, title: str, stored: Mapping[str, Any] | None = None) -> "pystac.Asset":
    import pystac  # noqa: PLC0415 - only once a scene is mapped

    media = _MEDIA[Path(name).suffix]
    role = "overview" if media == "image/png" else "data"
    return pystac.Asset(href=f"./{name}", media_type=media, roles=[role], title=title, extra_fields=dict(stored or {}))
