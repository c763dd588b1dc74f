"""Metadata beside an image, XML or JSON: time, footprint, cloud cover, scaling."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt
import shapely
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from thawmap.data.raster.io import RasterInfo
from thawmap.data.sources.finding import parse_time
from thawmap.errors import DataError
from thawmap.geo.crs import to_pixels
from thawmap.text import whole_number

BASELINE = re.compile(r"_N(\d\d)\.?(\d\d)(?=_|\.|$)", re.IGNORECASE)
"""Processing baseline in the names of Sentinel-2 products."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanetMetadata:
    """The metadata of a PlanetScope image in one file; None or empty if silent.

    Attributes:
        path: The file.
        identifier: Name of the image.
        acquired: UTC time.
        cloud_cover: Share of the image under clouds, 0..1.
        footprint: Corners (n, 2) in degrees: longitude, latitude.
        coefficients: Number of a band, from 1, to the factor from stored numbers to top-of-atmosphere reflectance.
    """

    path: Path
    identifier: str | None
    acquired: datetime | None = None
    cloud_cover: float | None = None
    footprint: npt.NDArray[np.float64] | None = field(default=None, compare=False)
    coefficients: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelMetadata:
    """The metadata of a Sentinel-2 image in one file: level, time, clouds, scaling.

    Reflectance is (stored number + offset) / quantification.

    Attributes:
        path: The file.
        product: Name of the product, or of the STAC item; None where it has none.
        level: Processing level, such as "2A"; None where unknown.
        acquired: UTC time; None where unknown.
        cloud_cover: Share of the image under clouds, 0..1; None where unknown.
        quantification: Stored numbers for a reflectance of 1.
        offsets: Layer to the offset of its stored numbers; None where unknown.
    """

    path: Path
    product: str | None
    level: str | None = None
    acquired: datetime | None = None
    cloud_cover: float | None = None
    quantification: float = 10_000
    offsets: Mapping[str, float] | None = None


