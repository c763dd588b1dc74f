"""Backends beside PyTorch: they agree or are refused; the fastest is remembered."""

import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import random_bundle, random_images
from hypothesis import given
from hypothesis import strategies as st

from thawmap.errors import ConfigError
from thawmap.model.backends import select
from thawmap.model.backends.agreement import central_square, disagreement, synthetic_image
from thawmap.model.backends.memory import bytes_per_pixel
from thawmap.model.backends.open import TorchBackend, open_backend
from thawmap.model.backends.openvino import convert, converted_path, import_openvino
from thawmap.model.backends.prepared import PreparedBackend, recall, remember
from thawmap.model.backends.sandbox import SandboxError, cache_folder, identity, run_in_sandbox
from thawmap.model.backends.select import Choice, choose
from thawmap.model.bundle_folder import read, save

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(select, "TILE_PX", 64)
        yield


def seeded(architecture, seed):
    torch.manual_seed(seed)
    bundle = random_bundle(architecture)
    for module in bundle.network.modules():  # as after training: statistics that are not those of a fresh network
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return bundle


@pytest.fixture(scope="module")
def poisoned():
    """A bundle whose converted network, kept from an earlier time, is another one's."""
    bundle = seeded("pixel", 1)
    shutil.copytree(convert(seeded("pixel", 3)).parent, converted_path(bundle).parent)
    return bundle


