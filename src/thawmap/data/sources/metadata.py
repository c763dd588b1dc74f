"""What the XML and JSON files beside an image say of it: time, place, cloud cover, and how its numbers are scaled."""

import json
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
from thawmap.data.sources.finding import as_time
from thawmap.errors import DataError
from thawmap.geo.crs import to_pixels
from thawmap.text import whole_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a file of metadata says of an image; None or empty where it is silent.

    Attributes:
        path: The file.
        identifier: Its name of the image.
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
class Radiometry:
    """What a file of metadata says of a Sentinel-2 image: reflectance = (stored number + offset) / quantification.

    Attributes:
        path: The file.
        product: Name of the product, or of the STAC item; None where it has none.
        level: Processing level, such as "2A"; None where unknown.
        acquired: UTC time; None where unknown.
        cloud_cover: Share of the image under clouds, 0..1; None where unknown.
        quantification: Stored numbers for a reflectance of 1.
        offsets: Layer to what is added to its stored numbers; None where it is unknown.
    """

    path: Path
    product: str | None
    level: str | None = None
    acquired: datetime | None = None
    cloud_cover: float | None = None
    quantification: float = 10_000
    offsets: Mapping[str, float] | None = None


def read_xml(path: Path) -> ET.Element:
    """The root of an XML file.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return ET.parse(path).getroot()  # noqa: S314 - expat itself bounds what entities may grow to
    except (ET.ParseError, OSError, ValueError, LookupError) as error:
        msg = f"{path.name} cannot be read as XML ({error}); fetch it again"
        raise DataError(msg) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        DataError: If it cannot be read, or holds something else.
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


def planet_xml(path: Path) -> Facts:
    """What the XML beside a PlanetScope image says; its cloud cover counts in percent.

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
    return Facts(
        path=path,
        identifier=(root.findtext(".//{*}identifier") or "").strip() or None,
        acquired=as_time(time.strip()),
        cloud_cover=as_share(root.findtext(".//{*}cloudCoverPercentage"), percent=True),
        footprint=_as_corners(corners),
        coefficients={
            band: factor
            for number, factor in factors.items()
            if number is not None and (band := whole_number(number.strip())) is not None and factor is not None
        },
    )


def planet_json(path: Path) -> Facts:
    """What the JSON beside a PlanetScope image says: Planet's own, or a STAC item.

    Raises:
        DataError: If it cannot be read.
    """
    content = read_json(path)
    properties = properties_of(content)
    percent = as_share(properties.get("eo:cloud_cover"), percent=True)
    geometry = content.get("geometry")
    shape = shapely.from_geojson(json.dumps(geometry), on_invalid="ignore") if isinstance(geometry, dict) else None
    name = content.get("id")
    return Facts(
        path=path,
        identifier=name if isinstance(name, str) else None,
        acquired=as_time(str(properties.get("acquired") or properties.get("datetime") or "")),
        cloud_cover=as_share(properties.get("cloud_cover")) if percent is None else percent,
        footprint=None if shape is None or shape.is_empty else shapely.get_coordinates(shape),
    )


def sentinel_xml(path: Path) -> Radiometry:
    """What the XML of a Sentinel-2 product says; offsets are there since processing baseline 04.00.

    Raises:
        DataError: If it cannot be read.
    """
    root = read_xml(path)
    stored = {item.get("band_id"): as_number(item.text) for item in root.findall(".//{*}BOA_ADD_OFFSET")}
    offsets = {layer: stored.get(str(number)) for layer, number in _BAND_IDS.items()} if stored else None
    units = [root.findtext(f".//{{*}}{prefix}BOA_QUANTIFICATION_VALUE") for prefix in ("", "L2A_")]
    baseline = as_number(root.findtext(".//{*}PROCESSING_BASELINE"))
    known = None if baseline is None or _NEW <= baseline < _OWN else dict.fromkeys(_BAND_IDS, 0.0)
    return Radiometry(
        path=path,
        product=(root.findtext(".//{*}PRODUCT_URI") or "").strip() or None,
        level=_level(root.findtext(".//{*}PRODUCT_TYPE")),
        acquired=as_time((root.findtext(".//{*}PRODUCT_START_TIME") or "").strip()),
        cloud_cover=as_share(root.findtext(".//{*}Cloud_Coverage_Assessment"), percent=True),
        quantification=next((unit for unit in map(as_number, units) if unit), 10_000),
        offsets=known if offsets is None else {name: value for name, value in offsets.items() if value is not None},
    )


