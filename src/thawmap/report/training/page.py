"""The report of a training: how a network learned, and its validation tiles.

    tiles --one by one--> pixels, objects, the worst tiles --with metrics.csv--> figures, tiles.csv, page

Tiles of the test part are never looked at. The numbers are of tiles: ground that two tiles share counts in both, and
an object that is cut by a tile's edge counts as what lies in it, as in metrics.csv. Probabilities count as hundredths,
as maps store them; metrics.csv, which is written while a network learns, has its scores at 0.5 from exact ones.
"""

import heapq
from collections.abc import Iterable, Mapping
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
from thawmap.report.training.figures import SheetTile, tile_sheet
from thawmap.text import counted

WORST = 12
"""Number of the worst tiles that are drawn."""

CURVES = ("loss", "iou", "precision", "recall", "f1", "object_f1")
"""Columns of metrics.csv that are drawn."""

_DONE = "report.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tile:
    """A tile with the probability that the network predicts.

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
class TileStatistics:
    """Counts over tiles that come one by one, and the worst of these tiles.

    Attributes:
        thresholds: Value of each threshold, by name.
        pixels: By region, pixels by probability and label.
        objects: By name of the threshold, counts of objects, matched by an IoU of 0.5.
        detections: By name of the threshold, predicted objects by confidence.
        rows: One row per tile: its place, its counts of pixels at the chosen threshold, and their scores.
        worst: Wrong pixels, number of the row, and the tile, of those with most wrong pixels.
    """

    thresholds: Mapping[str, float]
    pixels: dict[str, Histogram] = field(default_factory=dict)
    objects: dict[str, Counts] = field(default_factory=dict)
    detections: dict[str, Detections] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    worst: list[tuple[int, int, Tile]] = field(default_factory=list)

    @property
    def chosen(self) -> str:
        """Name of the main threshold: validation if there is one, else paper."""
        return "validation" if "validation" in self.thresholds else "paper"

    @property
    def together(self) -> Histogram:
        """Histogram of pixels by probability and label, summed over regions."""
        return sum(self.pixels.values(), Histogram.empty())

    @property
    def worst_first(self) -> list[Tile]:
        """List of the worst tiles, most wrong pixels first, equals as they came."""
        return [tile for _, _, tile in sorted(self.worst, key=lambda entry: (-entry[0], -entry[1]))]

    def add(self, tile: Tile) -> None:
        """Add a tile's pixels and objects to the counts; keep it if among the worst."""
        probability = np.rint(tile.probability * np.float32(100)).astype(np.float64) / 100  # as maps store it
        valid = np.isfinite(probability)
        pixels = histogram(probability, tile.target, valid)
        self.pixels[tile.region] = self.pixels.get(tile.region, Histogram.empty()) + pixels
        for name, threshold in self.thresholds.items():
            comparison = Comparison.of(probability > threshold, tile.target, valid)
            self.objects[name] = self.objects.get(name, Counts()) + comparison.counts()
            self.detections[name] = self.detections.get(name, Detections.empty()) + comparison.detections(probability)
        counts = pixels.counts(self.thresholds[self.chosen])
        about = {"scene": tile.scene, "tile": tile.number, "region": tile.region}
        self.rows.append({**about, **asdict(counts), **scores(counts)})
        if counts.fp + counts.fn:
            heapq.heappush(self.worst, (counts.fp + counts.fn, -len(self.rows), tile))
        if len(self.worst) > WORST:  # only so many stay in memory; the least wrong one goes
            heapq.heappop(self.worst)


def is_made(folder: Path, bundle: Bundle) -> bool:
    """Return whether a folder's report.json exists and names this bundle."""
    try:
        return bool(read_object(folder / _DONE).get("bundle") == bundle.id)
    except (OSError, ValueError):
        return False


