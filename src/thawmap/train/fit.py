"""The training loop, to be read from top to bottom.

    for every phase:    its tiles; start from the best network so far; a fresh optimiser
      for every epoch:  every tile once, augmented on the device; then validation; then metrics.csv,
                        <out>/last, and <out> where the epoch is the best so far

The best epoch is the one with the highest validation IoU at the best threshold of that epoch, not at 0.5: focal loss
and rare objects leave probabilities low, so at 0.5 a good network can score 0. Without labelled objects in validation
the last epoch counts as the best. Nothing is ever chosen on test tiles.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from thawmap.config import Config, Phase, TrainingSettings
from thawmap.data.io import write_text
from thawmap.errors import ConfigError, TrainingError
from thawmap.model.backends import find_device
from thawmap.model.bundle import Bundle, library_versions, load, save
from thawmap.model.losses import objective, usable
from thawmap.model.metrics import SCORES, Counts, Histogram, best_threshold, histogram, scores
from thawmap.model.network import Traits, build, logits, traits
from thawmap.train.augment import augment
from thawmap.train.augment import check as check_augmentation
from thawmap.train.folds import Folds
from thawmap.train.tiles import Batch, TileStore, derive

Report = Callable[[str], None]
"""Is told what happens, a line each."""

OPTIMISERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = MappingProxyType(
    {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
)
"""Every optimiser, by its name in the configuration."""

SCHEDULES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {"constant": lambda _: 1.0, "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2}
)
"""Factor of the learning rate, from the share of the phase that is over, by name in the configuration."""


UNFINISHED = "unfinished.txt"  # stands in a bundle's folder until its training has ended


def fit(store: TileStore, folds: Folds, config: Config, out: Path, *, report: Report = lambda _: None) -> Bundle:
    """Train as the configuration says; the best network as a bundle in ``out``, the last in ``out/last``.

    ``out/metrics.csv`` has a row per epoch and split (train, validation), with the paper's metrics at 0.5. On a CPU the
    same seed gives the same numbers, bit by bit.

    Args:
        store: The tiles.
        folds: Which of them train, and which choose epoch and threshold.
        config: Everything else.
        out: Folder of the result; a bundle that is there is replaced after the first epoch.
        report: Is told a line per epoch.

    Raises:
        ConfigError: If network, device, augmentation and tiles do not suit each other.
        TrainingError: If a phase has no tile, a loss is not finite, or memory does not suffice; the best
            network until then is in ``out``.
    """
    check_augmentation(config.augment, config.input_layers)
    chosen = [(phase, _tiles_of(phase, folds)) for phase in config.training.phases]
    device = find_device(config.training.device)
    for line in folds.lines():
        report(line)
    with _prepared(config.training, device):
        learner = _Learner.of(store, config, device)
        write_text(
            out / UNFINISHED, "This folder's training has not ended; its bundle is the best of the epochs so far.\n"
        )
        best = _Best()
        log: list[dict[str, Any]] = []
        for phase, tiles in chosen:
            best.bring_back(learner.network)
            optimiser = learner.optimiser(phase)
            for epoch in range(1, phase.epochs + 1):
                where = f"phase {phase.name}, epoch {epoch}"
                results = [learner.train(tiles, optimiser, phase, epoch)]
                if len(folds.validation):
                    results.append(learner.validate(folds.validation, results[0], where))
                log += [{"phase": phase.name, "epoch": epoch, **result.row()} for result in results]
                bundle = _describe(learner, folds, results, where)
                save(bundle, out / "last")
                improved = best.improves(learner.network, results[-1].score)
                if improved:
                    save(bundle, out)
                write_text(out / "metrics.csv", pd.DataFrame(log).to_csv(index=False, float_format="%.6g"))
                report(f"{where} of {phase.epochs}: {_line(results)}{', kept' if improved else ''}")
        (out / UNFINISHED).unlink()
        return load(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """What an epoch did on one split.

    Attributes:
        split: "train" or "validation".
        loss: Mean over the pixels that count; 0 where none does.
        counts: Pixels by prediction and label at 0.5.
        seen: Pixels by probability and label, in validation.
        lr: Learning rate of the last step.
        seconds: Time that it took.
    """

    split: str
    loss: float
    counts: Counts
    seen: Histogram | None = None
    lr: float
    seconds: float

    @property
    def threshold(self) -> float:
        """The best threshold in validation; NaN elsewhere, and where no object is labelled."""
        return math.nan if self.seen is None else best_threshold(self.seen)

    @property
    def score(self) -> float:
        """IoU at the best threshold; NaN where there is none."""
        if self.seen is None or math.isnan(self.threshold):
            return math.nan
        return scores(self.seen.counts(self.threshold))["iou"]

    def row(self) -> dict[str, Any]:
        """A row of metrics.csv."""
        about = {"lr": self.lr, "seconds": self.seconds}
        return {"split": self.split, "loss": self.loss, **scores(self.counts), **about}


@dataclass(slots=True)
class _Best:
    """The best network so far; a later one is better among equals, and always where nothing can be scored."""

    score: float = -math.inf
    state: dict[str, Tensor] | None = None

    def improves(self, network: nn.Module, score: float) -> bool:
        """Whether ``score`` is at least the best; then the network's numbers are kept."""
        known = -math.inf if math.isnan(score) else score
        if known < self.score:
            return False
        self.score = known
        self.state = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
        return True

    def bring_back(self, network: nn.Module) -> None:
        """Give the network the numbers of the best; nothing before the first epoch."""
        if self.state is not None:
            network.load_state_dict(self.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learner:
    """A network in training, and what its epochs need.

    Attributes:
        store: The tiles.
        config: All settings.
        fabric: Device and precision.
        network: The network on its device.
        model: The same network, run in the chosen precision.
        about: Stride and whether the network sees its whole tile.
        generator: Order and augmentation of the tiles.
    """

    store: TileStore
    config: Config
    fabric: Fabric
    network: nn.Module
    model: nn.Module
    about: Traits
    generator: torch.Generator

    @classmethod
    def of(cls, store: TileStore, config: Config, device: torch.device) -> Self:
        """A new network for the tiles of ``store``."""
        channels = len(config.input_layers)
        network = build(config.model, channels=channels)
        about = traits(network, channels=channels)
        _check_size(network, config, channels=channels, size=store.size)
        devices = 1 if device.type == "cpu" else [device.index or 0]
        precision = _precision(config.training, device)
        fabric = Fabric(accelerator=device.type, devices=devices, precision=precision)
        network.to(memory_format=torch.channels_last)
        return cls(
            store=store,
            config=config,
            fabric=fabric,
            network=network,
            model=fabric.setup_module(network),
            about=about,
            generator=torch.Generator().manual_seed(config.training.seed),
        )

    def optimiser(self, phase: Phase) -> Any:
        """A fresh optimiser with the phase's learning rate."""
        settings = self.config.training.optimiser
        optimiser = OPTIMISERS[settings.name](
            self.network.parameters(),
            lr=phase.lr or settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
        return self.fabric.setup_optimizers(optimiser)

    def train(self, tiles: pd.DataFrame, optimiser: Any, phase: Phase, epoch: int) -> _Result:
        """One pass over the tiles."""
        begin = time.perf_counter()
        self.model.train()
        parts = _batches(tiles, self.config.training.batch_size, self.generator)
        highest = phase.lr or self.config.training.optimiser.lr
        sums = _Sums()
        for step, plain in enumerate(self._stream(parts)):
            batch = augment(plain, self.config.augment, self.generator)
            share = (epoch - 1 + step / len(parts)) / phase.epochs
            for group in optimiser.param_groups:
                group["lr"] = highest * SCHEDULES[self.config.training.schedule](share)
            answer, loss = self._ask(batch)
            optimiser.zero_grad()
            self.fabric.backward(loss)
            optimiser.step()
            sums.add(loss.detach(), answer.detach(), batch)
        mean, counts = sums.total(f"phase {phase.name}, epoch {epoch}")
        lr, seconds = optimiser.param_groups[0]["lr"], time.perf_counter() - begin
        return _Result(split="train", loss=mean, counts=counts, lr=lr, seconds=seconds)

    def validate(self, tiles: pd.DataFrame, trained: _Result, where: str) -> _Result:
        """One look at the tiles, as they are."""
        begin = time.perf_counter()
        self.model.eval()
        sums, seen = _Sums(), Histogram.empty()
        size = self.config.training.batch_size
        parts = [tiles[first : first + size] for first in range(0, len(tiles), size)]
        with torch.inference_mode():
            for batch in self._stream(parts):
                answer, loss = self._ask(batch)
                sums.add(loss, answer, batch)
                seen += histogram(torch.sigmoid(answer), batch.target, batch.valid)
        mean, counts = sums.total(f"validation after {where}")
        seconds = time.perf_counter() - begin
        return _Result(split="validation", loss=mean, counts=counts, seen=seen, lr=trained.lr, seconds=seconds)

    def _stream(self, parts: Sequence[pd.DataFrame]) -> Iterator[Batch]:
        for tiles in self.store.stream(parts):
            yield self.store.to_device(tiles, self.fabric.device)

    def _ask(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (N, H, W) float32 of a batch, and their loss."""
        layers = self.config.input_layers
        stored, wanted = [code.name for code in self.store.codes], [layer.name for layer in layers]
        image = derive(batch.image, stored=stored, wanted=wanted)
        answer = logits(self.model, image, layers).float()
        return answer, objective(self.config.training.loss)(answer, batch.target, batch.valid)


class _Sums:
    """Losses and counts of an epoch, kept on the device until its end, so that it never waits for the CPU."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._counts: list[Tensor] = []

    def add(self, loss: Tensor, answer: Tensor, batch: Batch) -> None:
        """One batch's loss, and its counts at a probability of 0.5, which is a logit of 0."""
        predicted, labelled = answer > 0, batch.target == 1
        kinds = (predicted & labelled, predicted & ~labelled, ~predicted & labelled, ~predicted & ~labelled)
        counted = usable(batch.target, batch.valid)
        self._losses.append(loss)
        self._counts.append(torch.stack([(kind & counted).sum() for kind in kinds]))

    def total(self, where: str) -> tuple[float, Counts]:
        """The mean loss over all pixels that count, and all counts.

        Raises:
            TrainingError: If a loss is not finite.
        """
        losses, counts = torch.stack(self._losses).double().cpu(), torch.stack(self._counts).cpu()
        broken = torch.nonzero(~torch.isfinite(losses)).flatten().tolist()
        if broken:
            msg = (
                f"the loss is {losses[broken[0]]:g} in {where}, batch {broken[0] + 1} of {len(losses)}; lower "
                f"the learning rate, or look for values far outside of the layers' ranges"
            )
            raise TrainingError(msg)
        pixels = counts.sum(1)
        mean = (losses * pixels).sum() / pixels.sum().clamp(min=1)
        return mean.item(), Counts(*counts.sum(0).tolist())


@contextmanager
def _prepared(settings: TrainingSettings, device: torch.device) -> Iterator[None]:
    """Torch's own randomness (first weights, dropout) from the seed, put back afterwards; memory errors said.

    Raises:
        TrainingError: If a GPU's memory does not suffice.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        try:
            yield
        except torch.OutOfMemoryError as error:
            size = settings.batch_size
            msg = f"the GPU's memory does not hold a batch of {size} tiles; lower training.batch_size or tiles.size"
            raise TrainingError(msg) from error


def _tiles_of(phase: Phase, folds: Folds) -> pd.DataFrame:
    """The training tiles of a phase."""
    tiles: pd.DataFrame = folds.train if phase.tiles == "all" else folds.train[folds.train["positive_pixels"] > 0]
    if tiles.empty:
        msg = (
            f"phase {phase.name!r} trains on {phase.tiles} tiles, but of {len(folds.train)} training tiles "
            "there is none; label objects in the training regions, or set its 'tiles' to all"
        )
        raise TrainingError(msg)
    return tiles


def _batches(tiles: pd.DataFrame, size: int, generator: torch.Generator) -> list[pd.DataFrame]:
    """All tiles in random order, in batches as even as can be, none larger than ``size``.

    A batch of one stands twice in its batch, to be augmented in two ways: batch norm after global pooling has
    one value per tile and channel, and needs two.
    """
    order = torch.randperm(len(tiles), generator=generator).numpy()
    parts = np.array_split(order, math.ceil(len(tiles) / size))
    return [tiles.iloc[part if len(part) > 1 else np.repeat(part, 2)] for part in parts]


def _precision(settings: TrainingSettings, device: torch.device) -> Literal["bf16-mixed", "32-true"]:
    """Fabric's name of the arithmetic."""
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    half = settings.precision == "bfloat16" or (settings.precision == "auto" and able)
    return "bf16-mixed" if half else "32-true"


def _check_size(network: nn.Module, config: Config, *, channels: int, size: int) -> None:
    """Whether the network takes tiles of ``size`` px."""
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, channels, size, size))
    except (RuntimeError, ValueError) as error:
        msg = (
            f"architecture {config.model.architecture!r} with encoder {config.model.encoder!r} cannot take "
            f"tiles of {size} px; set tiles.size to 128 or more"
        )
        raise ConfigError(msg) from error


def _describe(learner: _Learner, folds: Folds, results: Sequence[_Result], where: str) -> Bundle:
    """The network as it is now, and how it came to be."""
    config = learner.config
    threshold, score = results[-1].threshold, results[-1].score
    measured = {f"{one.split}_{name}": one.row()[name] for one in results for name in ("loss", *SCORES)}
    measured["validation_iou_at_threshold"] = score
    regions = {name: sorted({str(one) for one in part["region"].dropna()}) for name, part in folds.parts()}
    return Bundle(
        layers=config.input_layers,
        architecture=config.model.architecture.lower(),
        encoder=config.model.encoder,
        tile=learner.store.size,
        stride=learner.about.stride,
        fixed_tile=learner.about.fixed_tile,
        thresholds={"paper": 0.5} | ({} if math.isnan(threshold) else {"validation": threshold}),
        metrics={name: value for name, value in measured.items() if math.isfinite(value)},
        provenance={
            "made_by": "thawmap train",
            "from": where,
            "config": config.as_json(),
            "tile_store": learner.store.identity,
            "versions": library_versions(),
            "device": learner.fabric.device.type,
            "regions": regions,
            "tiles": {name: len(part) for name, part in folds.parts()},
        },
        network=learner.network.eval(),
    )


def _line(results: Sequence[_Result]) -> str:
    """An epoch in a sentence."""
    losses = ", ".join(f"{one.split} loss {one.loss:.4g}" for one in results)
    score, threshold = results[-1].score, results[-1].threshold
    return losses if math.isnan(score) else f"{losses}, validation IoU {score:.3f} at {threshold:.2f}"
