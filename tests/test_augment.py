"""Augmentation: everything moves together and exactly, and missing stays missing (law 5)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from thawmap.config import AugmentSettings
from thawmap.errors import ConfigError
from thawmap.layers import layer
from thawmap.train.augment import BLUR_PX, augment, blur, check
from thawmap.train.tiles import Batch

torch.set_num_threads(1)


def numbered(number=8, side=6):
    """Tiles in which every pixel knows its place, in image, target and valid alike."""
    place = torch.arange(side * side).view(1, side, side).expand(number, -1, -1)
    image = torch.stack([place.float(), place.float() * 10], dim=1)
    return Batch(image=image, target=(place % 251).to(torch.uint8), valid=place % 3 == 0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@given(seed=st.integers(0, 2**31), flip=st.floats(0, 1), rotate90=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_image_target_and_valid_move_together_by_one_of_eight_exact_moves(seed, flip, rotate90):
    batch = numbered()
    moved = augment(batch, AugmentSettings(flip=flip, rotate90=rotate90, blur=0), seeded(seed))
    assert torch.equal(moved.image[:, 1], moved.image[:, 0] * 10)
    assert torch.equal(moved.target, (moved.image[:, 0] % 251).to(torch.uint8))
    assert torch.equal(moved.valid, moved.image[:, 0] % 3 == 0)
    plain = batch.image[0, 0]
    allowed = [torch.rot90(side, k, (0, 1)) for side in (plain, plain.flip(0)) for k in range(4)]
    assert all(any(torch.equal(one[0], other) for other in allowed) for one in moved.image)


def test_each_change_comes_as_often_as_is_set_and_every_tile_alone():
    settings_ = AugmentSettings(flip=0.25, rotate90=0.0, blur=0.0)
    moved = augment(numbered(4000), settings_, seeded()).image[:, 0, 0, 0]
    shares = [(moved == corner).float().mean().item() for corner in (0, 5, 30, 35)]
    assert shares == pytest.approx([0.75**2, 0.25 * 0.75, 0.25 * 0.75, 0.25**2], abs=0.03)
    turned = augment(numbered(4000), AugmentSettings(flip=0, rotate90=0.6, blur=0), seeded()).image[:, 0, 0, 0]
    shares = [(turned == corner).float().mean().item() for corner in (0, 5, 30, 35)]
    assert shares == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=0.03)


def test_zero_probability_changes_nothing():
    batch = numbered()
    same = augment(batch, AugmentSettings(flip=0, rotate90=0, blur=0), seeded())
    assert torch.equal(same.image, batch.image)
    assert torch.equal(same.target, batch.target)


def test_a_seed_decides_everything():
    one, other, third = (augment(numbered(), AugmentSettings(), seeded(seed)).image for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


@given(seed=st.integers(0, 2**31), side=st.sampled_from(BLUR_PX), missing=st.floats(0, 0.9))
@settings(max_examples=40, deadline=None)
def test_the_blur_is_scipys_gaussian_of_what_is_known(seed, side, missing):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(3, 9, 7))
    image[rng.random(image.shape) < missing] = np.nan
    sigma, reach = {3: 0.8, 5: 1.1}[side], side // 2
    known = np.isfinite(image)

    def gaussian(values):
        return ndimage.gaussian_filter(values, (0, sigma, sigma), mode="constant", radius=(0, reach, reach))

    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.where(known, gaussian(np.where(known, image, 0)) / gaussian(known.astype(float)), np.nan)
    found = blur(torch.from_numpy(image).float(), side).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("side", BLUR_PX)
def test_an_even_surface_stays_even_at_borders_and_holes(side):
    image = torch.full((1, 8, 8), 7.0)
    image[0, 3, 3:6] = torch.nan
    again = blur(image, side)
    assert torch.equal(torch.isnan(again), torch.isnan(image))
    torch.testing.assert_close(again.nan_to_num(7.0), torch.full((1, 8, 8), 7.0))


def test_blur_touches_half_of_the_tiles_and_no_target():
    rng = torch.rand(2000, 1, 8, 8, generator=seeded())
    batch = Batch(image=rng, target=torch.ones(2000, 8, 8, dtype=torch.uint8), valid=torch.ones(2000, 8, 8).bool())
    changed = augment(batch, AugmentSettings(flip=0, rotate90=0, blur=0.5), seeded())
    assert (changed.image != rng).any((1, 2, 3)).float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert torch.equal(changed.target, batch.target)


def test_layers_with_a_direction_are_refused_together_with_flips_and_turns():
    layers = [layer("red"), layer("aspect")]
    check(AugmentSettings(flip=0, rotate90=0), layers)
    check(AugmentSettings(), layers[:1])
    for chosen in (AugmentSettings(flip=0.5, rotate90=0), AugmentSettings(flip=0, rotate90=0.1)):
        with pytest.raises(ConfigError, match="'aspect' has a direction"):
            check(chosen, layers)
