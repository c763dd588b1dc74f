"""Figures of what lies beside pixel scores: how far probabilities can be trusted, and objects by how well they fit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from thawmap.model.metrics.pixels import Histogram, calibration_error, reliability
from thawmap.report.style import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    LINES,
    MUTED,
    ORANGE,
    RULE,
    TITLES,
    plain_powers,
    styled,
    wrapped,
)

_FEW = 4  # lines whose names fit between them
_WIDTHS = (4.2, 2.7, 1.3)  # of the lines below, so that those that lie on each other are all seen
_KINDS = {"precision": ORANGE, "recall": GREEN, "f1": BLUE}


@styled
def reliability_diagram(curves: Mapping[str, Histogram], pixels: Histogram) -> Figure:
    """Share of labelled pixels by predicted probability, a line per name, above the number of all pixels.

    Args:
        curves: Pixels by probability and label, of each region.
        pixels: Those of all together.
    """
    few = len(curves) <= _FEW
    figure = Figure(figsize=(4.8 if few else 6.4, 5.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (1.5, 2)))
    for place, (name, counted) in enumerate(curves.items()):
        found, colour = reliability(counted), LINES[place % len(LINES)]
        known = found.pixels > 0
        above.plot(
            found.predicted[known],
            found.observed[known],
            color=colour,
            linestyle=DASHES[place // len(LINES) % len(DASHES)],
            marker=".",
            label=wrapped(f"{name} (error {calibration_error(counted):.3f})", 2.6),
            clip_on=False,
        )
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="Share that is labelled")
    above.grid(visible=True)
    _bars(below, pixels)
    if few:
        above.legend(loc="best")
    else:
        figure.legend(handles=above.get_legend_handles_labels()[0], loc="outside right upper", alignment="left")
    return figure


def _bars(axes: Axes, counted: Histogram) -> None:
    """Pixels in each step of probability, and of these the labelled ones, by powers of ten."""
    found = reliability(counted)
    edges = np.linspace(0, 1, len(found.pixels) + 1)
    labelled = np.nan_to_num(found.observed) * found.pixels
    for values, colour in ((found.pixels, RULE), (labelled, GREY)):
        axes.bar(edges[:-1], values, np.diff(edges) * 0.94, align="edge", color=colour)
    axes.set_yscale("log")
    plain_powers(axes.yaxis)
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="Predicted probability", ylabel="Pixels", ylim=(0.7, 30 * max(1, found.pixels.max())))
    axes.legend(
        handles=[Line2D([], [], color=colour, linewidth=5) for colour in (RULE, GREY)],
        labels=["all", "labelled"],
        loc="upper right",
        ncols=2,
    )


@styled
def object_scores(table: pd.DataFrame) -> Figure:
    """Scores of objects by the IoU that is asked of a match: all of them together, and F1 by region.

    Args:
        table: The table of objects at one threshold: scope, region, match, min_iou, precision, recall, f1.
    """
    pooled, regions = table[table["scope"] == "pooled"], table[table["scope"] == "region"]
    several = len(set(regions["region"])) > 1
    figure = Figure(figsize=(8.6 if several else 5.2, 3.4), layout="constrained")
    panels = figure.subplots(1, 1 + several, sharey=True, squeeze=False)[0]
    for (kind, colour), width in zip(_KINDS.items(), _WIDTHS, strict=True):
        _by_iou(panels[0], pooled, kind, colour, TITLES[kind], width)
    for place, (region, part) in enumerate(regions.groupby("region", sort=False) if several else ()):
        _by_iou(panels[1], part, "f1", LINES[place % len(LINES)], str(region) or "all")
    for axes, title in zip(panels, ("Together", "F1 by region"), strict=False):
        axes.set(title=title if several else "", xlim=(0.05, 1.1), ylim=(0, 1), xlabel="IoU of a match, at least")
        axes.set_xticks([0.1, 0.3, 0.5, 0.7, 0.9, 1.05], ["0.1", "0.3", "0.5", "0.7", "0.9", "by centres"])
        axes.grid(visible=True)
        axes.legend(loc="best")
    return figure


def _by_iou(axes: Axes, part: pd.DataFrame, kind: str, colour: str, label: str, width: float = 1.7) -> None:
    """A line over the asked IoU, and a diamond for matches by centre."""
    by_iou = part[part["match"] == "iou"]
    look: dict[str, Any] = {"color": colour, "linewidth": width, "clip_on": False}
    axes.plot(by_iou["min_iou"].astype(float), by_iou[kind], marker=".", label=label, **look)
    by_centre = part[part["match"] == "centroid"]
    axes.plot([1.05] * len(by_centre), by_centre[kind], color=colour, marker="D", linestyle="none", clip_on=False)
