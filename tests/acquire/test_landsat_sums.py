"""Landsat trends: sums in any order and partition, against plain oracles and the real cut-outs of the Lena Delta."""

import re
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import theilslopes

from conftest import real_data
from thawmap.acquire import trends
from thawmap.acquire.trends import DatedValues, TrendSums, day_of, is_clear, rows_at_once, tasselled_cap, usable
from thawmap.errors import ConfigError

RULES = {"min_observations": 5, "min_span_years": 5.0}
CRIST = np.array(
    [
        [0.2043, 0.4158, 0.5524, 0.5741, 0.3124, 0.2303],
        [-0.1603, -0.2819, -0.4934, 0.7940, -0.0002, -0.1446],
        [0.0315, 0.2021, 0.3102, 0.1594, -0.6806, -0.6109],
    ]
)


def observations(seed=0, dates=40, shape=(7, 9), clear=0.6):
    """Days, indices (date, index, y, x) and where they are valid (date, y, x)."""
    random = np.random.default_rng(seed)
    days = random.integers(0, 7300, dates)
    values = random.normal(0.2, 0.05, (dates, 3, *shape)).astype(np.float32)
    return days, values + (days[:, None, None, None] * 1e-5).astype(np.float32), random.random((dates, *shape)) < clear


def summed(days, values, valid, order=None):
    sums = TrendSums.empty(valid.shape[1:])
    for number in range(len(days)) if order is None else order:
        sums.add(int(days[number]), values[number], valid[number])
    return sums


def test_slopes_are_those_of_a_line_fitted_to_each_pixel():
    days, values, valid = observations()
    slopes = summed(days, values, valid).slopes(**RULES)
    for index, row, col in np.ndindex(slopes.shape):
        seen = valid[:, row, col]
        line = np.polyfit(days[seen] / 3650, values[seen, index, row, col].astype(float), 1)
        assert slopes[index, row, col] == pytest.approx(line[0], abs=2e-6)


@given(st.integers(0, 10_000), st.integers(1, 38))
def test_sums_are_the_same_to_the_last_bit_in_any_order_and_partition(seed, split):
    days, values, valid = observations(seed)
    whole = summed(days, values, valid)
    order = np.random.default_rng(seed).permutation(len(days))
    first, second = summed(days, values, valid, order[:split]), summed(days, values, valid, order[split:])
    first.merge(second)
    pieces = TrendSums.empty(valid.shape[1:])
    for number in order:
        for row in (0, 5):
            rows = slice(row, row + 5)
            pieces.add(int(days[number]), values[number, :, rows], valid[number, rows], row=row)
    for name, array in whole.arrays().items():
        assert (first.arrays()[name] == array).all(), name
        assert (pieces.arrays()[name] == array).all(), name


def test_medians_of_slopes_are_those_of_scipy():
    days, values, valid = observations(3, dates=15, shape=(4, 5))
    days[3] = days[4]
    stack = DatedValues.empty((4, 5), 15)
    for number in reversed(range(15)):
        stack.add(int(days[number]), values[number], valid[number])
    slopes = stack.slopes(min_observations=5, min_span_years=1)
    assert np.isfinite(slopes).any()
    assert (stack.number == valid.sum(axis=0)).all()
    for index, row, col in np.ndindex(slopes.shape):
        seen = valid[:, row, col]
        if seen.sum() < 5:
            assert np.isnan(slopes[index, row, col])
            continue
        slope = theilslopes(values[seen, index, row, col], days[seen])[0]
        assert slopes[index, row, col] == pytest.approx(slope * 3650, abs=1e-5)


@pytest.mark.parametrize("kind", ["least-squares", "theil-sen"])
def test_pixels_with_few_dates_or_a_short_time_have_no_trend(kind):
    shape = (1, 4)
    held = TrendSums.empty(shape) if kind == "least-squares" else DatedValues.empty(shape, 20)
    values = np.full((3, *shape), 0.3, np.float32)
    for number in range(8):
        day = 400 * number
        valid = np.array([[True, number < 4, day < 1700, False]])
        held.add(day, values, valid)
    slopes = held.slopes(**RULES)
    assert np.isnan(slopes[:, 0]).tolist() == [[False, True, True, True]] * 3
    assert (slopes[:, 0, 0] == 0).all()
    assert held.number.tolist() == [[8, 4, 5, 0]]
    again = TrendSums.empty(shape)
    for _ in range(9):
        again.add(100, values, np.ones(shape, bool))
    assert np.isnan(again.slopes(min_observations=2, min_span_years=0)).all(), "all of one day: no slope"


def test_an_area_without_a_clear_pixel_has_no_number_at_all():
    sums = TrendSums.empty((3, 3))
    assert np.isnan(sums.slopes(min_observations=2, min_span_years=0)).all()
    stack = DatedValues.empty((3, 3), 4)
    assert np.isnan(stack.slopes(min_observations=2, min_span_years=0)).all()


