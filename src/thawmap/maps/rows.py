"""Rows of probability, as mapping hands them on and a map is written from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Finished rows of a scene.

    Attributes:
        first_row: Where they begin.
        probability: (rows, scene's width), float32, 0..1; NaN where the scene is not valid. Of several networks the
            mean.
        spread: Of the same shape, the standard deviation between several networks; None of one alone.
        layers: Further layers by name, of the same shape, float32 in physical units, NaN = missing: those that the
            polygons' rules ask for.
        further: Values of further rasters by name, of the same shape: those that the map's job names.
    """

    first_row: int
    probability: npt.NDArray[np.floating]
    spread: npt.NDArray[np.floating] | None = None
    layers: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    further: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def part(self, first: int, end: int | None) -> "Rows":
        """Return some of the rows, counted from the first one here."""
        rows = slice(first, end)
        return replace(
            self,
            first_row=self.first_row + first,
            probability=self.probability[rows],
            spread=None if self.spread is None else self.spread[rows],
            layers={name: values[rows] for name, values in self.layers.items()},
            further={name: values[rows] for name, values in self.further.items()},
        )
