"""Searching catalogues that do what catalogues do wrong: the same selection, or an error, never a shorter one."""

import json
from datetime import UTC, datetime

import httpx
import pytest
import shapely
from serving import served

from thawmap.acquire.http import Http, PatienceEnded
from thawmap.acquire.stac.pages import Endpoint, all_items
from thawmap.acquire.stac.search import Condition, only_collection, search
from thawmap.errors import DataError, ServiceError

AREA = shapely.box(-137.9, 69.2, -137.0, 69.4)
SEASON = (datetime(2021, 7, 5, tzinfo=UTC), datetime(2021, 7, 25, 23, 59, 59, tzinfo=UTC))
CLEAR = Condition(property="eo:cloud_cover", op="<=", value=50)


def square(west, *, south=69.0, side=1.0):
    return shapely.geometry.mapping(shapely.box(west, south, west + side, south + side))


def item(number, *, west=-138.0, collection="sentinel-2-c1-l2a", **properties):
    name = f"S2B_T08WMB_202107{number:02d}T205019_L2A"
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": collection, "geometry": square(west),
        "bbox": [west, 69.0, west + 1, 70.0], "links": [],
        "properties": {"datetime": f"2021-07-{number:02d}T20:50:19Z", "eo:cloud_cover": 3 * number, **properties},
        "assets": {"blue": {"href": "blue.tif"}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """A server with 31 daily images, and others that no search here asks for."""
    folder = tmp_path_factory.mktemp("items")
    items = [item(number) for number in range(1, 32)]
    items += [item(10, west=-100.0), item(11, collection="landsat")]
    for number, content in enumerate(items):
        (folder / f"{number}.json").write_text(json.dumps(content | {"id": f"{content['id']}_{number}"}))
    with served("stac", folder) as address:
        yield address


@pytest.fixture
def control(catalogue):
    """Tells the server what to do wrong, from now to the test's end."""
    httpx.post(f"{catalogue}/_control", json={"clear": True}).raise_for_status()
    return lambda **words: httpx.post(f"{catalogue}/_control", json=words).raise_for_status()


def asked(address):
    return [entry for entry in httpx.get(f"{address}/_log").json() if entry["path"].endswith("/search")]


def numbers(catalogue, *, api="v1", conditions=(CLEAR,), periods=(SEASON,), notes=None, **words):
    """Days of July of what a search gives; each item once."""
    with Http(rates={"stac": 1000}, **words) as http:
        found = list(
            search(
                http,
                f"{catalogue}/{api}",
                ["sentinel-2-c1-l2a"],
                outline=AREA,
                periods=periods,
                conditions=conditions,
                note=(notes if notes is not None else []).append,
            )
        )
    ids = [content["id"] for content in found]
    assert len(set(ids)) == len(ids)
    return sorted(int(content["properties"]["datetime"][8:10]) for content in found)


RIGHT = list(range(5, 17))  # from the 5th, to 48 % of cloud


def test_what_is_asked_for_comes(catalogue, control):
    control(most=5)
    notes = []
    assert numbers(catalogue, notes=notes) == RIGHT
    assert not notes
    pages = asked(catalogue)
    assert len(pages) == 3
    assert json.loads(pages[0]["body"])["filter"] == {"op": "<=", "args": [{"property": "eo:cloud_cover"}, 50]}
    assert numbers(catalogue, conditions=()) == list(range(5, 26))
    assert len(numbers(catalogue, conditions=(), periods=())) == 31


@pytest.mark.parametrize("api", ["v1", "api/stac/v1"])
@pytest.mark.parametrize(
    "fault",
    [
        {"ignore": ["filter"]},
        {"ignore": ["filter", "datetime", "intersects", "collections"]},
        {"pages": "repeat"},
        {"pages": "empty"},
        {"lose": [0]},
        {"faults": [{"status": 502}, None, {"status": 503}, {"cut": 300}, {"short": 200}, {"status": 429}]},
    ],
    ids=str,
)
def test_a_bad_catalogue_gives_the_same_selection(catalogue, control, api, fault):
    control(most=5, **fault)
    assert numbers(catalogue, api=api) == RIGHT


@pytest.mark.parametrize("fault", [{"pages": "circle"}, {"pages": "cut"}, {"hide": []}], ids=str)
def test_a_bad_catalogue_gives_no_shorter_selection(catalogue, control, fault):
    control(most=5, count=12 if "pages" in fault else 13, **fault)
    if fault == {"pages": "circle"}:  # all has come before it
        assert numbers(catalogue) == RIGHT
        control(count=False)
    with pytest.raises(ServiceError, match=r"^127\.0\.0\.1:\d+ gives .* asked 4 times; nothing is chosen from a part"):
        numbers(catalogue)


def test_what_was_let_through_is_told(catalogue, control):
    control(ignore=["filter"])
    notes = []
    assert numbers(catalogue, notes=notes) == RIGHT
    assert len(notes) == 1
    assert (
        "gave items that were not asked for, which are left out: 9 items that do not meet eo:cloud_cover <= 50"
        in notes[0]
    )


def test_both_sides_of_the_antimeridian_are_searched_once_each(tmp_path):
    for number, west in enumerate((179.2, -180.0, 170.0)):
        (tmp_path / f"{number}.json").write_text(json.dumps(item(number + 1, west=west)))
    outline = shapely.union_all([shapely.box(179.5, 69.2, 180, 69.4), shapely.box(-180, 69.2, -179.5, 69.4)])
    with served("stac", tmp_path) as address, Http(rates={"stac": 1000}) as http:
        found = list(search(http, f"{address}/v1", ["sentinel-2-c1-l2a"], outline=outline, note=lambda _: None))
        assert len(asked(address)) == 2
    assert sorted(content["id"][11:19] for content in found) == ["20210701", "20210702"]


def test_a_static_catalogue_is_walked_whatever_its_links(tmp_path):
    links = [{"rel": "item", "href": "./a/one.json"}, {"rel": "child", "href": "catalog.json"}]
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog", "id": "x", "links": links}))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.json").write_text(json.dumps(item(5)))
    with Http() as http:
        (found,) = search(http, str(tmp_path / "catalog.json"), [], outline=AREA, note=lambda _: None)
        assert found["assets"]["blue"]["href"] == str(tmp_path / "a" / "blue.tif")
        assert only_collection(http, str(tmp_path / "catalog.json")) is None
        with pytest.raises(DataError, match="does not exist"):
            list(search(http, str(tmp_path / "none.json"), [], outline=AREA, note=lambda _: None))


def test_a_busy_catalogue_ends_with_the_patience(catalogue, control):
    control(faults=[{"status": 429, "headers": {"Retry-After": "30"}}] * 9)
    with pytest.raises(PatienceEnded):
        numbers(catalogue, patience_s=1)


@pytest.mark.realdata
def test_recorded_answers_of_earth_search(real_scenes):
    path = real_scenes / "acquire" / "stac" / "earth_search_s2_and_landsat.json"
    (pair, _) = json.loads(path.read_text())
    features = pair["response"]["body"]["features"]
    with served("stac", path) as address, Http(rates={"stac": 1000}) as http:
        root = {"name": "recorded", "url": f"{address}/v1/search", "is_post": True}
        found = list(all_items(http, Endpoint(**root), pair["request"]["body"], lambda _: None))
    assert [content["id"] for content, _ in found] == [feature["id"] for feature in features]
