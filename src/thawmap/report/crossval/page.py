"""The page of a cross-validation, and its tables and figures as files for a paper."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from thawmap.files.atomic import write_text
from thawmap.files.results import result
from thawmap.files.tables import write_table
from thawmap.model.metrics.pixels import Counts, scores
from thawmap.report.crossval import figures as draw
from thawmap.report.crossval.analysis import (
    KEYS,
    LARGE_PX,
    Crossval,
    best_epochs,
    compare,
    folds_without_objects,
    nested,
    score_fits,
    table5,
)
from thawmap.report.crossval.tables import tables
from thawmap.report.html import picture, render, score
from thawmap.report.style import write_figure

_PAPER_FIGURES = {"fold": "Figure 4", "model.architecture": "Figure 5", "model.encoder": "Figure A10"}
_BEST = 3  # folds of the paper's Figure 9


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionedFigure:
    """A figure of the page, with its words.

    Attributes:
        name: Stem of its file.
        title: Its heading.
        figure: The figure.
        alt: What it shows, in words.
        caption: How it is read.
    """

    name: str
    title: str
    figure: Figure
    alt: str
    caption: str


def write(cv: Crossval, out: Path, *, made: datetime) -> tuple[str, ...]:
    """Write a cross-validation's page, tables and figures; return summary sentences.

    The page is index.html; tables are CSV and LaTeX, figures PDF; scores.parquet holds all scores.

    Args:
        cv: The cross-validation.
        out: The folder.
        made: When.

    Raises:
        DataError: If it cannot be written, or somebody has changed the one that is there.
    """
    scored = score_fits(cv)
    page_tables, figures = tables(cv, scored), _figures(cv, scored)
    sentences = summary(cv, scored)
    html = render(
        "crossval/page.html.j2",
        cv=cv,
        made=made,
        summary=sentences,
        tables=page_tables,
        figures=[(drawn.name, picture(drawn.title, drawn.figure, drawn.alt, drawn.caption)) for drawn in figures],
        large_px=LARGE_PX,
    )
    with result(out, complete=True) as draft:
        for table in page_tables:
            write_table(draft / "tables" / f"{table.name}.csv", table.frame, float_format="%.6g")
            write_text(draft / "tables" / f"{table.name}.tex", table.latex)
        for drawn in figures:
            write_figure(draft / "figures" / f"{drawn.name}.pdf", drawn.figure)
        scored.to_parquet(draft / "scores.parquet", index=False)
        write_text(draft / "index.html", html)
    return tuple(sentences)


def summary(cv: Crossval, scored: pd.DataFrame) -> list[str]:
    """Return sentences on a cross-validation: result, paper's way, what is missing.

    First that of what was chosen without the held-out folds, then that of the paper's way of choosing.
    """
    several = len(cv.fits["configuration"].unique()) > 1
    sentences = [_result(nested(scored), several=several), *_paper_result(cv, scored)]
    if not cv.inner:
        sentences.append("No fold chose epoch and threshold: the last epoch counts, at a threshold of 0.5.")
    sentences += [
        f"Nothing is labelled as an object in {fold}: its IoU is 0 or not defined, and its false alarms count in sums."
        for fold in folds_without_objects(cv)
    ]
    if cv.missing:
        more = "training is" if len(cv.missing) == 1 else "trainings are"
        sentences.append(f"{len(cv.missing)} {more} not finished; the numbers are of the {len(cv.fits)} others.")
    return sentences


def _result(inside: pd.DataFrame, *, several: bool) -> str:
    """Return a sentence on pooled, mean, lowest and highest IoU of chosen trainings.

    Args:
        inside: The table of `nested`.
        several: Whether several configurations ran, so that one was chosen.
    """
    if inside.empty:
        return "Several configurations ran and no inner fold could choose among them, so each is a result of its own."
    pooled = scores(Counts(*(int(inside[name].sum()) for name in ("tp", "fp", "fn", "tn"))))
    folds = inside.dropna(subset="iou").sort_values("iou")
    chosen = "configuration, epoch and threshold" if several else "epoch and threshold"
    begin = f"With {chosen} chosen inside training, {len(inside)} folds that were held out in turn"
    if folds.empty:
        return f"{begin} have no object, neither labelled nor mapped."
    low, high = folds.iloc[0], folds.iloc[-1]
    return (
        f"{begin} reach an IoU of {score(pooled['iou'])} together (precision {score(pooled['precision'])}, recall "
        f"{score(pooled['recall'])}) and {score(folds['iou'].mean())} on average, from {score(low['iou'])} in "
        f"{low['fold']} to {score(high['iou'])} in {high['fold']}."
    )


def _paper_result(cv: Crossval, scored: pd.DataFrame) -> list[str]:
    """Return a list: a sentence on mean IoU the paper's way and ours, or nothing."""
    best = table5(cv, scored)
    if "inside_iou" not in best:
        return []
    both = best.dropna(subset=["iou1", "inside_iou"])
    if both.empty:
        return []
    paper, inside = both["iou1"].mean(), both["inside_iou"].mean()
    text = (
        f"Chosen as in the paper, by the best epoch of phase {cv.phases[0]} on the very fold that is scored, at 0.5, "
        f"the average would be {score(paper)}, and not {score(inside)}; nobody can choose so who has no labels there."
    )
    return [text]


