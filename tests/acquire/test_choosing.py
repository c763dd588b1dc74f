"""Choosing of scenes: rules, dates, the quota; laws on generated offers."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from offering import AREA, HIGH, NOON, SOUTH, WIDE, cell_box, many_offers, offer, rules
from shapely.affinity import translate

from thawmap.acquire.areas import Area
from thawmap.acquire.choosing import choose, reason_kind, undecided
from thawmap.acquire.passes import group_dates, longitude, solar_day
from thawmap.config import PlanetImagery

FEW = settings(max_examples=30)
EAST = Area("komakuk", translate(AREA.outline, 3, 0))


def chosen(choice):
    return [item.offer.id for item in choice.items if item.chosen]


def reasons(choice):
    return {item.offer.id: item.reason for item in choice.items}


def oracle_km2(shape):
    """By pyproj and shapely alone, with points every hundred metres or so."""
    move = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:6931", always_xy=True).transform
    dense = shapely.segmentize(shape, 0.002)
    return shapely.area(shapely.transform(dense, lambda points: np.column_stack(move(*points.T)))) / 1e6


def shows(offers, area=AREA):
    """Share of the area that scenes show together, by the oracle."""
    union = shapely.intersection(shapely.union_all([each.outline for each in offers]), area.outline)
    return oracle_km2(union) / oracle_km2(area.outline)


def pick(*offers, area=AREA, the=None, **values):
    return choose({area.name: offers}, [area], the or rules(), **values)


# --- rules of a scene -------------------------------------------------------------------------------------------------


def test_clear_dates_are_taken_and_cloudy_ones_are_not():
    choice = pick(offer("clear"), offer("cloudy", day=9, clear=0.5))
    assert reasons(choice) == {"clear": "", "cloudy": "date too cloudy (0.500 of what it shows, most 0.1)"}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"fault": "no asset ortho_udm2"}, "no asset ortho_udm2"),
        ({"outline": cell_box(9.95, 0, 20, 10)}, "shows too little of the area (0.005 of it, least 0.01)"),
        ({"outline": cell_box(20, 0, 30, 10)}, "shows too little of the area (0.000 of it, least 0.01)"),
        ({"is_standard": False}, "test quality"),
        ({"has_ground_control": False}, "no ground control"),
        ({"clear": None, "clear_source": "unknown"}, "clear fraction unknown"),
    ],
)
def test_a_scene_that_a_rule_excludes_has_its_reason(values, reason):
    choice = pick(offer("a", **values), the=PlanetImagery(provider="planet"))
    assert reasons(choice) == {"a": reason}
    assert [date.reason for date in choice.dates] == ["no usable scene"]


def test_settings_let_test_quality_and_unknown_clouds_through():
    the = PlanetImagery(provider="planet", test_quality=True, ground_control=False, cloud=1.0)
    choice = pick(offer("a", is_standard=False, has_ground_control=False, clear=None), the=the)
    assert chosen(choice) == ["a"]
    assert choice.dates[0].clear is None


def test_the_source_of_a_clear_fraction_stays_with_it_and_a_date_has_its_worst():
    choice = pick(
        offer("a", outline=cell_box(0, 0, 6, 10), clear_source="udm2"),
        offer("b", outline=cell_box(5, 0, 10, 10), clear_source="cloud_cover"),
    )
    assert chosen(choice) == ["a", "b"]
    assert choice.dates[0].clear_source == "cloud_cover"


def test_the_newest_processing_of_a_ground_is_used_unless_another_is_on_disk():
    old, new = offer("a", ground_id="t", processing="0212"), offer("b", ground_id="t", processing="0500")
    assert reasons(pick(old, new)) == {"a": "older processing (b is used)", "b": ""}
    assert reasons(pick(replace(old, is_owned=True), new)) == {"a": "", "b": "other processing on disk (a is used)"}
    assert reasons(pick(old, replace(new, fault="no asset red"))) == {"a": "", "b": "no asset red"}


def test_an_item_that_a_page_repeats_is_there_once_as_it_was_changed_last():
    early, late = offer("a", clear=0.4, updated=NOON), offer("a", clear=0.98, updated=NOON + timedelta(days=1))
    assert [item.offer for item in pick(late, early, late).items] == [late]


# --- dates ------------------------------------------------------------------------------------------------------------


def test_scenes_of_one_pass_are_one_date_and_those_of_two_passes_are_not():
    left, right = cell_box(0, 0, 6, 10), cell_box(5, 0, 10, 10)
    assert chosen(pick(offer("a", outline=left), offer("b", outline=right, second=5))) == ["a", "b"]
    apart = [offer("a", outline=left), offer("b", outline=right, second=5, pass_id="other")]
    assert chosen(pick(*apart)) == []
    assert {reason_kind(each) for each in reasons(pick(*apart)).values()} == {"date shows too little of the area"}
    assert chosen(pick(*apart, the=rules(date="day"))) == ["a", "b"]


@pytest.mark.parametrize(("gaps", "dates"), [([0, 59, 118], 1), ([0, 60], 2), ([0, 30, 95], 2)])
def test_without_a_strip_a_pass_is_one_satellite_without_gaps_of_a_minute(gaps, dates):
    offers = [offer(f"{gap}", second=gap, pass_id="", satellite="1a") for gap in gaps]
    assert len(pick(*offers).dates) == dates
    other = [replace(each, satellite=f"{number}") for number, each in enumerate(offers)]
    assert len(pick(*other).dates) == len(gaps)


def test_a_day_is_one_of_the_sun_and_not_of_greenwich():
    before_midnight = datetime(2019, 7, 1, 23, 30, tzinfo=UTC)
    after = before_midnight + timedelta(hours=1)
    assert solar_day(before_midnight, -139) == solar_day(after, -139) == datetime(2019, 7, 1, tzinfo=UTC).date()
    assert solar_day(before_midnight, 139) == datetime(2019, 7, 2, tzinfo=UTC).date()
    pair = [offer("a", acquired=before_midnight, pass_id="p"), offer("b", acquired=after, pass_id="p")]
    assert len(group_dates(pair, -139)) == 1
    assert len(group_dates(pair, 0)) == 2  # no pass goes on beyond midnight by the sun


def test_two_passes_that_begin_in_one_second_have_two_names():
    choice = pick(offer("a", pass_id="1"), offer("b", pass_id="2"))
    assert len({date.name for date in choice.dates}) == 2


# --- catalogues -------------------------------------------------------------------------------------------------------


def test_of_two_catalogues_the_preferred_has_a_date_and_the_other_fills_gaps():
    both = [offer("c1", catalogue="c1", ground_id="t"), offer("pc", catalogue="pc", ground_id="t", pass_id="other")]
    alone = offer("gap", catalogue="pc", day=9)
    choice = pick(*both, alone, catalogues=["pc", "c1"])
    assert reasons(choice) == {"pc": "", "c1": "other catalogue (pc has this date)", "gap": ""}
    assert chosen(pick(*both, alone, catalogues=["c1", "pc"])) == ["c1", "gap"]


def test_the_other_catalogue_has_a_date_of_which_the_preferred_lacks_a_tile():
    half = offer("half", catalogue="c1", outline=cell_box(0, 0, 6, 10))
    whole = [offer(f"{n}", catalogue="pc", outline=cell_box(5 * n, 0, 5 * n + 5, 10)) for n in range(2)]
    assert reasons(pick(half, *whole, catalogues=["c1", "pc"])) == {
        "0": "", "1": "", "half": "other catalogue (pc has this date)"
    }  # fmt: skip
    assert chosen(pick(half, catalogues=["c1", "pc"])) == []


def test_a_date_on_disk_stays_with_its_catalogue():
    offers = [offer("c1", catalogue="c1"), offer("pc", catalogue="pc", is_owned=True)]
    assert chosen(pick(*offers, catalogues=["c1", "pc"])) == ["pc"]


# --- covers and costs -------------------------------------------------------------------------------------------------


def test_ten_by_ten_kilometres_at_70_north_cost_a_hundred():
    assert pick(offer("a")).km2 == pytest.approx(100, abs=0.5)


def test_what_is_charged_is_clipped_whole_least_or_nothing():
    large = cell_box(-10, -10, 20, 20)
    assert pick(offer("a", outline=large)).km2 == pytest.approx(100, abs=0.5)
    assert pick(offer("a", outline=large, is_clipped=False)).km2 == pytest.approx(900, rel=0.01)
    assert pick(offer("a"), minimum_km2=150).km2 == 150
    assert pick(offer("a", is_owned=True), minimum_km2=150).km2 == 0
    assert pick(offer("a", is_paid=False)).km2 == 0


def test_a_date_takes_the_clearest_ground_for_its_cost():
    two = [offer("a", outline=cell_box(0, 0, 6, 10)), offer("b", outline=cell_box(4, 0, 10, 10))]
    whole = offer("c", clear=0.95)
    assert chosen(pick(*two, whole)) == ["c"]  # the overlap of the two would be paid twice
    assert chosen(pick(*two, replace(whole, clear=0.91), offer("d"))) == ["d"]
    assert reasons(pick(*two, whole))["a"] == "not needed for its date (the others show 1.000 of the area)"


def test_scenes_on_disk_are_used_before_others_are_paid():
    mine = [offer(f"{n}", outline=cell_box(5 * n, 0, 5 * n + 5, 10), is_owned=True, clear=0.95) for n in range(2)]
    assert chosen(pick(*mine, offer("new"))) == ["0", "1"]
    assert chosen(pick(mine[0], offer("new"), offer("half", outline=cell_box(5, 0, 10, 10)))) == ["0", "half"]


@pytest.mark.parametrize(
    "better",
    [
        {"is_standard": True},
        {"has_ground_control": True},
        {"updated": NOON + timedelta(days=1)},
    ],
)
def test_ties_go_to_standard_quality_ground_control_and_the_latest(better):
    plain = {"is_standard": False, "has_ground_control": False, "updated": NOON}
    assert chosen(pick(offer("a", **plain), offer("b", **(plain | better)))) == ["b"]


def test_last_ties_go_to_the_first_id():
    assert chosen(pick(offer("b"), offer("a"), offer("c"))) == ["a"]


# --- thinning and quota -----------------------------------------------------------------------------------------------


def test_of_five_clear_days_in_a_row_one_is_taken():
    choice = pick(*(offer(f"{day}", day=day, clear=0.95 + 0.01 * (day == 3)) for day in range(5)))
    assert chosen(choice) == ["3"]
    assert reasons(choice)["1"] == "too near a better date (2 days from 2019-07-04, least 5)"


@pytest.mark.parametrize(("site", "dates"), [("Banks01", 5), ("Lena", 22), ("Kolguev01", 14)])
def test_table_1_of_the_paper_two_seasons_give_its_dates_evenly(site, dates):
    """Its numbers of dates come out of two seasons of clear days, by ``max_dates``, as evenly as can be."""
    starts = [datetime(year, 6, 1, 21, tzinfo=UTC) for year in (2018, 2019)]
    offers = [
        offer(f"{start.year}-{day}", acquired=start + timedelta(days=day), pass_id="")
        for start in starts
        for day in range(122)
    ]
    choice = pick(*offers, the=rules(max_dates=-(-dates // 2)))
    days = [date.day for date in choice.dates if date.chosen]
    assert len(days) == 2 * -(-dates // 2)
    for year in (2018, 2019):
        season = [day for day in days if day.year == year]
        gaps = np.diff([day.toordinal() for day in season])
        assert np.ptp(gaps) <= 1
        assert gaps.min() >= 5
    free = pick(*offers)
    assert sum(date.chosen for date in free.dates) == 2 * 25 >= dates  # all that five days apart allow


def test_limits_of_a_month_and_a_season_have_their_reasons():
    offers = [offer(f"{day:02d}", day=day) for day in range(0, 30, 6)]
    assert reasons(pick(*offers, the=rules(per_month=1)))["06"] == "enough dates in its month (2019-07 has 1, most 1)"
    kinds = {reason_kind(reason) for reason in reasons(pick(*offers, the=rules(max_dates=2))).values()}
    assert kinds == {"", "enough dates in its season"}


def test_sites_take_turns_until_the_quota_is_full():
    offers = {
        area.name: [offer(f"{day}", day=day, outline=area.outline, clear=1 - day / 1000) for day in (0, 10, 20)]
        for area in (AREA, EAST)
    }
    choice = choose(offers, [AREA, EAST], rules(), quota_km2=310)
    taken = [(item.area, item.offer.id) for item in choice.items if item.chosen]
    assert taken == [("herschel", "0"), ("herschel", "10"), ("komakuk", "0")]
    assert choice.km2 <= 310
    left = [date.reason for date in choice.dates if not date.chosen]
    assert {reason_kind(reason) for reason in left} == {"left out: quota"}


def test_the_quota_is_a_hard_cap_to_the_square_metre():
    two = [offer("a"), offer("b", day=9)]
    km2 = pick(*two).km2
    assert chosen(pick(*two, quota_km2=km2)) == ["a", "b"]
    assert chosen(pick(*two, quota_km2=km2 - 1e-6)) == ["a"]


def test_a_quota_of_zero_takes_what_costs_nothing():
    choice = pick(offer("paid"), offer("owned", day=9, is_owned=True), quota_km2=0)
    assert chosen(choice) == ["owned"]
    assert reasons(choice)["paid"].startswith("left out: quota (")


# --- laws -------------------------------------------------------------------------------------------------------------

SETTINGS = st.builds(
    rules,
    cover=st.sampled_from([0.3, 0.9]),
    cloud=st.sampled_from([0.1, 0.3, 1.0]),
    date=st.sampled_from(["pass", "day"]),
    min_gap_days=st.sampled_from([0, 1, 5]),
    max_dates=st.sampled_from([None, 1, 2]),
    per_month=st.sampled_from([None, 1, 2]),
)


@FEW
@given(many_offers(), many_offers(), SETTINGS, st.sampled_from([None, 0, 90, 250]), st.randoms())
def test_the_order_of_what_comes_in_changes_nothing(first, second, the, quota, random):
    offers, areas = {"herschel": first, "komakuk": second}, [AREA, EAST]
    choice = choose(offers, areas, the, quota_km2=quota, catalogues=["second"])
    shuffled = {name: random.sample(offers[name], len(offers[name])) for name in ("komakuk", "herschel")}
    assert choose(shuffled, areas[::-1], the, quota_km2=quota, catalogues=["second"]) == choice


@FEW
@given(many_offers(), SETTINGS, st.sampled_from([None, 0, 90, 250]))
def test_all_that_is_taken_obeys_the_rules_and_all_else_has_a_reason(offers, the, quota):
    choice = pick(*offers, the=the, quota_km2=quota)
    assert len(choice.items) == len(offers)
    assert all(item.chosen == (item.reason == "") for item in choice.items)
    assert len({(date.area, date.name) for date in choice.dates}) == len(choice.dates)
    assert {item.date for item in choice.items} == {date.name for date in choice.dates}
    days = []
    for date in choice.dates:
        taken = [item for item in choice.items if item.chosen and item.date == date.name]
        assert date.chosen == bool(taken)
        if not taken:
            continue
        days.append(date.day)
        scenes, cover = [item.offer for item in taken], np.array([item.cover for item in taken])
        assert len({scene.catalogue for scene in scenes}) == 1
        assert all(not scene.fault for scene in scenes)
        assert shows(scenes) == pytest.approx(date.cover, abs=1e-5)
        assert date.cover >= the.cover - 1e-6
        clear = np.array([scene.clear or 0 for scene in scenes]) @ cover / cover.sum()
        assert clear >= 1 - the.cloud - 1e-6
        for scene in scenes if len(scenes) > 1 else ():
            assert shows(scenes) - shows([other for other in scenes if other != scene]) >= the.min_share - 1e-5
        assert date.km2 == pytest.approx(sum(item.km2 for item in taken))
    gaps = np.diff([day.toordinal() for day in sorted(days)])
    assert (gaps >= the.min_gap_days).all()
    assert len(days) <= (the.max_dates or 99)
    months = [(day.year, day.month) for day in days]
    assert all(months.count(month) <= (the.per_month or 99) for month in months)
    assert choice.km2 <= (np.inf if quota is None else quota) + 1e-9


@FEW
@given(many_offers(), st.sampled_from([50, 90, 250]))
def test_no_date_that_the_quota_leaves_out_would_fit(offers, quota):
    choice = pick(*offers, the=rules(cover=0.3, cloud=0.5, min_gap_days=0), quota_km2=quota)
    left = [date.km2 for date in choice.dates if date.reason.startswith("left out: quota")]
    assert all(choice.km2 + km2 > quota - 1e-9 for km2 in left)
    everything = pick(*offers, the=rules(cover=0.3, cloud=0.5, min_gap_days=0))
    assert len(left) + sum(date.chosen for date in choice.dates) == sum(date.chosen for date in everything.dates)


# --- anywhere ---------------------------------------------------------------------------------------------------------


def moved(area, degrees, *, north=0.0):
    """An area and what moves footprints to it, cut at the antimeridian."""

    def move(outline):
        far = translate(outline, degrees, north)
        east = shapely.intersection(far, shapely.box(-180, -90, 180, 90))
        beyond = translate(shapely.intersection(far, shapely.box(180, -90, 540, 90)), -360, 0)
        return east if shapely.area(beyond) == 0 else shapely.union_all([east, beyond])

    return Area(area.name, move(area.outline)), move


@FEW
@given(many_offers(), SETTINGS)
def test_across_the_antimeridian_the_choice_is_the_same(offers, the):
    area, move = moved(AREA, 319 - WIDE / 2)
    assert area.outline.geom_type == "MultiPolygon"
    earlier = timedelta(hours=(319 - WIDE / 2) / 15)
    here, there = (
        pick(*offers, the=the),
        pick(*(replace(each, outline=move(each.outline), acquired=each.acquired - earlier) for each in offers),
             area=area, the=the),
    )  # fmt: skip
    assert chosen(there) == chosen(here)
    for one, other in zip(here.items, there.items, strict=True):
        assert other.cover == pytest.approx(one.cover, abs=1e-6)
        assert reason_kind(other.reason) == reason_kind(one.reason)


def test_an_area_at_80_north_and_one_around_the_pole_have_their_square_kilometres():
    far = Area("far", shapely.box(30, 79.95, 30 + 0.516, 80.0396))
    half = offer("half", outline=shapely.box(29, 79, 30 + 0.516 * 0.93, 81))
    choice = pick(half, area=far)
    assert chosen(choice) == ["half"]
    assert choice.items[0].cover == pytest.approx(0.93, abs=1e-6)
    assert choice.km2 == pytest.approx(93, abs=1)
    pole = Area("pole", shapely.box(-180, 89.9, 180, 90))
    whole = offer("whole", outline=shapely.box(-180, 88, 180, 90))
    assert pick(whole, area=pole).km2 == pytest.approx(oracle_km2(pole.outline), rel=1e-6)


@pytest.mark.parametrize(("west", "expected"), [(-139.0, -138.869), (179.869, -180.0), (0.0, 0.131)])
def test_the_middle_of_an_area_has_a_longitude(west, expected):
    outline = shapely.box(west, SOUTH, west + WIDE, SOUTH + HIGH)
    assert abs(longitude(outline)) == pytest.approx(abs(expected), abs=1e-6)


# --- what is worth a look inside --------------------------------------------------------------------------------------


def test_a_look_inside_is_for_dates_that_it_could_change():
    large = cell_box(-10, -10, 20, 20)
    offers = [
        offer("open", day=0, clear=0.9, outline=large),
        offer("looked", day=1, clear=0.9, outline=large, clear_source="coverage"),
        offer("all clear", day=2, clear=1.0),
        offer("all cloudy", day=3, clear=0.02, outline=large),
        offer("half of it", day=4, clear=0.5, outline=cell_box(0, 0, 5, 10)),
        offer("unknown", day=5, clear=None, clear_source="unknown"),
        offer("faulty", day=6, clear=0.9, outline=large, fault="no access"),
    ]
    asked = undecided({"herschel": offers}, [AREA], rules())
    assert [each.id for each in asked["herschel"]] == ["open", "unknown"]
    assert undecided({"herschel": offers[1:3]}, [AREA], rules()) == {}


@FEW
@given(many_offers(), st.data())
def test_what_is_not_worth_a_look_cannot_make_its_date_clear_enough(offers, data):
    offers = [replace(each, catalogue="planet") for each in offers]
    the = rules(min_gap_days=0)
    asked = {each.id for each in undecided({"herschel": offers}, [AREA], the).get("herschel", [])}
    hopeful = pick(*(replace(each, clear=1.0) if each.id in asked else each for each in offers), the=the)
    looked = [
        replace(each, clear=data.draw(st.sampled_from([0.0, 0.92, 1.0]))) if each.id in asked else each
        for each in offers
    ]
    could = {item.date for item in hopeful.items if item.offer.id in asked}
    for date in pick(*looked, the=the).dates:
        before = next(each for each in pick(*offers, the=the).dates if each.name == date.name)
        assert date.chosen == before.chosen or date.name in could
