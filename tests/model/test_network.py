"""Networks: building, demands on the input, and scaling of the input."""

import os
import subprocess
import sys
import textwrap
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.torch
import segmentation_models_pytorch as smp
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file
from segmentation_models_pytorch.encoders._utils import patch_first_conv

from thawmap.config import ModelSettings
from thawmap.errors import ConfigError
from thawmap.layers import layer
from thawmap.model.network import Traits, architectures, build, logits, probability, scale, traits
from thawmap.model.reading import Reading

torch.set_num_threads(1)

SETTINGS = {name: ModelSettings(architecture=name, encoder="resnet18") for name in architectures()}
SETTINGS["dpt"] = ModelSettings(architecture="dpt", encoder="tu-vit_tiny_patch16_224")

WHOLE_TILE = {"fpn", "manet", "pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet", "dpt"}
STRIDES = {"pspnet": 8, "deeplabv3": 8, "deeplabv3plus": 16, "pan": 16, "dpt": 16, "pixel": 1}


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures())
def test_every_architecture_gives_logits_on_the_grid_of_its_input(name):
    network = build(SETTINGS[name], channels=5).eval()
    needs = traits(network, channels=5)
    assert needs == Traits(stride=STRIDES.get(name, 32), fixed_tile=name in WHOLE_TILE)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "encoder", "weights", "message"),
    [
        ("unetpluspus", "resnet34", None, "did you mean 'unetplusplus'"),
        ("unet", "resnet43", None, "did you mean 'resnet34'"),
        ("unet", "tu-resnet81", None, "did you mean 'tu-resnet"),
        ("deeplabv3", "vgg11", None, "cannot be built on encoder 'vgg11'"),
        ("dpt", "resnet34", None, "Only Timm encoders"),
        ("unet", "resnet18", "imagnet", "with weights 'imagnet'"),
        ("unet", "resnet18", "first", "if first is a bundle's folder, say ./first"),
        ("unet", "resnet18", "missing.safetensors", "cannot be read"),
        ("pixel", "resnet18", "imagenet", "leave it unset"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(architecture, encoder, weights, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build(ModelSettings(architecture=architecture, encoder=encoder, weights=weights), channels=3)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
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


def test_a_kept_file_that_is_cut_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    revision = smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]["revision"]
    snapshot = tmp_path / "models--smp-hub--resnet18.imagenet" / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).write_bytes(b"{}")
    with pytest.raises(ConfigError, match="'imagenet' of encoder 'resnet18' cannot be fetched") as caught:
        build(ModelSettings(architecture="unet", encoder="resnet18", weights="imagenet"), channels=3)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_weights_from_a_file_fill_the_encoder_whole_or_not_at_all(tmp_path):
    source = build(SETTINGS["unet"], channels=3)
    save_file(source.state_dict(), tmp_path / "network.safetensors")
    save_file(source.encoder.state_dict(), tmp_path / "encoder.safetensors")
    named = {
        name: SETTINGS["fpn"].model_copy(update={"weights": str(tmp_path / f"{name}.safetensors")})
        for name in ("network", "encoder")
    }
    for settings_ in named.values():
        filled = build(settings_, channels=3)
        assert torch.equal(filled.encoder.conv1.weight, source.encoder.conv1.weight)
    with pytest.raises(ConfigError, match="do not fit the encoder and its number of layers"):
        build(named["network"], channels=4)
    with pytest.raises(ConfigError, match="do not fit the encoder"):
        build(named["encoder"].model_copy(update={"encoder": "resnet34"}), channels=3)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v2", "mit_b0"])
@pytest.mark.parametrize("channels", [1, 2, 4, 10])
def test_weights_of_photographs_see_any_number_of_layers_as_the_library_has_it(tmp_path, encoder, channels):
    photographs = smp.encoders.get_encoder(encoder, in_channels=3)
    save_file(photographs.state_dict(), tmp_path / "encoder.safetensors")
    named = ModelSettings(architecture="unet", encoder=encoder, weights=str(tmp_path / "encoder.safetensors"))
    filled = build(named, channels=channels).encoder.state_dict()
    patch_first_conv(photographs, channels)
    expected = photographs.state_dict()
    assert filled.keys() == expected.keys()
    for name, weights in expected.items():
        torch.testing.assert_close(filled[name], weights, rtol=1e-6, atol=0)


OFFLINE = """
    import sys

    def refuse(event, arguments):
        if event in ("socket.connect", "socket.getaddrinfo"):
            raise SystemExit(f"something asked the network: {event} {arguments}")

    sys.addaudithook(refuse)
    from pathlib import Path
    from thawmap.config import ModelSettings
    from thawmap.layers import layer
    from thawmap.model.bundle import Bundle
    from thawmap.model.bundle_folder import load, save
    from thawmap.model.network import build, traits

    for encoder in ("resnet18", "tu-resnet18"):
        network = build(ModelSettings(architecture="unet", encoder=encoder), channels=1)
    about = traits(network, channels=1)
    made = Bundle(layers=(layer("red"),), architecture="unet", encoder="tu-resnet18", tile=64,
                  stride=about.stride, fixed_tile=about.fixed_tile, network=network.eval())
    save(made, Path(sys.argv[1]))
    load(Path(sys.argv[1]))
    build(ModelSettings(architecture="unet", encoder="resnet18", weights="imagenet"), channels=1)
"""


@pytest.mark.slow
def test_nothing_asks_the_network_unless_it_is_told_to(tmp_path):
    """Building, saving and loading ask no network; named weights do."""
    surroundings = os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
    words = [sys.executable, "-c", textwrap.dedent(OFFLINE), str(tmp_path / "bundle")]
    done = subprocess.run(words, check=False, capture_output=True, text=True, env=surroundings)
    assert (tmp_path / "bundle" / "bundle.json").exists()
    assert done.stderr.splitlines()[-1].startswith("something asked the network")


class Hub(BaseHTTPRequestHandler):
    """A hub with the weights of two encoders."""

    files: ClassVar[dict[str, bytes]] = {}

    def answer(self):
        name, _, rest = self.path.partition("/resolve/")
        revision = rest.partition("/")[0]
        content = b"{}" if self.path.endswith("/config.json") else self.files.get(name)
        self.send_response(404 if content is None else 200)
        self.send_header("ETag", f'"{abs(hash(self.path))}"')
        self.send_header("X-Repo-Commit", revision if len(revision) == 40 else "1" * 40)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if self.command == "GET" and content is not None:
            self.wfile.write(content)

    do_HEAD = do_GET = answer  # noqa: N815 - named by the library

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def hub():
    """Its address; nothing of it leaves this machine."""
    smp_encoder = smp.encoders.get_encoder("resnet18", in_channels=3)
    timm_model = timm.create_model("resnet18", num_classes=1000)
    Hub.files = {
        "/smp-hub/resnet18.imagenet": save(smp_encoder.state_dict()),
        "/timm/resnet18.a1_in1k": save(timm_model.state_dict()),
    }
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


FETCH = """
    import sys
    from pathlib import Path
    from safetensors.torch import save_file
    from thawmap.config import ModelSettings
    from thawmap.model.network import build

    for encoder in ("resnet18", "tu-resnet18"):
        network = build(ModelSettings(architecture="unet", encoder=encoder, weights="imagenet"), channels=10)
        save_file(network.encoder.state_dict(), Path(sys.argv[1], f"{encoder}.safetensors"))
"""


@pytest.mark.slow
def test_named_weights_are_fetched_once_and_made_for_all_layers(hub, tmp_path):
    """Weights come from a hub, then offline from the cache.

    Of ten layers each takes a colour, and the sum stays.
    """
    for number, address in enumerate((hub, "http://127.0.0.1:9")):
        out = tmp_path / str(number)
        out.mkdir()
        surroundings = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": str(number)}
        words = [sys.executable, "-c", textwrap.dedent(FETCH), str(out)]
        done = subprocess.run(words, check=False, capture_output=True, text=True, env=os.environ | surroundings)
        assert done.returncode == 0, done.stderr
        addresses = {"resnet18": "/smp-hub/resnet18.imagenet", "tu-resnet18": "/timm/resnet18.a1_in1k"}
        for encoder, name in addresses.items():
            weights = load_file(out / f"{encoder}.safetensors")
            prefix = "model." if encoder.startswith("tu-") else ""
            photographs = safetensors.torch.load(Hub.files[name])
            assert torch.equal(weights[f"{prefix}layer1.0.conv1.weight"], photographs["layer1.0.conv1.weight"])
            first, before = weights[f"{prefix}conv1.weight"], photographs["conv1.weight"]
            assert first.shape == (64, 10, 7, 7)
            torch.testing.assert_close(first[:, 3], before[:, 0] * 3 / 10)


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
    for fill, second in (("zero", 0), ("near", expected)):
        scaled = scale(images, Reading(layers=(first,), fill=fill))
        assert scaled[0, 0, 0, 0].item() == pytest.approx(expected, abs=1e-3)
        assert scaled[0, 0, 0, 1].item() == pytest.approx(second, abs=1e-3)


@pytest.mark.parametrize("fill", ["zero", "near"])
def test_where_nothing_is_near_a_missing_pixel_looks_like_the_lower_end_of_its_range(fill):
    network = build(SETTINGS["pixel"], channels=2)
    reading = Reading(layers=(layer("red"), layer("slope")), fill=fill)
    missing, lowest = torch.full((1, 2, 1, 1), torch.nan), torch.tensor([-0.1, 0.0]).view(1, 2, 1, 1)
    assert torch.equal(logits(network, missing, reading), logits(network, lowest, reading))


def test_one_sigmoid_lies_between_logits_and_probability():
    network = build(SETTINGS["unet"], channels=2).eval()
    images = torch.rand(2, 2, 32, 32)
    for temperature in (1.0, 2.5):
        reading = Reading(layers=(layer("red"), layer("slope")), temperature=temperature)
        with torch.inference_mode():
            expected = 1 / (1 + np.exp(-logits(network, images, reading).numpy().astype(float) / temperature))
            np.testing.assert_allclose(probability(network, images, reading).numpy(), expected, atol=1e-6)
