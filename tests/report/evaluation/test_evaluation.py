"""Maps against labels: counts as a slow version gives them, nothing dropped in silence, a page that stands alone."""

import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from pages import Page
from scipy.ndimage import binary_dilation
from shapely.geometry import box
from sklearn.metrics import precision_recall_curve

from thawmap.config import LabelSettings
from thawmap.data.labels.polygons import open_labels
from thawmap.data.raster.io import Encoding, read_raster, write_raster
from thawmap.data.sources.bands import BandSource
from thawmap.data.sources.base import Reading, Scene
from thawmap.data.vector.io import write_vector
from thawmap.errors import DataError
from thawmap.geo.metres import ground_pixel_m
from thawmap.model.metrics.boundaries import boundary_counts
from thawmap.model.metrics.objects import Comparison, average_precision, detections, object_counts
from thawmap.model.metrics.pixels import SCORES, Counts, calibration_error, histogram, scores
from thawmap.model.metrics.sizes import SIZE_NUMBERS, SizeCounts
from thawmap.report.evaluation import score
from thawmap.report.evaluation.examples import choose_examples, open_example
from thawmap.report.evaluation.page import About, summary, write_page
from thawmap.report.evaluation.result import (
    COLUMNS,
    COUNTED,
    OBJECT_COLUMNS,
    Evaluation,
    evaluate,
    tabulate_curves,
    tabulate_reliability,
    write_scores,
)
from thawmap.report.evaluation.score import BOUNDARY_PX
from thawmap.report.evaluation.sizes import SIZE_COLUMNS
from thawmap.report.figures import confusion, map_panel, precision_recall, region_scores, training_curves
from thawmap.report.style import write_figure

BYTES = Encoding(dtype="uint8", nodata=255, scale=0.01)
FLOATS = Encoding(dtype="float32", nodata=float("nan"))
THRESHOLDS = {"paper": 0.5, "validation": 0.13}
ABOUT = About(
    project="coast <2021> & more",
    made=datetime(2026, 2, 3, 4, 5, tzinfo=UTC),
    roles={"Lena": "test", "Yamal": "validation"},
    facts={"Layers": "nir, red, green"},
)


@dataclass(frozen=True)
class World:
    """Scenes with maps and label rasters, and the arrays that are in them."""

    folder: object
    scenes: tuple
    labels: object
    stored: dict
    targets: dict

    @property
    def maps(self):
        return self.folder / "maps"

    def source(self):
        return BandSource(frozenset({"nir", "red", "green"}))


def make_world(folder, *, shape=(150, 130), regions=("Lena", "Lena", "Yamal")):
    rng = np.random.default_rng(7)
    scenes, stored, targets = [], {}, {}
    for number, region in enumerate(regions):
        name = f"scene_{number}"
        geobox = GeoBox(shape, Affine(10, 0, 5e5 + 9000 * number, 0, -10, 7.9e6), "EPSG:32652")
        target = make_target(rng, shape)
        probability = np.clip(rng.normal(6 + 22 * (target == 1), 9), 0, 100).round().astype(np.uint8)
        probability[:20, :30] = 255
        image = rng.uniform(0.02, 0.3, (3, *shape)).astype(np.float32)
        image[0] += 0.2 * (target != 1)
        place = folder / name
        write_raster(place / "mask.tif", target, geobox, encoding=Encoding(dtype="uint8"))
        write_raster(place / "s2.tif", image, geobox, encoding=Encoding(dtype="float32", bands=3))
        write_raster(folder / "maps" / name / "probability.tif", probability, geobox, encoding=BYTES)
        files = {"labels": place / "mask.tif", "s2.tif": place / "s2.tif"}
        readings = {layer: Reading(file="s2.tif", band=band) for band, layer in enumerate(("nir", "red", "green"), 1)}
        scenes.append(Scene(id=name, sensor="rasters", geobox=geobox, files=files, region=region, readings=readings))
        stored[name], targets[name] = probability, target
    labels = open_labels(LabelSettings(raster="mask.tif"))
    return World(folder, tuple(scenes), labels, stored, targets)


