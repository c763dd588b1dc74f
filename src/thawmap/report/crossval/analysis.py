"""What a cross-validation says: its tables, from the two files that it leaves behind.

Every training is scored where it held out. What was chosen without the held-out fold is a result; what was chosen on it
(the paper's best epoch, the oracle's threshold) is shown beside it under its own name. Counts are added over folds and
seeds, and scored last (law 10).
"""

import math
from collections.abc import Mapping, Sequence
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
"""What tells one training from another."""

ARCHITECTURE = "model.architecture"
BASELINE = "unet"
"""The architecture that time and memory of others are relative to (the paper's section 3.1.4)."""

LARGE_PX = 1000
"""Object pixels of a fold below which its IoU says little."""

RESAMPLES = 10_000
_COUNTS = ["tp", "fp", "fn", "tn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossval:
    """A cross-validation, as far as it is finished.

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
        """Phases of the training, in order."""
        return list(dict.fromkeys(self.epochs.sort_values("epoch", kind="stable")["phase"]))

    def held_out(self, phase: str | None = None) -> pd.DataFrame:
        """The epochs' numbers on what was held out, at 0.5; of one phase, or of all."""
        chosen = self.epochs[self.epochs["split"] == "test"]
        return chosen if phase is None else chosen[chosen["phase"] == phase]


def read(out: Path) -> Crossval:
    """The cross-validation in a folder.

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
    known = metrics.pivot_table(index=index, columns="metric", values="value", sort=False)
    epochs = known.reindex(columns=known.columns.union([*SCORES, "iou_at_threshold"])).reset_index()
    return Crossval(
        project=plan.project,
        keys=tuple(key for key, values in plan.crossval.grid.items() if len(values) > 1),
        inner=plan.crossval.inner,
        fits=finished.reset_index(drop=True),
        epochs=epochs,
        missing=tuple(f"{row.configuration}, {row.fold} held out, seed {row.seed}" for row in missing.itertuples()),
    )


def score_fits(cv: Crossval) -> pd.DataFrame:
    """One row per training and choice: `KEYS`, the grid's keys, choice, epoch, threshold, counts and scores.

    Also what is known without the held-out fold: ``validation``, the IoU on the inner folds, NaN where there are none.
    """
    best = best_epochs(cv.held_out()).set_index(KEYS)
    checked = cv.epochs[cv.epochs["split"] == "validation"].set_index([*KEYS, "epoch"])
    rows = []
    for fit in cv.fits.to_dict("records"):
        name = tuple(fit[key] for key in KEYS)
        about = {key: fit[key] for key in (*KEYS, *cv.keys)}
        about["validation"] = _validation(checked, (*name, fit["epoch"]))
        seen = Histogram(np.asarray(fit["negative"], np.int64), np.asarray(fit["positive"], np.int64))
        for choice, threshold in (("chosen", fit["threshold"]), ("half", 0.5), ("oracle", best_threshold(seen))):
            counted = Counts() if math.isnan(threshold) else seen.counts(threshold)
            rows.append({**about, "choice": choice, "epoch": fit["epoch"], "threshold": threshold, **_scored(counted)})
        if name in best.index:
            top = best.loc[name]
            counted = Counts(*(int(top[count]) for count in _COUNTS))
            rows.append({**about, "choice": "paper", "epoch": top["epoch"], "threshold": 0.5, **_scored(counted)})
    return pd.DataFrame(rows)


def best_epochs(held_out: pd.DataFrame, *, rank: int = 1) -> pd.DataFrame:
    """The row of each training's ``rank``-th best epoch by IoU, the earlier among equals; none where it has fewer."""
    order = held_out.dropna(subset="iou").sort_values(["iou", "epoch"], ascending=[False, True])
    return order[order.groupby(KEYS).cumcount() == rank - 1]


def table5(cv: Crossval, scored: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 5: per fold the training with the best epoch on it, in the first phase, at 0.5.

    Beside it, the training that did best on its inner folds, with the epoch and threshold that those chose: what
    somebody would have got who had no labels of the fold (columns ``inside``).
    """
    sparse = cv.held_out(cv.phases[0])
    tops = {rank: best_epochs(sparse, rank=rank).set_index(KEYS)["iou"] for rank in RANKS}
    first = best_epochs(sparse).sort_values("iou", ascending=False, kind="stable").drop_duplicates("fold")
    inside = nested(scored).set_index("fold")
    rows = []
    for row in first.sort_values("fold").to_dict("records"):
        name = tuple(row[key] for key in KEYS)
        ranked = {f"iou{rank}": tops[rank].get(name, math.nan) for rank in RANKS}
        reached = {key: row[key] for key in ("precision", "recall", "f1")}
        rows.append({"fold": row["fold"], "configuration": _named(cv, row), "epoch": row["epoch"], **ranked, **reached})
        if row["fold"] in inside.index:
            chosen = inside.loc[row["fold"]]
            rows[-1]["inside"] = _named(cv, {"configuration": chosen["configuration"], "seed": chosen["seed"]})
            rows[-1] |= {f"inside_{key}": chosen[key] for key in ("threshold", "iou", "precision", "recall", "f1")}
    return pd.DataFrame(rows)


def nested(scored: pd.DataFrame) -> pd.DataFrame:
    """For each fold the training with the best IoU on its inner folds, and what it did where it held out.

    A single training of a fold needs nobody to choose it; of several without inner folds none can be chosen.
    """
    own = scored[scored["choice"] == "chosen"]
    alone = own[own.groupby("fold")["fold"].transform("size") == 1]
    known = own.dropna(subset="validation").sort_values("validation", ascending=False, kind="stable")
    return pd.concat([known, alone]).drop_duplicates("fold").sort_values("fold")


def by_configuration(scored: pd.DataFrame) -> pd.DataFrame:
    """One row per configuration and choice: counts added over folds and seeds and scored, and means over folds.

    ``iou_mean`` and ``iou_std`` are over the folds whose IoU is defined, each the mean of its seeds; ``iou_mean_large``
    is over those of at least `LARGE_PX` object pixels. The best come first.
    """
    rows = []
    for (configuration, choice), part in scored.groupby(["configuration", "choice"], sort=False):
        reached = _scored(_sum(part))
        folds = part.groupby("fold")["iou"].mean()
        pixels = part.groupby("fold")[["tp", "fn"]].sum().sum(axis=1) / part.groupby("fold").size()
        rows.append(
            {
                "configuration": configuration,
                "choice": choice,
                "folds": part["fold"].nunique(),
                "fits": len(part),
                **{f"{key}_pooled": reached[key] for key in SCORES},
                "iou_mean": folds.mean(),
                "iou_std": folds.std(ddof=0),
                "iou_mean_large": folds[pixels >= LARGE_PX].mean(),
            }
        )
    table = pd.DataFrame(rows)
    order = table[table["choice"] == "chosen"].sort_values(["folds", "iou_pooled"], ascending=False, kind="stable")
    place = {name: number for number, name in enumerate(order["configuration"])}
    return table.sort_values("configuration", key=lambda names: names.map(place), kind="stable").reset_index(drop=True)


def by_fold(scored: pd.DataFrame) -> pd.DataFrame:
    """IoU where it was held out, of every configuration (rows) in every fold (columns); the mean of its seeds.

    Epoch and threshold are those chosen inside training; NaN where the IoU is not defined, or nothing is finished.
    """
    own = scored[scored["choice"] == "chosen"]
    order = by_configuration(own)["configuration"]
    table = own.groupby(["configuration", "fold"])["iou"].mean().reset_index()
    table = table.pivot_table(index="configuration", columns="fold", values="iou", dropna=False).reindex(order)
    return table.rename_axis(columns=None).reset_index()


def barren(cv: Crossval) -> list[str]:
    """Folds in which nothing is labelled as an object."""
    return sorted({fit["fold"] for fit in cv.fits.to_dict("records") if not np.any(fit["positive"])})


def by_phase(cv: Crossval) -> pd.DataFrame:
    """Sparse against full: per fold, phase and choice, mean over trainings of the scores at 0.5 of the phase's epoch.

    The epoch is the best of the phase on the inner folds ("chosen"; the last where there are none), or the best on the
    held-out fold itself ("paper").
    """
    held_out = cv.held_out()
    rows = [best_epochs(held_out[held_out["phase"] == phase]).assign(choice="paper") for phase in cv.phases]
    checked = cv.epochs[cv.epochs["split"] == "validation"].set_index([*KEYS, "epoch"])
    known = checked["iou_at_threshold"]
    score = held_out.set_index([*KEYS, "epoch"]).index.map(known.to_dict()).to_series(index=held_out.index)
    order = held_out.assign(score=score.fillna(-math.inf)).sort_values(["score", "epoch"], ascending=False)
    rows.append(order.drop_duplicates([*KEYS, "phase"]).assign(choice="half"))
    table = pd.concat(rows)
    mean = table.groupby(["fold", "phase", "choice"], sort=False)[["iou", "precision", "recall", "f1"]].mean()
    phase = {name: number for number, name in enumerate(cv.phases)}
    return mean.reset_index().sort_values(
        ["choice", "fold", "phase"], key=lambda one: one.replace(phase), kind="stable"
    )


def compute(cv: Crossval, *, by: str = "configuration") -> pd.DataFrame:
    """The paper's section 3.1.4: seconds per epoch of the first phase and peak memory, relative to U-Net.

    One row for each value of ``by``, a key of the grid or the configuration. Ratios are geometric means over trainings
    that differ in nothing but the architecture; without a U-Net, over those of the first configuration with the same
    fold and seed. Seconds are a training's median epoch.
    """
    epochs = cv.epochs[(cv.epochs["split"] == "train") & (cv.epochs["phase"] == cv.phases[0])]
    seconds = epochs.groupby(KEYS)["seconds"].median()
    fits = cv.fits.assign(epoch_s=[seconds[tuple(row)] for row in cv.fits[KEYS].itertuples(index=False)])
    paired = [key for key in cv.keys if key != ARCHITECTURE]
    is_base = fits[ARCHITECTURE].str.lower() == BASELINE if ARCHITECTURE in cv.keys else pd.Series(dtype=bool)
    has_unet = bool(is_base.any())
    base = fits[is_base] if has_unet else fits[fits["configuration"] == _first(fits)]
    on = ["fold", "seed", *(paired if has_unet else [])]
    known = ["epoch_s", "peak_memory_mb"]
    both = fits.merge(base[[*on, *known]], on=on, suffixes=("", "_base"), how="left")
    rows = []
    for name, part in both.groupby(by, sort=False):
        ratios = {f"{key}_ratio": _geometric_mean(part[key] / part[f"{key}_base"]) for key in known}
        middle = {key: part[key].median() for key in known}
        rows.append({by: name, "device": part["device"].iloc[0], "fits": len(part), **middle, **ratios})
    return pd.DataFrame(rows)


def compare(cv: Crossval, scored: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Paired differences over folds, with 95 % bootstrap intervals: each value of a key against each other one.

    All else is the same in both (fold, seed, other keys). With several keys, also every configuration against the one
    with the best pooled IoU, which its being chosen flatters. ``mean`` is the mean over folds of the difference of IoU;
    ``pooled`` the difference of the IoU of all folds' counts. Folds are drawn again, as regions are what one
    generalises over; fewer than two give no interval. Epoch and threshold are those chosen inside training.

    Args:
        cv: The cross-validation.
        scored: What `score_fits` gave.
        seed: Of the bootstrap.
    """
    own = scored[scored["choice"] == "chosen"]
    pairs = [(key, a, b) for key in cv.keys for b, a in combinations(dict.fromkeys(own[key]), 2)]
    if len(cv.keys) > 1:
        ranked = by_configuration(own)["configuration"].tolist()
        pairs += [("configuration", name, ranked[0]) for name in ranked[1:]]
    rows = []
    for key, a, b in pairs:
        same = ["fold", "seed", *(other for other in cv.keys if other != key)] if key in cv.keys else ["fold", "seed"]
        both = own[own[key] == a].merge(own[own[key] == b], on=same, suffixes=("_a", "_b"))
        rows.append({"key": key, "a": a, "b": b, **_difference(both, seed=seed)})
    return pd.DataFrame(rows)


def _difference(both: pd.DataFrame, *, seed: int) -> dict[str, Any]:
    """Differences a - b over the folds of paired trainings, and their bootstrap intervals."""
    folds = both.groupby("fold")
    per_fold = (folds["iou_a"].mean() - folds["iou_b"].mean()).to_numpy()
    columns = {side: [f"{name}_{side}" for name in _COUNTS[:3]] for side in "ab"}
    counted = {side: folds[columns[side]].sum().to_numpy(np.float64) for side in "ab"}
    number = len(per_fold)
    drawn = np.random.default_rng(seed).integers(0, number, (RESAMPLES, number)) if number > 1 else None
    mean, pooled = np.array([math.nan]), np.array([math.nan])
    if drawn is not None:
        known = ~np.isnan(per_fold)[drawn]
        with np.errstate(invalid="ignore"):
            mean = np.where(known, np.nan_to_num(per_fold)[drawn], 0).sum(1) / known.sum(1)
        pooled = _iou(counted["a"][drawn].sum(1)) - _iou(counted["b"][drawn].sum(1))
    whole = _iou(counted["a"].sum(0, keepdims=True)) - _iou(counted["b"].sum(0, keepdims=True))
    scored = per_fold[~np.isnan(per_fold)]
    return {
        "folds": number,
        "better": int((scored > 0).sum()),
        "worse": int((scored < 0).sum()),
        "mean": scored.mean() if len(scored) else math.nan,
        **_interval("mean", mean),
        "pooled": float(whole[0]),
        **_interval("pooled", pooled),
    }


def _interval(name: str, drawn: npt.NDArray[np.float64]) -> dict[str, float]:
    """The middle 95 %."""
    known = drawn[~np.isnan(drawn)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (math.nan, math.nan)
    return {f"{name}_low": float(low), f"{name}_high": float(high)}


def _iou(counted: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IoU (n,) of counts (n, 3) of tp, fp, fn; NaN where nothing is labelled or predicted."""
    with np.errstate(invalid="ignore"):
        found: npt.NDArray[np.float64] = counted[:, 0] / counted.sum(1)
    return found


def _scored(counted: Counts) -> dict[str, Any]:
    return {**{name: getattr(counted, name) for name in _COUNTS}, **scores(counted)}


def _sum(part: pd.DataFrame) -> Counts:
    return Counts(*(int(part[name].sum()) for name in _COUNTS))


def _validation(checked: pd.DataFrame, place: Sequence[Any]) -> float:
    """The IoU on the inner folds of one epoch."""
    known = tuple(place) in checked.index
    return float(checked.loc[tuple(place), "iou_at_threshold"]) if known else math.nan


def _named(cv: Crossval, row: Mapping[Any, Any]) -> str:
    """A configuration, with its seed where there are several."""
    several = len(cv.fits["seed"].unique()) > 1
    return f"{row['configuration']} (seed {row['seed']})" if several else str(row["configuration"])


def _first(fits: pd.DataFrame) -> str:
    return str(fits["configuration"].iloc[0])


def _geometric_mean(ratios: pd.Series) -> float:
    return float(np.exp(np.log(ratios.dropna()).mean())) if ratios.notna().any() else math.nan
