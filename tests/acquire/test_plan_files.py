"""A plan's files: there and back, edited by people, edited into nonsense."""

import json
import sqlite3
from contextlib import closing
from datetime import timedelta

import geopandas as gpd
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from offering import AREA, NOON, cell_box, many_offers, offer, rules

from thawmap.acquire.choosing import choose
from thawmap.acquire.plan import make_plan, read_plan, write_plan
from thawmap.errors import ConfigError, ThawmapError


def a_plan(*, the=None, **values):
    offers = [
        offer("a", clear=0.99, item={"id": "a"}, updated=NOON + timedelta(hours=6)),
        offer("b1", day=9, clear=0.97, outline=cell_box(0, 0, 6, 10), item={"id": "b1"}),
        offer("b2", day=9, clear=0.97, outline=cell_box(5, 0, 12, 10), item={"id": "b2"}),
        offer("near", day=2, clear=0.95),
        offer("cloudy", day=20, clear=0.5, item={"large": "x" * 3000}),
        offer("refused", day=30, fault="no access to assets (ortho_udm2)"),
    ]
    choice = choose({"herschel": offers}, [AREA], the or rules())
    return make_plan([AREA], choice, rules={"cloud": 0.1}, settings={"provider": "planet"}, **values)


@pytest.fixture
def folder(tmp_path):
    write_plan(tmp_path, a_plan())
    return tmp_path


def taken(folder):
    return [item.offer.id for item in read_plan(folder).taken]


def sql(folder, *statements):
    """Change plan.gpkg as any program may; triggers of its index of shapes need functions that sqlite lacks."""
    with closing(sqlite3.connect(folder / "plan.gpkg")) as base:
        names = base.execute("select name from sqlite_master where type = 'trigger' and name like 'rtree%'").fetchall()
        for statement in (*(f'drop trigger "{name}"' for (name,) in names), *statements):
            base.execute(statement)
        base.commit()


def edit(folder, change):
    """Change plan.json as a person with an editor."""
    path = folder / "plan.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def item_of(content, name):
    return next(item for item in content["items"] if item["id"] == name)


# --- there and back ---------------------------------------------------------------------------------------------------


def test_a_plan_comes_back_as_it_was_written(tmp_path):
    plan = a_plan(elevation=({"id": "44_74"},), trends=({"id": "LT05"},), quota_km2=500.0)
    write_plan(tmp_path, plan)
    read = read_plan(tmp_path)
    cloudy = next(item for item in plan.items if item.offer.id == "cloudy")
    assert [item for item in read.items if item.offer.id != "cloudy"] == [i for i in plan.items if i is not cloudy]
    assert next(item for item in read.items if item.offer.id == "cloudy").offer.item == {}  # long, and of no date
    assert (read.areas, read.dates, read.rules, read.elevation, read.trends, read.quota_km2, read.settings) == (
        plan.areas, plan.dates, plan.rules, plan.elevation, plan.trends, plan.quota_km2, plan.settings
    )  # fmt: skip


@settings(max_examples=8)
@given(offers=many_offers())
def test_any_plan_comes_back(tmp_path_factory, offers):
    folder = tmp_path_factory.mktemp("plan")
    plan = make_plan([AREA], choose({"herschel": offers}, [AREA], rules(cover=0.3, min_gap_days=0)))
    write_plan(folder, plan)
    assert read_plan(folder) == plan


def test_a_plan_of_nothing_comes_back(tmp_path):
    plan = make_plan([AREA], choose({}, [AREA], rules()))
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan


def test_gdal_sees_the_layers_and_json_has_an_item_a_line(folder):
    assert dict(pyogrio.list_layers(folder / "plan.gpkg")).keys() == {"areas", "dates", "items"}
    items = gpd.read_file(folder / "plan.gpkg", layer="items")
    assert items["take"].tolist() == [True, False, True, True, False, False]
    assert items.crs.to_epsg() == 4326
    lines = [line for line in (folder / "plan.json").read_text().splitlines() if '"id": "b1"' in line]
    assert len(lines) == 1


def test_costs_and_what_is_left_out_are_counted():
    plan = a_plan()
    (row,) = plan.costs()
    assert (row["area"], row["found"], row["dates"], row["scenes"], row["owned"]) == ("herschel", 5, 2, 3, 0)
    assert row["km2"] == pytest.approx(plan.km2) == pytest.approx(210, abs=1)
    assert plan.left_out() == {
        "too near a better date": 1, "date too cloudy": 1, "no access to assets": 1
    }  # fmt: skip


def test_a_plan_written_twice_is_the_same(folder):
    before = (folder / "plan.json").read_bytes()
    write_plan(folder, a_plan())
    assert (folder / "plan.json").read_bytes() == before
    assert taken(folder) == ["a", "b1", "b2"]


# --- edited -----------------------------------------------------------------------------------------------------------


def test_an_item_is_struck_off_or_added_in_either_file(folder):
    sql(folder, "update items set take = 0 where id = 'a'")
    assert taken(folder) == ["b1", "b2"]
    edit(folder, lambda content: item_of(content, "near").update(take=True))
    assert taken(folder) == ["near", "b1", "b2"]
    assert read_plan(folder).edits() == "1 item struck off and 1 item added"


