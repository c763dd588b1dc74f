"""The report of a training: its numbers are those of metrics.csv and of slow versions, and it costs no bundle."""

import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import Page
from rasterio.transform import from_origin

from thawmap.cli import _run as thawmap
from thawmap.model.bundle_folder import load
from thawmap.model.metrics.objects import object_counts
from thawmap.model.metrics.pixels import Counts, counts, scores
from thawmap.report.figures import training_curves
from thawmap.report.training.page import WORST, Tile, TileStatistics, is_made, write
from thawmap.train.tiles.store import TileStore

pytestmark = pytest.mark.slow

torch.set_num_threads(1)

YAML = """
project: place <1>
scenes:
  kind: rasters
  path: "scenes/*"
  files: {image.tif: {green: {band: 1, scale: 0.0001}, red: {band: 1, scale: 0.0001}, nir: {band: 2, scale: 0.0001}}}
layers: [red, nir, green]
labels: {raster: mask.tif, ignore: 255}
tiles: {size: 32, overlap: 8}
model: {architecture: pixel}
training:
  device: cpu
  precision: float32
  batch_size: 3
  optimiser: {lr: 0.05}
  phases: [{name: some, epochs: 2, tiles: positive}, {name: every, epochs: 2}]
split: {by: scene, validation: [Yamal, Taymyr], test: [Horton]}
"""
FILES = {
    "index.html",
    "report.json",
    "tiles.csv",
    "curves.png",
    "precision_recall.png",
    "reliability.png",
    "worst.png",
}


def make_project(folder):
    """Four scenes of one region each, in which bright near infrared is an object, mostly, and some is not known."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("Lena", "Horton", "Yamal", "Taymyr")):
        place = folder / "scenes" / name
        place.mkdir(parents=True)
        bands = rng.integers(200, 4000, (2, 64, 72)).astype(np.uint16)
        mask = (bands[1].astype(int) > bands[0] + rng.normal(500, 700, bands[0].shape)).astype(np.uint8)
        mask[:5, :9] = 255
        bands[:, 30:40, 20:33] = 0  # nothing is known there
        grid = from_origin(500_000 + number * 50_000, 7_800_000, 10, 10)
        about = {"driver": "GTiff", "width": 72, "height": 64, "crs": "EPSG:32640", "transform": grid, "nodata": 0}
        for file, values in (("image.tif", bands), ("mask.tif", mask[np.newaxis])):
            known = about | ({} if file == "image.tif" else {"nodata": None})
            with rasterio.open(place / file, "w", count=len(values), dtype=values.dtype, **known) as out:
                out.write(values)
    (folder / "thawmap.yaml").write_text(YAML)
    return folder / "thawmap.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project that was trained from the command line; its folder."""
    folder = tmp_path_factory.mktemp("trained")
    assert thawmap(["train", str(make_project(folder)), "--out", str(folder / "model")]) == 0
    return folder


def again(folder, *more):
    return thawmap(["train", str(folder / "thawmap.yaml"), "--out", str(folder / "model"), *more])


def test_scores_are_those_of_the_chosen_epoch_in_metrics_csv(trained):
    model = trained / "model"
    assert {path.name for path in (model / "report").iterdir()} == FILES | {".made.json"}
    bundle, log = load(model), pd.read_csv(model / "metrics.csv")
    log = log[
        (log["split"] == "validation")
        & ("phase " + log["phase"] + ", epoch " + log["epoch"].astype(str)).eq(bundle.provenance["from"])
    ]
    report = json.loads((model / "report" / "report.json").read_text())
    by_name = {row["threshold_name"]: row for row in report["scores"]}
    assert report["bundle"] == bundle.id
    assert by_name["validation"]["iou"] == pytest.approx(log["iou_at_threshold"].item(), rel=0.05)  # before calibration
    assert by_name["validation"]["threshold"] == bundle.threshold
    assert by_name["paper"]["iou"] < by_name["validation"]["iou"]


