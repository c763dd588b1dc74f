"""Maps that are on the disk, and the places that they show together.

Maps that lie over each other, or over others that do, are one place, in whatever CRS they are: ground has one result.
Its grid is that of its finest maps, so that those which share their pixels with it are read as they are.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from shapely.geometry import Polygon

from thawmap.data.sources.base import Scene
from thawmap.errors import DataError
from thawmap.geo.crs import EQUAL_AREA, to_pixels
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window
from thawmap.maps.item import MapItem
from thawmap.maps.read import MapFolder

_Positions = npt.NDArray[np.float64]

_LONLAT = CRS("EPSG:4326")
_SIDE_POINTS = 33  # at which a side of a grid is brought to another CRS
_INSET_PX = 0.25  # by which footprints are smaller than grids, so that those that only touch do not overlap
_SNAP_PX = 1e-3  # by which a grid may be off and still count as the same, as `thawmap.data.raster.resample` reads it


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Ground that several maps show, to be fused into one.

    Attributes:
        id: Id of its first map, and the number of the others.
        geobox: Its grid.
        dates: Its maps, those of one day together, in order of their ids; each with the pixels that it lies under.
        own: The map outside of which everything is missing; None where none is.
    """

    id: str
    geobox: GeoBox = field(compare=False, repr=False)
    dates: tuple[tuple[tuple[MapFolder, Window], ...], ...] = field(compare=False, repr=False)
    own: MapFolder | None = field(default=None, compare=False, repr=False)

    @property
    def maps(self) -> tuple[MapFolder, ...]:
        """All maps of the place, in order of their ids."""
        return tuple(sorted((scene_map for date in self.dates for scene_map, _ in date), key=_map_id))

    @property
    def warped(self) -> int:
        """Number of maps whose pixels do not coincide with those of the place's grid."""
        return sum(_alignment(scene_map.grid) != _alignment(self.geobox) for scene_map in self.maps)

    @property
    def scene(self) -> Scene:
        """The place as a scene without files, with the sensors of all its maps.

        Its time and its region are None unless all maps have the same.
        """
        times = {scene_map.acquired for scene_map in self.maps}
        regions = {scene_map.region for scene_map in self.maps}
        sensors = {scene_map.sensor for scene_map in self.maps}
        return Scene(
            id=self.id,
            sensor="+".join(sorted(sensors)),
            geobox=self.geobox,
            files={},
            acquired=next(iter(times)) if len(times) == 1 else None,
            region=next(iter(regions)) if len(regions) == 1 else None,
        )

    def over(self, window: Window) -> list[tuple[int, list[tuple[MapFolder, Window]]]]:
        """Return the number of each date, and its maps that touch a window of the grid.

        Each map comes with the pixels that it lies under; dates without any are left out.
        """
        dates = [[(scene_map, pixels) for scene_map, pixels in date if pixels.intersect(window)] for date in self.dates]
        return [(number, date) for number, date in enumerate(dates) if date]


def open_map(folder: Path) -> MapFolder:
    """Open the map in a folder; refuse one cut short, or without bundle or threshold.

    Raises:
        DataError: If the folder lacks a file, its item is none, or its raster is damaged or cut short.
    """
    item = MapItem.read(folder)
    _ = item.acquired
    if item.maker is None:
        msg = f"{item.path} names no bundle and threshold; make the scene's map again with 'thawmap predict'"
        raise DataError(msg)
    scene_map = MapFolder.open(folder, item=item)
    grid = scene_map.grid
    scene_map.read(Window(row=grid.height - 1, col=0, height=1, width=grid.width))  # a file that was cut short fails
    return scene_map


def solar_day(scene_map: MapFolder) -> str:
    """Return a map's solar day as YYYY-MM-DD, or its id where its time is unknown.

    No swath over the Arctic lies in two solar days, as it may in two days of UTC.
    """
    if scene_map.acquired is None:
        return scene_map.id
    grid = scene_map.grid
    x, y = grid.affine * (grid.width / 2, grid.height / 2)
    lon, _ = _crs(grid).transformer_to_crs(_LONLAT)(x, y)
    return f"{scene_map.acquired + timedelta(hours=float(lon) / 15):%Y-%m-%d}"