@pytest.fixture(scope="module")
def chosen(poisoned, tmp_path_factory):
    """The choice where OpenVINO is wrong and no compiler is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", "/no/compiler")
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        return choose(poisoned)


def answers():
    return next((cache_folder() / "choices").glob("*.json"))


@pytest.mark.slow
@pytest.mark.parametrize("sides", [(64, 64), (96, 160)])
def test_openvino_answers_as_pytorch_for_any_size_and_batch(sides):
    bundle = seeded("unet", 0)
    images = np.concatenate([random_images(2, side=max(sides))[..., : sides[0], : sides[1]]] * 2)
    images[0, 1] = np.nan
    expected = open_backend(bundle)(images)
    answer = open_backend(bundle, backend="openvino")(images)
    assert answer.dtype == np.float32
    assert answer.shape == expected.shape
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(answer, expected, atol=1e-3)


@pytest.mark.slow
def test_openvino_changes_its_size_and_back():
    bundle = seeded("pixel", 3)
    backend, eager = open_backend(bundle, backend="openvino"), open_backend(bundle)
    for side in (32, 64, 32):
        images = random_images(1, side=side)
        np.testing.assert_allclose(backend(images), eager(images), atol=1e-5)


@pytest.mark.slow
def test_a_compiled_network_answers_as_pytorch():
    bundle, images = seeded("pixel", 3), random_images(2)
    np.testing.assert_allclose(open_backend(bundle, backend="compile")(images), open_backend(bundle)(images), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "openvino"])
def test_bfloat16_is_near(backend):
    bundle, images = seeded("pixel", 3), random_images(2)
    answer = open_backend(bundle, backend=backend, precision="bfloat16", image=lambda _: images[0])(images)
    assert disagreement(answer, open_backend(bundle)(images), precision="bfloat16", threshold=0.5) is None


def test_bfloat16_is_refused_where_it_shows():
    bundle = seeded("pixel", 5)
    with torch.no_grad():
        bundle.network.weight *= 1000
        bundle.network.bias -= bundle.network.weight.sum() / 2
    with pytest.raises(ConfigError, match=r"bfloat16 disagrees with PyTorch in float32.*set inference.precision to f"):
        open_backend(bundle, precision="bfloat16")


@pytest.mark.slow
def test_a_backend_that_disagrees_is_not_used(poisoned, chosen):
    with pytest.raises(ConfigError, match=r"backend openvino in float32 disagrees .* allowed 0.001; set inference.b"):
        open_backend(poisoned, backend="openvino")
    assert "openvino is not used: probabilities that differ by up to" in chosen.message


@pytest.mark.slow
def test_a_network_that_agreed_once_is_asked_the_self_test_before_it_answers(poisoned, tmp_path):
    save(poisoned, tmp_path)
    saved, run = read(tmp_path), {"backend": "openvino", "precision": "float32"}
    assert recall(saved, device="cpu", **run) is None
    remember(saved, **run, bytes_per_pixel=7)
    record = converted_path(saved).parent / "agreed.json"
    assert recall(saved, device="cpu", **run) == 7
    assert recall(saved, device="cpu", **run | {"precision": "bfloat16"}) is None
    with pytest.raises(ConfigError, match=r"is not that of its bundle .*fails its self-test: probabilities differ"):
        PreparedBackend(saved)(random_images(1))
    record.write_text(record.read_text().replace('"processor": ["', '"processor": ["another '))
    assert recall(saved, device="cpu", **run) is None
    record.unlink()


@pytest.mark.slow
def test_a_candidate_that_fails_is_not_used_and_what_works_is(chosen):
    assert "compile is not used: backend compile does not work here" in chosen.message
    assert chosen.backend == "eager"
    assert list(chosen.seconds) == ["eager"]
    assert chosen.message.startswith(f"backend eager: {chosen.seconds['eager']:.3g} s per million pixels")


@pytest.mark.slow
def test_the_choice_is_remembered_without_measuring(poisoned, chosen):
    assert choose(poisoned, pixels=0) == chosen
    record = answers().read_text()
    answers().write_text(record.replace('"chosen": "eager"', '"chosen": "openvino"'))
    assert choose(poisoned).backend == "openvino"  # measured again, it would be eager
    answers().write_text(record)


@pytest.mark.slow
def test_another_bundle_another_precision_and_other_threads_are_another_question(poisoned, chosen):
    with_bias = seeded("pixel", 1)
    assert choose(with_bias, pixels=0) == chosen  # the same numbers
    with torch.no_grad():
        with_bias.network.bias += 0.1
    assert choose(with_bias, pixels=0) == Choice(backend="eager")
    assert choose(replace(poisoned, layers=poisoned.layers[::-1]), pixels=0) == Choice(backend="eager")
    assert choose(poisoned, precision="bfloat16", pixels=0) == Choice(backend="eager")
    torch.set_num_threads(2)
    try:
        assert choose(poisoned, pixels=0) == Choice(backend="eager")
    finally:
        torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"question": 1, "seconds": {}, "refused": {}}'])
def test_a_broken_memory_is_no_memory(poisoned, chosen, damage):
    record = answers().read_text()
    answers().write_text(damage)
    assert choose(poisoned, pixels=0) == Choice(backend="eager")
    answers().write_text(record)
    assert choose(poisoned, pixels=0) == chosen


@pytest.mark.slow
def test_an_answer_of_another_name_or_to_another_question_is_no_memory(poisoned, chosen):
    record = json.loads(answers().read_text())
    for wrong in ({"chosen": "abacus"}, {"question": {}}):
        answers().write_text(json.dumps(record | wrong))
        assert choose(poisoned, pixels=0) == Choice(backend="eager")
    answers().write_text(json.dumps(record))


def test_a_candidate_that_takes_too_long_is_ended_and_named():
    choice = choose(seeded("pixel", 6), limit_s=0.05)
    assert choice.backend == "eager"
    assert "eager is not used: no answer within 0.05 s" in choice.message


def test_little_work_is_not_measured():
    choice = choose(seeded("pixel", 7), pixels=1e6)
    assert choice == Choice(backend="eager")
    assert not choice.message


@pytest.mark.slow
def test_candidates_that_agree_are_all_timed_on_the_image_that_is_given():
    bundle = seeded("pixel", 3)
    choice = choose(bundle, image=lambda _: random_images(1, side=80)[0])
    assert set(choice.seconds) == {"eager", "compile", "openvino"}
    assert choice.seconds[choice.backend] == min(choice.seconds.values()) > 0
    assert not choice.refused


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that a process of its own can run."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(text):
        (tmp_path / "strange.py").write_text(text)
        return "strange", tmp_path

    return write


def test_a_crash_is_survived_and_named(module):
    with pytest.raises(SandboxError, match="ended by signal 11"):
        run_in_sandbox(*module("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"), {})
    with pytest.raises(SandboxError, match=r"^ValueError: three$"):
        run_in_sandbox(*module("raise ValueError('three')"), {})
    with pytest.raises(SandboxError, match="exit status 7"):
        run_in_sandbox(*module("raise SystemExit(7)"), {})


@pytest.mark.slow
def test_what_hangs_is_ended_with_all_that_it_started(module):
    name, folder = module(
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
        "pathlib.Path(sys.argv[1], 'pid.draft').write_text(str(child.pid))\n"
        "pathlib.Path(sys.argv[1], 'pid.draft').rename(pathlib.Path(sys.argv[1], 'pid'))\n"
        "time.sleep(1000)\n"
    )
    limit_s = 1  # enough for it to start; more where this machine has much else to do
    while not (folder / "pid").exists():
        limit_s *= 2
        with pytest.raises(SandboxError, match=f"no answer within {limit_s} s"):
            run_in_sandbox(name, folder, {}, limit_s=limit_s)
    status, patience = Path("/proc", (folder / "pid").read_text(), "stat"), time.monotonic() + 300
    while status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
        assert time.monotonic() < patience, "what the process started lives on"
        time.sleep(0.05)


def test_a_cache_that_cannot_be_written_stops_only_who_needs_it(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    bundle = seeded("pixel", 8)
    with pytest.raises(ConfigError, match=r"cannot be written .*; set the environment variable XDG_CACHE_HOME"):
        open_backend(bundle, backend="openvino")
    choice = choose(bundle)
    assert choice.backend == "eager"
    assert "XDG_CACHE_HOME" in choice.message


def test_a_missing_library_is_named_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match=r"not installed; pip install 'thawmap\[openvino\]'"):
        open_backend(seeded("pixel", 9), backend="openvino")


def test_unknown_backends_and_devices_that_do_not_suit_are_refused():
    with pytest.raises(ConfigError, match="backend 'abacus' does not exist; use eager, compile, openvino"):
        open_backend(seeded("pixel", 9), backend="abacus")


@pytest.mark.slow
def test_a_damaged_conversion_is_named():
    bundle = seeded("pixel", 10)
    path = converted_path(bundle)
    shutil.copytree(convert(seeded("pixel", 3)).parent, path.parent)
    path.write_text(path.read_text()[:500])
    with pytest.raises(ConfigError, match=f"remove the folder {path.parent}"):
        open_backend(bundle, backend="openvino")


def test_the_part_of_openvino_that_reports_its_use_is_not_loaded():
    import_openvino()
    assert "openvino_telemetry" not in sys.modules


def test_identity_is_that_of_the_numbers():
    bundle = seeded("pixel", 1)
    assert identity(bundle) == identity(replace(seeded("pixel", 1), id="abc", metrics={"iou": 1.0}))
    assert identity(bundle) != identity(seeded("pixel", 2))


class _Greedy(torch.nn.Module):
    """A network that wants more memory than there is."""

    def forward(self, images):
        return images.new_empty((1 << 50,))


def test_want_of_memory_is_a_memory_error():
    bundle = replace(seeded("pixel", 1), network=_Greedy())
    with pytest.raises(MemoryError, match="allocate memory"):
        TorchBackend(bundle.network, torch.device("cpu"))(random_images(1))
    endless = np.broadcast_to(random_images(1), (2**40, 3, 64, 64))
    with pytest.raises(MemoryError):
        open_backend(seeded("pixel", 1))(endless)


def test_other_failures_are_not_taken_for_want_of_memory():
    with pytest.raises(RuntimeError, match="size of tensor a"):
        open_backend(seeded("pixel", 1))(random_images(1)[:, [0, 1, 1, 2]])


@pytest.mark.slow
def test_memory_grows_with_the_network_and_shrinks_with_the_backend():
    unet, nested = seeded("unet", 0), seeded("unetplusplus", 0)
    assert bytes_per_pixel(nested, "eager") > 1.5 * bytes_per_pixel(unet, "eager")
    assert bytes_per_pixel(unet, "openvino") < 0.7 * bytes_per_pixel(unet, "eager")
    assert bytes_per_pixel(unet, "openvino", "bfloat16") < bytes_per_pixel(unet, "openvino")
    # one convolution: its answer is all that is made
    assert bytes_per_pixel(seeded("pixel", 0), "eager") == pytest.approx(2.4 * (4 + 3 * 4), abs=1)


probabilities = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random((1, 40, 50), np.float32))


@given(probabilities, st.floats(0, 2e-3))
def test_float32_may_differ_by_a_thousandth_anywhere(truth, by):
    answer = truth.copy()
    answer[0, 3, 4] += np.float32(by)
    wrong = disagreement(answer, truth, precision="float32", threshold=0.5)
    assert (wrong is None) == (abs(float(answer[0, 3, 4]) - float(truth[0, 3, 4])) <= 1e-3)


@given(probabilities, st.integers(0, 5))
def test_bfloat16_may_differ_by_more_in_one_pixel_of_a_thousand(truth, pixels):
    truth = np.where(truth > 0.5, np.float32(0.9), np.float32(0.1))
    answer = truth.copy()
    answer.reshape(-1)[:pixels] += np.float32(0.05)
    wrong = disagreement(answer, truth, precision="bfloat16", threshold=0.5)
    assert (wrong is None) == (pixels <= 2)


def test_masks_in_bfloat16_overlap():
    truth = np.full((1, 40, 50), 0.1, np.float32)
    truth[0, :10, :10] = 0.505
    answer = truth.copy()
    answer[0, 0, 0] = 0.495
    assert disagreement(answer, truth, precision="bfloat16", threshold=0.5) is None
    answer[0, 0, 1] = 0.495
    assert "IoU 0.980" in disagreement(answer, truth, precision="bfloat16", threshold=0.5)
    answer[0, 0, 2] = np.nan
    assert "not numbers" in disagreement(answer, truth, precision="bfloat16", threshold=0.5)


def test_made_up_images_cross_the_ranges_and_lack_something():
    layers = random_bundle("pixel").layers
    image = synthetic_image(layers, 128)
    np.testing.assert_array_equal(image, synthetic_image(layers, 128))
    assert image.dtype == np.float32
    assert np.isnan(image[0, :, :16, :16]).all()
    assert 0.01 < np.isnan(image).mean() < 0.05
    for layer, values in zip(layers, image[0], strict=True):
        scaled = (values[np.isfinite(values)] - layer.low) / (layer.high - layer.low)
        assert 0.25 < scaled.mean() < 0.75
        assert np.percentile(scaled, 5) < 0.2
        assert np.percentile(scaled, 95) > 0.8


@given(st.integers(1, 90), st.integers(1, 90))
def test_the_middle_of_an_image_has_the_side_that_is_asked_for(height, width):
    image = np.random.default_rng(0).random((2, height, width), np.float32)
    square = central_square(image, 32)
    assert square.shape == (1, 2, 32, 32)
    assert np.isin(square, image).all()
    if height >= 32 and width >= 32:
        row, col = (height - 32) // 2, (width - 32) // 2
        np.testing.assert_array_equal(square[0], image[:, row : row + 32, col : col + 32])


@pytest.mark.gpu
def test_backends_on_a_gpu_answer_as_the_processor():
    bundle, images = seeded("unet", 0), random_images(2)
    expected = open_backend(bundle, device="cpu")(images)
    for backend in ("eager", "compile"):
        answer = open_backend(bundle, device="cuda", backend=backend)(images)
        np.testing.assert_allclose(answer, expected, atol=1e-3)
    answer = open_backend(bundle, device="cuda", precision="bfloat16", image=lambda _: images[0])(images)
    assert disagreement(answer, expected, precision="bfloat16", threshold=0.5) is None


@pytest.mark.gpu
def test_a_gpu_that_is_full_is_a_memory_error():
    with pytest.raises(MemoryError):
        TorchBackend(_Greedy(), torch.device("cuda"))(random_images(1))


@pytest.mark.slow
def test_processes_side_by_side_keep_their_own_threads():
    """OpenVINO takes PyTorch's number of threads, which engine's workers share."""
    backend = open_backend(seeded("pixel", 3), backend="openvino")
    backend(random_images(1))
    assert backend._compiled.get_property("INFERENCE_NUM_THREADS") == torch.get_num_threads() == 1
