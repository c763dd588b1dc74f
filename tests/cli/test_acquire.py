"""From an area to a map: the verb acquire against a Planet and a STAC catalogue on loopback, as a user runs it."""

import json
import shutil
from pathlib import Path

import geopandas as gpd
import httpx
import pytest
import rasterio
import sentinel2_catalogue
import shapely
from planet_fake import KEY, fake_planet
from serving import served

import thawmap
from thawmap import cli
from thawmap.acquire.ledger import alone
from thawmap.acquire.plan import read_plan
from thawmap.config import load
from thawmap.errors import ConfigError

QUICK = (
    "--set", "model={architecture: pixel}", "--set", "tiles={size: 64, overlap: 8}",
    "--set", "training.phases=[{name: all, epochs: 1}]",
)  # fmt: skip


def run(*words: object) -> int:
    return cli._run([str(word) for word in words])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A project of simulated PlanetScope scenes, and the outlines of its two regions."""
    home = tmp_path_factory.mktemp("planet")
    assert run("simulate", home / "project", "--regions", 2, "--scenes", 1, "--dates", 2, "--size", 160) == 0
    names, shapes = [], []
    for path in sorted((home / "project" / "scenes").rglob("*SR_clip.tif")):
        with rasterio.open(path) as file:
            outline = gpd.GeoSeries([shapely.box(*file.bounds).buffer(-40)], crs=file.crs).to_crs(4326).iloc[0]
        names, shapes = [*names, path.parts[-3]], [*shapes, outline]
    gpd.GeoDataFrame({"region": names}, geometry=shapes, crs=4326).dissolve("region").to_file(home / "aoi.gpkg")
    return home


@pytest.fixture
def planet(simulated):
    """A fake Planet that has the simulated scenes, and lets one key in."""
    with fake_planet(simulated / "project") as planet:
        yield planet


@pytest.fixture
def project(simulated, planet, tmp_path, monkeypatch):
    """A YAML that acquires the simulated scenes from the fake Planet, in the folder that tests run in."""
    monkeypatch.setenv("PL_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path))  # no login of the person who tests
    monkeypatch.chdir(tmp_path)
    home = simulated / "project"
    Path("p.yaml").write_text(f"""
acquire:
  area: {simulated / "aoi.gpkg"}
  site: region
  years: [2018, 2019, 2020]
  imagery: {{provider: planet, address: "{planet.address}", cloud: 1, cover: 0.3, min_gap_days: 0}}
  elevation: {{tiles: {home / "aux/arcticdem"}, margin_m: 60}}
