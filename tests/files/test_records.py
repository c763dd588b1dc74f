"""JSON files from strangers: every value of the wrong kind ends in a sentence, or is taken for what it is."""

import json

import pytest
from json_places import changed, places

from thawmap.config.plan import read_plan
from thawmap.errors import ConfigError, DataError
from thawmap.files.records import Record, checked, read_object
from thawmap.files.results import check_result
from thawmap.maps.item import MapItem
from thawmap.report.crossval import analysis
from thawmap.series.places import open_map
from thawmap.train.experiments.trials import read_trials
from thawmap.train.tiles.cut import FORMAT, read_attributes
from thawmap.train.tiles.store import TileStore

WRONG = (None, True, -1, 1e400, float("nan"), 10**40, "a", "../../a", [], [None], [1], {}, {"x": None}, {"x": [1]})

ITEM = {
    "properties": {
        "datetime": "2020-07-14T20:00:00Z",
        "thawmap:bundle": "e27fdc59c236",
        "thawmap:threshold": 0.4,
        "thawmap:region": "Lena",
        "thawmap:sensor": "rasters",
        "thawmap:left_out": {"below 200 m2": 1},
        "thawmap:fingerprint": "ab",
        "thawmap:config": {"polygons": {}, "outputs": {}, "version": "0.1.0"},
    },
    "assets": {"probability": {"href": "./probability.tif"}},
}
PLAN = {"config": {"project": "p", "crossval": {"grid": {"a": [1, 2]}, "inner": 1}, "tune": {}}, "tile_store": "ab"}
CODE = {"name": "red", "low": 0.0, "step": 0.1, "units": "1"}
STORE = {"format": FORMAT, "size": 32, "layers": [CODE]}
ZARR = {"attributes": STORE | {"fingerprint": "ab", "region": "Lena", "footprint": "POINT (0 0)"}}
TRIAL = {"number": 0, "values": {"a": 1}, "state": "finished", "scores": [0.5], "reason": "", "seconds": 1.0}


READERS = {
    ".made.json": ({"index.html": ["ab", "cd"]}, lambda path: check_result(path.parent)),
    "item.json": (ITEM, lambda path: (MapItem.read(path.parent), open_map(path.parent))),
    "crossval.json": (PLAN, lambda path: (read_plan(path), analysis.read(path.parent))),
    "store.json": (STORE, lambda path: TileStore.open(path.parent)),
    "a.zarr/zarr.json": (ZARR, lambda path: read_attributes(path.parents[1], "a")),
    "trials/0000/trial.json": (TRIAL, lambda path: [trial.describe_values() for trial in read_trials(path.parents[2])]),
}


@pytest.mark.parametrize("name", READERS)
def test_every_value_of_the_wrong_kind_ends_in_a_sentence(tmp_path, name):
    whole, reader = READERS[name]
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for way in ((), *places(whole)):
        for value in WRONG:
            path.write_text(json.dumps(changed(whole, way, value)))
            try:
                reader(path)
            except (DataError, ConfigError) as error:
                assert len(str(error).splitlines()) == 1  # noqa: PT017 - either way is right, a traceback is not


@pytest.mark.parametrize("href", ["../other/a.tif", "/etc/passwd", "a/b.tif", "..\\a.tif", ""])
def test_a_map_names_files_of_its_own_folder_only(tmp_path, href):
    path = tmp_path / "item.json"
    path.write_text(json.dumps(changed(ITEM, ("assets", "probability", "href"), href)))
    with pytest.raises(DataError, match=r"assets\.probability\.href"):
        MapItem.read(tmp_path)


class Sample(Record):
    number: int
    share: float = 0.0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "'number' is missing"),
        ({"number": "1"}, "'number' is '1': must be a valid integer"),
        ({"number": True}, "'number' is True: must be a valid integer"),
        ({"number": 1, "share": float("inf")}, "'share' is inf: must be a finite number"),
    ],
)
def test_a_fault_names_its_key_what_it_got_and_what_is_allowed(content, said):
    with pytest.raises(ValueError, match="has a wrong value") as caught:
        checked(content, Sample)
    assert said in str(caught.value)


def test_a_long_value_is_shown_short():
    with pytest.raises(ValueError, match="wrong value") as caught:
        checked({"number": ["x" * 10_000] * 10_000}, Sample)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"a": ' * 60 + "1" + "}" * 60])
def test_what_is_nested_without_end_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="nested more than 50 levels"):
        read_object(tmp_path / "a.json")
