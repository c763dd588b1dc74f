"""Names from strangers in figures, tables and pages: shown as they are, and taken for nothing else."""

import csv

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from thawmap.files.tables import write_table
from thawmap.report.crossval.figures import by_epoch_and_rank, phases
from thawmap.report.diagnostics import object_scores
from thawmap.report.style import legend_below, png, styled

NAMES = ["$\\frac{$", "$x^2$", "東シベリア", "🐻", "Горизонт", "\\alpha", "%", "a\nb"]


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_drawn_as_it_is_and_without_a_warning(name):
    """Warnings are errors here; a formula that is none would be one too."""
    curves = {name: np.full((2, 3), 0.5), "other": np.full((2, 3), 0.4)}
    figure = by_epoch_and_rank(curves, begins={"a": 1}, sorted_until=3)
    assert png(figure, dpi=30)
    (legend,) = figure.legends
    shown = legend.get_texts()[0]
    assert shown.get_text().split() == f"{name} (n = 2)".split()
    assert not shown.get_parse_math()


@styled
def panel(labels):
    figure = Figure(figsize=(8.6, 7), layout="constrained")
    lines = [figure.add_subplot(1, len(labels), n + 1).plot([0, 1], label=label)[0] for n, label in enumerate(labels)]
    legend_below(figure, lines, labels)
    return figure


@pytest.mark.slow
@pytest.mark.parametrize("length", [5, 40, 80, 300])
@pytest.mark.parametrize("count", [1, 4, 9])
def test_a_legend_stays_inside_of_its_figure(length, count):
    figure = panel([("name " * length)[:length] for _ in range(count)])
    box = figure.legends[0].get_window_extent(drawn(figure))
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Lena", "Peel Plateau by the river, unetplusplus-resnet34_focal-adam", "x" * 120])
def test_titles_of_panels_do_not_run_into_each_other(name):
    epochs = {"epoch": [1, 2], **{key: [0.1, 0.2] for key in ("iou", "f1", "precision", "recall")}}
    log = pd.concat([pd.DataFrame({**epochs, "split": split}) for split in ("train", "test")])
    figure = phases({name: log, "b": log}, begins={"a": 1})
    renderer = drawn(figure)
    left, right = (axes._left_title.get_window_extent(renderer) for axes in figure.axes[:2])
    assert left.x1 < right.x0
    assert right.x1 <= figure.bbox.width
    assert left.y1 <= figure.bbox.height


def test_lines_that_lie_on_each_other_are_all_seen():
    """Precision, recall and F1 of 0, where nothing matches: three colours are in the picture of one line."""
    rows = [
        {"scope": scope, "region": "a", "match": "iou", "min_iou": iou, "precision": 0.0, "recall": 0.0, "f1": 0.0}
        for scope in ("pooled", "region")
        for iou in (0.1, 0.5, 0.9)
    ]
    axes = object_scores(pd.DataFrame(rows)).axes[0]
    widths = [line.get_linewidth() for line in axes.lines if len(line.get_xdata()) == 3]
    assert len(widths) == 3
    assert widths == sorted(set(widths), reverse=True)


def test_no_text_of_a_table_is_a_formula_and_numbers_stay_numbers(tmp_path):
    texts = ["=1+1", "+a", "-a", "@SUM(A1)", "\ta", "\r=a", "plain", "a=b", "-1", ""]
    table = pd.DataFrame({"=name": texts, "number": -np.arange(10) / 2, "whole": -np.arange(10), "yes": True})
    before = table.copy()
    write_table(tmp_path / "a.csv", table)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == ["'=name", "number", "whole", "yes"]
    assert [row[0] for row in rows] == [*(f"'{text}" for text in texts[:5]), "'\n=a", "plain", "a=b", "'-1", ""]
    assert [float(row[1]) for row in rows] == table["number"].tolist()
    assert [row[2] for row in rows] == [str(value) for value in table["whole"]]
    pd.testing.assert_frame_equal(table, before)
