"""The training of boosted trees, to be read from top to bottom.

    for every phase:    its tiles; pixels drawn from them; a tree for each epoch, grown after the best trees so far
      every ten trees:  validation, as if the later ones were not there; then metrics
    at the end:         <out>/last with all trees, <out> with the best number of them, calibrated

It takes minutes, so a training that was killed begins again. Pixels of objects are drawn more often than others, and
probabilities are those among pixels so drawn: too high for a map at large, and in steps of a hundredth fine enough to
choose a threshold. Calibration brings them down, as far as one temperature can.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from thawmap.config import Config, Phase, TreeSettings
from thawmap.model.boosting import BoostedTrees
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import save
from thawmap.model.forest import Tree
from thawmap.model.losses import usable
from thawmap.model.network import Traits
from thawmap.train.boosting.grow import grow_trees
from thawmap.train.boosting.samples import Samples
from thawmap.train.boosting.scoring import Scorer, sample_result
from thawmap.train.checkpoint import claimed, forget
from thawmap.train.log import EpochResult, Row, describe_epoch, selection_score, validation_result, write_log
from thawmap.train.outcome import calibrate_folder, data_versions, make_bundle
from thawmap.train.sampling import choose_tiles, seed_of
from thawmap.train.split import Split
from thawmap.train.tiles.store import TileStore

STAGE = 10
"""Trees after which validation is asked again."""

_GROWN = 6  # purpose of random numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Trees in the middle of a phase, and what they score.

    Attributes:
        phase: The phase.
        epoch: Number of trees that the phase has grown.
        trees: They, and those before the phase.
        base: What their leaves are added to: the log odds of an object.
        results: Of the pixels that were drawn, and of the parts of the split.
    """

    phase: Phase
    epoch: int
    trees: tuple[Tree, ...]
    base: float
    results: tuple[EpochResult, ...]

    def __str__(self) -> str:
        """Return the phase's name and its number of trees as a phrase for messages."""
        return f"phase {self.phase.name}, epoch {self.epoch}"

    @property
    def score(self) -> float:
        """The validation IoU at the threshold that it chooses; NaN where there is none."""
        return validation_result(self.results).score


@dataclass(slots=True, kw_only=True)
class Course:
    """The course of a training: the best stage so far, the last one, and the log."""

    best: Stage | None = None
    last: Stage | None = None
    log: list[Row] = field(default_factory=list)

    def add(self, stage: Stage) -> bool:
        """Log a stage; if it is the best so far, keep it and return True.

        A later one is better among equals, and always where nothing can be scored.
        """
        self.last = stage
        self.log += [{"phase": stage.phase.name, "epoch": stage.epoch, **result.row()} for result in stage.results]
        is_worse = self.best is not None and stage.score < self.best.score
        self.best = self.best if is_worse else stage
        return not is_worse


def fit_trees(
    store: TileStore,
    split: Split,
    config: Config,
    out: Path,
    *,
    score_test: bool = False,
    versions: Mapping[str, Sequence[str]],
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """Train boosted trees; write the best number of them and all, as bundles.

    Arguments, files and what is chosen by validation are as in `thawmap.train.fit.fit`.

    Raises:
        ConfigError: If ``out`` holds files of somebody's.
        TrainingError: If another training runs in ``out``, or nothing is labelled.
    """
    names = ("validation", "test") if score_test else ("validation",)
    parts = {name: tiles for name, tiles in split.parts() if name in names and len(tiles)}
    scorer, course = Scorer(store=store, config=config, parts=parts), Course()
    for line in split.lines():
        report(line)
    with claimed(out):
        for number, phase in enumerate(config.training.phases):
            for stage in _train_phase(number, phase, scorer, split, course.best):
                improved = course.add(stage)
                report(f"{stage} of {phase.epochs}: {describe_epoch(stage.results)}{', kept' if improved else ''}")
        assert course.best is not None
        assert course.last is not None
        forget(out)
        for stage, folder in ((course.last, out / "last"), (course.best, out)):
            save(_bundle_of(stage, scorer, split, versions), folder)
        write_log(out / "metrics.csv", course.log)
        size = config.training.batch_size
        calibrate_folder(out, store, split, device=torch.device("cpu"), batch_size=size, report=report)


def _train_phase(number: int, phase: Phase, scorer: Scorer, split: Split, best: Stage | None) -> Iterator[Stage]:
    """Grow a phase's trees after the best so far; yield its stages until it may end."""
    config, begin = scorer.config, time.perf_counter()
    settings, seed = config.model.trees or TreeSettings(), seed_of(config.training.seed, number, 0, 0, _GROWN)
    kept, rate = () if best is None else best.trees, phase.lr or settings.rate
    tiles = split.train.iloc[choose_tiles(phase, split.train, lambda tiles: _hardness(scorer, best, tiles))]
    samples = Samples.draw(scorer.store, tiles, config, phase=number)
    base = samples.log_odds if best is None else best.base
    logits = samples.sums(kept) + np.float32(base)
    grown = grow_trees(samples, logits, settings, number=phase.epochs, rate=rate, seed=seed)
    seconds = (time.perf_counter() - begin) / max(len(grown), 1)
    ends = [*range(STAGE, len(grown), STAGE), len(grown)]
    evaluated = scorer.evaluate(kept, grown, ends, base=base)
    history: list[float] = []
    for first, end, results in zip([0, *ends], ends, evaluated, strict=False):
        logits = logits + samples.sums(grown[first:end])
        train = sample_result(samples, logits, lr=rate, seconds=seconds * (end - first))
        stage = Stage(phase=phase, epoch=end, trees=(*kept, *grown[:end]), base=base, results=(train, *results))
        yield stage
        history.append(selection_score(stage.results))
        since_best = end - ends[int(np.argmax(history))]
        if config.training.stop_after is not None and since_best >= config.training.stop_after:
            return


def _hardness(scorer: Scorer, best: Stage | None, tiles: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return each tile's sum of squared probabilities, (n,); high = hard."""
    assert best is not None  # the first phase has no mined tiles
    sums: list[npt.NDArray[np.float64]] = []
    for codes, batch in scorer.batches(tiles):
        probability = torch.sigmoid(scorer.logits(best.trees, codes, base=best.base))
        counted = usable(batch.target, batch.valid)
        sums.append(torch.where(counted, probability**2, 0.0).double().sum((-2, -1)).numpy())
    return np.concatenate(sums)


def _bundle_of(stage: Stage, scorer: Scorer, split: Split, versions: Mapping[str, Sequence[str]]) -> Bundle:
    """Return a stage's trees as a bundle."""
    config = scorer.config
    return make_bundle(
        BoostedTrees(len(config.input_layers), stage.trees, base=stage.base),
        stage.results,
        config=config,
        store=scorer.store,
        split=split,
        traits=Traits(stride=1, fixed_tile=False),
        provenance={"from": str(stage), "device": "cpu", "trees": len(stage.trees), **data_versions(versions)},
    )
