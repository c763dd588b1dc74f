"""A trained model as a value: its network, and all that is needed to use it.

`thawmap.model.bundle_folder` reads and writes its folder.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thawmap.config import Fill
from thawmap.layers import Layer
from thawmap.model.decision import Decision, Kind
from thawmap.model.reading import Reading
from thawmap.system import installed_versions

if TYPE_CHECKING:
    from torch import nn


WEIGHTS, SELFTEST = "weights.safetensors", "selftest.safetensors"
_LIBRARIES = ("thawmap", "torch", "segmentation-models-pytorch", "timm")


@dataclass(frozen=True, slots=True)
class Stored:
    """A network in a bundle's folder that has not been built yet.

    Attributes:
        folder: Folder of its files.
        weights_sha256: Checksum of its weights.
        build: Function that builds the bundle's network from them.
    """

    folder: Path
    weights_sha256: str
    build: "Callable[[Bundle, Stored], nn.Module]"

    @property
    def weights(self) -> Path:
        """The path of the file of its weights."""
        return self.folder / WEIGHTS

    @property
    def selftest(self) -> Path:
        """The path of the file of its self-test."""
        return self.folder / SELFTEST


class _Network:
    """Descriptor of `Bundle.network`, which is built when it is first used.

    A network that is given as it is stays; a `Stored` one is built from the bundle's folder.
    """

    def __get__(self, bundle: "Bundle", owner: type) -> "nn.Module":
        given = bundle.__dict__["network"]
        if isinstance(given, Stored):
            given = bundle.__dict__["network"] = given.build(bundle, given)
        network: nn.Module = given
        return network

    def __set__(self, bundle: "Bundle", given: "nn.Module | Stored | _Network") -> None:
        if given is self:  # the default of the dataclass's field, so that none was given
            msg = "a bundle needs a network"
            raise TypeError(msg)
        bundle.__dict__["network"] = given


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A trained model: its network, inputs, thresholds, scores and provenance.

    Attributes:
        id: Short hash of everything below and of the weights; empty until it is saved.
        layers: Inputs in the network's order, each with its range.
        optional: Names of layers that it was trained to do without.
        fill: What missing pixels look like to the network (`thawmap.model.reading.Reading`).
        temperature: What its logits are divided by; 1 where it was not calibrated.
        architecture: Name of the network.
        encoder: Name of its encoder; empty where it has none.
        tile: Side of the tiles that it was trained with, in pixels.
        stride: Sides of an input must be multiples of it.
        fixed_tile: Whether an answer depends on the whole input, so that inputs must be of ``tile`` px.
        thresholds: Probability above which a pixel is an object: "paper" (0.5), "validation" where chosen.
        decisions: How objects are made of its probabilities, by kind of views; empty where none was chosen.
        metrics: Scores of the epoch that it is from.
        provenance: How it was made: resolved configuration, seed, versions, regions trained on and left out.
        network: The network in eval mode; logits out. That of a bundle in a folder is built when it is first used.
    """

    id: str = ""
    layers: tuple[Layer, ...]
    optional: frozenset[str] = frozenset()
    fill: Fill = "near"
    temperature: float = 1.0
    architecture: str
    encoder: str
    tile: int
    stride: int
    fixed_tile: bool
    thresholds: Mapping[str, float] = field(default_factory=lambda: {"paper": 0.5})
    decisions: Mapping[Kind, Decision] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    network: _Network = field(default=_Network(), repr=False, compare=False)

    @property
    def stored(self) -> Stored | None:
        """The network's files; None once it is built, as its weights may then change."""
        given = self.__dict__["network"]
        return given if isinstance(given, Stored) else None

    @property
    def network_name(self) -> str:
        """The network as a phrase for people: its architecture, and its encoder if any."""
        return f"{self.architecture} with {self.encoder}" if self.encoder else self.architecture

    @property
    def reading(self) -> Reading:
        """The layers' ranges, fill and temperature, by which inputs and logits are scaled."""
        return Reading(layers=self.layers, fill=self.fill, temperature=self.temperature)

    @property
    def threshold(self) -> float:
        """The threshold chosen on validation; 0.5 where none was."""
        return self.thresholds.get("validation", 0.5)


def library_versions() -> dict[str, str]:
    """Return versions of the libraries that decide a network's answers, by name."""
    return installed_versions(_LIBRARIES)
