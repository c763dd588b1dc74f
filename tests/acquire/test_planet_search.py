"""Finding scenes at Planet: all pages, every condition checked again, reasons for what is left out."""

import json
from datetime import UTC, date, datetime

import httpx
import pytest
import shapely
from planet_fake import AREA, ASSETS, KEY, FakePlanet, fake_planet, item_of, ledger_in, silent

from conftest import real_data
from thawmap.acquire.areas import Area
from thawmap.acquire.planet.coverage import look_inside
from thawmap.acquire.planet.quota import quota
from thawmap.acquire.planet.search import find
from thawmap.errors import ServiceError

SEASONS = ((date(2019, 6, 1), date(2019, 9, 30)),)


@pytest.fixture(scope="module")
def running():
    with fake_planet() as planet:
        yield planet


@pytest.fixture
def planet(running):
    running.reset()
    return running


def found(planet: FakePlanet, *, area=AREA, seasons=SEASONS, note=silent, **options):
    with planet.http() as http:
        return find(http, planet.settings.model_copy(update=options), area, seasons, note)


def test_an_offer_has_what_choosing_needs(planet):
    (id_,) = planet.add(item_of(1, cloud_cover=0.08, updated="2019-07-02T03:04:05.12345Z"))
    (offer,) = found(planet)
    assert (offer.id, offer.catalogue, offer.collection) == (id_, "planet", "PSScene")
    assert offer.acquired == datetime(2019, 7, 1, 4, 1, tzinfo=UTC)
    assert offer.updated == datetime(2019, 7, 2, 3, 4, 5, 123450, tzinfo=UTC)
    assert (offer.clear, offer.clear_source) == (0.97, "clear_percent")
    assert (offer.pass_id, offer.satellite) == ("1", "1001")
    assert offer.is_paid
    assert offer.is_clipped
    assert not offer.fault
    assert offer.item == {"id": id_, "item_type": "PSScene", "updated": "2019-07-02T03:04:05.12345Z"}
    assert shapely.equals(offer.outline, AREA.outline)


@pytest.mark.parametrize("fault", ["", "repeats_item", "empty_page"])
def test_all_pages_are_read_and_each_scene_is_there_once(planet, fault):
    ids = planet.add_many(601)
    if fault:
        planet.control(**{fault: True})
    offers = found(planet)
    assert [offer.id for offer in offers] == ids
    assert {offer.updated == offer.acquired for offer in offers} == {True}  # the newest of two is kept


def test_a_page_that_leads_to_itself_is_an_error_and_no_shorter_list(planet):
    planet.add_many(600)
    planet.control(repeats_page=True)
    with pytest.raises(ServiceError, match="again and again"):
        found(planet)


def test_a_page_on_another_host_is_not_asked(planet):
    planet.add_many(300)
    with fake_planet() as foreign:
        planet.control(foreign_page=f"{foreign.address}/data/v1/searches/x/results")
        with pytest.raises(ServiceError, match="leads to"):
            found(planet)
        assert foreign.log == []


def test_a_service_that_ignores_the_filter_changes_nothing(planet):
    elsewhere = shapely.box(10, 50, 11, 51)
    planet.add(
        item_of(1), item_of(2, cloud_cover=0.7), item_of(3, acquired="2019-10-01T00:00:00Z"), item_of(4, elsewhere),
        item_of(5, acquired="2019-09-30T23:59:59.99Z"), item_of(6, acquired="2019-05-31T23:59:59Z"),
        item_of(7, cloud_cover=None), item_of(8, acquired=None, published="2019-01-01T00:00:00Z"),
    )  # fmt: skip
    expected = [offer.id for offer in found(planet)]
    assert len(expected) == 2
    planet.control(ignores_filter=True)
    notes = []
    planet.control(scenes=[{"item": item_of(9) | {"geometry": None}}])
    with planet.http() as http:
        offers = find(http, planet.settings, AREA, SEASONS, notes.append)
    assert [offer.id for offer in offers] == expected
    assert sorted(note.split(": ")[-1] for note in notes) == [
        "cloudy as a whole, or of unknown cloud", "no footprint", "no time", "of another place", "of another season",
    ]  # fmt: skip


