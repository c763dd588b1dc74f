"""Layers: names, ranges, and storage codes that can hold them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thawmap.errors import ConfigError
from thawmap.layers import CODES, LAYERS, PAPER_LAYERS, Layer, layer

NAMES = st.sampled_from(sorted(LAYERS))
ENDS = st.tuples(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4)).map(lambda ends: (ends[0], ends[0] + ends[1]))


def holds(found: Layer) -> bool:
    """Whether every value of the network range has a storage code (but for the rounding of one code)."""
    slack = found.code_step
    return found.code_low <= found.low + slack and found.high <= found.code_low + CODES * found.code_step + slack


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_every_known_layer_is_called_by_its_name_and_fits_its_codes(name):
    found = LAYERS[name]
    assert found.name == name
    assert holds(found)
    assert found.units


def test_the_papers_input_is_four_bands_ndvi_two_of_terrain_and_three_trends():
    assert len(PAPER_LAYERS) == len(set(PAPER_LAYERS)) == 10
    assert sum(LAYERS[name].optical for name in PAPER_LAYERS) == 4
    assert not any(LAYERS[name].directional for name in PAPER_LAYERS)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("blue", -0.1, 0.5),
        ("ndvi", -1, 1),
        ("relative_elevation", -50, 50),
        ("slope", 0, 90),
        ("tc_wetness", -0.12, 0.12),
    ],
)
def test_network_ranges_are_those_of_the_design(name, low, high):
    assert (LAYERS[name].low, LAYERS[name].high) == (low, high)


def test_storage_is_finer_than_a_sensors_number():
    """A reflectance is stored by sensors in 1/10000, relative elevation here in centimetres."""
    assert LAYERS["nir"].code_step < 1e-4
    assert LAYERS["relative_elevation"].code_step <= 0.01


@given(name=NAMES, ends=ENDS, clip=st.booleans())
def test_a_known_layer_takes_any_range_and_can_store_it(name, ends, clip):
    found = layer(name, low=ends[0], high=ends[1], clip=clip)
    assert (found.low, found.high, found.clip) == (*ends, clip)
    assert (found.units, found.optical) == (LAYERS[name].units, LAYERS[name].optical)
    assert holds(found)


@given(name=NAMES)
def test_a_range_that_fits_keeps_the_codes(name):
    known = LAYERS[name]
    assert layer(name) == known
    middle = (known.low + known.high) / 2
    assert layer(name, low=middle).code_step == known.code_step


@given(ends=ENDS)
def test_a_layer_of_ones_own_needs_both_ends(ends):
    low, high = ends
    assert holds(layer("coherence", low=low, high=high))
    for half in ({"low": low}, {"high": high}, {}):
        with pytest.raises(ConfigError, match="coherence"):
            layer("coherence", **half)


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'relative_elevation'"):
        layer("relativ_elevation")
    with pytest.raises(ConfigError, match="known: blue, green"):
        layer("???")


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.nan)])
def test_an_empty_range_is_refused(low, high):
    with pytest.raises(ConfigError, match="'low' must be below 'high'"):
        layer("slope", low=low, high=high)
