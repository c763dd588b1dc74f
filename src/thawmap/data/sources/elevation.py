"""Elevation, and what it tells of the ground's shape: made on the DEM's own grid, then warped; from any DEM files.

Or relative elevation and slope that were made before, in the published encodings. A window's values on the DEM's grid
are those of the whole, bit for bit; warped to a scene's grid they agree as far as its positions do, which are right
to a thousandth of a pixel.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from odc.geo.geobox import GeoBox

from thawmap.config import ElevationSettings, Precomputed
from thawmap.data import terrain
from thawmap.data.raster.index import tile_sets_under
from thawmap.data.raster.io import RasterInfo
from thawmap.data.raster.mosaic import Content, Values, View, coarseness, read_mosaic
from thawmap.data.sources.base import Scene
from thawmap.errors import DataError
from thawmap.geo.metres import North, check_metres, longest_side, north_of, pixel_metres
from thawmap.grid import Window

_HEIGHTS_M = (-500.0, 9000.0)  # of any ground on Earth, with some room
_METRES = {"metre": 1.0, "foot": 0.3048, "us_survey_foot": 1200 / 3937}
_UNITS = {
    "metre": ("", "m", "metre", "metres", "meter", "meters", "unknown"),
    "foot": ("ft", "foot", "feet", "international foot", "international feet"),
    "us_survey_foot": ("us survey foot", "us survey feet", "us-ft", "ft-us", "ftus", "foot_us", "us foot", "us ft"),
}
_KEYS = {"relative_elevation": "relative_elevation", "slope": "slope_degrees"}
_POSSIBLE = {"relative_elevation": (-9500.0, 9500.0), "slope": (0.0, 90.0)}
_RANGES = {"slope": (0.0, 90.0), "hillshade": (0.0, 1.0)}  # which cubic interpolation may leave
_PREVIEW = 2.0  # times a scene's pixel from which on a grid shows it only
_FARTHEST = 4096  # pixels beyond a window that the circle may see
_CIRCLE_PX = 8  # pixels that a circle keeps along its diameter in a preview


@dataclass(frozen=True, slots=True)
class ElevationSource:
    """Reads what the settings name."""

    settings: ElevationSettings

    @property
    def layers(self) -> frozenset[str]:
        """All that a DEM gives, or what was made before."""
        made = _RECIPES if self.settings.path is not None else ()
        return frozenset(made) | {name for name in _KEYS if self.settings.made_before(name) is not None}

    def read(self, scene: Scene, geobox: GeoBox, layers: Sequence[str]) -> Mapping[str, Values]:
        """The layers (y, x), float32 in metres, degrees, 1 or 1/m, on exactly ``geobox``; NaN where missing.

        A grid at least twice as coarse as the scene's own shows it only: its layers come from a DEM as coarse as half
        of its pixels, and an eighth of the circle. Slopes are gentler there.

        Raises:
            DataError: If no file lies under the scene, one that is needed cannot be used, or heights cannot be.
            ConfigError: If a place holds no raster.
        """
        made: dict[str, Values] = {}
        for name in layers:
            before = self.settings.made_before(name)
            if before is not None:
                tile_sets = tile_sets_under(
                    scene.geobox, geobox, scene_id=scene.id, path=before.path, setting=f"{_section(name)}.path"
                )
                made[name] = read_mosaic(tile_sets, geobox, _made_before(name, before))[0]
        made |= self._make(scene, geobox, [name for name in layers if name not in made])
        return {name: made[name].clip(*_RANGES[name]) if name in _RANGES else made[name] for name in layers}

    def files(self, scene: Scene) -> Sequence[Path]:
        """The rasters that the scene touches.

        Raises:
            DataError: If there is none, or none can be used.
            ConfigError: If a place holds no raster.
        """
        return [file for files in self._places(scene) for file in files]

    def _places(self, scene: Scene) -> Iterator[list[Path]]:
        path = self.settings.path
        if path is not None:
            setting = "sources.elevation.path"
            yield tile_sets_under(
                scene.geobox, scene.geobox, scene_id=scene.id, path=path, setting=setting, choose=_dems
            ).files(scene.geobox)
        for name in _KEYS:
            before = self.settings.made_before(name)
            if before is not None:
                setting = f"{_section(name)}.path"
                yield tile_sets_under(
                    scene.geobox, scene.geobox, scene_id=scene.id, path=before.path, setting=setting
                ).files(scene.geobox)

    def _make(self, scene: Scene, geobox: GeoBox, layers: Sequence[str]) -> dict[str, Values]:
        """Layers from the DEM, each from one band or, where they are directions, from two."""
        settings = self.settings
        if not layers or settings.path is None:
            return {}
        setting = "sources.elevation.path"
        bands = read_mosaic(
            tile_sets_under(scene.geobox, geobox, scene_id=scene.id, path=settings.path, setting=setting, choose=_dems),
            geobox,
            _heights(settings),
            make=lambda view, window: _made(view, window, layers, settings),
            layers=sum(2 if name == "aspect" else 1 for name in layers),
            step=lambda grid: _step(grid, geobox, scene.geobox, settings.window_m),
        )
        made, left = {}, list(bands)
        for name in layers:
            made[name] = terrain.bearing(left.pop(0), left.pop(0)) if name == "aspect" else left.pop(0)
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """Heights (y, x) of a window of a DEM's grid, and how they lie."""

    height: terrain.Heights
    grid: GeoBox
    window: Window
    settings: ElevationSettings

    @property
    def pixel_m(self) -> terrain.Pixel:
        return pixel_metres(self.grid, self.window.rows)

    @property
    def north(self) -> North:
        return north_of(self.grid, self.window)


