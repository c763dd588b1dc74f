"""Sentinel-2 scenes as catalogues have them: a folder of items and small COGs, which tests/servers/stac.py serves."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import rasterio
import shapely
from affine import Affine

from thawmap.geo.shapes import to_lonlat

UTM = "EPSG:32607"
CORNER = (580_020.0, 7_720_020.0)
SIDE = 240  # pixels of 10 m; a multiple of 60 m, as the real tiles are
TILES = {"07WDV": 0, "07WEV": 180}
"""Tile to the column of the ground at which it begins: they share 60 columns."""
DATES = {"20210612T205019": 0.0, "20210702T205019": 0.02, "20210717T205019": 0.6, "20210728T205019": 0.04}
"""Datatake to the share of each tile that is under clouds."""
BANDS = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir16": "B11", "scl": "SCL"}
COARSE = ("swir16", "scl")
LEVELS = {"blue": 0.05, "green": 0.08, "red": 0.07, "nir": 0.3, "swir16": 0.2}

CONVENTIONS = ("c1", "old", "pc", "cdse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One tile of one datatake, as a catalogue has it.

    Attributes:
        tile: The tile.
        sensed: Start of the datatake.
        convention: The catalogue's: c1, old, pc or cdse.
        baseline: Processing baseline.
        cloud: Share under clouds.
    """

    tile: str
    sensed: str
    convention: str = "c1"
    baseline: str = "05.00"
    cloud: float = 0.0

    @property
    def product(self):
        digits = self.baseline.replace(".", "")
        return f"S2B_MSIL2A_{self.sensed}_N{digits}_R099_T{self.tile}_20230{digits[1]}0{digits[3]}T101112"

    @property
    def id(self):
        return {
            "c1": f"S2B_T{self.tile}_{self.sensed[:-2]}33_L2A",
            "old": f"S2B_{self.tile}_{self.sensed[:8]}_0_L2A",
            "pc": self.product.replace(f"_N{self.baseline.replace('.', '')}", ""),
            "cdse": self.product,
        }[self.convention]

    @property
    def collection(self):
        return "sentinel-2-c1-l2a" if self.convention == "c1" else "sentinel-2-l2a"

    def transform(self, size=10):
        return Affine(size, 0, CORNER[0] + 10 * TILES[self.tile], 0, -size, CORNER[1])

    def outline(self):
        x = CORNER[0] + 10 * TILES[self.tile]
        return to_lonlat(shapely.box(x, CORNER[1] - 10 * SIDE, x + 10 * SIDE, CORNER[1]), UTM)

    def reflectance(self, band):
        """True reflectance (y, x), a multiple of 0.0001; NaN where the sensor saw nothing."""
        whole = ground(band, int(self.sensed[4:8]))
        left = TILES[self.tile]
        values = whole[:, left : left + SIDE].copy()
        values[:, : int(SIDE * self.cloud)] = 0.8
        values[-36:, -12:] = np.nan
        return values if band not in COARSE else values[::2, ::2]

    def classes(self):
        """Scene classification (y, x) at 20 m: vegetation, clouds, their shadow, and no data."""
        values = np.full((SIDE // 2, SIDE // 2), 4, np.uint8)
        edge = int(SIDE * self.cloud) // 2
        values[:, :edge] = 9
        values[:, edge : edge + 2] = 3 if edge else 4
        values[-18:, -6:] = 0
        return values

    def stored(self, band):
        """Stored numbers (y, x), as the catalogue's files have them."""
        if band == "scl":
            return self.classes()
        is_shifted = float(self.baseline) >= 4 and self.convention != "old"
        values = self.reflectance(band)
        numbers = np.round(np.nan_to_num(values) * 10_000) + (1000 if is_shifted else 0)
        return np.where(np.isnan(values), 0, numbers).astype(np.uint16)

    def asset_name(self, band):
        metres = 20 if band in COARSE else 10
        return {"pc": BANDS[band], "cdse": f"{BANDS[band]}_{metres}m"}.get(self.convention, band)

    def item(self):
        """The STAC item, with hrefs relative to the folder."""
        outline = self.outline()
        return {
            "type": "Feature",
            "stac_version": "1.1.0" if self.convention == "cdse" else "1.0.0",
            "stac_extensions": [],
            "id": self.id,
            "collection": self.collection,
            "geometry": shapely.geometry.mapping(outline),
            "bbox": list(outline.bounds),
            "links": [],
            "properties": self._properties(),
            "assets": {self.asset_name(band): self._asset(band) for band in BANDS} | self._others(),
        }

    def _properties(self):
        time = datetime.strptime(f"{self.sensed}+0000", "%Y%m%dT%H%M%S%z").isoformat().replace("+00:00", "Z")
        common = {"datetime": time, "eo:cloud_cover": 100 * self.cloud, "created": "2023-02-01T00:00:00Z"}
        take = f"GS2B_{self.sensed}_026649_N{self.baseline}"
        own = {
            "s2:processing_baseline": self.baseline,
            "s2:datatake_id": take,
            "s2:product_uri": f"{self.product}.SAFE",
        }
        if self.convention == "pc":
            return {**common, **own, "platform": "Sentinel-2B", "s2:mgrs_tile": self.tile, "s2:product_type": "S2MSI2A"}
        if self.convention == "cdse":
            return {
                **common,
                "platform": "sentinel-2b",
                "grid:code": f"MGRS-{self.tile}",
                "processing:version": self.baseline,
            }
        flag = {"earthsearch:boa_offset_applied": float(self.baseline) >= 4} if self.convention == "old" else {}
        return {**common, **own, **flag, "platform": "sentinel-2b", "grid:code": f"MGRS-{self.tile}"}

    def _asset(self, band):
        is_jp2 = self.convention == "cdse"
        href = f"{'s3://eodata/' if is_jp2 else ''}{self.id}/{BANDS[band]}.{'jp2' if is_jp2 else 'tif'}"
        told = {"nodata": 0, "data_type": "uint16"}
        if band != "scl" and self.convention in ("c1", "old"):
            told |= {"scale": 0.0001, "offset": -0.1}
        bands = {} if self.convention in ("pc", "cdse") else {"raster:bands": [told]}
        return {"href": href, "roles": ["data"], **bands}

    def _others(self):
        if self.convention != "old":
            return {"thumbnail": {"href": f"{self.id}/thumbnail.jpg"}}
        return {"blue-jp2": {"href": "s3://sentinel-s2-l2a/tiles/B02.jp2", "roles": ["data"]}}

    def write(self, folder):
        """Write the item and its files."""
        for band, name in BANDS.items():
            _write(folder / self.id / name, self.stored(band), self.transform(20 if band in COARSE else 10), self)
        (folder / f"{self.id}.json").write_text(json.dumps(self.item()))


def ground(band, day):
    """True reflectance of the ground (y, x) on a day, a multiple of 0.0001, with three bare spots."""
    rows, cols = np.mgrid[:SIDE, : max(TILES.values()) + SIDE]
    level = LEVELS.get(band, 0.1)
    texture = np.random.default_rng(len(band)).normal(0, 0.01, rows.shape)
    values = level * (1 + 0.2 * np.sin(rows / 17 + day) * np.cos(cols / 23)) + texture
    for row, col in ((60, 70), (120, 210), (170, 330)):
        is_bare = (rows - row) ** 2 + (cols - col) ** 2 < 15**2
        values[is_bare] = {"nir": 0.18, "red": 0.16}.get(band, 0.12)
    return np.round(np.clip(values, 0.001, 1), 4)


def _write(path, values, transform, image):
    """One band as a small COG, or for CDSE as JPEG 2000 without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    form = {"count": 1, "height": height, "width": width, "dtype": values.dtype, "crs": UTM, "transform": transform}
    if image.convention == "cdse":
        form |= {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"}
    else:
        form |= {"driver": "COG", "blocksize": 128, "compress": "deflate", "nodata": 0}
    with rasterio.open(f"{path}.{'jp2' if image.convention == 'cdse' else 'tif'}", "w", **form) as file:
        file.write(values, 1)


def area_of_interest():
    """Ground that both tiles show a part of, and both together all of, in EPSG:4326."""
    x, y = CORNER
    return to_lonlat(shapely.box(x + 310, y - 2105, x + 3700, y - 325), UTM)


def write_catalogue(folder: Path, *, dates=None, tiles=tuple(TILES), convention="c1", baseline="05.00") -> Path:
    """Write images of dates and tiles into a folder, and return the path of aoi.geojson there."""
    folder.mkdir(parents=True, exist_ok=True)
    for sensed, cloud in (DATES if dates is None else dates).items():
        for tile in tiles:
            Image(tile=tile, sensed=sensed, convention=convention, baseline=baseline, cloud=cloud).write(folder)
    path = folder / "aoi.geojson"
    shape = {
        "type": "Feature",
        "properties": {"site": "Bank"},
        "geometry": shapely.geometry.mapping(area_of_interest()),
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [shape]}))
    return path


def catalogues(address, *, cdse=True):
    """The catalogues of the YAML's names, as tests/servers/stac.py serves them at an address."""
    from thawmap.acquire.stac.conventions import Catalogue  # noqa: PLC0415 - the hall needs httpx

    plain, signed = f"{address}/v1", f"{address}/api/stac/v1"
    return {
        "earth-search": Catalogue(name="earth-search", address=plain, collection="sentinel-2-c1-l2a", tells_cloud=True),
        "planetary-computer": Catalogue(name="planetary-computer", address=signed, collection="sentinel-2-l2a"),
        "cdse": Catalogue(name="cdse", address=plain, collection="sentinel-2-l2a"),
    }
