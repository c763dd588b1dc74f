"""A synthetic Arctic: scenes with thaw slumps, their elevation, trends, masks and labels, as a whole project.

For tests, demos and benchmarks: what is written runs as it is. The scenes of one region are neighbouring
places that do not overlap, each seen once, on a date of its own in the season of 2018 or 2019.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from scipy import ndimage
from shapely.affinity import affine_transform, rotate, translate
from shapely.geometry import Polygon

from thawmap.data import io
from thawmap.data.scenery import REGIONS, TREND_PX, TREND_RANGE, Region, Sky, draw_sky, photograph, trends
from thawmap.data.terrain import PIXEL_M, Field, Land, Mask, make_land, noise, relative_elevation, slope
from thawmap.errors import ConfigError

_Positions = npt.NDArray[np.float64]

_MARGIN_PX = 50
_DEM_M = 2.0
_POLAR = "EPSG:3413"

_OPTICAL = io.Encoding(
    dtype="uint16", bands=4, nodata=0, descriptions=("blue", "green", "red", "nir"), overviews="average"
)
_DEM = io.Encoding(
    dtype="uint16", bands=2, nodata=65535, descriptions=("slope", "relative_elevation"), overviews="average"
)
_TRENDS = io.Encoding(
    dtype="uint8", bands=3, descriptions=("tc_brightness", "tc_greenness", "tc_wetness"), overviews="average"
)
_USABLE = io.Encoding(dtype="uint8", descriptions=("usable",), overviews="nearest")
_SMALLEST_M2 = 100.0

_YAML = """\
# Simulated scenes with thaw slumps: a project that runs as it is, in minutes on a laptop.
project: simulated
scenes:
  kind: rasters
  table: scenes.csv
  files:
    optical.tif:
      blue: {{band: 1, scale: 0.0001}}
      green: {{band: 2, scale: 0.0001}}
      red: {{band: 3, scale: 0.0001}}
      nir: {{band: 4, scale: 0.0001}}
    dem.tif:
      slope: {{band: 1, scale: 0.01}}
      relative_elevation: {{band: 2, scale: 0.0033333333, offset: -50}}
    trends.tif:
      tc_brightness: {{band: 1, scale: {step:.9f}, offset: {low}}}
      tc_greenness: {{band: 2, scale: {step:.9f}, offset: {low}}}
      tc_wetness: {{band: 3, scale: {step:.9f}, offset: {low}}}
  valid: {{file: usable.tif, band: 1, usable: [1]}}
layers: [blue, green, red, nir, ndvi, relative_elevation, slope, tc_brightness, tc_greenness, tc_wetness]
labels: {{path: labels.gpkg, scene: image_id, region: region, target: label}}
tiles: {{size: 128, overlap: 16}}
model: {{architecture: unet, encoder: resnet18}}
training:
  batch_size: 4
  phases:
    - {{name: sparse, epochs: 10, tiles: positive}}
    - {{name: full, epochs: 4, tiles: all}}
split: {{by: region, validation: [{validation}], test: [{test}]}}
inference: {{overlap: 64}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What to invent.

    Attributes:
        seed: Seed of everything random; a scene depends on it, its region, its number and its size alone.
        regions: Number of regions, 2..6; the last is for test, the one before for validation.
        scenes_per_region: Scenes in each region, 1..20.
        size: Side of the square scenes in pixels of 3 m, 96..4096.

    Raises:
        ConfigError: If a number is out of its range.
    """

    seed: int = 0
    regions: int = 4
    scenes_per_region: int = 2
    size: int = 384

    def __post_init__(self) -> None:
        """Check every number."""
        allowed = {"seed": (0, 2**63), "regions": (2, 6), "scenes_per_region": (1, 20), "size": (96, 4096)}
        for name, (low, high) in allowed.items():
            got = getattr(self, name)
            if not low <= got <= high:
                msg = f"the simulation's {name} is {got}; choose a number from {low} to {high}"
                raise ConfigError(msg)


def simulate(folder: Path, settings: Simulation) -> Path:
    """Write a project of simulated scenes that runs as it is; the path of its ``thawmap.yaml``.

    The folder appears whole or not at all: ``scenes/<region>/<scene id>/`` with ``optical.tif``, ``dem.tif``,
    ``trends.tif`` and ``usable.tif``, then ``scenes.csv``, ``labels.gpkg`` and ``thawmap.yaml``. The same
    settings give the same pixels.

    Raises:
        ConfigError: If the folder exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder} exists and is not an empty folder; name a new one for the simulated scenes"
        raise ConfigError(msg)
    regions = REGIONS[: settings.regions]
    with io.atomic(folder) as partial:
        partial.mkdir(parents=True)
        scenes = [
            _write_scene(partial, region, number, settings)
            for region in regions
            for number in range(settings.scenes_per_region)
        ]
        io.write_vector(partial / "labels.gpkg", pd.concat([scene.labels for scene in scenes], ignore_index=True))
        io.write_text(partial / "scenes.csv", _table(scenes))
        io.write_text(partial / "thawmap.yaml", _yaml([region.name for region in regions]))
    return folder / "thawmap.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """A scene on disk: a row of the table, and its slumps."""

    id: str
    region: str
    path: str
    acquired: datetime
    labels: gpd.GeoDataFrame


def _write_scene(folder: Path, region: Region, number: int, settings: Simulation) -> _Written:
    """Invent one scene and write its four rasters."""
    rng = np.random.default_rng([settings.seed, REGIONS.index(region), number])
    far = _MARGIN_PX + -settings.size % TREND_PX
    inner = slice(_MARGIN_PX, _MARGIN_PX + settings.size)
    land = make_land(region.relief, settings.size + _MARGIN_PX + far, rng, inner=inner)
    sky = draw_sky(region, number, rng)
    image, clear = photograph(region, land, sky, rng)
    ground = _ground(region, number, settings.size, land.height.shape[0])
    grid = ground[inner, inner]
    seen = _seen(sky, settings.size, rng)
    inside = _inside(seen, settings.size)
    usable = clear[inner, inner] & inside
    name = f"{sky.acquired:%Y%m%d_%H%M%S}_{region.name}_{number + 1}"
    path = Path("scenes") / region.name / name
    (folder / path).mkdir(parents=True)
    stored = np.where(inside, np.clip(np.round(image[:, inner, inner] * 10000), 1, 65535), 0)
    io.write_raster(folder / path / "optical.tif", stored.astype(np.uint16), grid, encoding=_OPTICAL)
    io.write_raster(folder / path / "usable.tif", usable.astype(np.uint8), grid, encoding=_USABLE)
    codes = np.round((trends(land, rng) + TREND_RANGE) / (2 * TREND_RANGE) * 255)
    coarse = ground.zoom_out(TREND_PX)
    io.write_raster(folder / path / "trends.tif", np.clip(codes, 0, 255).astype(np.uint8), coarse, encoding=_TRENDS)
    dem_grid = _dem_grid(grid)
    io.write_raster(folder / path / "dem.tif", _elevation(land, ground, dem_grid, rng), dem_grid, encoding=_DEM)
    labels = _digitise(land, seen, ground, rng).assign(
        image_id=name, image_date=f"{sky.acquired:%Y-%m-%d}", region=region.name, label=1
    )
    return _Written(id=name, region=region.name, path=path.as_posix(), acquired=sky.acquired, labels=labels)


def _ground(region: Region, number: int, size: int, pixels: int) -> GeoBox:
    """The grid of the ground around a scene; the places of a region stand in a row, 600 m apart."""
    corner = CRS("EPSG:4326").transformer_to_crs(CRS(f"EPSG:{region.epsg}"))(region.lon, region.lat)
    step = (size + 2 * _MARGIN_PX) * PIXEL_M + 300
    west = 30 * round((corner[0] + number * step) / 30)
    north = 30 * round(corner[1] / 30)
    return GeoBox((pixels, pixels), Affine(PIXEL_M, 0, west, 0, -PIXEL_M, north), f"EPSG:{region.epsg}")


def _seen(sky: Sky, size: int, rng: np.random.Generator) -> Polygon:
    """What the sensor saw, in pixels (column, row): the scene, or all but a strip beyond the swath."""
    scene = shapely.box(0, 0, size, size)
    tilt = rng.uniform(3, 12) + rng.choice([0, 180])
    strip = shapely.box(-size, -size, sky.swath * size, 2 * size)
    seen: Polygon = scene.difference(rotate(strip, tilt, origin=(size / 2, size / 2)))  # type: ignore[assignment]
    return seen if sky.swath else scene


def _inside(seen: Polygon, size: int) -> Mask:
    """Which pixels of the scene (row, column) have their centre in a polygon."""
    centres = np.arange(size) + 0.5
    shapely.prepare(seen)
    cols, rows = np.meshgrid(centres, centres)
    return np.asarray(shapely.contains_xy(seen, cols, rows), dtype=bool)


def _dem_grid(scene: GeoBox) -> GeoBox:
    """The 2 m grid in polar stereographic projection that covers a scene, with a margin of 60 m."""
    box = scene.boundingbox
    edge = (np.array([box.left, box.right] * 2), np.array([box.bottom, box.bottom, box.top, box.top]))
    x, y = (axis / _DEM_M for axis in _project(*edge, scene.crs, CRS(_POLAR)))
    margin = round(60 / _DEM_M)
    west, north = int(x.min()) - margin, int(y.max()) + margin
    shape = (north - int(y.min()) + margin, int(x.max()) - west + margin)
    return GeoBox(shape, Affine(_DEM_M, 0, _DEM_M * west, 0, -_DEM_M, _DEM_M * north), _POLAR)


def _elevation(land: Land, ground: GeoBox, grid: GeoBox, rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Slope and relative elevation on the DEM's own grid, as stored; 65535 where the ground is not known."""
    col, row = _positions(grid, ground)
    height = ndimage.map_coordinates(land.height, [row, col], order=3, cval=np.nan).astype(np.float32)
    height += 0.05 * noise((height.shape[0], height.shape[1]), rng, longest_m=20, roughness=1.0, pixel_m=_DEM_M)
    stored = np.stack(
        [
            100 * slope(height, pixel_m=_DEM_M),
            300 * (relative_elevation(height, pixel_m=_DEM_M, diameter_m=100) + 50),
        ]
    )
    known = np.isfinite(stored).all(axis=0)
    return np.where(known, np.clip(np.round(stored), 0, 65534), 65535).astype(np.uint16)