def write(
    folder: Path, bundle: Bundle, log: pd.DataFrame, tiles: Iterable[Tile], *, project: str, made: datetime
) -> None:
    """Write a training's report: HTML page, figures as PNG, tiles.csv, report.json.

    The last is written last: where it is, the report is complete.

    Args:
        folder: The folder of the report.
        bundle: The best network.
        log: The training's metrics.csv.
        tiles: Its validation tiles, read once, each forgotten unless it is among the worst.
        project: Name of the project.
        made: The time that the page tells.

    Raises:
        DataError: If it cannot be written, or somebody has changed the one that is there.
    """
    statistics = TileStatistics(thresholds=bundle.thresholds)
    for tile in tiles:
        statistics.add(tile)
    figures = _figures(statistics, bundle, log)
    table, score_rows = pd.DataFrame(statistics.rows), _score_rows(statistics)
    html = render(
        "training/page.html.j2",
        project=project,
        made=made,
        bundle=bundle,
        summary=summary(statistics, bundle, log),
        rows=score_rows,
        tiles=len(statistics.rows),
        figures=list(figures.values()),
        facts=_facts(bundle),
    )
    numbers = {"bundle": bundle.id, "thresholds": dict(statistics.thresholds), "scores": score_rows}
    with result(folder, complete=True, last=_DONE) as draft:
        for name, drawn in figures.items():
            (draft / f"{name}.png").write_bytes(drawn.png)
        if len(table):
            order = (table["fp"] + table["fn"]).sort_values(ascending=False, kind="stable").index
            write_table(draft / "tiles.csv", table.loc[order], float_format="%.6g")
        write_text(draft / "index.html", html)
        write_json(draft / _DONE, _plain(numbers))


def summary(statistics: TileStatistics, bundle: Bundle, log: pd.DataFrame) -> list[str]:
    """Return sentences on a training: best epoch, its threshold and validation scores."""
    epochs = int((log["split"] == "train").sum())
    origin = str(bundle.provenance.get("from", "an epoch that is not known"))
    if not statistics.rows:
        last = f"the last of {counted(epochs, 'epoch')} counts ({origin})"
        return [f"No tile chose epoch and threshold: {last}, at a threshold of {bundle.threshold:.2f}."]
    threshold = statistics.thresholds[statistics.chosen]
    chosen, paper = (scores(statistics.together.counts(limit)) for limit in (threshold, 0.5))
    best = f"The best of {counted(epochs, 'epoch')} is {origin}: at a threshold of {threshold:.2f} it reaches a "
    numbers = (score(chosen[name]) for name in ("iou", "recall", "precision"))
    sentences = [best + "validation IoU of {}, with a recall of {} and a precision of {}.".format(*numbers)]
    if threshold != 0.5:
        sentences.append(f"At 0.50, the paper's threshold, the IoU would be {score(paper['iou'])}.")
    sentences.append(
        "Epoch and threshold were chosen on these very tiles, which flatters them a little; score a region that chose "
        "nothing with 'thawmap evaluate' or 'thawmap crossval'."
    )
    return sentences


def _score_rows(statistics: TileStatistics) -> list[dict[str, Any]]:
    """Return dicts of scores, one per threshold, chosen one first; none without tiles."""
    if not statistics.rows:
        return []
    together, chosen = statistics.together, statistics.chosen
    return [
        {
            "threshold_name": name,
            "threshold": value,
            **scores(together.counts(value)),
            **{f"object_{kind}": scores(statistics.objects[name])[kind] for kind in ("precision", "recall", "f1")},
            "object_average_precision": average_precision(statistics.detections[name]),
            "calibration_error": calibration_error(together),
        }
        for name, value in sorted(statistics.thresholds.items(), key=lambda threshold: threshold[0] != chosen)
    ]


