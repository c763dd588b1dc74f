"""Choosing of scenes: rules, dates, covers, thinning, the quota; laws on generated offers."""

from datetime import UTC, datetime, timedelta

import shapely

from thawmap.acquire.areas import Area
from thawmap.acquire.choosing import choose
from thawmap.acquire.offers import Offer
from thawmap.config import StacImagery

NOON = datetime(2019, 7, 1, 21, 0, tzinfo=UTC)
AREA = Area("herschel", shapely.box(-139.0, 69.5, -138.75, 69.6))


def offer(name, *, day=0, second=0, outline=None, clear=1.0, **values):
    given = {"catalogue": "planet", "collection": "PSScene", "clear_source": "clear_percent", "is_paid": True}
    given |= {"acquired": NOON + timedelta(days=day, seconds=second), "pass_id": f"strip-{day}"}
    return Offer(id=name, outline=AREA.outline if outline is None else outline, clear=clear, **(given | values))


def rules(**values):
    return StacImagery(provider="stac", **values)


def test_clear_dates_are_taken_and_cloudy_ones_are_not():
    choice = choose({"herschel": [offer("clear"), offer("cloudy", day=9, clear=0.5)]}, [AREA], rules())
    assert [(item.offer.id, item.chosen, item.reason) for item in choice.items] == [
        ("clear", True, ""),
        ("cloudy", False, "date too cloudy (0.500 of what it shows, most 0.1)"),
    ]
