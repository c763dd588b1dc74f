"""The network that a training begins from: random, pre-trained or a bundle's."""

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
from thawmap.train.obeyed import check_obeyed
from thawmap.train.split import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialNetwork:
    """A network before its first step, and the bundle that it comes from.

    Attributes:
        network: The network, on the CPU.
        bundle: Id of the bundle that it comes from; empty where it comes from none.
        regions: Regions that the bundle, and those that it was begun from in turn, were trained on.
    """

    network: nn.Module = field(repr=False, compare=False)
    bundle: str = ""
    regions: tuple[str, ...] = ()

    def check(self, split: Split) -> None:
        """Refuse a split whose validation or test regions the bundle was trained on.

        Raises:
            ConfigError: If there are any.
        """
        for name, tiles in (("validation", split.validation), ("test", split.test)):
            trained_on = sorted(set(tiles["region"].dropna()) & set(self.regions))
            if trained_on:
                msg = (
                    f"model.weights names bundle {self.bundle}, which was trained on {trained_on[0]}, and that is in "
                    f"{name} here; begin from a bundle that never saw it, or leave out another region"
                )
                raise ConfigError(msg)

    def provenance(self) -> dict[str, Any]:
        """Return the bundle's id and regions as a dict for provenance; {} without one."""
        return {"begun_from": {"bundle": self.bundle, "regions": list(self.regions)}} if self.bundle else {}


def initial_network(config: Config) -> InitialNetwork:
    """Build a configuration's network, its weights random, pre-trained or a bundle's.

    Random weights come from torch's global generator.

    Raises:
        ConfigError: If the network does not exist, its weights cannot be had, or the bundle that it is to begin from
            has another network or other layers; if it is boosting, and a setting would not be obeyed.
    """
    check_obeyed(config)
    settings, layers = config.model, config.input_layers
    if not settings.begins_from_a_bundle:
        return InitialNetwork(network=build(settings, channels=len(layers)))
    try:
        bundle = load(Path(str(settings.weights)))
    except BundleError as error:
        msg = f"model.weights: {error}"
        raise ConfigError(msg) from error
    of_bundle, configured = (bundle.architecture, bundle.encoder), (settings.architecture.lower(), settings.encoder)
    if of_bundle != configured:
        msg = (
            f"model.weights names a bundle of {' with '.join(of_bundle)}, and this is {' with '.join(configured)}; "
            f"name its weights.safetensors for the encoder alone, or ask for the same network"
        )
        raise ConfigError(msg)
    _check_layers(bundle.layers, layers)
    return InitialNetwork(network=bundle.network.train(), bundle=bundle.id, regions=_trained_on(bundle.provenance))


def _check_layers(of_bundle: Sequence[Layer], configured: Sequence[Layer]) -> None:
    """Refuse configured layers unlike a bundle's in name, order, range or recipe."""
    if len(of_bundle) != len(configured):
        msg = (
            f"model.weights names a bundle of {len(of_bundle)} layers, and here are {len(configured)}; ask for the "
            "same layers"
        )
        raise ConfigError(msg)
    for number, (before, now) in enumerate(zip(of_bundle, configured, strict=True), start=1):
        same = (before.name, before.low, before.high, before.clip) == (now.name, now.low, now.high, now.clip)
        # A layer without the name of its recipe may be of any.
        if not same or (before.recipe and now.recipe and before.recipe != now.recipe):
            msg = (
                f"model.weights names a bundle whose layer {number} is {_describe(before)}, and here it is "
                f"{_describe(now)}; ask for the same layers in the same order"
            )
            raise ConfigError(msg)


def _describe(layer: Layer) -> str:
    recipe = f", {layer.recipe}" if layer.recipe else ""
    return f"{layer.name} of {layer.low:g} to {layer.high:g}{' clipped' if layer.clip else ''}{recipe}"


def _trained_on(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Return, from provenance, the regions of a bundle's training and those before."""
    own = dict(provenance.get("regions") or {}).get("train") or []
    before = dict(provenance.get("begun_from") or {}).get("regions") or []
    return tuple(sorted({str(region) for region in (*own, *before)}))
