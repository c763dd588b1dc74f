"""Writes what the simulated satellites see as their owners deliver it: PlanetScope, ArcticDEM, Landsat trends.

Everything is made and written strip by strip, so that memory does not grow with a scene's height, and little with
its width.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage

from thawmap.data.raster import io
from thawmap.files.atomic import write_json
from thawmap.grid import Window
from thawmap.simulate.imaging import CLEAR, CLOUD, HEAVY_HAZE, LIGHT_HAZE, SHADOW, SNOW, Sky, draw_sky, photograph
from thawmap.simulate.landscape import heights, visible
from thawmap.simulate.noise import Field, Lattice, Mask
from thawmap.simulate.reflectance import trends
from thawmap.simulate.sites import Place, edge, grid, in_window, on_ground_of, polar_cells, polar_grid, to_map, window
from thawmap.simulate.slumps import slumps_near

TREND_RANGE = 0.12
"""Trends are stored between minus and plus this much per decade."""

_BLOCK_PX = 512
_DEM_M = 2.0
_DEM_YEAR = 2017.5
_DEM_TILE_PX = 4096
_DEM_MARGIN_M = 150.0
_DEM_STEPS = 128  # in a metre: what ArcticDEM rounds to
_DEM_VOID = 0.008  # share of the ground without elevation
_DEM_NODATA = -9999.0
_TREND_M = 30.0
_TREND_MARGIN_M = 150.0
_TREND_STEP = 3  # pixels of the ground from place to place where trends are made
_SMALLEST_PX = 12.0  # what a person does not draw
_PIXEL_SHIFT = 24  # greatest shift of the footprint between two dates

_OPTICAL = io.Encoding(
    dtype="uint16", bands=4, nodata=0, descriptions=("blue", "green", "red", "nir"), overviews="average"
)
_UDM2 = io.Encoding(
    dtype="uint8", bands=8, overviews="nearest",
    descriptions=("clear", "snow", "shadow", "haze_light", "haze_heavy", "cloud", "confidence", "udm1"),
)  # fmt: skip
_DEM = io.Encoding(dtype="float32", nodata=_DEM_NODATA, descriptions=("elevation",), overviews="average")
_TRENDS = io.Encoding(
    dtype="uint8", bands=3, descriptions=("tc_brightness", "tc_greenness", "tc_wetness"), overviews="average"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One PlanetScope image.

    Attributes:
        place: What it shows.
        footprint: The pixels of its files.
        sky: Its day.
        satellite: Number of the satellite.
    """

    place: Place
    footprint: Lattice
    sky: Sky
    satellite: int

    @property
    def id(self) -> str:
        """Planet's name for it; since 2019 with hundredths of the second."""
        time = self.sky.acquired
        hundredths = f"_{time.microsecond // 10000:02d}" if time.year > 2018 else ""
        return f"{time:%Y%m%d_%H%M%S}{hundredths}_{self.satellite:04x}"

    @property
    def seen(self) -> shapely.Polygon:
        """What the sensor saw, in pixels of the ground: the footprint, or all but a strip beyond the swath."""
        whole, size = edge(self.footprint), self.footprint.height
        if not self.sky.swath:
            return whole
        x, y = whole.centroid.coords[0]
        beyond = shapely.box(x - 2 * size, y - 2 * size, x + (self.sky.swath - 0.5) * size, y + 2 * size)
        turned = shapely.affinity.rotate(beyond, self.sky.tilt, origin=(x, y), use_radians=True)
        seen: shapely.Polygon = whole.difference(turned)  # type: ignore[assignment]
        return seen


def take(place: Place, date: int, satellite: int) -> Image:
    """The image of a place on one of its dates; each second date sees it from a slightly other orbit."""
    footprint = place.footprint
    if date % 2:
        rng = place.country.plane.rng(f"orbit {place.number}", date)
        down, right = (int(shift) for shift in rng.integers(-_PIXEL_SHIFT, _PIXEL_SHIFT + 1, 2))
        footprint = Lattice(
            row=footprint.row + down, col=footprint.col + right, height=footprint.height, width=footprint.width
        )
    sky = draw_sky(place.region, place.country, place.number, date, footprint)
    return Image(place=place, footprint=footprint, sky=sky, satellite=satellite)


