"""Choosing and the plan of many sites: seconds, against shapely's intersections of the same shapes alone.

python benchmarks/acquire_choosing.py [sites] [years] [scenes of a site and year] [repeats]

Offers are PlanetScope-like: 10 x 10 km areas around 70 N, strips of one to five frames of 32 x 20 km that overlap by a
tenth, at any place and turn over the area, two dates in three cloudy. The lower bound is what cannot be saved: what
each scene shows of its area, intersected and projected to an equal-area grid by shapely and pyproj in one call.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import shapely
from shapely.affinity import rotate, translate
from shapely.geometry.base import BaseGeometry

from thawmap.acquire.areas import Area, equal_area
from thawmap.acquire.choosing import choose
from thawmap.acquire.offers import Offer
from thawmap.acquire.plan import make_plan, read_plan, write_plan
from thawmap.config import PlanetImagery

KM = 1 / 111.2  # degrees of latitude


def site(rng: np.random.Generator, number: int) -> Area:
    """An area of 10 x 10 km."""
    lon, lat = rng.uniform(-170, 170), rng.uniform(66, 75)
    half = 5 * KM
    wide = half / np.cos(np.radians(lat))
    return Area(f"site{number:03d}", shapely.box(lon - wide, lat - half, lon + wide, lat + half))


def strip(rng: np.random.Generator, area: Area, number: int, frames: int, start: datetime) -> list[Offer]:
    """The scenes of one pass over an area."""
    middle = area.outline.centroid
    squeeze = 1 / np.cos(np.radians(middle.y))
    at = rng.normal(0, 7, 2)
    angle, clear = rng.uniform(-25, 25), float(rng.choice([rng.beta(1, 2), rng.beta(30, 1)], p=[0.66, 0.34]))
    offers = []
    for frame in range(frames):
        box = shapely.box(-16, -10, 16, 10)
        shape = rotate(translate(box, 0, 18 * (frame - (frames - 1) / 2)), angle, origin=(0, 0))
        outline: BaseGeometry = shapely.transform(
            translate(shape, *at), lambda km: km * [KM * squeeze, KM] + [middle.x, middle.y]
        )
        acquired = start + timedelta(seconds=2 * frame)
        offers.append(
            Offer(
                id=f"{acquired:%Y%m%d_%H%M%S}_{number:05d}",
                catalogue="planet",
                collection="PSScene",
                acquired=acquired,
                outline=outline,
                clear=round(min(max(clear + rng.normal(0, 0.02), 0), 1), 2),
                clear_source="clear_percent",
                pass_id=f"{area.name}-{number}",
                satellite=f"{number % 150:04x}",
                updated=acquired + timedelta(hours=6),
                is_paid=True,
                item={"id": f"{number}", "item_type": "PSScene"},
            )
        )
    return offers


def make(sites: int, years: int, scenes: int) -> tuple[list[Area], dict[str, list[Offer]]]:
    """Areas, and offers by their names."""
    rng = np.random.default_rng(0)
    areas, offers = [site(rng, number) for number in range(sites)], {}
    for area in areas:
        found: list[Offer] = []
        for year in range(2018, 2018 + years):
            until = len(found) + scenes
            while len(found) < until:
                start = datetime(year, 6, 1, tzinfo=UTC) + timedelta(days=float(rng.uniform(0, 122)))
                frames = min(int(rng.integers(1, 6)), until - len(found))
                found += strip(rng, area, len(found), frames, start)
        offers[area.name] = found
    return areas, offers


def seconds(run: Callable[[], object], repeats: int) -> float:
    """The median time of some runs."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def intersections(areas: list[Area], offers: dict[str, list[Offer]]) -> None:
    """The area of what each scene shows, and nothing else."""
    pairs = [(offer.outline, area.outline) for area in areas for offer in offers[area.name]]
    outlines, wholes = np.array(pairs, object).T
    shapely.area(equal_area(shapely.intersection(outlines, wholes)))


def main(sites: int = 50, years: int = 5, scenes: int = 80, repeats: int = 3) -> None:
    """Print the times."""
    areas, offers = make(sites, years, scenes)
    rules = PlanetImagery(provider="planet")
    choice = choose(offers, areas, rules, quota_km2=1e5)
    bound = seconds(lambda: intersections(areas, offers), repeats)
    chosen = seconds(lambda: choose(offers, areas, rules, quota_km2=1e5), repeats)
    print(f"{len(choice.items)} offers, {len(choice.dates)} dates, {sum(date.chosen for date in choice.dates)} chosen")
    print(f"choose      {chosen:7.2f} s  {chosen / bound:6.1f} times the intersections alone ({bound:.2f} s)")
    plan = make_plan(areas, choice, rules=rules.model_dump(mode="json"), quota_km2=1e5)
    with tempfile.TemporaryDirectory() as folder:
        print(f"write plan  {seconds(lambda: write_plan(Path(folder), plan), repeats):7.2f} s")
        print(f"read plan   {seconds(lambda: read_plan(Path(folder)), repeats):7.2f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
