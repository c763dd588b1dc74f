"""The figure of a tuning: validation IoU of its trials by order and by each key."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from thawmap.report.style import BLUE, GREY, INK, ORANGE, plain_powers, styled

_LOOKS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "finished": ("finished", {"color": BLUE, "marker": "o", "zorder": 3}),
    "pruned": ("given up", {"color": GREY, "marker": "o", "markerfacecolor": "white", "zorder": 2}),
}
_ACROSS = 3  # panels in a row
_LETTERS = 40  # what a panel's width holds
_WIDE = 30.0  # a range whose ends differ by more than this factor is drawn on a logarithmic axis


@styled
def trials_figure(table: pd.DataFrame, keys: Sequence[str]) -> Figure:
    """Return a figure of trials' validation IoU by number and by key, best ringed.

    Args:
        table: A row per trial with ``trial``, ``state``, ``validation_iou`` and the keys; failed ones are not drawn.
        keys: Columns that were searched.
    """
    drawn = table[table["state"].isin(_LOOKS) & table["validation_iou"].notna()]
    finished = drawn[drawn["state"] == "finished"]
    best = finished.sort_values("validation_iou", ascending=False, kind="stable").iloc[0]
    panels = 1 + len(keys)
    rows = -(-panels // _ACROSS)
    figure = Figure(figsize=(8.6, 0.4 + 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, min(panels, _ACROSS), squeeze=False, sharey=True).ravel()
    _by_number(axes[0], drawn, finished)
    for panel, key in zip(axes[1:], keys, strict=False):
        _by_key(panel, drawn, key)
    for number, (panel, name) in enumerate(zip(axes, ("trial", *keys), strict=False)):
        x = best[name] if name == "trial" or not _is_listed(drawn[name]) else _listed(drawn[name]).index(best[name])
        ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "color": ORANGE, "linestyle": "none"}
        panel.plot([x], [best["validation_iou"]], zorder=4, label="best", **ring)
        panel.set_title(f"{'abcdefghijklmnopqrstuvwxyz'[number % 26]}  {'By trial' if name == 'trial' else name}")
        panel.grid(axis="y")
        panel.margins(y=0.12)
    for panel in axes[panels:]:
        panel.set_visible(False)
    for panel in axes[:: min(panels, _ACROSS)]:
        panel.set_ylabel("Validation IoU")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _by_number(axes: Axes, drawn: pd.DataFrame, finished: pd.DataFrame) -> None:
    """Draw trials' IoU as dots by trial number, and the best IoU so far as a line."""
    _dots(axes, drawn, drawn["trial"].to_numpy(float))
    axes.step(
        finished["trial"], finished["validation_iou"].cummax(), where="post", color=INK, lw=1, label="best so far"
    )
    axes.set_xlabel("Trial")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _by_key(axes: Axes, drawn: pd.DataFrame, key: str) -> None:
    """Draw trials' IoU as dots by a key's value, on a number axis or by listed names."""
    if not _is_listed(drawn[key]):
        numbers = drawn[key].to_numpy(float)
        _dots(axes, drawn, numbers)
        if numbers.min() > 0 and numbers.max() > _WIDE * numbers.min():
            axes.set_xscale("log")
            plain_powers(axes.xaxis)
        return
    names = _listed(drawn[key])
    _dots(axes, drawn, drawn[key].map(names.index).to_numpy(float))
    room = max(_LETTERS // len(names), 6)
    axes.set_xticks(range(len(names)), ["\n".join(textwrap.wrap(str(name), room)) for name in names])
    axes.set_xlim(-0.5, len(names) - 0.5)


def _dots(axes: Axes, drawn: pd.DataFrame, x: npt.NDArray[np.float64]) -> None:
    """Draw trials' validation IoU as dots over given x, filled or hollow by state."""
    for state, (label, look) in _LOOKS.items():
        in_state = (drawn["state"] == state).to_numpy()
        if in_state.any():
            iou = drawn["validation_iou"].to_numpy(float)[in_state]
            axes.plot(x[in_state], iou, linestyle="none", markersize=5, label=label, **look)


def _is_listed(values: pd.Series) -> bool:
    """Return whether a column holds words or booleans rather than numbers."""
    return not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)


def _listed(values: pd.Series) -> list[Any]:
    """Return the distinct values of a column, sorted as text."""
    return sorted(values.unique(), key=str)