def write_image(folder: Path, image: Image) -> None:
    """Write surface reflectance, udm2 and metadata into a folder."""
    geobox = grid(image.place.region, image.footprint)
    counts = np.zeros(CLOUD + 2, np.int64)
    with (
        io.raster_writer(folder / f"{image.id}_3B_AnalyticMS_SR_clip.tif", geobox, _OPTICAL) as optical,
        io.raster_writer(folder / f"{image.id}_3B_udm2_clip.tif", geobox, _UDM2) as udm2,
    ):
        for strip in Window.of_shape(image.footprint.shape).strips(_BLOCK_PX):
            parts = [_expose(image, block) for block in strip.blocks(_BLOCK_PX)]
            optical.write(strip.row, np.concatenate([part[0] for part in parts], axis=2))
            mask = np.concatenate([part[1] for part in parts], axis=2)
            udm2.write(strip.row, mask)
            counts[: CLOUD + 1] += mask[: CLOUD + 1].sum(axis=(1, 2), dtype=np.int64)
            counts[-1] += int((mask[6] > 0).sum())
    write_json(folder / f"{image.id}_metadata.json", _metadata(image, counts))


def _part(lattice: Lattice, block: Window) -> Lattice:
    """The places of a block of a lattice of step 1."""
    return Lattice(row=lattice.row + block.row, col=lattice.col + block.col, height=block.height, width=block.width)


def _expose(image: Image, block: Window) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """The stored numbers of a block: reflectance x 10000, and the eight bands of udm2."""
    place, lattice = image.place, _part(image.footprint, block)
    reflectance, shown, sure = photograph(place.region, place.country, image.sky, lattice)
    inside = _inside(image, lattice)
    optical = np.where(inside, np.clip(np.round(reflectance * 10000), 1, 65535), 0).astype(np.uint16)
    mask = np.empty((8, *lattice.shape), np.uint8)
    for band, what in enumerate((CLEAR, SNOW, SHADOW, LIGHT_HAZE, HEAVY_HAZE, CLOUD)):
        mask[band] = (shown == what) & inside
    mask[6] = np.where(inside, sure, 0)
    mask[7] = np.where(inside, 2 * (shown == CLOUD), 1)  # bit 0: nothing there; bit 1: cloud
    return optical, mask


def _inside(image: Image, lattice: Lattice) -> Mask:
    """Which pixels the sensor saw."""
    if not image.sky.swath:
        return np.ones(lattice.shape, bool)
    x, y = edge(image.footprint).centroid.coords[0]
    right, down = lattice.x[None, :] - x, lattice.y[:, None] - y
    across = right * np.cos(image.sky.tilt) + down * np.sin(image.sky.tilt)
    inside: Mask = across > (image.sky.swath - 0.5) * image.footprint.height
    return inside


