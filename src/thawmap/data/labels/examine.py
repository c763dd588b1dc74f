"""The tests that digitised polygons go through, each of which yields the faults that it finds.

Polygons compete (duplicates, overlaps) with those of the same scene, or of the same period, or with all, as the
settings say. Areas are measured in an equal-area projection.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from thawmap.config import LabelSettings
from thawmap.data.labels.attributes import Texts, day_of, days, days_in, period, scene_id, texts
from thawmap.data.labels.footprints import Footprint, astray
from thawmap.geo.crs import EQUAL_AREA
from thawmap.geo.shapes import Rows, Shapes, is_finite, meridian_of, polygons_of, repair, reproject

SAME = 0.95
"""Intersection over union above which two polygons are taken for one."""
SLIVER_ROUNDNESS = 0.1
"""4 pi area / perimeter2 below which a polygon that is narrower than a pixel is a sliver; a circle has 1, a strip of
1 to 30 has 0.1.
"""
HUGE_M2 = 5e6
"""No single slump is as large: the largest that are known have about 1 km2."""
UNUSUAL = 5.0
"""Robust standard deviations (1.4826 MAD) of the logarithm of the area, within a region."""
_ENOUGH = 10  # polygons of a region that tell what is usual

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Case:
    """Polygons under examination.

    Attributes:
        frame: What was digitised.
        settings: What its columns mean.
        scenes: The scenes that are there, by id; empty: nothing is compared with scenes.
        today: Until when a date is possible.
        shapes: The shape of each row, as drawn.
        ground: It in equal-area metres, valid; None or empty where it cannot be measured.
        names: The id of the scene of each row; "" where none is named.
        pixel_m: Side of that scene's pixels.
    """

    frame: gpd.GeoDataFrame
    settings: LabelSettings
    scenes: Mapping[str, Footprint]
    today: np.datetime64
    shapes: Shapes
    ground: Shapes
    names: Texts
    pixel_m: npt.NDArray[np.float64]

    @property
    def measured(self) -> Rows:
        """Rows whose ground is known."""
        rows: Rows = np.flatnonzero(~(shapely.is_missing(self.ground) | shapely.is_empty(self.ground)))
        return rows


@dataclass(frozen=True, slots=True)
class Found:
    """Faults of one kind.

    Attributes:
        kind: Which, of `thawmap.data.labels.faults.KINDS`.
        rows: Rows that have it; -1: the file as a whole.
        said: What is wrong with each.
        where: The place of each; unset: its polygon.
        others: The row that each repeats or overlaps.
    """

    kind: str
    rows: Rows
    said: list[str]
    where: Shapes | None = None
    others: Rows | None = None


def case_of(
    frame: gpd.GeoDataFrame,
    settings: LabelSettings,
    scenes: Mapping[str, Footprint],
    *,
    pixel_m: float,
    today: datetime,
) -> Case:
    """What the tests need to know; the polygons' columns are those that the settings name."""
    shapes = np.array(frame.geometry.values)
    sound = shapes.copy()
    sound[~(flat(frame) & is_finite(shapes)) | _misplaced(frame, shapes)] = None
    ground = np.full(len(frame), None, object)
    if frame.crs is not None:
        ground = reproject(gpd.GeoDataFrame(geometry=sound, crs=frame.crs), EQUAL_AREA).shapes
    written = np.full(len(frame), "", object) if settings.scene is None else texts(frame[settings.scene])
    names = np.array([name if name in scenes else scene_id(str(name)) for name in written], np.object_)
    side = np.array([scenes[name].pixel_m if name in scenes else pixel_m for name in names], np.float64)
    return Case(frame, settings, scenes, day_of(today), shapes, ground, names, side)


def flat(frame: gpd.GeoDataFrame) -> Bools:
    """Which rows are polygons."""
    polygons: Bools = frame.geom_type.isin(["Polygon", "MultiPolygon"]).to_numpy()
    return polygons


def corners(shapes: Shapes) -> Texts:
    """A text that is the same for shapes of the same corners, wherever they begin."""
    return np.asarray(shapely.to_wkb(shapely.normalize(shapes), hex=True), np.object_)


