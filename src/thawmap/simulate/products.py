"""Files as their owners deliver them: PlanetScope, ArcticDEM, Landsat trends.

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
from thawmap.simulate.coordinates import (
    cells_on_ground,
    in_lattice,
    lattice_under,
    outer_edge,
    polar_cells,
    polar_grid,
    to_utm,
    utm_grid,
)
from thawmap.simulate.imaging import CLEAR, CLOUD, HEAVY_HAZE, LIGHT_HAZE, SHADOW, SNOW, Sky, draw_sky, photograph
from thawmap.simulate.landscape import heights, visible
from thawmap.simulate.noise import Field, Lattice, Mask
from thawmap.simulate.reflectance import trends
from thawmap.simulate.sites import Site
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
_TREND_BLOCK_PX = 128
_TREND_STEP = 3  # pixels of the ground from point to point where trends are computed
_SMALLEST_PX = 12.0  # smaller slumps a person does not draw
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
    """One PlanetScope image of a site.

    Attributes:
        site: The site.
        footprint: The pixels of its files.
        sky: Its date, light and weather.
        satellite: Number of the satellite.
    """

    site: Site
    footprint: Lattice
    sky: Sky
    satellite: int

    @property
    def id(self) -> str:
        """Id in Planet's form: date, time and satellite.

        Since 2019 with hundredths of the second.
        """
        time = self.sky.acquired
        hundredths = f"_{time.microsecond // 10000:02d}" if time.year > 2018 else ""
        return f"{time:%Y%m%d_%H%M%S}{hundredths}_{self.satellite:04x}"

    @property
    def outline(self) -> shapely.Polygon:
        """Outline of the ground that the sensor saw, as a polygon in ground pixels.

        Its coordinates are (column, row): the footprint, or all of it but a strip beyond the edge of the swath.
        """
        edge, size = outer_edge(self.footprint), self.footprint.height
        if not self.sky.swath:
            return edge
        x, y = edge.centroid.coords[0]
        beyond = shapely.box(x - 2 * size, y - 2 * size, x + (self.sky.swath - 0.5) * size, y + 2 * size)
        turned = shapely.affinity.rotate(beyond, self.sky.tilt, origin=(x, y), use_radians=True)
        outline: shapely.Polygon = edge.difference(turned)  # type: ignore[assignment]
        return outline


def image_of(site: Site, date: int, satellite: int) -> Image:
    """Return a site's image on a date: footprint, sky and satellite, without pixels.

    Each second date sees the site from a slightly other orbit.
    """
    footprint = site.footprint
    if date % 2:
        rng = site.country.plane.rng(f"orbit {site.number}", date)
        down, right = (int(shift) for shift in rng.integers(-_PIXEL_SHIFT, _PIXEL_SHIFT + 1, 2))
        footprint = Lattice(
            row=footprint.row + down, col=footprint.col + right, height=footprint.height, width=footprint.width
        )
    sky = draw_sky(site.country, site.number, date, footprint)
    return Image(site=site, footprint=footprint, sky=sky, satellite=satellite)


def write_image(folder: Path, image: Image) -> None:
    """Write an image as Planet delivers it: two GeoTIFFs and a JSON of metadata.

    They are surface reflectance and udm2.
    """
    geobox = utm_grid(image.site.region, image.footprint)
    counts = np.zeros(CLOUD + 2, np.int64)
    with (
        io.raster_writer(folder / f"{image.id}_3B_AnalyticMS_SR_clip.tif", geobox, _OPTICAL) as optical,
        io.raster_writer(folder / f"{image.id}_3B_udm2_clip.tif", geobox, _UDM2) as udm2,
    ):
        for strip in Window.of_shape(image.footprint.shape).strips(_BLOCK_PX):
            exposed = [_expose(image, block) for block in strip.blocks(_BLOCK_PX)]
            reflectance, bands = (np.concatenate(blocks, axis=2) for blocks in zip(*exposed, strict=True))
            optical.write(strip.row, reflectance)
            udm2.write(strip.row, bands)
            counts[: CLOUD + 1] += bands[: CLOUD + 1].sum(axis=(1, 2), dtype=np.int64)
            counts[-1] += int((bands[6] > 0).sum())
    write_json(folder / f"{image.id}_metadata.json", _metadata(image, counts))


def _block_lattice(lattice: Lattice, block: Window) -> Lattice:
    """Return the part of a step-1 lattice that a block covers, as a lattice."""
    return Lattice(row=lattice.row + block.row, col=lattice.col + block.col, height=block.height, width=block.width)


def _expose(image: Image, block: Window) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """Return a block's reflectance (uint16) and udm2 bands (uint8) as in their files.

    Reflectance (4, row, column) x 10000, 0 beyond the swath; the eight bands of udm2 (8, row, column).
    """
    lattice = _block_lattice(image.footprint, block)
    reflectance, classes, confidence = photograph(image.site.country, image.sky, lattice)
    inside: Mask = np.ones(lattice.shape, bool)
    if image.sky.swath:
        x, y = outer_edge(image.footprint).centroid.coords[0]
        right, down = lattice.x[None, :] - x, lattice.y[:, None] - y
        across = right * np.cos(image.sky.tilt) + down * np.sin(image.sky.tilt)
        inside = across > (image.sky.swath - 0.5) * image.footprint.height
    optical = np.where(inside, np.clip(np.round(reflectance * 10000), 1, 65535), 0).astype(np.uint16)
    udm2 = np.empty((8, *lattice.shape), np.uint8)
    for band, class_ in enumerate((CLEAR, SNOW, SHADOW, LIGHT_HAZE, HEAVY_HAZE, CLOUD)):
        udm2[band] = (classes == class_) & inside
    udm2[6] = np.where(inside, confidence, 0)
    udm2[7] = np.where(inside, 2 * (classes == CLOUD), 1)  # bit 0: nothing was seen; bit 1: cloud
    return optical, udm2


def _metadata(image: Image, counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return an image's metadata as a dict: a GeoJSON feature in the form of Planet.

    Args:
        image: The image.
        counts: Number of pixels of each class, then that of all pixels that the sensor saw.
    """
    sky, region = image.sky, image.site.region
    outline = gpd.GeoSeries([to_utm(region, image.outline)], crs=f"EPSG:{region.epsg}").to_crs("EPSG:4326")
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
    """Return an image's active slumps as if drawn by hand: polygons in EPSG:4326.

    They are a GeoDataFrame, about a pixel off and cut at the image's edge; the smallest slumps are left out.
    """
    site, region, year = image.site, image.site.region, image.sky.year
    drawn = []
    for slump in visible(slumps_near(site.country, image.footprint), year=year):
        hand = site.country.plane.rng(f"hand {image.sky.name}", round(slump.row), round(slump.col))
        outline = slump.outline(year).buffer(0)
        sketch = outline.buffer(hand.normal(0, 0.3)).simplify(0.4).intersection(image.outline)
        polygon = max(shapely.get_parts(sketch), key=shapely.area, default=None)
        if isinstance(polygon, shapely.Polygon) and polygon.area > _SMALLEST_PX:
            drawn.append(to_utm(region, polygon))
    frame = gpd.GeoDataFrame(geometry=drawn, crs=f"EPSG:{region.epsg}").to_crs("EPSG:4326")
    return frame.assign(
        image_id=image.id,
        image_date=f"{image.sky.acquired:%Y-%m-%d}",
        region=region.name,
        site=site.name,
        label=1,
    )


