"""Sentinel-2 from catalogues of four conventions to scenes that thawmap reads, without and with faults."""

import json
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
from thawmap.acquire.stac.fetch import fetch
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
