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
    """Ground that is mapped as one.

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
        """Its maps, in order of their ids."""
        return tuple(sorted((one for date in self.dates for one, _ in date), key=lambda one: one.id))

    @property
    def warped(self) -> int:
        """How many of its maps have other pixels than its grid."""
        return sum(_lattice(one.grid) != _lattice(self.geobox) for one in self.maps)

    @property
    def scene(self) -> Scene:
        """The place as a scene; its time is known where it has one date."""
        times = {one.acquired for one in self.maps}
        regions = {one.region for one in self.maps}
        sensors = {one.sensor for one in self.maps}
        return Scene(
            id=self.id,
            sensor="+".join(sorted(sensors)),
            geobox=self.geobox,
            files={},
            acquired=next(iter(times)) if len(times) == 1 else None,
            region=next(iter(regions)) if len(regions) == 1 else None,
        )

    def over(self, window: Window) -> list[list[MapFolder]]:
        """Its maps over some of its pixels, those of one day together."""
        dates = [[one for one, under in date if under.intersect(window)] for date in self.dates]
        return [date for date in dates if date]


def open_map(folder: Path) -> MapFolder:
    """Open the map in a scene's folder, and check that it can be fused.

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
    """Return the solar day of a map, which no swath over the Arctic shares with the next day's; its id if unknown."""
    if scene_map.acquired is None:
        return scene_map.id
    grid = scene_map.grid
    x, y = grid.affine * (grid.width / 2, grid.height / 2)
    lon, _ = _crs(grid).transformer_to_crs(_LONLAT)(x, y)
    return f"{scene_map.acquired + timedelta(hours=float(lon) / 15):%Y-%m-%d}"


def places(maps: Sequence[MapFolder], *, by: Literal["place", "scene"] = "place") -> list[Place]:
    """What is to be fused, in order of ids.

    By place: maps that lie over each other, or over others that do, whatever their CRS; a map that lies over none is a
    place by itself. By scene: the grid of each map, with all maps over it.
    """
    if not maps:
        return []
    maps = sorted(maps, key=lambda one: one.id)
    outlines = np.array([_outline(one.grid) for one in maps])
    one, other = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    if by == "scene":
        over: dict[int, list[MapFolder]] = {}
        for here, there in zip(one.tolist(), other.tolist(), strict=True):
            over.setdefault(here, []).append(maps[there])
        return [_place(maps[here].id, maps[here].grid, over[here], own=maps[here]) for here in sorted(over)]
    graph = sparse.coo_array((np.ones(len(one)), (one, other)), shape=(len(maps), len(maps)))
    count, group = connected_components(graph, directed=False)
    together = [[maps[index] for index in np.flatnonzero(group == number)] for number in range(count)]
    areas = {item.id: shapely.area(outline) for item, outline in zip(maps, outlines, strict=True)}
    return [_place(_name(members), _common_grid(members, areas), members) for members in together]


def _place(name: str, geobox: GeoBox, maps: Sequence[MapFolder], own: MapFolder | None = None) -> Place:
    """A place of maps that are in order of their ids."""
    dates: dict[str, list[tuple[MapFolder, Window]]] = {}
    for one in maps:
        dates.setdefault(solar_day(one), []).append((one, _under(geobox, one.grid)))
    return Place(id=name, geobox=geobox, dates=tuple(tuple(date) for date in dates.values()), own=own)


def _name(maps: Sequence[MapFolder]) -> str:
    """Of the first map, whose id a place of one keeps."""
    return maps[0].id if len(maps) == 1 else f"{maps[0].id}+{len(maps) - 1}"


def _common_grid(maps: Sequence[MapFolder], areas: Mapping[str, float]) -> GeoBox:
    """The grid over all maps whose pixels are the finest maps', most maps', the first map's, in this order."""
    sharing = Counter(_lattice(one.grid) for one in maps)

    def rank(one: MapFolder) -> tuple[float, int, str]:
        side = np.sqrt(areas[one.id] / (one.grid.height * one.grid.width))
        return float(f"{side:.1e}"), -sharing[_lattice(one.grid)], one.id  # resolutions are known to two digits

    finest = min(maps, key=rank).grid
    under = (_under(finest, one.grid) for one in maps)
    return window_geobox(finest, Window.around(under))


def _lattice(geobox: GeoBox) -> tuple[object, ...]:
    """What grids have in common whose pixels are the same: CRS, sides of pixels, and where in a pixel zero lies."""
    affine = geobox.affine
    sides = Affine(affine.a, affine.b, 0, affine.d, affine.e, 0)
    phase = (round(value % 1, 2) % 1 for value in ~sides * (affine.c, affine.f))
    return (str(geobox.crs), *(round(value, 9) for value in (affine.a, affine.b, affine.d, affine.e)), *phase)


def _under(grid: GeoBox, other: GeoBox) -> Window:
    """The pixels of a grid, which may lie beyond it, that another one touches."""
    col, row = to_pixels(grid, other.crs, *_ring(other))
    left, top = (int(np.floor(axis.min() + _SNAP_PX)) for axis in (col, row))
    right, bottom = (int(np.ceil(axis.max() - _SNAP_PX)) for axis in (col, row))
    return Window.from_edges(top=top, left=left, bottom=bottom, right=right)


def _outline(geobox: GeoBox) -> Polygon:
    """A grid's ground, less a quarter of a pixel on every side, in equal areas."""
    x, y = _crs(geobox).transformer_to_crs(CRS(EQUAL_AREA))(*_ring(geobox, inset=_INSET_PX))
    return Polygon(np.column_stack([x, y]))


def _ring(geobox: GeoBox, *, inset: float = 0.0) -> tuple[_Positions, _Positions]:
    """Points x and y around a grid, in its CRS."""
    height, width = geobox.shape
    across, down = (np.linspace(inset, side - inset, _SIDE_POINTS) for side in (width, height))
    col = np.concatenate([across, np.full_like(down, across[-1]), across[::-1], np.full_like(down, across[0])])
    row = np.concatenate([np.full_like(across, down[0]), down, np.full_like(across, down[-1]), down[::-1]])
    x, y = geobox.affine * (col, row)
    return x, y


def _crs(geobox: GeoBox) -> CRS:
    assert geobox.crs is not None, "data.io reads no raster without a CRS"
    return geobox.crs