def test_what_cannot_be_taken_says_why(planet):
    no_right = [f"assets.{name}:download" for name in ASSETS if name != "ortho_udm2"]
    planet.add(
        item_of(1, quality_category="test"),
        item_of(2, ground_control=False),
        item_of(3) | {"assets": ["ortho_udm2"]},
        item_of(4) | {"_permissions": no_right},
        item_of(5, ground_control="true"),
    )
    reasons = [offer.fault for offer in found(planet)]
    assert reasons == [
        "test quality", "no ground control", "has no ortho_analytic_4b_sr (yet)", "the account may not have ortho_udm2",
        "",
    ]  # fmt: skip
    assert [offer.fault for offer in found(planet, test_quality=True, ground_control=False)][:2] == ["", ""]


def test_unknown_clear_is_not_0(planet):
    planet.add(item_of(1, clear_percent=None, cloud_cover=0.25))
    assert [(offer.clear, offer.clear_source) for offer in found(planet)] == [(0.75, "cloud_cover")]


def test_an_area_across_the_antimeridian_finds_both_sides(planet):
    area = Area(
        "Wrangel", shapely.union_all([shapely.box(179.8, 70.9, 180, 71.1), shapely.box(-180, 70.9, -179.8, 71.1)])
    )
    east, west = shapely.box(179.7, 70.8, 179.95, 71.2), shapely.box(-179.95, 70.8, -179.7, 71.2)
    planet.add(item_of(1, east), item_of(2, west), item_of(3, shapely.box(0, 70.8, 1, 71.2)))
    assert len(found(planet, area=area)) == 2


def test_an_answer_that_is_no_page_is_an_error(planet):
    planet.control(key=None)
    elsewhere = FakePlanet(f"{planet.address}/elsewhere")
    with pytest.raises(ServiceError, match="404"):
        found(elsewhere)


@pytest.mark.realdata
def test_recorded_items_are_read(planet):
    items = json.loads((real_data() / "acquire" / "planet" / "psscene_items.json").read_text())
    planet.add(*items)
    for item in items:
        acquired = datetime.fromisoformat(item["properties"]["acquired"])
        around = Area("there", shapely.from_geojson(json.dumps(item["geometry"])).buffer(-0.01))
        offers = found(
            planet, area=around, seasons=((acquired.date(), acquired.date()),), test_quality=True, ground_control=False
        )
        (offer,) = [offer for offer in offers if offer.id == item["id"]]
        assert offer.acquired == acquired
        assert not offer.fault


@pytest.mark.realdata
def test_a_recorded_page_and_its_filter_have_the_form_of_ours(planet):
    folder = real_data() / "acquire" / "planet"
    recorded = json.loads((folder / "search_page.json").read_text())
    planet.add_many(300)
    body = {"item_types": ["PSScene"], "filter": {"type": "AndFilter", "config": []}}
    key = {"Authorization": f"api-key {KEY}"}
    page = httpx.post(f"{planet.address}/data/v1/quick-search", json=body, headers=key).json()
    assert set(page) == set(recorded)
    assert set(page["_links"]) == set(recorded["_links"])
    sent = json.loads((folder / "search_filter.json").read_text())
    assert {part["type"] for part in sent["config"]} == {"GeometryFilter", "RangeFilter", "DateRangeFilter"}


