"""Layers that a model can see: names, units, network ranges and storage codes.

A layer's values are float32 in physical units, NaN where missing. ``low`` and ``high``
are the network range: x = (v - low) / (high - low). ``code_low`` and ``code_step`` store a value in 16 bits,
wide enough for snow and shadow, fine enough to lose nothing that a sensor can see.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from thawmap.errors import ConfigError, suggest

CODES = 65534
"""Values of a 16-bit code that carry data: 1 .. 65535 (0 = missing) less one, as a number of steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One input of a model: name, units, range of the network, codes of the store.

    Attributes:
        name: Unique lower-case name.
        units: Physical units of the values; "1" for ratios.
        low: Value that the network sees as 0.
        high: Value that the network sees as 1.
        clip: Whether values outside the range are clipped to 0..1.
        optical: Whether the layer is a surface reflectance.
        directional: Whether the values change when the image is turned (aspect, hillshade).
        code_low: Smallest value that the tile store can hold.
        code_step: Difference of two neighbouring codes of the tile store.
        recipe: How it is made where that changes its values, such as "circle of 100 m"; "" where unknown.

    Raises:
        ConfigError: If the range is empty.
    """

    name: str
    units: str
    low: float
    high: float
    clip: bool = True
    optical: bool = False
    directional: bool = False
    code_low: float
    code_step: float
    recipe: str = ""

    def __post_init__(self) -> None:
        """Refuse a range whose low end is not below its high end."""
        if not self.low < self.high:
            msg = f"layer {self.name!r} has the range {self.low} .. {self.high}; 'low' must be below 'high'"
            raise ConfigError(msg)


def _reflectance(name: str) -> Layer:
    """Return a layer of surface reflectance of some name, with range and codes."""
    return Layer(name=name, units="1", low=-0.1, high=0.5, optical=True, code_low=-0.2, code_step=2.5e-5)


def _index(name: str) -> Layer:
    """Return a layer of a normalised difference of some name, with range and codes."""
    return Layer(name=name, units="1", low=-1.0, high=1.0, code_low=-1.0, code_step=2.0 / CODES)


def _trend(name: str) -> Layer:
    """Return a layer of a trend per decade of some name, with range and codes."""
    return Layer(name=name, units="1/decade", low=-0.12, high=0.12, code_low=-0.24, code_step=0.48 / CODES)


_ALL = (
    _reflectance("blue"),
    _reflectance("green"),
    _reflectance("red"),
    _reflectance("nir"),
    _reflectance("swir1"),
    _reflectance("swir2"),
    _index("ndvi"),
    _index("ndwi"),
    _index("redness"),
    replace(_reflectance("visible"), optical=False),  # it follows from optical layers, which are what is changed
    Layer(name="relative_elevation", units="m", low=-50, high=50, code_low=-327.67, code_step=0.01),
    Layer(name="slope", units="degrees", low=0, high=90, code_low=0, code_step=0.002),
    Layer(name="elevation", units="m", low=-100, high=3000, code_low=-500, code_step=0.1),
    Layer(name="aspect", units="degrees", low=0, high=360, directional=True, code_low=0, code_step=0.01),
    Layer(name="hillshade", units="1", low=0, high=1, directional=True, code_low=0, code_step=1.0 / CODES),
    Layer(name="curvature", units="1/m", low=-1, high=1, code_low=-4, code_step=8.0 / CODES),
    _trend("tc_brightness"),
    _trend("tc_greenness"),
    _trend("tc_wetness"),
)

LAYERS: Mapping[str, Layer] = MappingProxyType({layer.name: layer for layer in _ALL})
"""Every layer with known units, by name."""

PAPER_LAYERS = (
    "blue", "green", "red", "nir", "ndvi", "relative_elevation", "slope",
    "tc_brightness", "tc_greenness", "tc_wetness",
)  # fmt: skip
"""The default input: the paper's (section 2.2, Table 3), with all four optical bands."""


CONTEXT = ("mean", "minus_mean", "deviation", "gradient")
"""Statistics of a layer's surroundings, as names of context layers say them."""

WATER = ("share", "distance")
"""Statistics of the water around a pixel, as names of context layers say them."""

