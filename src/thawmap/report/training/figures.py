"""The sheet of tiles in the report of a training."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from thawmap.data.labels.polygons import IGNORE
from thawmap.report.figures import halo, outline
from thawmap.report.style import INK, PROBABILITY, SKY, YELLOW, styled


class SheetTile(NamedTuple):
    """A tile as it is drawn on the sheet.

    Attributes:
        name: Title above the image.
        fault: What is wrong with it, the title above the probability.
        image: (y, x, 3) uint8.
        probability: (y, x), 0..1; NaN = missing.
        target: (y, x) uint8; 1 object, 0 not, 255 not scored.
    """

    name: str
    fault: str
    image: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.floating]
    target: npt.NDArray[np.uint8]


_INCHES = 2.1  # side of a tile on the sheet


@styled
def tile_sheet(tiles: Sequence[SheetTile], *, threshold: float) -> Figure:
    """Return a figure of tiles: image, probability, labelled and predicted outlines.

    Two tiles are in a row.

    Args:
        tiles: The tiles, at least one.
        threshold: Outlines of the prediction stand where the probability is above it.
    """
    rows = -(-len(tiles) // 2)
    figure = Figure(figsize=(8.6, (_INCHES + 0.27) * rows + 0.35), layout="constrained")
    panels = figure.subplots(rows, 4, squeeze=False).reshape(-1, 2)
    # a network that is sure of nothing would show black tiles: white is the least of these limits above all
    highest = max(float(np.nanmax(tile.probability, initial=0.0)) for tile in tiles)
    ceiling = next(limit for limit in (0.25, 0.5, 1.0) if highest <= limit)
    for pair, tile in zip(panels, tiles, strict=False):
        pair[0].imshow(tile.image, interpolation="nearest")
        valid = np.ma.masked_invalid(tile.probability)
        pair[1].imshow(valid, cmap=PROBABILITY, norm=Normalize(0, ceiling), interpolation="nearest")
        for axes, title in zip(pair, (tile.name, tile.fault), strict=True):
            axes.set_title(title, size=7, weight="normal", color=INK)
            _draw_outlines(axes, tile, threshold)
    for pair in panels[len(tiles) :]:
        for axes in pair:
            axes.set_axis_off()
    keys = {YELLOW: "labelled", SKY: f"predicted (above {threshold:.2f})"}
    keys |= {"#ffffff": "not scored"} if any((tile.target == IGNORE).any() for tile in tiles) else {}
    figure.legend(
        handles=[Line2D([], [], color=colour, label=label, path_effects=halo()) for colour, label in keys.items()],
        title=f"probability: black 0, white {ceiling:g}{' or more' if ceiling < 1 else ''}",
        loc="outside lower center",
        ncols=3,
    )
    return figure


def _draw_outlines(axes: Axes, tile: SheetTile, threshold: float) -> None:
    """Draw a tile's outlines: not scored, labelled, predicted; hide the axes."""
    outline(axes, tile.target == IGNORE, colour="#ffffff", width=0.6)
    outline(axes, tile.target == 1, colour=YELLOW, width=1.0)
    outline(axes, tile.probability > threshold, colour=SKY, width=1.0)
    height, width = tile.target.shape
    axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.spines[:].set_visible(False)