def test_a_look_inside_is_kept_and_not_asked_for_twice(tmp_path, planet):
    ids = planet.add_many(3)
    planet.control(coverage={ids[0]: 28})
    for _ in range(2):
        with planet.http() as http:
            offers = look_inside(http, planet.settings, AREA, found(planet), ledger_in(tmp_path), silent)
        assert [(offer.clear, offer.clear_source) for offer in offers] == [
            (0.28, "coverage"), (0.97, "coverage"), (0.97, "coverage"),
        ]  # fmt: skip
    assert sum("coverage" in entry["path"] for entry in planet.log) == 3
    planet.add(item_of(0, updated="2020-01-01T00:00:00Z"))
    smaller = Area("Lena", shapely.box(126.0, 72.0, 126.1, 72.05))
    with planet.http() as http:
        look_inside(http, planet.settings, AREA, found(planet), ledger_in(tmp_path), silent)
        look_inside(http, planet.settings, smaller, found(planet), ledger_in(tmp_path), silent)
    assert sum("coverage" in entry["path"] for entry in planet.log) == 7


def test_a_look_that_tells_nothing_leaves_the_offer_and_is_said(tmp_path, planet):
    planet.add_many(1)
    planet.control(coverage_waits=3)
    notes = []
    with planet.http() as http:
        offers = look_inside(http, planet.settings, AREA, found(planet), ledger_in(tmp_path), notes.append)
        assert offers[0].clear_source == "clear_percent"
        assert "does not say" in notes[0]
        offers = look_inside(http, planet.settings, AREA, found(planet), ledger_in(tmp_path), notes.append)
    assert offers[0].clear_source == "coverage"


PLAN = {"state": "active", "quota_enabled": True, "quota_sqkm": 3000.0, "quota_used": 1000.0, "plan": {"name": "edu"}}
PRODUCT = {
    "quota_total": 100000.0, "quota_used": 25.0, "quota_units": "sqkm", "state": "active",
    "supports_reservation": False, "unlimited_quota": False, "title": "scenes",
}  # fmt: skip


@pytest.mark.parametrize(
    ("plans", "products", "left", "said"),
    [
        ([PLAN], [], 2000, "edu: 2,000 of 3,000 km2 left"),
        ([PLAN, PLAN | {"plan": {"name": "b"}}], None, 4000, "2 plans; an order is paid by one"),
        ([PLAN, PLAN | {"quota_sqkm": None}], None, None, "no limit"),
        ([PLAN | {"quota_enabled": False}], None, None, "no limit"),
        ([PLAN | {"state": "expired"}], [PRODUCT], 99975, "scenes"),
        ([PLAN | {"quota_used": 4000}], [], 0, "0 of 3,000"),
        (
            None,
            [PRODUCT | {"quota_total": "99975e6", "quota_used": "0.0", "quota_units": "sqm"}],
            99975,
            "scenes",
        ),
        (None, [PRODUCT | {"quota_total": None}], None, "no limit"),
        (None, [PRODUCT | {"unlimited_quota": True}], None, "no limit"),
        (None, [PRODUCT | {"supports_reservation": True}], None, "does not say"),
        (None, None, None, "does not say"),
    ],
)
def test_quota_is_read_in_both_forms(planet, plans, products, left, said):
    planet.control(subscriptions=plans, products=products)
    with planet.http() as http:
        result = quota(http, planet.settings)
    assert result.left_km2 == (None if left is None else pytest.approx(left))
    assert said in result.sentence


@pytest.mark.parametrize("change", [{"quota_units": "acres"}, {"quota_total": "much"}, {"quota_used": "nan"}])
def test_a_quota_that_is_no_area_is_an_error(planet, change):
    planet.control(subscriptions=None, products=[PRODUCT | change])
    with planet.http() as http, pytest.raises(ServiceError, match="quota_km2"):
        quota(http, planet.settings)


@pytest.mark.realdata
def test_the_recorded_products_are_for_reservations_and_no_quota_of_scenes(planet):
    rows = json.loads((real_data() / "acquire" / "planet" / "quota_products.json").read_text())["results"]
    planet.control(subscriptions=None, products=rows)
    with planet.http() as http:
        assert quota(http, planet.settings).plans == ()
        planet.control(products=[{**row, "supports_reservation": False} for row in rows])
        assert quota(http, planet.settings).left_km2 == 100000
