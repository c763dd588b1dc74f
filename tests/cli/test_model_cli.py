"""The verbs about models as a newcomer meets them: what is printed, what is asked for, what is refused."""

import json

import numpy as np
import pytest
import torch
from foreign_models import CHANNELS, NORM, STUB, legacy, lightning, network, write_run

from thawmap.cli import _run as thawmap
from thawmap.layers import layer
from thawmap.model.bundle_folder import load

torch.set_num_threads(1)


@pytest.fixture
def run(capsys):
    """Run a verb; its exit status, and what it printed as a result and as an error."""

    def verb(*words):
        status = thawmap(["model", *map(str, words)])
        output = capsys.readouterr()
        return status, output.out, output.err.strip()

    return verb


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One model in each of the layouts."""
    folder = tmp_path_factory.mktemp("foreign")
    write_run(folder / "run", epochs=(9, 10))
    torch.save(legacy(network()), folder / "legacy.pt")
    torch.save(lightning(network(3), ("red", "ndvi", "slope")), folder / "darts.ckpt")
    return folder


@pytest.mark.slow
def test_a_run_of_thaw_slump_segmentation_comes_in_and_tells_what_was_done(run, files, tmp_path):
    out = tmp_path / "bundle"
    status, output, error = run("import", files / "run", "--out", out, "--window-m", 100)
    assert (status, error) == (0, "")
    rows = {words[0]: words[1:] for words in map(str.split, output.splitlines()) if words and words[0] in CHANNELS}
    assert list(rows) == list(CHANNELS)
    assert rows["red"] == ["1", "0", "0.3", "kept"]
    assert rows["relative_elevation"] == ["m", "-50", "50", "kept", "circle", "of", "100", "m"]
    assert "normalisation converted from factors of stored numbers" in output
    assert "ndvi -1 .. 1; blue, green, red, nir 0 .. 0.3; relative_elevation -50 .. 50; slope 0 .. 90" in output
    assert "values beyond are not clipped, missing ones are 0" in output
    assert "weights of 10.pt" in output
    assert "256 px are taken, as is usual" in output
    assert f"bundle {load(out).id} is in {out}; next: thawmap predict thawmap.yaml --model {out} --out maps" in output
    assert {path.name for path in out.iterdir()} == {
        "bundle.json", "item.json", "selftest.safetensors", "weights.safetensors",
    }  # fmt: skip


@pytest.mark.slow
def test_info_tells_all_again(run, files, tmp_path):
    run("import", files / "darts.ckpt", "--out", tmp_path / "bundle")
    status, output, error = run("info", tmp_path / "bundle")
    assert (status, error) == (0, "")
    bundle = load(tmp_path / "bundle")
    weights = sum(weight.numel() for weight in bundle.network.parameters())
    for line in (
        f"bundle: {bundle.id}",
        f"network: unet with resnet18, {weights:,} weights",
        "tile: 1024 px, or any multiple of 32 px",
        "thresholds: paper 0.5",
        "made by: thawmap model import",
        "from: DARTS, darts.ckpt",
    ):
        assert line in output.splitlines()
    note = "note: normalisation kept: 0 .. 1 is red -0.1 .. 0.5; ndvi -1 .. 1; slope 0 .. 90; values beyond are clipped"
    assert f"{note}, missing ones are 0" in output.splitlines()
    assert "may be missing" not in output, "no column for what no layer has"
    assert any(line.split() == ["slope", "degrees", "0", "90", "clipped", "horn"] for line in output.splitlines())


@pytest.mark.slow
def test_old_darts_factors_are_said_to_be_honoured(run, files, tmp_path):
    status, output, _ = run("import", files / "legacy.pt", "--out", tmp_path / "bundle", "--window-m", 200)
    assert status == 0
    assert "normalisation converted from factors of stored numbers" in output
    assert "its norm factors are honoured; newer versions of DARTS ignore them and give other answers" in output
    assert "import again with --range relative_elevation=-30:70" in output


def missing_facts(folder):
    """Models that do not say all; which flag says it, and with which value."""
    torch.save(lightning(network(2), ("red", "hillshade")), folder / "hillshade.ckpt")
    torch.save(legacy(network(), norm=NORM | {"ndvi": 1}), folder / "ndvi.pt")
    write_run(folder / "whole", net=network(arch="deeplabv3"), architecture="DeepLabV3")
    write_run(folder / "run")
    return (
        ("hillshade.ckpt", (), ("--range", "hillshade=0:1")),
        ("ndvi.pt", ("--window-m", 100), ("--range", "ndvi=0:1")),
        ("whole", ("--window-m", 100), ("--tile", 256)),
        ("run", (), ("--window-m", 200)),
    )


@pytest.mark.slow
def test_every_missing_fact_is_asked_for_by_its_flag(run, tmp_path):
    for name, options, (flag, value) in missing_facts(tmp_path):
        words = ("import", tmp_path / name, "--out", tmp_path / f"{name}-bundle", *options)
        status, output, error = run(*words)
        assert (status, output) == (2, ""), name
        assert f"{flag} {str(value).split('=')[0]}" in error or f"{flag} 100 as in the paper's text, 200" in error
        assert len(error.splitlines()) == 1
        assert not (tmp_path / f"{name}-bundle").exists()
        assert run(*words, flag, value)[0] == 0, "and with it the model comes in"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("info", "nothing"), "nothing holds no bundle (bundle.json: No such file or directory); name a folder"),
        (("import", "nothing", "--out", "b"), "nothing cannot be read (No such file or directory); check the path"),
        (("import", "darts.ckpt"), "--out"),
        (("import", "darts.ckpt", "--out", "b", "--window-m", "100"), "no relative elevation, so that --window-m"),
        (("import", "darts.ckpt", "--out", "b", "--range", "ndvi"), "write it as NAME=LOW:HIGH, such as ndvi=-1:1"),
        (("import", "darts.ckpt", "--out", "b", "--range", "swir=0:1"), "'swir', which is not among the inputs of"),
        (("import", "darts.ckpt", "--out", "b", "--tile", "100"), "give a multiple of 32: --tile"),
        (("import", "run", "--out", "b", "--window-m", "-5"), "--window-m is -5; the diameter"),
        (("export", "nothing", "b.onnx"), "nothing holds no bundle"),
        (("export", "nothing", "b.onnx", "--to", "tensorflow"), '"onnx", "darts"'),
    ],
)
def test_mistakes_are_one_sentence(run, files, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(files)
    before = sorted(files.rglob("*"))
    status, result, error = run(*words)
    assert (status, result) == (2, "")
    assert error.startswith("thawmap: ")
    assert expected in error
    assert len(error.splitlines()) == 1
    assert sorted(files.rglob("*")) == before


def test_a_file_with_code_is_refused_and_not_run(run, tmp_path):
    class Trap:
        def __reduce__(self):
            return (type(tmp_path).touch, (tmp_path / "sprung",))

    torch.save(legacy(STUB) | {"more": Trap()}, tmp_path / "model.pt")
    status, output, error = run("import", tmp_path / "model.pt", "--out", tmp_path / "bundle")
    assert (status, output) == (2, "")
    assert "holds code or objects" in error
    assert "never loaded" in error
    assert not (tmp_path / "sprung").exists()


@pytest.mark.slow
def test_there_and_back_for_darts(run, files, tmp_path):
    run("import", files / "darts.ckpt", "--out", tmp_path / "bundle")
    status, output, _ = run("export", tmp_path / "bundle", tmp_path / "model.pt", "--to", "darts")
    assert status == 0
    assert "DARTS makes these layers itself; set it to make them alike: slope (horn)" in output
    assert run("import", tmp_path / "model.pt", "--out", tmp_path / "again")[0] == 0
    first, other = (load(tmp_path / name) for name in ("bundle", "again"))
    assert [(a.name, a.low, a.high, a.clip) for a in first.layers] == [
        (b.name, b.low, b.high, b.clip) for b in other.layers
    ]
    state = other.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.network.state_dict().items())
    status, _, error = run("export", tmp_path / "bundle", tmp_path / "model.pt", "--to", "darts")
    assert (status, "model.pt exists; name another file" in error) == (2, True)


@pytest.mark.slow
def test_what_darts_would_see_otherwise_is_refused(run, files, tmp_path):
    run("import", files / "run", "--out", tmp_path / "bundle", "--window-m", 100)
    status, _, error = run("export", tmp_path / "bundle", tmp_path / "model.pt", "--to", "darts")
    assert status == 2
    assert "not clipped, and DARTS would give it -1 .. 1, clipped, whatever the file says" in error
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.slow
def test_onnx_for_qgis_says_what_it_takes(run, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    torch.save(lightning(network(2), ("red", "ndvi")), tmp_path / "darts.ckpt")
    run("import", tmp_path / "darts.ckpt", "--out", tmp_path / "bundle", "--tile", 64)
    status, output, error = run("export", tmp_path / "bundle", tmp_path / "model.onnx", "--pixel-m", 3)
    assert (status, error) == (0, "")
    assert "it takes tiles of 64 px with bands in physical units, NaN where missing: red (1), ndvi (1)" in output
    assert "scaling and sigmoid are inside: it gives probabilities; objects are above 0.5" in output
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    values = np.full((1, 2, 64, 64), layer("ndvi").high, np.float32)
    (answer,) = session.run(None, {"layers": values})
    assert ((answer >= 0) & (answer <= 1)).all()
    assert json.loads(session.get_modelmeta().custom_metadata_map["resolution"]) == 300
