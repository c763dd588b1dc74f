"""The strip below a quicklook: a scale bar, a north arrow and a caption."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from odc.geo.geobox import GeoBox

from thawmap.data.sources.base import Scene
from thawmap.geo.metres import width_and_bearing

STRIP_PX = 84
"""Height of the strip."""

_INK, _PAPER = "#1b2733", "#ffffff"
_LETTER_PX = 11.5  # width of a letter
_DPI = 100


def caption(scene: Scene) -> str:
    """Return a scene's id and, where known, its UTC time as one line of text."""
    return scene.id if scene.acquired is None else f"{scene.id}  {scene.acquired:%Y-%m-%d %H:%M} UTC"


def captioned(image: npt.NDArray[np.uint8], grid: GeoBox, text: str) -> npt.NDArray[np.uint8]:
    """Return an image with a strip of scale bar, north arrow and text below it.

    The image (y, x, 3), uint8, shows the whole grid at any size; the result is `STRIP_PX` higher.
    """
    width = image.shape[1]
    strip = Figure(figsize=(width / _DPI, STRIP_PX / _DPI), dpi=_DPI, facecolor=_PAPER)
    axes = strip.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, STRIP_PX))
    axes.set_axis_off()
    metres, up = width_and_bearing(grid)
    with rc_context({"text.parse_math": False}):
        if math.isfinite(metres):
            _scale_bar(axes, metres * grid.width / width, width)
            _north(axes, -math.radians(up), width)
        axes.text(10, 22, _shortened(text, width), color=_INK, size=13, va="center")
    canvas: Any = FigureCanvasAgg(strip)
    canvas.draw()
    below = np.asarray(canvas.buffer_rgba())[:, :width, :3]
    return np.concatenate([image, below])


def _scale_bar(axes: Axes, metres: float, width: int) -> None:
    """Draw a labelled bar of 1, 2 or 5 x 10^n metres, at most a quarter of the width.

    ``metres`` are those of one pixel of the image.
    """
    most = metres * width / 4
    power = 10.0 ** math.floor(math.log10(most))
    length = max(step * power for step in (1, 2, 5) if step * power <= most)
    end = 10 + length / metres
    axes.plot([10, end], [60, 60], color=_INK, linewidth=3, solid_capstyle="butt")
    label = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    axes.text(end + 8, 60, label, color=_INK, size=13, va="center")


def _north(axes: Axes, turn: float, width: int) -> None:
    """Draw the letter N and an arrow, turned clockwise by an angle in radians.

    It points to the true north at the middle of the image, by ``turn`` from the image's top.
    """
    right, up = 20 * math.sin(turn), 20 * math.cos(turn)
    x, y = width - 28, 58
    arrow = {"arrowstyle": "-|>,head_width=0.35,head_length=0.6", "color": _INK, "linewidth": 1.8}
    axes.annotate("", (x + right, y + up), (x - right, y - up), arrowprops=arrow)
    axes.text(x - 30, y, "N", color=_INK, size=14, weight="bold", ha="center", va="center")


def _shortened(text: str, width: int) -> str:
    """Return a text on one line, shortened in its middle to fit a width in pixels."""
    most = max(4, int((width - 20) / _LETTER_PX))
    line = " ".join(text.split("\n"))
    return line if len(line) <= most else f"{line[: most // 2 - 1]}…{line[-(most - most // 2) :]}"
