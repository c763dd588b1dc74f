"""Checks of digitised polygons, each of which yields the faults that it finds.

Polygons compete (duplicates, overlaps) with those of the same scene, or of the same period, or with all, as the
settings say. Areas are measured in an equal-area projection.
"""

from collections.abc import Iterator, Mapping
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
"""Area that no single slump has: the largest that are known have about 1 km2."""
UNUSUAL = 5.0
"""Robust standard deviations (1.4826 MAD) of the logarithm of the area, within a region."""
_ENOUGH = 10  # polygons of a region from which its usual size can be told

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Case:
    """Digitised polygons with what checks compare: scenes, ground, ids, pixel sizes.

    Attributes:
        frame: What was digitised.
        settings: What its columns mean.
        scenes: The scenes that are there, by id; empty: nothing is compared with scenes.
        today: Until when a date is possible.
        shapes: The shape of each row, as drawn.
        ground: The same shapes in equal-area metres, valid; None or empty where they cannot be measured.
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
        """Row numbers (from 0) of the case's polygons whose area can be measured."""
        rows: Rows = np.flatnonzero(~(shapely.is_missing(self.ground) | shapely.is_empty(self.ground)))
        return rows


@dataclass(frozen=True, slots=True)
class Faults:
    """Faults of one kind: the rows that have it, messages and shapes.

    Attributes:
        kind: One of `thawmap.data.labels.faults.KINDS`.
        rows: Rows that have it; -1: the file as a whole.
        messages: What is wrong with each, a clause.
        shapes: The ground of each, in the polygons' CRS; unset: the whole polygon.
        others: The row that each repeats or overlaps.
    """

    kind: str
    rows: Rows
    messages: list[str]
    shapes: Shapes | None = None
    others: Rows | None = None

    @classmethod
    def of_file(cls, kind: str, message: str) -> "Faults":
        """Return one fault of a file as a whole, of a kind and with a message.

        It has no shape.
        """
        return cls(kind, np.array([-1]), [message], np.array([None]))


def case_of(
    frame: gpd.GeoDataFrame,
    settings: LabelSettings,
    scenes: Mapping[str, Footprint],
    *,
    pixel_m: float,
    today: datetime,
) -> Case:
    """Return polygons with equal-area shapes, scene ids and pixel sizes, as a `Case`.

    These are what the checks compare. The polygons have the columns that the settings name; ``pixel_m`` is the side of
    a pixel of scenes that are not there.
    """
    shapes = np.array(frame.geometry.values)
    sound = shapes.copy()
    sound[~(is_polygon(frame) & is_finite(shapes)) | _misplaced(frame, shapes)] = None
    ground = np.full(len(frame), None, object)
    if frame.crs is not None:
        ground = reproject(gpd.GeoDataFrame(geometry=sound, crs=frame.crs), EQUAL_AREA).shapes
    written = np.full(len(frame), "", object) if settings.scene is None else texts(frame[settings.scene])
    names = np.array([name if name in scenes else scene_id(str(name)) for name in written], np.object_)
    side_m = np.array([scenes[name].pixel_m if name in scenes else pixel_m for name in names], np.float64)
    return Case(frame, settings, scenes, day_of(today), shapes, ground, names, side_m)


def is_polygon(frame: gpd.GeoDataFrame) -> Bools:
    """Return a bool for each row: True for a polygon, of one part or several."""
    polygons: Bools = frame.geom_type.isin(["Polygon", "MultiPolygon"]).to_numpy()
    return polygons


def corner_keys(shapes: Shapes) -> Texts:
    """Return a text for each shape, equal for shapes of the same corners.

    At which corner a boundary begins does not matter.
    """
    return np.asarray(shapely.to_wkb(shapely.normalize(shapes), hex=True), np.object_)


def group_keys(frame: gpd.GeoDataFrame, settings: LabelSettings) -> Texts:
    """Return a text for each polygon, equal for those of one scene, else one period.

    Polygons of one text compete: without columns of scenes and of periods, all of them.
    """
    if settings.scene is not None:
        return np.array([scene_id(name) for name in texts(frame[settings.scene])], object)
    dates = [texts(frame[name]) for name in (settings.start, settings.end) if name is not None]
    return np.array([" ".join(row) for row in zip(*dates, strict=True)] if dates else [""] * len(frame), object)


