"""Law 21: thresholds belong to what they were chosen on, and are stored with it."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from scipy import ndimage
from toy_training import make_project

from thawmap.cli import _run as thawmap
from thawmap.config import PolygonSettings
from thawmap.maps.decide import decide, record, recorded
from thawmap.maps.item import MapItem
from thawmap.model.bundle_folder import load, save
from thawmap.model.decision import KINDS, Decision

torch.set_num_threads(1)

PLAIN = 0.42
TILE = Decision(smoothing_px=1.0, threshold=0.2, peak=0.5, min_area_m2=450.0, views=1.0)
DATES = Decision(smoothing_px=1.0, threshold=0.35, peak=0.6, min_area_m2=950.0, views=2.6)


# --- the rule ------------------------------------------------------------------------------------------------------


def test_a_bundle_decides_where_the_yaml_leaves_it_all_to_it():
    decided = decide(PolygonSettings(), {"tile": TILE, "dates": DATES}, "dates", plain=PLAIN)
    polygons = decided.polygons
    assert (polygons.threshold, polygons.seed, polygons.smoothing_px) == (0.35, 0.6, 1.0)
    assert (decided.least_m2, decided.kind) == (950.0, "dates")
    assert decide(PolygonSettings(), {"tile": TILE}, "dates", plain=PLAIN).kind == "tile"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"threshold": 0.7}, (0.7, None, 0.0)),
        ({"seed": 0.9}, (PLAIN, 0.9, 0.0)),
        ({"seed": None}, (PLAIN, None, 0.0)),
        ({"smoothing_px": 0}, (PLAIN, None, 0.0)),
        ({"smoothing_px": 2, "seed": 0.8, "threshold": 0.3}, (0.3, 0.8, 2.0)),
    ],
)
def test_the_yaml_decides_as_before_where_it_names_one_of_them(given, expected):
    decided = decide(PolygonSettings(**given), {"tile": TILE}, "tile", plain=PLAIN)
    polygons = decided.polygons
    assert (polygons.threshold, polygons.seed, polygons.smoothing_px) == expected
    assert (decided.least_m2, decided.kind) == (0.0, None)


def test_maps_of_a_bundle_without_decisions_are_as_they_were():
    """Their settings read as before there were decisions, so that a rerun finds them finished."""
    polygons = PolygonSettings().model_dump(mode="json")
    decided = decide(PolygonSettings(), {}, "tile", plain=PLAIN)
    assert (decided.polygons.threshold, decided.polygons.seed, decided.polygons.smoothing_px) == (PLAIN, None, 0.0)
    before = {"threshold": "bundle", "seed": None, "opening_m": 0.0, "fill_holes_m2": 0.0, "min_area_m2": "auto"}
    assert recorded(polygons, {}) == before | {"drop": [], "simplify_m": 0.0}
    assert record(decided, {}) == {}
    assert recorded(polygons, {"tile": TILE}) == polygons


# --- the whole way -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    yaml = make_project(folder)
    assert thawmap(["train", str(yaml), "--out", str(folder / "model")]) == 0
    bundle = load(folder / "model")
    assert set(bundle.decisions) <= set(KINDS)
    assert bundle.decisions["tile"].views == 1.0
    save(replace(bundle, decisions={}), folder / "plain")
    stored = read(predicted(yaml, "plain", folder / "first", "polygons.smoothing_px=1") / "Lena" / "probability.tif")
    low, middle, high = (float(np.quantile(stored, share)) / 100 for share in (0.7, 0.8, 0.97))
    tile = replace(TILE, threshold=low, peak=high)
    decisions = {"tile": tile, "dates": replace(DATES, threshold=middle + 0.005, peak=high)}
    save(replace(bundle, decisions=decisions), folder / "decided")
    return yaml


@pytest.fixture(scope="module")
def chosen(project):
    return load(project.parent / "decided").decisions


def predicted(project, model, out, *sets):
    words = [word for one in sets for word in ("--set", one)]
    model = project.parent / model
    assert thawmap(["predict", str(project), "--model", str(model), "--out", str(out), *words]) == 0
    return out


def save_in(folder, bundle):
    save(bundle, folder)
    return folder


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def test_bundles_bring_their_decisions_along_and_older_ones_have_none(project):
    bundle = load(project.parent / "plain")
    assert bundle.decisions == {}
    both = {"tile": TILE, "dates": DATES}
    assert load(save_in(project.parent / "both", replace(bundle, decisions=both))).decisions == both
    assert "decisions" not in json.loads((project.parent / "plain" / "bundle.json").read_text())


def test_maps_follow_the_decision_on_single_tiles(project, chosen, tmp_path):
    maps = predicted(project, "decided", tmp_path / "maps")
    raw = predicted(project, "decided", tmp_path / "raw", "polygons.smoothing_px=0", "polygons.threshold=0.5")
    item = MapItem.read(maps / "Lena")
    assert item.follows_decision
    assert not MapItem.read(raw / "Lena").follows_decision
    tile = chosen["tile"]
    assert item.threshold == tile.threshold
    stored = read(maps / "Lena" / "probability.tif")
    expected = ndimage.gaussian_filter(read(raw / "Lena" / "probability.tif").astype(float), 1.0, truncate=3.0)
    np.testing.assert_allclose(stored[3:-3, 3:-3], expected[3:-3, 3:-3], atol=1.2)
    labels, number = ndimage.label(stored / 100 > tile.threshold)
    peaks = ndimage.maximum(stored, labels, np.arange(1, number + 1))
    sizes = np.bincount(labels.ravel())[1:]
    rim = np.pad(np.zeros((46, 46), bool), 1, constant_values=True)
    thin = np.array([3 * rim[labels == one].sum() >= sizes[one - 1] for one in range(1, number + 1)])
    stays = (peaks / 100 > tile.peak) & (sizes * 100 >= tile.min_area_m2) & ~thin
    assert 0 < stays.sum() < number
    np.testing.assert_array_equal(read(maps / "Lena" / "mask.tif"), np.concatenate([[False], stays])[labels])


def test_a_rerun_with_a_bundle_without_decisions_finds_its_maps_finished(project, tmp_path):
    maps = predicted(project, "plain", tmp_path / "maps")
    item = json.loads((maps / "Lena" / "item.json").read_text())
    settings = item["properties"]["thawmap:config"]
    assert settings["polygons"]["seed"] is None
    assert not {"smoothing_px"} & set(settings["polygons"])
    assert not {"decision", "decisions"} & set(settings)
    stamp = (maps / "Lena" / "item.json").stat().st_mtime_ns
    predicted(project, "plain", maps)
    assert (maps / "Lena" / "item.json").stat().st_mtime_ns == stamp


def test_evaluation_counts_the_pixels_of_the_mask(project, tmp_path):
    maps = predicted(project, "decided", tmp_path / "maps")
    model = str(project.parent / "decided")
    words = ["evaluate", str(maps), "--config", str(project), "--model", model, "--out", str(tmp_path / "report")]
    assert thawmap(words) == 0
    table = pd.read_csv(tmp_path / "report" / "scores.csv")
    row = table[(table["scene"] == "Lena") & (table["threshold_name"] == "mapped")].iloc[0]
    mask, target = read(maps / "Lena" / "mask.tif"), read(project.parent / "scenes" / "Lena" / "mask.tif")
    known = mask != 255
    counts = [
        int((known & (mask == said) & (target == truth)).sum()) for said, truth in ((1, 1), (1, 0), (0, 1), (0, 0))
    ]
    assert [row[name] for name in ("tp", "fp", "fn", "tn")] == counts
    assert {"mapped", "paper", "validation", "oracle"} == set(table["threshold_name"])
    assert "as the maps have it" in (tmp_path / "report" / "index.html").read_text()


def test_fused_dates_follow_the_decision_on_dates(project, chosen, tmp_path):
    """A second date of the same ground is a copy of the map under another name and day."""
    maps = predicted(project, "decided", tmp_path / "maps")
    for name, day in (("Lena", 1), ("Horton", 2)):
        path = maps / name / "item.json"
        item = json.loads(path.read_text())
        item["properties"]["datetime"] = f"2019-07-0{day}T20:00:00Z"
        path.write_text(json.dumps(item))
    twin = maps / "Lena2"
    twin.mkdir()
    for path in (maps / "Lena").iterdir():
        (twin / path.name).write_bytes(path.read_bytes())
    item = json.loads((twin / "item.json").read_text())
    item["properties"]["datetime"], item["id"] = "2019-08-01T20:00:00Z", "Lena2"
    (twin / "item.json").write_text(json.dumps(item))
    assert thawmap(["fuse", str(maps), "--out", str(tmp_path / "fused")]) == 0
    both, alone = (MapItem.read(tmp_path / "fused" / name) for name in ("Lena+1", "Horton"))
    assert (both.threshold, both.config["decision"]) == (chosen["dates"].threshold, {"kind": "dates"})
    assert (alone.threshold, alone.config["decision"]) == (chosen["tile"].threshold, {"kind": "tile"})
    np.testing.assert_array_equal(
        read(tmp_path / "fused" / "Lena+1" / "probability.tif"), read(maps / "Lena" / "probability.tif")
    )  # smoothed once
    median = tmp_path / "median"
    assert thawmap(["fuse", str(maps), "--out", str(median), "--how", "median"]) == 0
    assert MapItem.read(median / "Lena+1").threshold == chosen["tile"].threshold
    by_scene = tmp_path / "by-scene"
    assert thawmap(["fuse", str(maps), "--out", str(by_scene), "--by", "scene"]) == 0
    assert MapItem.read(by_scene / "Lena").threshold > MapItem.read(by_scene / "Horton").threshold
    words = ["evaluate", str(by_scene), "--config", str(project), "--out", str(tmp_path / "report")]
    assert thawmap(words) == 0
    table = pd.read_csv(tmp_path / "report" / "scores.csv")
    for name in ("Lena", "Horton"):
        row = table[(table["scene"] == name) & (table["threshold_name"] == "mapped")].iloc[0]
        assert row["tp"] + row["fp"] == (read(by_scene / name / "mask.tif") == 1).sum()
