"""Conversion of other people's models to bundles, and of bundles to theirs.

An import is done once: the file becomes a bundle whose ranges give the network exactly the numbers that it saw
before. Facts that the file lacks are asked for, and assumptions are listed in notes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import groupby
from pathlib import Path
from types import MappingProxyType

import torch

from thawmap.config import ModelSettings
from thawmap.errors import BundleError, ConfigError
from thawmap.layers import Layer, layer
from thawmap.model.bundle import Bundle, library_versions
from thawmap.model.forest import BOOSTING
from thawmap.model.interop.encodings import DARTS, Range, range_of_factor
from thawmap.model.interop.read import Foreign, read
from thawmap.model.network import PIXEL, Traits, architectures, build, traits

_USUAL_TILE = {"thaw-slump-segmentation": 256, "DARTS legacy": 1024, "DARTS": 1024}
_LAYER_OF_BAND = {band: name for band, (name, _) in DARTS.items()}
_BAND_OF_LAYER = {name: band for band, name in _LAYER_OF_BAND.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts that a model's file may lack, as its user gives them.

    Attributes:
        window_m: Diameter in metres of the circle that relative elevation is measured against.
        ranges: Band, as the file calls it, to the physical values that the network sees as 0 and as 1; they take
            precedence over the file's.
        tile: Side in pixels of the tiles that the network was trained with.
    """

    window_m: float | None = None
    ranges: Mapping[str, Range] = field(default_factory=lambda: MappingProxyType({}))
    tile: int | None = None


def import_bundle(path: Path, facts: Facts | None = None) -> tuple[Bundle, tuple[str, ...]]:
    """Read another program's model file as an unsaved bundle, with notes for its user.

    Raises:
        BundleError: If the file's layout is none that can be read, it holds code, or its weights do not fit its
        network. ConfigError: If a fact is missing or meaningless, or the network does not exist here.
    """
    facts = facts or Facts()
    foreign = read(path)
    layers = _layers(foreign, facts)
    if foreign.architecture == PIXEL or foreign.architecture not in architectures():
        msg = (
            f"{foreign.file} is a {foreign.architecture!r}, which segmentation_models.pytorch does not have; allowed "
            f"are {', '.join(name for name in architectures() if name != PIXEL)}"
        )
        raise BundleError(msg)
    settings = ModelSettings(architecture=foreign.architecture, encoder=foreign.encoder)
    network = build(settings, channels=len(layers))
    try:
        network.load_state_dict(dict(foreign.state))
    except RuntimeError as error:
        reason = (str(error).splitlines()[1:2] or [str(error)])[0].strip()[:200]
        msg = (
            f"the weights of {foreign.file} do not fit {foreign.architecture} with {foreign.encoder} ({reason}); it "
            "was made with another network, or another version of segmentation_models.pytorch"
        )
        raise BundleError(msg) from error
    needs = traits(network.eval(), channels=len(layers))
    tile = _tile(foreign, facts, needs)
    notes = _notes(foreign, layers, facts, tile)
    bundle = Bundle(
        layers=layers,
        architecture=foreign.architecture,
        encoder=foreign.encoder,
        tile=tile,
        stride=needs.stride,
        fixed_tile=needs.fixed_tile,
        fill="zero",  # as these programs train
        provenance={
            "made_by": "thawmap model import",
            "from": f"{foreign.kind}, {foreign.file.name}",
            "sha256": foreign.sha256,
            "notes": list(notes),
            "versions": library_versions(),
        },
        network=network.eval(),
    )
    return bundle, notes


def darts_checkpoint(bundle: Bundle, path: Path) -> tuple[str, ...]:
    """Write a bundle as a `.pt` that DARTS loads, and return notes for its user.

    DARTS scales every band by a range of its own, so only bundles with these very ranges mean the same there.

    Raises:
        BundleError: If DARTS lacks the network or a layer, or would scale a layer in another way.
    """
    if bundle.architecture in {PIXEL, BOOSTING, "dpt"}:
        msg = f"bundle {bundle.id} is a {bundle.architecture!r} network, which DARTS does not build; export it as onnx"
        raise BundleError(msg)
    bands = [_darts_band(bundle, used) for used in bundle.layers]
    model = {"arch": bundle.architecture, "encoder_name": bundle.encoder, "in_channels": len(bands), "classes": 1}
    config = {"model_framework": "smp", "model": model, "bands": bands, "patch_size": bundle.tile}
    state = {name: value.detach().cpu().clone() for name, value in bundle.network.state_dict().items()}
    content = BytesIO()  # torch would say of a full disk that its own file is damaged
    torch.save({"config": config, "statedict": state}, content)
    path.write_bytes(content.getbuffer())
    recipes = [f"{used.name} ({used.recipe})" for used in bundle.layers if used.recipe]
    notes = [f"DARTS makes these layers itself; set it to make them alike: {', '.join(recipes)}"] if recipes else []
    if bundle.fill != "zero":
        notes.append("DARTS shows networks 0 where pixels are missing, and this one learnt with gaps filled from near")
    if bundle.temperature != 1:
        notes.append(
            f"DARTS knows no temperature: its probabilities are not calibrated (logits / {bundle.temperature:g})"
        )
    return tuple(notes)


