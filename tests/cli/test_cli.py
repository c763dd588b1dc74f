"""The command line as a user meets it: help, mistakes, and the whole flow on simulated scenes."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from stopping import stopped

import thawmap
from thawmap import cli
from thawmap.cli import options
from thawmap.cli.terminal import Terminal
from thawmap.config import load
from thawmap.data.project import Project
from thawmap.errors import BundleError
from thawmap.model.bundle_folder import load as load_bundle
from thawmap.model.bundle_folder import save
from thawmap.pipeline import _predict_scene, doctor
from thawmap.pipeline.progress import Summary

QUICK = (
    "--set", "model={architecture: pixel}",
    "--set", "tiles={size: 64, overlap: 8}",
    "--set", "training.phases=[{name: all, epochs: 2}]",
    "--set", "training.optimiser={name: adam, lr: 0.05}",
)  # fmt: skip


def run(*words: object) -> int:
    return cli._run([str(word) for word in words])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "project"
    assert run("simulate", folder, "--regions", 3, "--scenes", 1, "--size", 128) == 0
    return folder / "thawmap.yaml"


@pytest.fixture(scope="module")
def mapped(project: Path) -> Path:
    """A folder with a model, maps and a report, made by the real commands."""
    home = project.parent.parent
    assert run("train", project, "--out", home / "model", *QUICK) == 0
    assert run("predict", project, "--model", home / "model", "--out", home / "maps") == 0
    words = ("--config", project, "--model", home / "model", "--out", home / "report")
    assert run("evaluate", home / "maps", *words) == 0
    return home


def scene_folders(maps: Path) -> list[Path]:
    return sorted(path for path in maps.iterdir() if path.is_dir())


def test_help_loads_nothing_heavy() -> None:
    """What makes help slow is what it imports; the seconds themselves are in benchmarks/startup.py."""
    code = (
        "import sys; from thawmap.cli import _run; _run(['--help']); "
        "heavy = {'torch', 'xarray', 'rasterio', 'pandas', 'numpy', 'matplotlib', 'pydantic'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_help_lists_every_verb_once_in_the_order_of_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    lines = [line.strip("│ ").split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    verbs = [verb for group in cli._IN_ORDER.values() for verb in group]
    assert [line for line in lines if line in set(verbs)] == verbs
    assert sorted(verbs) == sorted(verb for verb in cli.app if not verb.startswith("-"))


@pytest.mark.parametrize("words", [(), ("predict",), ("labels", "check"), ("model",)])
def test_help_is_a_word_too(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("help", *words) == 0
    output = capsys.readouterr().out
    assert run(*words, "--help") == 0
    assert output == capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("pedict",), "there is no verb 'pedict' (did you mean 'predict'?); see 'thawmap --help'"),
        (("model", "inf"), "there is no verb 'inf' (did you mean 'info'?); see 'thawmap model --help'"),
        (("model", "zzz"), "there is no verb 'zzz'; there are export, import, info; see 'thawmap model --help'"),
        (("help", "trian"), "there is no verb 'trian' (did you mean 'train'?); see 'thawmap --help'"),
        (("predict",), "see 'thawmap predict --help'"),
        (("labels", "convert"), "see 'thawmap labels convert --help'"),
        (("train", "t.yaml", "--otu", "x"), "see 'thawmap train --help'"),
    ],
)
def test_a_mistake_names_the_page_that_helps(
    words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    assert capsys.readouterr().err.strip().endswith(expected)


def test_names_from_strangers_cannot_command_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An id with escape codes and a line break stays on its line, in tables, in failures and in mistakes."""
    name = "a\x1b[2J\u202e\nb"
    assert options.finish(Summary(lines=(name,), failed={name: name}, rows=[{"scene": name, name: 1}])) == 1
    assert run(name) == 2
    assert run("scenes", tmp_path / name) == 2
    Terminal().say(name)
    out, err = capfd.readouterr()
    assert not set("\x1b\u202e") & set(out + err)
    assert len(out.splitlines()) == 3
    assert out.count("a\\x1b[2J\\u202e\\nb") == 3


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = (
        "demo",
        "simulate",
        "init",
        "doctor",
        "config",
        "scenes",
        "labels",
        "tiles",
        "train",
        "crossval",
        "tune",
        "model",
        "predict",
        "fuse",
        "evaluate",
        "bench",
    )
    for verb in verbs:
        assert run(verb, "--help") == 0
        text = capsys.readouterr().out
        assert verb in text
        assert len(text.splitlines()) > 2


