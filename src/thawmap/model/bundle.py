"""A bundle: one folder that holds a trained model and all that is needed to use it.

    weights.safetensors     the network's numbers
    selftest.safetensors    an input (1, C, H, W) in physical units and its probability (1, H, W)
    item.json               the same for catalogues, as a STAC Item; nothing here reads it
    bundle.json             what it is; the SHA-256 of weights and self-test

Nothing in it is unpickled. Loading rebuilds the network, fills it and asks it the self-test, so that a bundle
that loads also answers as on the day it was made (law 7).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from thawmap.config import Fill, ModelSettings
from thawmap.errors import BundleError, ConfigError
from thawmap.layers import Layer
from thawmap.model import catalogue
from thawmap.model.manifest import Manifest
from thawmap.model.network import PROBE_PX, build, probability
from thawmap.model.reading import Reading
from thawmap.records import checked, read_object

FORMAT = 1
"""Version of the folder's layout."""

TOLERANCE = 1e-3
"""Largest difference of the self-test's probability between two machines."""

_WEIGHTS, _SELFTEST, _ITEM, _JSON = "weights.safetensors", "selftest.safetensors", "item.json", "bundle.json"
_FILES = (_WEIGHTS, _SELFTEST, _ITEM, _JSON)  # in the order of writing: a folder with bundle.json is finished
_LIBRARIES = ("thawmap", "torch", "segmentation-models-pytorch", "timm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A trained model.

    Attributes:
        id: Short hash of everything below and of the weights; empty until it is saved.
        layers: Inputs in the network's order, each with its range.
        optional: Names of layers that it was trained to do without.
        fill: What missing pixels look like to the network (`thawmap.model.reading.Reading`).
        temperature: What its logits are divided by; 1 where it was not calibrated.
        architecture: Name of the network.
        encoder: Name of its encoder.
        tile: Side of the tiles that it was trained with, in pixels.
        stride: Sides of an input must be multiples of it.
        fixed_tile: Whether an answer depends on the whole input, so that inputs must be of ``tile`` px.
        thresholds: Probability above which a pixel is an object: "paper" (0.5), "validation" where chosen.
        metrics: Scores of the epoch that it is from.
        provenance: How it was made: resolved configuration, seed, versions, regions trained on and left out.
        network: The network in eval mode; logits out.
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
    metrics: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    network: nn.Module = field(repr=False, compare=False)

    @property
    def reading(self) -> Reading:
        """How images become its network's input, and logits probabilities."""
        return Reading(layers=self.layers, fill=self.fill, temperature=self.temperature)

    @property
    def threshold(self) -> float:
        """The threshold chosen on validation; 0.5 where none was."""
        return self.thresholds.get("validation", 0.5)


def save(bundle: Bundle, folder: Path) -> Bundle:
    """Write ``bundle`` into ``folder``, in place of the one that is there; the bundle with its id.

    The files appear together or not at all, and other files in the folder stay as they are.

    Raises:
        BundleError: If the network's answer is not finite, or the folder cannot be written.
    """
    inputs = _selftest_input(bundle)
    answer = _answer(bundle, inputs)
    if not torch.isfinite(answer).all():
        msg = f"the network for {folder} answers with numbers that are not finite; train it again, with a lower lr"
        raise BundleError(msg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _replacing(folder) as fresh:
            state = {key: value.detach().cpu().contiguous() for key, value in bundle.network.state_dict().items()}
            save_file(state, fresh / _WEIGHTS)
            save_file({"input": inputs, "probability": answer}, fresh / _SELFTEST)
            content = _describe(bundle) | {"sha256": {name: _sha256(fresh / name) for name in (_WEIGHTS, _SELFTEST)}}
            saved = replace(bundle, id=_identify(content))
            _write_json(fresh / _ITEM, catalogue.item(saved))
            _write_json(fresh / _JSON, {"id": saved.id} | content)
            for name in (_WEIGHTS, _SELFTEST):  # which safetensors writes for their owner alone
                (fresh / name).chmod((fresh / _JSON).stat().st_mode)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        msg = f"bundle {folder} cannot be written ({reason}); check the path, the permissions and the space"
        raise BundleError(msg) from error
    return saved


def files_of(folder: Path) -> list[str]:
    """Names of the files in ``folder`` that are called as those of a bundle."""
    return [name for name in _FILES if os.path.lexists(folder / name)]


def remove(folder: Path) -> None:
    """Remove the bundle in ``folder``, and the folder itself where nothing else lies in it."""
    for name in files_of(folder):
        (folder / name).unlink()
    with suppress(OSError):
        folder.rmdir()


def load(folder: Path) -> Bundle:
    """The bundle in ``folder``, on the CPU, checked.

    Raises:
        BundleError: If a file is missing or damaged, the format is not known, the weights are not those that
            the bundle was saved with, or the network does not answer the self-test as it did.
    """
    content = _read_json(folder)
    _check_files(folder, content)
    try:
        settings = ModelSettings(architecture=content["architecture"], encoder=content["encoder"])
        layers = tuple(Layer(**layer) for layer in content["layers"])
        network = build(settings, channels=len(layers))
        network.load_state_dict(load_file(folder / _WEIGHTS))
        test = load_file(folder / _SELFTEST)
        bundle = Bundle(
            id=content["id"],
            layers=layers,
            optional=frozenset(content["optional"]),
            fill=content.get("fill", "zero"),  # bundles of before 2026-12 do not say so
            temperature=content.get("temperature", 1.0),
            **{name: content[name] for name in _PLAIN},
            network=network.eval(),
        )
        difference = (_answer(bundle, test["input"]) - test["probability"]).abs().max().item()
    except (ConfigError, LookupError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        msg = f"bundle {folder} cannot be rebuilt ({str(error).strip().splitlines()[0]}); train or import it again"
        raise BundleError(msg) from error
    if not difference <= TOLERANCE:
        msg = (
            f"bundle {folder} fails its self-test: probabilities differ by {difference:.2g}, allowed "
            f"{TOLERANCE:g}; its weights were swapped or cut, or the libraries changed: use the ones in its "
            "provenance"
        )
        raise BundleError(msg)
    return bundle


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide what a network answers."""
    return {name: version(name) for name in _LIBRARIES}


_PLAIN = ("architecture", "encoder", "tile", "stride", "fixed_tile", "thresholds", "metrics", "provenance")


def _describe(bundle: Bundle) -> dict[str, Any]:
    """The bundle as JSON values, without id and checksums."""
    return {
        "format": FORMAT,
        **{name: getattr(bundle, name) for name in _PLAIN},
        "thresholds": dict(bundle.thresholds),
        "metrics": dict(bundle.metrics),
        "provenance": dict(bundle.provenance),
        "layers": [asdict(layer) for layer in bundle.layers],
        "optional": sorted(bundle.optional),
        "fill": bundle.fill,
        "temperature": bundle.temperature,
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _identify(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _selftest_input(bundle: Bundle) -> Tensor:
    """Values across and somewhat beyond each layer's range, one in twenty missing, always the same."""
    side = min(bundle.tile, PROBE_PX if bundle.fixed_tile else 2 * max(bundle.stride, 8))
    generator = torch.Generator().manual_seed(0)
    shape = (1, len(bundle.layers), side, side)
    low = torch.tensor([layer.low for layer in bundle.layers]).view(1, -1, 1, 1)
    width = torch.tensor([layer.high - layer.low for layer in bundle.layers]).view(1, -1, 1, 1)
    values = low + width * (torch.rand(shape, generator=generator) * 1.2 - 0.1)
    return values.masked_fill(torch.rand(shape, generator=generator) < 0.05, torch.nan)


def _answer(bundle: Bundle, inputs: Tensor) -> Tensor:
    """Probability (1, H, W) on the CPU, wherever the network is: GPUs round more, each in its own way."""
    network = bundle.network
    if next(network.parameters()).device.type != "cpu":
        network = deepcopy(network).cpu()
    with torch.inference_mode():
        return probability(network.eval(), inputs, bundle.reading).clone()


def _read_json(folder: Path) -> dict[str, Any]:
    """The description, with the types and ranges that `thawmap.model.manifest` asks for."""
    try:
        content = read_object(folder / _JSON)
        if content.get("format") == FORMAT:
            checked(content, Manifest)
    except OSError as error:
        msg = f"{folder} holds no bundle ({_JSON}: {error.strerror}); name a folder that 'thawmap train --out' wrote"
        raise BundleError(msg) from error
    except ValueError as error:
        msg = f"bundle {folder} is damaged: {_JSON} {error}; restore it, or train or import the bundle again"
        raise BundleError(msg) from error
    if content.get("format") != FORMAT:
        found = content.get("format")
        msg = f"bundle {folder} has format {found!r}; this version reads format {FORMAT}; use a matching thawmap"
        raise BundleError(msg)
    return content


def _check_files(folder: Path, content: dict[str, Any]) -> None:
    """Whether the files are those that the bundle was saved with."""
    for name in (_WEIGHTS, _SELFTEST):
        try:
            found = _sha256(folder / name)
        except OSError as error:
            msg = f"bundle {folder} is not whole ({name}: {error.strerror}); restore it, or train or import it again"
            raise BundleError(msg) from error
        if found != content["sha256"].get(name):
            msg = f"bundle {folder} is damaged: {name} is not the file it was saved with (swapped or cut); restore it"
            raise BundleError(msg)
    rest = {key: value for key, value in content.items() if key != "id"}
    if content["id"] != _identify(rest):
        msg = f"bundle {folder} is damaged: {_JSON} was changed after it was saved; restore it"
        raise BundleError(msg)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A fresh folder whose files replace those in ``folder`` on success.

    The old files are kept until all new ones stand: an exception brings them back, and even a process that is
    killed between two renames leaves the old bundle whole in a hidden folder beside the new.
    """
    work = Path(mkdtemp(prefix=".bundle.", suffix=".tmp", dir=folder))
    fresh, kept = work / "new", work / "old"
    fresh.mkdir()
    kept.mkdir()
    try:
        yield fresh
        for name in _FILES:
            if (folder / name).exists():
                _keep(folder / name, kept / name)
        try:
            for name in _FILES:
                os.replace(fresh / name, folder / name)  # noqa: PTH105 - the atomic one, by its name
        except BaseException:
            _restore(kept, folder)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _keep(path: Path, kept: Path) -> None:
    """A second name for a file; a copy of it where the file system has no links."""
    try:
        os.link(path, kept)
    except OSError:
        shutil.copy2(path, kept)


def _restore(kept: Path, folder: Path) -> None:
    for name in _FILES:
        if (kept / name).exists():
            os.replace(kept / name, folder / name)  # noqa: PTH105
        else:
            (folder / name).unlink(missing_ok=True)
