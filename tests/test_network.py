"""Networks: what can be built, what it asks of its input, and the scaling of its input."""

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from thawmap.config import ModelSettings
from thawmap.errors import ConfigError
from thawmap.layers import layer
from thawmap.model.network import ARCHITECTURES, Traits, build, logits, probability, scale, traits

torch.set_num_threads(1)

SETTINGS = {name: ModelSettings(architecture=name, encoder="resnet18") for name in ARCHITECTURES}
SETTINGS["dpt"] = ModelSettings(architecture="dpt", encoder="tu-vit_tiny_patch16_224")

WHOLE_TILE = {"fpn", "manet", "pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet", "dpt"}
STRIDES = {"pspnet": 8, "deeplabv3": 8, "deeplabv3plus": 16, "pan": 16, "dpt": 16, "pixel": 1}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_gives_logits_on_the_grid_of_its_input(name):
    network = build(SETTINGS[name], channels=5).eval()
    found = traits(network, channels=5)
    assert found == Traits(stride=STRIDES.get(name, 32), fixed_tile=name in WHOLE_TILE)
    with torch.inference_mode():
        answer = network(torch.rand(1, 5, 128, 128))
    assert answer.shape == (1, 1, 128, 128)


@pytest.mark.parametrize(
    ("encoder", "whole_tile"),
    [
        ("efficientnet-b0", True),
        ("se_resnet50", True),
        ("mit_b0", True),
        ("mobilenet_v2", False),
        ("tu-resnet18", False),
    ],
)
def test_encoders_that_weigh_channels_or_positions_over_the_whole_tile_are_recognised(encoder, whole_tile):
    network = build(ModelSettings(architecture="unet", encoder=encoder), channels=3)
    assert traits(network, channels=3).fixed_tile is whole_tile


def test_traits_leave_the_network_as_it_was():
    network = build(SETTINGS["unet"], channels=3).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    traits(network, channels=3)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("architecture", "encoder", "weights", "said"),
    [
        ("unetpluspus", "resnet34", None, "did you mean 'unetplusplus'"),
        ("unet", "resnet43", None, "did you mean 'resnet34'"),
        ("unet", "tu-resnet81", None, "did you mean 'tu-resnet"),
        ("deeplabv3", "vgg11", None, "cannot be built on encoder 'vgg11'"),
        ("dpt", "resnet34", None, "Only Timm encoders"),
        ("unet", "resnet18", "imagnet", "with weights 'imagnet'"),
        ("unet", "resnet18", "missing.safetensors", "cannot be read"),
        ("pixel", "resnet18", "imagenet", "leave it unset"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(architecture, encoder, weights, said):
    with pytest.raises(ConfigError, match=said) as caught:
        build(ModelSettings(architecture=architecture, encoder=encoder, weights=weights), channels=3)
    assert "\n" not in str(caught.value)


def test_an_encoder_of_one_fixed_size_is_refused():
    network = build(ModelSettings(architecture="unet", encoder="tu-swin_tiny_patch4_window7_224"), channels=3)
    with pytest.raises(ConfigError, match="cannot take squares of 128 px"):
        traits(network, channels=3)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_pretrained_weights_without_a_network_are_said_clearly(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"cannot be fetched .* leave model.weights unset"):
        build(ModelSettings(architecture="unet", encoder=encoder, weights="imagenet"), channels=3)


def test_weights_from_a_file_fill_the_encoder_whole_or_not_at_all(tmp_path):
    source = build(SETTINGS["unet"], channels=3)
    save_file(source.state_dict(), tmp_path / "network.safetensors")
    save_file(source.encoder.state_dict(), tmp_path / "encoder.safetensors")
    for name in ("network", "encoder"):
        settings_ = SETTINGS["fpn"].model_copy(update={"weights": str(tmp_path / f"{name}.safetensors")})
        filled = build(settings_, channels=3)
        assert torch.equal(filled.encoder.conv1.weight, source.encoder.conv1.weight)
        with pytest.raises(ConfigError, match="do not fit the encoder"):
            build(settings_, channels=4)


@given(
    low=st.floats(-100, 100),
    width=st.floats(0.1, 100),
    share=st.floats(-1, 2, width=32),
    clip=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_scaling_is_the_formula_of_each_layer(low, width, share, clip):
    first = layer("made_up", low=low, high=low + width, clip=clip)
    value = low + share * width
    images = torch.tensor([value, torch.nan], dtype=torch.float32).view(1, 1, 1, 2)
    expected = np.clip(share, 0, 1) if clip else share
    found = scale(images, [first])
    assert found[0, 0, 0, 0].item() == pytest.approx(expected, abs=1e-3)
    assert found[0, 0, 0, 1].item() == 0


def test_a_missing_pixel_looks_like_the_lower_end_of_its_range_to_the_network():
    network = build(SETTINGS["pixel"], channels=2)
    layers = [layer("red"), layer("slope")]
    missing, lowest = torch.full((1, 2, 1, 1), torch.nan), torch.tensor([-0.1, 0.0]).view(1, 2, 1, 1)
    assert torch.equal(logits(network, missing, layers), logits(network, lowest, layers))


def test_one_sigmoid_lies_between_logits_and_probability():
    network = build(SETTINGS["unet"], channels=2).eval()
    layers, images = [layer("red"), layer("slope")], torch.rand(2, 2, 32, 32)
    with torch.inference_mode():
        expected = 1 / (1 + np.exp(-logits(network, images, layers).numpy().astype(float)))
        np.testing.assert_allclose(probability(network, images, layers).numpy(), expected, atol=1e-6)
