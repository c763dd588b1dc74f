"""Elevation, and relief layers derived from it on the DEM's own grid, then warped.

From any files of a DEM; or relative elevation and slope that were computed before, in the published encodings. A
window's values on the DEM's grid are those of the whole, bit for bit; warped to a scene's grid they agree as far as its
positions do, which are right to a thousandth of a pixel.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from odc.geo.geobox import GeoBox

from thawmap.config import ElevationSettings, Precomputed
from thawmap.data import terrain
from thawmap.data.raster.index import TileSets, tile_sets_under
from thawmap.data.raster.io import RasterInfo
from thawmap.data.raster.mosaic import Content, Values, View, coarseness, read_mosaic
from thawmap.data.sources.base import Scene
from thawmap.errors import DataError
from thawmap.files.records import read_object
from thawmap.geo.metres import North, check_metres, longest_side, north_of, pixel_metres
from thawmap.grid import Window

_HEIGHTS_M = (-500.0, 9000.0)  # of any ground on Earth, with some room
_METRES = {"metre": 1.0, "foot": 0.3048, "us_survey_foot": 1200 / 3937}
_UNITS = {
    "metre": ("", "m", "metre", "metres", "meter", "meters", "unknown"),
    "foot": ("ft", "foot", "feet", "international foot", "international feet"),
    "us_survey_foot": ("us survey foot", "us survey feet", "us-ft", "ft-us", "ftus", "foot_us", "us foot", "us ft"),
}
_KEYS = {"relative_elevation": "relative_elevation", "slope": "slope_degrees"}  # of the YAML, for layers
_POSSIBLE = {"relative_elevation": (-9500.0, 9500.0), "slope": (0.0, 90.0)}
_RANGES = {"slope": (0.0, 90.0), "hillshade": (0.0, 1.0)}  # which cubic interpolation may leave
_PREVIEW = 2.0  # times the scene's pixel from which on a grid is a preview
_MAX_RADIUS_PX = 4096  # of the circle, beyond a window
_CIRCLE_PX = 8  # pixels that a circle keeps along its diameter in a preview


@dataclass(frozen=True, slots=True)
class ElevationSource:
    """A source that reads elevation and relief layers from the settings' paths."""

    settings: ElevationSettings

    @property
    def layers(self) -> frozenset[str]:
        """Names of the layers that a DEM gives, if there is one, and of precomputed ones."""
        derived = _RECIPES if self.settings.path is not None else ()
        return frozenset(derived) | {name for name in _KEYS if self.settings.made_before(name) is not None}

    def read(self, scene: Scene, geobox: GeoBox, layers: Sequence[str]) -> Mapping[str, Values]:
        """Return a dict of layers (y, x), read or derived, on exactly ``geobox``.

        Float32 in metres, degrees, 1 or 1/m; NaN where missing. A grid at least twice as coarse as the scene's own is a
        preview: its layers come from a DEM as coarse as half of its pixels, and an eighth of the circle. Slopes are
        gentler there.

        Raises:
            DataError: If no file lies under the scene, one that is needed cannot be used, or heights cannot be.
            ConfigError: If a path holds no raster.
        """
        values: dict[str, Values] = {}
        for name in layers:
            precomputed = self.settings.made_before(name)
            if precomputed is not None:
                tile_sets = _precomputed_tiles(scene, geobox, name, precomputed)
                values[name] = read_mosaic(tile_sets, geobox, _precomputed_content(name, precomputed))[0]
        values |= self._derive(scene, geobox, [name for name in layers if name not in values])
        return {name: values[name].clip(*_RANGES[name]) if name in _RANGES else values[name] for name in layers}

    def files(self, scene: Scene) -> Sequence[Path]:
        """Return paths of the DEM's and precomputed layers' rasters that a scene touches.

        Raises:
            DataError: If there is none, or none can be used.
            ConfigError: If a path holds no raster.
        """
        files = []
        if self.settings.path is not None:
            files += _dem_tiles(scene, scene.geobox, self.settings.path).files(scene.geobox)
        for name in _KEYS:
            precomputed = self.settings.made_before(name)
            if precomputed is not None:
                files += _precomputed_tiles(scene, scene.geobox, name, precomputed).files(scene.geobox)
        return files

    def _derive(self, scene: Scene, geobox: GeoBox, layers: Sequence[str]) -> dict[str, Values]:
        """Return a dict of layers (y, x) derived from the DEM, on exactly ``geobox``.

        Each is warped as one band or, where it is a direction, as two.
        """
        settings = self.settings
        if not layers or settings.path is None:
            return {}
        bands = read_mosaic(
            _dem_tiles(scene, geobox, settings.path),
            geobox,
            _dem_content(settings),
            make=lambda view, window: _derive_bands(view, window, layers, settings),
            layers=sum(2 if name == "aspect" else 1 for name in layers),
            step=lambda grid: _preview_step(grid, geobox, scene.geobox, settings.window_m),
        )
        values, remaining = {}, list(bands)
        for name in layers:
            band = remaining.pop(0)
            values[name] = terrain.bearing(band, remaining.pop(0)) if name == "aspect" else band
        return values


