"""Settings of gradient boosting: its trees, and the pixels that they learn from."""

from typing import Annotated

from pydantic import Field

from thawmap.config.inputs import Positive, Settings

_Share = Annotated[float, Field(gt=0, le=1)]


class TreeSettings(Settings):
    """Trees of gradient boosting, one for each epoch of a phase, and their pixels.

    All pixels of objects train, and of each tile some of the others, drawn anew in every phase.
    """

    leaves: int = Field(default=24, ge=2, le=256)
    """Most leaves of a tree."""
    rate: _Share = 0.1
    """Share of each tree's answer that counts; a phase may have one of its own, `lr`."""
    least_pixels: Positive = 20
    """Pixels that a leaf holds at least."""
    bins: int = Field(default=255, ge=7, le=255)
    """Values of a layer that a tree can divide at; fewer make maps faster."""
    near_px: Positive = 12
    """Distance from an object up to which a pixel is near it."""
    near: float = Field(default=3.0, ge=0, le=1000)
    """Near pixels that train, for each pixel of the tile's objects."""
    far: float = Field(default=6.0, ge=0, le=1000)
    """Other pixels that train, for each pixel of the tile's objects."""
    least: Positive = 60
    """Near ones and others that train of a tile at least, each, as far as there are."""
