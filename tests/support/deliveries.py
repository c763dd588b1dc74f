"""Small scenes on disk as providers deliver them, for tests that need a folder full of them."""

import json
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

UTM = "EPSG:32608"
SHAPE = (9, 7)
TRANSFORM = Affine(3, 0, 570_000, 0, -3, 7_720_000)
UDM2 = ("clear", "snow", "shadow", "haze_light", "haze_heavy", "cloud", "confidence", "udm1")


def raster(path, values, names=None, *, transform=TRANSFORM, crs=UTM, nodata=None):
    """A GeoTIFF of (band, y, x)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    profile = {"count": count, "height": height, "width": width, "dtype": values.dtype, "crs": crs}
    with rasterio.open(path, "w", driver="GTiff", transform=transform, nodata=nodata, **profile) as file:
        file.write(values)
        if names is not None:
            file.descriptions = names
    return path


def reflectance(count, *, seed=0):
    """Stored reflectance (band, y, x), with some missing pixels."""
    stored = np.random.default_rng(seed).integers(200, 4000, (count, *SHAPE)).astype(np.uint16)
    stored[:, :1, :2] = 0
    return stored


def planet_scene(folder: Path, name: str, *, words="3B_AnalyticMS_SR_clip", seed=0, mask=True, metadata=True, **place):
    """A PlanetScope scene of an order: image, mask and metadata; the path of its image."""
    image = raster(folder / f"{name}_{words}.tif", reflectance(4, seed=seed), **place)
    if mask:
        bands = np.zeros((8, *SHAPE), np.uint8)
        bands[0] = 1
        bands[0, -1], bands[5, -1] = 0, 1
        raster(folder / f"{name}_3B_udm2_clip.tif", bands, UDM2, **place)
    if metadata:
        moment = f"{name[:4]}-{name[4:6]}-{name[6:8]}T04:29:59.08Z"
        content = {"id": name, "properties": {"acquired": moment, "cloud_cover": 0.1}}
        (folder / f"{name}_metadata.json").write_text(json.dumps(content), encoding="utf-8")
    return image


def sentinel_scene(folder: Path, *, bands=("blue", "green", "red", "nir", "scl"), baseline="05.11", seed=0, **place):
    """A folder of a Sentinel-2 scene with its STAC item; the folder."""
    for number, band in enumerate(bands):
        values = reflectance(1, seed=seed + number)
        raster(folder / f"{band}.tif", np.full((1, *SHAPE), 5, np.uint8) if band == "scl" else values, **place)
    moment = f"{folder.name[-8:-4]}-{folder.name[-4:-2]}-{folder.name[-2:]}T21:15:19Z"
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": folder.name, "geometry": None, "links": [], "assets": {},
        "properties": {"datetime": moment, "s2:processing_baseline": baseline, "eo:cloud_cover": 3.0,
                       "earthsearch:boa_offset_applied": False},
    }  # fmt: skip
    (folder / f"{folder.name}.json").write_text(json.dumps(item), encoding="utf-8")
    return folder
