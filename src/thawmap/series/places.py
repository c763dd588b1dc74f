"""Maps that are on the disk, and the places that they show together.

Maps that lie over each other, or over others that do, are one place, in whatever CRS they are: ground has one result.
Its grid is that of its finest maps, so that those which share their pixels with it are read as they are.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from shapely.geometry import Polygon

from thawmap.data.raster.io import raster_info, read_raster
from thawmap.data.sources.base import Scene
from thawmap.errors import DataError
from thawmap.geo.crs import EQUAL_AREA, to_pixels
from thawmap.geo.geobox import window_geobox
from thawmap.grid import Window
from thawmap.maps.item import read_item

_Values = npt.NDArray[np.float32]
_Positions = npt.NDArray[np.float64]

_LONLAT = CRS("EPSG:4326")
_SIDE_POINTS = 33  # at which a side of a grid is brought to another CRS
_INSET_PX = 0.25  # by which footprints are smaller than grids, so that those that only touch do not overlap
_SNAP_PX = 1e-3  # by which a grid may be off and still count as the same, as `thawmap.data.raster.resample` reads it


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """One scene's map, as `thawmap.maps.write` wrote it.

    Attributes:
        id: Name of its folder: the scene's id.
        path: Its probabilities.
        geobox: Their grid.
        hundredths: Whether they are stored as hundredths, else as they are.
        acquired: UTC time of the image; None where unknown.
        made: What it says of itself: the properties of its STAC item.
    """

    id: str
    path: Path = field(compare=False)
    geobox: GeoBox = field(compare=False, repr=False)
    hundredths: bool = field(compare=False)
    acquired: datetime | None = field(compare=False)
    made: Mapping[str, Any] = field(compare=False, repr=False)

    @property
    def day(self) -> str:
        """Its solar day, which no swath over the Arctic shares with the next day's; its id where unknown."""
        if self.acquired is None:
            return self.id
        x, y = self.geobox.affine * (self.geobox.width / 2, self.geobox.height / 2)
        lon, _ = _crs(self.geobox).transformer_to_crs(_LONLAT)(x, y)
        return f"{self.acquired + timedelta(hours=float(lon) / 15):%Y-%m-%d}"

    def read(self, geobox: GeoBox) -> _Values:
        """Probability (y, x), float32, 0..1, NaN = missing, on any grid: as stored on its own, else bilinear.

        Raises:
            DataError: If the file is damaged.
        """
        stored = read_raster(self.path, geobox, bands=[1], resampling="bilinear")[0]
        probability: _Values = np.minimum(stored / np.float32(100) if self.hundredths else stored, np.float32(1))
        return probability


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
    dates: tuple[tuple[tuple[Map, Window], ...], ...] = field(compare=False, repr=False)
    own: Map | None = field(default=None, compare=False, repr=False)

    @property
    def maps(self) -> tuple[Map, ...]:
        """Its maps, in order of their ids."""
        return tuple(sorted((one for date in self.dates for one, _ in date), key=lambda one: one.id))

    @property
    def warped(self) -> int:
        """How many of its maps have other pixels than its grid."""
        return sum(_lattice(one.geobox) != _lattice(self.geobox) for one in self.maps)

    @property
    def scene(self) -> Scene:
        """The place as a scene; its time is known where it has one date."""
        times = {one.acquired for one in self.maps}
        regions = {one.made.get("thawmap:region") for one in self.maps}
        sensors = {one.made.get("thawmap:sensor", "") for one in self.maps}
        return Scene(
            id=self.id,
            sensor="+".join(sorted(sensors)),
            geobox=self.geobox,
            files={},
            acquired=next(iter(times)) if len(times) == 1 else None,
            region=next(iter(regions)) if len(regions) == 1 else None,
        )

    def over(self, window: Window) -> list[list[Map]]:
        """Its maps over some of its pixels, those of one day together."""
        dates = [[one for one, under in date if under.intersect(window)] for date in self.dates]
        return [date for date in dates if date]


def open_map(folder: Path) -> Map:
    """The map in a scene's folder.

    Raises:
        DataError: If the folder lacks a file, its item is none, or its raster is damaged or cut short.
    """
    item = folder / "item.json"
    said = read_item(item)
    made = said["properties"]
    try:
        acquired = None if made.get("datetime") is None else datetime.fromisoformat(made["datetime"])
    except ValueError as error:
        msg = f"{item} has the time {made['datetime']!r}; make the scene's map again with 'thawmap predict'"
        raise DataError(msg) from error
    path = folder / said["assets"].get("probability", {}).get("href", "probability.tif")
    if made.get("thawmap:bundle") is None or made.get("thawmap:threshold") is None:
        msg = f"{item} names no bundle and threshold; make the scene's map again with 'thawmap predict'"
        raise DataError(msg)
    info = raster_info(path)
    last = Window(row=info.geobox.height - 1, col=0, height=1, width=info.geobox.width)
    read_raster(path, window_geobox(info.geobox, last), bands=[1])  # a file that was cut short lacks its end
    return Map(
        id=folder.name,
        path=path,
        geobox=info.geobox,
        hundredths=not info.dtype.startswith("float"),
        acquired=acquired,
        made=made,
    )


def places(maps: Sequence[Map], *, by: Literal["place", "scene"] = "place") -> list[Place]:
    """What is to be fused, in order of ids.

    By place: maps that lie over each other, or over others that do, whatever their CRS; a map that lies over none is a
    place by itself. By scene: the grid of each map, with all maps over it.
    """
    if not maps:
        return []
    maps = sorted(maps, key=lambda one: one.id)
    outlines = np.array([_outline(one.geobox) for one in maps])
    one, other = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    if by == "scene":
        over: dict[int, list[Map]] = {}
        for here, there in zip(one.tolist(), other.tolist(), strict=True):
            over.setdefault(here, []).append(maps[there])
        return [_place(maps[here].id, maps[here].geobox, over[here], own=maps[here]) for here in sorted(over)]
    graph = sparse.coo_array((np.ones(len(one)), (one, other)), shape=(len(maps), len(maps)))
    count, group = connected_components(graph, directed=False)
    together = [[maps[index] for index in np.flatnonzero(group == number)] for number in range(count)]
    areas = {item.id: shapely.area(outline) for item, outline in zip(maps, outlines, strict=True)}
    return [_place(_name(members), _common_grid(members, areas), members) for members in together]


def _place(name: str, geobox: GeoBox, maps: Sequence[Map], own: Map | None = None) -> Place:
    """A place of maps that are in order of their ids."""
    dates: dict[str, list[tuple[Map, Window]]] = {}
    for one in maps:
        dates.setdefault(one.day, []).append((one, _under(geobox, one.geobox)))
    return Place(id=name, geobox=geobox, dates=tuple(tuple(date) for date in dates.values()), own=own)


def _name(maps: Sequence[Map]) -> str:
    """Of the first map, whose id a place of one keeps."""
    return maps[0].id if len(maps) == 1 else f"{maps[0].id}+{len(maps) - 1}"


def _common_grid(maps: Sequence[Map], areas: Mapping[str, float]) -> GeoBox:
    """The grid over all maps whose pixels are the finest maps', most maps', the first map's, in this order."""
    sharing = Counter(_lattice(one.geobox) for one in maps)

    def rank(one: Map) -> tuple[float, int, str]:
        side = np.sqrt(areas[one.id] / (one.geobox.height * one.geobox.width))
        return float(f"{side:.1e}"), -sharing[_lattice(one.geobox)], one.id  # resolutions are known to two digits

    finest = min(maps, key=rank).geobox
    under = (_under(finest, one.geobox) for one in maps)
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