def _rows_by(groups: Texts, rows: Rows) -> list[Rows]:
    """Return the given row numbers split into one array for each group.

    ``groups`` are texts, one for each row of the file.
    """
    keys = groups[rows]
    return [rows[members] for members in pd.Series(keys).groupby(keys).indices.values()]


def _misplaced(frame: gpd.GeoDataFrame, shapes: Shapes) -> Bools:
    """Return a bool by row: True where coordinates cannot be in the file's CRS.

    They are metres where it counts in degrees, or degrees where it counts in metres.
    """
    if frame.crs is None:
        return np.zeros(len(frame), np.bool_)
    reach = np.abs(shapely.bounds(shapes))  # NaN where there is no shape
    x, y = np.maximum(reach[:, 0], reach[:, 2]), np.maximum(reach[:, 1], reach[:, 3])
    impossible: Bools = (x > 360) | (y > 90) if frame.crs.is_geographic else (x <= 180) & (y <= 90)
    return impossible & is_finite(shapes)


def _crs_faults(case: Case) -> Iterator[Faults]:
    """Yield faults: of a file without CRS, or of rows whose coordinates do not fit it."""
    if case.frame.crs is None:
        yield Faults.of_file("crs", "has no CRS, so nobody knows where its polygons lie")
        return
    rows = np.flatnonzero(_misplaced(case.frame, case.shapes))
    units = "degrees" if case.frame.crs.is_geographic else "metres"
    bounds = shapely.bounds(case.shapes[rows])
    yield Faults("crs", rows, [f"lies at {x:.6g}, {y:.6g}, and its CRS counts in {units}" for x, y, _, _ in bounds])


def _ground_faults(case: Case) -> Iterator[Faults]:
    """Yield one fault if a file's polygons lie on none, or hardly any, of the scenes."""
    lost = astray(case.frame, case.scenes, None if case.settings.scene is None else case.names)
    if lost is not None:
        yield Faults.of_file("nowhere", lost.message)


def _geometry_faults(case: Case) -> Iterator[Faults]:
    """Yield faults of rows without geometry, not polygons, not finite, or invalid."""
    nothing = shapely.is_missing(case.shapes) | shapely.is_empty(case.shapes)
    polygons, numbered = is_polygon(case.frame), is_finite(case.shapes)
    rows = np.flatnonzero(nothing)
    yield Faults("no geometry", rows, ["has no geometry"] * len(rows))
    rows = np.flatnonzero(~nothing & ~polygons)
    yield Faults("no polygon", rows, [f"is a {case.shapes[row].geom_type}" for row in rows])
    rows = np.flatnonzero(~numbered)
    yield Faults("no numbers", rows, ["has a coordinate that is missing or infinite"] * len(rows))
    rows = np.flatnonzero(~nothing & polygons & numbered & ~shapely.is_valid(case.shapes))
    reasons = [shapely.is_valid_reason(case.shapes[row]) for row in rows]
    yield Faults("invalid", rows, [f"is not valid: {reason}" for reason in reasons])


def _pair_faults(case: Case) -> Iterator[Faults]:
    """Yield faults of polygons that repeat or overlap others of their scene or period."""
    groups = group_keys(case.frame, case.settings)
    rows = np.flatnonzero(is_polygon(case.frame) & is_finite(case.shapes) & ~shapely.is_empty(case.shapes))
    keys = pd.DataFrame({"row": rows, "group": groups[rows], "corners": corner_keys(case.shapes[rows])})
    first = keys.groupby(["group", "corners"])["row"].transform("min").to_numpy()
    repeats, originals = rows[first != rows], first[first != rows]
    yield Faults("duplicate", repeats, [f"is the same as row {row + 1}" for row in originals], others=originals)
    # a duplicate overlaps all that its original overlaps: only the original is compared further
    pairs = [np.empty((2, 0), np.intp)]
    for group in _rows_by(groups, np.setdiff1d(case.measured, repeats)):
        if len(group) > 1:
            touching = shapely.STRtree(case.ground[group]).query(case.ground[group], predicate="intersects")
            once = touching[0] < touching[1]  # the tree finds each pair twice, and each polygon with itself
            pairs.append(group[touching[:, once]])
    yield from _overlap_faults(case, *np.concatenate(pairs, axis=1))