def sentinel_item(path: Path) -> Radiometry | None:
    """What a STAC item says of a Sentinel-2 image; None where the file is no STAC item.

    Where the catalogue has put the offset into the pixels, there is none left: its flag for that is right where the
    offsets of its bands are not (Earth Search, collection sentinel-2-l2a).

    Raises:
        DataError: If it cannot be read.
    """
    item = read_json(path)
    if item.get("type") != "Feature" or "stac_version" not in item:
        return None
    properties = properties_of(item)
    baseline = next((text for name in _BASELINES if (text := properties.get(name)) is not None), None)
    offsets = baseline_offsets(as_number(baseline)) or _asset_offsets(item.get("assets"))
    if properties.get("earthsearch:boa_offset_applied") is True:
        offsets = dict.fromkeys(_BAND_IDS, 0.0)
    return Radiometry(
        path=path,
        product=str(item.get("id", "")) or None,
        level=_level(properties.get("s2:product_type") or properties.get("product:type")),
        acquired=as_time(str(properties.get("datetime") or "")),
        cloud_cover=as_share(properties.get("eo:cloud_cover"), percent=True),
        offsets=offsets,
    )


def baseline_offsets(baseline: float | None) -> dict[str, float] | None:
    """Layer to what is added to its stored numbers since a processing baseline, such as 5.09; None where unknown."""
    if baseline is None or baseline >= _OWN:
        return None
    return dict.fromkeys(_BAND_IDS, -1000.0 if baseline >= _NEW else 0.0)


def _asset_offsets(assets: object) -> dict[str, float] | None:
    """Layer to what is added to its stored numbers, where all assets with a scale and an offset agree on it."""
    told = set()
    for asset in assets.values() if isinstance(assets, dict) else ():
        fields = asset if isinstance(asset, dict) else {}
        bands = fields.get("raster:bands")
        band = bands[0] if isinstance(bands, list) and bands and isinstance(bands[0], dict) else {}
        scale = as_number(band.get("scale", fields.get("raster:scale")))
        offset = as_number(band.get("offset", fields.get("raster:offset")))
        if scale and offset is not None:
            told.add(round(offset / scale, 6))
    return dict.fromkeys(_BAND_IDS, told.pop()) if len(told) == 1 else None


_BAND_IDS = {"blue": 1, "green": 2, "red": 3, "nir": 7, "swir1": 11, "swir2": 12}  # B8A is 8, which shifts the rest
_BASELINES = ("s2:processing_baseline", "processing:version")
_NEW = 4.0  # the first baseline with an offset, of 25 January 2022
_OWN = 99.0  # of products that users made themselves, with any version


def _level(kind: object) -> str | None:
    """The level in a type of product, such as S2MSI2A."""
    return kind[-2:] if isinstance(kind, str) and kind.startswith("S2MSI") else None


def properties_of(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """The properties of a GeoJSON feature; none where it has none."""
    properties = item.get("properties")
    return properties if isinstance(properties, dict) else {}


def as_number(stored: object) -> float | None:
    """A finite number; None where it is not given or is none."""
    if isinstance(stored, bool) or not isinstance(stored, str | int | float):
        return None
    try:
        number = float(stored)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def as_share(stored: object, *, percent: bool = False) -> float | None:
    """A share, 0..1, of a number that is one or counts in percent; None where it is not given, or can be neither."""
    number = as_number(stored)
    if number is None or not 0 <= number <= _PERCENT:
        return None
    return number / _PERCENT if percent or number > 1 else number


_PERCENT = 100


def check_facts(facts: Iterable[Facts], scene: str, image: RasterInfo) -> None:
    """Metadata must be of the image's scene, and of its place.

    Raises:
        DataError: If they are not.
    """
    for one in facts:
        if one.identifier is not None and not f"{one.identifier}_".lower().startswith(f"{scene.lower()}_"):
            msg = f"{one.path.name} is of another scene, {one.identifier}; fetch the metadata of this one"
            raise DataError(msg)
        if one.footprint is not None and _lies_elsewhere(one.footprint, image.geobox):
            msg = f"{one.path.name} describes another place than {image.path.name} covers; fetch both from one order"
            raise DataError(msg)


def about_clouds(facts: Iterable[Facts | Radiometry]) -> list[str]:
    """A sentence on what the metadata say of clouds; none where they are silent."""
    cover = next((one.cloud_cover for one in facts if one.cloud_cover is not None), None)
    return [] if cover is None else [f"its metadata tell {cover:.0%} cloud cover"]


def _lies_elsewhere(footprint: npt.NDArray[np.float64], geobox: GeoBox) -> bool:
    """Whether corners (n, 2) in degrees, longitude before latitude, are of another place than a grid.

    The boxes around both are compared in the grid's own pixels, where no place is cut by the antimeridian.
    """
    points = np.column_stack(to_pixels(geobox, CRS("EPSG:4326"), *footprint.T))
    points = points[np.isfinite(points).all(axis=1)]
    size = (geobox.width, geobox.height)
    return not (len(points) and (points.max(axis=0) >= 0).all() and (points.min(axis=0) <= size).all())


def _as_corners(pairs: Iterable[list[str]]) -> npt.NDArray[np.float64] | None:
    """Pairs of texts as corners (n, 2); None where there are none, or one is not a pair of numbers."""
    corners = [[as_number(text) for text in pair] for pair in pairs]
    if not corners or any(len(pair) != 2 or None in pair for pair in corners):
        return None
    return np.array(corners, float)