def dem_versions(files: Iterable[Path]) -> list[str]:
    """Return names and versions of the mosaics that files are of, such as ArcticDEM v4.1.

    Sorted; as a JSON file of the same stem beside a raster says, which acquisition writes. Files without one count for
    nothing.
    """
    versions = set()
    for path in files:
        try:
            record = read_object(path.with_suffix(".json"))
        except (OSError, ValueError):
            continue
        if isinstance(record.get("mosaic"), str) and isinstance(record.get("version"), str):
            versions.add(f"{record['mosaic']} {record['version']}")
    return sorted(versions)


def _dem_tiles(scene: Scene, geobox: GeoBox, path: Path) -> TileSets:
    """Return the tile sets of a DEM; refuse a scene under which none of it lies."""
    setting = "sources.elevation.path"
    return tile_sets_under(
        scene.geobox, geobox, scene_id=scene.id, path=path, setting=setting, choose=_without_companions
    )


def _precomputed_tiles(scene: Scene, geobox: GeoBox, name: str, precomputed: Precomputed) -> TileSets:
    """Return a precomputed layer's tile sets; refuse a scene under which none lies."""
    setting = f"{_section(name)}.path"
    return tile_sets_under(scene.geobox, geobox, scene_id=scene.id, path=precomputed.path, setting=setting)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heights:
    """Heights (y, x) in a window of a DEM's grid, with all that recipes take."""

    height: terrain.Heights
    grid: GeoBox
    window: Window
    settings: ElevationSettings

    @property
    def pixel_m(self) -> terrain.Pixel:
        """Height and width of the pixels in metres; width by row on a grid of degrees."""
        return pixel_metres(self.grid, self.window.rows)

    @property
    def north(self) -> North:
        """Unit vectors to true north, along columns and rows, in the window's pixels."""
        return north_of(self.grid, self.window)


def _slopes_east_north(of: _Heights) -> list[Values]:
    """Return rises per metre to the east and to the north, a list of two arrays.

    The aspect is made of them, for they can be warped and averaged, which directions cannot.
    """
    return list(terrain.east_north(*terrain.gradient(of.height, pixel_m=of.pixel_m, method="horn"), of.north))


_RECIPES: Mapping[str, Callable[[_Heights], list[Values]]] = {
    "elevation": lambda of: [of.height],
    "relative_elevation": lambda of: [
        terrain.relative_elevation(of.height, pixel_m=of.pixel_m, diameter_m=of.settings.window_m)
    ],
    "slope": lambda of: [terrain.slope(of.height, pixel_m=of.pixel_m, method=of.settings.slope)],
    "aspect": _slopes_east_north,
    "hillshade": lambda of: [terrain.hillshade(of.height, pixel_m=of.pixel_m, north=of.north)],
    "curvature": lambda of: [terrain.curvature(of.height, pixel_m=of.pixel_m)],
}


def _derive_bands(view: View, window: Window, layers: Sequence[str], settings: ElevationSettings) -> Values:
    """Derive the bands (band, y, x) of relief layers in a window of a DEM's view.

    The window counts the view's grid.

    Heights are read with a margin: as wide as the circle of relative elevation, or the pixel that slopes look at.
    """
    check_metres(view.grid, window, name=str(settings.path))
    rows, cols = _circle_reach(view.grid, window, settings) if "relative_elevation" in layers else (1, 1)
    padded = window.pad(rows, cols)
    heights = _Heights(height=view.read(padded)[0], grid=view.grid, window=padded, settings=settings)
    return np.stack([band[window.within(padded)] for name in layers for band in _RECIPES[name](heights)])


def _circle_reach(grid: GeoBox, window: Window, settings: ElevationSettings) -> tuple[int, int]:
    """Return the radius of relative elevation's circle in rows and columns of a DEM.

    Values in a window depend on as many beyond it.

    Raises:
        DataError: If there are none, or so many that memory cannot hold them.
    """
    rows, _ = terrain.reach(pixel_metres(grid, window.rows), settings.window_m)
    padded_rows = window.pad(rows, 0).rows  # in degrees, a pixel is narrower there, and the circle more of them
    rows, cols = terrain.reach(pixel_metres(grid, padded_rows), settings.window_m)
    if min(rows, cols) < 1:
        side = longest_side(grid, padded_rows)
        msg = (
            f"'sources.elevation.window_m' is {settings.window_m:g} m, no wider than a pixel of {settings.path}, which "
            f"is {side:.3g} m; make it at least {np.ceil(2 * side):.0f}"
        )
        raise DataError(msg)
    if max(rows, cols) > _MAX_RADIUS_PX:
        msg = (
            f"'sources.elevation.window_m' is {settings.window_m:g} m, {2 * max(rows, cols)} pixels of "
            f"{settings.path}; warp it to pixels of {settings.window_m / 100:g} m, or to a CRS in metres"
        )
        raise DataError(msg)
    return rows, cols


