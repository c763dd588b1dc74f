"""The verb bench: its table, its file, and what it says where a backend fails or nothing can be measured."""

import json
import sys

import pytest
import torch
from bundles import random_bundle
from torch.utils.flop_counter import FlopCounterMode

from thawmap import bench, cli
from thawmap.config import InferenceSettings, load
from thawmap.errors import DataError
from thawmap.infer.plan import plan
from thawmap.model.backends import select
from thawmap.model.backends.speed import operations_per_pixel
from thawmap.model.bundle_folder import save
from thawmap.pipeline import _predict_scene
from thawmap.pipeline import bench as benching
from thawmap.pipeline._speeds import Speed
from thawmap.pipeline.simulate import simulate

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory):
    """Small images, a cache of its own, no compiler, and no OpenVINO, whose conversion takes long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        patch.setenv("CXX", "/no/compiler")
        patch.setattr(select, "TILE_PX", 64)
        patch.setattr(select, "find_spec", lambda _: None)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A bundle that answers with 0 in the scenes, so that bfloat16 agrees there."""
    bundle = random_bundle("pixel")
    with torch.no_grad():
        bundle.network.weight[:] = torch.tensor([1000.0, 0.0, 0.0]).view(1, 3, 1, 1)
        bundle.network.bias[:] = -600.0
    folder = tmp_path_factory.mktemp("models") / "steep"
    save(bundle, folder)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("bench") / "project", regions=2, scenes=1, size=96)


@pytest.fixture(scope="module")
def measured(model, project, tmp_path_factory):
    """What the command line says, and writes."""
    path = tmp_path_factory.mktemp("out") / "new" / "bench.json"
    with pytest.MonkeyPatch.context() as patch:
        output = []
        patch.setattr("builtins.print", lambda *words, **_: output.extend(map(str, words)))
        assert run("bench", "--model", model, "--config", project, "--json", path, "--set", "inference.overlap=64") == 0
    return "\n".join(output), json.loads(path.read_text(encoding="utf-8"))


def run(*words):
    return cli._run([str(word) for word in words])


@pytest.mark.slow
def test_every_backend_has_a_row_and_a_reason_where_it_fails(measured):
    output, content = measured
    rows = [line.split() for line in output.splitlines() if line.split()[:1] in (["eager"], ["compile"])]
    assert [row[:2] for row in rows[:4]] == [
        ["eager", "float32"], ["compile", "float32"], ["eager", "bfloat16"], ["compile", "bfloat16"],
    ]  # fmt: skip
    assert [row[-1] for row in rows[:4]] == ["yes", "no", "yes", "no"]
    assert "compile in float32 gives no answer: backend compile does not work here" in output
    assert [speed["refused"] is None for speed in content["speeds"]] == [True, False, True, False]
    assert content["speeds"][1]["seconds_per_mpx"] is None


@pytest.mark.slow
def test_numbers_follow_from_the_seconds(measured, model):
    _, content = measured
    first, _, lower, _ = content["speeds"]
    about = content["models"][str(model)]
    settings = InferenceSettings(overlap=64, device="cpu")
    assert about["operations_per_px"] == 2 * 3  # a product and a sum for each layer
    for speed in (first, lower):
        seconds = speed["seconds_per_mpx"]
        on_cpu = settings.model_copy(update={"backend": "eager", "precision": speed["precision"]})
        member = _predict_scene.unready_member(_predict_scene.load_bundle(model), on_cpu)
        pixels = plan((8000, 8000), [member], on_cpu).pixels
        assert speed["times_faster"] == pytest.approx(first["seconds_per_mpx"] / seconds)
        assert speed["of_limit"] == pytest.approx(6e6 / content["machine"]["operations_per_s"] / seconds)
        assert speed["site_minutes"] == pytest.approx(pixels / 1e6 * seconds / 60)
    assert (first["largest_difference"], first["within"], first["mask_iou"]) == (0, 1, 1)


@pytest.mark.slow
def test_what_was_measured_on_is_said(measured, model):
    output, content = measured
    scene = content["models"][str(model)]["scene"]
    assert f"{model}: pixel with resnet18, 3 layers" in output
    assert f"measured on the middle of {scene}, 64 x 64 px" in output
    assert f"{content['machine']['threads']} thread, torch {torch.__version__}" in output
    assert "at overlap 64" in output
    assert "--config" not in output


@pytest.mark.slow
def test_without_a_model_random_weights_are_measured_and_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(select, "candidates", lambda _: ["eager"])  # to be quick; the others are tried above
    assert run("bench", "--precision", "float32", "--json", tmp_path / "bench.json") == 0
    output = capsys.readouterr().out
    assert "random weights: unet with resnet34, 10 layers" in output
    assert "measured on a made-up image, 64 x 64 px" in output
    content = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert {speed["precision"] for speed in content["speeds"]} == {"float32"}
    assert content["models"]["random weights"]["operations_per_px"] > 200_000


@pytest.mark.slow
def test_a_model_that_cannot_be_timed_fails_and_the_others_are_named_apart(model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert run("bench", "--model", model, "--model", model.parent / "." / model.name) == 1
    output = capsys.readouterr()
    assert f"{model} failed: exit status 1" in output.err
    assert output.out.split()[0] == "model"


@pytest.mark.slow
def test_scenes_of_which_nothing_can_be_used_are_refused(model, tmp_path):
    project = simulate(tmp_path / "project", regions=2, scenes=1, size=96)
    for path in project.parent.rglob("*.tif"):
        path.write_bytes(b"torn")
    with pytest.raises(DataError, match="can be read and has a usable pixel; see 'thawmap scenes'"):
        bench(model, config=load(project))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model", "/no/such"], "no/such"),
        (["--precision", "float16"], "float16"),
        (["--set", "inference.overlap=1"], "name it with --config"),
    ],
)
def test_wrong_requests_measure_nothing(words, expected, capsys):
    assert run("bench", *words) == 2
    assert expected in capsys.readouterr().err


def test_help_says_what_is_measured(capsys):
    assert run("bench", "--help") == 0
    assert "random weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("precision", "of_limit", "busy"), [("float32", 1.2, 1), ("float32", 0.9, 0), ("bfloat16", 2, 0)]
)
def test_more_than_the_limit_is_explained(precision, of_limit, busy):
    speed = Speed(model="m", backend="eager", precision=precision, seconds_per_mpx=1.0, of_limit=of_limit)
    notes = benching._notes([speed], on_scene=True, settings=InferenceSettings())
    assert sum("folding saves products" in note for note in notes) == busy


@pytest.mark.parametrize("architecture", ["unet", "pixel"])
def test_operations_are_those_of_a_run(architecture):
    bundle = random_bundle(architecture)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        bundle.network(torch.zeros(1, 3, 128, 128))
    assert operations_per_pixel(bundle) == pytest.approx(counter.get_total_flops() / 128**2, rel=0.01)
    assert bundle.network.training is False
