"""The example on real scenes, shortened: every scene is read, a per-pixel model trains, two regions are mapped."""

from pathlib import Path

import pandas as pd
import pyogrio
import pytest
import rasterio

from thawmap.cli import _run

EXAMPLE = Path(__file__).parents[2] / "examples" / "s2-rts.yaml"
pytestmark = [pytest.mark.realdata, pytest.mark.slow]


def run(verb: str, *words: object, scenes: Path) -> int:
    table = ("--set", f"scenes.table={scenes / 's2-rts' / 'scenes.csv'}")
    quick = (
        "--set", "model={architecture: pixel}",
        "--set", "training.phases=[{name: all, epochs: 3}]",
        "--set", "training.optimiser={lr: 0.05}",
    )  # fmt: skip
    return _run([verb, *map(str, words), *table, *quick])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


@pytest.mark.slow
def test_every_real_scene_is_understood(real_scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("labels", EXAMPLE, scenes=real_scenes) == 0
    assert "36055 object pixels in 151 scenes" in capsys.readouterr().out


@pytest.mark.slow
def test_left_out_regions_are_mapped_and_scored(
    home: Path, real_scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", EXAMPLE, "--out", home / "model", scenes=real_scenes) == 0
    words = ("--split", "test", "--model", home / "model", "--out", home / "maps")
    assert run("predict", EXAMPLE, *words, scenes=real_scenes) == 0
    words = ("--config", EXAMPLE, "--model", home / "model", "--out", home / "report")
    assert run("evaluate", home / "maps", *words, scenes=real_scenes) == 0
    assert "which the model has never seen" in capsys.readouterr().out

    table = pd.read_csv(home / "report" / "scores.csv")
    regions = table[table["scope"] == "region"]
    assert set(regions["region"]) == {"Lena", "Bykovsky"}
    labelled = regions.query("threshold_name == 'paper'").set_index("region")[["tp", "fn", "pixels_ignored"]]
    assert (labelled["tp"] + labelled["fn"]).gt(3000).all()
    assert labelled["pixels_ignored"].gt(0).all()

    folders = list((home / "maps").iterdir())
    assert len(folders) == 29
    slumps = pd.concat(
        [pyogrio.read_dataframe(folder / "slumps.gpkg", layer="slumps").to_crs("EPSG:6931") for folder in folders]
    )
    assert slumps.geometry.is_valid.all()
    assert slumps["acquired"].notna().all()
    with rasterio.open(folders[0] / "probability.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
