"""The strip below a quicklook: how long a kilometre is, where north is, what the picture is of."""

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
    """Id of a scene, and its time where that is known."""
    return scene.id if scene.acquired is None else f"{scene.id}  {scene.acquired:%Y-%m-%d %H:%M} UTC"


def captioned(image: npt.NDArray[np.uint8], grid: GeoBox, text: str) -> npt.NDArray[np.uint8]:
    """Add a strip with scale bar, north arrow and text below an image (y, x, 3) of a whole grid."""
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
    """A bar of 1, 2 or 5 times a power of ten metres, at most a quarter of the width."""
    most = metres * width / 4
    power = 10.0 ** math.floor(math.log10(most))
    length = max(step * power for step in (1, 2, 5) if step * power <= most)
    end = 10 + length / metres
    axes.plot([10, end], [60, 60], color=_INK, linewidth=3, solid_capstyle="butt")
    said = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    axes.text(end + 8, 60, said, color=_INK, size=13, va="center")


def _north(axes: Axes, turn: float, width: int) -> None:
    """An arrow to the true north at the middle of the image, clockwise from its top by ``turn``."""
    right, up = 20 * math.sin(turn), 20 * math.cos(turn)
    x, y = width - 28, 58
    arrow = {"arrowstyle": "-|>,head_width=0.35,head_length=0.6", "color": _INK, "linewidth": 1.8}
    axes.annotate("", (x + right, y + up), (x - right, y - up), arrowprops=arrow)
    axes.text(x - 30, y, "N", color=_INK, size=14, weight="bold", ha="center", va="center")


def _shortened(text: str, width: int) -> str:
    """The text, with its middle left out where it is longer than the strip."""
    most = max(4, int((width - 20) / _LETTER_PX))
    shown = " ".join(text.split("\n"))
    return shown if len(shown) <= most else f"{shown[: most // 2 - 1]}…{shown[-(most - most // 2) :]}"