@pytest.mark.parametrize("value", ["'no'", "'False'", "0", "0.0", "'0'"])
def test_words_for_no_are_understood(folder, value):
    sql(folder, f"update items set take = {value} where id = 'a'")
    assert taken(folder) == ["b1", "b2"]


@pytest.mark.parametrize("table", ["dates", "items"])
def test_rows_that_are_deleted_are_struck_off(folder, table):
    column = {"dates": "day = '2019-07-10'", "items": "id in ('b1', 'b2')"}[table]
    sql(folder, f"delete from {table} where {column}")
    assert taken(folder) == ["a"]


@pytest.mark.parametrize("table", ["dates", "items"])
def test_lines_that_are_deleted_are_struck_off(folder, table):
    def change(content):
        kept = [row for row in content[table] if not (row.get("day") == "2019-07-10" or row.get("id") == "a")]
        content[table] = kept

    edit(folder, change)
    assert taken(folder) == {"dates": ["a"], "items": ["b1", "b2"]}[table]


def test_a_date_takes_the_scenes_that_make_it(folder):
    sql(
        folder,
        "update dates set take = 0 where day = '2019-07-10'",
        "update dates set take = 1 where day = '2019-07-03'",
    )
    assert taken(folder) == ["a", "near"]
    sql(folder, "update items set take = 0 where id = 'b1'")
    assert taken(folder) == ["a", "near"]


def test_a_plan_that_was_edited_and_written_again_is_read_the_same(folder, tmp_path_factory):
    sql(folder, "update items set take = 0 where id = 'b1'", "update items set take = 1 where id in ('near', 'cloudy')")
    plan = read_plan(folder)
    other = tmp_path_factory.mktemp("other")
    write_plan(other, plan)
    assert read_plan(other) == plan


def test_a_column_of_a_person_and_a_journal_of_qgis_do_no_harm(folder):
    with closing(sqlite3.connect(folder / "plan.gpkg")) as base:
        base.execute("pragma journal_mode = wal")
        base.execute("alter table items add column note text")
        base.execute("create table layer_styles (id integer primary key, qml text)")
        base.commit()
        assert taken(folder) == ["a", "b1", "b2"]


# --- a person's edits are not thrown away -----------------------------------------------------------------------------


def test_a_new_plan_does_not_replace_one_that_was_edited(folder):
    sql(folder, "update items set take = 0 where id = 'a'")
    with pytest.raises(ConfigError, match=r"was edited since it was made \(1 item struck off\).*--replace"):
        write_plan(folder, a_plan())
    assert taken(folder) == ["b1", "b2"]
    write_plan(folder, a_plan(), replace=True)
    assert taken(folder) == ["a", "b1", "b2"]
    write_plan(folder, a_plan(quota_km2=1000.0))


def test_a_note_of_a_person_is_not_thrown_away(folder):
    sql(folder, "alter table items add column note text", "update items set note = 'ice on the lake' where id = 'a'")
    with pytest.raises(ConfigError, match=r"was edited since it was made \(a file was changed\)"):
        write_plan(folder, a_plan())


def test_a_plan_that_is_open_elsewhere_is_not_replaced(folder):
    with closing(sqlite3.connect(folder / "plan.gpkg")) as base:
        base.execute("pragma journal_mode = wal")
        base.execute("create table open_in_qgis (id integer)")
        base.commit()
        with pytest.raises(ConfigError, match="is open in another program"):
            write_plan(folder, a_plan(), replace=True)


def test_a_foreign_file_of_the_name_stays(tmp_path):
    (tmp_path / "plan.gpkg").write_text("somebody's")
    with pytest.raises(ConfigError, match="--replace"):
        write_plan(tmp_path, a_plan())
    assert (tmp_path / "plan.gpkg").read_text() == "somebody's"


# --- edited into nonsense ---------------------------------------------------------------------------------------------

IN_THE_GEOPACKAGE = {
    "neither": ("update items set take = 'maybe' where id = 'a'", "'take' of the item 'a' of 'herschel' is 'maybe'"),
    "empty": ("update items set take = null where id = 'a'", "'take' of the item 'a' of 'herschel' is nothing"),
    "a number": ("update dates set take = 2 where day = '2019-07-01'", "write true or false"),
    "renamed": ("update items set id = 'c' where id = 'a'", "the item 'c' of 'herschel' is not in plan.json"),
    "given twice": ("update items set id = 'b2' where id = 'b1'", "the item 'b2' of 'herschel' is there twice"),
    "a date renamed": ("update dates set date = 'x' where day = '2019-07-01'", "the date 'x' of 'herschel' is not in"),
    "without take": ("alter table items drop column take", "the layer 'items' has lost its column 'take'"),
    "without id": ("alter table items rename column id to identity", "the layer 'items' has lost its column 'id'"),
    "without a shape": ("update items set geom = null where id = 'a'", "the item 'a' of 'herschel' has lost its shape"),
    "moved": (
        "update items set geom = (select geom from items where id = 'b1') where id = 'a'",
        "the shape of the item 'a' of 'herschel' was changed; only 'take' can be edited",
    ),
    "added": (
        "insert into items (geom, area, id, take, catalogue, collection) "  # noqa: ISC004
        "select geom, area, 'new', 1, catalogue, collection from items where id = 'a'",
        "the item 'new' of 'herschel' is not in plan.json; a plan takes only what was found",
    ),
    "without the area": ("delete from areas", "the area 'herschel' was deleted"),
    "of another plan": ("update areas set plan = 'another'", "is of another plan than the plan.json beside it"),
    "refused": ("update items set take = 1 where id = 'refused'", "cannot be taken: no access to assets"),
}


