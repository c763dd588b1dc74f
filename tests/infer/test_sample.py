"""Backends are compared on a real part of what is mapped, which is read only when there is something to compare."""

import json
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from thawmap.config import InferenceSettings, ModelSettings, load
from thawmap.data.project import Project
from thawmap.data.sources.arrays import ArraySource
from thawmap.data.sources.base import Scene
from thawmap.data.stack import preview
from thawmap.errors import ConfigError, DataError
from thawmap.infer.plan import memory
from thawmap.infer.sample import cut_out, first_cut_out
from thawmap.layers import layer
from thawmap.model.backends import select
from thawmap.model.backends.memory import BASE_BYTES
from thawmap.model.backends.open import open_backend
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import save
from thawmap.model.network import build
from thawmap.pipeline import _predict_scene
from thawmap.pipeline.predict import predict
from thawmap.pipeline.simulate import simulate

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def bundle_of(*names, **options):
    network = build(ModelSettings(architecture="pixel"), channels=len(names)).eval()
    return Bundle(
        layers=tuple(map(layer, names)), architecture="pixel", encoder="resnet34", tile=64, stride=1, fixed_tile=False,
        network=network, **options,
    )  # fmt: skip


def scene_of(values, name="s1"):
    """A scene whose red has these values; where red is missing, nothing is valid."""
    geobox = GeoBox(values.shape, Affine(10, 0, 500_000, 0, -10, 7_700_000), "EPSG:32608")
    source = ArraySource({"red": values, "nir": values + 1}, geobox)
    return Scene(id=name, sensor="test", geobox=geobox, files={}), source


@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 700)),
    side=st.integers(1, 120),
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(0, 1),
)
def test_what_is_cut_out_is_a_part_of_the_scene_with_something_valid_in_it(shape, side, seed, share):
    """Against a look at the whole scene: values are numbered, so that each says where it is from."""
    rng = np.random.default_rng(seed)
    values = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
    known = np.kron(rng.random((9, 70)) < share, np.ones((10, 10), bool))[: shape[0], : shape[1]]
    scene, source = scene_of(np.where(known, values, np.nan))
    found = cut_out(scene, bundle_of("nir", "red"), [source], side)
    assert (found is None) <= (not known[: shape[0] // 4 * 4, : shape[1] // 4 * 4].any() or side < 10)
    if found is None:
        return
    assert found.shape == (2, min(side, shape[0]), min(side, shape[1]))
    assert np.isfinite(found).any()
    row, col = np.argwhere(np.isfinite(found[1]))[0]
    top, left = np.divmod(int(found[1, row, col]), shape[1]) - np.array([row, col])
    expected = np.where(known, values, np.nan)[top : top + found.shape[1], left : left + found.shape[2]]
    np.testing.assert_array_equal(found[1], expected)
    np.testing.assert_array_equal(found[0], expected + 1)


def test_the_middle_of_what_is_valid_is_taken_and_not_a_gap():
    values = np.full((600, 1200), np.nan, np.float32)
    values[100:300, 900:1100] = 0.1
    scene, source = scene_of(values)
    bundle = bundle_of("red")
    assert np.isfinite(cut_out(scene, bundle, [source], 190)).all()  # at most half a cell of the look beside the middle
    overview = preview(scene, ["red"], [source], size=100)
    assert np.isfinite(cut_out(scene, bundle, [source], 180, overview=overview)).all()
    ring = np.full((500, 500), 0.1, np.float32)
    ring[20:480, 20:480] = np.nan
    scene, source = scene_of(ring)
    assert np.isfinite(cut_out(scene, bundle, [source], 16)).any()


def test_scenes_without_anything_valid_or_readable_are_passed_over():
    empty, _ = scene_of(np.full((50, 50), np.nan, np.float32))
    full, source = scene_of(np.full((50, 50), 0.1, np.float32), "s2")
    bundle = bundle_of("red")

    class Torn:
        layers = frozenset({"red"})

        def read(self, scene, geobox, layers):
            if scene == empty:
                msg = "torn"
                raise DataError(msg)
            return source.read(scene, geobox, layers)

    scene, image = first_cut_out([empty, full], bundle, [Torn()], 30)
    assert scene == full
    assert image.shape == (1, 30, 30)
    assert first_cut_out([empty], bundle, [Torn()], 30) is None
    with pytest.raises(DataError, match="torn"):
        cut_out(empty, bundle, [Torn()], 30)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("sample") / "project", regions=2, scenes=1, size=96)


@pytest.fixture(scope="module")
def steep(tmp_path_factory):
    """A bundle whose answer turns from 0 to 1 at a red that made-up images have everywhere, and the scenes nowhere."""
    bundle = bundle_of("red", "nir")
    with torch.no_grad():
        bundle.network.weight[:] = torch.tensor([1000.0, 0.0]).view(1, 2, 1, 1)
        bundle.network.bias[:] = -600.0
    folder = tmp_path_factory.mktemp("models") / "steep"
    save(bundle, folder)
    return folder


@pytest.fixture
def reads(monkeypatch):
    """Which scenes are read for a comparison."""
    found = []

    def spied(really, scenes, *rest, **options):
        found.append(scenes)
        return really(scenes, *rest, **options)

    for name in ("cut_out", "first_cut_out"):
        monkeypatch.setattr(_predict_scene, name, partial(spied, getattr(_predict_scene, name)))
    return found


def configured(project, *sets):
    return load(project, overrides=("layers=[red, nir]", "polygons.drop=[]", *sets))


@pytest.mark.slow
def test_bfloat16_is_used_where_it_agrees_on_the_scene_itself(project, steep, tmp_path, reads):
    bundle = _predict_scene.load_bundle(steep)
    with pytest.raises(ConfigError, match="bfloat16 disagrees"):
        open_backend(bundle, precision="bfloat16")  # on a made-up image
    config = configured(project, "inference.precision=bfloat16", "inference.backend=eager")
    summary = predict(config, steep, tmp_path)
    assert (summary.done, summary.failed) == (2, {})
    assert len(reads) == 1  # opened once in a process, compared once
    items = [json.loads((one / "item.json").read_text()) for one in tmp_path.iterdir() if one.is_dir()]
    assert len(items) == 2


def test_bfloat16_is_refused_where_it_shows_on_the_scene_itself(project, steep, tmp_path):
    scenes = Project(configured(project))
    scene = scenes.open(scenes.candidates()[0], labelled=False)
    bundle = deepcopy(_predict_scene.load_bundle(steep))
    image = cut_out(scene, bundle, scenes.sources, 64)
    red = (np.nanmedian(image[0]) + 0.1) / 0.6  # in the network's range
    with torch.no_grad():
        bundle.network.bias[:] = -1000.0 * float(red)
    save(bundle, tmp_path / "model")
    config = configured(project, "inference.precision=bfloat16", "inference.backend=eager")
    summary = predict(config, tmp_path / "model", tmp_path / "maps")
    assert "bfloat16 disagrees with PyTorch in float32" in summary.failed[scene.id]


@pytest.mark.slow
def test_nothing_is_read_where_there_is_nothing_to_compare(project, steep, tmp_path, reads):
    assert predict(configured(project), steep, tmp_path).done == 2  # little work: nothing is measured
    assert not reads


@pytest.mark.slow
def test_candidates_are_measured_on_the_scene_once_and_remembered_without_it(project, steep, monkeypatch, reads):
    """Only PyTorch competes, to be quick; in bfloat16 it would be refused on a made-up image."""
    monkeypatch.setattr(select, "candidates", lambda _: ["eager"])
    monkeypatch.setattr(select, "WORTH_PX", {"cpu": 0})
    monkeypatch.setattr(select, "TILE_PX", 64)
    config = configured(project, "inference.precision=bfloat16")
    opened = Project(config)
    scenes = [opened.open(one, labelled=False) for one in opened.candidates()]
    (line,) = _predict_scene.choose_backends([steep], opened, scenes)
    assert line.startswith("backend eager: ")
    assert "not used" not in line
    assert reads == [scenes]
    assert _predict_scene.choose_backends([steep], opened, scenes[::-1]) == [line]
    assert reads == [scenes]


@pytest.mark.parametrize("backend", ["openvino", "compile"])
def test_plans_leave_room_for_what_a_backend_takes_in_any_case(steep, backend):
    """Beside what it takes for a pixel, which is another number."""
    bundle = _predict_scene.load_bundle(steep)
    members = {
        name: _predict_scene.unready_member(bundle, InferenceSettings(backend=name)) for name in ("eager", backend)
    }
    needs = {name: memory((0, 0), [one], InferenceSettings(), width=3000) for name, one in members.items()}
    assert needs[backend] == needs["eager"] + BASE_BYTES[backend] > needs["eager"]


def test_a_dry_run_tells_the_minutes_of_the_backend_that_will_map(project, steep, monkeypatch):
    remembered = select.Choice(backend="openvino", seconds={"eager": 60.0, "openvino": 6.0})
    monkeypatch.setattr(_predict_scene, "choose", lambda *_, **__: remembered)

    def seconds(backend):
        config = load(project, overrides=[f"inference.backend={backend}"])
        opened = Project(config)
        found = _predict_scene.cost(opened.open(opened.candidates()[0], labelled=False), opened, [steep])
        return found.seconds, found.computed / 1e6

    for backend, each in (("auto", 6.0), ("eager", 60.0), ("openvino", 6.0)):
        found, computed = seconds(backend)
        assert found == pytest.approx(each * computed)
    assert seconds("compile")[0] is None
