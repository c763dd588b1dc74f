"""Figures of a cross-validation, after the paper's Figures 4, 5, 9 and A10."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from thawmap.report.style import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    INK,
    LINES,
    MUTED,
    ORANGE,
    PINK,
    TITLES,
    legend_below,
    legend_columns,
    styled,
    wrapped,
)

_METRICS = {"iou": BLUE, "f1": GREEN, "precision": ORANGE, "recall": PINK}
_CHOICES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "chosen": ("chosen inside training: the result", {"marker": "o", "color": BLUE, "zorder": 4}),
    "half": ("the same epoch at 0.5", {"marker": "s", "color": GREY, "zorder": 3}),
    "paper": ("the paper's way: best epoch on this fold", {"marker": "D", "color": ORANGE, "markerfacecolor": "white"}),
    "oracle": ("best threshold in hindsight", {"marker": "^", "color": GREY, "markerfacecolor": "white"}),
}
_DIFFERENCES = {
    "mean": ("mean over folds", "o", BLUE, -0.13),
    "pooled": ("all folds' pixels together", "s", GREY, 0.13),
}

Curves = Mapping[str, npt.NDArray[np.float64]]
"""IoU (training, epoch) by name; NaN where a training has no such epoch, or its IoU is not defined."""


@styled
def by_epoch_and_rank(curves: Curves, *, begins: Mapping[str, int], sorted_until: int) -> Figure:
    """Return a figure of mean IoU with spread, by epoch and by rank of the epoch.

    Args:
        curves: What to draw, a line each.
        begins: First epoch of each phase, from 1.
        sorted_until: Epochs of the first phase, which are sorted from best to worst.
    """
    names = {name: f"{name} (n = {len(iou)})" for name, iou in curves.items()}
    rows = -(-len(names) // legend_columns(names.values(), 8.4))
    figure = Figure(figsize=(8.6, 3.1 + 0.2 * rows), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for number, (name, iou) in enumerate(curves.items()):
        look = {"color": LINES[number % len(LINES)], "linestyle": DASHES[number // len(LINES) % len(DASHES)]}
        _band(left, iou, look, names[name])
        ranked = -np.sort(-iou[:, :sorted_until], axis=1)  # NaN come last
        _band(right, ranked, look, names[name])
    _mark_phases(left, begins)
    first = next(iter(begins))
    left.set(xlabel="Epoch", ylabel="IoU on the held-out fold", title="a  By epoch")
    right.set(xlabel="Rank of the epoch", title=f"b  Best to worst{f', {first}' if len(begins) > 1 else ''}")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.grid(visible=True)
    handles, labels = left.get_legend_handles_labels()
    legend_below(figure, handles, labels)
    return figure


@styled
def phases(logs: Mapping[str, pd.DataFrame], *, begins: Mapping[str, int]) -> Figure:
    """Return a figure of scores by epoch, a row per training: trained on, held out.

    Args:
        logs: Title to epochs of a training, with ``epoch``, ``split`` and the scores.
        begins: First epoch of each phase, from 1.
    """
    lines = sum(1 + len(title) // 40 for title in logs)
    figure = Figure(figsize=(8.6, 0.7 + 2.15 * len(logs) + 0.16 * lines), layout="constrained")
    rows = figure.subplots(len(logs), 2, squeeze=False, sharex=True, sharey=True)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    for (title, log), panels in zip(logs.items(), rows, strict=True):
        for axes, (split, words) in zip(panels, (("train", "training folds"), ("test", "held out")), strict=True):
            epochs = log[log["split"] == split].sort_values("epoch")
            for metric, colour in _METRICS.items():
                marker = "." if len(epochs) < 30 else ""
                axes.plot(epochs["epoch"], epochs[metric], color=colour, marker=marker, label=TITLES[metric])
            _mark_phases(axes, begins)
            axes.set(title=wrapped(f"{next(letters)}  {title}: {words}", 3.8, letter=0.084), ylim=(0, 1))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            axes.grid(visible=True)
    for axes in rows[-1]:
        axes.set_xlabel("Epoch")
    handles, labels = rows[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


@styled
def choices(scored: pd.DataFrame) -> Figure:
    """Return a figure of held-out IoU of each training, by fold and way of choosing.

    A black line is the mean of several trainings.

    Args:
        scored: Rows with ``fold``, ``choice`` and ``iou``.
    """
    folds = sorted(scored["fold"].unique())
    figure = Figure(figsize=(8.6, 1.5 + 0.55 * len(folds)), layout="constrained")
    axes = figure.add_subplot()
    step = 0.8 / len(_CHOICES)
    for number, (choice, (_, look)) in enumerate(_CHOICES.items()):
        for row, fold in enumerate(folds):
            iou = scored[(scored["fold"] == fold) & (scored["choice"] == choice)]["iou"].dropna()
            height = row + (number - (len(_CHOICES) - 1) / 2) * step
            axes.plot(iou, np.full(len(iou), height), linestyle="none", markersize=5, alpha=0.8, **look)
            if len(iou) > 1:
                axes.plot(2 * [iou.mean()], [height - 0.4 * step, height + 0.4 * step], color=INK, linewidth=1.6)
    axes.set_yticks(range(len(folds)), folds, color=INK)
    axes.set_ylim(len(folds) - 0.5, -0.5)
    highest = math.ceil(10 * max(scored["iou"].fillna(0).max(), 0.1)) / 10
    axes.set(xlim=(-0.02 * highest, 1.02 * highest), xlabel="IoU on the held-out fold")
    axes.grid(axis="x")
    axes.hlines(np.arange(len(folds) - 1) + 0.5, 0, 1, color="#e8ecf0", linewidth=0.8)
    axes.spines[:].set_visible(False)
    drawn = [(words, look) for choice, (words, look) in _CHOICES.items() if (scored["choice"] == choice).any()]
    keys = [Line2D([], [], linestyle="none", markersize=6, label=words, **look) for words, look in drawn]
    figure.legend(handles=keys, loc="outside lower center", ncols=2)
    return figure


@styled
def differences(table: pd.DataFrame) -> Figure:
    """Return a figure of IoU differences, mean and pooled, with 95 % intervals.

    Args:
        table: Rows with ``key`` (what differs), ``a``, ``b``, ``mean``, ``pooled`` and their ``_low`` and ``_high``.
    """
    figure = Figure(figsize=(8.6, 1.2 + 0.34 * len(table)), layout="constrained")
    axes = figure.add_subplot()
    for name, (words, marker, colour, offset) in _DIFFERENCES.items():
        rows = np.arange(len(table)) + offset
        axes.hlines(rows, table[f"{name}_low"], table[f"{name}_high"], color=colour, linewidth=1.7)
        axes.plot(table[name], rows, linestyle="none", marker=marker, color=colour, markersize=5.5, label=words)
    axes.axvline(0, color=MUTED, linewidth=0.9)
    labels = []
    for key, a, b in table[["key", "a", "b"]].itertuples(index=False, name=None):
        pair = f"{a}  less  {b}"
        labels.append(pair if key == "configuration" else f"{key.rsplit('.', 1)[-1]}:  {pair}")
    axes.set_yticks(range(len(table)), labels, color=INK)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlabel("Difference of IoU")
    axes.grid(axis="x")
    axes.spines[:].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _band(axes: Axes, iou: npt.NDArray[np.float64], look: Mapping[str, Any], label: str) -> None:
    """Draw the mean of columns of IoU as a line, with a band of one std; NaN left out."""
    defined = (~np.isnan(iou)).any(axis=0)
    columns = 1 + np.flatnonzero(defined)
    mean, spread = np.nanmean(iou[:, defined], axis=0), np.nanstd(iou[:, defined], axis=0)
    axes.fill_between(columns, mean - spread, mean + spread, color=look["color"], alpha=0.14, linewidth=0)
    axes.plot(columns, mean, marker="." if len(columns) < 30 else "", label=label, **look)


def _mark_phases(axes: Axes, begins: Mapping[str, int]) -> None:
    """Draw a dotted line and a name where each phase begins; none for a single phase."""
    for phase, first in begins.items() if len(begins) > 1 else ():
        x = first - 0.5 * (first > 1)
        axes.axvline(x, color=MUTED, linewidth=0.8, linestyle=":")
        below_top = axes.get_xaxis_transform()  # x as epochs, y as a share of the panel's height
        axes.text(x, 0.99, f" {phase}", transform=below_top, color=MUTED, size=7, va="top")


def curves(held_out: pd.DataFrame, by: str, names: Sequence[str]) -> Curves:
    """Return an array of IoU (training, epoch) per name, without names of no training.

    Args:
        held_out: Rows with ``fold``, ``configuration``, ``seed``, ``epoch``, ``iou`` and the column ``by``.
        by: Column of the names.
        names: What to draw, in order.
    """
    last = int(held_out["epoch"].max())
    curves = {}
    for name in names:
        epochs = held_out[held_out[by] == name]
        table = epochs.pivot_table(index=["fold", "configuration", "seed"], columns="epoch", values="iou")
        iou = table.reindex(columns=range(1, last + 1)).to_numpy(np.float64)
        if iou.size:
            curves[name] = iou
    return curves
