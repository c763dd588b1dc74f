"""Tables of a cross-validation as people read them, on the page and in a paper."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from thawmap.report.crossval.analysis import (
    ARCHITECTURE,
    LARGE_PX,
    Crossval,
    by_configuration,
    by_fold,
    by_phase,
    compare,
    nested,
    table5,
    training_cost,
)
from thawmap.report.crossval.decided import by_views
from thawmap.report.crossval.sizes import by_size
from thawmap.report.html import rate, score

Column = tuple[str, Callable[[Any], str]]
"""A heading, and the function that writes a value as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as it stands on the page and in files.

    Attributes:
        name: Stem of its files.
        title: Its heading.
        note: How it is read.
        frame: All its numbers, as the CSV has them.
        columns: Column of the frame to its heading and format, for people.
    """

    name: str
    title: str
    note: str
    frame: pd.DataFrame
    columns: Mapping[str, Column]

    @property
    def headings(self) -> list[str]:
        """Headings of the columns, as a list in their order."""
        return [heading for heading, _ in self.columns.values()]

    @property
    def texts(self) -> list[int]:
        """Positions of the columns that hold words, not numbers."""
        return [number for number, (_, write) in enumerate(self.columns.values()) if write is str]

    @property
    def main(self) -> int | None:
        """Position of the IoU column that is the result; None where none is."""
        return next((number for number, name in enumerate(self.columns) if name in ("iou", "iou_pooled")), None)

    @property
    def latex(self) -> str:
        """The table as a LaTeX table environment with caption and label, by booktabs."""
        aligned = "".join("l" if number in self.texts else "r" for number in range(len(self.columns)))
        caption = re.sub(r"([&%$#_{}])", r"\\\1", f"{self.title}. {self.note}")
        cells = pd.DataFrame(self.rows, columns=[heading.strip() for heading in self.headings])
        label = f"tab:{self.name}"
        return cells.to_latex(index=False, escape=True, column_format=aligned, caption=caption, label=label)

    @property
    def rows(self) -> list[list[str]]:
        """Cells of each row as formatted texts, a list per row."""
        rows = self.frame.to_dict("records")
        return [[write(row[name]) for name, (_, write) in self.columns.items()] for row in rows]


def tables(cv: Crossval, scored: pd.DataFrame) -> list[Table]:
    """Return all tables of a cross-validation for page and files, without empty ones.

    Args:
        cv: The cross-validation.
        scored: The table of `thawmap.report.crossval.analysis.score_fits`.
    """
    built = [_inside(scored), _decided(cv), _sizes(cv, scored), _table5(cv, scored), _configurations(scored)]
    if len(cv.fits["configuration"].unique()) > 1:
        built.append(_regions(scored))
    compared = compare(cv, scored)
    if len(compared):
        built.append(_comparison(compared))
    if len(cv.phases) > 1:
        built.append(_phases(cv))
    if ARCHITECTURE in cv.keys and len(cv.keys) > 1:
        built.append(_training_cost(cv, by=ARCHITECTURE, name="compute_architectures"))
    built.append(_training_cost(cv, by="configuration", name="compute"))
    return [table for table in built if len(table.frame)]


def _inside(scored: pd.DataFrame) -> Table:
    return Table(
        name="result",
        title="The result: everything chosen inside training",
        note="Configuration, epoch and threshold of each fold are those with the best IoU on its inner folds: what "
        "somebody would have got who has no labels of the held-out fold.",
        frame=nested(scored).drop(columns="choice"),
        columns={
            "fold": ("Held out", str),
            "configuration": ("Configuration", str),
            "iou": ("IoU", score),
            "precision": ("Precision", score),
            "recall": ("Recall", score),
            "f1": ("F1", score),
            "threshold": ("Threshold", score),
            "epoch": ("Epoch", _integer),
            "validation": ("IoU on inner folds", score),
        },
    )


def _decided(cv: Crossval) -> Table:
    return Table(
        name="decided",
        title="Decided by smoothing, threshold, peak and least area together",
        note="Each fold by the decision that its inner folds chose, counts of all folds and seeds added; on single "
        "tiles, and on the mean of all that lie over the same ground, on one day and on all. Mean, large: over the "
        f"folds of at least {LARGE_PX} object pixels. Threshold, peak and smoothing: the median over trainings.",
        frame=by_views(cv),
        columns={
            "configuration": ("Configuration", str),
            "views": ("Probability", str),
            "iou": ("IoU", score),
            "precision": ("Precision", score),
            "recall": ("Recall", score),
            "f1": ("F1", score),
            "iou_mean_large": ("Mean, large", score),
            "threshold": ("Threshold", score),
            "peak": ("Peak", score),
            "smoothing_px": ("Smoothing, px", score),
        },
    )


def _sizes(cv: Crossval, scored: pd.DataFrame) -> Table:
    return Table(
        name="sizes",
        title="Objects by size",
        note="Counts of all folds and seeds added, at the thresholds chosen inside training. A labelled object is "
        "found where a tenth of it or more is mapped, a mapped one is false where less than a tenth of it is labelled; "
        "objects are cut by the edges of tiles.",
        frame=by_size(cv, scored).drop(columns="fits"),
        columns={
            "configuration": ("Configuration", str),
            "size": ("Size", str),
            "iou": ("IoU of pixels", score),
            "labelled": ("Labelled", _integer),
            "found": ("Found", _integer),
            "hit_rate": ("Hit rate", score),
            "mapped": ("Mapped", _integer),
            "false": ("False", _integer),
            "false_per_100km2": ("False per 100 km2", rate),
        },
    )


def _table5(cv: Crossval, scored: pd.DataFrame) -> Table:
    return Table(
        name="table5",
        title="As in the paper's Table 5: the best epoch on the held-out fold itself",
        note=f"The training with the best epoch of all in phase {cv.phases[0]}, at 0.5; IoU of its best, fifth and "
        "tenth best epoch. The held-out fold chose configuration and epoch, so this flatters.",
        frame=table5(cv, scored),
        columns={
            "fold": ("Held out", str),
            "configuration": ("Configuration", str),
            "iou1": ("IoU 1", score),
            "iou5": ("IoU 5", score),
            "iou10": ("IoU 10", score),
            "precision": ("Precision", score),
            "recall": ("Recall", score),
            "f1": ("F1", score),
            "epoch": ("Epoch", _integer),
        },
    )


def _configurations(scored: pd.DataFrame) -> Table:
    long = by_configuration(scored)
    wide = long.pivot_table(index="configuration", columns="choice", values=["iou_pooled", "iou_mean"], sort=False)
    wide.columns = ["_".join(names) for names in wide.columns]
    chosen = long[long["choice"] == "chosen"].set_index("configuration")
    frame = chosen.drop(columns="choice").join(wide).reset_index()
    columns: dict[str, Column] = {
        "configuration": ("Configuration", str),
        "folds": ("Folds", _integer),
        "iou_pooled": ("IoU", score),
        "iou_mean": ("Mean", score),
        "iou_std": ("Spread", score),
        "iou_mean_large": ("Mean, large", score),
        "iou_pooled_half": ("At 0.5", score),
        "iou_pooled_oracle": ("Oracle", score),
        "iou_mean_paper": ("Paper's way", score),
    }
    return Table(
        name="configurations",
        title="Configurations",
        note="Epoch and threshold are chosen inside training, where no other way is named. IoU: counts added over "
        "folds and seeds, so too at 0.5 and for the oracle; mean: of the folds' IoU, with its standard deviation "
        f"(spread), and over the folds of at least {LARGE_PX} object pixels (large); paper's way: mean of the best "
        "epochs on the held-out folds themselves, at 0.5.",
        frame=frame,
        columns={name: column for name, column in columns.items() if name in frame},
    )


def _regions(scored: pd.DataFrame) -> Table:
    frame = by_fold(scored)
    columns: dict[str, Column] = {"configuration": ("Configuration", str)}
    return Table(
        name="regions",
        title="Every configuration where it was held out",
        note="IoU, epoch and threshold chosen inside training, mean over seeds; the best configuration together first.",
        frame=frame,
        columns=columns | {name: (name, score) for name in frame.columns[1:]},
    )


def _comparison(compared: pd.DataFrame) -> Table:
    frame = compared.assign(
        balance=[f"{better} / {worse}" for better, worse in zip(compared["better"], compared["worse"], strict=True)],
        a=[_named_value(key, value) for key, value in zip(compared["key"], compared["a"], strict=True)],
        b=[_named_value(key, value) for key, value in zip(compared["key"], compared["b"], strict=True)],
        mean_interval=[_interval(row, "mean") for row in compared.to_dict("records")],
        pooled_interval=[_interval(row, "pooled") for row in compared.to_dict("records")],
    )
    return Table(
        name="comparison",
        title="Paired comparison",
        note="Difference of IoU between trainings that differ in nothing else: mean over folds, and of the counts of "
        "all folds together, each with the interval that holds 95 % of 10 000 bootstrap draws of the folds; and in how "
        "many folds it is better / worse. With few folds the interval is a rough one; one that holds 0 says that the "
        "folds do not tell which is better.",
        frame=frame,
        columns={
            "a": ("This", str),
            "b": ("less this", str),
            "mean": ("Mean", _signed),
            "mean_interval": ("95 %", str),
            "pooled": ("Together", _signed),
            "pooled_interval": ("95 % ", str),
            "balance": ("+ / -", str),
        },
    )


def _phases(cv: Crossval) -> Table:
    long = by_phase(cv)
    chosen = long[long["choice"] == "half"].drop(columns="choice")
    hindsight = long[long["choice"] == "paper"].set_index(["fold", "phase"])["iou"].rename("iou_paper")
    return Table(
        name="phases",
        title="Phase by phase",
        note="Mean over trainings of scores at 0.5, at the best epoch of each phase on the inner folds (the last where "
        "there are none); paper's way: IoU of the best epoch on the held-out fold itself.",
        frame=chosen.join(hindsight, on=["fold", "phase"]),
        columns={
            "fold": ("Held out", str),
            "phase": ("Phase", str),
            "iou": ("IoU", score),
            "precision": ("Precision", score),
            "recall": ("Recall", score),
            "f1": ("F1", score),
            "iou_paper": ("IoU, paper's way", score),
        },
    )


def _training_cost(cv: Crossval, *, by: str, name: str) -> Table:
    label = by.rsplit(".", 1)[-1]
    return Table(
        name=name,
        title=f"Time and memory by {label}",
        note="Seconds per epoch of the first phase, and the most memory that the training took (of the GPU, or of the "
        "process beyond what it held before); relative to U-Net with all else the same, or to the first configuration "
        "where there is no U-Net. Trainings side by side share a machine, and slow each other down.",
        frame=training_cost(cv, by=by),
        columns={
            by: (label.capitalize(), str),
            "epoch_s": ("Seconds per epoch", _three_digits),
            "epoch_s_ratio": ("relative", score),
            "peak_memory_mb": ("Memory, MB", _integer),
            "peak_memory_mb_ratio": ("relative ", score),
            "device": ("Device", str),
        },
    )


def _integer(value: float) -> str:
    return "n/a" if pd.isna(value) else f"{value:.0f}"


def _three_digits(value: float) -> str:
    return "n/a" if pd.isna(value) else f"{value:.3g}"


def _signed(value: float) -> str:
    return "n/a" if pd.isna(value) else f"{value:+.3f}"


def _interval(row: Mapping[Any, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "n/a" if math.isnan(low) else f"{low:+.3f} to {high:+.3f}"


def _named_value(key: str, value: str) -> str:
    """Return a value, led by its key's last word unless it begins with a letter."""
    return value if value[:1].isalpha() else f"{key.rsplit('.', 1)[-1]} {value}"