def _rises(piece: _Piece) -> list[Values]:
    """To the east and to the north: directions cannot be averaged, what they are made from can."""
    return list(terrain.east_north(*terrain.gradient(piece.height, pixel_m=piece.pixel_m, method="horn"), piece.north))


_RECIPES: Mapping[str, Callable[[_Piece], list[Values]]] = {
    "elevation": lambda of: [of.height],
    "relative_elevation": lambda of: [
        terrain.relative_elevation(of.height, pixel_m=of.pixel_m, diameter_m=of.settings.window_m)
    ],
    "slope": lambda of: [terrain.slope(of.height, pixel_m=of.pixel_m, method=of.settings.slope)],
    "aspect": _rises,
    "hillshade": lambda of: [terrain.hillshade(of.height, pixel_m=of.pixel_m, north=of.north)],
    "curvature": lambda of: [terrain.curvature(of.height, pixel_m=of.pixel_m)],
}


def _made(view: View, window: Window, layers: Sequence[str], settings: ElevationSettings) -> Values:
    """Layers (band, y, x) of a window of a view's grid."""
    check_metres(view.grid, window, name=str(settings.path))
    high, wide = _reach(view.grid, window, settings) if "relative_elevation" in layers else (1, 1)
    around = window.pad(high, wide)
    piece = _Piece(height=view.read(around)[0], grid=view.grid, window=around, settings=settings)
    return np.stack([band[window.within(around)] for name in layers for band in _RECIPES[name](piece)])


def _reach(grid: GeoBox, window: Window, settings: ElevationSettings) -> tuple[int, int]:
    """Rows and columns that the circle sees beyond a window.

    Raises:
        DataError: If it sees none, or so many that memory cannot hold them.
    """
    high, _ = terrain.reach(pixel_metres(grid, window.rows), settings.window_m)
    seen = window.pad(high, 0).rows
    high, wide = terrain.reach(pixel_metres(grid, seen), settings.window_m)
    if min(high, wide) < 1:
        side = longest_side(grid, seen)
        msg = (
            f"'sources.elevation.window_m' is {settings.window_m:g} m, no wider than a pixel of {settings.path}, which "
            f"is {side:.3g} m; make it at least {np.ceil(2 * side):.0f}"
        )
        raise DataError(msg)
    if max(high, wide) > _FARTHEST:
        msg = (
            f"'sources.elevation.window_m' is {settings.window_m:g} m, {2 * max(high, wide)} pixels of "
            f"{settings.path}; warp it to pixels of {settings.window_m / 100:g} m, or to a CRS in metres"
        )
        raise DataError(msg)
    return high, wide


def _step(grid: GeoBox, geobox: GeoBox, scene: GeoBox, window_m: float) -> int:
    """Pixels of the DEM that are one for a grid that only shows a scene; 1 for every other grid."""
    if geobox.crs != scene.crs or abs(geobox.affine.determinant) < _PREVIEW**2 * abs(scene.affine.determinant):
        return 1
    side = longest_side(grid, slice(0, grid.height))
    return max(1, min(int(coarseness(grid, geobox) / 2), int(window_m / _CIRCLE_PX / side)))


def _heights(settings: ElevationSettings) -> Content:
    """What a DEM's files hold, in metres."""

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
    """The unit of a file's heights where that is metres, as its band or its vertical CRS says or leaves open.

    Raises:
        DataError: If it is another.
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


def _made_before(name: str, before: Precomputed) -> Content:
    """What the files of a layer hold that was made before."""

    def encoding(info: RasterInfo) -> tuple[float, float]:
        if before.band > info.count:
            msg = f"{info.path} has no band {before.band}; it has 1 to {info.count}, correct '{_section(name)}.band'"
            raise DataError(msg)
        own = info.scales[before.band - 1], info.offsets[before.band - 1]
        if before.scale is None and before.offset is None and own != (1, 0):
            return own
        scale, offset = _published(name, info.dtype)
        scale, offset = before.scale or scale, offset if before.offset is None else before.offset
        if scale is None:
            msg = (
                f"{info.path} holds {name} as {info.dtype} without a scale, and no such encoding is published; set "
                f"'{_section(name)}.scale', such as 0.01 for hundredths"
            )
            raise DataError(msg)
        return scale, offset

    return Content(
        quantity=name.replace("_", " "),
        bands=(before.band,),
        setting=_section(name),
        encoding=encoding,
        nodata=before.nodata,
        limits=_POSSIBLE[name],
    )


def _published(name: str, dtype: str) -> tuple[float | None, float]:
    """Scale and offset of the published encodings; no scale where there is none for such numbers.

    Relative elevation: (m + 50) x 300 in 16 bits (paper, section 2.2.2), or metres; slope: degrees, as bytes or not
    whole.
    """
    if dtype.startswith("float"):
        return 1.0, 0.0
    if name == "relative_elevation" and dtype in ("uint16", "int16"):
        return 1 / 300, -50.0
    return (1.0 if name == "slope" and dtype == "uint8" else None), 0.0


def _section(name: str) -> str:
    """The section of the YAML where a layer's files are named."""
    return f"sources.elevation.{_KEYS[name]}"


def _dems(found: Sequence[Path]) -> list[Path]:
    """The rasters without those that the Polar Geospatial Center delivers beside a DEM: X_dem.tif, X_count.tif ..."""
    dems = {path for path in found if path.stem.lower().endswith("_dem")}
    begins = {(path.parent, path.stem[: -len("dem")]) for path in dems}
    return [path for path in found if path in dems or not _beside(path, begins)]


def _beside(path: Path, begins: set[tuple[Path, str]]) -> bool:
    ends = [index + 1 for index, letter in enumerate(path.stem) if letter == "_"]
    return any((path.parent, path.stem[:end]) in begins for end in ends)