def make_target(rng, shape):
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    target = np.zeros(shape, np.uint8)
    for _ in range(4):
        row, col, radius = rng.uniform(15, shape[0] - 15), rng.uniform(15, shape[1] - 15), rng.uniform(4, 11)
        target[(rows - row) ** 2 + (cols - col) ** 2 < radius**2] = 1
    target[-20:, -25:] = 255
    return target


def slow_counts(stored, target, threshold):
    """All counts of a scene from whole arrays."""
    used = (stored != 255) & (target != 255)
    said, truth = stored[used] / 100 > threshold, target[used] == 1
    return Counts(
        int((said & truth).sum()), int((said & ~truth).sum()), int((~said & truth).sum()), int((~said & ~truth).sum())
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def evaluation(world) -> Evaluation:
    return evaluate(world.maps, world.scenes, world.labels, thresholds=THRESHOLDS)


def row_of(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def counts_in(row):
    return Counts(*(int(row[name]) for name in ("tp", "fp", "fn", "tn")))


def test_counts_of_a_scene_are_those_of_whole_arrays(world, evaluation):
    for scene in world.scenes:
        for name, threshold in THRESHOLDS.items():
            row = row_of(evaluation.table, scope="scene", scene=scene.id, threshold_name=name)
            assert counts_in(row) == slow_counts(world.stored[scene.id], world.targets[scene.id], threshold)
            assert row["pixels_ignored"] == int((world.targets[scene.id] == 255).sum())
            assert row["pixels_missing"] == 600


@pytest.mark.slow
@pytest.mark.parametrize(("side", "block"), [(37, 32), (64, 8), (20, 20), (150, 3), (2048, 1)])
def test_the_windows_do_not_matter(world, evaluation, monkeypatch, side, block):
    monkeypatch.setattr(score, "_SIDE", side)
    monkeypatch.setattr(score, "_BLOCK", block)
    again = evaluate(world.maps, world.scenes, world.labels, thresholds=THRESHOLDS)
    pd.testing.assert_frame_equal(again.table, evaluation.table)
    pd.testing.assert_frame_equal(again.objects, evaluation.objects)
    pd.testing.assert_frame_equal(again.sizes, evaluation.sizes)


def test_an_object_within_another_across_windows_is_counted_once(tmp_path, monkeypatch):
    """A ring over four windows, mapped and labelled, around a mapped and a labelled spot that do not meet."""
    world = make_world(tmp_path, shape=(64, 64), regions=("Lena",))
    scene = world.scenes[0]
    ring = np.zeros((64, 64), np.uint8)
    ring[10:54, 10:54], ring[13:51, 13:51] = 1, 0
    target, stored = ring.copy(), 90 * ring
    target[20:24, 20:24], stored[44:47, 18:24], stored[40:44, 40:44] = 1, 80, 70
    write_raster(scene.files["labels"], target, scene.geobox, encoding=Encoding(dtype="uint8"))
    write_raster(world.maps / scene.id / "probability.tif", stored, scene.geobox, encoding=BYTES)
    monkeypatch.setattr(score, "_SIDE", 32)
    monkeypatch.setattr(score, "_BLOCK", 2)
    found = evaluate(world.maps, world.scenes, world.labels, thresholds={"paper": 0.5})
    row = row_of(found.table, scope="pooled", threshold_name="paper")
    assert [row[f"object_{kind}"] for kind in ("tp", "fp", "fn")] == [1, 2, 1]
    assert row["object_average_precision"] == 0.5


def whole_arrays(world, scene):
    """Probability, target and where both are known, of a whole scene."""
    stored, target = world.stored[scene.id], world.targets[scene.id]
    return np.where(stored == 255, np.nan, stored / 100), target, stored != 255


def test_boundaries_and_objects_of_a_scene_are_those_of_whole_arrays(world, evaluation):
    assert max(evaluation.objects["fp"].dropna()) > 255
    for scene, (name, threshold) in product(world.scenes, THRESHOLDS.items()):
        probability, target, valid = whole_arrays(world, scene)
        row = row_of(evaluation.table, scope="scene", scene=scene.id, threshold_name=name)
        bands = boundary_counts(probability > threshold, target, valid, width=BOUNDARY_PX)
        assert [row[f"boundary_{kind}"] for kind in ("tp", "fp", "fn")] == [bands.tp, bands.fp, bands.fn]
        assert (row["boundary_iou"], row["boundary_f1"]) == (scores(bands)["iou"], scores(bands)["f1"])
        found = object_counts(probability > threshold, target, valid)
        assert [row[f"object_{kind}"] for kind in ("tp", "fp", "fn")] == [found.tp, found.fp, found.fn]
        centres = object_counts(probability > threshold, target, valid, match="centroid")
        for kind in ("precision", "recall", "f1"):
            assert row[f"object_{kind}"] == pytest.approx(scores(found)[kind], nan_ok=True)
            assert row[f"centroid_{kind}"] == pytest.approx(scores(centres)[kind], nan_ok=True)
        ranked = detections(probability, target, valid, threshold=threshold)
        assert row["object_average_precision"] == pytest.approx(average_precision(ranked))
        mine = evaluation.objects[evaluation.objects["threshold_name"] == name]
        for tenths in range(1, 10):
            by_iou = row_of(mine, scope="scene", scene=scene.id, min_iou=tenths / 10)
            counted = object_counts(probability > threshold, target, valid, min_iou=tenths / 10)
            assert [by_iou[kind] for kind in ("tp", "fp", "fn")] == [counted.tp, counted.fp, counted.fn]


def test_objects_by_size_of_a_scene_are_those_of_whole_arrays(world, evaluation):
    assert tuple(evaluation.sizes.columns) == SIZE_COLUMNS
    for scene, (name, threshold) in product(world.scenes, THRESHOLDS.items()):
        probability, target, valid = whole_arrays(world, scene)
        compared = Comparison.of(probability > threshold, target, valid)
        pixel_m2 = math.prod(ground_pixel_m(scene.geobox))
        ground_m2 = float((valid & (target != 255)).sum() * pixel_m2)
        for expected in SizeCounts.of(compared, pixel_m2=pixel_m2).rows(ground_m2=ground_m2):
            where = {"scope": "scene", "scene": scene.id, "threshold_name": name}
            row = row_of(evaluation.sizes, size=expected["size"], **where)
            assert [row[key] for key in SIZE_NUMBERS] == pytest.approx(
                [expected[key] for key in SIZE_NUMBERS], nan_ok=True
            )
            assert row["ground_km2"] == pytest.approx(ground_m2 / 1e6)
            assert row["iou"] == row_of(evaluation.table, **where)["iou"]


def test_objects_by_size_are_summed_and_rates_come_last(evaluation):
    for (_, _), rows in evaluation.sizes.groupby(["threshold_name", "size"]):
        scenes, regions = rows[rows["scope"] == "scene"], rows[rows["scope"] == "region"]
        pooled = row_of(rows, scope="pooled")
        for kind in ("labelled", "found", "mapped", "false", "ground_km2"):
            assert pooled[kind] == pytest.approx(regions[kind].sum())
            assert pooled[kind] == pytest.approx(scenes[kind].sum())
        assert pooled["false_per_100km2"] == pytest.approx(100 * pooled["false"] / pooled["ground_km2"])
        rates = regions["hit_rate"].dropna()
        mean = row_of(rows, scope="mean")["hit_rate"]
        assert mean == pytest.approx(rates.mean(), nan_ok=True)
    assert evaluation.sizes["labelled"].fillna(0).max() > 5


def test_objects_are_summed_over_scenes_and_their_scores_averaged_over_regions(evaluation):
    assert tuple(evaluation.objects.columns) == OBJECT_COLUMNS
    for (name, _, _), rows in evaluation.objects.groupby(["threshold_name", "match", "min_iou"], dropna=False):
        scenes, regions = rows[rows["scope"] == "scene"], rows[rows["scope"] == "region"]
        pooled, main = row_of(rows, scope="pooled"), evaluation.table
        for kind in ("tp", "fp", "fn"):
            assert pooled[kind] == regions[kind].sum() == scenes[kind].sum()
        for row in (pooled, *regions.to_dict("records")):
            assert row["f1"] == scores(Counts(row["tp"], row["fp"], row["fn"]))["f1"]
        assert row_of(rows, scope="mean")["f1"] == pytest.approx(regions["f1"].mean())
        if pooled["min_iou"] == 0.5:
            assert row_of(main, scope="mean", threshold_name=name)["object_f1"] == pytest.approx(regions["f1"].mean())


@pytest.mark.slow
def test_a_cluster_that_is_too_large_leaves_objects_unknown_and_all_else_as_it_is(world, evaluation, monkeypatch):
    monkeypatch.setattr(score, "_LARGEST", 150 * 130 - 1)
    again = evaluate(world.maps, world.scenes, world.labels, thresholds={"paper": 0.0})
    assert again.table[[name for name in COLUMNS if name.startswith(("object_", "centroid_"))]].isna().all(axis=None)
    assert again.objects[again.objects["scope"] != "mean"].empty
    assert again.sizes[again.sizes["scope"] != "mean"].empty
    assert row_of(again.table, scope="pooled", threshold_name="paper")["boundary_iou"] > 0
    write_page(world.folder / "unknown.html", again, ABOUT)


def test_what_is_ignored_or_missing_is_in_no_score(tmp_path):
    world = make_world(tmp_path, shape=(64, 64), regions=("Lena",))
    scene = world.scenes[0]
    ignored = world.targets[scene.id] == 255
    hidden = ignored & ~binary_dilation(~ignored)
    assert hidden.sum() > 400
    apart = np.where(ignored & ~hidden, 0, world.stored[scene.id])  # else what is mapped reaches over the edge
    write_raster(world.maps / scene.id / "probability.tif", apart, scene.geobox, encoding=BYTES)
    before = evaluate(world.maps, world.scenes, world.labels, thresholds=THRESHOLDS)
    stored = np.where(hidden, 97, apart).astype(np.uint8)
    write_raster(world.maps / scene.id / "probability.tif", stored, scene.geobox, encoding=BYTES)
    target = np.where(stored == 255, 1, world.targets[scene.id]).astype(np.uint8)
    write_raster(scene.files["labels"], target, scene.geobox, encoding=Encoding(dtype="uint8"))
    after = evaluate(world.maps, world.scenes, world.labels, thresholds=THRESHOLDS)
    pd.testing.assert_frame_equal(after.table, before.table)
    pd.testing.assert_frame_equal(after.objects, before.objects)


def test_calibration_is_that_of_all_pixels_of_the_scope(world, evaluation):
    for region, members in evaluation.regions.items():
        rows = evaluation.table[(evaluation.table["scope"] == "region") & (evaluation.table["region"] == region)]
        pixels = [whole_arrays(world, scene) for scene in world.scenes if scene.region == region]
        expected = calibration_error(sum(histogram(*one) for one in pixels))
        assert rows["calibration_error"].tolist() == pytest.approx([expected] * 3)
        kept = tabulate_reliability(members).query("scope == 'pooled'")
        assert (kept["pixels"] * (kept["promised"] - kept["kept"]).abs()).sum() / kept["pixels"].sum() == (
            pytest.approx(expected)
        )
        assert kept["pixels"].sum() == rows["pixels"].iloc[0]


def test_curves_are_those_of_scikit_learn(world, evaluation):
    pixels = [whole_arrays(world, scene) for scene in world.scenes]
    used = [valid & (target != 255) for _, target, valid in pixels]
    truth = np.concatenate([target[here] for (_, target, _), here in zip(pixels, used, strict=True)])
    said = np.concatenate([probability[here] for (probability, _, _), here in zip(pixels, used, strict=True)])
    precision, recall, thresholds = precision_recall_curve(truth, said)
    curve = tabulate_curves(evaluation.scenes).query("scope == 'pooled'").set_index("threshold")
    for at, *expected in zip(thresholds[1:], precision[1:-1], recall[1:-1], strict=True):
        below = round(at - 0.01, 2)  # at or above this hundredth is above the one before
        assert curve.loc[below, ["precision", "recall"]].tolist() == pytest.approx(expected)
    assert curve["positive"].sum() == truth.sum()


def test_workers_do_not_matter(world, evaluation):
    with ThreadPoolExecutor(3) as pool:
        again = evaluate(world.maps, reversed(world.scenes), world.labels, thresholds=THRESHOLDS, executor=pool)
    pd.testing.assert_frame_equal(again.table, evaluation.table)


def test_counts_are_summed_and_scores_come_last(evaluation):
    table = evaluation.table
    for name in THRESHOLDS:
        mine = table[table["threshold_name"] == name]
        scenes, regions = mine[mine["scope"] == "scene"], mine[mine["scope"] == "region"]
        pooled = row_of(mine, scope="pooled")
        for column in COUNTED:
            assert pooled[column] == regions[column].sum() == scenes[column].sum()
            assert row_of(regions, region="Lena")[column] == scenes[scenes["region"] == "Lena"][column].sum()
        for scored in (*regions.to_dict("records"), pooled):
            assert [scored[key] for key in SCORES] == pytest.approx(list(scores(counts_in(scored)).values()))
        assert row_of(mine, scope="mean")["iou"] == pytest.approx(regions["iou"].mean())


def test_the_oracle_is_the_best_of_its_region_and_bounds_the_rest(world, evaluation):
    regions = evaluation.table[evaluation.table["scope"] == "region"]
    for region, rows in regions.groupby("region"):
        oracle = row_of(rows, threshold_name="oracle")
        members = [scene.id for scene in world.scenes if scene.region == region]
        tried = [
            scores(sum(slow_counts(world.stored[key], world.targets[key], step / 100) for key in members))["iou"]
            for step in range(101)
        ]
        assert oracle["iou"] == pytest.approx(np.nanmax(tried))
        assert oracle["iou"] >= rows["iou"].max()
    assert set(regions.groupby("region")["threshold_name"].count()) == {3}


def test_the_table_keeps_its_columns(evaluation):
    assert tuple(evaluation.table.columns) == COLUMNS
    assert list(dict.fromkeys(evaluation.table["scope"])) == ["region", "mean", "pooled", "scene"]


def test_maps_of_floats_score_as_their_hundredths(world, evaluation, tmp_path):
    for scene in world.scenes:
        stored = world.stored[scene.id]
        values = np.where(stored == 255, np.nan, stored / 100).astype(np.float32)
        write_raster(tmp_path / scene.id / "probability.tif", values, scene.geobox, encoding=FLOATS)
    again = evaluate(tmp_path, world.scenes, world.labels, thresholds=THRESHOLDS)
    pd.testing.assert_frame_equal(again.table, evaluation.table)


def test_scenes_that_cannot_be_scored_are_listed_with_their_reason(tmp_path):
    world = make_world(tmp_path, shape=(64, 64), regions=("Lena", "Lena", "Yamal", "Yamal"))
    no_map, truncated, unlabelled, good = world.scenes
    (world.maps / no_map.id / "probability.tif").unlink()
    broken = world.maps / truncated.id / "probability.tif"
    broken.write_bytes(broken.read_bytes()[:300])
    all_ignored = np.full((64, 64), 255, np.uint8)
    write_raster(unlabelled.files["labels"], all_ignored, unlabelled.geobox, encoding=Encoding(dtype="uint8"))
    found = evaluate(world.maps, world.scenes, world.labels, thresholds=THRESHOLDS)
    assert [item.scene for item in found.scenes] == [good.id]
    assert "has no map" in found.left_out[no_map.id]
    assert "probability.tif" in found.left_out[truncated.id]
    assert "no pixel with both" in found.left_out[unlabelled.id]
    write_scores(found, tmp_path / "out")
    assert set(pd.read_csv(tmp_path / "out" / "left_out.csv")["scene"]) == set(found.left_out)


def test_nothing_to_score_is_an_error(world, tmp_path):
    with pytest.raises(DataError, match="none of 3 scenes could be scored; the first: scene scene_0 has no map"):
        evaluate(tmp_path, world.scenes, world.labels, thresholds=THRESHOLDS)


@pytest.mark.parametrize("thresholds", [{"oracle": 0.5}, {"mine": 1.5}, {"mine": math.nan}])
def test_thresholds_that_cannot_be_are_refused(world, thresholds):
    with pytest.raises(DataError, match="it must be 0"):
        evaluate(world.maps, world.scenes, world.labels, thresholds=thresholds)


@pytest.mark.slow
def test_a_region_without_objects_has_no_scores_and_spoils_no_mean(tmp_path):
    world = make_world(tmp_path, shape=(64, 64), regions=("Lena", "Nowhere"))
    empty = world.scenes[1]
    nothing = np.zeros((64, 64), np.uint8)
    write_raster(empty.files["labels"], nothing, empty.geobox, encoding=Encoding(dtype="uint8"))
    write_raster(world.maps / empty.id / "probability.tif", nothing, empty.geobox, encoding=BYTES)
    found = evaluate(world.maps, world.scenes, world.labels, thresholds=THRESHOLDS)
    regions = found.table[(found.table["scope"] == "region") & (found.table["threshold_name"] == "validation")]
    assert math.isnan(row_of(regions, region="Nowhere")["iou"])
    mean = row_of(found.table, scope="mean", threshold_name="validation")
    assert mean["iou"] == row_of(regions, region="Lena")["iou"]
    write_page(tmp_path / "index.html", found, ABOUT)
    assert "n/a" in (tmp_path / "index.html").read_text()


def test_objects_are_counted_where_they_are_known(tmp_path):
    world = make_world(tmp_path, shape=(64, 64), regions=("Lena",))
    scene = world.scenes[0]
    squares = [box(5e5 + at, 7.9e6 - at - 50, 5e5 + at + 50, 7.9e6 - at) for at in (50, 200, 350)]
    frame = gpd.GeoDataFrame({"image_id": [scene.id] * 3}, geometry=squares, crs="EPSG:32652")
    write_vector(tmp_path / "labels.gpkg", frame)
    write_vector(world.maps / scene.id / "slumps.gpkg", frame.iloc[:2])
    item = {"properties": {"thawmap:threshold": 0.13, "thawmap:bundle": "abc"}}
    (world.maps / scene.id / "item.json").write_text(json.dumps(item))
    labels = open_labels(LabelSettings(path=tmp_path / "labels.gpkg", scene="image_id"))
    found = evaluate(world.maps, world.scenes, labels, thresholds=THRESHOLDS)
    regions = found.table[found.table["scope"] == "region"].set_index("threshold_name")
    assert regions.loc["validation", "objects_mapped"] == 2
    assert pd.isna(regions.loc["paper", "objects_mapped"])
    assert set(regions["objects_labelled"]) == {3}
    assert found.scenes[0].bundle == "abc"


def test_scores_are_written_as_csv_and_parquet_alike(evaluation, tmp_path):
    write_scores(evaluation, tmp_path)
    csv, parquet = pd.read_csv(tmp_path / "scores.csv"), pd.read_parquet(tmp_path / "scores.parquet")
    assert list(csv.columns) == list(parquet.columns) == list(COLUMNS)
    np.testing.assert_allclose(csv["iou"], parquet["iou"])
    names = ("scores", "objects", "sizes", "curves", "reliability")
    written = {f"{name}.{kind}" for name in names for kind in ("csv", "parquet")} | {"scores.json", "left_out.csv"}
    assert {path.name for path in tmp_path.iterdir()} == written
    content = json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)
    assert content["thresholds"] == THRESHOLDS
    for name, table in (("scores", evaluation.table), ("objects", evaluation.objects)):
        read = pd.DataFrame(content[name]).astype(table.dtypes)
        pd.testing.assert_frame_equal(read, table, rtol=1e-12)


def test_examples_are_ranked_by_iou_and_name_no_scene_twice(evaluation):
    ranked = choose_examples(evaluation, threshold_name="validation")
    assert list(ranked) == ["best", "median", "worst"]
    reached = [scores(item.histogram.counts(0.13))["iou"] for item in ranked.values()]
    assert reached == sorted(reached, reverse=True)
    assert len({item.scene for item in ranked.values()}) == 3


def test_a_place_shows_the_pixels_of_its_scene(world, evaluation):
    scene = world.scenes[1]
    place = open_example(
        evaluation.scenes[1], scene, rank="best", maps=world.maps, labels=world.labels, sources=[world.source()]
    )
    assert place.layers == ("nir", "red", "green")
    assert place.image.shape == (150, 130, 3)
    assert place.pixel_m == pytest.approx(10, rel=2e-3)  # on the ground; the projection says 10
    np.testing.assert_array_equal(place.target, world.targets[scene.id])
    np.testing.assert_array_equal(np.isnan(place.probability), world.stored[scene.id] == 255)


@pytest.mark.slow
def test_the_page_stands_alone(world, evaluation, tmp_path):
    log = pd.DataFrame(
        [
            {"phase": phase, "epoch": epoch, "split": split, "loss": 1 / epoch} | dict.fromkeys(SCORES, 0.1 * epoch)
            for phase in ("sparse", "full")
            for epoch in (1, 2, 3)
            for split in ("train", "validation")
        ]
    )
    scenes = {scene.id: scene for scene in world.scenes}
    shared = {"maps": world.maps, "labels": world.labels, "sources": [world.source()]}
    best = choose_examples(evaluation, threshold_name="validation")["best"]
    places = [open_example(best, scenes[best.scene], rank="best", **shared)]
    write_page(tmp_path / "index.html", evaluation, ABOUT, examples=places, training=log)
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert page.open == []
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 7
    assert all(image["src"].startswith("data:image/png;base64,") and len(image["alt"]) > 30 for image in images)
    links = [attributes["href"] for _, attributes in page.tags if "href" in attributes]
    assert set(links) == {"data:,", "scores.csv", "objects.csv", "sizes.csv"}
    assert not re.search(r"https?://", html)
    assert "coast &lt;2021&gt; &amp; more" in html
    assert "In Lena, which the model has never seen, it finds" in html
    assert "In Yamal" not in html
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


@pytest.mark.slow
def test_the_page_says_the_numbers_of_the_table(evaluation, tmp_path):
    write_page(tmp_path / "index.html", evaluation, ABOUT)
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    row = row_of(evaluation.table, scope="region", region="Lena", threshold_name="validation")
    assert f"an IoU of {row['iou']:.2f}" in html
    assert f'<td class="main">{row["iou"]:.2f}</td>' in html


def test_outlines_follow_the_pixels_edges():
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 3:6] = 1
    figure = map_panel(np.zeros((6, 8, 3), np.uint8), np.zeros((6, 8)), mask, threshold=0.5, pixel_m=10)
    drawn = figure.axes[0].patches[0].get_path()
    assert drawn.codes.tolist() == [drawn.MOVETO, drawn.LINETO] * 10
    edges = {tuple(map(tuple, line)) for line in drawn.vertices.reshape(-1, 2, 2)}
    assert len(edges) == 2 * (2 + 3)
    assert {x for line in edges for x, _ in line} == {2.5, 3.5, 4.5, 5.5}
    assert {y for line in edges for _, y in line} == {1.5, 2.5, 3.5}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_figures_are_written_in_the_format_of_their_name(tmp_path, suffix):
    write_figure(tmp_path / f"figure{suffix}", confusion(Counts(3, 1, 2, 90)))
    start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix]
    assert (tmp_path / f"figure{suffix}").read_bytes().startswith(start)