def _layers(foreign: Foreign, facts: Facts) -> tuple[Layer, ...]:
    """Return a foreign model's inputs as layers, from its file and the user's facts.

    With the ranges and recipes that the network was trained on.

    Raises:
        ConfigError: If a fact is missing, or has no meaning for this model.
    """
    strange = sorted(set(facts.ranges) - set(foreign.bands))
    if strange:
        msg = (
            f"--range names {strange[0]!r}, which is not among the inputs of {foreign.file}: {', '.join(foreign.bands)}"
        )
        raise ConfigError(msg)
    relative = "relative_elevation" in foreign.bands
    if relative != (facts.window_m is not None):
        msg = (
            f"{foreign.file} does not say against which surroundings its relative elevation is measured; give the "
            "circle's diameter in metres: --window-m 100 as in the paper's text, 200 as in its notebooks"
            if relative
            else f"{foreign.file} has no relative elevation, so that --window-m has no meaning; leave it out"
        )
        raise ConfigError(msg)
    if facts.window_m is not None and not facts.window_m > 0:
        msg = f"--window-m is {facts.window_m:g}; the diameter of a circle in metres is above 0"
        raise ConfigError(msg)
    return tuple(_layer(band, foreign, facts) for band in foreign.bands)


def _layer(band: str, foreign: Foreign, facts: Facts) -> Layer:
    """Return a foreign model's band as a layer, with its range and recipe.

    Raises:
        ConfigError: If its range is not given, no encoding goes with its factor, or DARTS has no such band.
    """
    if band in facts.ranges:
        low, high = facts.ranges[band]
    elif foreign.factors is not None:
        low, high = range_of_factor(band, foreign.factors[band])
    elif band in DARTS:
        low, high = DARTS[band][1]
    else:
        msg = (
            f"{foreign.file} sees {band!r}, which thawmap does not have or makes in another way; if you make it "
            f"yourself, say which values the network sees as 0 and as 1: --range {band}=LOW:HIGH"
        )
        raise ConfigError(msg)
    used = layer(_LAYER_OF_BAND.get(band, band), low=low, high=high, clip=foreign.factors is None)
    recipes = {"relative_elevation": f"circle of {facts.window_m:g} m" if facts.window_m is not None else ""}
    if foreign.kind == "DARTS":
        recipes["slope"] = "horn"
    return replace(used, recipe=recipes.get(used.name, ""))


def _tile(foreign: Foreign, facts: Facts, needs: Traits) -> int:
    """Return a foreign model's tile side in px: as given, in its file, or the usual.

    The program's usual one only where the answer hardly depends on it.

    Raises:
        ConfigError: If it has to be given, or does not suit the network.
    """
    tile = facts.tile or foreign.tile
    if tile is None and needs.fixed_tile:
        msg = (
            f"{foreign.file} does not say on tiles of which size it was trained, and the answers of its network depend "
            f"on that; give it in pixels: --tile {_USUAL_TILE[foreign.kind]}"
        )
        raise ConfigError(msg)
    tile = tile or _USUAL_TILE[foreign.kind]
    if tile <= 0 or tile % needs.stride:
        advice = f"give a multiple of {needs.stride}: --tile"
        msg = f"a tile of {tile} px does not suit the network of {foreign.file}; {advice}"
        raise ConfigError(msg)
    return tile


def _notes(foreign: Foreign, layers: tuple[Layer, ...], facts: Facts, tile: int) -> tuple[str, ...]:
    """Return sentences on a model's conversion and its assumptions, for its user."""
    by_range = groupby(layers, key=lambda used: f"{used.low:g} .. {used.high:g}")
    ranges = "; ".join(f"{', '.join(used.name for used in members)} {ends}" for ends, members in by_range)
    converted = "converted from factors of stored numbers, so that the network sees what it saw there"
    done, clipped = ("kept", "clipped") if foreign.factors is None else (converted, "not clipped")
    notes = [
        f"{foreign.kind}: {foreign.architecture} with {foreign.encoder}, weights of {foreign.file.name}",
        f"normalisation {done}: 0 .. 1 is {ranges}; values beyond are {clipped}, missing ones are 0",
    ]
    if foreign.kind == "DARTS legacy" and foreign.factors is not None:
        notes.append("its norm factors are honoured; newer versions of DARTS ignore them and give other answers")
    by_name = {used.name: used for used in layers}
    if foreign.factors is not None and "relative_elevation" in set(by_name) - set(facts.ranges):
        notes.append(
            "relative elevation is taken as stored (metres + 50) x 300; where it was (metres + 30) x 300, import again "
            "with --range relative_elevation=-30:70"
        )
    if "slope" in by_name and not by_name["slope"].recipe:
        notes.append("the file does not say how slope was measured (the paper: from the four neighbours)")
    if facts.tile is None and foreign.tile is None:
        notes.append(f"the file does not say on tiles of which size it was trained; {tile} px are taken, as is usual")
    return tuple(notes)


def _darts_band(bundle: Bundle, used: Layer) -> str:
    """Return DARTS's name of a layer; refuse one that it lacks or scales otherwise.

    Raises:
        BundleError: If it has no such band, or scales it in another way.
    """
    band = _BAND_OF_LAYER.get(used.name)
    if band is None:
        msg = f"bundle {bundle.id} sees {used.name!r}, which DARTS does not have; export it as onnx"
        raise BundleError(msg)
    low, high = DARTS[band][1]
    if (used.low, used.high, used.clip) != (low, high, True):
        clipped = "clipped" if used.clip else "not clipped"
        msg = (
            f"bundle {bundle.id} sees {used.name} {used.low:g} .. {used.high:g}, {clipped}, and DARTS would give it "
            f"{low:g} .. {high:g}, clipped, whatever the file says; train with that range, or export it as onnx"
        )
        raise BundleError(msg)
    return band
