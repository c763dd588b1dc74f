"""Orders at Planet: each scene is asked for once and paid once, whatever breaks in between."""

import os
import subprocess
import sys
import textwrap
from itertools import pairwise

import pytest
import shapely
from planet_fake import AREA, FAST, SECOND, fake_planet, item_of, ledger_in, silent, wishes
from shapely.geometry import shape

from thawmap.acquire.areas import Area, km2
from thawmap.acquire.http import PatienceEnded
from thawmap.acquire.planet import history
from thawmap.acquire.planet.orders import order, outstanding
from thawmap.acquire.planet.placing import SiteRefused
from thawmap.acquire.planet.requests import Request, Wish, recipe_of
from thawmap.config import PlanetImagery
from thawmap.errors import ConfigError, ServiceError
from thawmap.geo.shapes import to_lonlat


@pytest.fixture(scope="module")
def running():
    with fake_planet() as planet:
        yield planet


@pytest.fixture
def planet(running):
    running.reset()
    return running


def place(planet, folder, ids, *, note=silent, areas=(AREA,), options=None, http=None):
    settings = planet.settings.model_copy(update=options or {})
    with http or planet.http() as way:
        return order(way, settings, {areas[0].name: wishes(ids)}, areas, ledger_in(folder), note, manners=FAST)


@pytest.mark.parametrize("lost", ["after", "before", "500 after", "500 before"])
def test_a_lost_answer_costs_nothing_twice(tmp_path, planet, lost):
    ids = planet.add_many(3)
    planet.control(lost=[lost])
    placed = place(planet, tmp_path, ids)
    assert len(planet.charged["orders"]) == len(placed) == 1
    assert sorted(charge["item"] for charge in planet.charged["items"]) == ids
    assert planet.posts() == (1 if "after" in lost else 2)


def test_answers_that_are_always_lost_end_with_a_sentence_and_a_rerun_goes_on(tmp_path, planet):
    ids = planet.add_many(1)
    planet.control(lost=["before"] * 5)
    with pytest.raises(ServiceError, match="looks it up first"):
        place(planet, tmp_path, ids)
    assert any("not known whether Planet has it" in line for line in history.status(ledger_in(tmp_path)))
    place(planet, tmp_path, ids)
    assert len(planet.charged["items"]) == 1


def test_the_name_is_on_disk_before_the_order_is_sent(tmp_path, planet):
    ids = planet.add_many(2)
    place(planet, tmp_path, ids)
    path = tmp_path / "ledger.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert '"event": "asked"' in lines[0]
    assert '"event": "placed"' in lines[1]
    path.write_text(lines[0])  # as a run leaves it that is killed while the answer is on its way
    place(planet, tmp_path, ids)
    assert len(planet.charged["orders"]) == 1
    assert ledger_in(tmp_path).of("placed")[0]["adopted"]


def test_without_the_ledger_an_order_is_found_by_its_name(tmp_path, planet):
    ids = planet.add_many(2)
    place(planet, tmp_path / "a", ids)
    notes = []
    place(planet, tmp_path / "b", ids, note=notes.append)
    assert planet.posts() == 1
    assert "has this order" in " ".join(notes)


def test_an_order_of_which_planet_has_no_files_any_more_is_not_taken_for_one(tmp_path, planet):
    ids = planet.add_many(1)
    place(planet, tmp_path / "a", ids)
    planet.control(clock_s=91 * 86400)
    place(planet, tmp_path / "b", ids)
    assert planet.posts() == 2


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_wrong_by_a_day_orders_nothing_twice(tmp_path, planet, days):
    ids = planet.add_many(2)
    planet.control(clock_s=days * 86400, lost=["after"])
    place(planet, tmp_path, ids)
    assert len(planet.charged["items"]) == 2