@pytest.mark.slow
def test_figures_leave_no_global_state(evaluation):
    import matplotlib as mpl  # noqa: PLC0415

    before = dict(mpl.rcParams)
    regions = evaluation.table[evaluation.table["scope"] == "region"]
    region_scores(regions)
    precision_recall({"Lena": evaluation.scenes[0].histogram}, {"Lena": THRESHOLDS})
    training_curves(
        pd.DataFrame([{"phase": "a", "epoch": 1, "split": "train", "loss": 1} | dict.fromkeys(SCORES, 0.5)])
    )
    assert dict(mpl.rcParams) == before


def test_a_map_beside_the_scenes_grid_is_scored_on_its_own_grid(tmp_path):
    world = make_world(tmp_path, shape=(64, 64), regions=("Lena",))
    scene = world.scenes[0]
    part = scene.geobox[10:50, 5:40]
    inner = world.stored[scene.id][10:50, 5:40]
    write_raster(world.maps / scene.id / "probability.tif", inner, part, encoding=BYTES)
    found = evaluate(world.maps, world.scenes, world.labels, thresholds={"paper": 0.5})
    target = read_raster(scene.files["labels"], part, bands=[1])[0]
    row = row_of(found.table, scope="scene", threshold_name="paper")
    assert counts_in(row) == slow_counts(inner, target, 0.5)


