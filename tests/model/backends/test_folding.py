"""Folded networks answer as they were trained to, from fewer products."""

from copy import deepcopy

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn.functional import interpolate
from torch.utils.flop_counter import FlopCounterMode

from thawmap.model.backends import folding
from thawmap.model.backends.folding import folded

torch.set_num_threads(1)


def make(architecture="unet", encoder="resnet18", **options):
    """A network with norms as after a training; without that they do next to nothing."""
    torch.manual_seed(0)
    network = smp.create_model(architecture, encoder, encoder_weights=None, in_channels=4, classes=1, **options)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.running_mean, module.bias):
                torch.nn.init.uniform_(values, -0.2, 0.2)
            for values in (module.running_var, module.weight):
                torch.nn.init.uniform_(values, 0.5, 1.5)
    return network.eval()


def number_folded(network):
    return sum(type(module).__name__ == "_FoldedBlock" for module in network.modules())


def check_same(network, copy, shape=(2, 4, 96, 160)):
    """The same answers, borders included, to 4 digits of the largest."""
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        truth, answer = network(images), copy(images)
    torch.testing.assert_close(answer, truth, rtol=0, atol=1e-4 * truth.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "encoder", "number"),
    [
        ("unet", "resnet34", 5),
        ("unet", "efficientnet-b0", 5),
        ("unet", "mit_b0", 5),  # whose first features have no channels
        ("unet", "tu-convnext_atto", 5),
        ("unetplusplus", "resnet18", 11),
    ],
)
def test_upsampling_is_folded(architecture, encoder, number):
    network = make(architecture, encoder)
    copy = folded(network, channels=4)
    assert number_folded(copy) == number
    check_same(network, copy)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"decoder_use_norm": False}, {"decoder_use_norm": "identity"}, {"encoder_depth": 3}]
)
def test_decoders_of_other_kinds_are_folded(options):
    if "encoder_depth" in options:
        options = {**options, "decoder_channels": (64, 32, 16)}
    network = make(**options)
    copy = folded(network, channels=4)
    assert number_folded(copy) >= 3
    check_same(network, copy)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"decoder_attention_type": "scse"},
        {"decoder_interpolation": "bilinear"},
        {"decoder_use_norm": {"type": "instancenorm", "affine": True}},
        {"architecture": "fpn"},
        {"architecture": "manet"},
        {"architecture": "deeplabv3"},
    ],
)
def test_what_does_more_than_that_is_left_alone(options):
    network = make(**options)
    copy = folded(network, channels=4)
    assert number_folded(copy) == 0
    check_same(network, copy)


def test_a_block_that_does_something_else_is_found_out():
    network = make()
    block = network.decoder.blocks[2]

    class Brighter(type(block)):
        def forward(self, image, *others, **named):
            return super().forward(image, *others, **named) + interpolate(image, scale_factor=2)[:, :64]

    block.__class__ = Brighter
    assert folded(network, channels=4) is network


def test_large_answers_round_more_and_are_folded_all_the_same():
    network = make()
    with torch.no_grad():
        network.segmentation_head[0].weight *= 1000
    copy = folded(network, channels=4)
    assert number_folded(copy) == 5
    check_same(network, copy)


@pytest.mark.slow
def test_five_of_nine_products_are_saved_wherever_channels_are_doubled():
    network = make(encoder="resnet34")
    products = {}
    for name, variant in (("plain", network), ("folded", folded(network, channels=4))):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            variant(torch.zeros(1, 4, 64, 64))
        products[name] = counter.get_total_flops() / 64**2 / 2
    # in each of the five blocks, for each pixel of the image
    assert products["plain"] - products["folded"] == pytest.approx(5 * 5 * 512)


def test_the_network_itself_stays_and_is_shared():
    network = make()
    before = deepcopy(network.state_dict())
    folded(network, channels=4)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert number_folded(network) == 0


def test_what_is_not_folded_is_not_copied():
    network = make(encoder="mit_b0")  # whose encoder has no batch norm
    shared = {tensor.data_ptr() for tensor in network.encoder.parameters()}
    assert shared <= {tensor.data_ptr() for tensor in folded(network, channels=4).parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["resnet18", "efficientnet-b0", "tu-convnext_atto", "mobilenet_v2", "densenet121"])
def test_no_batch_norm_is_left_after_a_convolution(encoder):
    """Norms that follow a convolution are folded.

    DenseNet keeps some that precede one, EfficientNet one that is never asked.
    """
    network = make(encoder=encoder)
    copy = folded(network, channels=4)
    left = sum(isinstance(module, torch.nn.BatchNorm2d) for module in copy.modules())
    assert left == {"densenet121": 62, "efficientnet-b0": 1}.get(encoder, 0)
    check_same(network, copy)


class Odd(torch.nn.Module):
    """Norms that must not be folded into the convolution before them, and why."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv = torch.nn.Conv2d(4, 6, 3, padding=1)
        self.relu = torch.nn.ReLU(inplace=True)
        self.norm = torch.nn.BatchNorm2d(6)
        torch.nn.init.uniform_(self.norm.running_mean, -0.2, 0.2)

    def forward(self, images):
        answer = self.conv(images)
        if self.kind == "relu between":
            answer = self.relu(answer)
        if self.kind == "used twice":
            return answer + self.norm(answer)
        return self.norm(answer + 1 if self.kind == "function between" else answer)


@pytest.mark.parametrize("kind", ["relu between", "used twice", "function between", "nothing between"])
def test_only_norms_right_after_a_convolution_are_folded(kind):
    torch.manual_seed(0)
    network = Odd(kind).eval()
    copy = folded(network, channels=4)
    assert (copy is network) == (kind != "nothing between")
    check_same(network, copy)


def test_the_random_generator_is_left_alone():
    network = make()
    state = torch.get_rng_state()
    folded(network, channels=4)
    assert torch.equal(state, torch.get_rng_state())


def test_networks_without_numbers_are_folded_too():
    copy = folded(make().to("meta"), channels=4)
    assert number_folded(copy) == 5


def test_weights_of_one_axis_are_those_of_repeating_and_convolving():
    """In one dimension: repeated pixels, three weights, zeros beyond the ends."""
    pixels, weights = torch.rand(1, 1, 7), torch.rand(1, 1, 3)
    due = torch.nn.functional.conv1d(pixels.repeat_interleave(2, -1), weights, padding=1)
    four = torch.einsum("ka,oia->iok", torch.tensor(folding._SUMS), weights)
    answer = torch.nn.functional.conv_transpose1d(pixels, four, stride=2, padding=1)
    torch.testing.assert_close(answer, due)
