"""The one style of all figures: colours, fonts, legends and files.

Colours are from Okabe and Ito's palette, which people of every colour vision tell apart. Blue is the result,
grey is what it is compared with, and what only hindsight can know (the oracle) is drawn hollow.
"""

import io
import math
import pathlib
import textwrap
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from types import MappingProxyType
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.ticker import FuncFormatter, NullFormatter

from thawmap.files.atomic import atomic

INK, MUTED, RULE = "#1b2733", "#5b6875", "#d5dbe1"
BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, GREY = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#f0e442", "#9aa5b1",
)  # fmt: skip
LINES = (BLUE, ORANGE, GREEN, PINK, INK, SKY, "#e69f00", GREY)
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
PROBABILITY = LinearSegmentedColormap.from_list(
    "probability", ["#0a1622", "#12456b", "#4aa3d8", "#ffffff"]
).with_extremes(bad="#8b949d")
TITLES = {
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "object_f1": "Object F1",
    "loss": "Loss",
}

_SCRIPTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "Droid Sans Fallback",
    "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Noto Sans", "Unifont", "Symbola",
)  # fmt: skip
"""Families with letters that DejaVu Sans lacks; those that the machine has are asked after it."""

_STYLE: Any = MappingProxyType(
    {
        "text.parse_math": False,  # names of regions may hold any sign; no text of ours is a formula
        "font.size": 8.5,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": RULE,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": "#e8ecf0",
        "grid.linewidth": 0.8,
        "hatch.linewidth": 0.5,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "lines.linewidth": 1.7,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "pdf.fonttype": 42,
    }
)

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_Parameters = ParamSpec("_Parameters")


def styled(draw: Callable[_Parameters, Figure]) -> Callable[_Parameters, Figure]:
    """Decorate a drawing function to draw with the fonts and colours of all figures."""

    @wraps(draw)
    def in_style(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> Figure:
        with _style():
            return draw(*args, **kwargs)

    return in_style


@contextmanager
def _style() -> Iterator[None]:
    """Set matplotlib's style within a with-block, without warnings of missing letters.

    A letter that no font has is drawn as a box.
    """
    fonts = ["DejaVu Sans", *(name for name in _SCRIPTS if name in _families())]
    with mpl.rc_context({**_STYLE, "font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@cache
def _families() -> frozenset[str]:
    """Return the names of all font families on the machine, looked up once."""
    return frozenset(get_font_names())


def png(figure: Figure, *, dpi: int = 160) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def write_figure(path: pathlib.Path, figure: Figure) -> None:
    """Write a figure atomically, in the format of its suffix (.png, .pdf, .svg)."""
    with atomic(path) as temporary, _style():
        figure.savefig(temporary, dpi=200)


def wrapped(text: str, width: float, *, letter: float = 0.078) -> str:
    """Return a text broken into at most three lines that fit a width in inches.

    An ellipsis ends what does not fit. Letters of legends are 0.078 inches wide, of titles 0.084.
    """
    return "\n".join(textwrap.wrap(text, max(8, int(width / letter)), max_lines=3, placeholder=" …")) or text


def legend_columns(labels: Collection[str], width: float) -> int:
    """Return the number of legend columns, 1 to 4, that fit a width in inches."""
    longest = max(map(len, labels), default=0)
    return max(1, min(4, len(labels), int(width / (0.5 + 0.078 * longest))))


def legend_below(figure: Figure, keys: Sequence[Artist], labels: Sequence[str]) -> None:
    """Add a legend under a figure, labels wrapped, in as many columns as fit."""
    width = float(figure.get_size_inches()[0]) - 0.2
    columns = legend_columns(labels, width)
    texts = [wrapped(label, width / columns - 0.5) for label in labels]
    figure.legend(keys, texts, loc="outside lower center", ncols=columns)


def plain_powers(axis: Axis) -> None:
    """Label a logarithmic axis at powers of ten as plain text, with raised digits.

    The usual labels are formulas, which are switched off for all text of a figure.
    """
    axis.set_major_formatter(FuncFormatter(lambda tick, _: "10" + str(round(math.log10(tick))).translate(_RAISED)))
    axis.set_minor_formatter(NullFormatter())