def _preview_step(grid: GeoBox, geobox: GeoBox, scene: GeoBox, window_m: float) -> int:
    """Return how many DEM pixels along an axis are read as one: 1 but for previews.

    1 where ``geobox`` is no preview, but about as fine as the scene.
    """
    if geobox.crs != scene.crs or abs(geobox.affine.determinant) < _PREVIEW**2 * abs(scene.affine.determinant):
        return 1
    side = longest_side(grid, slice(0, grid.height))
    return max(1, min(int(coarseness(grid, geobox) / 2), int(window_m / _CIRCLE_PX / side)))


def _dem_content(settings: ElevationSettings) -> Content:
    """Return the meaning of a DEM's files: one band, heights as metres."""

    def encoding(info: RasterInfo) -> tuple[float, float]:
        if info.count - info.alpha != 1:
            msg = f"{info.path} has {info.count} bands, and a DEM has one; correct 'sources.elevation.path'"
            raise DataError(msg)
        metres = _METRES[settings.unit or _stated_unit(info)]
        return info.scales[0] * metres, info.offsets[0] * metres

    return Content(
        quantity="height in metres",
        bands=(1,),
        setting="sources.elevation",
        encoding=encoding,
        nodata=settings.nodata,
        limits=_HEIGHTS_M,
    )


def _stated_unit(info: RasterInfo) -> str:
    """Return "metre" as the unit of a file's heights, and refuse a stated other one.

    Its band or its vertical CRS may state one; where neither does, heights are taken for metres.

    Raises:
        DataError: If another is stated.
    """
    assert info.geobox.crs is not None
    vertical = [crs.axis_info[0].unit_name for crs in info.geobox.crs.proj.sub_crs_list if crs.is_vertical]
    for stated in (*info.units[:1], *vertical):
        unit = next((unit for unit, names in _UNITS.items() if stated.strip().lower() in names), None)
        if unit != "metre":
            says = f"'sources.elevation.unit: {unit}'" if unit else f"'sources.elevation.unit' ({', '.join(_METRES)})"
            msg = f"{info.path} holds heights in {stated!r}; say so by {says}, and they become metres"
            raise DataError(msg)
    return "metre"


def _precomputed_content(name: str, precomputed: Precomputed) -> Content:
    """Return the meaning of a precomputed layer's files: band, encoding and limits.

    The settings' scale and offset count, else the file's own, else those of the published encoding.
    """

    def encoding(info: RasterInfo) -> tuple[float, float]:
        if precomputed.band > info.count:
            msg = (
                f"{info.path} has no band {precomputed.band}; it has 1 to {info.count}, correct '{_section(name)}.band'"
            )
            raise DataError(msg)
        own = info.scales[precomputed.band - 1], info.offsets[precomputed.band - 1]
        if precomputed.scale is None and precomputed.offset is None and own != (1, 0):
            return own
        scale, offset = _published(name, info.dtype)
        scale, offset = precomputed.scale or scale, offset if precomputed.offset is None else precomputed.offset
        if scale is None:
            msg = (
                f"{info.path} holds {name} as {info.dtype} without a scale, and no such encoding is published; set "
                f"'{_section(name)}.scale', such as 0.01 for hundredths"
            )
            raise DataError(msg)
        return scale, offset

    return Content(
        quantity=name.replace("_", " "),
        bands=(precomputed.band,),
        setting=_section(name),
        encoding=encoding,
        nodata=precomputed.nodata,
        limits=_POSSIBLE[name],
    )


def _published(name: str, dtype: str) -> tuple[float | None, float]:
    """Return scale, or None, and offset of a layer's published encoding in a dtype.

    The scale is None where no such encoding is published. Relative elevation: (m + 50) x 300 in 16 bits (paper, section
    2.2.2), or metres; slope: degrees, as bytes or not whole.
    """
    if dtype.startswith("float"):
        return 1.0, 0.0
    if name == "relative_elevation" and dtype in ("uint16", "int16"):
        return 1 / 300, -50.0
    return (1.0 if name == "slope" and dtype == "uint8" else None), 0.0


def _section(name: str) -> str:
    """Return the YAML key of a layer's precomputed files, as sources.elevation.x."""
    return f"sources.elevation.{_KEYS[name]}"


def _without_companions(rasters: Sequence[Path]) -> list[Path]:
    """Return paths of rasters without a DEM's companions, such as X_mad of X_dem.

    The Polar Geospatial Center does so, with names that begin as that of the DEM, X_dem.tif: X_count.tif, X_mad.tif ...
    """
    dems = {path for path in rasters if path.stem.lower().endswith("_dem")}
    beginnings = {(path.parent, path.stem[: -len("dem")]) for path in dems}

    def is_companion(path: Path) -> bool:
        ends = [index + 1 for index, letter in enumerate(path.stem) if letter == "_"]
        return any((path.parent, path.stem[:end]) in beginnings for end in ends)

    return [path for path in rasters if path in dems or not is_companion(path)]