def _overlap_faults(case: Case, earlier: Rows, later: Rows) -> Iterator[Faults]:
    """Yield faults of pairs of rows: near duplicates, and overlaps over a pixel."""
    areas = shapely.area(case.ground)
    common = shapely.area(shapely.intersection(case.ground[earlier], case.ground[later]))
    iou = common / (areas[earlier] + areas[later] - common)
    same = iou > SAME
    messages = [
        f"shares {share:.0%} of its ground with row {row + 1}"
        for share, row in zip(iou[same], earlier[same], strict=True)
    ]
    yield Faults("near duplicate", later[same], messages, others=earlier[same])
    # less than a pixel is what rounding makes of a boundary that two neighbours share
    overlaps = ~same & (common > case.pixel_m[later] ** 2)
    share = common / np.minimum(areas[earlier], areas[later])
    earlier, later = earlier[overlaps], later[overlaps]
    messages = [
        f"overlaps row {row + 1} on {m2:.0f} m2, {smaller:.0%} of the smaller"
        for row, m2, smaller in zip(earlier, common[overlaps], share[overlaps], strict=True)
    ]
    first, second = repair(case.shapes[earlier]), repair(case.shapes[later])
    yield Faults("overlap", later, messages, polygons_of(shapely.intersection(first, second)), earlier)


def _size_faults(case: Case) -> Iterator[Faults]:
    """Yield faults of slivers, polygons below a pixel, huge ones, and unusual sizes."""
    rows, areas = case.measured, shapely.area(case.ground)
    m2, perimeter_m, side_m = areas[rows], shapely.length(case.ground[rows]), case.pixel_m[rows]
    width_m = 2 * m2 / perimeter_m  # of a long strip
    sliver = (width_m < side_m) & (4 * np.pi * m2 / perimeter_m**2 < SLIVER_ROUNDNESS)
    messages = [
        f"is {width:.2g} m wide and {length:.0f} m around"
        for width, length in zip(width_m[sliver], perimeter_m[sliver], strict=True)
    ]
    yield Faults("sliver", rows[sliver], messages)
    tiny = ~sliver & (m2 < side_m**2)
    yield Faults("tiny", rows[tiny], [f"has {area:.2g} m2, less than a pixel" for area in m2[tiny]])
    huge = m2 > HUGE_M2
    yield Faults("huge", rows[huge], [f"has {area / 1e6:.1f} km2" for area in m2[huge]])

    column = case.settings.region
    regions = np.full(len(case.frame), "", object) if column is None else texts(case.frame[column])
    for members in _rows_by(regions, rows[~(sliver | tiny | huge)]):
        size = np.log(areas[members])  # sizes of slumps are about lognormal
        median = np.median(size)
        spread = 1.4826 * np.median(np.abs(size - median))  # a standard deviation, were they normal
        if len(members) >= _ENOUGH and spread > 0:
            odd = members[np.abs(size - median) > UNUSUAL * spread]
            group = f"those of {regions[members[0]]}" if regions[members[0]] else "all"
            messages = [f"has {areas[row]:.0f} m2, and the median of {group} is {np.exp(median):.0f} m2" for row in odd]
            yield Faults("unusual size", odd, messages)


def _scene_faults(case: Case) -> Iterator[Faults]:
    """Yield faults of rows without a scene, with an absent one, or outside of theirs."""
    if case.settings.scene is None:
        return
    rows = np.flatnonzero(case.names == "")
    yield Faults("no scene", rows, ["names no scene"] * len(rows))
    if not case.scenes:
        return
    present = np.isin(case.names, list(case.scenes))
    rows = np.flatnonzero((case.names != "") & ~present)
    number = len(case.scenes)
    yield Faults("unknown scene", rows, [f"names {case.names[row]}, none of the {number} scenes" for row in rows])
    for members in _rows_by(case.names, case.measured[present[case.measured]]):
        yield from _outside_faults(case, members, case.scenes[case.names[members[0]]])


