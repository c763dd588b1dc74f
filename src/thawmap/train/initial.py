"""What a training begins from: random numbers, pre-trained weights, or all that another bundle has learnt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from thawmap.config import Config
from thawmap.errors import BundleError, ConfigError
from thawmap.layers import Layer
from thawmap.model.bundle_folder import load
from thawmap.model.network import build
from thawmap.train.split import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A network before its first step.

    Attributes:
        network: The network, on the CPU.
        bundle: Id of the bundle that it comes from; empty where it comes from none.
        regions: All regions that the bundle, and those that it was begun from in turn, were trained on.
    """

    network: nn.Module = field(repr=False, compare=False)
    bundle: str = ""
    regions: tuple[str, ...] = ()

    def check(self, split: Split) -> None:
        """Refuse to test on, or choose by, what the bundle was trained on.

        Raises:
            ConfigError: If a region is left out that the bundle knows.
        """
        for name, part in (("validation", split.validation), ("test", split.test)):
            known = sorted(set(part["region"].dropna()) & set(self.regions))
            if known:
                msg = (
                    f"model.weights names bundle {self.bundle}, which was trained on {known[0]}, and that is in {name} "
                    f"here; begin from a bundle that never saw it, or leave out another region"
                )
                raise ConfigError(msg)

    def provenance(self) -> dict[str, Any]:
        """What a bundle should say of its beginning; empty where there is nothing to say."""
        return {"begun_from": {"bundle": self.bundle, "regions": list(self.regions)}} if self.bundle else {}


def start(config: Config) -> Start:
    """The network that ``config.model`` asks for, its random numbers from torch's global generator.

    Raises:
        ConfigError: If the network does not exist, its weights cannot be had, or the bundle that it is to begin from
            has another network or other layers.
    """
    settings, layers = config.model, config.input_layers
    if not settings.begins_from_a_bundle:
        return Start(network=build(settings, channels=len(layers)))
    try:
        bundle = load(Path(str(settings.weights)))
    except BundleError as error:
        msg = f"model.weights: {error}"
        raise ConfigError(msg) from error
    theirs, ours = (bundle.architecture, bundle.encoder), (settings.architecture.lower(), settings.encoder)
    if theirs != ours:
        msg = (
            f"model.weights names a bundle of {' with '.join(theirs)}, and this is {' with '.join(ours)}; name its "
            f"weights.safetensors for the encoder alone, or ask for the same network"
        )
        raise ConfigError(msg)
    _check_layers(bundle.layers, layers)
    return Start(network=bundle.network.train(), bundle=bundle.id, regions=_trained_on(bundle.provenance))


def _check_layers(theirs: Sequence[Layer], ours: Sequence[Layer]) -> None:
    """Whether the network would see the same numbers; a recipe that is not known may be any."""
    if len(theirs) != len(ours):
        msg = f"model.weights names a bundle of {len(theirs)} layers, and here are {len(ours)}; ask for the same layers"
        raise ConfigError(msg)
    for place, (their, our) in enumerate(zip(theirs, ours, strict=True), start=1):
        alike = (their.name, their.low, their.high, their.clip) == (our.name, our.low, our.high, our.clip)
        if not alike or (their.recipe and our.recipe and their.recipe != our.recipe):
            msg = (
                f"model.weights names a bundle whose layer {place} is {_said(their)}, and here it is {_said(our)}; ask "
                f"for the same layers in the same order"
            )
            raise ConfigError(msg)


def _said(layer: Layer) -> str:
    made = f", {layer.recipe}" if layer.recipe else ""
    return f"{layer.name} of {layer.low:g} to {layer.high:g}{' clipped' if layer.clip else ''}{made}"


def _trained_on(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Regions of a bundle's training and of all before it; none where it does not say."""
    own = dict(provenance.get("regions") or {}).get("train") or []
    before = dict(provenance.get("begun_from") or {}).get("regions") or []
    return tuple(sorted({str(one) for one in (*own, *before)}))