def write_elevation(folder: Path, site: Site) -> None:
    """Write the heights around a site as ArcticDEM tiles, GeoTIFFs with a few gaps.

    Pixels of 2 m, polar stereographic.
    """
    cells = polar_cells(site.region, site.footprint.pad(_PIXEL_SHIFT), metres=_DEM_M, margin_m=_DEM_MARGIN_M)
    for tile in _tiles(cells):
        row, col = tile.row // _DEM_TILE_PX + 500, tile.col // _DEM_TILE_PX + 500
        path = folder / f"{site.name}_{row:03d}_{col:03d}_2m_dem.tif"
        with io.raster_writer(path, polar_grid(tile, _DEM_M), _DEM) as writer:
            for strip in Window.of_shape(tile.shape).strips(_BLOCK_PX):
                blocks = [_elevation(site, _block_lattice(tile, block)) for block in strip.blocks(_BLOCK_PX)]
                writer.write(strip.row, np.concatenate(blocks, axis=1))


def _tiles(cells: Lattice) -> Iterator[Lattice]:
    """Divide a lattice of polar cells at the edges of ArcticDEM's tiles; yield each."""
    for top in range(cells.row // _DEM_TILE_PX * _DEM_TILE_PX, cells.row + cells.height, _DEM_TILE_PX):
        for left in range(cells.col // _DEM_TILE_PX * _DEM_TILE_PX, cells.col + cells.width, _DEM_TILE_PX):
            row, col = max(top, cells.row), max(left, cells.col)
            yield Lattice(
                row=row, col=col, height=min(top + _DEM_TILE_PX, cells.row + cells.height) - row,
                width=min(left + _DEM_TILE_PX, cells.col + cells.width) - col,
            )  # fmt: skip


def _elevation(site: Site, cells: Lattice) -> Field:
    """Return polar cells' heights in metres as ArcticDEM stores them; -9999 in gaps.

    An array (row, column), rounded to 1/128 m.
    """
    rows, cols = cells_on_ground(site.region, cells, _DEM_M)
    lattice = lattice_under(rows, cols, step=1)
    ground = heights(site.country, lattice, year=_DEM_YEAR)
    height = ndimage.map_coordinates(ground, in_lattice(rows, cols, lattice), order=3, prefilter=False)
    plane = site.country.plane
    height += 0.05 * plane.noise("stereo", cells, longest_m=20, roughness=1.0)
    gaps = plane.noise("gaps", cells, longest_m=1500, shortest_m=90)
    stored: Field = np.where(
        gaps > NormalDist().inv_cdf(1 - _DEM_VOID), _DEM_NODATA, np.round(height * _DEM_STEPS) / _DEM_STEPS
    ).astype(np.float32)
    return stored


def write_trends(folder: Path, site: Site) -> None:
    """Write the Landsat trends around a site as one GeoTIFF of 30 m, polar projection."""
    cells = polar_cells(site.region, site.footprint.pad(_PIXEL_SHIFT), metres=_TREND_M, margin_m=_TREND_MARGIN_M)
    with io.raster_writer(folder / f"{site.name}_tcvis.tif", polar_grid(cells, _TREND_M), _TRENDS) as writer:
        for strip in Window.of_shape(cells.shape).strips(_TREND_BLOCK_PX):
            blocks = [_trend_codes(site, _block_lattice(cells, block)) for block in strip.blocks(_TREND_BLOCK_PX)]
            writer.write(strip.row, np.concatenate(blocks, axis=2))


def _trend_codes(site: Site, cells: Lattice) -> npt.NDArray[np.uint8]:
    """Return three Landsat trends of polar cells as bytes (3, row, column).

    0..255 stand for minus `TREND_RANGE` .. `TREND_RANGE` per decade.
    """
    rows, cols = cells_on_ground(site.region, cells, _TREND_M)
    lattice = lattice_under(rows, cols, step=_TREND_STEP)
    positions = in_lattice(rows, cols, lattice)
    values = np.stack([ndimage.map_coordinates(band, positions, order=1) for band in trends(site.country, lattice)])
    codes = np.round((values + TREND_RANGE) / (2 * TREND_RANGE) * 255)
    return np.clip(codes, 0, 255).astype(np.uint8)
