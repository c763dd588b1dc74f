"""Augmentation: everything moves together and exactly, and missing stays missing (law 5)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from thawmap.config import AugmentSettings, DropSettings
from thawmap.data.derive import normalised_difference
from thawmap.errors import ConfigError
from thawmap.layers import layer
from thawmap.train.augment import BLUR_PX, augment, blur, check_augmentation, optional_layers
from thawmap.train.tiles.store import Batch

torch.set_num_threads(1)


STORED = ["red", "nir", "ndvi", "slope", "tc_wetness"]
STILL = {"flip": 0, "rotate90": 0, "blur": 0}


def numbered(number=8, side=6):
    """Tiles in which every pixel knows its place, in image, target and valid alike."""
    position = torch.arange(side * side).view(1, side, side).expand(number, -1, -1)
    image = torch.stack([position.float(), position.float() * 10], dim=1)
    return Batch(image=image, target=(position % 251).to(torch.uint8), valid=position % 3 == 0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.slow
@given(seed=st.integers(0, 2**31), flip=st.floats(0, 1), rotate90=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_image_target_and_valid_move_together_by_one_of_eight_exact_moves(seed, flip, rotate90):
    batch = numbered()
    moved = augment(batch, STORED[:2], AugmentSettings(flip=flip, rotate90=rotate90, blur=0), seeded(seed))
    assert torch.equal(moved.image[:, 1], moved.image[:, 0] * 10)
    assert torch.equal(moved.target, (moved.image[:, 0] % 251).to(torch.uint8))
    assert torch.equal(moved.valid, moved.image[:, 0] % 3 == 0)
    plain = batch.image[0, 0]
    allowed = [torch.rot90(side, k, (0, 1)) for side in (plain, plain.flip(0)) for k in range(4)]
    assert all(any(torch.equal(tile[0], other) for other in allowed) for tile in moved.image)


def test_each_change_comes_as_often_as_is_set_and_every_tile_alone():
    settings_ = AugmentSettings(flip=0.25, rotate90=0.0, blur=0.0)
    moved = augment(numbered(4000), STORED[:2], settings_, seeded()).image[:, 0, 0, 0]
    shares = [(moved == corner).float().mean().item() for corner in (0, 5, 30, 35)]
    assert shares == pytest.approx([0.75**2, 0.25 * 0.75, 0.25 * 0.75, 0.25**2], abs=0.03)
    turned = augment(numbered(4000), STORED[:2], AugmentSettings(flip=0, rotate90=0.6, blur=0), seeded()).image[
        :, 0, 0, 0
    ]
    shares = [(turned == corner).float().mean().item() for corner in (0, 5, 30, 35)]
    assert shares == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=0.03)


def test_zero_probability_changes_nothing():
    batch = numbered()
    same = augment(batch, STORED[:2], AugmentSettings(flip=0, rotate90=0, blur=0), seeded())
    assert torch.equal(same.image, batch.image)
    assert torch.equal(same.target, batch.target)


def test_a_seed_decides_everything():
    first, same, third = (augment(numbered(), STORED[:2], AugmentSettings(), seeded(seed)).image for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, third)


@pytest.mark.slow
@given(seed=st.integers(0, 2**31), side=st.sampled_from(BLUR_PX), missing=st.floats(0, 0.9))
@settings(max_examples=40, deadline=None)
def test_the_blur_is_scipys_gaussian_of_what_is_known(seed, side, missing):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(3, 9, 7))
    image[rng.random(image.shape) < missing] = np.nan
    sigma, reach = {3: 0.8, 5: 1.1}[side], side // 2
    finite = np.isfinite(image)

    def gaussian(values):
        return ndimage.gaussian_filter(values, (0, sigma, sigma), mode="constant", radius=(0, reach, reach))

    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.where(finite, gaussian(np.where(finite, image, 0)) / gaussian(finite.astype(float)), np.nan)
    blurred = blur(torch.from_numpy(image).float(), side).numpy()
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


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
    changed = augment(batch, STORED[:1], AugmentSettings(flip=0, rotate90=0, blur=0.5), seeded())
    assert (changed.image != rng).any((1, 2, 3)).float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert torch.equal(changed.target, batch.target)


def test_layers_with_a_direction_are_refused_together_with_flips_and_turns():
    layers = [layer("red"), layer("aspect")]
    check_augmentation(AugmentSettings(flip=0, rotate90=0), layers)
    check_augmentation(AugmentSettings(), layers[:1])
    for chosen in (AugmentSettings(flip=0.5, rotate90=0), AugmentSettings(flip=0, rotate90=0.1)):
        with pytest.raises(ConfigError, match="'aspect' has a direction"):
            check_augmentation(chosen, layers)


def patchy(seed, number=5, side=8):
    """Tiles in physical units whose first four layers are missing here and there; the last tells the pixel."""
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.uniform(0.02, 0.5, (number, 5, side, side)).astype(np.float32))
    image[:, 2] = normalised_difference(image[:, 1], image[:, 0])
    image[:, :4][torch.from_numpy(rng.random((number, 4, side, side)) < 0.2)] = torch.nan
    image[:, 4] = torch.arange(number * side * side).view(number, side, side)
    target = torch.from_numpy(rng.choice([0, 1, 255], (number, side, side), p=[0.6, 0.2, 0.2]).astype(np.uint8))
    return Batch(image=image, target=target, valid=torch.from_numpy(rng.random((number, side, side)) < 0.8))


def chosen(**settings_):
    return AugmentSettings.model_validate(STILL | settings_)


VALUES = {
    "contrast": st.fixed_dictionaries({"change": st.floats(0.01, 0.9), "probability": st.floats(0, 1)}),
    "brightness": st.fixed_dictionaries({"offset": st.floats(0.001, 0.5), "probability": st.floats(0, 1)}),
    "radiometry": st.fixed_dictionaries({"gain": st.floats(0, 0.9), "offset": st.floats(0, 0.5)}),
    "noise": st.fixed_dictionaries({"deviation": st.floats(0.001, 0.5), "probability": st.floats(0, 1)}),
}


@given(
    seed=st.integers(0, 2**31),
    moves=st.fixed_dictionaries({name: st.floats(0, 1) for name in ("flip", "rotate90", "paste")}),
    values=st.fixed_dictionaries({}, optional=VALUES),
)
@settings(max_examples=60)
def test_whatever_is_set_a_pixel_keeps_its_target_its_mask_and_what_it_misses(seed, moves, values):
    """Law 5: the last layer is never changed in value, so it tells which pixel of which tile now lies where."""
    batch = patchy(seed)
    changed = augment(batch, STORED, AugmentSettings.model_validate(moves | {"blur": 0} | values), seeded(seed))
    origin = changed.image[:, 4].long()
    assert torch.equal(changed.target, batch.target.flatten()[origin])
    assert torch.equal(changed.valid, batch.valid.flatten()[origin])
    before = batch.image.transpose(0, 1).flatten(1)[:, origin].transpose(0, 1)
    assert torch.equal(torch.isnan(changed.image), torch.isnan(before))
    assert torch.equal(changed.image[:, 3].nan_to_num(9), before[:, 3].nan_to_num(9))
    foreign = origin // origin[0].numel() != torch.arange(len(origin)).view(-1, 1, 1)
    assert (changed.target[foreign] == 1).all()


@given(seed=st.integers(0, 2**31), number=st.integers(1, 4))
def test_pasting_puts_all_objects_of_one_other_tile_over_a_tile(seed, number):
    batch = patchy(seed, number)
    pasted = augment(batch, STORED, chosen(paste=1), seeded(seed))
    for tile in range(number):
        others = [other for other in range(number) if other != tile] or [tile]
        expected = [
            torch.where(batch.target[other] == 1, batch.image[other, 4], batch.image[tile, 4]) for other in others
        ]
        assert any(torch.equal(pasted.image[tile, 4], candidate) for candidate in expected)


def test_pasting_comes_as_often_as_is_set():
    batch = patchy(0, 2000, 4)
    pasted = augment(batch, STORED, chosen(paste=0.3), seeded()).image[:, 4]
    possible = (batch.target == 1).any((1, 2)).float().mean().item()
    assert (pasted != batch.image[:, 4]).any((1, 2)).float().mean().item() == pytest.approx(0.3 * possible, abs=0.04)


def known(batch):
    """Pixels whose red, near infrared and NDVI are there."""
    return torch.isfinite(batch.image[:, :3]).all(1)


def test_brightness_is_one_offset_for_all_optical_layers_of_a_tile_and_nothing_is_clipped():
    batch = patchy(0, 400)
    changed = augment(batch, STORED, chosen(brightness={"offset": 0.3, "probability": 0.6}), seeded())
    shift = (changed.image - batch.image)[:, :2]
    offset = shift.flatten(1).nanmedian(1).values
    torch.testing.assert_close(
        shift.nan_to_num(0), torch.where(torch.isnan(shift), 0, offset.view(-1, 1, 1, 1)), atol=1e-6, rtol=0
    )
    assert offset.abs().max() <= 0.3
    assert offset.min() < -0.28
    assert offset.max() > 0.28
    assert (offset != 0).float().mean().item() == pytest.approx(0.6, abs=0.06)
    assert changed.image[:, :2].nan_to_num(0).min() < -0.2
    assert changed.image[:, :2].nan_to_num(0).max() > 0.7


def test_contrast_keeps_the_mean_over_valid_pixels():
    batch = patchy(0, 300)
    changed = augment(batch, STORED, chosen(contrast={"change": 0.5, "probability": 1}), seeded())
    for layer_ in (0, 1):
        before, after = batch.image[:, layer_], changed.image[:, layer_]
        counted = torch.where(batch.valid & torch.isfinite(before), 1.0, torch.nan)
        means = [(values * counted).flatten(1).nanmean(1) for values in (before, after)]
        torch.testing.assert_close(means[0], means[1])
        factor = ((after - means[1].view(-1, 1, 1)) / (before - means[0].view(-1, 1, 1))).flatten(1).nanmedian(1).values
        expected = means[0].view(-1, 1, 1) + factor.view(-1, 1, 1) * (before - means[0].view(-1, 1, 1))
        torch.testing.assert_close(after.nan_to_num(0), expected.nan_to_num(0), atol=1e-5, rtol=0)
        assert 0.5 <= factor.min() < 0.52
        assert 1.48 < factor.max() <= 1.5 + 1e-4
    torch.testing.assert_close(  # a tile of which nothing is valid has no mean
        augment(Batch(image=batch.image, target=batch.target, valid=batch.valid & False), STORED,
                chosen(contrast={}), seeded()).image.isnan(), batch.image.isnan(),
    )  # fmt: skip


def test_radiometry_is_a_gain_and_an_offset_for_each_layer():
    batch = patchy(0, 300)
    changed = augment(batch, STORED, chosen(radiometry={"gain": 0.4, "offset": 0.2, "probability": 0.7}), seeded())
    changes = []
    for tile in range(300):
        pairs = []
        for layer_ in (0, 1):
            before, after = batch.image[tile, layer_].flatten(), changed.image[tile, layer_].flatten()
            finite = torch.isfinite(before)
            gain, offset = np.polyfit(before[finite].double(), after[finite].double(), 1)
            assert np.allclose(before[finite] * gain + offset, after[finite], atol=1e-5)
            pairs.append((gain - 1, offset))
        changes.append(pairs)
    changes = np.array(changes)
    assert np.abs(changes).max((0, 1)) == pytest.approx([0.4, 0.2], abs=0.02)
    touched = np.abs(changes).max(2) > 1e-4
    assert touched.all(1).mean() == pytest.approx(0.7, abs=0.07)
    assert (touched.any(1) == touched.all(1)).all()
    assert abs(np.corrcoef(changes[touched.all(1)][:, 0, 0], changes[touched.all(1)][:, 1, 0])[0, 1]) < 0.2


def test_noise_is_white_and_as_strong_as_is_set():
    batch = patchy(0, 200, 16)
    changed = augment(batch, STORED, chosen(noise={"deviation": 0.1, "probability": 0.5}), seeded())
    noise = (changed.image - batch.image)[:, :2]
    deviation = torch.stack([tile[torch.isfinite(tile)].std() for tile in noise])
    assert (deviation == 0).float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert deviation[deviation > 0].mean().item() == pytest.approx(0.05, abs=0.008)
    assert deviation.max().item() == pytest.approx(0.1, abs=0.015)
    flat = noise[:, 0][torch.isfinite(noise).all(1)], noise[:, 1][torch.isfinite(noise).all(1)]
    assert abs(np.corrcoef(*flat)[0, 1]) < 0.05


@given(seed=st.integers(0, 2**31), values=st.fixed_dictionaries({}, optional=VALUES))
def test_a_stored_index_follows_the_bands_it_is_made_from(seed, values):
    batch = patchy(seed)
    changed = augment(batch, STORED, AugmentSettings.model_validate(STILL | values), seeded(seed)).image
    finite = known(batch)
    derived = normalised_difference(changed[:, 1], changed[:, 0])
    # two dark bands have no index: it stays
    follows = torch.isnan(derived) | torch.isclose(changed[:, 2], derived, atol=1e-6)
    assert follows[finite].all()
    alone = augment(
        Batch(image=batch.image[:, [0, 2]], target=batch.target, valid=batch.valid), ["red", "ndvi"],
        AugmentSettings.model_validate(STILL | values), seeded(seed),
    )  # fmt: skip
    assert torch.equal(alone.image[:, 1].nan_to_num(9), batch.image[:, 2].nan_to_num(9))


def test_dropped_layers_are_missing_by_groups_as_often_as_is_set_and_others_as_they_were():
    batch = patchy(0, 3000, 2)
    groups = ["slope", ["nir", "tc_wetness"]]
    changed = augment(batch, STORED, chosen(drop={"probability": 0.3, "layers": groups}), seeded())
    gone = torch.isnan(changed.image).all((2, 3)) & ~torch.isnan(batch.image).all((2, 3))
    assert gone[:, 4].float().mean().item() == pytest.approx(0.3, abs=0.03)
    complete = ~torch.isnan(batch.image).all((2, 3)).any(1)
    assert gone[complete, 3].float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert (gone[complete, 3] & gone[complete, 4]).float().mean().item() == pytest.approx(0.09, abs=0.02)
    assert torch.equal(gone[complete, 1], gone[complete, 4])
    assert torch.equal(gone[complete, 2], gone[complete, 4])  # NDVI is made from near infrared
    assert torch.equal(changed.image.nan_to_num(9)[~gone], batch.image.nan_to_num(9)[~gone])
    assert torch.equal(changed.valid, batch.valid)
    assert torch.equal(changed.target, batch.target)


def test_unless_named_all_that_no_optical_sensor_sees_is_dropped_together():
    changed = augment(patchy(0, 500), STORED, chosen(drop={"probability": 0.5}), seeded())
    gone = torch.isnan(changed.image).all((2, 3))
    assert not gone[:, :3].any()
    assert torch.equal(gone[:, 3], gone[:, 4])
    assert gone[:, 3].float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert optional_layers(DropSettings(), STORED) == {"slope", "tc_wetness"}
    assert optional_layers(DropSettings(layers=("nir",)), ["red", "nir", "ndvi"]) == {"nir", "ndvi"}
    assert optional_layers(DropSettings(), ["red", "slope_mean_40m"]) == {"slope_mean_40m"}
    assert optional_layers(None, STORED) == frozenset()


@pytest.mark.parametrize(
    ("names", "settings_", "message"),
    [
        (["slope"], {"noise": {}}, "augment.noise changes optical layers, and there is none among the layers slope"),
        (["red", "slope"], {"drop": {"layers": ["slop"]}}, "names the layer 'slop', which is not an input"),
        (["red", "nir", "ndvi"], {"drop": {"layers": ["ndvi"]}}, "'ndvi', which follows from nir and red"),
        (
            ["red", "slope_mean_40m"],
            {"drop": {"layers": ["slope_mean_40m"]}},
            "'slope_mean_40m', which follows from slope",
        ),
        (["red", "red_mean_40m"], {"contrast": {}}, "red_mean_40m follows from such beyond a tile's border"),
        (["red", "nir"], {"drop": {}}, "leaves every one of the layers red, nir"),
        (["red", "nir"], {"drop": {"layers": [["red", "nir"]]}}, "leaves nothing of the layers red, nir"),
    ],
)
def test_what_the_layers_do_not_suit_is_refused(names, settings_, message):
    with pytest.raises(ConfigError, match=message):
        check_augmentation(AugmentSettings.model_validate(settings_), [layer(name) for name in names])


def test_what_the_layers_suit_is_accepted():
    check_augmentation(
        AugmentSettings.model_validate({"noise": {}}), [layer("ndvi")]
    )  # red and near infrared are read for it
    check_augmentation(AugmentSettings.model_validate({"drop": {}, "contrast": {}}), [layer(name) for name in STORED])
    check_augmentation(AugmentSettings.model_validate({"noise": {}}), [layer("red"), layer("slope_mean_40m")])


def flat(number=200, side=64):
    """Tiles that are known and valid everywhere."""
    shape = (number, side, side)
    return Batch(
        image=torch.full((number, 2, side, side), 0.25),
        target=torch.zeros(shape, dtype=torch.uint8),
        valid=torch.ones(shape, dtype=torch.bool),
    )


@given(share=st.floats(0.05, 0.9), seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_gaps_are_missing_in_every_layer_and_valid_nowhere_and_hold_at_most_the_share(share, seed):
    batch = flat(40)
    laid = augment(batch, STORED[:2], AugmentSettings(**STILL, gaps={"share": share, "probability": 1}), seeded(seed))
    assert torch.equal(torch.isnan(laid.image).all(1), ~laid.valid)
    assert torch.equal(torch.isnan(laid.image).any(1), ~laid.valid)
    assert torch.equal(laid.target, batch.target)
    shares = (~laid.valid).float().mean((1, 2))
    assert shares.max() <= share + 0.02
    assert shares.max() > shares.min()


def test_gaps_come_as_often_as_is_set_and_are_patches_not_pixels():
    laid = augment(flat(), STORED[:2], AugmentSettings(**STILL, gaps={"probability": 0.5, "share": 0.5}), seeded())
    gaps = (~laid.valid).numpy()
    holed = gaps[gaps.any(axis=(1, 2))]
    assert len(holed) / len(gaps) == pytest.approx(0.5, abs=0.08)
    sizes = [pixels / ndimage.label(gap)[1] for gap, pixels in zip(holed, holed.sum(axis=(1, 2)), strict=True)]
    assert np.median(sizes) > 50


def test_gaps_leave_what_is_missing_ignored_or_not_valid_as_it_was():
    batch = flat(8)
    batch.valid[:, :10] = False
    batch.image[:, :, :, :5] = torch.nan
    laid = augment(batch, STORED[:2], AugmentSettings(**STILL, gaps={"probability": 1.0}), seeded())
    assert not laid.valid[:, :10].any()
    assert torch.isnan(laid.image[..., :5]).all()
