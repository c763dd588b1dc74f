"""`thawmap scenes` of a folder with a catalogue lists the same as without, and opens nothing for it."""

import subprocess
import sys
from pathlib import Path

import pytest
from deliveries import planet_scene

import thawmap
from thawmap.config import Config, PlanetScopeScenes
from thawmap.data.catalogue.layout import INDEX
from thawmap.data.catalogue.write import write_catalogue

FIRST, SECOND = "20190701_042959_08_1057", "20190702_042959_08_1057"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for site, name in (("Peel", FIRST), ("Lena", SECOND)):
        planet_scene(tmp_path / "scenes" / site / "order" / "PSScene", name)
    return tmp_path


def config(data: Path, **changes) -> Config:
    settings = PlanetScopeScenes(kind="planetscope", path=data / "scenes", region="{folder}")
    return Config(**{"scenes": settings, "layers": ["blue", "green", "red", "nir"]} | changes)


def test_rows_are_the_same_with_a_catalogue(data, monkeypatch):
    before = thawmap.scenes(config(data))
    write_catalogue(data, config(data).scenes)
    assert thawmap.scenes(config(data), look_at_all=True).rows == before.rows
    monkeypatch.setattr("thawmap.pipeline.scenes.look", None)
    monkeypatch.setattr("thawmap.data.project.Project.open", None)
    after = thawmap.scenes(config(data))
    assert after.rows == before.rows
    assert after.lines[-2].startswith("2 scenes are listed as the catalogue says")
    assert after.lines[-1] == before.lines[-1]


def test_what_is_new_or_cannot_be_used_is_looked_at(data):
    write_catalogue(data, config(data).scenes)
    planet_scene(data / "scenes" / "Peel" / "later", "20190705_042959_08_1057")
    next((data / "scenes" / "Lena").rglob("*_udm2_clip.tif")).write_bytes(b"damaged")
    told = thawmap.scenes(config(data))
    expected = thawmap.scenes(config(data), look_at_all=True)
    assert (told.rows, told.failed) == (expected.rows, expected.failed)
    assert told.failed.keys() == {SECOND}


def test_a_layer_that_the_scenes_lack_is_told_as_without_a_catalogue(data):
    write_catalogue(data, config(data).scenes)
    for layers in (["red", "swir1"], ["red", "slope"]):
        asked = config(data, layers=layers)
        told, expected = thawmap.scenes(asked), thawmap.scenes(asked, look_at_all=True)
        assert (told.rows, told.failed) == (expected.rows, expected.failed)
        assert len(told.failed) == 2


def test_parts_and_regions_are_those_of_the_settings(data):
    write_catalogue(data, config(data).scenes)
    rows = thawmap.scenes(config(data, split={"test": ["Lena"]})).rows
    assert {row["region"]: row["part"] for row in rows} == {"Peel": "train", "Lena": "test"}


@pytest.mark.slow
def test_the_command_line_lists_them_and_loads_no_tables_of_pandas(data):
    write_catalogue(data, config(data).scenes)
    yaml = data / "t.yaml"
    yaml.write_text('scenes: {kind: planetscope, path: scenes, region: "{folder}"}\nlayers: [red]\n', encoding="utf-8")
    program = (
        "import sys; from thawmap.cli import _run; assert _run(sys.argv[1:]) == 0; "
        "assert not {'pandas', 'geopandas', 'pystac', 'torch'} & set(sys.modules), sys.modules.keys()"
    )
    for words in (("scenes", yaml), ("scenes", yaml, "--look")):
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, words)], check=False, capture_output=True, text=True
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "2 of 2 scenes can be used" in done.stdout
        assert ("listed as the catalogue says" in done.stdout) == ("--look" not in words)
    assert (data / INDEX).is_file()
