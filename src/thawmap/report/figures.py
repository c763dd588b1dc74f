"""Figures of scores, curves and maps, all in one style."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from thawmap.model.metrics.pixels import BINS, Counts, Histogram, scores
from thawmap.report.style import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    INK,
    LINES,
    MUTED,
    ORANGE,
    PROBABILITY,
    RULE,
    SKY,
    TITLES,
    YELLOW,
    styled,
    wrapped,
)

_SHARES = LinearSegmentedColormap.from_list("shares", ["#f4f8fb", "#9fcae6", BLUE])
_SPLITS = {"train": GREY, "validation": BLUE, "test": ORANGE}


@styled
def confusion(counts: Counts) -> Figure:
    """Return a 2 x 2 figure of pixels by label and prediction, as shares and counts."""
    figure = Figure(figsize=(4.4, 3.4), layout="constrained")
    axes = figure.add_subplot()
    table = np.array([[counts.tp, counts.fn], [counts.fp, counts.tn]])
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap=_SHARES, vmin=0, vmax=1, aspect="auto")
    for (row, col), share in np.ndenumerate(shares):
        colour = "white" if share > 0.6 else INK
        axes.text(col, row - 0.06, f"{share:.1%}", ha="center", va="center", color=colour, size=15, weight="bold")
        axes.text(col, row + 0.2, f"{thousands(int(table[row, col]))} px", ha="center", va="center", color=colour)
    axes.set_xticks([0, 1], ["object", "not object"])
    axes.set_yticks([0, 1], ["object", "not object"], rotation=90, va="center")
    axes.set_xlabel("Predicted")
    axes.set_ylabel("Labelled")
    axes.set_xticks([0.5], minor=True)
    axes.set_yticks([0.5], minor=True)
    axes.grid(which="minor", color="white", linewidth=3)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    return figure


@styled
def region_scores(table: pd.DataFrame, *, metrics: tuple[str, ...] = ("iou", "precision", "recall", "f1")) -> Figure:
    """Return a figure of bars by region: a panel per score, a bar per threshold.

    Args:
        table: Rows with the columns region, threshold_name and the metrics; NaN draws no bar.
        metrics: Columns to draw, each a panel.
    """
    regions, names = list(dict.fromkeys(table["region"])), list(dict.fromkeys(table["threshold_name"]))
    figure = Figure(figsize=(8.6, 1.1 + 0.22 * len(regions) * (len(names) + 0.8)), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    height = 1 / (len(names) + 0.8)
    for axes, metric in zip(panels, metrics, strict=True):
        for number, name in enumerate(names):
            values = table[table["threshold_name"] == name].set_index("region")[metric].reindex(regions)
            rows = np.arange(len(regions)) + (number - (len(names) - 1) / 2) * height
            axes.barh(rows, values.fillna(0), height * 0.86, **_bar(name))
            for row, value in zip(rows, values, strict=True):
                text = "n/a" if math.isnan(value) else f"{value:.2f}"
                axes.text(min(np.nan_to_num(value), 1) + 0.02, row, text, va="center", size=7, color=MUTED)
        axes.set(title=TITLES.get(metric, metric), xlim=(0, 1.16), xticks=[0, 0.5, 1])
        axes.grid(axis="x")
        axes.spines[:].set_visible(False)
    panels[0].set_yticks(range(len(regions)), regions, color=INK)
    panels[0].set_ylim(len(regions) - 0.5, -0.5)
    keys = [Patch(label=threshold_label(name), **_bar(name)) for name in names]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(names))
    return figure


@styled
def precision_recall(curves: Mapping[str, Histogram], thresholds: Mapping[str, Mapping[str, float]]) -> Figure:
    """Return a figure of precision against recall by region, with thresholds marked.

    Args:
        curves: Histogram of each region.
        thresholds: By region, the name and value of the thresholds to mark; NaN is left out.
    """
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for iou in (0.2, 0.4, 0.6, 0.8):  # lines of equal IoU: 1 / IoU = 1 / precision + 1 / recall - 1
        recall = np.linspace(iou, 1, 100)
        axes.plot(recall, 1 / (1 / iou + 1 - 1 / recall), color=RULE, linewidth=0.9, zorder=0.5)
        axes.text(1.02, iou, f"IoU {iou}", color=MUTED, size=7, va="center")
    for number, (region, histogram) in enumerate(curves.items()):
        colour, dashes = LINES[number % len(LINES)], DASHES[number // len(LINES) % len(DASHES)]
        steps = [scores(histogram.counts(step / 100)) for step in range(BINS)]
        axes.plot(
            [step["recall"] for step in steps],
            [step["precision"] for step in steps],
            color=colour,
            linestyle=dashes,
            label=wrapped(region, 2),
        )
        for name, value in thresholds.get(region, {}).items():
            reached = scores(histogram.counts(value))
            axes.plot(reached["recall"], reached["precision"], **_marker(name, colour), clip_on=False, zorder=3)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="Recall", ylabel="Precision", aspect="equal")
    names = dict.fromkeys(name for marked in thresholds.values() for name in marked)
    keys = [Line2D([], [], label=threshold_label(name), **_marker(name, INK)) for name in names]
    lines = axes.get_legend_handles_labels()[0]
    figure.legend(handles=[*lines, *keys], loc="outside right upper", alignment="left")
    return figure


@styled
def training_curves(
    log: pd.DataFrame,
    *,
    metrics: Sequence[str] = ("loss", "iou", "precision", "recall"),
    chosen: tuple[str, int] | None = None,
) -> Figure:
    """Return a figure of loss and scores by epoch, a panel each, a line per split.

    Dotted lines begin a phase.

    Beside the IoU at 0.5 stands, dashed, that at the best threshold of the epoch's validation, where the log has it.

    Args:
        log: The training's CSV: phase, epoch, split and the metrics.
        metrics: Columns to draw, each a panel.
        chosen: Phase and epoch of the network that was kept, to mark.
    """
    epochs = list(dict.fromkeys(zip(log["phase"], log["epoch"], strict=True)))
    # each phase counts its epochs from 1: here they are numbered through
    numbers = {epoch: number for number, epoch in enumerate(epochs, start=1)}
    log = log.assign(number=[numbers[epoch] for epoch in zip(log["phase"], log["epoch"], strict=True)])
    columns = len(metrics) if len(metrics) <= 4 else -(-len(metrics) // 2)
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(8.6, 0.3 + 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, metric in zip(panels, metrics, strict=False):
        for split, of_split in log.groupby("split", sort=False):
            colour, marker = _SPLITS.get(str(split), INK), "." if len(epochs) < 30 else ""
            axes.plot(of_split["number"], of_split[metric], color=colour, marker=marker, label=split)
            if metric == "iou" and split == "validation" and "iou_at_threshold" in of_split:
                best = {"linestyle": (0, (4, 2)), "linewidth": 1.1, "label": "validation, at its best threshold"}
                axes.plot(of_split["number"], of_split["iou_at_threshold"], color=colour, **best)
        _mark_phases(axes, log)
        if chosen in numbers:
            axes.axvline(numbers[chosen], color=ORANGE, linewidth=1.1, alpha=0.8, zorder=0.9, label="chosen epoch")
        axes.set_title(TITLES.get(metric, metric), pad=15)
        axes.set_xlabel("Epoch")
        axes.set_xlim(0.5, len(epochs) + 0.5)
        axes.set_ylim(bottom=0, top=None if metric == "loss" else 1)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.grid(visible=True)
    for axes in panels[len(metrics) :]:
        axes.set_axis_off()
    keys = {label: key for axes in panels for key, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=len(keys))
    return figure


def _mark_phases(axes: Axes, log: pd.DataFrame) -> None:
    """Draw a dotted line and a name where each phase begins; none for a single phase."""
    begins = log.groupby("phase", sort=False)["number"].min()
    for phase, first in begins.items() if len(begins) > 1 else ():
        axes.axvline(float(first) - 0.5, color=MUTED, linewidth=0.8, linestyle=":")
        above = axes.get_xaxis_transform()  # x as epochs, y as a share of the panel's height
        axes.text(float(first) - 0.35, 1.02, str(phase), transform=above, color=MUTED, size=7)


@styled
def map_panel(
    image: npt.NDArray[np.uint8],
    probability: npt.NDArray[np.floating],
    target: npt.NDArray[np.uint8],
    *,
    threshold: float,
    pixel_m: float,
    ceiling: float = 1.0,
    mapped: npt.NDArray[np.bool_] | None = None,
) -> Figure:
    """Return a figure of image beside probability, with labelled and mapped outlines.

    Args:
        image: (y, x, 3) uint8.
        probability: (y, x), 0..1; NaN = missing.
        target: (y, x); 1 object, 0 not, 255 not scored.
        threshold: Outlines of the prediction stand where the probability is above it.
        pixel_m: Side of a pixel in metres, for the scale bar.
        ceiling: Probability that is drawn white.
        mapped: (y, x), where the map has objects; None: wherever the probability is above the threshold.
    """
    figure = Figure(figsize=(8.6, 3.9 * image.shape[0] / image.shape[1] + 0.42), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(image, interpolation="nearest")
    norm = Normalize(0, ceiling)
    right.imshow(np.ma.masked_invalid(probability), cmap=PROBABILITY, norm=norm, interpolation="nearest")
    for axes in (left, right):
        outline(axes, target == 255, colour="#ffffff", width=0.7)
        outline(axes, target == 1, colour=YELLOW)
        outline(axes, probability > threshold if mapped is None else mapped, colour=SKY)
        axes.set(xticks=[], yticks=[], xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
        axes.spines[:].set_visible(False)
    _scale_bar(left, image.shape[1], pixel_m)
    bar = figure.colorbar(
        ScalarMappable(norm, PROBABILITY),
        ax=right,
        fraction=0.05,
        pad=0.02,
        aspect=28,
        extend="max" if ceiling < 1 else "neither",
        extendfrac=0.03,
    )
    bar.outline.set_visible(False)
    bar.set_label("Probability")
    if threshold < ceiling:
        bar.ax.axhline(threshold, color=SKY, linewidth=2)
    keys = [
        Line2D([], [], color=YELLOW, label="labelled", path_effects=halo()),
        Line2D([], [], color=SKY, label=f"predicted (above {threshold:.2f})", path_effects=halo()),
    ]
    if (target == 255).any():
        keys.append(Line2D([], [], color="white", linewidth=1, label="not scored", path_effects=halo()))
    figure.legend(handles=keys, loc="outside lower left", ncols=3)
    return figure


def threshold_label(name: str) -> str:
    """Return words for a legend from a threshold's name, such as paper or oracle."""
    labels = {
        "paper": "at 0.5 (as in the paper)",
        "validation": "at the threshold chosen on validation",
        "mapped": "as the maps have it",
        "oracle": "oracle: best threshold in hindsight",
    }
    return labels.get(name, f"at the threshold {name!r}")


