"""Other people's models, in both directions (DESIGN, section 9).

An import is done once: the file becomes a bundle whose ranges give the network exactly the numbers that it saw
before. What the file does not say is asked for, and what is taken as known is said.
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
from thawmap.model.interop.encodings import DARTS, Range, seen_range
from thawmap.model.interop.read import Foreign, read
from thawmap.model.network import PIXEL, architectures, build, traits

_USUAL_TILE = {"thaw-slump-segmentation": 256, "DARTS legacy": 1024, "DARTS": 1024}
_OURS = {theirs: ours for theirs, (ours, _) in DARTS.items()}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a model's file may not say.

    Attributes:
        window_m: Diameter in metres of the circle that relative elevation is measured against.
        ranges: Band, as the file calls it, to the physical values that the network sees as 0 and as 1; they go before
            what the file says.
        tile: Side in pixels of the tiles that the network was trained with.
    """

    window_m: float | None = None
    ranges: Mapping[str, Range] = field(default_factory=lambda: MappingProxyType({}))
    tile: int | None = None


def import_bundle(path: Path, facts: Facts | None = None) -> tuple[Bundle, tuple[str, ...]]:
    """A bundle, not yet saved, of the model in ``path``, and what its user should know of the conversion.

    Raises:
        BundleError: If the file is no model that is known, holds code, or its weights do not fit its network.
        ConfigError: If a fact is missing or meaningless, or the network does not exist here.
    """
    facts = facts or Facts()
    foreign = read(path)
    layers = _layers(foreign, facts)
    settings = ModelSettings(architecture=_known(foreign), encoder=foreign.encoder)
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
    about = traits(network.eval(), channels=len(layers))
    tile = _tile(foreign, facts, fixed=about.fixed_tile, stride=about.stride)
    notes = _notes(foreign, layers, facts, tile)
    bundle = Bundle(
        layers=layers,
        architecture=foreign.architecture,
        encoder=foreign.encoder,
        tile=tile,
        stride=about.stride,
        fixed_tile=about.fixed_tile,
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
    """Write the bundle as a `.pt` that DARTS loads; what its user should know.

    DARTS scales every band by a range of its own, so only bundles with these very ranges mean the same there.

    Raises:
        BundleError: If DARTS lacks the network or a layer, or would scale a layer in another way.
    """
    if bundle.architecture in {PIXEL, "dpt"}:
        msg = f"bundle {bundle.id} is a {bundle.architecture!r} network, which DARTS does not build; export it as onnx"
        raise BundleError(msg)
    bands = [_darts_band(bundle, one) for one in bundle.layers]
    model = {"arch": bundle.architecture, "encoder_name": bundle.encoder, "in_channels": len(bands), "classes": 1}
    config = {"model_framework": "smp", "model": model, "bands": bands, "patch_size": bundle.tile}
    state = {name: value.detach().cpu().clone() for name, value in bundle.network.state_dict().items()}
    content = BytesIO()  # torch would say of a full disk that its own file is damaged
    torch.save({"config": config, "statedict": state}, content)
    path.write_bytes(content.getbuffer())
    made = [f"{one.name} ({one.recipe})" for one in bundle.layers if one.recipe]
    notes = [f"DARTS makes these layers itself; set it to make them alike: {', '.join(made)}"] if made else []
    if bundle.fill != "zero":
        notes.append("DARTS shows networks 0 where pixels are missing, and this one learnt with gaps filled from near")
    if bundle.temperature != 1:
        notes.append(
            f"DARTS knows no temperature: its probabilities are not calibrated (logits / {bundle.temperature:g})"
        )
    return tuple(notes)


def _known(foreign: Foreign) -> str:
    if foreign.architecture in architectures() and foreign.architecture != PIXEL:
        return foreign.architecture
    msg = (
        f"{foreign.file} is a {foreign.architecture!r}, which segmentation_models.pytorch does not have; allowed are "
        f"{', '.join(name for name in architectures() if name != PIXEL)}"
    )
    raise BundleError(msg)


def _layers(foreign: Foreign, facts: Facts) -> tuple[Layer, ...]:
    """The inputs with the ranges and recipes that give the network what it saw.

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
        what = "does not say against which surroundings its relative elevation is measured; give the circle's diameter"
        msg = (
            f"{foreign.file} {what} in metres: --window-m 100 as in the paper's text, 200 as in its notebooks"
            if relative
            else f"{foreign.file} has no relative elevation, so that --window-m has no meaning; leave it out"
        )
        raise ConfigError(msg)
    if facts.window_m is not None and not facts.window_m > 0:
        msg = f"--window-m is {facts.window_m:g}; the diameter of a circle in metres is above 0"
        raise ConfigError(msg)
    return tuple(_layer(band, foreign, facts) for band in foreign.bands)


def _layer(band: str, foreign: Foreign, facts: Facts) -> Layer:
    low, high = facts.ranges.get(band) or _range(band, foreign)
    one = layer(_OURS.get(band, band), low=low, high=high, clip=foreign.factors is None)
    recipes = {"relative_elevation": f"circle of {facts.window_m:g} m" if facts.window_m is not None else ""}
    if foreign.kind == "DARTS":
        recipes["slope"] = "horn"
    return replace(one, recipe=recipes.get(one.name, ""))


def _range(band: str, foreign: Foreign) -> Range:
    if foreign.factors is not None:
        return seen_range(band, foreign.factors[band])
    if band not in DARTS:
        msg = (
            f"{foreign.file} sees {band!r}, which thawmap does not have or makes in another way; if you make it "
            f"yourself, say which values the network sees as 0 and as 1: --range {band}=LOW:HIGH"
        )
        raise ConfigError(msg)
    return DARTS[band][1]


def _tile(foreign: Foreign, facts: Facts, *, fixed: bool, stride: int) -> int:
    """Side of the tiles, as told, as the file says, or as usual where the answer hardly depends on it."""
    tile = facts.tile or foreign.tile
    if tile is None and fixed:
        msg = (
            f"{foreign.file} does not say on tiles of which size it was trained, and the answers of its network depend "
            f"on that; give it in pixels: --tile {_USUAL_TILE[foreign.kind]}"
        )
        raise ConfigError(msg)
    tile = tile or _USUAL_TILE[foreign.kind]
    if tile <= 0 or tile % stride:
        msg = f"a tile of {tile} px does not suit the network of {foreign.file}; give a multiple of {stride}: --tile"
        raise ConfigError(msg)
    return tile


def _notes(foreign: Foreign, layers: tuple[Layer, ...], facts: Facts, tile: int) -> tuple[str, ...]:
    """What was kept, converted or taken as known, for people to read."""
    alike = groupby(layers, key=lambda one: f"{one.low:g} .. {one.high:g}")
    ranges = "; ".join(f"{', '.join(one.name for one in members)} {ends}" for ends, members in alike)
    converted = "converted from factors of stored numbers, so that the network sees what it saw there"
    done, clipped = ("kept", "clipped") if foreign.factors is None else (converted, "not clipped")
    notes = [
        f"{foreign.kind}: {foreign.architecture} with {foreign.encoder}, weights of {foreign.file.name}",
        f"normalisation {done}: 0 .. 1 is {ranges}; values beyond are {clipped}, missing ones are 0",
    ]
    if foreign.kind == "DARTS legacy" and foreign.factors is not None:
        notes.append("its norm factors are honoured; newer versions of DARTS ignore them and give other answers")
    names = {one.name: one for one in layers}
    if foreign.factors is not None and "relative_elevation" in set(names) - set(facts.ranges):
        notes.append(
            "relative elevation is taken as stored (metres + 50) x 300; where it was (metres + 30) x 300, import again "
            "with --range relative_elevation=-30:70"
        )
    if "slope" in names and not names["slope"].recipe:
        notes.append("the file does not say how slope was measured (the paper: from the four neighbours)")
    if facts.tile is None and foreign.tile is None:
        notes.append(f"the file does not say on tiles of which size it was trained; {tile} px are taken, as is usual")
    return tuple(notes)


def _darts_band(bundle: Bundle, one: Layer) -> str:
    """What DARTS calls the layer.

    Raises:
        BundleError: If it has no such band, or scales it in another way.
    """
    band = _THEIRS.get(one.name)
    if band is None:
        msg = f"bundle {bundle.id} sees {one.name!r}, which DARTS does not have; export it as onnx"
        raise BundleError(msg)
    low, high = DARTS[band][1]
    if (one.low, one.high, one.clip) != (low, high, True):
        clipped = "clipped" if one.clip else "not clipped"
        msg = (
            f"bundle {bundle.id} sees {one.name} {one.low:g} .. {one.high:g}, {clipped}, and DARTS would give it "
            f"{low:g} .. {high:g}, clipped, whatever the file says; train with that range, or export it as onnx"
        )
        raise BundleError(msg)
    return band