def test_tiles_add_up_to_the_whole_the_worst_first(trained):
    model = trained / "model"
    tiles = pd.read_csv(model / "report" / "tiles.csv")
    index = TileStore.open(model / "tiles").index
    mine = index[index["scene"].isin(["Yamal", "Taymyr"])]
    assert set(zip(tiles["scene"], tiles["tile"], strict=True)) == set(zip(mine["scene"], mine["number"], strict=True))
    summed = Counts(*(int(tiles[name].sum()) for name in ("tp", "fp", "fn", "tn")))
    report = json.loads((model / "report" / "report.json").read_text())
    assert scores(summed)["iou"] == pytest.approx(report["scores"][0]["iou"])
    assert (tiles["fp"] + tiles["fn"]).is_monotonic_decreasing
    log = pd.read_csv(model / "metrics.csv").query("split == 'validation'").iloc[-1]
    assert summed.total == log[["tp", "fp", "fn", "tn"]].sum() < len(mine) * 32 * 32  # what is not known is in no score


def test_the_page_stands_alone_and_says_the_numbers(trained):
    report = trained / "model" / "report"
    html = (report / "index.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert page.open == []
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 4
    assert all(image["src"].startswith("data:image/png;base64,") and len(image["alt"]) > 30 for image in images)
    links = {attributes["href"] for _, attributes in page.tags if "href" in attributes} - {"data:,"}
    assert links == {"tiles.csv", "../metrics.csv"}
    assert all((report / link).exists() for link in links)
    assert not re.search(r"https?://", html)
    assert "place &lt;1&gt;" in html
    best = json.loads((report / "report.json").read_text())["scores"][0]
    assert f"it reaches a validation IoU of {best['iou']:.2f}" in html
    assert f'<td class="main">{best["iou"]:.2f}</td>' in html


@pytest.mark.slow
def test_it_is_made_once_and_again_where_it_is_missing_or_of_another_bundle(trained, capsys):
    report = trained / "model" / "report"
    before = (report / "report.json").stat().st_mtime_ns
    assert again(trained, "--resume") == 0
    assert (report / "report.json").stat().st_mtime_ns == before
    (report / "report.json").unlink()
    assert again(trained, "--resume") == 0
    assert is_made(report, load(trained / "model"))
    assert not is_made(report, replace(load(trained / "model"), id="another"))
    (report / "report.json").write_text('{"bundle": "somebody changed it"}')
    assert again(trained) == 1
    said = capsys.readouterr()
    assert "trained before" in said.out
    assert "holds report.json, which was not made here, or was changed since" in said.err
    (report / "report.json").unlink()
    assert again(trained) == 0
    assert json.loads((report / "report.json").read_text())["bundle"] == load(trained / "model").id


@pytest.mark.slow
def test_only_validation_tiles_are_looked_at(trained, monkeypatch):
    looked, read = set(), TileStore.read

    def watch(store, rows):
        looked.update(rows["scene"])
        return read(store, rows)

    monkeypatch.setattr(TileStore, "read", watch)
    (trained / "model" / "report" / "report.json").unlink()
    assert again(trained) == 0
    assert looked == {"Yamal", "Taymyr"}


@pytest.mark.slow
def test_a_report_that_cannot_be_made_costs_no_bundle(tmp_path, capsys):
    make_project(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "report").write_text("in the way")
    assert again(tmp_path) == 1
    said = capsys.readouterr()
    assert "report failed: " in said.err
    assert "Traceback" not in said.err
    bundle = load(tmp_path / "model")
    assert f"bundle {bundle.id}" in said.out
    (tmp_path / "model" / "report").unlink()
    assert again(tmp_path, "--resume") == 0
    assert is_made(tmp_path / "model" / "report", bundle)


@pytest.mark.slow
def test_without_validation_tiles_there_are_curves_only(tmp_path):
    make_project(tmp_path)
    assert again(tmp_path, "--set", "split={by: scene, test: [Horton]}") == 0
    report = tmp_path / "model" / "report"
    assert {path.name for path in report.iterdir()} == {"index.html", "report.json", "curves.png", ".made.json"}
    assert json.loads((report / "report.json").read_text())["scores"] == []
    assert "No tile chose epoch and threshold" in (report / "index.html").read_text()


def make_tile(seed, size=6):
    """A tile with some of everything; every fourth without an object, every fifth without a usable pixel."""
    rng = np.random.default_rng(seed)
    target = rng.choice(np.array([0, 0, 1, 255], np.uint8), (size, size))
    target[(target == 1) & (seed % 4 == 0)] = 0
    probability = np.where(rng.random((size, size)) < 0.1, np.nan, rng.random((size, size)))
    if seed % 5 == 0:
        probability[:] = np.nan
    region = "ABC"[seed % 3]
    image = np.zeros((size, size, 3), np.uint8)
    return Tile(
        scene=f"s{seed}", number=seed, region=region, image=image, probability=probability.astype("f4"), target=target
    )


@given(st.lists(st.integers(0, 300), max_size=2 * WORST + 5, unique=True))
@settings(max_examples=25)
def test_what_is_kept_is_what_a_slow_version_finds(seeds):
    tiles, thresholds = [make_tile(seed) for seed in seeds], {"paper": 0.5, "validation": 0.13}
    statistics = TileStatistics(thresholds=thresholds)
    for tile in tiles:
        statistics.add(tile)

    def count(tile, threshold):
        return counts(tile.probability.round(2) > np.float32(threshold), tile.target, np.isfinite(tile.probability))

    def wrong(tile):
        return count(tile, 0.13).fp + count(tile, 0.13).fn

    worst = sorted((tile for tile in tiles if wrong(tile)), key=wrong, reverse=True)[:WORST]
    assert [tile.scene for tile in statistics.worst_first] == [tile.scene for tile in worst]
    for name, value in thresholds.items():
        assert statistics.together.counts(value) == sum((count(tile, value) for tile in tiles), Counts())
        objects = [
            object_counts(one.probability.round(2) > np.float32(value), one.target, np.isfinite(one.probability))
            for one in tiles
        ]
        assert statistics.objects.get(name, Counts()) == sum(objects, Counts())
    assert len(statistics.rows) == len(tiles)


@pytest.mark.slow
def test_tiles_without_an_object_or_a_usable_pixel_make_a_page(trained, tmp_path):
    bundle, log = load(trained / "model"), pd.read_csv(trained / "model" / "metrics.csv")
    tiles = [make_tile(20), make_tile(4)]
    write(tmp_path, bundle, log, [make_tile(1)], project="p", made=datetime(2026, 1, 1, tzinfo=UTC))
    assert (tmp_path / "precision_recall.png").exists()
    write(tmp_path, bundle, log, tiles, project="p", made=datetime(2026, 1, 1, tzinfo=UTC))
    assert "n/a" in (tmp_path / "index.html").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["scores"][0]["recall"] is None
    assert not (tmp_path / "precision_recall.png").exists()  # of the report before


def test_curves_mark_the_chosen_epoch_and_the_phases():
    rows = [
        {"phase": phase, "epoch": epoch, "split": split, "iou": 0.1 * epoch, "iou_at_threshold": 0.2 * epoch}
        for phase in ("a", "b")
        for epoch in (1, 2, 3)
        for split in ("train", "validation")
    ]
    figure = training_curves(pd.DataFrame(rows), metrics=["iou"], chosen=("b", 2))
    drawn = {line.get_label(): line.get_xdata() for line in figure.axes[0].get_lines()}
    assert list(drawn["chosen epoch"]) == [5, 5]
    assert list(drawn["validation"]) == list(drawn["validation, at its best threshold"]) == [1, 2, 3, 4, 5, 6]
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b"]
    begins = [line.get_xdata()[0] for line in figure.axes[0].get_lines() if line.get_linestyle() == ":"]
    assert begins == [0.5, 3.5]
    unmarked = training_curves(pd.DataFrame(rows), metrics=["iou"], chosen=("gone", 1))
    assert "chosen epoch" not in {line.get_label() for line in unmarked.axes[0].get_lines()}
    assert not math.isnan(figure.axes[0].get_ylim()[1])