def test_indices_are_those_of_crist_with_and_without_roys_lines():
    numbers = np.random.default_rng(1).integers(7273, 43636, (6, 5, 4)).astype(np.uint16)
    reflectance = numbers * 0.0000275 - 0.2
    slopes = np.array([0.9785, 0.9542, 0.9825, 1.0073, 1.0171, 0.9949])
    intercepts = np.array([-0.0095, -0.0016, -0.0022, -0.0021, -0.0030, 0.0029])
    as_etm = (reflectance - intercepts[:, None, None]) / slopes[:, None, None]
    for sensor, harmonise, expected in (
        ("oli", "roy2016", as_etm),
        ("oli", "none", reflectance),
        ("etm", "roy2016", reflectance),
        ("tm", "roy2016", reflectance),
    ):
        indices = tasselled_cap(numbers, sensor, harmonise=harmonise)
        assert np.allclose(indices, np.tensordot(CRIST, expected, 1), atol=1e-6)
        part = tasselled_cap(numbers[:, 2:3, 1:3], sensor, harmonise=harmonise)
        assert (part == indices[:, 2:3, 1:3]).all(), "the same bits whatever is computed with them"


@pytest.mark.parametrize(
    ("bit", "sensor", "dilated", "clear"),
    [
        (0, "tm", True, False),
        (1, "tm", True, False),
        (1, "tm", False, True),
        (2, "oli", True, False),
        (2, "etm", True, True),
        (3, "oli", True, False),
        (4, "oli", True, False),
        (5, "oli", True, False),
        (6, "oli", True, True),
        (7, "oli", True, True),
        (10, "oli", True, True),
        (15, "oli", True, True),
    ],
)
def test_bits_of_collection_2_hide_pixels(bit, sensor, dilated, clear):
    quality = np.array([[1 << bit]], np.uint16)
    assert is_clear(quality, sensor, dilated_cloud=dilated).tolist() == [[clear]]


def test_a_saturated_or_missing_band_hides_a_pixel():
    numbers = np.full((6, 1, 3), 10_000, np.uint16)
    numbers[4, 0, 1] = 0
    quality, saturation = np.full((1, 3), 21824, np.uint16), np.array([[0, 0, 4]], np.uint16)
    assert usable(numbers, quality, saturation, "etm").tolist() == [[True, False, False]]


def test_days_count_in_utc():
    assert day_of(datetime(2000, 1, 1, 23, 59, tzinfo=UTC)) == 0
    assert day_of(datetime.fromisoformat("2001-01-01T02:00:00+03:00")) == 365


def test_theil_sen_says_what_memory_it_needs_and_is_refused_when_it_is_too_much():
    with pytest.raises(ConfigError, match=r"keeps 300 dates, 3600 bytes a pixel.*0\.26 GB of the 0\.1 GB"):
        rows_at_once(3334, dates=300, method="theil-sen", readers=8, memory=1e8)
    assert rows_at_once(3334, dates=300, method="theil-sen", readers=8, memory=1e9) >= 20
    assert rows_at_once(3334, dates=300, method="least-squares", readers=8, memory=1e9) > 800


def lena():
    """Days, sensors and stored numbers of the real cut-outs, reflectance x 10000."""
    for path in sorted((real_data() / "landsat-lena").glob("*.tif")):
        match = re.match(r"L[CET]0\d{7}(\d{8})|L[CET]\d{7}(\d{7})", path.name)
        form = "%Y%m%d" if match[1] else "%Y%j"
        time = datetime.strptime(match[1] or match[2], form).replace(tzinfo=UTC)
        with rasterio.open(path) as file:
            yield day_of(time), {"C": "oli", "E": "etm", "T": "tm"}[path.name[1]], file.read()


REFERENCE = np.array([[0.0074, 0.0227, 0.0526], [-0.0002, 0.0084, 0.0143], [-0.0332, -0.0115, -0.0004]])
HARMONISED = REFERENCE + np.array([[0.0021], [-0.0018], [0.0017]])


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("harmonise", "expected", "within"),
    [("none", REFERENCE, 0.0002), ("roy2016", HARMONISED, 0.0006)],
)
def test_trends_of_the_lena_delta_are_those_of_the_reference(harmonise, expected, within):
    sums = TrendSums.empty((20, 20))
    scenes = list(lena())
    for day, sensor, numbers in scenes:
        values = tasselled_cap(numbers, sensor, harmonise=harmonise, scale=1e-4, offset=0)
        sums.add(day, values, (numbers != 0).all(axis=0))
    slopes = sums.slopes(**RULES)
    assert len(scenes) == 79
    assert pytest.approx(expected, abs=within) == np.nanpercentile(slopes, [5, 50, 95], axis=(1, 2)).T


def test_constants_fit_each_other():
    assert len(trends.BANDS) == CRIST.shape[1]
    per_pixel = sum(array.nbytes for array in TrendSums.empty((10, 10)).arrays().values()) / 100
    assert per_pixel == trends.BYTES_OF_SUMS