LARGEST_SCALE_M = 1000
"""Largest scale of a context layer, in metres."""

_CONTEXT_NAME = re.compile(rf"(?P<base>\w+?)_(?P<statistic>{'|'.join(CONTEXT)})_(?P<scale>[1-9]\d*)m", re.ASCII)
_WATER_NAME = re.compile(rf"water_(?P<statistic>{'|'.join(WATER)})_(?P<scale>[1-9]\d*)m", re.ASCII)


@dataclass(frozen=True, slots=True)
class Context:
    """A layer's surroundings as its name says them: layer, statistic and scale.

    Attributes:
        base: Name of the layer whose surroundings are looked at; of water, "ndwi".
        statistic: One of `CONTEXT`, or of `WATER`.
        scale_m: Distance to the sides of the square that is looked at, in metres; of a distance, its largest value.
    """

    base: str
    statistic: str
    scale_m: int


def context_of(name: str) -> Context | None:
    """Return what the name of a context layer says, such as ndvi_mean_40m; else None.

    Layers with a direction have no such layers: their numbers have no mean.
    """
    water = _WATER_NAME.fullmatch(name)
    match = water or _CONTEXT_NAME.fullmatch(name)
    if match is None or len(match["scale"]) > 4 or int(match["scale"]) > LARGEST_SCALE_M:
        return None
    base = "ndwi" if water else match["base"]
    if base not in LAYERS or LAYERS[base].directional:
        return None
    return Context(base, match["statistic"], int(match["scale"]))


def usual_layer(name: str) -> Layer | None:
    """Return the layer of a name with its usual range; None where nothing is known."""
    context = context_of(name)
    return LAYERS.get(name) if context is None else _context_layer(name, context)


def _context_layer(name: str, context: Context) -> Layer:
    """Return a context layer with its range and codes, which follow from its base's."""
    base, scale = LAYERS[context.base], float(context.scale_m)
    units, span = base.units, CODES * base.code_step
    around = "1/m" if units == "1" else f"{units}/m"
    unit, low, high, code_low, codes = {
        "mean": (units, base.low, base.high, base.code_low, span),
        "minus_mean": (units, (base.low - base.high) / 4, (base.high - base.low) / 4, -span, 2 * span),
        "deviation": (units, 0.0, (base.high - base.low) / 4, 0.0, span / 2),
        "gradient": (around, 0.0, (base.high - base.low) / 40, 0.0, span / 10),
        "share": ("1", 0.0, 1.0, 0.0, 1.0),
        "distance": ("m", 0.0, scale, 0.0, scale),
    }[context.statistic]
    return Layer(name=name, units=unit, low=low, high=high, code_low=code_low, code_step=codes / CODES)


def layer(name: str, *, low: float | None = None, high: float | None = None, clip: bool = True) -> Layer:
    """Return the layer of a name; refuse an unknown one without a range of its own.

    It has its usual range or the given one.

    A name that is neither in `LAYERS` nor that of a context layer becomes a layer of its own when both ends of its
    range are given. A range that is wider than the storage codes of a known layer gets codes that hold it.

    Raises:
        ConfigError: If the name is not in `LAYERS` and has no range, or the range is empty.
    """
    usual = usual_layer(name)
    if usual is not None:
        low, high = usual.low if low is None else low, usual.high if high is None else high
        chosen = replace(usual, low=low, high=high, clip=clip)
        fits = usual.code_low <= low and high <= usual.code_low + CODES * usual.code_step
        return chosen if fits else _with_codes(chosen)
    if low is None or high is None:
        context = ", or context layers of these such as ndvi_mean_40m" if re.search(r"_\d+m$", name) else ""
        msg = f"layer {name!r} is not known, and has no 'low' and 'high' of its own; {suggest(name, LAYERS)}{context}"
        raise ConfigError(msg)
    return _with_codes(Layer(name=name, units="", low=low, high=high, clip=clip, code_low=low, code_step=1.0))


def _with_codes(layer: Layer) -> Layer:
    """Return a layer with storage codes for three times its range, centred on it."""
    width = layer.high - layer.low
    return replace(layer, code_low=layer.low - width, code_step=3.0 * width / CODES)
