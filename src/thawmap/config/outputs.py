"""Settings of what comes out: objects from probabilities, and files."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from thawmap.config.inputs import Metres, Probability, Settings

_RULE = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


def _normalise_rule(text: str) -> str:
    """Return a rule such as "ndvi<0" with single blanks; refuse what is no rule."""
    return " ".join(_parse_rule(text))


def _parse_rule(text: str) -> tuple[str, str, str]:
    """Return layer, comparison and number, as texts, of a rule such as "ndvi < 0".

    Raises:
        ValueError: If the text is no rule.
    """
    match = _RULE.fullmatch(text)
    if match is None:
        msg = f"{text!r} is no rule; write LAYER, one of < <= > >=, and a NUMBER, such as 'ndvi < 0'"
        raise ValueError(msg)
    return match[1], match[2], match[3]


class PolygonSettings(Settings):
    """Objects: how probabilities become polygons, and which are left out."""

    threshold: Literal["bundle"] | Probability = "bundle"
    """Objects are where the probability is above it; bundle: the one chosen on validation, else 0.5."""
    seed: Literal["bundle"] | Probability | None = "bundle"
    """Hysteresis: only objects with a probability above it somewhere; null: all; bundle: as chosen on validation."""
    smoothing_px: Literal["bundle"] | Annotated[float, Field(ge=0, le=5)] = "bundle"
    """Deviation, in pixels, of the Gaussian that probabilities are smoothed by before all else; 0: none; bundle: as
    chosen on validation. Threshold, seed and smoothing were chosen together, and apply together: where one of them is
    given here, none is the bundle's but the threshold, in its version without the others."""
    opening_m: float = Field(default=0.0, ge=0, le=1000)
    """Opening: parts of an object into which a disc of this radius does not fit are taken off; 0: none."""
    fill_holes_m2: float = Field(default=0.0, ge=0)
    """Smaller holes are filled, unless something is missing in them or another object lies in them; 0: none."""
    min_area_m2: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    """Minimum mapping unit: smaller objects are left out; auto: those below 200 m2 or 4 pixels, whichever is more, and
    slivers along missing pixels; 0: none. What is left out lies in a layer of its own, with the reason."""
    drop: tuple[Annotated[str, AfterValidator(_normalise_rule)], ...] = ()
    """Rules such as `ndvi < 0`: objects whose mean of any layer, seen by the network or not, is so are left out."""
    simplify_m: Metres = 0.0
    """About how far, in metres, outlines are moved to have fewer corners; numbers stay those of the pixels; 0: not."""

    @model_validator(mode="after")
    def _check_seed(self) -> Self:
        """Refuse a seed below the threshold: it would change nothing."""
        if isinstance(self.seed, float) and self.threshold != "bundle" and self.seed < self.threshold:
            msg = f"seed is {self.seed:g}, below the threshold of {self.threshold:g}, so all objects have one; raise it"
            raise ValueError(msg)
        return self

    @property
    def leaves_to_bundle(self) -> bool:
        """True if threshold, seed and smoothing are all left to the bundle."""
        return self.threshold == self.seed == self.smoothing_px == "bundle"

    def decided(self, threshold: float, *, seed: float | None = None, smoothing_px: float = 0.0) -> Self:
        """Return a copy with the bundle's threshold, seed and smoothing where asked for."""
        own = {
            "threshold": threshold if self.threshold == "bundle" else self.threshold,
            "seed": seed if self.seed == "bundle" else self.seed,
            "smoothing_px": smoothing_px if self.smoothing_px == "bundle" else self.smoothing_px,
        }
        return self.model_copy(update=own)

    @property
    def rules(self) -> tuple[tuple[str, str, float], ...]:
        """Layer, comparison and number of each rule by which objects are left out."""
        return tuple((layer, sign, float(number)) for layer, sign, number in map(_parse_rule, self.drop))

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers in the rules, each once."""
        return tuple(dict.fromkeys(layer for layer, _, _ in self.rules))


class OutputSettings(Settings):
    """Files of a map: their formats and names."""

    probability: Literal["uint8", "float32"] = "uint8"
    """Storage of probabilities: hundredths in one byte, or full."""
    vectors: tuple[Literal["gpkg", "shp", "parquet"], ...] = ("gpkg",)
    """Formats of the polygons."""
    names: Literal["thawmap", "darts"] = "thawmap"
    """Names of the files: probability, mask and slumps; or probabilities, binarized and prediction_segments as DARTS
    has them."""
