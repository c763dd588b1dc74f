"""A network in training: passes that train and evaluate it, and its state."""

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
from thawmap.train.inference import Prediction, network_input, predict_batches
from thawmap.train.initial import InitialNetwork, initial_network
from thawmap.train.log import EpochCounts, EpochResult, best_threshold_of
from thawmap.train.sampling import draw_order, make_batches, seed_of, seeded_generator
from thawmap.train.schedule import ScheduleStep
from thawmap.train.split import GROUP
from thawmap.train.tiles.store import TileStore

_ORDER, _DROPOUT, _AUGMENTATION = 1, 2, 3  # purposes of random numbers in an epoch, each with a seed of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch of a phase: its tiles and its position in the training.

    Its randomness follows from the position.

    Attributes:
        phase: The phase.
        position: Number of the phase, from 0, and of the epoch in it, from 1.
        tiles: Rows of the index that it trains on.
        history: Scores of the finished epochs of the phase.
    """

    phase: Phase
    position: tuple[int, int]
    tiles: pd.DataFrame
    history: Sequence[float]

    def __str__(self) -> str:
        """Return the phase's name and the epoch's number as a phrase for messages."""
        return f"phase {self.phase.name}, epoch {self.position[1]}"


@dataclass(slots=True, kw_only=True)
class WeightAverage:
    """An exponential moving average of a network's weights and running means.

    Attributes:
        network: The network with the averages.
        decay: Share of the average that stays at each step; in the first steps (1 + n) / (10 + n), if that is less.
        steps: Steps made, n.
    """

    network: nn.Module
    decay: float
    steps: int = 0

    def reset(self, network: nn.Module) -> None:
        """Set all averages to a network's weights and running means, and steps to 0."""
        self.network.load_state_dict(network.state_dict())
        self.steps = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move all averages one step towards a network's weights and running means."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        pairs = list(zip(_tensors_of(self.network), _tensors_of(network), strict=True))
        slow, fast = zip(*((mean, now) for mean, now in pairs if mean.is_floating_point()), strict=True)
        torch._foreach_lerp_(slow, fast, share)
        for mean, now in pairs:
            if not mean.is_floating_point():
                mean.copy_(now)  # counters of norms, which have no mean