def competing(frame: gpd.GeoDataFrame, settings: LabelSettings) -> Texts:
    """A text that is the same for polygons of the same scene, or of the same period, or for all."""
    if settings.scene is not None:
        return np.array([scene_id(name) for name in texts(frame[settings.scene])], object)
    parts = [texts(frame[name]) for name in (settings.start, settings.end) if name is not None]
    return np.array([" ".join(row) for row in zip(*parts, strict=True)] if parts else [""] * len(frame), object)


def _crs(case: Case) -> Iterator[Found]:
    """No CRS, or coordinates that cannot be in it."""
    if case.frame.crs is None:
        yield Found("crs", np.array([-1]), ["has no CRS, so nobody knows where its polygons lie"], np.array([None]))
        return
    rows = np.flatnonzero(_misplaced(case.frame, case.shapes))
    units = "degrees" if case.frame.crs.is_geographic else "metres"
    bounds = shapely.bounds(case.shapes[rows])
    yield Found("crs", rows, [f"lies at {x:.6g}, {y:.6g}, and its CRS counts in {units}" for x, y, _, _ in bounds])


def _nowhere(case: Case) -> Iterator[Found]:
    """Polygons that lie on no scene, as a whole."""
    named = None if case.settings.scene is None else case.names
    lost = astray(case.frame, case.scenes, named)
    if lost is not None:
        yield Found("nowhere", np.array([-1]), [lost.said], np.array([None]))


def _misplaced(frame: gpd.GeoDataFrame, shapes: Shapes) -> Bools:
    """Which rows have coordinates that cannot be in the file's CRS: metres among degrees, or degrees among metres."""
    if frame.crs is None:
        return np.zeros(len(frame), np.bool_)
    reach = np.abs(shapely.bounds(shapes))  # NaN where there is no shape
    x, y = np.maximum(reach[:, 0], reach[:, 2]), np.maximum(reach[:, 1], reach[:, 3])
    found: Bools = (x > 360) | (y > 90) if frame.crs.is_geographic else (x <= 180) & (y <= 90)
    return found & is_finite(shapes)


def _geometry(case: Case) -> Iterator[Found]:
    """Nothing, no polygon, coordinates that are no numbers, or boundaries that cross themselves."""
    nothing = shapely.is_missing(case.shapes) | shapely.is_empty(case.shapes)
    areal, numbered = flat(case.frame), is_finite(case.shapes)
    rows = np.flatnonzero(nothing)
    yield Found("no geometry", rows, ["has no geometry"] * len(rows))
    rows = np.flatnonzero(~nothing & ~areal)
    yield Found("no polygon", rows, [f"is a {case.shapes[row].geom_type}" for row in rows])
    rows = np.flatnonzero(~numbered)
    yield Found("no numbers", rows, ["has a coordinate that is missing or infinite"] * len(rows))
    rows = np.flatnonzero(~nothing & areal & numbered & ~shapely.is_valid(case.shapes))
    reasons = [shapely.is_valid_reason(case.shapes[row]) for row in rows]
    yield Found("invalid", rows, [f"is not valid: {reason}" for reason in reasons])


def _pairs(case: Case) -> Iterator[Found]:
    """Polygons that are there twice, nearly twice, or that overlap, among those that compete."""
    groups = competing(case.frame, case.settings)
    rows = np.flatnonzero(flat(case.frame) & is_finite(case.shapes) & ~shapely.is_empty(case.shapes))
    alike = pd.DataFrame({"row": rows, "group": groups[rows], "corners": corners(case.shapes[rows])})
    first = alike.groupby(["group", "corners"])["row"].transform("min").to_numpy()
    again = rows[first != rows]
    first = first[first != rows]
    yield Found("duplicate", again, [f"is the same as row {row + 1}" for row in first], others=first)
    rows = np.setdiff1d(case.measured, again)
    met = [_meeting(case.ground, rows[some]) for some in rows_by(groups[rows]) if len(some) > 1]
    if met:
        yield from _overlaps(case, *np.concatenate(met, axis=1))


