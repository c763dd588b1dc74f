"""The section acquire: what it refuses, and the inputs that it brings."""

from datetime import date
from pathlib import Path

import pytest

from thawmap.config import parse
from thawmap.errors import ConfigError

BOX = "[-139, 69.5, -138.6, 69.6]"


def acquired(more="", area=BOX, years="[2019]", imagery="{provider: stac}"):
    text = f"acquire: {{area: {area}, years: {years}, imagery: {imagery}{more}}}\nlayers: [red, nir]\n"
    return parse(text, name="x.yaml", folder=Path("/home-of-yaml"))


def test_what_is_fetched_is_read_without_another_line():
    config = acquired(", elevation: {resolution_m: 10}, trends: {}")
    assert config.scenes.kind == "sentinel2"
    assert config.scenes.path == Path("/home-of-yaml/data/scenes")
    assert config.scenes.region == "{folder}"
    assert config.sources.elevation.path == Path("/home-of-yaml/data/elevation")
    assert config.sources.trends.path == Path("/home-of-yaml/data/trends")
    planet = acquired(imagery="{provider: planet, bundle: analytic_8b_udm2}", more=", folder: /elsewhere")
    assert planet.scenes.kind == "planetscope"
    assert planet.scenes.top_of_atmosphere
    assert planet.scenes.path == Path("/elsewhere/scenes")


def test_scenes_and_sources_of_the_yaml_go_before_what_is_fetched():
    text = (
        f"acquire: {{area: {BOX}, years: [2019], imagery: {{provider: stac}}, elevation: {{}}}}\n"
        "scenes: {kind: planetscope, path: mine}\nsources: {trends: {path: tcvis}}\nlayers: [red, nir]\n"
    )
    config = parse(text, name="x.yaml", folder=Path("/p"))
    assert config.scenes.path == Path("/p/mine")
    assert config.sources.elevation is None


def test_a_season_is_cut_out_of_every_year_and_leap_days_exist_only_where_they_do():
    config = acquired(', season: ["02-01", "02-29"]', years="[2020, 2019, 2019]")
    assert config.acquire.seasons() == (
        (date(2019, 2, 1), date(2019, 2, 28)),
        (date(2020, 2, 1), date(2020, 2, 29)),
    )


def test_an_acquisition_of_nothing_is_refused():
    text = f"acquire: {{area: {BOX}, years: [2019]}}\nscenes: {{kind: planetscope, path: mine}}\n"
    with pytest.raises(ConfigError, match="nothing is asked for"):
        parse(text, name="x.yaml", folder=Path("/p"))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"more": ', season: ["09-30", "06-01"]'}, "season ends .06-01. before it begins .09-30."),
        ({"more": ', season: ["06-31", "09-30"]'}, "'06-31' is no day of a year"),
        ({"more": ', season: ["June", "09-30"]'}, "'June' is no day of a year"),
        ({"area": "[1, 70, 1, 71]"}, "area is no box"),
        ({"area": "[1, 71, 2, 70]"}, "area is no box"),
        ({"area": "[1, 70, 2, 91]"}, "area is no box"),
        ({"years": "[]"}, "years"),
        ({"years": "[1066]"}, "years"),
        ({"imagery": "{provider: google}"}, "provider"),
        ({"imagery": "{provider: stac, cloudy: 0.1}"}, "did you mean 'cloud'"),
        ({"imagery": "{provider: planet, order_size: 501}"}, "order_size"),
        ({"imagery": "{provider: planet, quota_km2: -1}"}, "quota_km2"),
        ({"imagery": "{provider: planet, bundle: visual}"}, "bundle"),
        ({"more": ", trends: {years: [2019, 2000]}"}, "years are 2019 to 2000"),
        ({"more": ", trends: {kind: modis}"}, "trends"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_line(words, error):
    with pytest.raises(ConfigError, match=error) as refused:
        acquired(**words)
    assert "x.yaml" in str(refused.value)