@dataclass(slots=True, kw_only=True)
class Learner:
    """A network in training, with the tiles, settings and devices of its epochs.

    Attributes:
        store: The tiles.
        config: All settings.
        fabric: Devices and precision.
        initial: The network before its first step, and the bundle that it comes from.
        network: The network on its device.
        model: The same network, as it is trained: in the chosen precision, compiled, on several devices.
        traits: Its stride, and whether its answer depends on the whole tile.
        average: The moving average of its weights, where one is asked for.
        optimiser: The optimiser of the running phase.
    """

    store: TileStore
    config: Config
    fabric: Fabric
    initial: InitialNetwork
    network: nn.Module
    model: _FabricModule
    traits: Traits
    average: WeightAverage | None = None
    optimiser: torch.optim.Optimizer = field(init=False)
    _stepper: Any = field(init=False)
    _loss: Loss = field(init=False)

    @classmethod
    def of(cls, store: TileStore, config: Config, fabric: Fabric) -> Self:
        """Build a learner and its network; refuse one that cannot take a store's tiles.

        Random weights are of torch's own generator.

        Raises:
            ConfigError: If network, device and tiles do not suit each other.
        """
        channels, settings, initial = len(config.input_layers), config.training, initial_network(config)
        network = initial.network
        measured = traits(network, channels=channels)
        _check_size(network, config, channels=channels, size=store.size)
        if fabric.world_size > 1:
            _freeze_unused(network, channels=channels, size=store.size)
        network.to(memory_format=torch.channels_last)
        trained = cast("nn.Module", torch.compile(network)) if settings.compile else network
        model = fabric.setup_module(trained)
        average = None
        if settings.ema is not None:
            frozen = deepcopy(network).requires_grad_(requires_grad=False)
            average = WeightAverage(network=frozen, decay=settings.ema)
        return cls(
            store=store,
            config=config,
            fabric=fabric,
            initial=initial,
            network=network,
            model=model,
            traits=measured,
            average=average,
        )

    @property
    def reading(self) -> Reading:
        """The layers and filling of the network's input, without calibration."""
        return Reading(layers=self.config.input_layers, fill=self.config.model.fill)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and saved: the average, where there is one."""
        return self.network if self.average is None else self.average.network

    def begin_phase(self, phase: Phase, weights: Mapping[str, Tensor] | None = None) -> None:
        """Load weights, if given, and make a phase's new optimiser, average and loss.

        Without weights the network stays as it is.
        """
        if weights is not None:
            self.network.load_state_dict(weights)
        if self.average is not None:
            self.average.reset(self.network)
        settings = self.config.training
        self.optimiser = schedule.make_optimiser(
            settings.optimiser, self.network.parameters(), self._highest_rate(phase)
        )
        self._stepper = self.fabric.setup_optimizers(self.optimiser)
        self._loss = objective(phase.loss or settings.loss)

    def train(self, epoch: Epoch) -> EpochResult:
        """Train the network on an epoch's tiles, augmented; return mean loss and counts.

        Raises:
            TrainingError: If a loss is not finite.
        """
        begin, settings = time.perf_counter(), self.config.training
        stored = [code.name for code in self.store.codes]
        generator = self._seed_epoch(epoch)
        batches = self._draw_batches(epoch)
        self.model.train()
        with EpochCounts() as counts:
            for number, tiles in enumerate(self.store.stream(batches)):
                batch = self.store.to_device(tiles, self.fabric.device)
                batch = augment(batch, stored, self.config.augment, generator)
                # Gradients of several batches add to one step, of which the last group may have fewer.
                first = number - number % settings.accumulate
                accumulated = min(settings.accumulate, len(batches) - first)
                is_last = number == first + accumulated - 1
                with self.fabric.no_backward_sync(self.model, enabled=not is_last):
                    answer = logits(
                        self.model, network_input(batch, stored=stored, reading=self.reading), self.reading
                    ).float()
                    loss = self._loss(answer, batch.target, batch.valid)
                    self.fabric.backward(loss / accumulated)
                counts.add(loss.detach(), answer.detach(), batch)
                if is_last:
                    self._step(epoch, progress=first / len(batches))
            result = counts.result("train", str(epoch), sum_processes=self._sum_processes)
        self._average_buffers()
        return replace(result, lr=self.optimiser.param_groups[0]["lr"], seconds=time.perf_counter() - begin)

    def evaluate(self, tiles: pd.DataFrame, split: str, epoch: Epoch, *, threshold: float | None = None) -> EpochResult:
        """Return loss, counts and threshold of the network on tiles without augmentation.

        Args:
            tiles: Rows of the index.
            split: "validation" or "test".
            epoch: The epoch that was trained last.
            threshold: A threshold that was chosen before; unset: the best for these tiles.

        Raises:
            TrainingError: If a loss is not finite.
        """
        begin = time.perf_counter()
        if GROUP not in tiles:  # those of the test part, which choose nothing
            tiles = tiles.assign(**{GROUP: ""})
        with EpochCounts(sorted(tiles[GROUP].unique())) as counts:
            for prediction in self._predict(tiles, self._own_slices(tiles)):
                batch, answer = prediction.batch, prediction.logits
                counts.add(
                    self._loss(answer, batch.target, batch.valid), answer, batch, prediction.rows[GROUP].tolist()
                )
            result = counts.result(split, f"{split} after {epoch}", sum_processes=self._sum_processes)
        chosen = best_threshold_of(result) if threshold is None else threshold
        lr, seconds = self.optimiser.param_groups[0]["lr"], time.perf_counter() - begin
        return replace(result, threshold=chosen, lr=lr, seconds=seconds)

    def hardness(self, tiles: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Return each tile's sum of squared probabilities, (n,); high = hard.

        It is how wrong the network is about tiles without objects, over the pixels that are labelled and valid.
        """
        slices = self._own_slices(tiles)
        sums = torch.zeros(len(tiles), dtype=torch.float64)
        for rows, prediction in zip(slices, self._predict(tiles, slices), strict=True):
            counted = usable(prediction.batch.target, prediction.batch.valid)
            sums[rows] = torch.where(counted, prediction.probability**2, 0.0).double().sum((-2, -1)).cpu()
        return self._sum_processes(sums).numpy()

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors of network, average and optimiser, by name, on the CPU."""
        state = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        if self.average is not None:
            state |= {f"average.{name}": tensor for name, tensor in self.average.network.state_dict().items()}
            state["average steps"] = torch.tensor(self.average.steps)
        for number, moments in self.optimiser.state_dict()["state"].items():
            tensors = {name: moment for name, moment in moments.items() if isinstance(moment, Tensor)}
            state |= {f"optimiser.{number}.{name}": tensor for name, tensor in tensors.items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Load named tensors into network, average and optimiser of a begun phase.

        They are those that `tensors` returned.
        """
        self.network.load_state_dict(without_prefix("network.", tensors))
        if self.average is not None:
            self.average.network.load_state_dict(without_prefix("average.", tensors))
            self.average.steps = int(tensors["average steps"])
        state: dict[int, dict[str, Tensor]] = {}
        weights = self.optimiser.param_groups[0]["params"]
        for name, tensor in without_prefix("optimiser.", tensors).items():
            number, _, key = name.partition(".")
            # In the memory layout of its weight, which decides in what order numbers add up later.
            laid_out = torch.empty_like(weights[int(number)]) if tensor.ndim else torch.empty_like(tensor)
            state.setdefault(int(number), {})[key] = laid_out.copy_(tensor)
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})

    def _seed_epoch(self, epoch: Epoch) -> Generator:
        """Seed torch for an epoch's dropout; return a generator for its augmentation."""
        position = (self.config.training.seed, *epoch.position, self.fabric.global_rank)
        torch.manual_seed(seed_of(*position, _DROPOUT))
        return seeded_generator(*position, _AUGMENTATION)

    def _draw_batches(self, epoch: Epoch) -> list[pd.DataFrame]:
        """Draw the order of an epoch's tiles; return this process's batches of rows."""
        generator = seeded_generator(self.config.training.seed, *epoch.position, 0, _ORDER)
        order = draw_order(epoch.tiles, epoch.phase.sampler, generator)
        rank, processes = self.fabric.global_rank, self.fabric.world_size
        return make_batches(epoch.tiles, order, self.config.training.batch_size, process=rank, processes=processes)

    def _own_slices(self, tiles: pd.DataFrame) -> list[slice]:
        """Return the batches of the tiles that this process evaluates, as slices of rows."""
        size = math.ceil(self.config.training.batch_size / self.fabric.world_size)
        slices = [slice(first, first + size) for first in range(0, len(tiles), size)]
        return slices[self.fabric.global_rank :: self.fabric.world_size]

    def _predict(self, tiles: pd.DataFrame, slices: Sequence[slice]) -> Iterator[Prediction]:
        """Yield the evaluated network's predictions for batches of tiles."""
        return predict_batches(
            self.evaluated,
            self.store,
            [tiles.iloc[rows] for rows in slices],
            reading=self.reading,
            device=self.fabric.device,
            autocast=self.fabric.autocast,
        )

    def _step(self, epoch: Epoch, *, progress: float) -> None:
        """Set the learning rate, clip gradients, step the optimiser, update the average.

        ``progress`` is the finished fraction of the epoch.
        """
        settings, highest = self.config.training, self._highest_rate(epoch.phase)
        step = ScheduleStep(done=epoch.position[1] - 1 + progress, epochs=epoch.phase.epochs, history=epoch.history)
        for group in self.optimiser.param_groups:
            group["lr"] = highest * schedule.lr_factor(settings.schedule, step)
        if settings.clip_norm is not None:
            self.fabric.clip_gradients(self.model, self._stepper, max_norm=settings.clip_norm, error_if_nonfinite=False)
        self._stepper.step()
        self._stepper.zero_grad()
        if self.average is not None:
            self.average.update(self.network)

    def _highest_rate(self, phase: Phase) -> float:
        return phase.lr or self.config.training.optimiser.lr

    def _sum_processes(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, on the CPU."""
        return cast("Tensor", self.fabric.all_reduce(values.to(self.fabric.device), reduce_op="sum")).cpu()

    @torch.no_grad()
    def _average_buffers(self) -> None:
        """Set the running means of norms to their averages over all processes.

        Each process has seen other tiles.
        """
        if self.fabric.world_size == 1:
            return
        networks = [self.network] if self.average is None else [self.network, self.average.network]
        for buffer in chain.from_iterable(network.buffers() for network in networks):
            if buffer.is_floating_point():
                buffer.copy_(self._sum_processes(buffer) / self.fabric.world_size)


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, by their names without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _tensors_of(network: nn.Module) -> Iterator[Tensor]:
    return chain(network.parameters(), network.buffers())


def _check_size(network: nn.Module, config: Config, *, channels: int, size: int) -> None:
    """Run a network on a blank tile of ``size`` px; refuse one that fails."""
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
    """Freeze weights that get no gradient in a trial run, as those of unused stages.

    No logit depends on them. Several processes would wait for their gradients for ever.
    """
    probe = deepcopy(network).train()
    probe(torch.zeros(2, channels, size, size)).sum().backward()
    for weight, probed in zip(network.parameters(), probe.parameters(), strict=True):
        weight.requires_grad = probed.grad is not None