def test_what_the_model_has_seen_does_not_count_in_the_result(world, evaluation, tmp_path):
    seen = [item.scene for item in evaluation.scenes if item.region == "Yamal"]
    everywhere = choose_examples(evaluation, threshold_name="validation")
    unseen = choose_examples(evaluation, threshold_name="validation", regions=["Lena"])
    assert {item.scene for item in everywhere.values()} >= set(seen)
    assert list(unseen) == ["best", "worst"]
    assert {item.region for item in unseen.values()} == {"Lena"}
    text = summary(evaluation, ABOUT)
    row = row_of(evaluation.table, scope="region", region="Lena", threshold_name="oracle")
    assert f"hindsight, {row['threshold']:.2f}, would give {row['iou']:.2f}" in text[1]
    everything = summary(evaluation, About(project="p", made=ABOUT.made))
    assert "In Lena it finds" in everything[0]
    assert "In Yamal it finds" in everything[0]


def test_many_regions_are_told_in_one_sentence(tmp_path):
    world = make_world(tmp_path, shape=(64, 64), regions=("A", "B", "C", "D"))
    found = evaluate(world.maps, world.scenes, world.labels, thresholds=THRESHOLDS)
    rows = found.table[(found.table["scope"] == "region") & (found.table["threshold_name"] == "validation")]
    order = rows.sort_values("iou")["region"].tolist()
    said = summary(found, About(project="p", made=ABOUT.made))[0]
    assert said.startswith("Over 4 regions together it finds")
    assert f"best in {order[-1]} (IoU" in said
    assert f"worst in {order[0]} (IoU" in said