def _metadata(image: Image, counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The item as Planet's API describes it: a GeoJSON feature."""
    sky, seen = image.sky, to_map(image.place.region, image.seen)
    outline = gpd.GeoSeries([seen], crs=f"EPSG:{image.place.region.epsg}").to_crs("EPSG:4326")
    imaged = max(int(counts[-1]), 1)
    percent = {
        name: round(100 * int(count) / imaged) for name, count in zip(_UDM2.descriptions, counts[:6], strict=False)
    }
    time = f"{sky.acquired:%Y-%m-%dT%H:%M:%S.%f}Z"
    return {
        "type": "Feature",
        "id": image.id,
        "geometry": json.loads(shapely.to_geojson(shapely.set_precision(outline.iloc[0], 1e-7))),
        "properties": {
            "acquired": time,
            "clear_percent": percent["clear"],
            "cloud_cover": round(int(counts[CLOUD]) / imaged, 4),
            "cloud_percent": percent["cloud"],
            "ground_control": True,
            "gsd": 3.7,
            "heavy_haze_percent": percent["haze_heavy"],
            "instrument": "PS2",
            "item_type": "PSScene",
            "light_haze_percent": percent["haze_light"],
            "pixel_resolution": 3,
            "provider": "planetscope",
            "published": time,
            "quality_category": "standard",
            "satellite_id": f"{image.satellite:04x}",
            "shadow_percent": percent["shadow"],
            "snow_ice_percent": percent["snow"],
            "sun_azimuth": round(float(np.degrees(sky.azimuth)), 1),
            "sun_elevation": round(float(np.degrees(sky.elevation)), 1),
            "updated": time,
            "visible_percent": percent["clear"],
        },
    }


def digitise(image: Image) -> gpd.GeoDataFrame:
    """Active slumps as a person would draw them, in EPSG:4326: about a pixel off, cut at the image's edge."""
    place, seen, year = image.place, image.seen, image.sky.year
    drawn = []
    for scar in visible(slumps_near(place.country, place.region.slumps, image.footprint), year=year):
        hand = place.country.plane.rng(f"hand {image.sky.name}", round(scar.row), round(scar.col))
        outline = scar.outline(year).buffer(0)
        shown = outline.buffer(hand.normal(0, 0.3)).simplify(0.4).intersection(seen)
        part = max(shapely.get_parts(shown), key=shapely.area, default=None)
        if isinstance(part, shapely.Polygon) and part.area > _SMALLEST_PX:
            drawn.append(to_map(place.region, part))
    frame = gpd.GeoDataFrame(geometry=drawn, crs=f"EPSG:{place.region.epsg}").to_crs("EPSG:4326")
    return frame.assign(
        image_id=image.id,
        image_date=f"{image.sky.acquired:%Y-%m-%d}",
        region=place.region.name,
        site=place.name,
        label=1,
    )


def write_elevation(folder: Path, place: Place) -> None:
    """Write the heights around a place as tiles of ArcticDEM: 2 m, polar stereographic, with a few gaps."""
    cells = polar_cells(place.region, place.footprint.pad(_PIXEL_SHIFT), metres=_DEM_M, margin_m=_DEM_MARGIN_M)
    for tile in _tiles(cells):
        row, col = tile.row // _DEM_TILE_PX + 500, tile.col // _DEM_TILE_PX + 500
        path = folder / f"{place.name}_{row:03d}_{col:03d}_2m_dem.tif"
        with io.raster_writer(path, polar_grid(tile, _DEM_M), _DEM) as writer:
            for strip in Window.of_shape(tile.shape).strips(_BLOCK_PX):
                parts = [_elevation(place, _part(tile, block)) for block in strip.blocks(_BLOCK_PX)]
                writer.write(strip.row, np.concatenate(parts, axis=1))


def _tiles(cells: Lattice) -> Iterator[Lattice]:
    """The parts of a piece of the polar grid that lie in one tile each."""
    for top in range(cells.row // _DEM_TILE_PX * _DEM_TILE_PX, cells.row + cells.height, _DEM_TILE_PX):
        for left in range(cells.col // _DEM_TILE_PX * _DEM_TILE_PX, cells.col + cells.width, _DEM_TILE_PX):
            row, col = max(top, cells.row), max(left, cells.col)
            yield Lattice(
                row=row, col=col, height=min(top + _DEM_TILE_PX, cells.row + cells.height) - row,
                width=min(left + _DEM_TILE_PX, cells.col + cells.width) - col,
            )  # fmt: skip


def _elevation(place: Place, cells: Lattice) -> Field:
    """Heights (row, column) of cells of the polar grid as stored; -9999 in gaps."""
    rows, cols = on_ground_of(place.region, cells, _DEM_M)
    lattice = window(rows, cols, step=1)
    ground = heights(place.country, place.region.slumps, lattice, year=_DEM_YEAR)
    height = ndimage.map_coordinates(ground, in_window(rows, cols, lattice), order=3, prefilter=False)
    plane = place.country.plane
    height += 0.05 * plane.noise("stereo", cells, longest_m=20, roughness=1.0)
    gaps = plane.noise("gaps", cells, longest_m=1500, shortest_m=90)
    stored: Field = np.where(
        gaps > NormalDist().inv_cdf(1 - _DEM_VOID), _DEM_NODATA, np.round(height * _DEM_STEPS) / _DEM_STEPS
    ).astype(np.float32)
    return stored


def write_trends(folder: Path, place: Place) -> None:
    """Write the Landsat trends around a place: 30 m, polar stereographic."""
    cells = polar_cells(place.region, place.footprint.pad(_PIXEL_SHIFT), metres=_TREND_M, margin_m=_TREND_MARGIN_M)
    side = 128
    with io.raster_writer(folder / f"{place.name}_tcvis.tif", polar_grid(cells, _TREND_M), _TRENDS) as writer:
        for strip in Window.of_shape(cells.shape).strips(side):
            parts = [_trend_codes(place, _part(cells, block)) for block in strip.blocks(side)]
            writer.write(strip.row, np.concatenate(parts, axis=2))


def _trend_codes(place: Place, cells: Lattice) -> npt.NDArray[np.uint8]:
    """Trends (3, row, column) of cells of the polar grid as stored, 0..255."""
    rows, cols = on_ground_of(place.region, cells, _TREND_M)
    lattice = window(rows, cols, step=_TREND_STEP)
    at = in_window(rows, cols, lattice)
    values = np.stack(
        [ndimage.map_coordinates(band, at, order=1) for band in trends(place.region, place.country, lattice)]
    )
    codes = np.round((values + TREND_RANGE) / (2 * TREND_RANGE) * 255)
    return np.clip(codes, 0, 255).astype(np.uint8)