layers: [blue, green, red, nir, ndvi, relative_elevation, slope]
labels: {{path: {home / "labels.gpkg"}, scene: image_id, region: region, target: label}}
""")
    return tmp_path


def holding(folder, secret):
    """The files below a folder that hold a secret."""
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.slow
def test_from_an_area_to_a_map_by_planet(project, planet, capfd):
    assert run("acquire", "plan", "p.yaml") == 0
    assert {path.name for path in Path("data").iterdir()} >= {"plan.gpkg", "plan.html", "plan.json"}
    plan = read_plan(Path("data"))
    assert planet.charged["km2"] == 0
    assert run("acquire", "p.yaml", "--yes") == 0
    assert planet.charged["km2"] == pytest.approx(plan.km2, rel=0.01)
    asked = len(planet.log)
    before = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*") if path.is_file()}

    assert run("acquire", "p.yaml", "--yes", "--write-config", "read.yaml") == 0  # all over again: nobody is asked
    assert len(planet.log) == asked
    assert before == {path: path.stat().st_mtime_ns for path in Path("data").rglob("*") if path.is_file()}

    assert run("acquire", "status", "p.yaml", "--checksums") == 0
    for yaml in ("p.yaml", "read.yaml"):
        assert run("scenes", yaml) == 0
    assert run("tiles", "p.yaml", "--out", "tiles", *QUICK) == 0
    assert run("train", "p.yaml", "--out", "model", "--tiles", "tiles", *QUICK) == 0
    assert run("predict", "p.yaml", "--model", "model", "--out", "maps", *QUICK) == 0
    assert len(list(Path("maps").glob("*/slumps.gpkg"))) == len(plan.taken) == 4
    said = capfd.readouterr()
    assert "nothing is amiss" in said.out
    assert "with the API key of PL_API_KEY" in said.err
    assert KEY not in said.out + said.err
    assert holding(project, KEY) == []


def test_nothing_is_paid_without_a_yes_and_what_was_struck_off_is_not_ordered(project, planet, capfd):
    charged = planet.charged["km2"]
    assert run("acquire", "plan", "p.yaml") == 0
    path = Path("data/plan.gpkg")
    items = gpd.read_file(path, layer="items")
    struck = items["id"].iloc[0]
    items.loc[0, "take"] = False
    items.to_file(path, layer="items", mode="w")
    capfd.readouterr()
    assert run("acquire", "order", "p.yaml") == 2  # no terminal, and no --yes
    said = capfd.readouterr().err
    assert "add --yes" in said
    assert "1 item struck off by hand" in said
    config = load(Path("p.yaml"))
    with pytest.raises(ConfigError, match="nobody said yes"):
        thawmap.acquire_order(config, confirm=lambda question: "km2" not in question)
    assert planet.charged["km2"] == charged
    assert run("acquire", "order", "p.yaml", "--yes") == 0
    ordered = [charge["item"] for charge in planet.charged["items"]]
    assert len(ordered) == 3
    assert struck not in ordered
    assert run("acquire", "plan", "p.yaml") == 2  # would replace what a person has edited
    assert "--replace" in capfd.readouterr().err


def test_a_dry_run_leaves_nothing_and_costs_nothing(project, planet, capfd):
    assert run("acquire", "p.yaml", "--dry-run") == 0
    assert not Path("data").exists()
    assert "4 scenes of 4 dates" in capfd.readouterr().out
    assert run("acquire", "fetch", "p.yaml", "--dry-run") == 2
    assert "make one by 'thawmap acquire plan'" in capfd.readouterr().err
    assert run("acquire", "plan", "p.yaml") == 0
    for verb in ("order", "fetch"):
        assert run("acquire", verb, "p.yaml", "--dry-run") == 0
    assert planet.posts() == 0
    assert not Path("data/scenes").exists()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda patch: patch.delenv("PL_API_KEY"), "there are no credentials for Planet"),
        (lambda patch: patch.setenv("PL_API_KEY", "PLAKwrong"), "PL_API_KEY"),
    ],
    ids=["none", "wrong"],
)
def test_a_login_that_is_missing_or_wrong_is_one_sentence(project, monkeypatch, capfd, change, error):
    change(monkeypatch)
    assert run("acquire", "plan", "p.yaml") == 2
    said = capfd.readouterr().err
    assert error in said
    assert "Traceback" not in said
    assert "PLAKwrong" not in said


def test_a_quota_of_zero_orders_nothing(project, planet, capfd):
    assert run("acquire", "p.yaml", "--yes", "--set", "acquire.imagery.quota_km2=0") == 0
    assert planet.posts() == 0
    assert "left out: quota" in capfd.readouterr().out


def test_two_at_once_are_refused_and_other_settings_plan_again(project, capfd):
    with alone(Path("data")):
        assert run("acquire", "plan", "p.yaml") == 2
    assert "acquires into data" in capfd.readouterr().err
    assert run("acquire", "plan", "p.yaml") == 0
    assert run("acquire", "p.yaml", "--yes", "--set", "acquire.years=[2019]") == 0
    assert "the settings have changed since the plan was made" in capfd.readouterr().err
    assert {item.offer.acquired.year for item in read_plan(Path("data")).taken} == {2019}


def test_orders_that_are_not_ready_leave_work_for_later_and_status_says_so(project, planet, capfd):
    planet.control(states=["queued", "running"])
    assert run("acquire", "p.yaml", "--yes", "--set", "acquire.patience_minutes=0") == 4
    assert "run the same command again" in capfd.readouterr().err
    assert run("acquire", "status", "p.yaml") == 0
    assert "running" in capfd.readouterr().out or "queued"
    planet.control(states=["success"])


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    """A STAC catalogue of Sentinel-2 on loopback, and a YAML that acquires from it."""
    monkeypatch.chdir(tmp_path)
    sentinel2_catalogue.write_catalogue(tmp_path / "remote")
    shutil.move(tmp_path / "remote" / "aoi.geojson", "aoi.geojson")
    with served("stac", tmp_path / "remote") as address:
        assert run("init", "--area", "aoi.geojson", "--site", "site", "--years", 2021) == 0
        text = Path("thawmap.yaml").read_text()
        own = f"{{address: {address}/v1, collection: sentinel-2-c1-l2a, name: local}}"
        text = text.replace("provider: stac,", f"provider: stac, catalogues: [{own}],")
        text = "\n".join(line for line in text.splitlines() if "elevation:" not in line)
        text = text.replace("relative_elevation, slope]", "]").replace("ndvi, ]", "ndvi]").replace("sources:\n", "")
        Path("thawmap.yaml").write_text(text)
        yield address


@pytest.mark.slow
def test_from_an_area_to_a_map_by_open_catalogues(catalogue, tmp_path, capfd):
    assert run("acquire", "thawmap.yaml") == 0
    plan = read_plan(Path("data"))
    asked = len(httpx.get(f"{catalogue}/_log").json())
    assert asked > 0
    assert {item.date[:10] for item in plan.taken} == {"2021-06-12", "2021-07-02", "2021-07-28"}  # one is cloudy
    assert run("acquire", "thawmap.yaml") == 0
    assert len(httpx.get(f"{catalogue}/_log").json()) == asked
    assert run("scenes", "thawmap.yaml") == 0
    bare = [shapely.Point(580_020 + 10 * col + 5, 7_720_020 - 10 * row - 5).buffer(140)
            for row, col in ((60, 70), (120, 210), (170, 330))]  # fmt: skip
    gpd.GeoDataFrame(geometry=bare, crs=sentinel2_catalogue.UTM).to_file("labels.gpkg")
    labelled = ("--set", "labels={path: labels.gpkg}")
    assert run("tiles", "thawmap.yaml", "--out", "tiles", *labelled, *QUICK) == 0
    assert run("train", "thawmap.yaml", "--out", "model", "--tiles", "tiles", *labelled, *QUICK) == 0
    assert run("predict", "thawmap.yaml", "--model", "model", "--out", "maps", *QUICK) == 0
    scenes = list(Path("maps").glob("*/item.json"))
    assert len(scenes) == len(plan.taken)
    assert all(json.loads(path.read_text())["properties"]["datetime"] for path in scenes)


def test_init_writes_a_yaml_for_an_area_and_refuses_what_is_none(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    square = gpd.GeoDataFrame({"name": ["a"]}, geometry=[shapely.box(0, 70, 1, 71)], crs=4326)
    square.to_file("aoi.gpkg")
    assert run("init", "work", "--area", "aoi.gpkg", "--site", "name", "--years", 2023, 2024) == 0
    config = load(Path("work/thawmap.yaml"))
    assert config.acquire.years == (2023, 2024)
    assert config.acquire.area == tmp_path / "aoi.gpkg"
    assert config.acquire.site == "name"
    assert "thawmap acquire plan work/thawmap.yaml" in capfd.readouterr().out
    square.set_geometry(shapely.centroid(square.geometry.values)).to_file("points.gpkg")
    assert run("init", "other", "--area", "points.gpkg") == 2
    assert "has no area" in capfd.readouterr().err
    assert run("init", "other", "--years", 2023) == 2
    assert not Path("other").exists()


def test_a_yaml_without_the_section_and_a_folder_without_anything_are_told(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("t.yaml").write_text("scenes: {kind: planetscope, path: .}\n")
    assert run("acquire", "t.yaml") == 2
    assert "has no section 'acquire'" in capfd.readouterr().err
    assert run("acquire", "status", tmp_path / "nowhere") == 2
    assert "is no folder" in capfd.readouterr().err
    assert run("acquire", "status", tmp_path) == 0
    assert "nothing is planned yet" in capfd.readouterr().out
