"""Figures of the calibration of probabilities, and of the scores of objects."""

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
    """Return a figure of the labelled share by predicted probability, by region.

    Bars below it show the number of all pixels in each step of probability.

    Args:
        curves: Pixels by probability and label, of each region.
        pixels: Pixels by probability and label, of all regions together.
    """
    few = len(curves) <= _FEW
    figure = Figure(figsize=(4.8 if few else 6.4, 5.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (1.5, 2)))  # where both are the same
    for number, (region, histogram) in enumerate(curves.items()):
        steps = reliability(histogram)
        filled = steps.pixels > 0
        above.plot(
            steps.predicted[filled],
            steps.observed[filled],
            color=LINES[number % len(LINES)],
            linestyle=DASHES[number // len(LINES) % len(DASHES)],
            marker=".",
            label=wrapped(f"{region} (error {calibration_error(histogram):.3f})", 2.6),
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


def _bars(axes: Axes, histogram: Histogram) -> None:
    """Draw bars of all pixels and of labelled ones by probability, on a log scale."""
    steps = reliability(histogram)
    edges = np.linspace(0, 1, len(steps.pixels) + 1)
    labelled = np.nan_to_num(steps.observed) * steps.pixels
    for pixels, colour in ((steps.pixels, RULE), (labelled, GREY)):
        axes.bar(edges[:-1], pixels, np.diff(edges) * 0.94, align="edge", color=colour)
    axes.set_yscale("log")
    plain_powers(axes.yaxis)
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="Predicted probability", ylabel="Pixels", ylim=(0.7, 30 * max(1, steps.pixels.max())))
    axes.legend(
        handles=[Line2D([], [], color=colour, linewidth=5) for colour in (RULE, GREY)],
        labels=["all", "labelled"],
        loc="upper right",
        ncols=2,
    )


@styled
def object_scores(table: pd.DataFrame) -> Figure:
    """Return a figure of precision, recall and F1 of objects by the IoU of a match.

    A second panel shows F1 by region, where there are several.

    Args:
        table: The table of objects at one threshold: scope, region, match, min_iou, precision, recall, f1.
    """
    pooled, regions = table[table["scope"] == "pooled"], table[table["scope"] == "region"]
    several = len(set(regions["region"])) > 1
    figure = Figure(figsize=(8.6 if several else 5.2, 3.4), layout="constrained")
    panels = figure.subplots(1, 1 + several, sharey=True, squeeze=False)[0]
    for (kind, colour), width in zip(_KINDS.items(), _WIDTHS, strict=True):
        _by_iou(panels[0], pooled, kind, colour, TITLES[kind], width)
    for number, (region, scores) in enumerate(regions.groupby("region", sort=False) if several else ()):
        _by_iou(panels[1], scores, "f1", LINES[number % len(LINES)], str(region) or "all")
    for axes, title in zip(panels, ("Together", "F1 by region"), strict=False):
        axes.set(title=title if several else "", xlim=(0.05, 1.1), ylim=(0, 1), xlabel="IoU of a match, at least")
        axes.set_xticks([0.1, 0.3, 0.5, 0.7, 0.9, 1.05], ["0.1", "0.3", "0.5", "0.7", "0.9", "by centres"])
        axes.grid(visible=True)
        axes.legend(loc="best")
    return figure


def _by_iou(axes: Axes, scores: pd.DataFrame, kind: str, colour: str, label: str, width: float = 1.7) -> None:
    """Draw a score of objects by the IoU of a match; diamonds for matches by centres."""
    by_iou = scores[scores["match"] == "iou"]
    look: dict[str, Any] = {"color": colour, "linewidth": width, "clip_on": False}
    axes.plot(by_iou["min_iou"].astype(float), by_iou[kind], marker=".", label=label, **look)
    by_centre = scores[scores["match"] == "centroid"]
    axes.plot([1.05] * len(by_centre), by_centre[kind], color=colour, marker="D", linestyle="none", clip_on=False)