def test_the_flow_makes_every_promised_file(mapped: Path) -> None:
    for name in ("bundle.json", "weights.safetensors", "selftest.safetensors", "metrics.csv", "last/bundle.json"):
        assert (mapped / "model" / name).is_file()
    folders = scene_folders(mapped / "maps")
    assert len(folders) == 3
    for folder in folders:
        files = {path.name for path in folder.iterdir()}
        styles = {"probability.qml", "mask.qml", "slumps.qml"}
        assert files == styles | {"probability.tif", "mask.tif", "slumps.gpkg", "quicklook.png", "item.json"}
        assert json.loads((folder / "item.json").read_text())["id"] == folder.name
        slumps = gpd.read_file(folder / "slumps.gpkg")
        assert set(slumps["scene_id"]) <= {folder.name}
    assert (mapped / "report" / "index.html").stat().st_size > 10_000


def test_scores_are_those_of_the_written_probabilities(mapped: Path, project: Path) -> None:
    """The table against a slow, obvious count: the file of probabilities against polygons burnt by rasterio."""
    table = pd.read_csv(mapped / "report" / "scores.csv")
    labels = gpd.read_file(project.parent / "labels.gpkg")
    for folder in scene_folders(mapped / "maps"):
        with rasterio.open(folder / "probability.tif") as file:
            hundredths, grid = file.read(1), file
        polygons = labels[labels["image_id"] == folder.name].to_crs(grid.crs)
        truth = rasterio.features.rasterize(polygons.geometry, out_shape=hundredths.shape, transform=grid.transform)
        row = table.query("scope == 'scene' and scene == @folder.name and threshold_name == 'validation'").iloc[0]
        valid = hundredths != 255
        mask = np.where(valid, hundredths > round(100 * row["threshold"]), 255)
        assert row["tp"] == np.sum((mask == 1) & (truth == 1))
        assert row["fp"] == np.sum((mask == 1) & (truth == 0))
        assert row["fn"] == np.sum((mask == 0) & (truth == 1) & valid)
        assert row["tn"] == np.sum((mask == 0) & (truth == 0))


