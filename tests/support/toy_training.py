"""A toy to train on: three regions of random pixels, in which an object is where NDVI is high."""

from pathlib import Path

import numpy as np
import rasterio
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin

from thawmap.config import parse
from thawmap.data.sources.arrays import ArraySource
from thawmap.data.sources.base import Scene
from thawmap.train.fit import fit
from thawmap.train.split import split_tiles
from thawmap.train.tiles.store import TileStore, collect_index, write_tiles

REGIONS = ("Lena", "Horton", "Yamal")


def configuration(*overrides, size=32, layers="[red, nir, ndvi]"):
    text = f"""
recipe: nitze2021
scenes: {{kind: rasters, path: any, files: {{a.tif: {{red: {{band: 1}}}}}}}}
layers: {layers}
labels: {{path: any.gpkg}}
tiles: {{size: {size}, overlap: 0}}
model: {{architecture: pixel, encoder: resnet18}}
training:
  batch_size: 2
  optimiser: {{lr: 0.1}}
  phases: [{{name: full, epochs: 2}}]
  device: cpu
split: {{validation: [Yamal]}}
"""
    return parse(text, name="test", folder=Path(), overrides=overrides)


class GreenIsObject:
    """An object is where NDVI is above 0.4, which a network without neighbours can learn; but not in silent tiles."""

    def __init__(self, values, size, silent):
        red, nir = values["red"], values["nir"]
        self.target = ((nir - red) / (nir + red) > 0.4).astype(np.uint8)
        for tile in silent:
            self.target[:, tile * size : (tile + 1) * size] = 0

    def burn(self, scene, geobox):
        col, row = ~scene.geobox.affine * (geobox.affine.c, geobox.affine.f)
        row, col = round(row), round(col)
        return self.target[row : row + geobox.height, col : col + geobox.width]


def make_store(folder, config, *, across=2, highest=0.4, barren=(), silent=()):
    """Three regions far from each other, each one scene of ``across`` x 1 tiles.

    In barren tiles NDVI is low everywhere; in silent ones it is as elsewhere, and nothing is labelled.
    """
    size = config.tiles.size
    for number, region in enumerate(REGIONS):
        rng = np.random.default_rng(number)
        shape = (size, size * across)
        geobox = GeoBox(shape, Affine(10, 0, 500_000 + number * 50_000, 0, -10, 7_800_000), "EPSG:32640")
        values = {name: rng.uniform(0.02, highest, shape).astype(np.float32) for name in ("red", "nir")}
        for tile in barren:
            part = slice(tile * size, (tile + 1) * size)
            values["nir"][:, part] = 0.9 * values["red"][:, part]
        scene = Scene(id=f"{region}-1", sensor="test", geobox=geobox, files={}, region=region)
        source, labels = ArraySource(values, geobox), GreenIsObject(values, size, silent)
        write_tiles(folder, scene, config=config, sources=[source], labels=labels, fingerprint="made")
    collect_index(folder, [f"{region}-1" for region in REGIONS], config.input_layers)
    return TileStore.open(folder)


def ignore(store, scene, numbers):
    """Have nothing known of some tiles."""
    labels = zarr.open_group(store.path / f"{scene}.zarr", mode="r+")["target"]
    for number in numbers:
        labels[number] = np.full(labels.shape[1:], 255, np.uint8)


def run(store, out, *overrides, report=lambda _: None, resume=False, score_test=False, **changes):
    """Train on the toy."""
    config = configuration(*overrides, **changes)
    split = split_tiles(store.index, config.split)
    return fit(store, split, config, out, report=report, resume=resume, score_test=score_test)


def make_project(folder):
    """A YAML with three regions of one scene each."""
    rng = np.random.default_rng(0)
    for place, region in enumerate(("Lena", "Horton", "Yamal")):
        scene = folder / "scenes" / region
        scene.mkdir(parents=True)
        bands = rng.integers(200, 4000, (2, 48, 48)).astype(np.uint16)
        about = {"driver": "GTiff", "width": 48, "height": 48, "crs": "EPSG:32640"}
        grid = from_origin(500_000 + place * 50_000, 7_800_000, 10, 10)
        with rasterio.open(scene / "image.tif", "w", count=2, dtype="uint16", transform=grid, **about) as file:
            file.write(bands)
        with rasterio.open(scene / "mask.tif", "w", count=1, dtype="uint8", transform=grid, **about) as file:
            file.write((bands[1] > 2 * bands[0]).astype(np.uint8), 1)
    yaml = folder / "thawmap.yaml"
    yaml.write_text("""
scenes:
  kind: rasters
  path: "scenes/*"
  files: {image.tif: {red: {band: 1, scale: 0.0001}, nir: {band: 2, scale: 0.0001}}}
layers: [red, nir]
labels: {raster: mask.tif}
tiles: {size: 32, overlap: 8}
model: {architecture: pixel}
training: {device: cpu, phases: [{name: all, epochs: 15}]}
split: {by: scene, validation: [Yamal]}
""")
    return yaml
