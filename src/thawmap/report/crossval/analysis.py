"""Numbers of a cross-validation, from the two files that it leaves behind.

Every training is scored where it held out. What was chosen without the held-out fold is a result; what was chosen on it
(the paper's best epoch, the oracle's threshold) is shown beside it under its own name. Counts are added over folds and
seeds, and scored last (law 10).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from thawmap.config.plan import PlanRecord
from thawmap.errors import DataError
from thawmap.files.records import checked, read_object
from thawmap.model.metrics.pixels import SCORES, Counts, Histogram, best_threshold, scores

CHOICES = {
    "chosen": "epoch and threshold chosen inside training",
    "half": "the same epoch at 0.5",
    "paper": "as in the paper: best epoch on the held-out fold, at 0.5",
    "oracle": "the first epoch's best threshold in hindsight",
}
"""How the epoch and the threshold of a score were chosen; the last two look at what is scored."""

RANKS = (1, 5, 10)
"""Best, fifth best and tenth best epoch, as in the paper's Table 5."""

KEYS = ["fold", "configuration", "seed"]
"""Columns that tell one training from another."""

ARCHITECTURE = "model.architecture"
BASELINE = "unet"
"""The architecture that time and memory of others are relative to (the paper's section 3.1.4)."""

LARGE_PX = 1000
"""Object pixels of a fold below which its IoU says little."""