def thousands(value: int) -> str:
    """Return a number as text with narrow spaces between its thousands."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _bar(name: str) -> dict[str, Any]:
    """Return matplotlib arguments for a threshold's bars, hollow for the oracle."""
    if name == "oracle":
        return {"facecolor": "white", "edgecolor": GREY, "linewidth": 0.8, "hatch": "//////"}
    return {"facecolor": {"paper": GREY, "validation": BLUE}.get(name, GREEN)}


def _marker(name: str, colour: str) -> dict[str, Any]:
    """Return matplotlib arguments for a threshold's mark, hollow for the oracle."""
    shape = {"paper": "s", "validation": "o", "oracle": "D"}.get(name, "^")
    face = "white" if name == "oracle" else colour
    return {"marker": shape, "color": colour, "markerfacecolor": face, "markersize": 6.5, "linestyle": "none"}


def outline(axes: Axes, mask: npt.NDArray[np.bool_], *, colour: str, width: float = 1.3) -> None:
    """Draw a mask's outline along pixels' edges, in a colour over a dark line.

    Beyond the border of the image is outside. A dark line lies under the coloured one.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    rows, cols = np.nonzero(np.diff(padded, axis=0)[:, 1:-1])
    horizontal = np.stack([np.stack([cols, rows], -1), np.stack([cols + 1, rows], -1)], 1)
    rows, cols = np.nonzero(np.diff(padded, axis=1)[1:-1])
    vertical = np.stack([np.stack([cols, rows], -1), np.stack([cols, rows + 1], -1)], 1)
    edges = np.concatenate([horizontal, vertical]) - 0.5  # the centre of a pixel is a whole number
    if not len(edges):
        return
    path = Path(edges.reshape(-1, 2), np.tile([Path.MOVETO, Path.LINETO], len(edges)))
    under = PathPatch(path, fill=False, edgecolor="#0000008c", linewidth=width + 1.2, capstyle="butt")
    for patch in (under, PathPatch(path, fill=False, edgecolor=colour, linewidth=width, capstyle="projecting")):
        patch.set_in_layout(False)  # its extent, edge by edge, takes longer than all the rest
        axes.add_artist(patch)


def halo() -> list[Any]:
    """Return a list of path effects that put a dark halo round light lines or letters."""
    return [withStroke(linewidth=2.4, foreground="#00000088")]


def _scale_bar(axes: Axes, width: int, pixel_m: float) -> None:
    """Draw a labelled bar of 1, 2 or 5 x 10^n metres, at most a fifth of the width."""
    fifth = width * pixel_m / 5
    power = 10.0 ** math.floor(math.log10(fifth))
    length = max(step * power for step in (1, 2, 5) if step * power <= fifth)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    first, last, row = 0.04, 0.04 + length / pixel_m / width, 0.045
    look: dict[str, Any] = {"color": "white", "transform": axes.transAxes, "path_effects": halo()}
    axes.plot([first, last], [row, row], linewidth=3, **look)
    axes.text(first, row + 0.025, text, size=9, weight="bold", **look)