def places(maps: Sequence[MapFolder], *, by: Literal["place", "scene"] = "place") -> list[Place]:
    """Return overlapping maps grouped into places, or a place for each map's grid.

    Args:
        maps: The maps.
        by: By place: maps that lie over each other, or over others that do, whatever their CRS; a map that lies over
            none is a place by itself. By scene: a place for the grid of each map, with all maps over it.
    """
    if not maps:
        return []
    maps = sorted(maps, key=_map_id)
    footprints = np.array([_footprint(scene_map.grid) for scene_map in maps])
    first, second = shapely.STRtree(footprints).query(footprints, predicate="intersects")  # each also with itself
    if by == "scene":
        over: dict[int, list[MapFolder]] = {}
        for number, other in zip(first.tolist(), second.tolist(), strict=True):
            over.setdefault(number, []).append(maps[other])
        return [_place(maps[number].id, maps[number].grid, over[number], own=maps[number]) for number in sorted(over)]
    overlaps = sparse.coo_array((np.ones(len(first)), (first, second)), shape=(len(maps), len(maps)))
    count, group = connected_components(overlaps, directed=False)
    areas = {scene_map.id: shapely.area(footprint) for scene_map, footprint in zip(maps, footprints, strict=True)}
    grouped = []
    for number in range(count):
        members = [maps[index] for index in np.flatnonzero(group == number)]
        name = members[0].id if len(members) == 1 else f"{members[0].id}+{len(members) - 1}"
        grouped.append(_place(name, _common_grid(members, areas), members))
    return grouped


def _map_id(scene_map: MapFolder) -> str:
    return scene_map.id


def _place(name: str, geobox: GeoBox, maps: Sequence[MapFolder], own: MapFolder | None = None) -> Place:
    """Return the place of maps on a grid, the maps grouped by their solar days.

    The maps come in order of their ids.
    """
    dates: dict[str, list[tuple[MapFolder, Window]]] = {}
    for scene_map in maps:
        dates.setdefault(solar_day(scene_map), []).append((scene_map, _window_of(scene_map.grid, geobox)))
    return Place(id=name, geobox=geobox, dates=tuple(tuple(date) for date in dates.values()), own=own)


def _common_grid(maps: Sequence[MapFolder], areas: Mapping[str, float]) -> GeoBox:
    """Return a grid that covers all maps, with the pixels of the finest map.

    Of equally fine maps those count whose pixels most maps share, then the first by its id.

    Args:
        maps: The maps.
        areas: Their ground in m2, by their ids.
    """
    sharing = Counter(_alignment(scene_map.grid) for scene_map in maps)

    def rank(scene_map: MapFolder) -> tuple[float, int, str]:
        grid = scene_map.grid
        side_m = np.sqrt(areas[scene_map.id] / (grid.height * grid.width))
        return float(f"{side_m:.1e}"), -sharing[_alignment(grid)], scene_map.id  # resolutions are known to two digits

    finest = min(maps, key=rank).grid
    return window_geobox(finest, Window.around(_window_of(scene_map.grid, finest) for scene_map in maps))


def _alignment(geobox: GeoBox) -> tuple[object, ...]:
    """Return a tuple that is equal for two grids exactly where their pixels coincide.

    CRS, sides of pixels, and where in a pixel zero lies.
    """
    affine = geobox.affine
    sides = Affine(affine.a, affine.b, 0, affine.d, affine.e, 0)
    phase = (round(value % 1, 2) % 1 for value in ~sides * (affine.c, affine.f))
    return (str(geobox.crs), *(round(value, 9) for value in (affine.a, affine.b, affine.d, affine.e)), *phase)


def _window_of(grid: GeoBox, on: GeoBox) -> Window:
    """Return the window of a second grid's pixels that a grid covers, even beyond it."""
    col, row = to_pixels(on, grid.crs, *_border(grid))
    left, top = (int(np.floor(axis.min() + _SNAP_PX)) for axis in (col, row))
    right, bottom = (int(np.ceil(axis.max() - _SNAP_PX)) for axis in (col, row))
    return Window.from_edges(top=top, left=left, bottom=bottom, right=right)


def _footprint(geobox: GeoBox) -> Polygon:
    """Return a grid's outline as an equal-area polygon, a quarter of a pixel smaller.

    On every side, so that grids which only touch do not overlap.
    """
    x, y = _crs(geobox).transformer_to_crs(CRS(EQUAL_AREA))(*_border(geobox, inset_px=_INSET_PX))
    return Polygon(np.column_stack([x, y]))


def _border(geobox: GeoBox, *, inset_px: float = 0.0) -> tuple[_Positions, _Positions]:
    """Return x and y of points along a grid's border, or inset from it, in its CRS."""
    height, width = geobox.shape
    across, down = (np.linspace(inset_px, side - inset_px, _SIDE_POINTS) for side in (width, height))
    col = np.concatenate([across, np.full_like(down, across[-1]), across[::-1], np.full_like(down, across[0])])
    row = np.concatenate([np.full_like(across, down[0]), down, np.full_like(across, down[-1]), down[::-1]])
    x, y = geobox.affine * (col, row)
    return x, y


def _crs(geobox: GeoBox) -> CRS:
    assert geobox.crs is not None, "data.io reads no raster without a CRS"
    return geobox.crs
