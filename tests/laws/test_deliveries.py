"""Delivered scenes, a DEM and trends, all the way on the command line: what is used, and what is said of the rest."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from odc.geo.crs import CRS
from rasterio.warp import calculate_default_transform

from thawmap import cli
from thawmap.config import load
from thawmap.data.project import Project
from thawmap.data.stack import assemble


def run(*words: object) -> int:
    return cli._run([str(word) for word in words])


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deliveries") / "arctic"
    assert run("simulate", folder, "--regions", 2, "--scenes", 2, "--size", 128) == 0
    return folder


@pytest.fixture
def arctic(delivered: Path, tmp_path: Path) -> Path:
    """A copy to do harm to."""
    shutil.copytree(delivered, tmp_path / "arctic")
    return tmp_path / "arctic" / "thawmap.yaml"


def images(arctic: Path) -> list[Path]:
    return sorted(arctic.parent.rglob("*_SR_clip.tif"))


def scene_of(image: Path) -> str:
    return image.name.partition("_3B_")[0]


def rewrite(path: Path, change: object, **profile: object) -> None:
    with rasterio.open(path) as file:
        values, kept, names = file.read(), file.profile, file.descriptions
    with rasterio.open(path, "w", **{**kept, "driver": "GTiff", **profile}) as file:
        file.write(change(values))
        file.descriptions = names


@pytest.mark.slow
def test_what_was_simulated_can_be_used(arctic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("scenes", arctic) == 0
    assert "4 of 4 scenes can be used" in capsys.readouterr().out


@pytest.mark.slow
def test_every_broken_delivery_is_named_and_the_rest_goes_on(arctic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third, fourth = images(arctic)
    first.with_name(first.name + ".part").touch()
    mask = next(second.parent.glob(f"{scene_of(second)}*udm2*"))
    rewrite(mask, lambda values: values[:, :-3], height=125)
    shutil.copytree(third.parent, third.parent.parent / "again")  # all scenes of this region, twice
    assert run("scenes", arctic) == 1
    said = capsys.readouterr()
    assert f"{scene_of(first)} failed" in said.err
    assert "still being written" in said.err
    assert f"{scene_of(second)} failed" in said.err
    assert mask.name in said.err
    for image in (third, fourth):
        assert f"two scenes have the id {scene_of(image)!r}" in said.err
    assert "0 of 4 scenes can be used" in said.out
    shutil.rmtree(third.parent.parent / "again")
    assert run("tiles", arctic, "--out", arctic.parent / "tiles", "--set", "tiles={size: 64, overlap: 8}") == 1
    said = capsys.readouterr()
    assert "2 scenes" in said.out
    assert f"{scene_of(first)} failed" in said.err


def _half_a_hole(heights: np.ndarray) -> np.ndarray:
    rows = np.arange(heights.shape[1])[:, None]
    return np.where(rows < heights.shape[1] // 2, -9999, heights)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (_half_a_hole, {"nodata": None}, "sources.elevation.nodata"),
        (lambda values: np.full_like(values, -9999), {}, "relative_elevation"),
    ],
    ids=["unflagged", "void"],
)
def test_a_dem_that_is_wrong_is_named(
    change: object, options: dict[str, object], said: str, arctic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tile in arctic.parent.rglob("*_dem.tif"):
        rewrite(tile, change, **options)
    assert run("scenes", arctic) == 1
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_dem_of_half_the_scene_leaves_half_unusable_and_is_said(
    arctic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load(arctic)
    project = Project(config)
    scene = project.open(project.candidates()[0])
    before = assemble(scene, project.layers, scene.geobox, project.sources)["valid"]
    centre = scene.geobox.extent.centroid.coords[0]
    middle = scene.geobox.crs.transformer_to_crs(CRS("EPSG:3413"))(*centre)
    for tile in arctic.parent.rglob("*_dem.tif"):
        with rasterio.open(tile) as file:
            rows = np.arange(file.height)
            south = file.transform.f + (rows + 0.5) * file.transform.e < middle[1]
        rewrite(tile, lambda values, south=south: np.where(south[None, :, None], -9999, values))
    after = assemble(scene, project.layers, scene.geobox, project.sources)["valid"]
    assert not (after & ~before).any()
    assert 0.2 < after.sum() / before.sum() < 0.7
    run("scenes", arctic)
    assert f"{scene.id}: it has no relative_elevation for" in capsys.readouterr().out


def test_trends_in_another_crs_are_the_same_trends(arctic: Path) -> None:
    """The same field written on a fine grid in another CRS; what differs is rounding, once more."""
    project = Project(load(arctic))
    scene = project.open(project.candidates()[0])
    names = ["tc_brightness", "tc_greenness", "tc_wetness"]
    before = assemble(scene, names, scene.geobox, project.sources)
    for tile in arctic.parent.rglob("*_tcvis.tif"):
        with rasterio.open(tile) as file:
            here = file.crs
            there = "EPSG:4326" if here.is_projected else "EPSG:3413"
            fine = (6 * file.width, 6 * file.height)
            transform, width, height = calculate_default_transform(here, there, *fine, *file.bounds)
            place = {"crs": there, "transform": transform, "width": width, "height": height}
            with rasterio.vrt.WarpedVRT(file, resampling=rasterio.enums.Resampling.cubic, **place) as warped:
                values, profile = warped.read(), {**warped.profile, "driver": "GTiff"}
        with rasterio.open(tile, "w", **profile) as file:
            file.write(values)
    after = assemble(scene, names, scene.geobox, project.sources)
    for name in names:
        both = np.isfinite(before[name]) & np.isfinite(after[name])
        assert both.mean() > 0.95
        difference = (after[name] - before[name])[both]
        assert np.abs(difference).mean() < 0.05 * before[name][both].std()