@pytest.mark.parametrize("name", IN_THE_GEOPACKAGE)
def test_nonsense_in_the_geopackage_is_refused_in_a_sentence(folder, name):
    statement, words = IN_THE_GEOPACKAGE[name]
    sql(folder, statement)
    with pytest.raises(ConfigError) as refusal:
        read_plan(folder)
    assert words in str(refusal.value)
    assert str(folder) in str(refusal.value)
    assert "\n" not in str(refusal.value)


IN_THE_JSON = {
    "neither": ({"take": "maybe"}, "'items.0.take' is 'maybe': must be a valid boolean"),
    "negative": ({"km2": -5}, "'items.0.km2' is -5"),
    "too large": ({"clear": 99}, "'items.0.clear' is 99"),
    "renamed": ({"id": "x"}, "the item 'a' of 'herschel' is not in plan.json"),
    "foreign area": ({"area": "Mars"}, "has lines of the area 'Mars', but not the area"),
    "foreign date": ({"date": "1999"}, "has items of the date '1999', but not the date"),
    "no time": ({"acquired": "noon"}, "no time that can be read for the item 'a': 'noon'"),
    "no zone": ({"acquired": "2019-07-01T21:00:00"}, "no time that can be read for the item 'a'"),
    "no outline": ({"outline": {}}, "no polygon as the outline of the item 'a'"),
    "a key less": (lambda plan: plan["items"][0].pop("take"), "'items.0.take' is missing"),
    "no list": (lambda plan: plan.update(items={}), "'items' is {}"),
    "given twice": (lambda plan: plan["items"].append(plan["items"][0]), "has the item 'a' twice"),
    "added": (lambda plan: plan["items"].append(plan["items"][0] | {"id": "x"}), "lines that were added by hand"),
    "a point": (
        lambda plan: plan["areas"][0].update(outline={"type": "Point", "coordinates": [0, 0]}),
        "no polygon as the outline of the area 'herschel'",
    ),
    "another format": (lambda plan: plan.update(format=2), "has the format 2, and this version of thawmap reads 1"),
    "over the quota": (lambda plan: plan.update(quota_km2=150.0), "more than the quota of 150 km2"),
}


@pytest.mark.parametrize("name", IN_THE_JSON)
def test_nonsense_in_the_json_is_refused_in_a_sentence(folder, name):
    change, words = IN_THE_JSON[name]
    edit(folder, change if callable(change) else lambda plan: plan["items"][0].update(change))
    with pytest.raises(ConfigError) as refusal:
        read_plan(folder)
    assert words in str(refusal.value)
    assert str(folder) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["plan.json", "plan.gpkg"])
@pytest.mark.parametrize("how", ["missing", "cut", "empty", "other"])
def test_files_that_are_damaged_or_gone_are_refused(folder, name, how):
    path = folder / name
    whole = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "other": b"[]"}[how])
    with pytest.raises(ThawmapError) as refusal:
        read_plan(folder)
    assert isinstance(refusal.value, ConfigError)
    assert "\n" not in str(refusal.value)


def test_a_layer_saved_without_shapes_is_refused(folder):
    items = pyogrio.read_dataframe(folder / "plan.gpkg", layer="items", read_geometry=False)
    areas, dates = (gpd.read_file(folder / "plan.gpkg", layer=layer) for layer in ("areas", "dates"))
    (folder / "plan.gpkg").unlink()
    areas.to_file(folder / "plan.gpkg", layer="areas")
    dates.to_file(folder / "plan.gpkg", layer="dates")
    pyogrio.write_dataframe(items, folder / "plan.gpkg", layer="items", append=True)
    with pytest.raises(ConfigError, match="no geometry"):
        read_plan(folder)


def test_an_outline_across_the_antimeridian_and_one_with_a_hole_come_back(tmp_path):
    cut = shapely.union_all([shapely.box(179.8, 69.95, 180, 70.04), shapely.box(-180, 69.95, -179.9, 70.04)])
    ring = shapely.difference(cell_box(-5, -5, 15, 15), cell_box(4, 4, 4.5, 4.5))
    offers = [offer("cut", outline=cut), offer("ring", day=9, outline=ring)]
    plan = make_plan([AREA], choose({"herschel": offers}, [AREA], rules()))
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan
