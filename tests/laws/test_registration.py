"""Co-registration: one truth, a function of longitude and latitude, on several grids, read onto the scene's."""

from dataclasses import dataclass

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from thawmap.config import ElevationSettings, Precomputed, TrendSettings
from thawmap.data.sources.bands import BandSource
from thawmap.data.sources.base import Reading, Scene
from thawmap.data.sources.elevation import ElevationSource
from thawmap.data.sources.trends import TrendSource
from thawmap.data.stack import assemble
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window

DEGREES, UTM, POLAR = "EPSG:4326", "EPSG:32612", "EPSG:3413"
LON, LAT = -110.0, 73.0  # where UTM and the polar grid are turned by 66 degrees against each other
METRES = 111_195 * np.array([np.cos(np.radians(LAT)), 1.0])  # of a degree of longitude and of latitude
WINDOW = Window(row=37, col=61, height=143, width=160)
CLOSE_PX = 0.05


def around(crs, *, shape, pixel):
    """A north-up grid whose middle is the place."""
    x, y = Transformer.from_crs(DEGREES, crs, always_xy=True).transform(LON, LAT)
    return GeoBox(
        shape,
        Affine(pixel[0], 0, x - pixel[0] * shape[1] / 2, 0, -pixel[1], y + pixel[1] * shape[0] / 2),
        crs,
    )


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer's file: its grid, the lengths of the waves in it, and how it is stored."""

    grid: GeoBox
    wave_m: float
    dtype: str
    scale: float
    offset: float
    band: int = 1
    bands: int = 1


GRID = around(UTM, shape=(240, 260), pixel=(3, 3))
OWN = around(POLAR, shape=(640, 650), pixel=(2, 2))
LAYERS = {
    "red": Layer(grid=GRID, wave_m=60, dtype="uint16", scale=1e-4, offset=0, band=3, bands=4),
    "nir": Layer(grid=around(UTM, shape=(90, 95), pixel=(10, 10)), wave_m=150, dtype="uint16", scale=1e-4, offset=0),
    "relative_elevation": Layer(grid=OWN, wave_m=60, dtype="uint16", scale=1 / 300, offset=-50),
    "slope": Layer(grid=OWN, wave_m=90, dtype="uint16", scale=0.01, offset=0),
    "elevation": Layer(grid=OWN, wave_m=60, dtype="float32", scale=1, offset=0),
    "tc_greenness": Layer(
        grid=around(DEGREES, shape=(60, 62), pixel=(9.2e-4, 2.7e-4)),
        wave_m=450, dtype="uint8", scale=0.24 / 255, offset=-0.12, band=2, bands=3,
    ),
}  # fmt: skip
HEIGHT = {"red": 0.2, "nir": 0.2, "relative_elevation": 20, "slope": 20, "elevation": 20, "tc_greenness": 0.1}


def truth(name, lon, lat):
    """The layer at a place: waves in three directions, sure to have slopes along both axes."""
    x, y = (np.stack([lon - LON, lat - LAT]).T * METRES).T
    waves = [
        np.sin(2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / (LAYERS[name].wave_m * factor) + turn)
        for turn, factor in ((0.3, 1.0), (1.5, 1.3), (2.6, 1.7))
    ]
    return HEIGHT[name] * np.sum(waves, axis=0) / 3 + {"red": 0.3, "nir": 0.3, "slope": 30}.get(name, 0)


def on_grid(name, grid, shift=(0.0, 0.0)):
    """The truth at the centres of a grid's pixels, or beside them by parts of a pixel."""
    rows, cols = grid.shape
    place = np.meshgrid(np.arange(cols) + 0.5 + shift[0], np.arange(rows) + 0.5 + shift[1])
    return truth(name, *Transformer.from_crs(str(grid.crs), DEGREES, always_xy=True).transform(*(grid.affine * place)))


def draw(path, name, moved_px=0.0):
    """Write a layer's file; with ``moved_px`` it says that it lies so many of its pixels further along its rows."""
    layer = LAYERS[name]
    stored = (on_grid(name, layer.grid) - layer.offset) / layer.scale
    if not layer.dtype.startswith("float"):
        stored = np.round(stored)
    path.parent.mkdir(exist_ok=True)
    rows, cols = layer.grid.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=cols, height=rows, count=layer.bands, dtype=layer.dtype,
        crs=str(layer.grid.crs), transform=layer.grid.affine * Affine.translation(moved_px, 0),
    ) as file:  # fmt: skip
        file.write(np.broadcast_to(stored.astype(layer.dtype), (layer.bands, rows, cols)))
    return path


def read(folder, names, moved_px=0.0):
    """The stack of a window of the scene, by `assemble`; the layers' files are moved."""
    files = {name: draw(folder / name / f"{name}.tif", name, moved_px) for name in names}
    coded = {name: {"scale": LAYERS[name].scale, "offset": LAYERS[name].offset} for name in LAYERS}
    readings = {
        name: Reading(file=name, band=LAYERS[name].band, **coded[name]) for name in ("red", "nir") if name in files
    }
    before = {
        key: Precomputed(path=files[name], **coded[name])
        for name, key in (("relative_elevation", "relative_elevation"), ("slope", "slope_degrees"))
        if name in files
    }
    sources = [BandSource(frozenset(readings))]
    if before or "elevation" in files:
        sources.append(ElevationSource(ElevationSettings(path=files.get("elevation"), **before)))
    if "tc_greenness" in files:
        sources.append(TrendSource(TrendSettings(path=files["tc_greenness"])))
    scene = Scene(id="s", sensor="test", geobox=GRID, files=files, readings=readings)
    stack = assemble(scene, names, window_geobox(GRID, WINDOW), sources)
    assert stack["valid"].all()
    return stack


def shift_px(name, values):
    """How far (columns, rows) the values lie beside the truth, in pixels of the scene, by least squares.

    To first order values = height * (truth - shift * its slope) + level; means are lower than what they are of.
    """
    here = window_geobox(GRID, WINDOW)
    across = on_grid(name, here, (0.05, 0)) - on_grid(name, here, (-0.05, 0))
    down = on_grid(name, here, (0, 0.05)) - on_grid(name, here, (0, -0.05))
    terms = [on_grid(name, here), across / 0.1, down / 0.1, np.ones(here.shape)]
    height, *moved, _ = np.linalg.lstsq(np.stack([term.ravel() for term in terms], axis=1), values.ravel())[0]
    assert 0.8 < height < 1.05
    return -np.array(moved) / height


def scene_px_of_a_pixel(name):
    """Where one pixel along the rows of a layer's file leads to, in pixels (columns, rows) of the scene."""
    grid = LAYERS[name].grid
    col, row = grid.width / 2, grid.height / 2
    x, y = grid.affine * (np.array([col, col + 1]), np.array([row, row]))
    place = ~GRID.affine * Transformer.from_crs(str(grid.crs), UTM, always_xy=True).transform(x, y)
    return np.array([axis[1] - axis[0] for axis in place])


@pytest.mark.slow
def test_every_layer_of_a_stack_lies_where_it_belongs(tmp_path):
    """To a twentieth of the scene's pixel, 15 cm, though the files' own reach from 2 m to 30 m."""
    stack = read(tmp_path, list(LAYERS))
    for name in LAYERS:
        assert np.hypot(*shift_px(name, stack[name])) < CLOSE_PX, name


@pytest.mark.parametrize("name", LAYERS)
def test_half_a_pixel_beside_is_seen(tmp_path, name):
    """The test above fails for a file that says it lies half of its pixels beside; and this says which way."""
    step = scene_px_of_a_pixel(name)
    moved = shift_px(name, read(tmp_path, [name], moved_px=0.5)[name])
    assert np.hypot(*moved) > CLOSE_PX
    np.testing.assert_allclose(moved, 0.5 * step, atol=0.05 * np.hypot(*step))
