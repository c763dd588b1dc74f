"""A synthetic Arctic for a network to begin from: simulated scenes as rasters of 9 m, about as Sentinel-2 sees them.

python benchmarks/pretraining.py --work /tmp/pretraining
thawmap train /tmp/pretraining/thawmap.yaml --out /tmp/pretraining/model
thawmap crossval examples/s2-rts.yaml --out runs/pretrained --set model.weights=/tmp/pretraining/model

The simulator's PlanetScope scenes of 3 m are brought to three times the pixel with thawmap's own reading, labels burnt
on that grid, and written as `examples/s2-rts.yaml` reads the real ones. For PlanetScope no such step is needed: train
on what `thawmap simulate` made, and name the bundle in `model.weights`.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
from odc.geo.geobox import GeoBox

from thawmap.config import load
from thawmap.data.project import Project
from thawmap.data.sources.base import Scene
from thawmap.data.stack import Stack, assemble
from thawmap.simulate.project import Simulation, simulate

COARSER = 3
OPTICAL = ("blue", "green", "red", "nir")
STORED = {
    "s2.tif": [(name, 1e-4, 0.0) for name in OPTICAL],
    "dem.tif": [("slope", 0.01, 0.0), ("relative_elevation", 1 / 300, -50.0)],
}  # file: layer, scale and offset of each band

YAML = """\
project: pretraining
scenes:
  kind: rasters
  table: scenes.csv
  files:
    s2.tif:
      blue: {band: 1, scale: 0.0001}
      green: {band: 2, scale: 0.0001}
      red: {band: 3, scale: 0.0001}
      nir: {band: 4, scale: 0.0001}
    dem.tif:
      slope: {band: 1, scale: 0.01}
      relative_elevation: {band: 2, scale: 0.0033333333, offset: -50}
layers: [blue, green, red, nir, ndvi, relative_elevation, slope]
labels: {raster: mask.tif, ignore: 255}
tiles: {size: 256, overlap: 64}
model: {architecture: unet, encoder: resnet34}
augment: {radiometry: {probability: 0.5}}
training:
  precision: bfloat16
  phases: [{name: sparse, epochs: 25, tiles: positive}]
split: {by: region, validation: [cliffs]}
"""


def write(path: Path, grid: GeoBox, bands: list[npt.NDArray[Any]], dtype: str, nodata: int | None) -> None:
    """One GeoTIFF."""
    about = {"width": grid.width, "height": grid.height, "crs": grid.crs.to_wkt(), "transform": grid.affine}
    kind = {"driver": "GTiff", "count": len(bands), "dtype": dtype, "nodata": nodata, "compress": "deflate"}
    with rasterio.open(path, "w", **about, **kind) as file:
        file.write(np.stack(bands).astype(dtype))


def stored(stack: Stack, name: str, scale: float, offset: float) -> npt.NDArray[Any]:
    """A layer as whole numbers from 1, 0 = missing."""
    values, usable = stack[name], stack["valid"]
    numbers = np.clip(np.round((values - offset) / scale), 1, 65535)
    return np.where(np.isfinite(values) & usable, numbers, 0)


def coarsen(scene: Scene, project: Project, folder: Path) -> dict[str, str]:
    """Write a scene on a coarser grid; its row of the table."""
    grid = scene.geobox.zoom_out(COARSER)
    names = [name for bands in STORED.values() for name, _, _ in bands]
    stack = assemble(scene, names, grid, project.sources)
    folder.mkdir(parents=True, exist_ok=True)
    for file, bands in STORED.items():
        write(folder / file, grid, [stored(stack, *band) for band in bands], "uint16", 0)
    write(folder / "mask.tif", grid, [project.labels.burn(scene, grid)], "uint8", None)
    return {"id": scene.id, "region": str(scene.region), "path": folder.name, "acquired": f"{scene.acquired:%Y-%m-%d}"}


def main() -> None:
    """Simulate, coarsen, write the YAML."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=2, help="places in each of six regions")
    parser.add_argument("--size", type=int, default=2304, help="side of an image in pixels of 3 m")
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    fine = options.work / "arctic"
    if not (fine / "thawmap.yaml").exists():
        simulate(fine, Simulation(regions=6, scenes_per_region=options.scenes, size=options.size, seed=options.seed))
    project = Project(load(fine / "thawmap.yaml"))
    rows = [coarsen(project.open(one), project, options.work / one.id) for one in project.candidates()]
    pd.DataFrame(rows).to_csv(options.work / "scenes.csv", index=False)
    (options.work / "thawmap.yaml").write_text(YAML, encoding="utf-8")
    print(f"{len(rows)} scenes; next: thawmap train {options.work / 'thawmap.yaml'} --out {options.work / 'model'}")


if __name__ == "__main__":
    main()
