"""The page of a plan: whole, balanced, with its numbers, and from any plan."""

from datetime import UTC, datetime, timedelta

import pytest
import shapely
from offering import AREA, NOON, cell_box, offer, rules
from pages import Page
from shapely.affinity import translate

from thawmap.acquire.areas import Area
from thawmap.acquire.choosing import choose
from thawmap.acquire.plan import make_plan
from thawmap.report.acquisition.page import PlanPage, summary, write

MADE = datetime(2026, 12, 1, tzinfo=UTC)
EAST = Area("<komakuk>", translate(AREA.outline, 3, 0))


def page_of(areas, offers, **values):
    plan = make_plan(areas, choose(offers, areas, rules(), quota_km2=values.get("quota_km2")))
    layers = plan.layers
    return PlanPage(
        title="Yukon coast",
        areas=layers.areas,
        dates=layers.dates,
        items=layers.items,
        costs=plan.costs(),
        left_out=plan.left_out(),
        **values,
    )


def season(area, *, years=(2018, 2019)):
    return [
        offer(
            f"{year}-{day}",
            acquired=NOON.replace(year=year) + timedelta(days=day),
            pass_id="",
            outline=translate(cell_box(-3, -3, 12 - day % 3, 12), area.outline.bounds[0] - AREA.outline.bounds[0]),
            clear=(day * 37 % 100) / 100,
        )
        for year in years
        for day in range(0, 90, 3)
    ]


@pytest.fixture(scope="module")
def page():
    areas = [AREA, EAST]
    return page_of(areas, {area.name: season(area) for area in areas}, quota_km2=500.0, rules={"cloud": 0.1})


def read(folder, page):
    path = write(folder, page, made=MADE)
    html = path.read_text(encoding="utf-8")
    parsed = Page()
    parsed.feed(html)
    assert parsed.open == []
    return html, parsed


def test_the_page_has_costs_figures_and_reasons(tmp_path, page):
    html, parsed = read(tmp_path, page)
    images = [tag for tag, _ in parsed.tags if tag == "img"]
    assert len(images) == 2
    assert "&lt;komakuk&gt;" in html
    assert "<komakuk>" not in html
    for reason, number in page.left_out.items():
        assert f"{reason}</th><td>{number}</td>" in html
    assert f"{sum(row['km2'] for row in page.costs):.1f}" in html
    assert all("http" not in str(attributes.get("src", "")) for _, attributes in parsed.tags)


def test_sentences_say_what_it_costs_and_what_the_quota_leaves_out(page):
    first, second, *_ = summary(page)
    scenes = int(page.items["take"].sum())
    assert first.startswith(f"{scenes} scenes of {sum(row['dates'] for row in page.costs)} dates for 2 sites")
    assert "The quota is 500.0 km2" in second
    assert "are left out" in second


def test_a_plan_of_nothing_has_a_page(tmp_path):
    html, parsed = read(tmp_path, page_of([AREA], {}))
    assert "0 scenes of 0 dates for 1 site would be fetched, which costs no quota." in html
    assert "Nothing is taken of herschel" in html
    assert [tag for tag, _ in parsed.tags].count("img") == 1


def test_many_sites_have_several_calendars(tmp_path):
    areas = [Area(f"site{n:02d}", translate(AREA.outline, n, 0)) for n in range(21)]
    offers = {
        area.name: [offer(f"{year}", outline=area.outline, acquired=NOON.replace(year=year)) for year in (2018, 2019)]
        for area in areas
    }
    _, parsed = read(tmp_path, page_of(areas, offers))
    assert [tag for tag, _ in parsed.tags].count("img") == 3


def test_an_area_across_the_antimeridian_and_unknown_clouds_are_drawn(tmp_path):
    cut = shapely.union_all([shapely.box(179.9, 69.95, 180, 70.04), shapely.box(-180, 69.95, -179.9, 70.04)])
    area = Area("wrangel", cut)
    offers = {"wrangel": [offer("a", outline=cut), offer("b", day=9, outline=cut, clear=None)]}
    html, _ = read(tmp_path, page_of([area], offers))
    assert "clear fraction unknown" in html


def test_a_page_is_replaced_by_the_next(tmp_path, page):
    first = write(tmp_path, page, made=MADE).read_text()
    second = write(tmp_path, page_of([AREA], {}), made=MADE).read_text()
    assert second != first
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["plan.html"]
