"""How a network learned, and what it does on the tiles that chose its epoch and threshold: a page, and what is in it.

    tiles --one by one--> pixels, objects, the worst tiles --with metrics.csv--> figures, tiles.csv, page

Tiles of the test part are never looked at. The numbers are of tiles: ground that two tiles share counts in both, and
an object that is cut by a tile's edge counts as what lies in it, as in metrics.csv. Probabilities count as hundredths,
as maps store them; metrics.csv, which is written while a network learns, has its scores at 0.5 from exact ones.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from thawmap.files.atomic import write_json, write_text
from thawmap.files.records import read_object
from thawmap.files.results import result
from thawmap.files.tables import write_table
from thawmap.model.bundle import Bundle
from thawmap.model.metrics.objects import Comparison, Detections, average_precision
from thawmap.model.metrics.pixels import Counts, Histogram, calibration_error, histogram, scores
from thawmap.report.diagnostics import reliability_diagram
from thawmap.report.figures import precision_recall, thousands, training_curves
from thawmap.report.html import Picture, picture, render, score
from thawmap.report.training.figures import Shown, tile_sheet
from thawmap.text import counted

WORST = 12
"""Number of tiles that are shown."""

CURVES = ("loss", "iou", "precision", "recall", "f1", "object_f1")
"""Columns of metrics.csv that are drawn."""

_DONE = "report.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tile:
    """A tile, and what the network says of it.

    Attributes:
        scene: Id of its scene.
        number: Its number in the scene.
        region: Its region; "" where it has none.
        image: (y, x, 3) uint8, as it is shown; grey where something is missing.
        probability: (y, x) float32, 0..1; NaN where not valid.
        target: (y, x) uint8; 1 object, 0 not, 255 not scored.
    """

    scene: str
    number: int
    region: str
    image: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.float32]
    target: npt.NDArray[np.uint8]


@dataclass(slots=True, kw_only=True, eq=False)
class Seen:
    """What tiles say together, the worst of them kept.

    Attributes:
        thresholds: Name to value.
        pixels: By region, pixels by probability and label.
        objects: By name of the threshold, counts of objects, matched by an IoU of 0.5.
        ranked: Predicted objects by confidence, likewise.
        rows: One row per tile: its place, its counts of pixels at the chosen threshold, and their scores.
        worst: Wrong pixels, number of the row, and the tile, of those with most wrong pixels.
    """

    thresholds: Mapping[str, float]
    pixels: dict[str, Histogram] = field(default_factory=dict)
    objects: dict[str, Counts] = field(default_factory=dict)
    ranked: dict[str, Detections] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    worst: list[tuple[int, int, Tile]] = field(default_factory=list)

    @property
    def chosen(self) -> str:
        """Name of the threshold whose scores are the result."""
        return "validation" if "validation" in self.thresholds else "paper"

    @property
    def together(self) -> Histogram:
        """The pixels of all regions."""
        return sum(self.pixels.values(), Histogram.empty())

    @property
    def worst_first(self) -> list[Tile]:
        """The worst tiles, from the one with most wrong pixels on; equals in the order in which they came."""
        return [tile for _, _, tile in sorted(self.worst, key=lambda one: (-one[0], -one[1]))]

    def add(self, tile: Tile) -> None:
        """One more tile."""
        probability = np.rint(tile.probability * np.float32(100)).astype(np.float64) / 100
        known = np.isfinite(probability)
        counted = histogram(probability, tile.target, known)
        self.pixels[tile.region] = self.pixels.get(tile.region, Histogram.empty()) + counted
        for name, value in self.thresholds.items():
            found = Comparison.of(probability > value, tile.target, known)
            self.objects[name] = self.objects.get(name, Counts()) + found.counts()
            self.ranked[name] = self.ranked.get(name, Detections.empty()) + found.detections(probability)
        counts = counted.counts(self.thresholds[self.chosen])
        place = {"scene": tile.scene, "tile": tile.number, "region": tile.region}
        self.rows.append({**place, **asdict(counts), **scores(counts)})
        if counts.fp + counts.fn:
            heapq.heappush(self.worst, (counts.fp + counts.fn, -len(self.rows), tile))
        if len(self.worst) > WORST:
            heapq.heappop(self.worst)


def is_made(folder: Path, bundle: Bundle) -> bool:
    """Whether the report in ``folder`` is whole, and of this bundle."""
    try:
        return bool(read_object(folder / _DONE).get("bundle") == bundle.id)
    except (OSError, ValueError):
        return False


def write(
    folder: Path, bundle: Bundle, log: pd.DataFrame, tiles: Iterable[Tile], *, project: str, made: datetime
) -> None:
    """Write index.html, the figures, tiles.csv, and last report.json: so where that is, the report is whole.

    Args:
        folder: Where.
        bundle: The best network.
        log: The training's metrics.csv.
        tiles: Its validation tiles, read once, each forgotten unless it is among the worst.
        project: Name of the project.
        made: When.

    Raises:
        DataError: If it cannot be written, or somebody has changed the one that is there.
    """
    seen = Seen(thresholds=bundle.thresholds)
    for tile in tiles:
        seen.add(tile)
    shown = _figures(seen, bundle, log)
    table = pd.DataFrame(seen.rows)
    html = render(
        "training/page.html.j2",
        project=project,
        made=made,
        bundle=bundle,
        summary=summary(seen, bundle, log),
        rows=_rows(seen),
        tiles=len(seen.rows),
        figures=list(shown.values()),
        facts=_facts(bundle),
    )
    numbers = {"bundle": bundle.id, "thresholds": dict(seen.thresholds), "scores": _rows(seen)}
    with result(folder, complete=True, last=_DONE) as draft:
        for name, drawn in shown.items():
            (draft / f"{name}.png").write_bytes(drawn.png)
        if len(table):
            order = (table["fp"] + table["fn"]).sort_values(ascending=False, kind="stable").index
            write_table(draft / "tiles.csv", table.loc[order], float_format="%.6g")
        write_text(draft / "index.html", html)
        write_json(draft / _DONE, _plain(numbers))


def summary(seen: Seen, bundle: Bundle, log: pd.DataFrame) -> list[str]:
    """What came out, in plain sentences."""
    epochs = int((log["split"] == "train").sum())
    origin = str(bundle.provenance.get("from", "an epoch that is not known"))
    if not seen.rows:
        last = f"the last of {counted(epochs, 'epoch')} counts ({origin})"
        return [f"No tile chose epoch and threshold: {last}, at a threshold of {bundle.threshold:.2f}."]
    value = seen.thresholds[seen.chosen]
    reached, paper = (scores(seen.together.counts(one)) for one in (value, 0.5))
    best = f"The best of {counted(epochs, 'epoch')} is {origin}: at a threshold of {value:.2f} it reaches a "
    numbers = (score(reached[name]) for name in ("iou", "recall", "precision"))
    said = [best + "validation IoU of {}, with a recall of {} and a precision of {}.".format(*numbers)]
    if value != 0.5:
        said.append(f"At 0.50, the paper's threshold, the IoU would be {score(paper['iou'])}.")
    said.append(
        "Epoch and threshold were chosen on these very tiles, which flatters them a little; score a region that chose "
        "nothing with 'thawmap evaluate' or 'thawmap crossval'."
    )
    return said


def _rows(seen: Seen) -> list[dict[str, Any]]:
    """Scores by threshold, of pixels and objects; none without tiles."""
    if not seen.rows:
        return []
    together = seen.together
    return [
        {
            "threshold_name": name,
            "threshold": value,
            **scores(together.counts(value)),
            **{f"object_{kind}": scores(seen.objects[name])[kind] for kind in ("precision", "recall", "f1")},
            "object_average_precision": average_precision(seen.ranked[name]),
            "calibration_error": calibration_error(together),
        }
        for name, value in sorted(seen.thresholds.items(), key=lambda one: one[0] != seen.chosen)
    ]


def _figures(seen: Seen, bundle: Bundle, log: pd.DataFrame) -> dict[str, Picture]:
    """The figures by the names of their files."""
    chosen = _chosen(bundle, log)
    figures = {
        "curves": picture(
            "Epoch by epoch",
            training_curves(log, metrics=[name for name in CURVES if name in log], chosen=chosen),
            "Loss and scores of every epoch, for the training and the validation tiles.",
            "Scores at a threshold of 0.5, of augmented tiles in training; the dashed line is the IoU at the epoch's "
            "best threshold, which chooses. The vertical line is the chosen epoch, dotted ones begin a phase. A gap "
            "between the lines that widens is overfitting.",
        )
    }
    curves = _curves(seen)
    if curves:
        figures["precision_recall"] = picture(
            "Precision against recall",
            precision_recall(curves, dict.fromkeys(curves, seen.thresholds)),
            "Precision against recall over all thresholds, with the chosen one and 0.5 marked.",
            "Over all thresholds, from high ones on the left to low ones on the right. Along a grey line the IoU is "
            "the same.",
        )
        figures["reliability"] = picture(
            "What probabilities are worth",
            reliability_diagram(curves, seen.together),
            "Share of labelled pixels against predicted probability, over the number of pixels.",
            "On the dotted line a probability is what it says. Below it the network is too sure, above it not sure "
            "enough: focal loss, or weights for rare objects, do that.",
        )
    return figures | ({"worst": _worst(seen)} if seen.worst else {})


def _worst(seen: Seen) -> Picture:
    """The sheet of the worst tiles."""
    value, tiles = seen.thresholds[seen.chosen], seen.worst_first
    every = seen.together.counts(value)
    share = sum(wrong for wrong, _, _ in seen.worst) / (every.fp + every.fn)
    return picture(
        "The worst tiles",
        tile_sheet(
            [Shown(_place(tile), _fault(tile, value), tile.image, tile.probability, tile.target) for tile in tiles],
            threshold=value,
        ),
        f"{counted(len(tiles), 'tile')}, each as image and as probability, with labelled and predicted outlines.",
        f"The {len(tiles)} of {thousands(len(seen.rows))} validation tiles with most wrong pixels: {share:.0%} of all "
        "that is wrong. First the image, then the probability. Wrong labels show up here as well: look at the tiles "
        "before you change the network. All tiles are in tiles.csv.",
    )


def _place(tile: Tile) -> str:
    return f"{tile.scene}, tile {tile.number}"


def _fault(tile: Tile, threshold: float) -> str:
    """What is wrong, in a few words."""
    counts = histogram(tile.probability, tile.target, np.isfinite(tile.probability)).counts(threshold)
    return f"{thousands(counts.fn)} px missed, {thousands(counts.fp)} px false"


def _curves(seen: Seen) -> dict[str, Histogram]:
    """Pixels by region, and of all where there are several; those without a labelled object have no curve."""
    named = {region or "validation": counted for region, counted in sorted(seen.pixels.items())}
    if len(named) > 1:
        named = {"all": seen.together} | named
    return {name: counted for name, counted in named.items() if counted.positive.any()}


def _chosen(bundle: Bundle, log: pd.DataFrame) -> tuple[str, int] | None:
    """Phase and epoch of the bundle; None where the log has no such epoch."""
    for phase, epoch in zip(log["phase"], log["epoch"], strict=True):
        if bundle.provenance.get("from") == f"phase {phase}, epoch {epoch}":
            return str(phase), int(epoch)
    return None


def _facts(bundle: Bundle) -> dict[str, str]:
    """What else the page tells."""
    made = bundle.provenance
    regions, tiles = made.get("regions", {}), made.get("tiles", {})
    names = {"train": "Trained on", "validation": "Chosen on", "test": "Left out, not looked at"}
    parts = {
        title: f"{thousands(tiles[part])} tiles of {_listed(regions.get(part, []))}"
        for part, title in names.items()
        if tiles.get(part)
    }
    return {
        "Network": f"{bundle.architecture} with {bundle.encoder}",
        "Layers": ", ".join(layer.name for layer in bundle.layers),
        **parts,
        "Thresholds": ", ".join(f"{value:.2f} ({name})" for name, value in bundle.thresholds.items()),
    }


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "no named region"


def _plain(value: Any) -> Any:
    """JSON values; None for what is not known."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and np.isnan(value) else value
