"""Offers of scenes for tests of acquisition: boxes over a 10 x 10 km area at 70 N."""

from datetime import UTC, datetime, timedelta

import numpy as np
import shapely
from hypothesis import strategies as st

from thawmap.acquire.areas import Area
from thawmap.acquire.offers import Offer
from thawmap.config import StacImagery

NOON = datetime(2019, 7, 1, 21, 0, tzinfo=UTC)
WEST, SOUTH, WIDE, HIGH = -139.0, 69.95, 0.262, 0.0896  # 10 x 10 km


def cell_box(left, lower, right, upper, *, west=WEST):
    """A box in tenths of the area, which may go on beyond it."""
    xs, ys = np.array([left, right]) / 10, np.array([lower, upper]) / 10
    return shapely.box(west + WIDE * xs[0], SOUTH + HIGH * ys[0], west + WIDE * xs[1], SOUTH + HIGH * ys[1])


AREA = Area("herschel", cell_box(0, 0, 10, 10))


def offer(name, *, day=0, second=0, outline=None, clear=1.0, **values):
    given = {"catalogue": "planet", "collection": "PSScene", "clear_source": "clear_percent", "is_paid": True}
    given |= {"acquired": NOON + timedelta(days=day, seconds=second), "pass_id": f"strip-{day}", "clear": clear}
    return Offer(**(given | {"id": name, "outline": AREA.outline if outline is None else outline} | values))


def rules(**values):
    return StacImagery(provider="stac", **values)


@st.composite
def boxes(draw, *, west=WEST):
    left, lower = draw(st.integers(-6, 8)), draw(st.integers(-6, 8))
    right, upper = left + draw(st.integers(2, 16)), lower + draw(st.integers(2, 16))
    return cell_box(left, lower, right, upper, west=west)


@st.composite
def many_offers(draw, *, most=14):
    """Offers of two catalogues in one season, several a day, in any order."""
    names = st.sampled_from("abcdef")
    found = []
    for number in range(draw(st.integers(0, most))):
        day = draw(st.integers(0, 12))
        values = {
            "catalogue": draw(st.sampled_from(["first", "second"])),
            "pass_id": draw(st.sampled_from(["", f"strip-{day}"])),
            "satellite": draw(st.sampled_from(["", "1a", "1b"])),
            "ground_id": draw(st.sampled_from(["", f"{day}-1", f"{day}-2"])),
            "processing": draw(names),
            "is_owned": draw(st.booleans()),
            "is_paid": draw(st.booleans()),
            "is_clipped": draw(st.booleans()),
            "is_standard": draw(st.booleans()),
            "updated": draw(st.sampled_from([None, NOON, NOON + timedelta(days=30)])),
            "fault": draw(st.sampled_from(["", "", "", "no access"])),
        }
        clear = draw(st.sampled_from([None, 0.5, 0.88, 0.95, 1.0]))
        seconds = draw(st.sampled_from([0, 2, 59, 61, 3600]))
        found.append(offer(f"{number:02d}", day=day, second=seconds, outline=draw(boxes()), clear=clear, **values))
    return found
