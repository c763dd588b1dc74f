"""A plan's files: there and back, edited by people, edited into nonsense."""

from test_choosing import AREA, offer, rules

from thawmap.acquire.choosing import choose
from thawmap.acquire.plan import make_plan, read_plan, write_plan


def a_plan(**values):
    offers = [
        offer("a", clear=0.99, item={"id": "a"}),
        offer("b", day=9, clear=0.97, item={"id": "b"}),
        offer("cloudy", day=20, clear=0.5),
    ]
    choice = choose({"herschel": offers}, [AREA], rules())
    return make_plan([AREA], choice, rules={"cloud": 0.1}, settings={"provider": "planet"}, **values)


def test_a_plan_comes_back_as_it_was_written(tmp_path):
    plan = a_plan(elevation=({"id": "44_74"},), quota_km2=500.0)
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan
