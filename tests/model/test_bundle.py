"""Bundles load and answer as they were saved; changed files are refused."""

import json
import os
import re
import shutil
from dataclasses import replace
from hashlib import sha256

import pystac
import pytest
import torch
from json_places import changed, places
from safetensors.torch import load_file, save_file

from thawmap.config import ModelSettings
from thawmap.errors import BundleError
from thawmap.layers import layer
from thawmap.model.backends.sandbox import identity
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import _identify, load, read, save
from thawmap.model.decision import Decision
from thawmap.model.manifest import Manifest
from thawmap.model.network import build, traits
from thawmap.pipeline import evaluate, model
from thawmap.report.training.page import _facts

torch.set_num_threads(1)

LAYERS = (layer("red"), layer("ndvi", low=-0.5, high=0.9, clip=False), layer("lidar_height", low=0, high=30))


def make(architecture="pixel", encoder="resnet18", **changes):
    network = build(ModelSettings(architecture=architecture, encoder=encoder), channels=3)
    needs = traits(network, channels=3)
    values = {
        "architecture": architecture,
        "encoder": encoder,
        "layers": LAYERS,
        "tile": 64,
        "network": network.eval(),
    }
    return Bundle(**(values | {"stride": needs.stride, "fixed_tile": needs.fixed_tile} | changes))


@pytest.fixture
def saved(tmp_path):
    thresholds, provenance = (
        {"paper": 0.5, "validation": 0.23},
        {"seed": 3, "regions": {"train": ["Lena", "Горизонт"]}},
    )
    decisions = {"tile": Decision(smoothing_px=1.0, threshold=0.2, peak=0.6, min_area_m2=350.0, views=1.0)}
    bundle = make(
        optional=frozenset({"ndvi"}),
        thresholds=thresholds,
        decisions=decisions,
        metrics={"iou": 0.4},
        provenance=provenance,
    )
    return save(bundle, tmp_path / "model"), tmp_path / "model"


def test_what_is_saved_loads_the_same(saved):
    bundle, folder = saved
    loaded = load(folder)
    assert loaded == bundle
    assert len(loaded.id) == 12
    assert loaded.threshold == 0.23
    assert not loaded.network.training
    assert sorted(path.name for path in folder.iterdir()) == [
        "bundle.json", "item.json", "selftest.safetensors", "weights.safetensors",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["unetplusplus", "deeplabv3", "pspnet"])
def test_deep_networks_load_and_pass_their_self_test(architecture, tmp_path):
    network = make(architecture).network.train()
    network(torch.rand(2, 3, 64, 64)).mean().backward()  # batch norm has seen something
    save(make(architecture, network=network.eval()), tmp_path)
    again = load(tmp_path).network.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in network.state_dict().items())


def test_a_network_is_built_when_it_is_asked_for_and_must_be_the_one_that_was_read(saved):
    bundle, folder = saved
    unbuilt, other = read(folder), read(folder)
    assert unbuilt == bundle
    assert unbuilt.stored is not None
    assert identity(unbuilt) == identity(bundle)
    assert unbuilt.stored is not None
    assert torch.equal(unbuilt.network.weight, bundle.network.weight)
    assert unbuilt.stored is None
    torch.nn.init.zeros_(bundle.network.weight)
    save(bundle, folder)
    with pytest.raises(BundleError, match="was replaced while it was read"):
        _ = other.network


def test_a_bundle_needs_a_network():
    with pytest.raises(TypeError, match="needs a network"):
        Bundle(layers=LAYERS, architecture="pixel", encoder="resnet34", tile=64, stride=1, fixed_tile=False)


def test_the_id_follows_content_and_weights(tmp_path):
    bundle = make()
    first = save(bundle, tmp_path / "a").id
    assert save(bundle, tmp_path / "b").id == first
    assert save(replace(bundle, tile=32), tmp_path / "b").id != first
    torch.nn.init.zeros_(bundle.network.weight)
    assert save(bundle, tmp_path / "b").id != first


def test_without_validation_the_threshold_is_the_papers():
    assert make().threshold == 0.5


def test_saving_over_a_bundle_replaces_it_and_leaves_other_files(saved):
    _, folder = saved
    (folder / "metrics.csv").write_text("kept")
    (folder / "last").mkdir()
    second = save(make(), folder)
    assert load(folder) == second
    assert (folder / "metrics.csv").read_text() == "kept"
    assert (folder / "last").is_dir()
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("failing", [0, 1, 2, 3])
def test_an_interruption_between_two_files_brings_the_old_bundle_back(saved, monkeypatch, failing):
    bundle, folder = saved
    rename, renamed = os.replace, []

    def interrupt(source, destination):
        renamed.append(destination)
        if len(renamed) == failing + 1:
            raise KeyboardInterrupt
        rename(source, destination)

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(make(tile=32), folder)
    monkeypatch.undo()
    assert load(folder) == bundle
    assert not list(folder.glob(".*"))


def test_an_interruption_of_the_first_save_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    rename = os.replace

    def interrupt(source, destination):
        if str(destination).endswith("bundle.json"):
            raise KeyboardInterrupt
        rename(source, destination)

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(make(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_or_file_is_said(saved, tmp_path):
    _, folder = saved
    with pytest.raises(BundleError, match="holds no bundle"):
        load(tmp_path / "nowhere")
    for name in ("weights", "selftest"):
        copy = shutil.copytree(folder, tmp_path / name)
        (copy / f"{name}.safetensors").unlink()
        with pytest.raises(BundleError, match=rf"not whole \({name}"):
            load(copy)


def test_cut_or_swapped_weights_are_refused(saved):
    _, folder = saved
    path = folder / "weights.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    with pytest.raises(BundleError, match="swapped or cut"):
        load(folder)
    save_file(make().network.state_dict(), path)
    with pytest.raises(BundleError, match="swapped or cut"):
        load(folder)


def test_an_edited_description_is_refused(saved):
    _, folder = saved
    path = folder / "bundle.json"
    path.write_text(path.read_text().replace('"tile": 64', '"tile": 96'))
    with pytest.raises(BundleError, match="was changed after it was saved"):
        load(folder)


def reseal(folder, **changes):
    """Make the description agree with the files again, as a forger would."""
    path = folder / "bundle.json"
    content = {key: value for key, value in json.loads(path.read_text()).items() if key != "id"} | changes
    names = ("weights.safetensors", "selftest.safetensors")
    content["sha256"] = {name: sha256((folder / name).read_bytes()).hexdigest() for name in names}
    path.write_text(json.dumps({"id": _identify(content)} | content))


def test_other_weights_under_a_matching_checksum_fail_the_self_test(saved):
    _, folder = saved
    state = load_file(folder / "weights.safetensors")
    save_file({key: value + 0.1 for key, value in state.items()}, folder / "weights.safetensors")
    reseal(folder)
    with pytest.raises(BundleError, match="fails its self-test"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "has format 2"),
        ({"architecture": "unett"}, "did you mean 'unet'"),
        ({"layers": [{"name": "red"}] * 3}, r"'layers.0.units' is missing"),
        ({"architecture": "unet"}, "cannot be rebuilt"),
    ],
)
def test_a_bundle_of_another_kind_is_refused_in_one_sentence(saved, changes, message):
    _, folder = saved
    reseal(folder, **changes)
    with pytest.raises(BundleError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_text_that_is_not_json_is_refused(saved):
    _, folder = saved
    (folder / "bundle.json").write_text('{"format": 1')
    with pytest.raises(BundleError, match="is not JSON"):
        load(folder)


FULL = {
    "made_by": "thawmap train",
    "from": "phase full, epoch 1",
    "config": {"training": {"seed": 1}, "split": {"by": "region"}},
    "tile_store": "e27fdc59c236",
    "versions": {"torch": "2.9"},
    "regions": {"train": ["Lena"], "test": ["Horton"]},
    "tiles": {"train": 3},
    "notes": ["imported"],
    "begun_from": {"bundle": "e27fdc59c236", "regions": ["Yamal"]},
}
WRONG = (None, True, -1, 0, 1e400, float("nan"), 10**40, "a", "", [], [None], [1], {}, {"x": None}, {"x": [1]})


@pytest.mark.slow
def test_every_value_of_the_wrong_kind_ends_in_a_sentence(tmp_path):
    """A bundle edited and sealed again loads and can be described, or is refused."""
    save(make(optional=frozenset({"ndvi"}), metrics={"iou": 0.4}, provenance=FULL), tmp_path)
    path = tmp_path / "bundle.json"
    manifest = json.loads(path.read_text())
    paths = {("provenance", *keys) for keys in places(manifest["provenance"])} | set(places(manifest)) - {
        ("id",),
        ("format",),
    }
    refused = accepted = 0
    for keys in sorted(paths, key=str):
        for value in WRONG:
            rest = {key: content for key, content in changed(manifest, keys, value).items() if key != "id"}
            path.write_text(json.dumps({"id": _identify(rest)} | rest))
            try:
                loaded = load(tmp_path)
            except BundleError as error:
                refused += "\n" not in str(error)
            else:
                accepted += 1
                assert model._summary(loaded).lines
                assert isinstance(evaluate.region_roles([], loaded), dict)
                assert isinstance(evaluate.model_facts(loaded), dict)
                assert isinstance(_facts(loaded), dict)
    assert refused + accepted == len(paths) * len(WRONG)
    assert refused > 3 * accepted


def test_every_value_of_a_bundle_has_a_type(saved):
    _, folder = saved
    assert set(json.loads((folder / "bundle.json").read_text())) == set(Manifest.model_fields) | {"format"}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{" + '"a": {' * 60 + "}" * 61])
def test_a_description_that_is_nested_without_end_is_refused(saved, text):
    _, folder = saved
    (folder / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match="nested more than 50 levels"):
        load(folder)


def test_a_network_that_answers_nan_is_not_saved(tmp_path):
    bundle = make()
    torch.nn.init.constant_(bundle.network.weight, torch.nan)
    with pytest.raises(BundleError, match="not finite"):
        save(bundle, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("umask", [0o022, 0o007])
def test_whoever_may_read_other_files_may_read_a_bundle(tmp_path, umask):
    before = os.umask(umask)
    try:
        save(make(), tmp_path / "model")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {0o666 & ~umask}


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written"):
        save(make(), tmp_path / "file" / "model")


def item_of(folder):
    return json.loads((folder / "item.json").read_text())


PROVENANCE = {
    "config": {"model": {"weights": None}, "training": {"loss": "focal", "phases": [{"name": "full", "epochs": 2}]}},
    "versions": {"torch": "2.9.1+cpu"},
}


def test_a_bundle_describes_itself_for_catalogues(tmp_path):
    layers = (layer("red"), replace(layer("relative_elevation", clip=False), recipe="circle of 100 m"))
    network = build(ModelSettings(architecture="unet", encoder="resnet18"), channels=2)
    bundle = make("unet", layers=layers, network=network.eval(), provenance=PROVENANCE, thresholds={"validation": 0.3})
    saved = save(bundle, tmp_path)
    item = item_of(tmp_path)
    read = pystac.Item.from_dict(item)
    assert (read.id, read.geometry, read.bbox, item["type"]) == (f"thawmap-{saved.id}", None, None, "Feature")
    assert read.datetime is not None
    properties = read.properties
    assert properties["thawmap:bundle"] == saved.id
    assert properties["mlm:total_parameters"] == sum(weights.numel() for weights in network.parameters())
    assert (properties["mlm:pretrained"], properties["mlm:pretrained_source"]) == (False, None)
    assert properties["mlm:framework_version"] == "2.9.1"
    assert [(scaling["minimum"], scaling["maximum"]) for scaling in properties["mlm:input"][0]["value_scaling"]] == [
        (-0.1, 0.5),
        (-50, 50),
    ]
    assert "clipped to 0..1: red;" in properties["mlm:input"][0]["description"]
    assert (
        [band["name"] for band in properties["bands"]]
        == properties["mlm:input"][0]["bands"]
        == ["red", "relative_elevation"]
    )
    assert properties["bands"][1]["description"] == "made as: circle of 100 m"
    for asset in item["assets"].values():
        assert (tmp_path / asset["href"]).is_file()


def test_the_description_has_what_the_model_extension_asks_for(saved):
    """The required fields and patterns of the extension's JSON schema."""
    _, folder = saved
    item = item_of(folder)
    properties = item["properties"]
    assert item["stac_extensions"] == ["https://stac-extensions.github.io/mlm/v1.4.0/schema.json"]
    assert {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output", "bands", "datetime"} <= set(
        properties
    )
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", properties["mlm:name"])
    assert properties["mlm:tasks"] == ["semantic-segmentation"]
    for kind, structure in (("mlm:input", "input"), ("mlm:output", "result")):
        for entry in properties[kind]:
            described = entry[structure]
            assert {"name", structure} <= set(entry)
            assert len(described["shape"]) == len(described["dim_order"]) == len(set(described["dim_order"]))
            assert all(isinstance(side, int) and side >= -1 for side in described["shape"])
            assert described["data_type"] == "float32"
            assert all(re.fullmatch("[a-z-_]+", name) for name in described["dim_order"])
    assert len(properties["mlm:input"][0]["value_scaling"]) == len(properties["mlm:input"][0]["bands"]) == 3
    assert all(
        {"format", "expression"} == set(output["post_processing_function"]) for output in properties["mlm:output"]
    )
    models = [asset for asset in item["assets"].values() if "mlm:model" in asset["roles"]]
    assert [asset["mlm:artifact_type"] for asset in models] == ["safetensors.torch.save_file"]
    assert models[0]["bands"] == properties["bands"], "STAC 1.1 allows bands of an item only where an asset has bands"


def test_pystac_reads_the_model_extension(saved):
    mlm = pytest.importorskip("pystac.extensions.mlm", reason="this pystac has no extension for models")
    bundle, folder = saved
    read = mlm.MLMExtension.ext(pystac.Item.from_dict(item_of(folder)))
    assert read.architecture == bundle.architecture
    assert read.tasks == ["semantic-segmentation"]
    assert read.input[0].input.shape == [-1, 3, 64, 64]
    assert [output.name for output in read.output] == ["logits"]
    assert read.input[0].bands == [used.name for used in bundle.layers]


def test_bundles_of_before_catalogues_load(saved):
    bundle, folder = saved
    (folder / "item.json").unlink()
    assert load(folder) == bundle