def _figures(statistics: TileStatistics, bundle: Bundle, log: pd.DataFrame) -> dict[str, Picture]:
    """Return captioned figures by file stem: epochs, curves, calibration, worst tiles."""
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
    curves = _curves(statistics)
    if curves:
        figures["precision_recall"] = picture(
            "Precision against recall",
            precision_recall(curves, dict.fromkeys(curves, statistics.thresholds)),
            "Precision against recall over all thresholds, with the chosen one and 0.5 marked.",
            "Over all thresholds, from high ones on the left to low ones on the right. Along a grey line the IoU is "
            "the same.",
        )
        figures["reliability"] = picture(
            "What probabilities are worth",
            reliability_diagram(curves, statistics.together),
            "Share of labelled pixels against predicted probability, over the number of pixels.",
            "On the dotted line a probability is what it says. Below it the network is too sure, above it not sure "
            "enough: focal loss, or weights for rare objects, do that.",
        )
    return figures | ({"worst": _worst(statistics)} if statistics.worst else {})


def _worst(statistics: TileStatistics) -> Picture:
    """Return a captioned figure of the tiles with most wrong pixels."""
    threshold, tiles = statistics.thresholds[statistics.chosen], statistics.worst_first
    counts = statistics.together.counts(threshold)
    share = sum(wrong for wrong, _, _ in statistics.worst) / (counts.fp + counts.fn)
    sheet = [
        SheetTile(
            name=f"{tile.scene}, tile {tile.number}",
            fault=_fault(tile, threshold),
            image=tile.image,
            probability=tile.probability,
            target=tile.target,
        )
        for tile in tiles
    ]
    return picture(
        "The worst tiles",
        tile_sheet(sheet, threshold=threshold),
        f"{counted(len(tiles), 'tile')}, each as image and as probability, with labelled and predicted outlines.",
        f"The {len(tiles)} of {thousands(len(statistics.rows))} validation tiles with most wrong pixels: {share:.0%} "
        "of all that is wrong. First the image, then the probability. Wrong labels show up here as well: look at the "
        "tiles before you change the network. All tiles are in tiles.csv.",
    )


def _fault(tile: Tile, threshold: float) -> str:
    """Return a tile's numbers of missed and false pixels as a text for its title."""
    counts = histogram(tile.probability, tile.target, np.isfinite(tile.probability)).counts(threshold)
    return f"{thousands(counts.fn)} px missed, {thousands(counts.fp)} px false"


def _curves(statistics: TileStatistics) -> dict[str, Histogram]:
    """Return histograms by region, only of those with labelled objects, for curves.

    Where there are several regions, those of all come first.
    """
    curves = {region or "validation": pixels for region, pixels in sorted(statistics.pixels.items())}
    if len(curves) > 1:
        curves = {"all": statistics.together} | curves
    return {name: pixels for name, pixels in curves.items() if pixels.positive.any()}


def _chosen(bundle: Bundle, log: pd.DataFrame) -> tuple[str, int] | None:
    """Return phase and epoch of the bundle's network; None where not in the log."""
    for phase, epoch in zip(log["phase"], log["epoch"], strict=True):
        if bundle.provenance.get("from") == f"phase {phase}, epoch {epoch}":
            return str(phase), int(epoch)
    return None


def _facts(bundle: Bundle) -> dict[str, str]:
    """Return texts on a bundle's network, layers, tiles and thresholds, by title."""
    regions, tiles = bundle.provenance.get("regions", {}), bundle.provenance.get("tiles", {})
    titles = {"train": "Trained on", "validation": "Chosen on", "test": "Left out, not looked at"}
    tiles_by_title = {
        title: f"{thousands(tiles[split])} tiles of {', '.join(regions.get(split, [])) or 'no named region'}"
        for split, title in titles.items()
        if tiles.get(split)
    }
    return {
        "Network": bundle.network_name,
        "Layers": ", ".join(layer.name for layer in bundle.layers),
        **tiles_by_title,
        "Thresholds": ", ".join(f"{value:.2f} ({name})" for name, value in bundle.thresholds.items()),
    }


def _plain(value: Any) -> Any:
    """Return a value with each NaN replaced by None, at any depth, for JSON."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and np.isnan(value) else value