def read_xml(path: Path) -> ET.Element:
    """Read an XML file and return its root element.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return ET.parse(path).getroot()  # noqa: S314 - expat itself bounds what entities may grow to
    except (ET.ParseError, OSError, ValueError, LookupError) as error:
        msg = f"{path.name} cannot be read as XML ({error}); fetch it again"
        raise DataError(msg) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object, as a dict.

    Raises:
        DataError: If it cannot be read, or holds no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        msg = f"{path.name} cannot be read as JSON ({error}); fetch it again"
        raise DataError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path.name} holds a {type(content).__name__} where metadata are an object; fetch it again"
        raise DataError(msg)
    return content


def read_planet_xml(path: Path) -> PlanetMetadata:
    """Read time, cloud cover, footprint and scaling from a PlanetScope image's XML.

    Raises:
        DataError: If it cannot be read.
    """
    root = read_xml(path)
    corners = [
        pair.split(",")[:2]
        for ring in root.findall(".//{*}multiExtentOf//{*}coordinates")
        for pair in (ring.text or "").split()
    ]
    numbers = [(band.findtext("{*}bandNumber"), band) for band in root.findall(".//{*}bandSpecificMetadata")]
    factors = {number: as_number(band.findtext("{*}reflectanceCoefficient")) for number, band in numbers}
    time = root.findtext(".//{*}acquisitionDateTime") or root.findtext(".//{*}beginPosition") or ""
    return PlanetMetadata(
        path=path,
        identifier=(root.findtext(".//{*}identifier") or "").strip() or None,
        acquired=parse_time(time.strip()),
        cloud_cover=as_share(root.findtext(".//{*}cloudCoverPercentage"), percent=True),
        footprint=_parse_corners(corners),
        coefficients={
            band: factor
            for number, factor in factors.items()
            if number is not None and (band := whole_number(number.strip())) is not None and factor is not None
        },
    )


def read_planet_json(path: Path) -> PlanetMetadata:
    """Read time, cloud cover and footprint from a PlanetScope image's JSON.

    It is Planet's own, or a STAC item.

    Raises:
        DataError: If it cannot be read.
    """
    content = read_json(path)
    properties = properties_of(content)
    percent = as_share(properties.get("eo:cloud_cover"), percent=True)
    geometry = content.get("geometry")
    shape = shapely.from_geojson(json.dumps(geometry), on_invalid="ignore") if isinstance(geometry, dict) else None
    name = content.get("id")
    return PlanetMetadata(
        path=path,
        identifier=name if isinstance(name, str) else None,
        acquired=parse_time(str(properties.get("acquired") or properties.get("datetime") or "")),
        cloud_cover=as_share(properties.get("cloud_cover")) if percent is None else percent,
        footprint=None if shape is None or shape.is_empty else shapely.get_coordinates(shape),
    )


def read_sentinel_xml(path: Path) -> SentinelMetadata:
    """Read level, time, cloud cover and scaling from a Sentinel-2 product's XML.

    Offsets are in it since baseline 04.00.

    Raises:
        DataError: If it cannot be read.
    """
    root = read_xml(path)
    stored = {element.get("band_id"): as_number(element.text) for element in root.findall(".//{*}BOA_ADD_OFFSET")}
    offsets = {layer: stored.get(str(number)) for layer, number in _BAND_IDS.items()} if stored else None
    units = [root.findtext(f".//{{*}}{prefix}BOA_QUANTIFICATION_VALUE") for prefix in ("", "L2A_")]
    baseline = as_number(root.findtext(".//{*}PROCESSING_BASELINE"))
    # before baseline 04.00, and in products of users' own, no offset in the XML is an offset of 0
    without = None if baseline is None or _NEW <= baseline < _OWN else dict.fromkeys(_BAND_IDS, 0.0)
    return SentinelMetadata(
        path=path,
        product=(root.findtext(".//{*}PRODUCT_URI") or "").strip() or None,
        level=_level(root.findtext(".//{*}PRODUCT_TYPE")),
        acquired=parse_time((root.findtext(".//{*}PRODUCT_START_TIME") or "").strip()),
        cloud_cover=as_share(root.findtext(".//{*}Cloud_Coverage_Assessment"), percent=True),
        quantification=next((unit for unit in map(as_number, units) if unit), 10_000),
        offsets=without if offsets is None else {layer: off for layer, off in offsets.items() if off is not None},
    )


def read_baseline(path: Path) -> str | None:
    """Read the processing baseline in a Sentinel-2 product's XML or STAC item, if any.

    Raises:
        DataError: If it is one of these and cannot be read.
    """
    if path.suffix.lower() == ".xml":
        text = read_xml(path).findtext(".//PROCESSING_BASELINE")
    elif path.suffix.lower() == ".json":
        properties = read_json(path).get("properties")
        known = properties if isinstance(properties, dict) else {}
        text = known.get("s2:processing_baseline") or known.get("processing:version")
    else:
        return None
    return str(text).strip() if text else None


def read_sentinel_item(path: Path) -> SentinelMetadata | None:
    """Read the metadata in a Sentinel-2 image's STAC item; None for other JSON.

    Where the catalogue has put the offset into the pixels, there is none left: its flag for that is right where the
    offsets of its bands are not (Earth Search, collection sentinel-2-l2a).

    Raises:
        DataError: If it cannot be read.
    """
    item = read_json(path)
    return None if item.get("type") != "Feature" or "stac_version" not in item else sentinel_item(item, path)


def sentinel_item(item: Mapping[str, Any], path: Path) -> SentinelMetadata:
    """Return the metadata in a Sentinel-2 image's STAC item, which is read from a path."""
    properties = properties_of(item)
    baseline = next((text for name in _BASELINES if (text := properties.get(name)) is not None), None)
    offsets = baseline_offsets(as_number(baseline)) or _asset_offsets(item.get("assets"))
    if properties.get("earthsearch:boa_offset_applied") is True:
        offsets = dict.fromkeys(_BAND_IDS, 0.0)
    return SentinelMetadata(
        path=path,
        product=str(item.get("id", "")) or None,
        level=_level(properties.get("s2:product_type") or properties.get("product:type")),
        acquired=parse_time(str(properties.get("datetime") or "")),
        cloud_cover=as_share(properties.get("eo:cloud_cover"), percent=True),
        offsets=offsets,
    )


def baseline_offsets(baseline: float | None) -> dict[str, float] | None:
    """Return a dict of layers' offsets, 0 or -1000, in a processing baseline; or None.

    The offset is added to stored numbers. None for an unknown baseline, and one of users' own, from 99 on.
    """
    if baseline is None or baseline >= _OWN:
        return None
    return dict.fromkeys(_BAND_IDS, -1000.0 if baseline >= _NEW else 0.0)


