"""Sentinel-2 from catalogues of four conventions to scenes that thawmap reads, without and with faults."""

import json
import logging
from datetime import date
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import sentinel2_catalogue as made
from serving import served

from thawmap.acquire.areas import Area
from thawmap.acquire.http import Http
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.stac.fetch import fetch, is_fetched
from thawmap.acquire.stac.offers import find
from thawmap.config import Sentinel2Scenes
from thawmap.config.acquire import StacImagery
from thawmap.data.raster.io import read_raster
from thawmap.data.sources.sentinel2 import candidates, open_scene

AREA = Area("Bank", made.area_of_interest())
SEASONS = [(date(2021, 6, 1), date(2021, 9, 30))]
RATES = {"stac": 1000, "assets": 1000, "tokens": 1000}
FAST = {"rates": RATES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue")
    made.write_catalogue(folder)
    for convention in ("old", "pc", "cdse"):
        made.write_catalogue(folder, dates={"20210612T205019": 0.0}, tiles=["07WDV"], convention=convention)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with served("stac", folder) as address:
        yield address


@pytest.fixture
def control(server):
    httpx.post(f"{server}/_control", json={"clear": True}).raise_for_status()
    return lambda **words: httpx.post(f"{server}/_control", json=words).raise_for_status()


@pytest.fixture(autouse=True)
def bucket(server, monkeypatch):
    """CDSE's bucket, as this server has it."""
    for name, value in {
        "AWS_S3_ENDPOINT": server.removeprefix("http://"),
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ACCESS_KEY_ID": "name",
        "AWS_SECRET_ACCESS_KEY": "PLANTED",
    }.items():
        monkeypatch.setenv(name, value)


def log(server):
    return httpx.get(f"{server}/_log").json()


def settings(*catalogues, **words):
    return StacImagery(provider="stac", catalogues=catalogues, **words)


def offered(server, *catalogues, notes=None):
    with Http(**FAST) as http:
        known = made.catalogues(server)
        return find(
            http, settings(*catalogues), AREA, SEASONS, (notes if notes is not None else []).append, known=known
        )


def taken(offers, area="Bank"):
    return [SimpleNamespace(area=area, id=offer.id, item=json.loads(json.dumps(dict(offer.item)))) for offer in offers]


def fetched(root, offers, **words):
    with Http(**FAST) as http:
        ledger = Ledger.open(root / "ledger.jsonl")
        return fetch(http, settings("earth-search", **words), [AREA], taken(offers), root, ledger, note=lambda _: None)


def scenes(root):
    delivery = Sentinel2Scenes(kind="sentinel2", path=root / "scenes", region="{folder}")
    return [open_scene(candidate, delivery) for candidate in candidates(delivery)]


def reflectance(scene, layer):
    reading = scene.readings[layer]
    stored = read_raster(scene.files[reading.file], scene.geobox, bands=[1], nodata=0)[0]
    return stored * reading.scale + reading.offset


@pytest.mark.parametrize("convention", made.CONVENTIONS)
def test_every_catalogue_gives_the_same_reflectance(server, control, tmp_path, convention):
    image = made.Image(tile="07WDV", sensed="20210612T205019", convention=convention)
    catalogue = {"c1": "earth-search", "pc": "planetary-computer"}.get(convention, "cdse")
    offer = next(offer for offer in offered(server, catalogue) if offer.id == image.id)
    assert (offer.ground_id, offer.fault) == ("07WDV_sentinel-2b_20210612T205019", "")
    assert offer.processing.startswith("05.00_2023")
    result = fetched(tmp_path, [offer])
    assert not result.failed
    (scene,) = scenes(tmp_path)
    assert (scene.id, scene.region) == (image.id, "Bank")
    rows, cols = slice(30, 216), slice(30, 240)  # around the area, in steps of 60 m
    for layer in ("blue", "green", "red", "nir"):
        true = image.reflectance(layer)[rows, cols]
        np.testing.assert_allclose(reflectance(scene, layer), true, atol=1e-6)
        assert np.isnan(true).any()
    item = json.loads((tmp_path / "scenes" / "Bank" / image.id / f"{image.id}.json").read_text())
    assert {key: item[key] for key in item if key not in ("assets", "links")} == {
        key: value for key, value in json.loads(json.dumps(image.item())).items() if key not in ("assets", "links")
    }


def test_a_rerun_asks_nothing_and_what_is_gone_comes_again(server, control, tmp_path):
    offers = [offer for offer in offered(server, "earth-search") if offer.clear > 0.9]
    assert len(offers) == 6
    first = fetched(tmp_path, offers)
    assert (len(first.files), first.before, dict(first.failed)) == (36, 0, {})
    assert len(scenes(tmp_path)) == 6
    control(clear=True)
    assert fetched(tmp_path, offers).before == 6
    assert log(server) == []
    gone = next(path for path in first.files if path.name == "red.tif")
    content = gone.read_bytes()
    gone.unlink()
    again = fetched(tmp_path, offers)
    assert (again.files, again.before) == ((gone,), 5)
    assert gone.read_bytes() == content
    ledger = Ledger.open(tmp_path / "ledger.jsonl")
    assert is_fetched(tmp_path, ledger, "Bank", offers[0].id, ["blue", "scl"])
    assert not is_fetched(tmp_path, ledger, "Bank", offers[0].id, ["swir16"])
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".lock")]


def test_one_scene_that_fails_costs_one_scene(server, control, folder, tmp_path):
    offers = offered(server, "earth-search")
    stranger = tmp_path / "scenes" / "Bank" / offers[0].id / "blue.tif"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"a person's")
    result = fetched(tmp_path, offers)
    assert list(result.failed) == [f"scenes/Bank/{offers[0].id}"]
    assert "nothing is replaced unasked" in str(result.failed)
    assert stranger.read_bytes() == b"a person's"
    assert len(result.files) == 6 * (len(offers) - 1)


def test_tokens_are_fetched_again_and_never_written(server, control, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    control(clock_s=86_400)  # the server's clock is a day ahead
    offers = offered(server, "planetary-computer")
    assert not fetched(tmp_path / "one", offers).failed
    tokens = [entry for entry in log(server) if "/token/" in entry["path"]]
    assert len(tokens) == 1
    control(clear=True, tokens_s=60)  # none lives long enough to be used twice
    assert not fetched(tmp_path / "two", offers).failed
    assert len([entry for entry in log(server) if "/token/" in entry["path"]]) > 5
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"secret" in text or b"sig=" in text for text in texts)
    assert "secret" not in caplog.text


def test_a_divided_catalogue_list_has_one_ground_id_for_a_scene(server, control):
    offers = offered(server, "earth-search", "planetary-computer", "cdse")
    assert offers[0].catalogue == "earth-search"
    same = [offer for offer in offers if offer.ground_id == "07WDV_sentinel-2b_20210612T205019"]
    assert len({offer.catalogue for offer in same}) == 3
    assert len({offer.pass_id for offer in offers}) == len(made.DATES)


def test_an_item_that_cannot_be_read_has_a_fault(server, control):
    with Http(**FAST) as http:
        known, wanted = made.catalogues(server), settings("earth-search", bands=("blue", "rededge1"))
        offers = find(http, wanted, AREA, SEASONS, lambda _: None, known=known)
    assert {offer.fault for offer in offers} == {"it has no file for rededge1"}