def _outside_faults(case: Case, rows: Rows, scene: Footprint) -> Iterator[Faults]:
    """Yield faults of rows that lie wholly, or by over a pixel, outside their scene."""
    meridian = meridian_of(scene.crs, scene.outline.centroid.x)
    shapes = reproject(case.frame.geometry.iloc[rows].to_frame(), scene.crs, meridian=meridian).shapes
    shapely.prepare(scene.outline)
    beyond = ~shapely.covers(scene.outline, shapes)
    rows, shapes = rows[beyond], shapes[beyond]
    apart = ~shapely.intersects(scene.outline, shapes)
    yield Faults("outside", rows[apart], [f"lies wholly outside of {case.names[row]}" for row in rows[apart]])
    rest = polygons_of(shapely.difference(shapes, scene.outline))
    m2 = gpd.GeoSeries(rest, crs=scene.crs).to_crs(EQUAL_AREA).area.to_numpy()
    partly = ~apart & (m2 > scene.pixel_m**2)
    share = m2 / shapely.area(case.ground[rows])
    messages = [
        f"lies to {outside:.0%} outside of {case.names[row]}"
        for outside, row in zip(share[partly], rows[partly], strict=True)
    ]
    rest = np.asarray(gpd.GeoSeries(rest[partly], crs=scene.crs).to_crs(case.frame.crs).values)
    yield Faults("partly outside", rows[partly], messages, rest)


def _date_faults(case: Case) -> Iterator[Faults]:
    """Yield faults of days that are unreadable, to come, or not those of the scene."""
    settings = case.settings
    if settings.start is None:
        return
    for column in (settings.start, settings.end):
        if column is None:
            continue
        written, read = texts(case.frame[column]), days(case.frame[column])
        needed = settings.scene is None and column == settings.start
        rows = np.flatnonzero(np.isnat(read) & ((written != "") | needed))
        messages = [f"has {written[row]!r} in {column!r}, which is no day such as 2019-07-14" for row in rows]
        yield Faults("date", rows, messages)
        rows = np.flatnonzero(read > case.today)
        yield Faults("date", rows, [f"is of {read[row]}, which is to come" for row in rows])

    first, last = period(case.frame, settings)
    rows = np.flatnonzero(first > last)
    yield Faults("date", rows, [f"begins on {first[row]}, after its end on {last[row]}" for row in rows])
    for members in _rows_by(case.names, np.arange(len(case.frame))):
        name = case.names[members[0]]
        scene = case.scenes.get(name)
        expected = days_in(name) if scene is None or scene.acquired is None else [day_of(scene.acquired)]
        if expected:
            wrong = members[np.all([(first[members] > day) | (last[members] < day) for day in expected], axis=0)]
            messages = [f"says {first[row]}, and {name} was taken on {expected[0]} (UTC)" for row in wrong]
            yield Faults("date", wrong, messages)


def _region_faults(case: Case) -> Iterator[Faults]:
    """Yield faults of rows without a region, or not of their scene's usual region."""
    column = case.settings.region
    if column is None:
        return
    regions = texts(case.frame[column])
    rows = np.flatnonzero(regions == "")
    yield Faults("no region", rows, [f"has nothing in {column!r}"] * len(rows))
    for members in _rows_by(case.names, np.flatnonzero((regions != "") & (case.names != ""))):
        names, counts = np.unique(regions[members].astype(str), return_counts=True)
        usual = names[np.argmax(counts)]
        odd = members[regions[members] != usual]
        messages = [f"is of {regions[row]}, and others of {case.names[row]} are of {usual}" for row in odd]
        yield Faults("mixed regions", odd, messages)


CHECKS = (
    _crs_faults, _ground_faults, _geometry_faults, _pair_faults, _size_faults, _scene_faults, _date_faults,
    _region_faults,
)  # fmt: skip
"""All checks, each a function from a case to its faults."""
