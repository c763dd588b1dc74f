"""From probabilities to slumps: whole polygons from a stream of rows.

    rows --runs--> pieces, their edges and values --union across seams--> objects --outlines, statistics--> slumps

Rows come from the top in parts of any height. Pieces of objects lie on a pile until it has doubled; then those
objects that do not touch the last row are whole, and leave it. So time grows linearly with pixels and outlines, memory
with what is found, and the result does not depend on how the rows were cut.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely

from thawmap.config import PolygonSettings
from thawmap.data.sources.base import Scene
from thawmap.errors import DataError
from thawmap.geo.crs import crs_of
from thawmap.geo.metres import ground_pixel_m
from thawmap.maps.layout import REASON, SLUMP_COLUMNS
from thawmap.maps.polygons.left_out import leave_out
from thawmap.maps.polygons.measure import measured, on_ground
from thawmap.maps.polygons.outlines import (
    Bools,
    Edges,
    Floats,
    Integers,
    Objects,
    Rings,
    changes,
    edges,
    groups,
    overlapping,
    rings,
)
from thawmap.maps.polygons.statistics import Table, chain, counted, follows, means, statistics, summed, value_counts
from thawmap.maps.rows import Rows

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

_NAMESPACE = uuid.UUID("8b0f6c1e-3b0a-5d0c-9a54-0f2e5a9a7d11")
_STRIP_PX = 2**17  # pixels that are looked at together
_PILE = 2**14  # edges and values that wait at least


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObjects:
    """The slumps of a scene, the objects that are none, and what changes the mask.

    Attributes:
        slumps: With the columns of `SLUMP_COLUMNS`, in the scene's CRS, from the top down.
        left_out: Objects that are none of them, with the same columns and the reason.
        erased: Outlines, in columns and rows, of objects that are left out or have no seed: their pixels are none of
            an object.
        filled: Outlines, in columns and rows, of holes that are filled, whose pixels are of an object.
    """

    slumps: "gpd.GeoDataFrame"
    left_out: "gpd.GeoDataFrame"
    erased: Objects
    filled: Objects


@dataclass(slots=True)
class _Pile:
    """Pieces of objects that may not be whole yet.

    Tables begin with the number of the piece.
    """

    pieces: int = 0
    pairs: list[Table] = field(default_factory=list)  # pieces that share a side across a seam
    edges: list[Edges] = field(default_factory=list)
    values: list[Table] = field(default_factory=list)  # a probability, how often
    layers: list[Table] = field(default_factory=list)  # sum and number of known pixels, of each layer
    touching: list[Table] = field(default_factory=list)  # for each pixel at the scene's edge or beside missing ones

    def __len__(self) -> int:
        """Number of edges plus number of rows of values."""
        return sum(map(len, self.edges)) + sum(len(table[0]) for table in self.values)

    def part(self, owner: Integers, which: Bools) -> "_Pile":
        """Return a pile of some objects only, their pieces merged and numbered anew.

        ``owner`` is the object of each piece, ``which`` selects objects.
        """
        number = np.cumsum(which) - 1

        def chosen(tables: Sequence[Table]) -> list[Table]:
            table = chain(tables)
            if not table:
                return []
            owners = owner[table[0]]
            chosen_rows = which[owners]
            return [(number[owners[chosen_rows]], *(column[chosen_rows] for column in table[1:]))]

        outline = Edges.chain(self.edges)
        owners = owner[outline.owner]
        return _Pile(
            pieces=int(which.sum()),
            edges=[outline.of(number[owners], which[owners])],
            values=chosen(self.values),
            layers=chosen(self.layers),
            touching=chosen(self.touching),
        )


class Vectoriser:
    """Turns a scene's rows, from the top to the bottom, into its slumps.

    Args:
        scene: Whose rows they are.
        settings: How objects become polygons.
        bundle_id: The bundle that the rows are from.
        least_m2: The least area that validation chose, for `min_area_m2: auto`.
    """

    def __init__(
        self, scene: Scene, settings: PolygonSettings | None = None, *, bundle_id: str = "", least_m2: float = 0.0
    ) -> None:
        self._scene = scene
        self._settings = settings or PolygonSettings()
        self._bundle_id = bundle_id
        self._least_m2 = least_m2
        self._next_row = 0
        self._pile = _Pile()
        self._enough = _PILE
        self._runs: Integers = np.empty(0, np.int64)  # of the last row
        self._piece: Integers = np.empty(0, np.int64)  # that each of them belongs to
        self._last_missing = np.ones(scene.geobox.shape[1], np.bool_)  # beyond the scene everything is missing
        self._last_beside = np.ones(scene.geobox.shape[1], np.bool_)
        self._obstacles: Integers = np.empty((0, 2), np.int64)  # column and row of what a hole is not filled over
        self._tables: list[dict[str, npt.NDArray[Any]]] = []
        self._erased: list[Objects] = []
        self._filled: list[Objects] = []

    def add(self, rows: Rows, mask: Bools) -> None:
        """Take in the scene's next rows of probability with their mask of objects (y, x).

        Raises:
            DataError: If a rule asks for a layer that the rows have not.
        """
        assert rows.first_row == self._next_row, f"row {self._next_row} comes next, not {rows.first_row}"
        height, width = mask.shape
        lacking = [name for name in self._settings.layers if name not in rows.layers]
        if lacking:
            msg = f"polygons.drop asks for {lacking[0]!r}, which this map has not; leave the rule out"
            raise DataError(msg)
        step = max(_STRIP_PX // width, 1)
        for first in range(0, height, step):
            strip = slice(first, first + step)
            layers = {name: rows.layers[name][strip] for name in self._settings.layers}
            self._add(rows.probability[strip], mask[strip], layers)

    def finish(self) -> SceneObjects:
        """Return slumps, left-out objects and the mask's changes, once all rows have come."""
        height, width = self._scene.geobox.shape
        assert self._next_row == height, "all rows of the scene must have come"
        self._close_line(np.zeros((1, width), np.bool_))
        self._settle()
        none = np.empty(0, np.object_)
        objects = _frame(self._tables, self._scene, bundle_id=self._bundle_id)
        is_slump = (objects[REASON] == "").to_numpy()
        return SceneObjects(
            slumps=objects[is_slump].drop(columns=REASON).reset_index(drop=True),
            left_out=objects[~is_slump].reset_index(drop=True),
            erased=np.concatenate([none, *self._erased]),
            filled=np.concatenate([none, *self._filled]),
        )

    def _add(self, probability: Floats, mask: Bools, layers: Mapping[str, Floats]) -> None:
        """Add a strip's edges and values to the pile; measure whole objects once large."""
        missing = np.isnan(probability)
        beside = self._beside_missing(missing)
        first = self._pile.pieces
        last = np.repeat(self._piece, self._runs[1::2] - self._runs[::2])  # of each pixel of an object in the last row
        edge = last[(missing[0] & ~self._last_beside)[_line(self._runs, mask.shape[1])]]
        runs, piece = self._close_line(mask)
        pile = self._pile
        length = runs[1::2] - runs[::2]
        of_pixel = np.repeat(piece, length)
        pile.touching.append((np.concatenate([edge, of_pixel[beside[mask]]]),))
        pile.values.append(counted(of_pixel, probability[mask], first))
        if layers:
            sums = [summed(of_pixel - first, values[mask], pile.pieces - first) for values in layers.values()]
            pile.layers.append((np.arange(first, pile.pieces), *(column for pair in sums for column in pair)))
        if self._settings.fill_holes_m2:
            self._obstacles = np.concatenate([self._obstacles, self._tops(missing)])
        self._last_missing, self._last_beside = missing[-1], beside[-1]
        self._next_row += len(mask)
        if len(pile) > self._enough:
            self._settle()
            self._enough = max(_PILE, 2 * len(self._pile))  # doubled, so that time stays linear

    def _close_line(self, mask: Bools) -> tuple[Integers, Integers]:
        """Join a mask's rows to the last row's pieces; return their runs and pieces."""
        height, width = mask.shape
        pile, above = self._pile, len(self._piece)
        changed = changes(mask)
        # the last row again, above the new ones, so that runs on both sides of the seam fall into one group
        runs = np.concatenate([self._runs, changed + (width + 1)])
        count, group = groups(len(runs) // 2, overlapping(runs, width))
        number = np.full(count, -1)
        number[group[above:]] = 0
        new = number == 0
        number[new] = pile.pieces + np.arange(int(new.sum()))
        pile.pieces += int(new.sum())
        piece = number[group]
        goes_on = piece[:above] >= 0  # pieces of the last row that a new row touches
        pile.pairs.append((self._piece[goes_on], piece[:above][goes_on]))
        owner = np.concatenate([self._piece, piece[above:]])
        pile.edges.append(edges(runs, owner, height=height, width=width, first_row=self._next_row))
        last = (height - 1) * (width + 1)
        begin = int(np.searchsorted(changed, last))
        self._runs, self._piece = changed[begin:] - last, piece[above:][begin // 2 :]
        return changed, piece[above:]

    def _beside_missing(self, missing: Bools) -> Bools:
        """Return a bool array, True beside a missing pixel or at the scene's edge."""
        beside = np.zeros_like(missing)
        if missing.any():
            beside[1:] |= missing[:-1]
            beside[:-1] |= missing[1:]
            beside[:, 1:] |= missing[:, :-1]
            beside[:, :-1] |= missing[:, 1:]
        beside[:, [0, -1]] = True
        beside[0] |= self._last_missing
        beside[-1] |= self._next_row + len(missing) == self._scene.geobox.shape[0]
        return beside

    def _tops(self, missing: Bools) -> Integers:
        """Return column and row (n, 2) of the upper left pixels of missing areas.

        At least one of each area: those with a known one above and on the left. Holes with such a pixel stay.
        """
        tops = missing & ~np.concatenate([self._last_missing[None], missing[:-1]])
        tops[:, 1:] &= ~missing[:, :-1]
        row, col = np.nonzero(tops)
        return np.stack([col, row + self._next_row], axis=1)

    def _settle(self) -> None:
        """Measure the objects that do not reach the last row, and take them off the pile."""
        pile = self._pile
        upper, lower = chain(pile.pairs)
        count, group = groups(pile.pieces, (upper, lower))
        is_open = np.zeros(count, np.bool_)
        is_open[group[self._piece]] = True
        self._take(pile.part(group, ~is_open))
        self._pile = pile.part(group, is_open)
        self._piece = (np.cumsum(is_open) - 1)[group[self._piece]]
        # obstacles above all open objects can lie in none of their holes
        top = int(self._pile.edges[0].row.min(initial=self._next_row))
        self._obstacles = self._obstacles[self._obstacles[:, 1] >= top]

    def _take(self, pile: _Pile) -> None:
        """Measure a pile of whole objects; store their polygons, columns and reasons."""
        if not pile.pieces:
            return
        geobox, settings = self._scene.geobox, self._settings
        table: dict[str, npt.NDArray[Any]] = statistics(*value_counts(*chain(pile.values)))
        rim = np.bincount(chain(pile.touching)[0], minlength=pile.pieces)
        table["touches_edge"] = rim > 0
        outline = rings(pile.edges[0])
        unfilled = polygons = outline.polygons()
        pixels = np.bincount(outline.owner, weights=outline.pixels).astype(np.int64)
        seeded = table["probability_max"] > (settings.seed if isinstance(settings.seed, float) else -1.0)
        filled: Objects = np.empty(0, np.object_)
        owner: Integers = np.empty(0, np.int64)
        if settings.fill_holes_m2:
            outline, filled, owner = self._fill(outline, pile.edges[0], seeded)
            polygons = outline.polygons()
        table["pixels"] = np.bincount(outline.owner, weights=outline.pixels).astype(np.int64)
        table[REASON] = self._dropped(pile)
        table = {name: column[seeded] for name, column in table.items()}
        outlines = shapely.normalize(polygons[seeded])
        table["area_m2"], table["perimeter_m"] = measured(outlines, geobox)
        inside, least_m2 = pixels[seeded], settings.min_area_m2
        leave_out(table, rim=rim[seeded], pixels=inside, least_m2=least_m2, chosen_m2=self._least_m2)
        is_slump = seeded.copy()
        is_slump[seeded] = table[REASON] == ""
        self._erased.append(unfilled[~is_slump])
        self._filled.append(filled[is_slump[owner]])
        self._tables.append(table | self._placed(outlines))

    def _dropped(self, pile: _Pile) -> Objects:
        """Return the first rule that leaves out each object, as text; "" where none does.

        None does where nothing is known of the layer.
        """
        reasons = np.full(pile.pieces, "", np.object_)
        if self._settings.rules:
            layer_means = means(chain(pile.layers), pile.pieces)
            of_layer = dict(zip(self._settings.layers, layer_means, strict=True))
            for layer, sign, number in self._settings.rules:
                reasons[follows(of_layer[layer], sign, number) & (reasons == "")] = f"{layer} {sign} {number:g}"
        return reasons

    def _fill(self, outline: Rings, edges_of_objects: Edges, seeded: Bools) -> tuple[Rings, Objects, Integers]:
        """Return rings without small holes, these holes as polygons, and their owners.

        Small is below polygons.fill_holes_m2. Holes over missing pixels or other objects are not filled.
        """
        owner, first = np.unique(edges_of_objects.owner, return_index=True)
        topmost = first[seeded[owner]]
        tops = np.stack([edges_of_objects.left[topmost], edges_of_objects.row[topmost]], axis=1)
        self._obstacles = np.concatenate([self._obstacles, tops])
        holes = np.flatnonzero((outline.pixels < 0) & seeded[outline.owner])
        shapes = outline.holes(holes)
        small = measured(shapes, self._scene.geobox)[0] < self._settings.fill_holes_m2
        holes, shapes = holes[small], shapes[small]
        over = shapely.STRtree(shapes).query(shapely.points(self._obstacles + 0.5), predicate="within")[1]
        free = np.ones(len(holes), np.bool_)
        free[over] = False
        is_filled = np.zeros(len(outline.pixels), np.bool_)
        is_filled[holes[free]] = True
        return outline.without(is_filled), shapes[free], outline.owner[holes[free]]

    def _placed(self, outlines: Objects) -> dict[str, npt.NDArray[Any]]:
        """Return columns of outlines' slump ids, pixel bounds and polygons in the CRS."""
        geobox = self._scene.geobox
        ground = shapely.orient_polygons(on_ground(outlines, geobox))
        beginning = f"{self._bundle_id}/{self._scene.id}/"
        names = [str(uuid.uuid5(_NAMESPACE, beginning + wkb)) for wkb in _hex(ground)]
        if self._settings.simplify_m:
            ground = _simplified(outlines, ground, self._scene, self._settings.simplify_m)
        left, top, right, bottom = shapely.bounds(outlines).reshape(-1, 4).T
        bounds = {"top": top, "left": left, "bottom": bottom, "right": right}
        return {"slump_id": np.array(names, np.object_), "geometry": ground, **bounds}


def _line(runs: Integers, width: int) -> Bools:
    """Return one row of a mask as bools (width,), from its runs' begins and ends."""
    steps = np.zeros(width + 1, np.int8)
    steps[runs[::2]] = 1
    steps[runs[1::2]] = -1
    line: Bools = np.cumsum(steps)[:width] > 0
    return line


def _simplified(outlines: Objects, ground: Objects, scene: Scene, tolerance_m: float) -> Objects:
    """Return ground polygons simplified within a tolerance in m, where still valid.

    Others stay as they are.
    """
    size = np.array(ground_pixel_m(scene.geobox))[::-1]
    metres = shapely.transform(outlines, lambda points: points * size)
    simple = shapely.transform(shapely.simplify(metres, tolerance_m), lambda points: points / size)
    placed = shapely.orient_polygons(on_ground(simple, scene.geobox))
    simplified: Objects = np.where(shapely.is_valid(placed) & ~shapely.is_empty(placed), placed, ground)
    return simplified


def _frame(tables: Sequence[Mapping[str, Any]], scene: Scene, *, bundle_id: str) -> "gpd.GeoDataFrame":
    """Return objects' column tables as one GeoDataFrame, sorted from the top down."""
    import geopandas as gpd  # noqa: PLC0415 - only once a scene is mapped
    import pandas as pd  # noqa: PLC0415

    kinds = {"slump_id": "O", "geometry": "O", REASON: "O", "top": "f8", "left": "f8", "bottom": "f8", "right": "f8"}
    kinds = SLUMP_COLUMNS | kinds

    def column(name: str) -> Any:
        return np.concatenate([np.empty(0, kinds[name]), *(table[name] for table in tables)])

    order = np.lexsort([column(name) for name in ("right", "bottom", "left", "top")])
    same: dict[str, Any] = {
        "scene_id": scene.id,
        "acquired": _utc(scene),
        "bundle_id": bundle_id,
        "status": "detected",
        "reviewer": None,
        "reviewed_at": None,
    }
    table: dict[str, Any] = {}
    for name, dtype in SLUMP_COLUMNS.items():
        values: Any = [same[name]] * len(order) if name in same else column(name)[order]
        table[name] = pd.array(values, dtype=dtype)
    table[REASON] = pd.array(column(REASON)[order], dtype="string")
    return gpd.GeoDataFrame(table, geometry=column("geometry")[order], crs=crs_of(scene.geobox))


def _hex(polygons: Objects) -> list[str]:
    """Return polygons as upper-case hexadecimal WKB, faster than their `wkb_hex`."""
    return [wkb.hex().upper() for wkb in shapely.to_wkb(polygons)]


def _utc(scene: Scene) -> "pd.Timestamp | None":
    """Return a scene's time, with or without a zone, in UTC; None if it is unknown."""
    import pandas as pd  # noqa: PLC0415 - only once a scene is mapped

    if scene.acquired is None:
        return None
    time = pd.Timestamp(scene.acquired)
    return time.tz_localize("UTC") if time.tzinfo is None else time.tz_convert("UTC")
