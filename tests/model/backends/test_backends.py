"""Backends: a bundle answers as its network does, in any batch."""

import numpy as np
import pytest
import torch
from bundles import LAYERS, random_bundle, random_images

from thawmap.errors import ConfigError
from thawmap.model.backends.devices import find_device
from thawmap.model.backends.open import open_backend
from thawmap.model.network import probability

torch.set_num_threads(1)


def test_logistic_regression_by_hand_is_the_oracle():
    bundle = random_bundle("pixel", fill="zero", temperature=1.7)
    images = random_images(2)
    weight, bias = (value.detach().numpy() for value in bundle.network.parameters())
    low, high = (np.array([getattr(layer, end) for layer in LAYERS])[:, None, None] for end in ("low", "high"))
    scaled = np.nan_to_num(np.clip((images - low) / (high - low), 0, 1), nan=0.0)
    expected = 1 / (1 + np.exp(-(np.einsum("nchw,c->nhw", scaled, weight[0, :, 0, 0]) + bias[0]) / 1.7))
    answer = open_backend(bundle, device="cpu")(images)
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["unet", "unetplusplus", "fpn"])
def test_answers_are_those_of_the_network_as_it_was_trained(architecture):
    bundle, images = random_bundle(architecture), random_images(2, 128)
    before = {name: value.clone() for name, value in bundle.network.state_dict().items()}
    answer = open_backend(bundle, device="cpu")(images)
    with torch.no_grad():
        truth = probability(bundle.network, torch.from_numpy(images), bundle.reading).numpy()
    np.testing.assert_allclose(answer, truth, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in bundle.network.state_dict().items())


def test_an_answer_does_not_depend_on_the_batch():
    backend = open_backend(random_bundle("unet"), device="cpu")
    images = random_images(3)
    alone = np.concatenate([backend(image[None]) for image in images])
    np.testing.assert_allclose(backend(images), alone, atol=1e-5)
    np.testing.assert_allclose(backend(images[::-1])[::-1], alone, atol=1e-5)


def test_missing_layers_give_a_finite_answer():
    assert np.isfinite(open_backend(random_bundle("unet"))(np.full((1, 3, 32, 32), np.nan, np.float32))).all()


def test_devices_are_found_or_refused_by_name():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="not known"):
        find_device("abacus")
    with pytest.raises(ConfigError, match="use auto or cpu"):
        find_device(f"cuda:{torch.cuda.device_count()}")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_answers_as_the_cpu():
    bundle, images = random_bundle("unet"), random_images(2)
    expected = open_backend(bundle, device="cpu")(images)
    np.testing.assert_allclose(open_backend(bundle, device="cuda")(images), expected, atol=1e-2)