def _figures(cv: Crossval, scored: pd.DataFrame) -> list[CaptionedFigure]:
    """Return a cross-validation's `CaptionedFigure` objects, without those of no data."""
    held_out = cv.held_out().merge(cv.fits[[*KEYS, *cv.keys]], on=KEYS)
    figures = [_choices(scored), *(_by_epoch(cv, held_out, key) for key in ("fold", *cv.keys)), _phases(cv)]
    compared = compare(cv, scored)
    if len(compared):
        figures.append(_differences(compared))
    return [figure for figure in figures if figure is not None]


def _choices(scored: pd.DataFrame) -> CaptionedFigure:
    """Return a captioned figure of IoU by the way of choosing epoch and threshold."""
    return CaptionedFigure(
        name="choices",
        title="What the way of choosing does",
        figure=draw.choices(scored),
        alt="Dots of IoU of every training on its held-out fold, by how epoch and threshold were chosen.",
        caption="A dot is a training, a black line a mean. Only the blue dots are results; hollow ones look at the "
        "labels that they are scored with.",
    )


def _by_epoch(cv: Crossval, held_out: pd.DataFrame, key: str) -> CaptionedFigure | None:
    """Return a captioned figure of IoU by epoch, a line per value of a key, or None.

    The paper's Figure 4, 5 or A10, by the key; None where no IoU is defined.
    """
    names = sorted(held_out[key].unique()) if key == "fold" else list(dict.fromkeys(cv.fits[key]))
    lines = draw.curves(held_out, key, names)
    if not lines:
        return None
    name = {"fold": "region"}.get(key, key.rsplit(".", 1)[-1])
    like = f" (as the paper's {_PAPER_FIGURES[key]})" if key in _PAPER_FIGURES else ""
    until = int(cv.held_out(cv.phases[0])["epoch"].max())
    return CaptionedFigure(
        name=name,
        title=f"{'Held-out folds' if key == 'fold' else name.capitalize()}{like}",
        figure=draw.by_epoch_and_rank(lines, begins=_begins(cv), sorted_until=until),
        alt=f"Lines of the mean IoU at 0.5, with its standard deviation, for each {name}.",
        caption="Mean and standard deviation of the IoU at 0.5 on the held-out fold, (a) by epoch and (b) with the "
        "epochs of each training sorted from best to worst.",
    )


def _phases(cv: Crossval) -> CaptionedFigure | None:
    """Return a captioned figure of scores by epoch for the three best folds, or None.

    The paper's Figure 9; None where no IoU is defined.
    """
    first = best_epochs(cv.held_out(cv.phases[0])).sort_values("iou", ascending=False, kind="stable")
    logs = {}
    for row in first.drop_duplicates("fold").head(_BEST).to_dict("records"):
        of_training = (cv.epochs[KEYS] == [row[key] for key in KEYS]).all(axis=1)
        logs[f"{row['fold']}, {row['configuration']}"] = cv.epochs[of_training]
    if not logs:
        return None
    return CaptionedFigure(
        name="phases",
        title="Training and held-out fold (as the paper's Figure 9)",
        figure=draw.phases(logs, begins=_begins(cv)),
        alt="Lines of IoU, F1, precision and recall at 0.5 by epoch, for the best training of the best folds.",
        caption="The training with the best epoch on the held-out fold, for the folds where that is best: scores at "
        "0.5 on the (augmented) training tiles, and on what was held out.",
    )


def _differences(compared: pd.DataFrame) -> CaptionedFigure:
    """Return a captioned figure of paired differences of IoU, from their table."""
    return CaptionedFigure(
        name="differences",
        title="Paired differences",
        figure=draw.differences(compared),
        alt="Differences of IoU between configurations with their 95 % intervals.",
        caption="Right of the line the first is better. Intervals are of bootstrap draws of the folds.",
    )


def _begins(cv: Crossval) -> dict[str, int]:
    """Return the number of the first epoch of each phase, by the phase's name."""
    return {phase: int(cv.epochs[cv.epochs["phase"] == phase]["epoch"].min()) for phase in cv.phases}