def rows_by(groups: Texts) -> Iterable[Rows]:
    """The rows of each group, in order."""
    return [np.asarray(rows, np.intp) for rows in pd.Series(groups).groupby(groups).indices.values()]


def _meeting(ground: Shapes, rows: Rows) -> Rows:
    """Pairs of rows (2, pairs) whose polygons have ground or boundary in common, the earlier one first."""
    one, other = shapely.STRtree(ground[rows]).query(ground[rows], predicate="intersects")
    return np.stack([rows[one[one < other]], rows[other[one < other]]])


def _overlaps(case: Case, earlier: Rows, later: Rows) -> Iterator[Found]:
    one, other = case.ground[earlier], case.ground[later]
    common = shapely.area(shapely.intersection(one, other))
    small = np.minimum(shapely.area(one), shapely.area(other))
    alike = common / (shapely.area(one) + shapely.area(other) - common)
    near = alike > SAME
    said = [
        f"shares {share:.0%} of its ground with row {row + 1}"
        for share, row in zip(alike[near], earlier[near], strict=True)
    ]
    yield Found("near duplicate", later[near], said, others=earlier[near])
    laps = ~near & (common > case.pixel_m[later] ** 2)
    said = [
        f"overlaps row {row + 1} on {m2:.0f} m2, {share:.0%} of the smaller"
        for row, m2, share in zip(earlier[laps], common[laps], (common / small)[laps], strict=True)
    ]
    one, other = (repair(case.shapes[rows[laps]]) for rows in (earlier, later))
    yield Found("overlap", later[laps], said, polygons_of(shapely.intersection(one, other)), earlier[laps])


def _sizes(case: Case) -> Iterator[Found]:
    """Slivers, polygons smaller than a pixel or larger than any slump, and what is far from its region's usual."""
    rows = case.measured
    area, length = shapely.area(case.ground[rows]), shapely.length(case.ground[rows])
    side = case.pixel_m[rows]
    width = 2 * area / length
    sliver = (width < side) & (4 * np.pi * area / length**2 < SLIVER_ROUNDNESS)
    said = [f"is {m:.2g} m wide and {long:.0f} m around" for m, long in zip(width[sliver], length[sliver], strict=True)]
    yield Found("sliver", rows[sliver], said)
    tiny = ~sliver & (area < side**2)
    yield Found("tiny", rows[tiny], [f"has {m2:.2g} m2, less than a pixel" for m2 in area[tiny]])
    huge = area > HUGE_M2
    yield Found("huge", rows[huge], [f"has {m2 / 1e6:.1f} km2" for m2 in area[huge]])
    usual = ~(sliver | tiny | huge)
    yield from _unusual(case, rows[usual], area[usual])


def _unusual(case: Case, rows: Rows, area: npt.NDArray[np.float64]) -> Iterator[Found]:
    regions = np.full(len(rows), "", object)
    if case.settings.region is not None:
        regions = texts(case.frame[case.settings.region])[rows]
    for some in rows_by(regions):
        size = np.log(area[some])
        middle = np.median(size)
        spread = 1.4826 * np.median(np.abs(size - middle))
        if len(some) < _ENOUGH or spread == 0:
            continue
        odd = some[np.abs(size - middle) > UNUSUAL * spread]
        place = f"those of {regions[some[0]]}" if regions[some[0]] else "all"
        said = [f"has {m2:.0f} m2, and the median of {place} is {np.exp(middle):.0f} m2" for m2 in area[odd]]
        yield Found("unusual size", rows[odd], said)


def _scenes(case: Case) -> Iterator[Found]:
    """No scene, one that is not there, or ground that the scene does not show."""
    if case.settings.scene is None:
        return
    rows = np.flatnonzero(case.names == "")
    yield Found("no scene", rows, ["names no scene"] * len(rows))
    if not case.scenes:
        return
    there = np.isin(case.names, list(case.scenes))
    rows = np.flatnonzero((case.names != "") & ~there)
    number = len(case.scenes)
    yield Found("unknown scene", rows, [f"names {case.names[row]}, none of the {number} scenes" for row in rows])
    rows = case.measured[there[case.measured]]
    for some in rows_by(case.names[rows]):
        yield from _outside(case, rows[some], case.scenes[case.names[rows[some[0]]]])