def test_a_finished_training_is_kept_and_never_replaced_unasked(
    mapped: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (mapped / "model" / "weights.safetensors").read_bytes()
    assert run("train", project, "--out", mapped / "model", *QUICK) == 0
    assert "trained before" in capsys.readouterr().out
    assert run("train", project, "--out", mapped / "model", *QUICK, "--set", "training.seed=7") == 2
    assert "other training" in capsys.readouterr().err
    assert (mapped / "model" / "weights.safetensors").read_bytes() == before


@pytest.mark.slow
def test_a_training_that_was_killed_is_not_taken_for_finished(project: Path, tmp_path: Path) -> None:
    """Law 8: the bundle of an early epoch is there, and the next run trains to the end."""
    out = tmp_path / "model"
    words = ["train", project, "--out", out, *QUICK, "--set", "training.phases=[{name: all, epochs: 3}]"]
    process = stopped(words, files=out / "bundle.json")
    process.kill()
    process.communicate()
    assert (out / "unfinished.txt").exists()
    assert run("train", project, "--out", out, *QUICK) == 0
    assert not (out / "unfinished.txt").exists()
    assert load_bundle(out).provenance["config"]["training"]["phases"][0]["epochs"] == 2


def test_maps_of_another_model_are_not_scored_as_this_ones(
    mapped: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(mapped / "model" / "last", other)
    first = load_bundle(mapped / "model")
    second = save(replace(first, id="", thresholds={"paper": 0.5, "validation": 0.01}), other)
    assert second.id != first.id
    words = ("evaluate", mapped / "maps", "--config", project, "--model", other, "--out", tmp_path / "report")
    assert run(*words) == 2
    assert second.id in capsys.readouterr().err


@pytest.mark.slow
def test_never_seen_is_what_the_bundle_has_not_seen(
    mapped: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the YAML says today, the page says what the model was trained on."""
    trained = load_bundle(mapped / "model").provenance["regions"]["train"]
    words = (
        "evaluate",
        mapped / "maps",
        "--config",
        project,
        "--model",
        mapped / "model",
        "--out",
        tmp_path / "report",
    )
    assert run(*words, "--set", f"split.test=[{trained[0]}]", "--set", "split.validation=[]") == 0
    assert f"In {trained[0]}, which the model has never seen" not in capsys.readouterr().out


def test_a_layer_made_in_another_way_than_in_training_is_refused(mapped: Path, tmp_path: Path) -> None:
    bundle = load_bundle(mapped / "model")
    layers = tuple(replace(layer, recipe="circle of 100 m" if "rel" in layer.name else "") for layer in bundle.layers)
    save(replace(bundle, layers=layers), tmp_path / "model")
    config = load(mapped / "project" / "thawmap.yaml", overrides=["sources.elevation={path: aux, window_m: 50}"])
    with pytest.raises(BundleError, match=r"relative_elevation made with 'circle of 100 m'.*'circle of 50 m'"):
        thawmap.predict(config, tmp_path / "model", tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


@pytest.mark.slow
def test_a_map_that_lost_a_file_is_made_again(
    mapped: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = tmp_path / "maps"
    shutil.copytree(mapped / "maps", maps)
    (scene_folders(maps)[0] / "slumps.gpkg").unlink()
    assert run("predict", project, "--model", mapped / "model", "--out", maps) == 0
    assert "2 of them before" in capsys.readouterr().out
    assert (scene_folders(maps)[0] / "slumps.gpkg").exists()


def test_labels_that_change_are_read_again_in_the_same_process(project: Path, tmp_path: Path) -> None:
    """A notebook stays open while polygons are edited in a GIS."""
    folder = tmp_path / "project"
    shutil.copytree(project.parent, folder)
    config = load(folder / "thawmap.yaml")
    before = thawmap.labels(config).table
    frame = gpd.read_file(folder / "labels.gpkg").assign(label=0)
    frame.to_file(folder / "labels.gpkg")
    after = thawmap.labels(config).table
    assert before is not None
    assert after is not None
    assert before["object px"].sum() > 0
    assert after["object px"].sum() == 0


def test_a_rerun_maps_only_what_is_missing(
    mapped: Path, project: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    shutil.copytree(mapped / "maps", maps)
    folders = scene_folders(maps)
    shutil.rmtree(folders[0])
    before = {folder: (folder / "item.json").stat().st_mtime_ns for folder in folders[1:]}
    assert run("predict", project, "--model", mapped / "model", "--out", maps) == 0
    assert "3 scenes are mapped, 2 of them before" in capsys.readouterr().out
    assert (folders[0] / "item.json").is_file()
    assert before == {folder: (folder / "item.json").stat().st_mtime_ns for folder in folders[1:]}


def test_other_settings_map_again(mapped: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("predict", project, "--model", mapped / "model", "--out", mapped / "maps", "--dry-run")
    assert run(*words) == 0
    assert "would map 0 scenes" in capsys.readouterr().out
    assert run(*words, "--set", "polygons.threshold=0.9") == 0
    assert "would map 3 scenes" in capsys.readouterr().out


@pytest.mark.slow
def test_names_of_darts_and_a_rule_over_a_layer_that_the_network_does_not_see(
    mapped: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", mapped / "model")
    words = (
        "predict",
        project,
        "--split",
        "test",
        *model,
        "--set",
        "outputs.names=darts",
        "--set",
        "polygons.threshold=0",
        "--set",
        "polygons.seed=null",
    )
    polygons = {}
    for rule in ("ndwi > 2", "ndwi > -2"):
        out = tmp_path / rule[-2:].strip()
        assert run(*words, "--out", out, "--set", f"polygons.drop=[{rule!r}]") == 0
        (folder,) = scene_folders(out)
        polygons[rule] = len(gpd.read_file(folder / "prediction_segments.gpkg", layer="prediction_segments"))
        with rasterio.open(folder / "binarized.tif") as file:
            assert (file.read(1) == 1).any() == (rule == "ndwi > 2")
    assert polygons["ndwi > 2"] > 0
    assert polygons["ndwi > -2"] == 0
    assert run("evaluate", tmp_path / "2", "--config", project, *model, "--out", tmp_path / "report") == 0
    capsys.readouterr()
    assert run(*words, "--out", tmp_path / "no", "--set", "polygons.drop=['nothing > 0']") == 2
    assert "polygons.drop asks for 'nothing', which is in no source" in capsys.readouterr().err
    assert run(*words, "--out", tmp_path / "no", "--set", "polygons.drop=['ndwi == 0']") == 2
    assert "polygons.drop" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_writes_nothing(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("train", project, "--out", out, "--dry-run", *QUICK) == 0
    assert run("tiles", project, "--out", out, "--dry-run") == 0
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("models", [1, 2])
def test_a_dry_run_counts_every_raster(mapped: Path, project: Path, tmp_path: Path, models: int) -> None:
    chosen = [mapped / "model", mapped / "model" / "last"][:models]
    words = ("--split", "test", *(word for model in chosen for word in ("--model", model)), "--out", tmp_path / "maps")
    assert run("predict", project, *words, "--set", "outputs.probability=float32") == 0
    config = load(project, overrides=("outputs.probability=float32",))
    named = {scene.id: scene for scene in Project(config).candidates()}
    (folder,) = scene_folders(tmp_path / "maps")
    counted = _predict_scene.cost(Project(config).open(named[folder.name], labelled=False), Project(config), chosen)
    stored = 0
    for path in folder.glob("*.tif"):
        with rasterio.open(path) as file:
            stored += file.width * file.height * np.dtype(file.dtypes[0]).itemsize
    assert counted.stored == stored


def test_scenes_named_one_by_one(mapped: Path, project: Path, tmp_path: Path) -> None:
    path = next((project.parent / "scenes").rglob("*_SR_clip.tif"))
    words = ("predict", path, "--config", project, "--model", mapped / "model", "--out", tmp_path / "maps")
    assert run(*words) == 0
    assert [folder.name for folder in scene_folders(tmp_path / "maps")] == [path.name.partition("_3B_")[0]]


def test_only_one_part_of_the_split(mapped: Path, project: Path, tmp_path: Path) -> None:
    words = ("predict", project, "--split", "test", "--model", mapped / "model", "--out", tmp_path / "maps")
    assert run(*words) == 0
    (only,) = scene_folders(tmp_path / "maps")
    region = json.loads((only / "item.json").read_text())["properties"]["thawmap:region"]
    assert region in load(project).split.test


@pytest.mark.slow
def test_one_broken_scene_costs_one_scene(
    mapped: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Law 9: the rest finish, the exit status is 1, the report says why."""
    copy = tmp_path / "project"
    shutil.copytree(project.parent, copy)
    broken = next((copy / "scenes").rglob("*_udm2_clip.tif"))
    broken.write_bytes(broken.read_bytes()[:2000])
    words = ("predict", copy / "thawmap.yaml", "--model", mapped / "model", "--out", tmp_path / "maps")
    assert run(*words) == 1
    output = capsys.readouterr()
    assert broken.name in output.err
    assert "1 failed, 2 done" in output.err
    assert "Traceback" not in output.err
    assert len(scene_folders(tmp_path / "maps")) == 2


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_that_looks_finished(mapped: Path, project: Path, tmp_path: Path) -> None:
    """Law 8: what has its name is whole, and the same command goes on from there."""
    maps = tmp_path / "maps"
    words = ["predict", project, "--model", mapped / "model", "--out", maps]
    process = stopped(words, files=maps / "*/probability.tif")
    process.kill()
    process.communicate()
    for folder in scene_folders(maps):
        if not folder.name.startswith("."):
            names = {path.name for path in (mapped / "maps" / folder.name).iterdir()}
            assert {path.name for path in folder.iterdir()} == names
            with rasterio.open(folder / "mask.tif") as file:
                assert file.read(1).size
    assert run(*words) == 0
    finished = {path.name for path in scene_folders(maps) if not path.name.startswith(".")}
    assert finished == {path.name for path in scene_folders(mapped / "maps")}


@pytest.mark.slow
def test_several_workers_give_the_same_files(mapped: Path, project: Path, tmp_path: Path) -> None:
    """Law 2, from the outside."""
    words = ("predict", project, "--model", mapped / "model", "--out", tmp_path / "maps")
    assert run(*words, "--set", "engine.workers=2") == 0
    for folder in scene_folders(mapped / "maps"):
        for name in ("probability.tif", "mask.tif"):
            with rasterio.open(folder / name) as file, rasterio.open(tmp_path / "maps" / folder.name / name) as other:
                np.testing.assert_array_equal(file.read(), other.read())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("train",), "PATH"),
        (("train", "thawmap.yaml"), "--out"),
        (("no-such-verb",), "no-such-verb"),
        (("config", "no.yaml"), "no.yaml"),
        (("predict", "scene.tif", "--model", "m", "--out", "o"), "--config"),
        (("simulate", ".", "--regions", "99"), "99"),
    ],
)
def test_mistakes_are_one_sentence(words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    error = capsys.readouterr().err.strip()
    assert expected in error
    assert error.startswith("thawmap: ")
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1


def test_init_writes_a_configuration_that_loads_and_keeps_one_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", tmp_path) == 0
    assert run("config", tmp_path / "thawmap.yaml") == 0
    assert "unetplusplus" in capsys.readouterr().out
    assert run("init", tmp_path) == 2


def test_the_resolved_configuration_is_a_configuration(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("config", project) == 0
    text = capsys.readouterr().out
    (tmp_path / "again.yaml").write_text(text)
    assert run("config", tmp_path / "again.yaml") == 0
    assert capsys.readouterr().out == text


def test_scenes_and_labels_list_what_is_there(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("scenes", project) == 0
    assert "3 of 3 scenes can be used" in capsys.readouterr().out
    assert run("labels", project) == 0
    assert "object pixels in 3 scenes" in capsys.readouterr().out


@pytest.mark.slow
def test_the_quick_example_runs_word_by_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = Path(thawmap.__file__).parents[2] / "examples" / "quick.yaml"
    shutil.copy(example, tmp_path)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^#   thawmap (.+)$", example.read_text(), re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["simulate", "train", "predict", "evaluate"]
    assert [run(*command.split()) for command in commands] == [0, 0, 0, 0]
    assert (tmp_path / "arctic-report" / "index.html").is_file()


def test_doctor_names_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    output = capsys.readouterr().out
    assert "GDAL" in output
    assert "torch" in output
    assert "optional: tune" in output


def test_a_missing_part_says_how_to_get_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "tune", ("no_such_library", "'thawmap tune'"))
    assert run("doctor") == 0
    assert "missing: pip install thawmap[tune]" in capsys.readouterr().out


def test_every_optional_part_is_told_and_used() -> None:
    """An extra that nothing imports is weight without use."""
    root = Path(thawmap.__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) - {"dev", "docs"} == set(doctor.EXTRAS)
    files = set((root / "src").rglob("*.py")) - {Path(doctor.__file__)}  # where the list itself stands
    sources = "".join(path.read_text() for path in files)
    for library, _ in doctor.EXTRAS.values():
        assert re.search(rf"(import|from) {library}\b|\"{library}\"", sources), library


def test_a_bundle_named_twice_is_no_ensemble(
    mapped: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = mapped / "maps" / ".." / "model"
    words = ("predict", project, "--model", mapped / "model", "--model", again, "--out", tmp_path / "maps")
    assert run(*words) == 2
    assert "is named twice" in capsys.readouterr().err
    assert not (tmp_path / "maps").exists()


@pytest.mark.slow
def test_predict_says_what_to_open_and_what_to_run(
    mapped: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("predict", project, "--split", "test", "--model", mapped / "model", "--out", tmp_path / "maps")
    assert run(*words) == 0
    first, look, run_next = capsys.readouterr().out.strip().splitlines()
    assert first == f"1 scene is mapped: {tmp_path / 'maps'}"
    opened = [word.rstrip(";") for word in look.split()][2:4]
    assert (picture := Path(opened[0])).is_file()
    assert (picture.parent / opened[1]).is_file()
    assert run(*run_next.removeprefix("next: thawmap ").split()[:-1], tmp_path / "report") == 0
    assert (tmp_path / "report" / "index.html").is_file()


def test_verbs_are_functions_of_the_package_though_halls_have_their_names() -> None:
    from thawmap.pipeline.train import train  # noqa: PLC0415
    from thawmap.train import split  # noqa: PLC0415 - importing the hall must not hide the verb

    assert callable(thawmap.train)
    assert thawmap.train is train
    assert callable(split.split_tiles)
    assert all(callable(getattr(thawmap, name)) for name in thawmap.__all__)
    with pytest.raises(AttributeError, match="no_such_verb"):
        _ = thawmap.no_such_verb