def _positions(grid: GeoBox, ground: GeoBox) -> tuple[Field, Field]:
    """Column and row in the ground (0 = the first pixel's centre) of every pixel of another grid.

    Projected exactly every 32 px and linear between: over so short a way projections differ from linear by
    less than a millimetre.
    """
    step = 32
    rows, cols = (np.arange(0, side + step, step) for side in grid.shape)
    x, y = grid.affine * tuple(np.meshgrid(cols + 0.5, rows + 0.5))
    lattice = ~ground.affine * _project(x, y, grid.crs, ground.crs)
    dense = np.indices(grid.shape, dtype=np.float32) / step
    col, row = (ndimage.map_coordinates(axis - 0.5, dense, order=1, output=np.float32) for axis in lattice)
    return col, row


def _project(x: _Positions, y: _Positions, origin: CRS | None, target: CRS | None) -> tuple[_Positions, _Positions]:
    """Coordinates in another CRS."""
    assert origin is not None
    assert target is not None
    east, north = origin.transformer_to_crs(target)(x, y)
    return np.asarray(east), np.asarray(north)


def _digitise(land: Land, seen: Polygon, ground: GeoBox, rng: np.random.Generator) -> gpd.GeoDataFrame:
    """Active slumps as a person would draw them, in EPSG:4326: about a pixel off, cut at the image's edge."""
    drawn = []
    for scar in land.scars:
        edge = scar.outline.buffer(rng.normal(0, 0.3)).simplify(0.4)
        visible = translate(edge, -_MARGIN_PX, -_MARGIN_PX).intersection(seen)
        part = max(shapely.get_parts(visible), key=shapely.area, default=visible)
        if scar.active and part.area * PIXEL_M**2 > _SMALLEST_M2:
            drawn.append(translate(part, _MARGIN_PX, _MARGIN_PX))
    a = ground.affine
    placed = [affine_transform(shape, [a.a, a.b, a.d, a.e, a.c, a.f]) for shape in drawn]
    return gpd.GeoDataFrame(geometry=placed, crs=str(ground.crs)).to_crs("EPSG:4326")


def _table(scenes: Sequence[_Written]) -> str:
    """The text of ``scenes.csv``."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "region", "path", "acquired"])
    writer.writerows([scene.id, scene.region, scene.path, f"{scene.acquired:%Y-%m-%dT%H:%M:%SZ}"] for scene in scenes)
    return text.getvalue()


def _yaml(regions: Sequence[str]) -> str:
    """The text of ``thawmap.yaml``: the last region tests; the one before validates if one is left."""
    validation = regions[-2] if len(regions) > 2 else ""
    return _YAML.format(validation=validation, test=regions[-1], step=2 * TREND_RANGE / 255, low=-TREND_RANGE)
