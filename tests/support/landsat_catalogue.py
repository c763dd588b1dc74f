"""A static catalogue of small Landsat scenes, made from a rule."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import rasterio
import shapely
from affine import Affine

from thawmap.geo.shapes import to_lonlat

BANDS = ("blue", "green", "red", "nir08", "swir16", "swir22")
CLEAR, CLOUD, FILL = 21824, 22280, 1
SIDE = 80
CORNER = (498_795.0, 7_699_995.0)


def area(metres=600.0, *, crs="EPSG:32608", corner=CORNER):
    """A square in the middle of the scenes, in EPSG:4326."""
    x, y = corner[0] + SIDE * 15, corner[1] - SIDE * 15
    return to_lonlat(shapely.box(x - metres, y - metres, x + metres, y + metres), crs)


def numbers(level, seed=0, side=SIDE):
    """Stored numbers (band, y, x) about a level."""
    random = np.random.default_rng(seed)
    return (9000 + level + random.integers(0, 400, (6, side, side))).astype(np.uint16)


def put_scene(
    folder,
    name="LC08_L2SP_066010_{day}_02_T1",
    *,
    time,
    stored,
    quality=CLEAR,
    saturation=0,
    crs="EPSG:32608",
    corner=CORNER,
    cloud=10.0,
    **changes,
):
    """Write a scene's files and its item; return the item's id."""
    identity = name.format(day=time.strftime("%Y%m%d"))
    home = folder / identity
    home.mkdir(parents=True)
    side = stored.shape[1]
    transform = Affine(30, 0, corner[0], 0, -30, corner[1])
    layers = dict(zip(BANDS, stored, strict=True))
    layers["qa_pixel"] = np.broadcast_to(np.uint16(quality) if np.isscalar(quality) else quality, (side, side))
    layers["qa_radsat"] = np.broadcast_to(
        np.uint16(saturation) if np.isscalar(saturation) else saturation, (side, side)
    )
    for key, values in layers.items():
        with rasterio.open(
            home / f"{key}.tif", "w", driver="GTiff", width=side, height=side, count=1, dtype="uint16", crs=crs,
            transform=transform, tiled=True, blockxsize=32, blockysize=32, compress="deflate",
            nodata=1 if key == "qa_pixel" else None if key == "qa_radsat" else 0,
        ) as file:  # fmt: skip
            file.write(values.astype(np.uint16), 1)
    outline = to_lonlat(shapely.box(corner[0], corner[1] - 30 * side, corner[0] + 30 * side, corner[1]), crs)
    scaled = {"raster:bands": [{"scale": 2.75e-05, "offset": -0.2, "nodata": 0}]}
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": identity,
        "collection": "landsat-c2-l2",
        "geometry": shapely.geometry.mapping(outline),
        "bbox": list(outline.bounds),
        "properties": {"datetime": time.strftime("%Y-%m-%dT%H:%M:%SZ"), "eo:cloud_cover": cloud},
        "assets": {key: {"href": f"{key}.tif", **(scaled if key in BANDS else {})} for key in layers},
        "links": [],
        **changes,
    }
    (home / f"{identity}.json").write_text(json.dumps(item))
    return identity


def put_catalogue(folder):
    """Write the catalog.json of all items below a folder; return its path."""
    links = [{"rel": "item", "href": str(path)} for path in sorted(folder.glob("*/*.json"))]
    path = folder / "catalog.json"
    path.write_text(
        json.dumps({"type": "Catalog", "stac_version": "1.0.0", "id": "x", "description": "", "links": links})
    )
    return path


def put_series(folder, years=range(2000, 2012), *, rise=20, **values):
    """Write a scene of each year, whose numbers rise by a step a year."""
    return [
        put_scene(
            folder,
            time=datetime(year, 7, 10, 20, tzinfo=UTC) + timedelta(days=int(year) % 5),
            stored=numbers(rise * (year - 2000), year),
            **values,
        )
        for year in years
    ]
