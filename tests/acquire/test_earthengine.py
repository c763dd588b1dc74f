"""Published trends: gaps stay gaps, requests stay small, nobody is asked to log in. Nothing goes to Earth Engine."""

import numpy as np
import pytest
import rasterio
import shapely
from odc.geo.geobox import GeoBox

from thawmap.acquire import earthengine
from thawmap.acquire.areas import Area
from thawmap.acquire.ledger import Ledger
from thawmap.config.acquire import EarthEngineTrends
from thawmap.errors import ConfigError, DataError

PLACE = Area("peel", shapely.box(-136.1, 67.0, -136.05, 67.02))
SETTINGS = EarthEngineTrends(kind="earthengine", project="mine")


def bytes_of(grid, *, there=True):
    content = np.full((4, *grid.shape), 255, np.uint8)
    content[0], content[3] = 0, 1
    content[:, : grid.height // 2] = 0
    return content if there else np.zeros_like(content)


def test_gaps_are_missing_and_no_trend(tmp_path):
    ledger = Ledger.open(tmp_path / "ledger.jsonl")
    path = earthengine.fetch(SETTINGS, PLACE, tmp_path, ledger, pixels=bytes_of)
    with rasterio.open(path) as file:
        values = file.read()
    half = values.shape[1] // 2
    assert np.isnan(values[:, :half]).all()
    assert np.allclose(values[0, half:], -0.12)
    assert np.allclose(values[1:, half:], 0.12)
    assert earthengine.fetch(SETTINGS, PLACE, tmp_path, ledger, pixels=pytest.fail) is None, "nothing is asked again"


def test_an_area_without_trends_makes_no_file(tmp_path):
    ledger = Ledger.open(tmp_path / "ledger.jsonl")
    with pytest.raises(DataError, match="has no trends for peel"):
        earthengine.fetch(SETTINGS, PLACE, tmp_path, ledger, pixels=lambda grid: bytes_of(grid, there=False))
    assert not (tmp_path / "trends" / "peel.tif").exists()


def test_requests_cover_a_grid_once_and_stay_small():
    grid = GeoBox.from_bbox((0, 0, 30_000, 21_000), crs="EPSG:32608", resolution=30, tight=True)
    seen = np.zeros(grid.shape, int)
    for window in earthengine.requests(grid, most_bytes=300_000):
        seen[window.rows, window.cols] += 1
        assert 4 * window.size <= 300_000
    assert (seen == 1).all()


def test_without_a_login_it_says_what_to_do_and_opens_nothing(tmp_path, monkeypatch):
    pytest.importorskip("ee", reason="the extra earthengine is not installed")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        earthengine.fetch(SETTINGS, PLACE, tmp_path, Ledger.open(tmp_path / "ledger.jsonl"))
