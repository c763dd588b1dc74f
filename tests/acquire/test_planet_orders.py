"""Orders at Planet: each scene is asked for once and paid once, whatever breaks in between."""

import pytest
from planet_fake import AREA, FAST, fake_planet, ledger_in, silent, wishes

from thawmap.acquire.planet.delivery import fetch
from thawmap.acquire.planet.orders import order


@pytest.fixture(scope="module")
def running():
    with fake_planet() as planet:
        yield planet


@pytest.fixture
def planet(running):
    running.reset()
    return running


def place(planet, folder, ids, *, note=silent, settings=None, areas=(AREA,), http=None, **options):
    with http or planet.http() as way:
        return order(
            way, settings or planet.settings, {areas[0].name: wishes(ids)}, areas, ledger_in(folder), note,
            manners=FAST, **options,
        )  # fmt: skip


def bring(planet, folder, *, note=silent, http=None, manners=FAST):
    with http or planet.http() as way:
        return fetch(way, planet.settings, folder, ledger_in(folder), note, manners=manners)


def test_an_order_is_placed_and_fetched_once(tmp_path, planet):
    ids = planet.add_many(3)
    place(planet, tmp_path, ids)
    received = bring(planet, tmp_path)
    assert received.faults == received.missing == []
    assert received.files == 12
    before = len(planet.log)
    place(planet, tmp_path, ids)
    bring(planet, tmp_path)
    assert len(planet.log) == before
    assert len(planet.charged["items"]) == 3