def _outside(case: Case, rows: Rows, scene: Footprint) -> Iterator[Found]:
    """What of one scene's polygons lies beyond its pixels, by at least a pixel."""
    drawn = case.frame.geometry.iloc[rows]
    meridian = meridian_of(scene.crs, scene.outline.centroid.x)
    shapes = reproject(drawn.to_frame(), scene.crs, meridian=meridian).shapes
    shapely.prepare(scene.outline)
    beyond = ~shapely.covers(scene.outline, shapes)
    rows, shapes = rows[beyond], shapes[beyond]
    rest = polygons_of(shapely.difference(shapes, scene.outline))
    apart = ~shapely.intersects(scene.outline, shapes)
    yield Found("outside", rows[apart], [f"lies wholly outside of {case.names[row]}" for row in rows[apart]])
    m2 = gpd.GeoSeries(rest, crs=scene.crs).to_crs(EQUAL_AREA).area.to_numpy()
    partly = ~apart & (m2 > scene.pixel_m**2)
    share = m2 / shapely.area(case.ground[rows])
    said = [
        f"lies to {part:.0%} outside of {case.names[row]}"
        for part, row in zip(share[partly], rows[partly], strict=True)
    ]
    where = np.asarray(gpd.GeoSeries(rest[partly], crs=scene.crs).to_crs(case.frame.crs).values)
    yield Found("partly outside", rows[partly], said, where)


def _dates(case: Case) -> Iterator[Found]:
    """Days that make no sense, are to come, or are not those of the scene."""
    settings = case.settings
    if settings.start is None:
        return
    first, last = period(case.frame, settings)
    for column in (settings.start, settings.end):
        if column is not None:
            yield from _days(case, column)
    rows = np.flatnonzero(first > last)
    yield Found("date", rows, [f"begins on {first[row]}, after its end on {last[row]}" for row in rows])
    for some in rows_by(case.names):
        name = case.names[some[0]]
        expected = _taken(name, case.scenes.get(name))
        if expected:
            wrong = some[np.all([(first[some] > day) | (last[some] < day) for day in expected], axis=0)]
            said = [f"says {first[row]}, and {name} was taken on {expected[0]} (UTC)" for row in wrong]
            yield Found("date", wrong, said)


def _days(case: Case, column: str) -> Iterator[Found]:
    """What is no day, or one to come, in one column."""
    written, read = texts(case.frame[column]), days(case.frame[column])
    needed = case.settings.scene is None and column == case.settings.start
    rows = np.flatnonzero(np.isnat(read) & ((written != "") | needed))
    said = [f"has {written[row]!r} in {column!r}, which is no day such as 2019-07-14" for row in rows]
    yield Found("date", rows, said)
    rows = np.flatnonzero(read > case.today)
    yield Found("date", rows, [f"is of {read[row]}, which is to come" for row in rows])


def _taken(name: str, scene: Footprint | None) -> list[np.datetime64]:
    """When a scene was taken, where that is known, or which days its name holds."""
    return [day_of(scene.acquired)] if scene is not None and scene.acquired is not None else days_in(name)


def _regions(case: Case) -> Iterator[Found]:
    """No region, or not the one that most polygons of the scene have."""
    column = case.settings.region
    if column is None:
        return
    regions = texts(case.frame[column])
    rows = np.flatnonzero(regions == "")
    yield Found("no region", rows, [f"has nothing in {column!r}"] * len(rows))
    rows = np.flatnonzero((regions != "") & (case.names != ""))
    for some in rows_by(case.names[rows]):
        names, counts = np.unique(regions[rows[some]].astype(str), return_counts=True)
        usual = names[np.argmax(counts)]
        odd = rows[some][regions[rows[some]] != usual]
        said = [f"is of {regions[row]}, and others of {case.names[row]} are of {usual}" for row in odd]
        yield Found("mixed regions", odd, said)


TESTS = (_crs, _nowhere, _geometry, _pairs, _sizes, _scenes, _dates, _regions)
"""All tests, each a function of a case."""
