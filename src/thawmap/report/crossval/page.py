"""One HTML page on a cross-validation, and the same tables and figures as files for a paper."""

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
    barren,
    best_epochs,
    compare,
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
class Drawn:
    """A figure and what is said of it.

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
    """Write index.html, tables (CSV, LaTeX) and figures (PDF) into a folder; the result in sentences.

    Args:
        cv: The cross-validation.
        out: The folder.
        made: When.

    Raises:
        DataError: If it cannot be written, or somebody has changed the one that is there.
    """
    scored = score_fits(cv)
    shown_tables, figures = tables(cv, scored), _figures(cv, scored)
    said = summary(cv, scored)
    html = render(
        "crossval/page.html.j2",
        cv=cv,
        made=made,
        summary=said,
        tables=shown_tables,
        figures=[(one.name, picture(one.title, one.figure, one.alt, one.caption)) for one in figures],
        large_px=LARGE_PX,
    )
    with result(out, complete=True) as draft:
        for table in shown_tables:
            write_table(draft / "tables" / f"{table.name}.csv", table.frame, float_format="%.6g")
            write_text(draft / "tables" / f"{table.name}.tex", table.latex)
        for one in figures:
            write_figure(draft / "figures" / f"{one.name}.pdf", one.figure)
        scored.to_parquet(draft / "scores.parquet", index=False)
        write_text(draft / "index.html", html)
    return tuple(said)


def summary(cv: Crossval, scored: pd.DataFrame) -> list[str]:
    """The result in plain sentences: what was chosen without the held-out folds first, the paper's way after it."""
    said = [_result(nested(scored), alone=len(cv.fits["configuration"].unique()) == 1), *_flattery(cv, scored)]
    if not cv.inner:
        said.append("No fold chose epoch and threshold: the last epoch counts, at a threshold of 0.5.")
    said += [
        f"Nothing is labelled as an object in {fold}: its IoU is 0 or not defined, and its false alarms count in sums."
        for fold in barren(cv)
    ]
    if cv.missing:
        more = "training is" if len(cv.missing) == 1 else "trainings are"
        said.append(f"{len(cv.missing)} {more} not finished; the numbers are of the {len(cv.fits)} others.")
    return said


def _result(inside: pd.DataFrame, *, alone: bool) -> str:
    """What one would have got who has no labels of the held-out folds."""
    if inside.empty:
        return "Several configurations ran and no inner fold could choose among them, so each is a result of its own."
    counted = Counts(*(int(inside[name].sum()) for name in ("tp", "fp", "fn", "tn")))
    reached, folds = scores(counted), inside.dropna(subset="iou").sort_values("iou")
    chosen = "epoch and threshold" if alone else "configuration, epoch and threshold"
    begin = f"With {chosen} chosen inside training, {len(inside)} folds that were held out in turn"
    if folds.empty:
        return f"{begin} have no object, neither labelled nor mapped."
    low, high = folds.iloc[0], folds.iloc[-1]
    return (
        f"{begin} reach an IoU of {score(reached['iou'])} together (precision {score(reached['precision'])}, recall "
        f"{score(reached['recall'])}) and {score(folds['iou'].mean())} on average, from {score(low['iou'])} in "
        f"{low['fold']} to {score(high['iou'])} in {high['fold']}."
    )


def _flattery(cv: Crossval, scored: pd.DataFrame) -> list[str]:
    """What the paper's way of choosing adds."""
    best = table5(cv, scored)
    if "inside_iou" not in best:
        return []
    both = best.dropna(subset=["iou1", "inside_iou"])
    if both.empty:
        return []
    paper, own = both["iou1"].mean(), both["inside_iou"].mean()
    text = (
        f"Chosen as in the paper, by the best epoch of phase {cv.phases[0]} on the very fold that is scored, at 0.5, "
        f"the average would be {score(paper)}, and not {score(own)}; nobody can choose so who has no labels there."
    )
    return [text]


def _figures(cv: Crossval, scored: pd.DataFrame) -> list[Drawn]:
    held_out = cv.held_out().merge(cv.fits[[*KEYS, *cv.keys]], on=KEYS)
    found = [_choices(scored), *(_by_epoch(cv, held_out, key) for key in ("fold", *cv.keys)), _phases(cv)]
    compared = compare(cv, scored)
    return [*(one for one in found if one is not None), *([_differences(compared)] if len(compared) else [])]


def _choices(scored: pd.DataFrame) -> Drawn:
    return Drawn(
        name="choices",
        title="What the way of choosing does",
        figure=draw.choices(scored),
        alt="Dots of IoU of every training on its held-out fold, by how epoch and threshold were chosen.",
        caption="A dot is a training, a black line a mean. Only the blue dots are results; hollow ones look at the "
        "labels that they are scored with.",
    )


def _by_epoch(cv: Crossval, held_out: pd.DataFrame, key: str) -> Drawn | None:
    """The paper's Figures 4, 5 and A10; None where no IoU is defined."""
    names = sorted(held_out[key].unique()) if key == "fold" else list(dict.fromkeys(cv.fits[key]))
    lines = draw.curves(held_out, key, names)
    if not lines:
        return None
    name = {"fold": "region"}.get(key, key.rsplit(".", 1)[-1])
    like = f" (as the paper's {_PAPER_FIGURES[key]})" if key in _PAPER_FIGURES else ""
    until = int(cv.held_out(cv.phases[0])["epoch"].max())
    return Drawn(
        name=name,
        title=f"{'Held-out folds' if key == 'fold' else name.capitalize()}{like}",
        figure=draw.by_epoch_and_rank(lines, begins=_begins(cv), sorted_until=until),
        alt=f"Lines of the mean IoU at 0.5, with its standard deviation, for each {name}.",
        caption="Mean and standard deviation of the IoU at 0.5 on the held-out fold, (a) by epoch and (b) with the "
        "epochs of each training sorted from best to worst.",
    )


def _phases(cv: Crossval) -> Drawn | None:
    """The paper's Figure 9: the best training of the best folds; None where no IoU is defined."""
    first = best_epochs(cv.held_out(cv.phases[0])).sort_values("iou", ascending=False, kind="stable")
    logs = {}
    for row in first.drop_duplicates("fold").head(_BEST).to_dict("records"):
        mine = (cv.epochs[KEYS] == [row[key] for key in KEYS]).all(axis=1)
        logs[f"{row['fold']}, {row['configuration']}"] = cv.epochs[mine]
    if not logs:
        return None
    return Drawn(
        name="phases",
        title="Training and held-out fold (as the paper's Figure 9)",
        figure=draw.phases(logs, begins=_begins(cv)),
        alt="Lines of IoU, F1, precision and recall at 0.5 by epoch, for the best training of the best folds.",
        caption="The training with the best epoch on the held-out fold, for the folds where that is best: scores at "
        "0.5 on the (augmented) training tiles, and on what was held out.",
    )


def _differences(compared: pd.DataFrame) -> Drawn:
    return Drawn(
        name="differences",
        title="Paired differences",
        figure=draw.differences(compared),
        alt="Differences of IoU between configurations with their 95 % intervals.",
        caption="Right of the line the first is better. Intervals are of bootstrap draws of the folds.",
    )


def _begins(cv: Crossval) -> dict[str, int]:
    """First epoch of each phase."""
    return {phase: int(cv.epochs[cv.epochs["phase"] == phase]["epoch"].min()) for phase in cv.phases}
