"""What commands load before they answer: the seconds follow from it, and are in benchmarks/startup.py."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from thawmap.layers import layer
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import save

LAYERS = ("red", "nir", "ndvi")
YAML = """
scenes: {kind: rasters, path: "*.tif", files: {"{name}.tif": {red: {band: 1}, nir: {band: 2}}}}
layers: [red, nir, ndvi]
"""
HEAVY = {"numpy", "rasterio", "pandas", "xarray", "torch", "matplotlib", "scipy", "odc"}
NETWORKS = {"torch", "torchvision", "timm", "segmentation_models_pytorch", "openvino"}
TABLES = {"xarray", "pandas", "geopandas", "pyarrow", "pyogrio", "matplotlib", "scipy", "pystac", "zarr", "PIL"}
COMPILERS = {"torch._dynamo", "torch._inductor"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A scene of 64 px, its YAML, and a bundle of a network without neighbours."""
    values = np.random.default_rng(0).uniform(0.05, 0.4, (2, 64, 64)).astype(np.float32)
    place = {"crs": "EPSG:32608", "transform": Affine(3, 0, 500_000, 0, -3, 7_700_000)}
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=2, height=64, width=64, dtype="float32", **place
    ) as file:
        file.write(values)
    network = torch.nn.Conv2d(len(LAYERS), 1, kernel_size=1).eval()
    bundle = Bundle(
        layers=tuple(map(layer, LAYERS)), architecture="pixel", encoder="resnet34", tile=32, stride=1,
        fixed_tile=False, network=network,
    )  # fmt: skip
    save(bundle, tmp_path / "model")
    (tmp_path / "t.yaml").write_text(YAML, encoding="utf-8")
    return tmp_path


def loaded(program: str, *words: object) -> set[str]:
    """Names of the modules that a program has loaded in its own process, when it ends or calls `tell`."""
    tell = "import os, sys\ndef tell(*_):\n    print(*sys.modules, sep='\\n', flush=True)\n    os._exit(0)\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{tell}{program}\ntell()", *map(str, words)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return set(done.stdout.splitlines())


@pytest.mark.slow
def test_a_wrong_key_is_told_before_anything_heavy_is_loaded(project: Path) -> None:
    yaml, out, wrong = project / "t.yaml", project / "out", ("--set", "tiles.sise=3")
    verbs = [
        ("config", yaml), ("scenes", yaml), ("labels", yaml), ("labels", "check", yaml), ("labels", "stats", yaml),
        *((verb, yaml, "--out", out) for verb in ("tiles", "train", "crossval", "tune")),
        ("predict", yaml, "--model", project / "model", "--out", out),
        ("predict", project, "--config", yaml, "--model", project / "model", "--out", out),
        ("fuse", project, "--config", yaml, "--out", out),
        ("evaluate", project, "--config", yaml, "--out", out),
        ("bench", "--config", yaml),
    ]  # fmt: skip
    program = "from thawmap.cli import _run\nfor words in eval(sys.argv[1]):\n    assert _run(words) == 2, words"
    commands = [[str(word) for word in (*words, *wrong)] for words in verbs]
    assert not HEAVY & loaded(program, commands)


@pytest.mark.slow
def test_scenes_are_listed_without_tables_and_networks(project: Path) -> None:
    modules = loaded("from thawmap.cli import _run\nassert _run(sys.argv[1:]) == 0", "scenes", project / "t.yaml")
    assert "rasterio" in modules
    assert not (NETWORKS | TABLES) & modules


@pytest.mark.slow
def test_with_a_network_that_openvino_has_ready_no_torch_is_loaded(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first mapping converts the network and compares; the second asks it the self-test, and maps the same."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(project / "cache"))
    program = "from thawmap.cli import _run\nassert _run(sys.argv[1:]) == 0"
    maps = {}
    for name, backend in (("torch", "eager"), ("first", "openvino"), ("ready", "openvino")):
        words = ("predict", project / "t.yaml", "--model", project / "model", "--out", project / name)
        modules = loaded(program, *words, "--set", f"inference.backend={backend}", "--set", "inference.device=cpu")
        assert ("torch" in modules) == (name != "ready")
        with rasterio.open(project / name / "a" / "probability.tif") as file:
            maps[name] = file.read(1)
    assert np.ptp(maps["torch"]) > 1
    np.testing.assert_array_equal(maps["first"], maps["ready"])
    np.testing.assert_allclose(maps["ready"].astype(float), maps["torch"], atol=1)  # in steps of 1/250 or less


@pytest.mark.slow
def test_until_a_scene_is_read_only_what_reads_and_computes_is_loaded(project: Path) -> None:
    program = (
        "import thawmap.infer.predict as predicting\npredicting._read = tell\n"
        "from thawmap.cli import _run\n_run(sys.argv[1:])\nraise AssertionError"
    )
    words = ("predict", project / "t.yaml", "--model", project / "model", "--out", project / "maps")
    modules = loaded(program, *words)
    assert "torch" in modules
    assert not (NETWORKS - {"torch"} | TABLES | COMPILERS) & modules
