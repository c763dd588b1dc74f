"""Scenes that Planet delivers are read as they lie, and tell by themselves how clear they are."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
import rasterio
import shapely
from planet_fake import AREA, FAST, fake_planet, item_of, ledger_in, silent, wishes

from thawmap.acquire.areas import Area
from thawmap.acquire.planet.delivery import fetch
from thawmap.acquire.planet.orders import order
from thawmap.acquire.planet.owned import with_owned
from thawmap.acquire.planet.requests import Wish
from thawmap.acquire.planet.search import find
from thawmap.config import Config, EngineSettings, PlanetScopeScenes
from thawmap.data.project import Project
from thawmap.data.sources.bands import BandSource
from thawmap.simulate.products import image_of, write_image
from thawmap.simulate.regions import REGIONS
from thawmap.simulate.sites import find_site

FOUR = ("blue", "green", "red", "nir")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A folder with one simulated image of a site, and its metadata."""
    folder = tmp_path_factory.mktemp("planet")
    site = find_site(REGIONS[0].country(0), 0, 128)
    write_image(folder / "scenes" / "PSScene", image_of(site, 0, 0x1057))
    return folder, json.loads(next(folder.rglob("*_metadata.json")).read_text())


@pytest.fixture(scope="module")
def planet(simulated):
    with fake_planet(simulated[0]) as running:
        yield running


def diamond(item):
    """The middle of a footprint, between the middles of its sides: an area that no grid of pixels knows."""
    corners = np.array(item["geometry"]["coordinates"][0][:-1])
    return Area("Peel", shapely.Polygon((corners + np.roll(corners, 1, axis=0)) / 2))


def season_of(item):
    day = date.fromisoformat(item["properties"]["acquired"][:10])
    return ((day, day + timedelta(days=1)),)


def test_a_delivery_is_read_by_thawmap_and_marks_its_offer_as_owned(tmp_path, simulated, planet):
    folder, item = simulated
    area = diamond(item)
    with planet.http() as http:
        (offer,) = find(http, planet.settings, area, season_of(item), silent)
        asked = {"Peel": [Wish(id=offer.id, updated=offer.item["updated"], km2=area.km2)]}
        order(http, planet.settings, asked, [area], ledger_in(tmp_path), silent, manners=FAST)
        assert fetch(http, planet.settings, tmp_path, ledger_in(tmp_path), silent, manners=FAST).faults == []
    assert planet.charged["km2"] == pytest.approx(area.km2, rel=1e-3)

    scenes = PlanetScopeScenes(kind="planetscope", path=tmp_path / "scenes", region="{folder}")
    project = Project(Config(scenes=scenes, layers=FOUR, engine=EngineSettings(workers=1)))
    (candidate,) = project.candidates()
    scene = project.open(candidate)
    assert (scene.id, scene.region) == (item["id"], "Peel")
    assert set(scene.files) >= {"image", "udm2", "json"}
    stack = BandSource(frozenset(FOUR)).read(scene, scene.geobox, FOUR)
    with rasterio.open(next(folder.rglob("*_SR_clip.tif"))) as source, rasterio.open(scene.files["image"]) as cut:
        window = source.window(*cut.bounds)
        expected = source.read(window=window).astype(float)
        stored = cut.read()
    inside = stored[0] > 0
    assert 0.3 < inside.mean() < 0.9
    np.testing.assert_array_equal(stored[:, inside], expected[:, inside])
    np.testing.assert_allclose(np.array([stack[name] for name in FOUR])[:, inside], stored[:, inside] * 1e-4, rtol=1e-6)

    with rasterio.open(scene.files["udm2"]) as mask:
        clear, unusable = mask.read([1, 8])
    (owned,) = with_owned([offer], planet.settings, area, tmp_path, ledger_in(tmp_path), silent)
    assert owned.is_owned
    assert owned.clear_source == "udm2"
    assert owned.clear == pytest.approx(clear.sum() / (unusable & 1 == 0).sum(), abs=0.02)
    notes = []
    changed = replace(offer, updated=datetime(2026, 1, 1, tzinfo=UTC))
    (kept,) = with_owned([changed], planet.settings, area, tmp_path, ledger_in(tmp_path), notes.append)
    assert kept.is_owned
    assert "Planet has changed" in notes[0]
    assert item["id"] in notes[0]


def test_what_was_ordered_otherwise_is_not_owned_and_what_was_refused_cannot_be_taken(tmp_path, planet):
    planet.reset()
    ids = planet.add(*(item_of(number) for number in range(4)))
    planet.control(bad=ids[:1], failing=ids[1:2])
    seasons = ((date(2019, 7, 1), date(2019, 7, 2)),)
    with planet.http() as http:
        offers = find(http, planet.settings, AREA, seasons, silent)
        order(http, planet.settings, {"Lena": wishes(ids[:3])}, [AREA], ledger_in(tmp_path), silent, manners=FAST)
        fetch(http, planet.settings, tmp_path, ledger_in(tmp_path), silent, manners=FAST)
    ledger = ledger_in(tmp_path)
    marked = with_owned(offers, planet.settings, AREA, tmp_path, ledger, silent)
    assert [offer.is_owned for offer in marked] == [False, False, True, False]
    assert [offer.fault[:10] for offer in marked] == ["refused by", "was ordere", "", ""]
    assert marked[2].clear_source == "clear_percent"  # its files are no rasters
    eight = planet.settings.model_copy(update={"bundle": "analytic_8b_sr_udm2"})
    assert not any(offer.is_owned for offer in with_owned(offers, eight, AREA, tmp_path, ledger, silent))
    smaller = Area("Lena", shapely.box(126.0, 72.0, 126.1, 72.05))
    assert not any(offer.is_owned for offer in with_owned(offers, planet.settings, smaller, tmp_path, ledger, silent))