def _asset_offsets(assets: object) -> dict[str, float] | None:
    """Return a dict of layers to the one offset of all STAC assets; None if several.

    An asset says it as reflectance; divided by the scale, it is in stored numbers.
    """
    offsets = set()
    for asset in assets.values() if isinstance(assets, dict) else ():
        fields = asset if isinstance(asset, dict) else {}
        bands = fields.get("raster:bands")
        band = bands[0] if isinstance(bands, list) and bands and isinstance(bands[0], dict) else {}
        scale = as_number(band.get("scale", fields.get("raster:scale")))
        offset = as_number(band.get("offset", fields.get("raster:offset")))
        if scale and offset is not None:
            offsets.add(round(offset / scale, 6))
    return dict.fromkeys(_BAND_IDS, offsets.pop()) if len(offsets) == 1 else None


_BAND_IDS = {"blue": 1, "green": 2, "red": 3, "nir": 7, "swir1": 11, "swir2": 12}  # B8A is 8, which shifts the rest
_BASELINES = ("s2:processing_baseline", "processing:version")
_NEW = 4.0  # the first baseline with an offset, of 25 January 2022
_OWN = 99.0  # of products that users made themselves, with any version


def _level(kind: object) -> str | None:
    """Return the level in a type of product, such as 2A in S2MSI2A; None without one."""
    return kind[-2:] if isinstance(kind, str) and kind.startswith("S2MSI") else None


def properties_of(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the properties of a GeoJSON feature; empty where it has none."""
    properties = item.get("properties")
    return properties if isinstance(properties, dict) else {}


def as_number(stored: object) -> float | None:
    """Return a text or number as a finite float; None where it is no such number."""
    if isinstance(stored, bool) or not isinstance(stored, str | int | float):
        return None
    try:
        number = float(stored)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def as_share(stored: object, *, percent: bool = False) -> float | None:
    """Return a text or number, 0..1 or in percent, as a share 0..1; None if neither.

    Unless it is known to be in ``percent``, numbers up to 1 are taken for shares.
    """
    number = as_number(stored)
    if number is None or not 0 <= number <= _PERCENT:
        return None
    return number / _PERCENT if percent or number > 1 else number


_PERCENT = 100


def check_metadata(metadata: Iterable[PlanetMetadata], scene: str, image: RasterInfo) -> None:
    """Refuse metadata of another scene than the image's, or of other ground.

    Raises:
        DataError: If they are.
    """
    for record in metadata:
        if record.identifier is not None and not f"{record.identifier}_".lower().startswith(f"{scene.lower()}_"):
            msg = f"{record.path.name} is of another scene, {record.identifier}; fetch the metadata of this one"
            raise DataError(msg)
        if record.footprint is not None and _lies_elsewhere(record.footprint, image.geobox):
            msg = f"{record.path.name} describes another place than {image.path.name} covers; fetch both from one order"
            raise DataError(msg)


def cloud_notes(metadata: Iterable[PlanetMetadata | SentinelMetadata]) -> list[str]:
    """Return a list of one note on the first cloud cover that any record tells, or []."""
    cover = next((record.cloud_cover for record in metadata if record.cloud_cover is not None), None)
    return [] if cover is None else [f"its metadata tell {cover:.0%} cloud cover"]


def _lies_elsewhere(footprint: npt.NDArray[np.float64], geobox: GeoBox) -> bool:
    """Return whether corners (n, 2: longitude, latitude) lie apart from a grid.

    The boxes around both are compared in the grid's own pixels, where no place is cut by the antimeridian.
    """
    points = np.column_stack(to_pixels(geobox, CRS("EPSG:4326"), *footprint.T))
    points = points[np.isfinite(points).all(axis=1)]
    size = (geobox.width, geobox.height)
    return not (len(points) and (points.max(axis=0) >= 0).all() and (points.min(axis=0) <= size).all())


def _parse_corners(pairs: Iterable[list[str]]) -> npt.NDArray[np.float64] | None:
    """Return pairs of texts as numbers (n, 2); None if any is no pair of numbers.

    None also without pairs.
    """
    corners = [[as_number(text) for text in pair] for pair in pairs]
    if not corners or any(len(pair) != 2 or None in pair for pair in corners):
        return None
    return np.array(corners, float)
