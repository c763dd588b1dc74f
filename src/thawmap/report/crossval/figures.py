"""Figures of a cross-validation, after the paper's Figures 4, 5, 9 and A10, in the style of all others."""

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
    """Mean and standard deviation of IoU over trainings: by epoch, and with each training's epochs sorted.

    Args:
        curves: What to draw, a line each.
        begins: Phase to its first epoch, from 1.
        sorted_until: Epochs of the first phase, which are sorted from best to worst.
    """
    names = {name: f"{name} (n = {len(values)})" for name, values in curves.items()}
    rows = -(-len(names) // legend_columns(names.values(), 8.4))
    figure = Figure(figsize=(8.6, 3.1 + 0.2 * rows), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, (name, values) in enumerate(curves.items()):
        look = {"color": LINES[place % len(LINES)], "linestyle": DASHES[place // len(LINES) % len(DASHES)]}
        _band(left, values, look, names[name])
        ranked = -np.sort(-values[:, :sorted_until], axis=1)  # NaN come last
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
    """Scores by epoch of one training each: where it trained, and where it was held out.

    Args:
        logs: Title to epochs of a training, with ``epoch``, ``split`` and the scores.
        begins: Phase to its first epoch, from 1.
    """
    lines = sum(1 + len(title) // 40 for title in logs)
    figure = Figure(figsize=(8.6, 0.7 + 2.15 * len(logs) + 0.16 * lines), layout="constrained")
    rows = figure.subplots(len(logs), 2, squeeze=False, sharex=True, sharey=True)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    for (title, log), panels in zip(logs.items(), rows, strict=True):
        for axes, (split, said) in zip(panels, (("train", "training folds"), ("test", "held out")), strict=True):
            part = log[log["split"] == split].sort_values("epoch")
            for metric, colour in _METRICS.items():
                marker = "." if len(part) < 30 else ""
                axes.plot(part["epoch"], part[metric], color=colour, marker=marker, label=TITLES[metric])
            _mark_phases(axes, begins)
            axes.set(title=wrapped(f"{next(letters)}  {title}: {said}", 3.8, letter=0.084), ylim=(0, 1))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            axes.grid(visible=True)
    for axes in rows[-1]:
        axes.set_xlabel("Epoch")
    handles, labels = rows[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


@styled
def choices(scored: pd.DataFrame) -> Figure:
    """IoU of every training on the fold that it held out, by how epoch and threshold were chosen; means as lines.

    Args:
        scored: Rows with ``fold``, ``choice`` and ``iou``.
    """
    folds = sorted(scored["fold"].unique())
    figure = Figure(figsize=(8.6, 1.5 + 0.55 * len(folds)), layout="constrained")
    axes = figure.add_subplot()
    step = 0.8 / len(_CHOICES)
    for number, (choice, (_, look)) in enumerate(_CHOICES.items()):
        for row, fold in enumerate(folds):
            values = scored[(scored["fold"] == fold) & (scored["choice"] == choice)]["iou"].dropna()
            height = row + (number - (len(_CHOICES) - 1) / 2) * step
            axes.plot(values, np.full(len(values), height), linestyle="none", markersize=5, alpha=0.8, **look)
            if len(values) > 1:
                axes.plot(2 * [values.mean()], [height - 0.4 * step, height + 0.4 * step], color=INK, linewidth=1.6)
    axes.set_yticks(range(len(folds)), folds, color=INK)
    axes.set_ylim(len(folds) - 0.5, -0.5)
    highest = math.ceil(10 * max(scored["iou"].fillna(0).max(), 0.1)) / 10
    axes.set(xlim=(-0.02 * highest, 1.02 * highest), xlabel="IoU on the held-out fold")
    axes.grid(axis="x")
    axes.hlines(np.arange(len(folds) - 1) + 0.5, 0, 1, color="#e8ecf0", linewidth=0.8)
    axes.spines[:].set_visible(False)
    shown = [(said, look) for choice, (said, look) in _CHOICES.items() if (scored["choice"] == choice).any()]
    keys = [Line2D([], [], linestyle="none", markersize=6, label=said, **look) for said, look in shown]
    figure.legend(handles=keys, loc="outside lower center", ncols=2)
    return figure


@styled
def differences(table: pd.DataFrame) -> Figure:
    """Paired differences of IoU with their 95 % intervals, of means over folds and of all folds' counts.

    Args:
        table: Rows with ``key`` (what differs), ``a``, ``b``, ``mean``, ``pooled`` and their ``_low`` and ``_high``.
    """
    figure = Figure(figsize=(8.6, 1.2 + 0.34 * len(table)), layout="constrained")
    axes = figure.add_subplot()
    for name, (said, marker, colour, beside) in _DIFFERENCES.items():
        rows = np.arange(len(table)) + beside
        axes.hlines(rows, table[f"{name}_low"], table[f"{name}_high"], color=colour, linewidth=1.7)
        axes.plot(table[name], rows, linestyle="none", marker=marker, color=colour, markersize=5.5, label=said)
    axes.axvline(0, color=MUTED, linewidth=0.9)
    compared = [_compared(*row) for row in table[["key", "a", "b"]].itertuples(index=False, name=None)]
    axes.set_yticks(range(len(table)), compared, color=INK)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlabel("Difference of IoU")
    axes.grid(axis="x")
    axes.spines[:].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _compared(key: str, a: str, b: str) -> str:
    """Two values, with the last word of the key they belong to."""
    pair = f"{a}  less  {b}"
    return pair if key == "configuration" else f"{key.rsplit('.', 1)[-1]}:  {pair}"


def _band(axes: Axes, values: npt.NDArray[np.float64], look: Mapping[str, Any], label: str) -> None:
    """Mean and standard deviation of the columns, where any row is known."""
    known = (~np.isnan(values)).any(axis=0)
    places = 1 + np.flatnonzero(known)
    mean, spread = np.nanmean(values[:, known], axis=0), np.nanstd(values[:, known], axis=0)
    axes.fill_between(places, mean - spread, mean + spread, color=look["color"], alpha=0.14, linewidth=0)
    axes.plot(places, mean, marker="." if len(places) < 30 else "", label=label, **look)


def _mark_phases(axes: Axes, begins: Mapping[str, int]) -> None:
    """A dotted line where a phase begins, with its name; nothing for a single one."""
    for phase, first in begins.items() if len(begins) > 1 else ():
        axes.axvline(first - 0.5 * (first > 1), color=MUTED, linewidth=0.8, linestyle=":")
        place = axes.get_xaxis_transform()
        axes.text(first - 0.5 * (first > 1), 0.99, f" {phase}", transform=place, color=MUTED, size=7, va="top")


def curves(held_out: pd.DataFrame, by: str, names: Sequence[str]) -> Curves:
    """IoU (training, epoch) of the trainings of each name.

    Args:
        held_out: Rows with ``fold``, ``configuration``, ``seed``, ``epoch``, ``iou`` and the column ``by``.
        by: Column of the names.
        names: What to draw, in order.
    """
    last = int(held_out["epoch"].max())
    found = {}
    for name in names:
        part = held_out[held_out[by] == name]
        table = part.pivot_table(index=["fold", "configuration", "seed"], columns="epoch", values="iou")
        values = table.reindex(columns=range(1, last + 1)).to_numpy(np.float64)
        if values.size:
            found[name] = values
    return found
