"""Building of networks, scaling of their inputs, logits and probability.

Training and inference scale their images with the same function, so that a network never meets numbers that
it was not trained on.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from thawmap.config import ModelSettings
from thawmap.errors import ConfigError, suggest
from thawmap.model.boosting import BoostedTrees
from thawmap.model.forest import BOOSTING
from thawmap.model.gaps import fill_gaps
from thawmap.model.reading import Reading

PIXEL = "pixel"
"""Name of the network without neighbours: logistic regression per pixel.

It is one 1 x 1 convolution.
"""

PROBE_PX = 128
"""Side of the smallest square that every architecture accepts, in pixels.

Networks are tried on it.
"""

_REFUSALS = (KeyError, ValueError, NotImplementedError, RuntimeError, TypeError, AssertionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """A network's demands on the size of its input.

    Attributes:
        stride: Largest downsampling; sides of an input must be multiples of it.
        fixed_tile: Whether an answer depends on the whole input (global pooling or attention), so that the
            tile that it was trained with is part of the answer.
    """

    stride: int
    fixed_tile: bool


def architectures() -> tuple[str, ...]:
    """Return the names of the networks that can be built, to be trained by gradients."""
    import segmentation_models_pytorch as smp  # noqa: PLC0415 - loads as slowly as PyTorch itself

    return (*smp.MODEL_ARCHITECTURES_MAPPING, PIXEL)


def build(settings: ModelSettings, *, channels: int) -> nn.Module:
    """Build a network from settings, its weights random or pre-trained.

    From scaled images to logits: (N, ``channels``, H, W) float32 in network range to (N, 1, H, W). Random weights come
    from torch's global generator; boosting has no tree yet.

    Raises:
        ConfigError: If the architecture, the encoder or their combination does not exist, or the pre-trained
            weights cannot be had.
    """
    architecture, encoder = settings.architecture.lower(), settings.encoder
    if architecture in {PIXEL, BOOSTING}:
        if settings.weights is not None:
            msg = f"model.weights is {settings.weights!r}, but architecture {architecture!r} has no encoder; leave it "
            msg += "unset"
            raise ConfigError(msg)
        return nn.Conv2d(channels, 1, kernel_size=1) if architecture == PIXEL else BoostedTrees(channels)
    if architecture not in architectures():
        names = (*architectures(), BOOSTING)
        msg = f"architecture {architecture!r} does not exist; {suggest(architecture, names, most=20)}"
        raise ConfigError(msg)
    _check_encoder(encoder)
    is_file = settings.weights is not None and settings.weights.endswith(".safetensors")
    network = _create(settings, channels, weights=None if is_file else settings.weights)
    if is_file:
        _load_encoder(network, Path(cast("str", settings.weights)))
    return network


def traits(network: nn.Module, *, channels: int) -> Traits:
    """Return a network's stride, and whether an answer depends on the whole input.

    Both are found by one forward pass.

    Raises:
        ConfigError: If the network cannot take squares of `PROBE_PX`, as encoders of one fixed size.
    """
    watch = _GlobalOperations()  # type: ignore[no-untyped-call]
    was_training = network.training
    try:
        with torch.no_grad(), watch:
            network.eval()(torch.zeros(1, channels, PROBE_PX, PROBE_PX))
    except _REFUSALS as error:
        msg = f"this network cannot take squares of {PROBE_PX} px ({_first_line(error)}); choose another encoder"
        raise ConfigError(msg) from error
    finally:
        network.train(was_training)
    encoder = getattr(network, "encoder", None)
    stride = 1 if encoder is None else int(encoder.output_stride)
    return Traits(stride=stride, fixed_tile=watch.is_global)


def scale(images: Tensor, reading: Reading) -> Tensor:
    """Scale images (N, C, H, W) in physical units to a network's input, without NaN.

    Images are float32, NaN = missing. Missing pixels are filled from near ones where the reading says
    so (`thawmap.model.gaps`). Each layer becomes (v - low) / (high - low), clipped where the layer says so; what is
    missing then is 0.
    """
    layers = reading.layers
    if reading.fill == "near":
        images = fill_gaps(images)
    shape = (1, len(layers), 1, 1)
    low = images.new_tensor([layer.low for layer in layers]).view(shape)
    width = images.new_tensor([layer.high - layer.low for layer in layers]).view(shape)
    clip = torch.tensor([layer.clip for layer in layers], device=images.device).view(shape)
    scaled = (images - low) / width
    scaled = torch.where(clip, scaled.clamp(0, 1), scaled)
    return torch.where(torch.isnan(images), 0.0, scaled)


def logits(network: nn.Module, images: Tensor, reading: Reading) -> Tensor:
    """Scale images (N, C, H, W), and compute a network's logits (N, H, W) of them.

    Images are in physical units, NaN = missing.
    """
    inputs = scale(images, reading).contiguous(memory_format=torch.channels_last)
    return cast("Tensor", network(inputs)).squeeze(1)


def probability(network: nn.Module, images: Tensor, reading: Reading) -> Tensor:
    """Scale images (N, C, H, W), and compute a network's probability (N, H, W).

    One sigmoid (law 4). Probability is float32, 0..1; images are in physical units, NaN = missing.
    """
    return torch.sigmoid(logits(network, images, reading).float() / reading.temperature)


class ProbabilityNetwork(nn.Module):
    """Scaling, network and sigmoid in one module, for conversion to other formats.

    Args:
        network: From scaled layers to logits.
        reading: Scaling of the layers, and temperature of the logits.
        keep_channel: Whether the answer keeps the network's axis of channels.
    """

    def __init__(self, network: nn.Module, reading: Reading, *, keep_channel: bool = False) -> None:
        super().__init__()
        self.network, self.reading, self.keep_channel = network, reading, keep_channel

    def forward(self, images: Tensor) -> Tensor:
        """Compute probability (N, H, W), or (N, 1, H, W), of images (N, C, H, W)."""
        answer = probability(self.network, images, self.reading)
        return answer.unsqueeze(1) if self.keep_channel else answer


class _GlobalOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watch on a network's operations for one that mixes all pixels of an image.

    Pooling to a fixed size (DeepLabV3, DeepLabV3+, PSPNet, PAN, UPerNet), squeeze-and-excite (many encoders,
    MAnet), attention over positions (MAnet, DPT, SegFormer's encoders) and norms over an image (FPN) all do.
    A list of names would miss the encoders.
    """

    is_global = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, note if it mixes all pixels of an image, return its answer."""
        name = func.overloadpacket.__name__
        mixes = ("adaptive_", "softmax", "attention", "group_norm", "instance_norm")
        reduces = name in {"mean", "sum", "linalg_vector_norm"} and _over_image(name, args)
        self.is_global = self.is_global or reduces or any(word in name for word in mixes)
        return func(*args, **(kwargs or {}))


def _over_image(name: str, args: tuple[Any, ...]) -> bool:
    """Return whether a reduction of a 4-D tensor goes over two axes or more.

    They are taken for those of an image, wherever they are.
    """
    position = 2 if name == "linalg_vector_norm" else 1
    axes = args[position] if len(args) > position else None
    return bool(args[0].ndim == 4 and (axes is None or (isinstance(axes, Sequence) and len(axes) >= 2)))


def _check_encoder(name: str) -> None:
    """Refuse an encoder that segmentation_models.pytorch, or timm for tu-, lacks."""
    import segmentation_models_pytorch as smp  # noqa: PLC0415 - loads as slowly as PyTorch itself
    import timm  # noqa: PLC0415

    encoders = smp.encoders.get_encoder_names()
    if name.removeprefix("tu-") != name:
        encoders = [f"tu-{model}" for model in timm.list_models()]
        name = name.split(".", maxsplit=1)[0]
    if name not in encoders:
        msg = f"encoder {name!r} does not exist; {suggest(name, encoders, most=20)}"
        raise ConfigError(msg)


def _create(settings: ModelSettings, channels: int, *, weights: str | None) -> nn.Module:
    """Build a network of segmentation_models.pytorch, its errors as ConfigError."""
    import segmentation_models_pytorch as smp  # noqa: PLC0415 - loads as slowly as PyTorch itself

    architecture, encoder = settings.architecture.lower(), settings.encoder
    extra = {"dynamic_img_size": True} if architecture == "dpt" else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' advice on names and pretrained tags
            network: nn.Module = smp.create_model(architecture, encoder, weights, channels, 1, **extra)
    except (OSError, SafetensorError) as error:
        msg = (
            f"weights {weights!r} of encoder {encoder!r} cannot be fetched ({_first_line(error).split('. ')[0]}); "
            "connect to the network once, after which they are kept on this disk, name a .safetensors file, or leave "
            "model.weights unset"
        )
        raise ConfigError(msg) from error
    except _REFUSALS as error:
        with_weights = f" with weights {weights!r}" if weights else ""
        folder = f"; if {weights} is a bundle's folder, say ./{weights}" if weights else ""
        msg = (
            f"architecture {architecture!r} cannot be built on encoder {encoder!r}{with_weights} "
            f"({_first_line(error)}); choose another combination, such as unet on resnet34{folder}"
        )
        raise ConfigError(msg) from error
    return network


def _load_encoder(network: nn.Module, path: Path) -> None:
    """Fill a network's encoder with weights from a .safetensors file.

    They are an encoder's own, or those of a network such as a bundle's. An encoder's that took the three colours of
    photographs is changed to take as many layers as there are.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        msg = f"model.weights {path} cannot be read ({_first_line(error)}); name a .safetensors file"
        raise ConfigError(msg) from error
    own = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    encoder = cast("nn.Module", network.encoder)
    try:
        encoder.load_state_dict(own or _for_layers(state, encoder.state_dict()))
    except RuntimeError as error:
        reason = str(error).splitlines()[1:2] or [str(error)]
        msg = (
            f"model.weights {path} do not fit the encoder and its number of layers "
            f"({reason[0].strip()[:200]}); name weights of the same encoder and layers"
        )
        raise ConfigError(msg) from error


def _for_layers(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by name, those for 3 colours spread over the input's channels.

    Weights for photographs are spread as segmentation_models.pytorch does. The first convolution sees the colours in
    turn, over and over, and its sum stays as large; one layer sees all three.
    """

    def spread(weights: Tensor, like: Tensor | None) -> Tensor:
        """Return weights for three colours spread over ``like``'s layers; others as is."""
        if like is None or weights.ndim != 4 or weights.shape[1] != 3 or like.shape[1] == 3:
            return weights
        layers = like.shape[1]
        turns = weights[:, torch.arange(layers) % 3] * (3 / layers)
        return weights.sum(1, keepdim=True) if layers == 1 else turns

    return {name: spread(weights, wanted.get(name)) for name, weights in state.items()}


def _first_line(error: Exception) -> str:
    """Return the first 200 characters of an error's first line, or its type."""
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return (message.strip().splitlines() or [type(error).__name__])[0][:200]