def test_what_a_map_leaves_out_is_no_object_at_its_own_threshold_and_is_told(tmp_path):
    """A map whose mask has the right object, and leaves out a speck that is as probable."""
    world = make_world(tmp_path, regions=("Lena",))
    scene, target = world.scenes[0], np.zeros((150, 130), np.uint8)
    target[40:60, 40:60] = 1
    stored = np.where(target == 1, 90, 0).astype(np.uint8)
    stored[100:103, 100] = 90
    folder = world.maps / scene.id
    write_raster(world.folder / scene.id / "mask.tif", target, scene.geobox, encoding=Encoding(dtype="uint8"))
    write_raster(folder / "probability.tif", stored, scene.geobox, encoding=BYTES)
    write_raster(folder / "mask.tif", target, scene.geobox, encoding=Encoding(dtype="uint8", nodata=255))
    properties = {"thawmap:threshold": 0.13, "thawmap:left_out": {"below 400 m2": 1}}
    assets = {name: {"href": f"./{name}.tif"} for name in ("probability", "mask")}
    (folder / "item.json").write_text(json.dumps({"properties": properties, "assets": assets}), encoding="utf-8")
    found = evaluate(world.maps, world.scenes, world.labels, thresholds=THRESHOLDS)
    shapes = found.scenes[0].shapes
    assert (shapes["validation"].matched[0.5], shapes["paper"].matched[0.5]) == (Counts(tp=1), Counts(tp=1, fp=1))
    assert shapes["validation"].boundary.fp == 0 < shapes["paper"].boundary.fp
    assert any("1 that the maps leave out: 1 below 400 m2" in line for line in summary(found, ABOUT))
    seen = open_example(
        found.scenes[0], scene, rank="best", maps=world.maps, labels=world.labels, sources=[world.source()]
    )
    np.testing.assert_array_equal(
        seen.mapped, (target == 1)[found.scenes[0].richest.rows, found.scenes[0].richest.cols]
    )
