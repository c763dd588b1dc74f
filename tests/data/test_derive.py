"""Derived layers: NDVI against its formula, and order and halo from the needs alone."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thawmap.data import derive
from thawmap.data.derive import RECIPES, Recipe, halo, normalised_difference, plan_layers
from thawmap.errors import DataError
from thawmap.layers import LAYERS

reflectances = hnp.arrays(
    np.float32, (3, 4), elements=st.floats(-0.5, 2, width=32) | st.sampled_from([0, np.float32(np.nan)])
)


def quiet(first, second):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return normalised_difference(first, second)


@given(nir=reflectances, red=reflectances)
def test_ndvi_is_the_formula_within_its_bounds_and_missing_where_it_has_no_value(nir, red):
    got = quiet(nir, red)
    for a, b, value in zip(nir.ravel().tolist(), red.ravel().tolist(), got.ravel().tolist(), strict=True):
        a, b = max(a, 0) if a == a else a, max(b, 0) if b == b else b  # noqa: PLR0124, PLW2901 - missing stays
        if a + b > 0:
            assert value == pytest.approx((a - b) / (a + b), abs=1e-6)
            assert -1 <= value <= 1
        else:
            assert np.isnan(value)


@given(nir=reflectances, red=reflectances)
def test_swapped_bands_turn_the_sign_and_brightness_does_not_matter(nir, red):
    np.testing.assert_array_equal(quiet(nir, red), -quiet(red, nir))
    np.testing.assert_array_equal(quiet(nir * 4, red * 4), quiet(nir, red))


@given(nir=reflectances, red=reflectances)
def test_tensors_give_what_arrays_give(nir, red):
    tensors = normalised_difference(torch.from_numpy(nir), torch.from_numpy(red))
    np.testing.assert_allclose(tensors.numpy(), quiet(nir, red), rtol=1e-6)


def test_every_recipe_makes_a_layer_with_known_units():
    assert set(RECIPES) <= set(LAYERS)
    assert RECIPES["ndvi"].needs == ("nir", "red")
    assert RECIPES["ndwi"].needs == ("green", "nir")


CHAIN = {
    "a": Recipe(needs=("red",), function=np.negative, halo=2),
    "b": Recipe(needs=("a", "nir"), function=np.add, halo=3),
    "c": Recipe(needs=("b", "a"), function=np.add, halo=1),
    "d": Recipe(needs=("red",), function=np.negative, halo=4),
}


@given(layers=st.permutations(["a", "b", "c", "d", "nir", "red"]), count=st.integers(1, 6))
def test_needs_come_before_what_is_made_from_them_whatever_was_asked_first(layers, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(derive, "RECIPES", CHAIN)
        reads, makes = plan_layers(layers[:count], available=frozenset({"red", "nir", "blue"}))
    assert set(layers[:count]) <= {*reads, *makes}
    assert set(reads) <= {"red", "nir"}
    assert len({*reads, *makes}) == len(reads) + len(makes)
    for position, name in enumerate(makes):
        assert set(CHAIN[name].needs) <= {*reads, *makes[:position]}


def test_halos_add_along_the_chain_and_not_across_it(monkeypatch):
    monkeypatch.setattr(derive, "RECIPES", CHAIN)
    available = frozenset({"red", "nir"})
    reach = {name: halo(plan_layers([name], available=available)[1]) for name in ("red", "a", "b", "c", "d")}
    assert reach == {"red": 0, "a": 2, "b": 5, "c": 6, "d": 4}
    assert halo(plan_layers(["a", "d"], available=available)[1]) == 4


def test_a_layer_that_a_source_has_is_read_not_made(monkeypatch):
    monkeypatch.setattr(derive, "RECIPES", CHAIN)
    assert plan_layers(["c"], available=frozenset({"b", "a", "red"})) == (["b", "a"], ["c"])
    assert plan_layers(["ndvi"], available=frozenset({"ndvi"})) == (["ndvi"], [])


def test_a_layer_that_nobody_has_is_refused_with_what_there_is():
    with pytest.raises(
        DataError, match=r"'slope' is in no source and no recipe makes it; sources have nir, red, .*ndvi"
    ):
        plan_layers(["ndvi", "slope"], available=frozenset({"nir", "red"}))
    with pytest.raises(DataError, match="'nir'"):
        plan_layers(["ndvi"], available=frozenset({"red"}))
