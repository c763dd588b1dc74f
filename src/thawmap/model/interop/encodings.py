"""Scaling of inputs in other people's models, as ranges of physical values.

A network sees x = (v - low) / (high - low) of a physical value v. Programs that divide stored numbers by a factor
are that too, once the numbers' encoding is known; nothing about a range is guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from thawmap.errors import ConfigError
from thawmap.layers import LAYERS

Range = tuple[float, float]
"""Physical values that the network sees as 0 and as 1."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """Linear encoding: physical value = stored number x scale + offset."""

    scale: float
    offset: float

    def range_of(self, factor: float) -> Range:
        """Return the physical range that ``factor`` x stored number maps to 0..1."""
        return self.offset, float(f"{self.offset + self.scale / factor:.12g}")


_REFLECTANCE = Encoding(1e-4, 0.0)
_TREND = Encoding(0.24 / 255, -0.12)

STORED: Mapping[str, Encoding] = MappingProxyType(
    {
        "ndvi": Encoding(1e-4, -1.0),
        "blue": _REFLECTANCE,
        "green": _REFLECTANCE,
        "red": _REFLECTANCE,
        "nir": _REFLECTANCE,
        "relative_elevation": Encoding(1 / 300, -50.0),
        "slope": Encoding(1.0, 0.0),
        "tc_brightness": _TREND,
        "tc_greenness": _TREND,
        "tc_wetness": _TREND,
    }
)
"""Encodings of thaw-slump-segmentation and the first DARTS, by band.

The numbers that they keep in memory: surface reflectance x 10000, (NDVI + 1) x 10000, (metres + 50) x 300, degrees,
and TCVIS bytes over -0.12 .. 0.12 per decade.
"""

DIVISORS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "ndvi": {"ndvi": 20000},
        "planet": {"blue": 3000, "green": 3000, "red": 3000, "nir": 3000},
        "relative_elevation": {"relative_elevation": 30000},
        "slope": {"slope": 90},
        "tcvis": {"tc_brightness": 255, "tc_greenness": 255, "tc_wetness": 255},
    }
)
"""Divisors of stored numbers in thaw-slump-segmentation, by source and band.

Sources are in the order of its channels.
"""

DARTS: Mapping[str, tuple[str, Range]] = MappingProxyType(
    {
        **{name: (name, (-0.1, 0.5)) for name in ("blue", "green", "red", "nir")},
        "ndvi": ("ndvi", (-1.0, 1.0)),
        "relative_elevation": ("relative_elevation", (-50.0, 50.0)),
        "slope": ("slope", (0.0, 90.0)),
        **{name: (name, (-0.12, 0.12)) for name in ("tc_brightness", "tc_greenness", "tc_wetness")},
        "dem": ("elevation", (-100.0, 3000.0)),
        "aspect": ("aspect", (0.0, 360.0)),
        "curvature": ("curvature", (-0.01, 0.01)),
    }
)
"""Bands of DARTS: our name of the layer, and its range.

Values are clipped to the range. Its curvature is in 1/(100 m). Its hillshade is lit from
another side than ours and is left out, and so are its other indices."""

_LEAST, _MOST = 0.1, 10.0  # that a network may see where a layer has its usual highest value


def range_of_factor(band: str, factor: float) -> Range:
    """Return a band's physical range that a factor on stored numbers maps to 0..1.

    A network that sees ``factor`` x the stored numbers of the band sees that range so.

    Raises:
        ConfigError: If the encoding of the band is not known, or does not go with such a factor.
    """
    encoding, usual = STORED.get(band), LAYERS.get(band)
    if encoding is not None and usual is not None and factor > 0:
        low, high = encoding.range_of(factor)
        if high > low and _LEAST <= (usual.high - low) / (high - low) <= _MOST:
            return low, high
    msg = (
        f"what is stored for {band!r} is not known from its factor {factor:g} (no published encoding goes with it); "
        f"say which values the network sees as 0 and as 1: --range {band}=LOW:HIGH"
    )
    raise ConfigError(msg)
