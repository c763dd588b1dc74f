"""Predictions for tiles of a store: for validation, cross-validation and reports."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from thawmap.model.bundle import Bundle
from thawmap.model.network import logits
from thawmap.model.reading import Reading
from thawmap.train.tiles.store import Batch, TileStore, derive_layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A network's logits for a batch of tiles.

    Attributes:
        rows: The tiles' rows of the index, (N,).
        batch: The tiles on the device.
        logits: (N, H, W) float32, divided by the temperature.
    """

    rows: pd.DataFrame
    batch: Batch
    logits: Tensor

    @property
    def probability(self) -> Tensor:
        """The probability (N, H, W) float32, 0..1, without meaning where not valid."""
        return torch.sigmoid(self.logits)


def predict_tiles(
    bundle: Bundle, store: TileStore, tiles: pd.DataFrame, *, device: torch.device, batch_size: int
) -> Iterator[Prediction]:
    """Run a bundle over tiles, rows of a store's index; yield a prediction per batch.

    Batches are in the tiles' order. The bundle's network is moved to the device.
    """
    network = bundle.network.to(device)
    batches = [tiles.iloc[first : first + batch_size] for first in range(0, len(tiles), batch_size)]
    yield from predict_batches(
        network, store, batches, reading=bundle.reading, device=device, temperature=bundle.temperature
    )


def predict_batches(
    network: nn.Module,
    store: TileStore,
    batches: Sequence[pd.DataFrame],
    *,
    reading: Reading,
    device: torch.device,
    temperature: float = 1.0,
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[Prediction]:
    """Run a network over batches of a store's index rows; yield a prediction for each.

    Args:
        network: The network; it is left in evaluation mode.
        store: The tile store.
        batches: Rows of its index, batch by batch.
        reading: Layers and filling of the network's input.
        device: Device of the network.
        temperature: Logits are divided by it.
        autocast: Makes a context of lower precision.
    """
    stored = [code.name for code in store.codes]
    network.eval()
    for rows, tiles in zip(batches, store.stream(batches), strict=True):
        batch = store.to_device(tiles, device)
        with autocast(), torch.inference_mode():
            answer = logits(network, network_input(batch, stored=stored, reading=reading), reading)
        yield Prediction(rows=rows, batch=batch, logits=answer.float() / temperature)


def network_input(batch: Batch, *, stored: Sequence[str], reading: Reading) -> Tensor:
    """Return a network's input (N, C, H, W): layers stored in a batch or made of them.

    Physical units, NaN = missing. Where gaps are filled from near pixels, those that are not valid are gaps: a cloud is
    not shown, nor its rim.
    """
    image = derive_layers(batch.image, stored=stored, wanted=[layer.name for layer in reading.layers])
    if reading.fill == "near":
        image = image.masked_fill(~batch.valid.unsqueeze(1), torch.nan)
    return image
