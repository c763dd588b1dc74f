"""A network in training: one pass over tiles that teaches it, one that only looks, and all that it has become."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Generator, Tensor, nn

from thawmap.config import Config, Phase
from thawmap.errors import ConfigError
from thawmap.model.losses import Loss, objective, usable
from thawmap.model.network import Traits, logits, traits
from thawmap.model.reading import Reading
from thawmap.train import schedule
from thawmap.train.augment import augment
from thawmap.train.inference import shown
from thawmap.train.initial import Start, start
from thawmap.train.log import Result, Sums, threshold_of
from thawmap.train.sampling import draw_order, make_batches, seed_of, seeded_generator
from thawmap.train.schedule import ScheduleStep
from thawmap.train.tiles.store import Batch, TileStore

_ORDER, _DROPOUT, _AUGMENTATION = 1, 2, 3  # what is random in an epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch of a phase.

    Attributes:
        phase: The phase.
        place: Number of the phase and of the epoch in it, which its randomness follows from.
        tiles: What it trains on.
        history: How good the finished epochs of the phase were.
    """

    phase: Phase
    place: tuple[int, int]
    tiles: pd.DataFrame
    history: Sequence[float]

    def __str__(self) -> str:
        """Its name in messages."""
        return f"phase {self.phase.name}, epoch {self.place[1]}"


