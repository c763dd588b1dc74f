"""A look inside an area: how much of it is clear by a scene's own classes, read once."""

import json
from dataclasses import replace
from datetime import date

import httpx
import pytest
import sentinel2_catalogue as made
import shapely
from serving import served

from thawmap.acquire.areas import Area
from thawmap.acquire.http import Http
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.stac.look import look_inside
from thawmap.acquire.stac.offers import find
from thawmap.config import StacImagery
from thawmap.geo.shapes import to_lonlat

RATES = {"stac": 1000, "assets": 1000, "tokens": 1000}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue")
    made.write_catalogue(folder, dates={"20210717T205019": 0.6}, tiles=["07WDV"])
    with served("stac", folder) as address:
        yield address


def strip(first, last):
    """The ground of some columns (10 m) of the tile."""
    x, y = made.CORNER
    return Area("Bank", to_lonlat(shapely.box(x + 10 * first, y - 1500, x + 10 * last, y - 100), made.UTM))


def looked(server, area, ledger, notes=None):
    settings = StacImagery(provider="stac", catalogues=("earth-search",))
    seasons = [(date(2021, 6, 1), date(2021, 9, 30))]
    notes = [] if notes is None else notes
    with Http(rates=RATES) as http:
        offers = find(http, settings, area, seasons, notes.append, known=made.catalogues(server))
        return offers, look_inside(http, area, offers, ledger, notes.append)


def requests(server):
    return len([entry for entry in httpx.get(f"{server}/_log").json() if entry["path"].endswith(".tif")])


@pytest.mark.parametrize(("first", "last", "clear"), [(0, 100, 0.0), (160, 240, 1.0), (100, 190, 0.5)])
def test_the_clear_share_is_that_of_the_area_and_not_of_the_tile(server, tmp_path, first, last, clear):
    (offer,), (seen,) = looked(server, strip(first, last), Ledger.open(tmp_path / "ledger.jsonl"))
    assert (offer.clear, offer.clear_source) == (pytest.approx(0.4), "cloud_cover")
    # clouds reach to column 144, their shadow to 148
    assert seen.clear == pytest.approx(clear, abs=0.05)
    assert seen.clear_source == "coverage"


def test_what_was_looked_at_is_not_read_again_and_another_outline_is(server, tmp_path):
    path = tmp_path / "ledger.jsonl"
    _, first = looked(server, strip(100, 190), Ledger.open(path))
    before = requests(server)
    _, again = looked(server, strip(100, 190), Ledger.open(path))
    assert again == first
    assert requests(server) == before
    looked(server, strip(100, 180), Ledger.open(path))
    assert requests(server) > before


def test_classes_that_cannot_be_read_leave_the_offer_as_it_is(server, tmp_path):
    area, notes = strip(100, 190), []
    offers, _ = looked(server, area, Ledger.open(tmp_path / "a.jsonl"))
    item = json.loads(json.dumps(dict(offers[0].item)).replace("SCL.tif", "lost.tif"))
    broken = replace(offers[0], item=item)
    with Http(rates=RATES) as http:
        (seen,) = look_inside(http, area, [broken], Ledger.open(tmp_path / "b.jsonl"), notes.append)
    assert seen == broken
    assert notes == ["Bank: the classes inside the area cannot be read of 1 scene"]
