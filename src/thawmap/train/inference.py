"""A bundle over tiles of a store: what training, cross-validation and reports ask of a network that is trained."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from thawmap.model.bundle import Bundle
from thawmap.model.network import logits
from thawmap.model.reading import Reading
from thawmap.train.tiles.store import Batch, TileStore, derive_layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a network says of some tiles.

    Attributes:
        rows: Their rows of the index, (N,).
        batch: The tiles on the device.
        logits: (N, H, W) float32, divided by the bundle's temperature.
    """

    rows: pd.DataFrame
    batch: Batch
    logits: Tensor

    @property
    def probability(self) -> Tensor:
        """Probability (N, H, W) float32, 0..1; meaningless where the batch is not valid."""
        return torch.sigmoid(self.logits)


def predict_tiles(
    bundle: Bundle, store: TileStore, tiles: pd.DataFrame, *, device: torch.device, batch_size: int
) -> Iterator[Answer]:
    """Run a bundle over the tiles of some rows of the store's index, batch by batch, in their order.

    The bundle's network is moved to the device.
    """
    stored = [code.name for code in store.codes]
    network = bundle.network.to(device).eval()
    parts = [tiles.iloc[first : first + batch_size] for first in range(0, len(tiles), batch_size)]
    for rows, part in zip(parts, store.stream(parts), strict=True):
        batch = store.to_device(part, device)
        with torch.inference_mode():
            answer = logits(network, shown(batch, stored=stored, reading=bundle.reading), bundle.reading).float()
        yield Answer(rows=rows, batch=batch, logits=answer / bundle.temperature)


def shown(batch: Batch, *, stored: list[str], reading: Reading) -> Tensor:
    """Derive the layers (N, C, H, W) that a network is shown, in physical units; NaN = not shown.

    Where gaps are filled from near pixels, those that are not valid are gaps: a cloud is not shown, nor its rim.
    """
    image = derive_layers(batch.image, stored=stored, wanted=[layer.name for layer in reading.layers])
    if reading.fill == "near":
        image = image.masked_fill(~batch.valid.unsqueeze(1), torch.nan)
    return image