@dataclass(slots=True, kw_only=True)
class Average:
    """A network whose weights follow those of another slowly (a moving average), and its running means likewise.

    Attributes:
        network: The slow one.
        decay: What of it stays at each step, when enough have been made; before that (1 + n) / (10 + n).
        steps: Steps made, n.
    """

    network: nn.Module
    decay: float
    steps: int = 0

    def begin(self, network: nn.Module) -> None:
        """Be as ``network`` is."""
        self.network.load_state_dict(network.state_dict())
        self.steps = 0

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """One step after ``network``."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        pairs = list(zip(_numbers(self.network), _numbers(network), strict=True))
        slow, fast = zip(*((one, other) for one, other in pairs if one.is_floating_point()), strict=True)
        torch._foreach_lerp_(slow, fast, share)
        for one, other in pairs:
            if not one.is_floating_point():
                one.copy_(other)


@dataclass(slots=True, kw_only=True)
class Learner:
    """A network in training, and what its epochs need.

    Attributes:
        store: The tiles.
        config: All settings.
        fabric: Devices and precision.
        begun: What it begins from.
        network: The network on its device.
        model: The same network, as it is trained: in the chosen precision, compiled, on several devices.
        about: Stride and whether the network sees its whole tile.
        average: The moving average of its weights, where one is asked for.
        optimiser: The running phase's.
    """

    store: TileStore
    config: Config
    fabric: Fabric
    begun: Start
    network: nn.Module
    model: _FabricModule
    about: Traits
    average: Average | None = None
    optimiser: torch.optim.Optimizer = field(init=False)
    _stepper: Any = field(init=False)
    _loss: Loss = field(init=False)

    @classmethod
    def of(cls, store: TileStore, config: Config, fabric: Fabric) -> Self:
        """A new network for the tiles of ``store``, its weights from torch's own generator.

        Raises:
            ConfigError: If network, device and tiles do not suit each other.
        """
        channels, settings, begun = len(config.input_layers), config.training, start(config)
        network = begun.network
        about = traits(network, channels=channels)
        _check_size(network, config, channels=channels, size=store.size)
        if fabric.world_size > 1:
            _freeze_unused(network, channels=channels, size=store.size)
        network.to(memory_format=torch.channels_last)
        trained = cast("nn.Module", torch.compile(network)) if settings.compile else network
        model = fabric.setup_module(trained)
        average = None if settings.ema is None else _average(network, settings.ema)
        return cls(
            store=store,
            config=config,
            fabric=fabric,
            begun=begun,
            network=network,
            model=model,
            about=about,
            average=average,
        )

    @property
    def reading(self) -> Reading:
        """How tiles become the network's input; its logits are not calibrated while it learns."""
        return Reading(layers=self.config.input_layers, fill=self.config.model.fill)

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept."""
        return self.network if self.average is None else self.average.network

    def begin(self, phase: Phase, state: Mapping[str, Tensor] | None = None) -> None:
        """A phase, from the network in ``state`` or as it is: a fresh optimiser, average and loss."""
        if state is not None:
            self.network.load_state_dict(state)
        if self.average is not None:
            self.average.begin(self.network)
        settings = self.config.training
        self.optimiser = schedule.make_optimiser(
            settings.optimiser, self.network.parameters(), self._highest_rate(phase)
        )
        self._stepper = self.fabric.setup_optimizers(self.optimiser)
        self._loss = objective(phase.loss or settings.loss)

    def train(self, epoch: Epoch) -> Result:
        """One pass over the epoch's tiles, augmented.

        Raises:
            TrainingError: If a loss is not finite.
        """
        start, settings = time.perf_counter(), self.config.training
        chance = self._chance(epoch)
        parts = self._parts(epoch)
        self.model.train()
        with Sums() as sums:
            for number, plain in enumerate(self._stream(parts)):
                batch = augment(plain, self._stored, self.config.augment, chance)
                first = number - number % settings.accumulate
                together = min(settings.accumulate, len(parts) - first)
                last = number == first + together - 1
                with self.fabric.no_backward_sync(self.model, enabled=not last):
                    answer, loss = self._ask(batch)
                    self.fabric.backward(loss / together)
                sums.add(loss.detach(), answer.detach(), batch)
                if last:
                    self._step(epoch, share=first / len(parts))
            found = sums.result("train", str(epoch), together=self._over_processes)
        self._agree()
        return replace(found, lr=self.optimiser.param_groups[0]["lr"], seconds=time.perf_counter() - start)

    def look(self, tiles: pd.DataFrame, split: str, epoch: Epoch, *, threshold: float | None = None) -> Result:
        """One look at tiles as they are, by the network that is kept.

        Args:
            tiles: The tiles.
            split: What they are.
            epoch: What was trained before.
            threshold: The chosen one; unset: the best for these tiles.

        Raises:
            TrainingError: If a loss is not finite.
        """
        start = time.perf_counter()
        with Sums(seen=True) as sums:
            for batch, answer in self._answers([tiles.iloc[part] for part in self._mine(tiles)]):
                sums.add(self._loss(answer, batch.target, batch.valid), answer, batch)
            found = sums.result(split, f"{split} after {epoch}", together=self._over_processes)
        chosen = threshold_of(found) if threshold is None else threshold
        lr, seconds = self.optimiser.param_groups[0]["lr"], time.perf_counter() - start
        return replace(found, threshold=chosen, lr=lr, seconds=seconds)

    def wrongness(self, tiles: pd.DataFrame) -> npt.NDArray[np.float64]:
        """How wrong the network is about tiles without an object: the sum of squared probabilities, (n,)."""
        mine = self._mine(tiles)
        found = torch.zeros(len(tiles), dtype=torch.float64)
        for part, (batch, answer) in zip(mine, self._answers([tiles.iloc[part] for part in mine]), strict=True):
            counted = usable(batch.target, batch.valid)
            found[part] = torch.where(counted, torch.sigmoid(answer) ** 2, 0.0).double().sum((-2, -1)).cpu()
        return self._over_processes(found).numpy()

    def tensors(self) -> dict[str, Tensor]:
        """All that it has become, on the CPU: network, average and optimiser."""
        found = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.average is not None:
            found |= {f"average.{name}": value for name, value in self.average.network.state_dict().items()}
            found["average steps"] = torch.tensor(self.average.steps)
        for number, numbers in self.optimiser.state_dict()["state"].items():
            known = {name: value for name, value in numbers.items() if isinstance(value, Tensor)}
            found |= {f"optimiser.{number}.{name}": value for name, value in known.items()}
        return {name: value.detach().cpu().contiguous() for name, value in found.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Be again what `tensors` gave; a phase has begun before."""
        self.network.load_state_dict(below("network.", tensors))
        if self.average is not None:
            self.average.network.load_state_dict(below("average.", tensors))
            self.average.steps = int(tensors["average steps"])
        state: dict[int, dict[str, Tensor]] = {}
        weights = self.optimiser.param_groups[0]["params"]
        for name, value in below("optimiser.", tensors).items():
            number, _, key = name.partition(".")
            alike = torch.empty_like(weights[int(number)]) if value.ndim else torch.empty_like(value)
            state.setdefault(int(number), {})[key] = alike.copy_(value)
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})

    def _chance(self, epoch: Epoch) -> Generator:
        """What an epoch's augmentation draws from; dropout's numbers begin anew as well."""
        place = (self.config.training.seed, *epoch.place, self.fabric.global_rank)
        torch.manual_seed(seed_of(*place, _DROPOUT))
        return seeded_generator(*place, _AUGMENTATION)

    def _parts(self, epoch: Epoch) -> list[pd.DataFrame]:
        """The batches of this process."""
        generator = seeded_generator(self.config.training.seed, *epoch.place, 0, _ORDER)
        order = draw_order(epoch.tiles, epoch.phase.sampler, generator)
        rank, processes = self.fabric.global_rank, self.fabric.world_size
        return make_batches(epoch.tiles, order, self.config.training.batch_size, process=rank, processes=processes)

    def _mine(self, tiles: pd.DataFrame) -> list[slice]:
        """Which of the tiles this process looks at, in batches."""
        size = math.ceil(self.config.training.batch_size / self.fabric.world_size)
        parts = [slice(first, first + size) for first in range(0, len(tiles), size)]
        return parts[self.fabric.global_rank :: self.fabric.world_size]

    def _stream(self, parts: Sequence[pd.DataFrame]) -> Iterator[Batch]:
        for tiles in self.store.stream(parts):
            yield self.store.to_device(tiles, self.fabric.device)

    def _answers(self, parts: Sequence[pd.DataFrame]) -> Iterator[tuple[Batch, Tensor]]:
        """Batches and their logits (N, H, W) float32 by the network that is kept."""
        network = self.judged.eval()
        for batch in self._stream(parts):
            with self.fabric.autocast(), torch.inference_mode():
                answer = logits(network, self._image(batch), self.reading)
            yield batch, answer.float()

    def _ask(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (N, H, W) float32 of a batch by the network that is trained, and their loss."""
        answer = logits(self.model, self._image(batch), self.reading).float()
        return answer, self._loss(answer, batch.target, batch.valid)

    def _image(self, batch: Batch) -> Tensor:
        """The input layers (N, C, H, W) in physical units."""
        return shown(batch, stored=self._stored, reading=self.reading)

    @property
    def _stored(self) -> list[str]:
        return [code.name for code in self.store.codes]

    def _step(self, epoch: Epoch, *, share: float) -> None:
        """One step of the optimiser when a ``share`` of the epoch is over."""
        settings, highest = self.config.training, self._highest_rate(epoch.phase)
        step = ScheduleStep(done=epoch.place[1] - 1 + share, epochs=epoch.phase.epochs, history=epoch.history)
        for group in self.optimiser.param_groups:
            group["lr"] = highest * schedule.lr_factor(settings.schedule, step)
        if settings.clip_norm is not None:
            self.fabric.clip_gradients(self.model, self._stepper, max_norm=settings.clip_norm, error_if_nonfinite=False)
        self._stepper.step()
        self._stepper.zero_grad()
        if self.average is not None:
            self.average.follow(self.network)

    def _highest_rate(self, phase: Phase) -> float:
        return phase.lr or self.config.training.optimiser.lr

    def _over_processes(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes."""
        return cast("Tensor", self.fabric.all_reduce(values.to(self.fabric.device), reduce_op="sum")).cpu()

    @torch.no_grad()
    def _agree(self) -> None:
        """Every process has seen other tiles: the running means of its norms become those of all of them."""
        if self.fabric.world_size == 1:
            return
        networks = [self.network] if self.average is None else [self.network, self.average.network]
        for numbers in chain.from_iterable(network.buffers() for network in networks):
            if numbers.is_floating_point():
                numbers.copy_(self._over_processes(numbers) / self.fabric.world_size)


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _average(network: nn.Module, decay: float) -> Average:
    return Average(network=deepcopy(network).requires_grad_(requires_grad=False), decay=decay)


def _numbers(network: nn.Module) -> Iterator[Tensor]:
    return chain(network.parameters(), network.buffers())


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


def _freeze_unused(network: nn.Module, *, channels: int, size: int) -> None:
    """Leave out weights that no answer depends on, as of stages that a decoder does not use; processes wait for all."""
    probe = deepcopy(network).train()
    probe(torch.zeros(2, channels, size, size)).sum().backward()
    for weight, tried in zip(network.parameters(), probe.parameters(), strict=True):
        weight.requires_grad = tried.grad is not None