def test_two_runs_at_once_charge_once(tmp_path, planet):
    ids = planet.add_many(4)
    planet.control(lost=["after"])
    script = textwrap.dedent(f"""
        from planet_fake import *
        from thawmap.acquire.ledger import alone
        from thawmap.acquire.planet.orders import order
        planet = FakePlanet({planet.address!r})
        with alone(Path({str(tmp_path)!r})), planet.http() as http:
            order(http, planet.settings, {{"Lena": wishes({ids})}}, [AREA], ledger_in(Path({str(tmp_path)!r})), silent,
                  manners=FAST)
        """)  # fmt: skip
    path = os.pathsep.join(["tests/support", *sys.path])
    runs = [
        subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    errors = [run.communicate(timeout=120)[1].decode() for run in runs]
    assert len(planet.charged["items"]) == 4
    assert sorted(run.returncode for run in runs) in ([0, 0], [0, 1])
    assert all(run.returncode == 0 or "wait for it to end" in error for run, error in zip(runs, errors, strict=True))


def test_a_storm_of_429_delays_and_loses_nothing(tmp_path, planet):
    ids = planet.add_many(6)
    planet.control(busy="1110" * 5, retry_after=0.1)
    place(planet, tmp_path, ids, options={"order_size": 2})
    assert len(planet.charged["items"]) == 6
    by_path = {}
    for entry in planet.log:
        by_path.setdefault((entry["method"], entry["path"]), []).append(entry)
    assert sum(entry["status"] == 429 for entry in planet.log) == 15
    for entries in by_path.values():
        for earlier, later in pairwise(entries):
            assert earlier["status"] != 429 or later["at"] - earlier["at"] >= 0.099


def test_patience_with_a_busy_service_ends(tmp_path, planet):
    ids = planet.add_many(1)
    planet.control(busy="1" * 50, retry_after=60)
    with pytest.raises(PatienceEnded, match="run the same command again"):
        place(planet, tmp_path, ids, http=planet.http(patience_s=1.0))
    assert planet.charged["km2"] == 0


@pytest.mark.parametrize("is_named", [True, False])
def test_one_bad_scene_in_500_is_left_out_and_the_others_are_ordered(tmp_path, planet, is_named):
    ids = planet.add_many(500)
    planet.control(bad=[ids[137]], bad_is_named=is_named)
    notes = []
    place(planet, tmp_path, ids, options={"order_size": 500}, note=notes.append)
    charged = sorted(charge["item"] for charge in planet.charged["items"])
    assert charged == sorted(set(ids) - {ids[137]})
    assert any(ids[137] in note for note in notes)
    assert planet.posts() <= (2 if is_named else 20)
    before = len(planet.log)
    place(planet, tmp_path, ids, options={"order_size": 500})
    assert len(planet.log) == before
    assert any(ids[137] in line for line in history.status(ledger_in(tmp_path)))


def test_what_is_refused_whatever_it_holds_is_not_divided_for_ever(tmp_path, planet):
    ids = planet.add_many(64)
    planet.control(bad=ids, bad_is_named=False)
    with pytest.raises(ServiceError, match="Problem confirming products"):
        place(planet, tmp_path, ids)
    assert planet.posts() < 20
    assert planet.charged["km2"] == 0


def test_a_site_that_planet_refuses_keeps_no_other_from_its_order(tmp_path, planet):
    ids, others = planet.add_many(8), planet.add(*(item_of(number, SECOND.outline) for number in range(20, 23)))
    planet.control(bad=ids, bad_is_named=False)
    asked = {"Lena": wishes(ids), "Peel": wishes(others)}
    with planet.http() as http, pytest.raises(SiteRefused):
        order(http, planet.settings, asked, [AREA, SECOND], ledger_in(tmp_path), silent, manners=FAST)
    assert sorted(charge["item"] for charge in planet.charged["items"]) == others


def test_orders_are_divided_by_their_size_and_what_was_ordered_is_left_out(tmp_path, planet):
    ids = planet.add_many(7)
    place(planet, tmp_path, ids[:3], options={"order_size": 2})
    assert planet.posts() == 2
    place(planet, tmp_path, ids, options={"order_size": 3})
    assert planet.posts() == 4
    assert sorted(charge["item"] for charge in planet.charged["items"]) == ids


def test_areas_that_share_a_scene_order_each_its_clip(tmp_path, planet):
    half = Area("Half", shapely.box(126.0, 72.0, 126.1, 72.05))
    (id_,) = planet.add(item_of(1))
    asked = {"Lena": wishes([id_]), "Half": wishes([id_])}
    with planet.http() as http:
        order(http, planet.settings, asked, [AREA, half], ledger_in(tmp_path), silent, manners=FAST)
    costs = sorted(charge["km2"] for charge in planet.charged["items"])
    assert costs == pytest.approx([half.km2, AREA.km2], rel=1e-3)


def test_a_square_of_10_km_at_70_degrees_costs_100_km2(tmp_path, planet):
    metres = "+proj=laea +lat_0=70 +lon_0=-130 +datum=WGS84"
    area = Area("square", to_lonlat(shapely.box(-5000, -5000, 5000, 5000), metres))
    (id_,) = planet.add(item_of(1, shapely.box(-131, 69, -129, 71)))
    with planet.http() as http:
        order(http, planet.settings, {"square": wishes([id_])}, [area], ledger_in(tmp_path), silent, manners=FAST)
    assert planet.charged["km2"] == pytest.approx(100, abs=0.5)


@pytest.mark.parametrize(
    ("plans", "quota"),
    [([{"quota_sqkm": 10, "quota_used": 9, "state": "active", "name": "A"}], None), ([], 0.0), ([], 1.9)],
)
def test_more_than_the_quota_orders_nothing(tmp_path, planet, plans, quota):
    ids = planet.add_many(2)
    planet.control(subscriptions=plans)
    with pytest.raises(ServiceError, match="nothing is ordered"):
        place(planet, tmp_path, ids, options={"quota_km2": quota})
    assert planet.posts() == 0


def test_a_quota_that_only_planet_knows_ends_with_its_words(tmp_path, planet):
    ids = planet.add_many(8)
    planet.control(quota_km2=AREA.km2 * 4.5)
    with pytest.raises(ServiceError, match=r"Download quota has been exceeded"):
        place(planet, tmp_path, ids, options={"order_size": 4})
    assert len(planet.charged["items"]) == 4
    planet.control(quota_km2=None)
    place(planet, tmp_path, ids, options={"order_size": 4})
    assert sorted(charge["item"] for charge in planet.charged["items"]) == ids


@pytest.mark.parametrize(("body", "said"), [("", "does not accept"), ('{"message": "token has expired"}', "expired")])
def test_a_refused_login_is_a_sentence_with_a_remedy(tmp_path, planet, body, said):
    ids = planet.add_many(1)
    planet.control(key="another", unauthorised=body)
    with pytest.raises(ServiceError, match=said) as error:
        place(planet, tmp_path, ids)
    assert "PLAK" not in str(error.value)
    assert "planet" in str(error.value)


def test_the_name_depends_on_scenes_bundle_tools_and_outline_and_on_nothing_else():
    settings = PlanetImagery(provider="planet")
    changes = ({}, {"bundle": "analytic_8b_sr_udm2"}, {"harmonise": True}, {"clip": False})
    recipes = [recipe_of(settings.model_copy(update=change), AREA)[0] for change in changes]
    recipes.append(recipe_of(settings, SECOND)[0])
    scenes = (Wish(id="b", km2=1.0), Wish(id="a", updated="2019-01-01"))
    names = [Request(project="p", site="s", wishes=scenes, recipe=recipe).name for recipe in recipes]
    assert len(set(names)) == len(names)
    same = Request(project="p", site="s", wishes=(Wish(id="a"), Wish(id="b", km2=9.0)), recipe=recipes[0])
    assert same.name == names[0]
    assert same.only(["a"]).name != names[0]
    assert Request(project="p", site="s", wishes=scenes, recipe=recipes[0], is_second=True).name != names[0]


def test_an_outline_of_5000_vertices_is_cut_out_with_500_that_cover_it(tmp_path, planet):
    circle = shapely.Point(126.1, 72.0).buffer(0.05, quad_segs=1250)
    area = Area("circle", shapely.affinity.scale(circle, 3, 1))
    (id_,) = planet.add(item_of(1, shapely.box(125, 71, 127, 73)))
    notes = []
    with planet.http() as http:
        order(http, planet.settings, {"circle": wishes([id_])}, [area], ledger_in(tmp_path), notes.append, manners=FAST)
    clip = shape(ledger_in(tmp_path).of("asked")[0]["tools"][0]["clip"]["aoi"])
    assert shapely.get_num_coordinates(clip) <= 501
    assert shapely.area(shapely.difference(area.outline, clip)) < 1e-9
    assert km2(clip) == pytest.approx(area.km2, rel=0.01)
    assert any("vertices instead of" in note for note in notes)


def test_an_area_that_cannot_be_cut_out_is_refused_before_anything_is_charged(tmp_path, planet):
    ids = planet.add_many(1)
    dust = [shapely.box(126 + 0.002 * number, 72, 126.0005 + 0.002 * number, 72.0005) for number in range(400)]
    with pytest.raises(ConfigError):
        place(planet, tmp_path, ids, areas=(Area("dust", shapely.union_all(dust)),))
    assert planet.posts() == 0


def test_what_is_outstanding_is_known_without_asking_anybody(tmp_path, planet):
    ids = planet.add_many(5)
    place(planet, tmp_path, ids[:2])
    before = len(planet.log)
    new = outstanding(planet.settings, {"Lena": wishes(ids, 2.5)}, [AREA], ledger_in(tmp_path))
    assert (new.scenes, new.before, new.km2) == (3, 2, 7.5)
    assert len(planet.log) == before