RESAMPLES = 10_000
_COUNTS = ["tp", "fp", "fn", "tn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossval:
    """The finished trainings of a cross-validation, with their epochs.

    Attributes:
        project: Name of the project.
        keys: Keys of the grid with more than one value.
        inner: Number of folds that chose epoch and threshold of each training.
        fits: One row per finished training: `KEYS`, the grid's keys, what it chose, histogram of the held-out fold.
        epochs: One row per training, epoch and split: `KEYS`, phase, and the numbers of its log.
        missing: Trainings that are not finished.
    """

    project: str
    keys: tuple[str, ...]
    inner: int
    fits: pd.DataFrame
    epochs: pd.DataFrame
    missing: tuple[str, ...]

    @property
    def phases(self) -> list[str]:
        """Names of the training's phases, in order."""
        return list(dict.fromkeys(self.epochs.sort_values("epoch", kind="stable")["phase"]))

    def held_out(self, phase: str | None = None) -> pd.DataFrame:
        """Return rows of epochs with held-out scores at 0.5, of one phase or of all."""
        chosen = self.epochs[self.epochs["split"] == "test"]
        return chosen if phase is None else chosen[chosen["phase"] == phase]


def read(out: Path) -> Crossval:
    """Read a cross-validation's files from a folder; refuse one with nothing finished.

    Raises:
        DataError: If there is none, or no training of it is finished.
    """
    try:
        plan = checked(read_object(out / "crossval.json"), PlanRecord).config
        fits, metrics = pd.read_parquet(out / "fits.parquet"), pd.read_parquet(out / "metrics.parquet")
    except (OSError, ValueError, KeyError) as error:
        msg = f"{out} holds no cross-validation ({error}); make one with 'thawmap crossval'"
        raise DataError(msg) from error
    finished = fits[fits["finished"]]
    if finished.empty:
        msg = f"no training of {out} is finished, so there is nothing to report; go on with --resume"
        raise DataError(msg)
    missing = fits[~fits["finished"]]
    index = [*KEYS, "phase", "epoch", "split"]
    wide = metrics.pivot_table(index=index, columns="metric", values="value", sort=False)
    # a score that is nowhere defined has no row, and so no column of its own
    epochs = wide.reindex(columns=wide.columns.union([*SCORES, "iou_at_threshold"])).reset_index()
    return Crossval(
        project=plan.project,
        keys=tuple(key for key, values in plan.crossval.grid.items() if len(values) > 1),
        inner=plan.crossval.inner,
        fits=finished.reset_index(drop=True),
        epochs=epochs,
        missing=tuple(f"{row.configuration}, {row.fold} held out, seed {row.seed}" for row in missing.itertuples()),
    )


def score_fits(cv: Crossval) -> pd.DataFrame:
    """Return a table of held-out scores, a row per training and way of choosing.

    Columns: `KEYS`, the grid's keys, ``validation``, ``choice`` (of `CHOICES`), ``epoch``, ``threshold``, counts and
    scores. ``validation`` is the IoU on the inner folds, NaN where there are none.
    """
    best = best_epochs(cv.held_out()).set_index(KEYS)
    inner_iou = _validation_iou(cv).to_dict()
    rows = []
    for fit in cv.fits.to_dict("records"):
        name, epoch = tuple(fit[key] for key in KEYS), fit["epoch"]
        about = {key: fit[key] for key in (*KEYS, *cv.keys)}
        about["validation"] = float(inner_iou.get((*name, epoch), math.nan))
        pixels = Histogram(np.asarray(fit["negative"], np.int64), np.asarray(fit["positive"], np.int64))
        for choice, threshold in (("chosen", fit["threshold"]), ("half", 0.5), ("oracle", best_threshold(pixels))):
            counts = Counts() if math.isnan(threshold) else pixels.counts(threshold)
            rows.append({**about, "choice": choice, "epoch": epoch, "threshold": threshold, **_scored(counts)})
        if name in best.index:
            top = best.loc[name]
            counts = Counts(*(int(top[count]) for count in _COUNTS))
            rows.append({**about, "choice": "paper", "epoch": top["epoch"], "threshold": 0.5, **_scored(counts)})
    return pd.DataFrame(rows)


def best_epochs(held_out: pd.DataFrame, *, rank: int = 1) -> pd.DataFrame:
    """Return the row of each training's epoch of highest IoU, or of a lower rank.

    The earlier epoch ranks first among equals; a training with fewer epochs of a defined IoU has no row.
    """
    order = held_out.dropna(subset="iou").sort_values(["iou", "epoch"], ascending=[False, True])
    return order[order.groupby(KEYS).cumcount() == rank - 1]


def table5(cv: Crossval, scored: pd.DataFrame) -> pd.DataFrame:
    """Return the paper's Table 5: scores of each fold's training with the best epoch.

    Epochs are those of the first phase, scores those at 0.5. Beside it, the training that did best on its inner folds,
    with the epoch and threshold that those chose: what somebody would have got who had no labels of the fold (columns
    ``inside``).
    """
    held_out = cv.held_out(cv.phases[0])
    by_rank = {rank: best_epochs(held_out, rank=rank).set_index(KEYS)["iou"] for rank in RANKS}
    first = best_epochs(held_out).sort_values("iou", ascending=False, kind="stable").drop_duplicates("fold")
    inside = nested(scored).set_index("fold")
    rows = []
    for row in first.sort_values("fold").to_dict("records"):
        name = tuple(row[key] for key in KEYS)
        ranked = {f"iou{rank}": by_rank[rank].get(name, math.nan) for rank in RANKS}
        others = {key: row[key] for key in ("precision", "recall", "f1")}
        rows.append({"fold": row["fold"], "configuration": _named(cv, row), "epoch": row["epoch"], **ranked, **others})
        if row["fold"] in inside.index:
            chosen = inside.loc[row["fold"]]
            rows[-1]["inside"] = _named(cv, {"configuration": chosen["configuration"], "seed": chosen["seed"]})
            rows[-1] |= {f"inside_{key}": chosen[key] for key in ("threshold", "iou", "precision", "recall", "f1")}
    return pd.DataFrame(rows)


def nested(scored: pd.DataFrame) -> pd.DataFrame:
    """Return the row of each fold's training with the best IoU on its inner folds.

    Its scores are those on the held-out fold. A single training of a fold needs nobody to choose it; of several without
    inner folds none can be chosen.
    """
    chosen = scored[scored["choice"] == "chosen"]
    alone = chosen[chosen.groupby("fold")["fold"].transform("size") == 1]
    ranked = chosen.dropna(subset="validation").sort_values("validation", ascending=False, kind="stable")
    return pd.concat([ranked, alone]).drop_duplicates("fold").sort_values("fold")


def by_configuration(scored: pd.DataFrame) -> pd.DataFrame:
    """Return pooled and mean scores per configuration and choice, best first.

    ``iou_pooled`` and the other pooled scores are of counts that are added over folds and seeds. ``iou_mean`` and
    ``iou_std`` are over the folds whose IoU is defined, each the mean of its seeds; ``iou_mean_large`` is over those of
    at least `LARGE_PX` object pixels.
    """
    rows = []
    for (configuration, choice), fits in scored.groupby(["configuration", "choice"], sort=False):
        pooled = scores(Counts(*(int(fits[name].sum()) for name in _COUNTS)))
        folds = fits.groupby("fold")["iou"].mean()
        pixels = fits.groupby("fold")[["tp", "fn"]].sum().sum(axis=1) / fits.groupby("fold").size()
        rows.append(
            {
                "configuration": configuration,
                "choice": choice,
                "folds": fits["fold"].nunique(),
                "fits": len(fits),
                **{f"{key}_pooled": pooled[key] for key in SCORES},
                "iou_mean": folds.mean(),
                "iou_std": folds.std(ddof=0),
                "iou_mean_large": folds[pixels >= LARGE_PX].mean(),
            }
        )
    table = pd.DataFrame(rows)
    order = table[table["choice"] == "chosen"].sort_values(["folds", "iou_pooled"], ascending=False, kind="stable")
    rank = {name: number for number, name in enumerate(order["configuration"])}
    return table.sort_values("configuration", key=lambda names: names.map(rank), kind="stable").reset_index(drop=True)


def by_fold(scored: pd.DataFrame) -> pd.DataFrame:
    """Return a table of IoU by configuration (rows) and held-out fold (columns).

    It is the mean over seeds. Epoch and threshold are those chosen inside training; NaN where the IoU is not defined,
    or nothing is finished.
    """
    chosen = scored[scored["choice"] == "chosen"]
    order = by_configuration(chosen)["configuration"]
    table = chosen.groupby(["configuration", "fold"])["iou"].mean().reset_index()
    table = table.pivot_table(index="configuration", columns="fold", values="iou", dropna=False).reindex(order)
    return table.rename_axis(columns=None).reset_index()


def folds_without_objects(cv: Crossval) -> list[str]:
    """Return the sorted names of folds in which no pixel is labelled as an object."""
    return sorted({fit["fold"] for fit in cv.fits.to_dict("records") if not np.any(fit["positive"])})


def by_phase(cv: Crossval) -> pd.DataFrame:
    """Return mean scores at 0.5 per fold, phase and way of choosing the phase's epoch.

    To compare sparse with full. They are means over trainings, at 0.5, of one epoch of the phase. The epoch is the best
    of the phase on the inner folds ("half"; the last where there are none), or the best on the held-out fold itself
    ("paper").
    """
    held_out = cv.held_out()
    rows = [best_epochs(held_out[held_out["phase"] == phase]).assign(choice="paper") for phase in cv.phases]
    inner_iou = _validation_iou(cv).to_dict()
    score = held_out.set_index([*KEYS, "epoch"]).index.map(inner_iou).to_series(index=held_out.index)
    order = held_out.assign(score=score.fillna(-math.inf)).sort_values(["score", "epoch"], ascending=False)
    rows.append(order.drop_duplicates([*KEYS, "phase"]).assign(choice="half"))
    table = pd.concat(rows)
    mean = table.groupby(["fold", "phase", "choice"], sort=False)[["iou", "precision", "recall", "f1"]].mean()
    phase = {name: number for number, name in enumerate(cv.phases)}
    return mean.reset_index().sort_values(
        ["choice", "fold", "phase"], key=lambda column: column.replace(phase), kind="stable"
    )


def training_cost(cv: Crossval, *, by: str = "configuration") -> pd.DataFrame:
    """Return median seconds per epoch and peak memory by key, also relative to U-Net.

    As in the paper's section 3.1.4. One row for each value of ``by``, a key of the grid or the configuration. Ratios
    are geometric means over trainings that differ in nothing but the architecture; without a U-Net, over those of the
    first configuration with the same fold and seed. Seconds are of a training's median epoch of the first phase.
    """
    epochs = cv.epochs[(cv.epochs["split"] == "train") & (cv.epochs["phase"] == cv.phases[0])]
    seconds = epochs.groupby(KEYS)["seconds"].median()
    fits = cv.fits.assign(epoch_s=[seconds[tuple(row)] for row in cv.fits[KEYS].itertuples(index=False)])
    paired = [key for key in cv.keys if key != ARCHITECTURE]
    is_base = fits[ARCHITECTURE].str.lower() == BASELINE if ARCHITECTURE in cv.keys else pd.Series(dtype=bool)
    has_unet = bool(is_base.any())
    base = fits[is_base] if has_unet else fits[fits["configuration"] == fits["configuration"].iloc[0]]
    on = ["fold", "seed", *(paired if has_unet else [])]
    costs = ["epoch_s", "peak_memory_mb"]
    both = fits.merge(base[[*on, *costs]], on=on, suffixes=("", "_base"), how="left")
    rows = []
    for name, pairs in both.groupby(by, sort=False):
        medians = {key: pairs[key].median() for key in costs}
        ratios = {f"{key}_ratio": _geometric_mean(pairs[key] / pairs[f"{key}_base"]) for key in costs}
        rows.append({by: name, "device": pairs["device"].iloc[0], "fits": len(pairs), **medians, **ratios})
    return pd.DataFrame(rows)


def compare(cv: Crossval, scored: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Return IoU differences of pairs of settings, a row each, with 95 % intervals.

    A row for each two values of a key of the grid. All else is the same in both (fold, seed, other keys). With several
    keys, also every configuration against the one with the best pooled IoU, which its being chosen flatters. ``mean``
    is the mean over folds of the difference of IoU; ``pooled`` the difference of the IoU of all folds' counts. Folds
    are drawn again, as regions are what one generalises over; fewer than two give no interval. Epoch and threshold are
    those chosen inside training.

    Args:
        cv: The cross-validation.
        scored: The table of `score_fits`.
        seed: Of the bootstrap.
    """
    chosen = scored[scored["choice"] == "chosen"]
    pairs = [(key, a, b) for key in cv.keys for b, a in combinations(dict.fromkeys(chosen[key]), 2)]
    if len(cv.keys) > 1:
        ranked = by_configuration(chosen)["configuration"].tolist()
        pairs += [("configuration", name, ranked[0]) for name in ranked[1:]]
    rows = []
    for key, a, b in pairs:
        same = ["fold", "seed", *(other for other in cv.keys if other != key)] if key in cv.keys else ["fold", "seed"]
        both = chosen[chosen[key] == a].merge(chosen[chosen[key] == b], on=same, suffixes=("_a", "_b"))
        rows.append({"key": key, "a": a, "b": b, **_difference(both, seed=seed)})
    return pd.DataFrame(rows)


def _difference(both: pd.DataFrame, *, seed: int) -> dict[str, Any]:
    """Return columns of IoU differences a - b over folds, with bootstrap intervals."""
    folds = both.groupby("fold")
    per_fold = (folds["iou_a"].mean() - folds["iou_b"].mean()).to_numpy()
    columns = {side: [f"{name}_{side}" for name in _COUNTS[:3]] for side in "ab"}
    counts = {side: folds[columns[side]].sum().to_numpy(np.float64) for side in "ab"}
    number = len(per_fold)
    drawn = np.random.default_rng(seed).integers(0, number, (RESAMPLES, number)) if number > 1 else None
    mean, pooled = np.array([math.nan]), np.array([math.nan])
    if drawn is not None:
        defined = ~np.isnan(per_fold)[drawn]
        with np.errstate(invalid="ignore"):  # of draws in which no fold has an IoU
            mean = np.where(defined, np.nan_to_num(per_fold)[drawn], 0).sum(1) / defined.sum(1)
        pooled = _iou(counts["a"][drawn].sum(1)) - _iou(counts["b"][drawn].sum(1))
    of_all = _iou(counts["a"].sum(0, keepdims=True)) - _iou(counts["b"].sum(0, keepdims=True))
    scored = per_fold[~np.isnan(per_fold)]
    return {
        "folds": number,
        "better": int((scored > 0).sum()),
        "worse": int((scored < 0).sum()),
        "mean": scored.mean() if len(scored) else math.nan,
        **_interval("mean", mean),
        "pooled": float(of_all[0]),
        **_interval("pooled", pooled),
    }


def _interval(name: str, drawn: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return columns of the 2.5 and 97.5 % bounds of bootstrap draws, NaN left out."""
    defined = drawn[~np.isnan(drawn)]
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (math.nan, math.nan)
    return {f"{name}_low": float(low), f"{name}_high": float(high)}


def _iou(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the IoU (n,) of counts (n, 3) of tp, fp, fn; NaN where all are 0."""
    with np.errstate(invalid="ignore"):
        iou: npt.NDArray[np.float64] = counts[:, 0] / counts.sum(1)
    return iou


def _scored(counts: Counts) -> dict[str, Any]:
    """Return counts of pixels and their scores in one dict, as columns."""
    return {**{name: getattr(counts, name) for name in _COUNTS}, **scores(counts)}


def _validation_iou(cv: Crossval) -> pd.Series:
    """Return a series of IoU on inner folds by training and epoch; empty without any."""
    return cv.epochs[cv.epochs["split"] == "validation"].set_index([*KEYS, "epoch"])["iou_at_threshold"]


def _named(cv: Crossval, row: Mapping[Any, Any]) -> str:
    """Return a row's configuration as text, with its seed if trainings have several."""
    several = len(cv.fits["seed"].unique()) > 1
    return f"{row['configuration']} (seed {row['seed']})" if several else str(row["configuration"])


def _geometric_mean(ratios: pd.Series) -> float:
    """Return the geometric mean of the ratios that are known; NaN where none is."""
    return float(np.exp(np.log(ratios.dropna()).mean())) if ratios.notna().any() else math.nan
