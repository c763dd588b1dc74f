"""Other people's models: same inputs as there, no code, and back again."""

import json
import logging
import pickle
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import yaml
from foreign_models import CHANNELS, DIVIDED_BY, NORM, STUB, legacy, lightning, network, write_run
from hypothesis import given
from hypothesis import strategies as st

from thawmap.config import ModelSettings
from thawmap.config.inputs import ElevationSettings
from thawmap.errors import BundleError, ConfigError
from thawmap.layers import LAYERS, PAPER_LAYERS, layer
from thawmap.model.bundle import Bundle
from thawmap.model.bundle_folder import load, save
from thawmap.model.interop import read as foreign
from thawmap.model.interop.convert import Facts, _layers, darts_checkpoint, import_bundle
from thawmap.model.interop.encodings import DARTS, STORED, range_of_factor
from thawmap.model.network import build, probability, scale, traits
from thawmap.model.reading import Reading
from thawmap.pipeline import model

torch.set_num_threads(1)

PAPER_WINDOW = Facts(window_m=100)


def stored_and_physical(seed=0, shape=(2, 32, 32)):
    """Return numbers as thaw-slump-segmentation stores them, and physical values."""
    rng = np.random.default_rng(seed)
    optical = rng.integers(1, 12000, (4, *shape)).astype(np.uint16)
    ndvi = rng.integers(0, 20001, shape).astype(np.uint16)
    relative = rng.integers(-3000, 32767, shape).astype(np.int16)
    slope = rng.uniform(0, 90, shape).astype(np.float32)
    trends = rng.integers(0, 256, (3, *shape)).astype(np.uint8)
    stored = np.stack([values.astype(np.float32) for values in (ndvi, *optical, relative, slope, *trends)], axis=1)
    physical = (
        ndvi / 1e4 - 1, *(optical / 1e4), relative / 300 - 50, slope,
        *(trends / 255 * 0.24 - 0.12),
    )  # fmt: skip
    return torch.from_numpy(stored), torch.from_numpy(np.stack(physical, axis=1).astype(np.float32))


# what the network sees


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "_orig_mod."])
def test_a_run_of_thaw_slump_segmentation_sees_and_answers_what_it_did(tmp_path, prefix):
    net = write_run(tmp_path / "run", prefix=prefix)
    bundle, _ = import_bundle(tmp_path / "run", PAPER_WINDOW)
    assert tuple(used.name for used in bundle.layers) == CHANNELS
    stored, physical = stored_and_physical()
    network_input = stored * (1 / torch.tensor(DIVIDED_BY, dtype=torch.float32).reshape(-1, 1, 1))
    assert network_input[:, 1:5].max() > 3.9, "reflectances far beyond 0.3 are seen as they are"
    torch.testing.assert_close(scale(physical, bundle.reading), network_input, rtol=1e-6, atol=2e-7)
    with torch.inference_mode():
        answer = torch.sigmoid(net(network_input)).squeeze(1)
        torch.testing.assert_close(probability(bundle.network, physical, bundle.reading), answer, rtol=0, atol=2e-6)


@pytest.mark.slow
def test_missing_is_zero_for_them_and_for_us(tmp_path):
    write_run(tmp_path / "run")
    bundle, _ = import_bundle(tmp_path / "run", PAPER_WINDOW)
    assert torch.count_nonzero(scale(torch.full((1, 10, 4, 4), torch.nan), bundle.reading)) == 0


@pytest.mark.slow
def test_a_run_of_some_sources_has_their_channels_in_alphabetical_order(tmp_path):
    write_run(tmp_path / "run", net=network(5), sources=("planet", "ndvi"), input_channels=5)
    bundle, _ = import_bundle(tmp_path / "run")
    assert [used.name for used in bundle.layers] == ["ndvi", "blue", "green", "red", "nir"]


@pytest.mark.slow
def test_the_last_epoch_is_taken_or_the_one_that_is_named(tmp_path):
    net = write_run(tmp_path / "run", epochs=(2, 99, 100))
    last, notes = import_bundle(tmp_path / "run", PAPER_WINDOW)
    assert torch.equal(last.network.state_dict()["encoder.conv1.weight"], net.state_dict()["encoder.conv1.weight"])
    assert "100.pt" in notes[0]
    early, _ = import_bundle(tmp_path / "run" / "checkpoints" / "02.pt", PAPER_WINDOW)
    assert torch.count_nonzero(early.network.state_dict()["encoder.conv1.weight"]) == 0


def test_the_norm_factors_of_old_darts_models_are_honoured(tmp_path):
    net = network()
    order = (*CHANNELS[1:], CHANNELS[0])
    factors = NORM | {"red": 1 / 5000}
    torch.save(legacy(net, order, factors), tmp_path / "model.pt")
    bundle, notes = import_bundle(tmp_path / "model.pt", PAPER_WINDOW)
    stored, physical = (images[:, [*range(1, 10), 0]] for images in stored_and_physical(1))
    network_input = torch.stack([stored[:, at] * factors[name] for at, name in enumerate(order)], dim=1)
    torch.testing.assert_close(scale(physical, bundle.reading), network_input, rtol=1e-6, atol=2e-7)
    with torch.inference_mode():
        answer = torch.sigmoid(net(network_input)).squeeze(1)
        torch.testing.assert_close(probability(bundle.network, physical, bundle.reading), answer, rtol=0, atol=2e-6)
    assert bundle.tile == 1024
    assert any("norm factors are honoured" in note for note in notes)


@pytest.mark.slow
def test_a_lightning_checkpoint_of_darts_sees_their_ranges_clipped(tmp_path):
    bands = ("red", "ndvi", "dem", "relative_elevation", "slope", "aspect", "curvature", "tc_wetness")
    net = network(len(bands))
    torch.save(lightning(net, bands), tmp_path / "model.ckpt")
    bundle, notes = import_bundle(tmp_path / "model.ckpt", Facts(window_m=2000))
    rng = np.random.default_rng(2)
    valid_range = np.array([(-0.1, 0.5), (-1, 1), (-100, 3000), (-50, 50), (0, 90), (0, 360), (-1, 1), (0, 255)])
    low, high = (end.reshape(-1, 1, 1) for end in valid_range.T)
    memory = low + (high - low) * rng.uniform(-0.5, 1.5, (len(bands), 32, 32))
    memory[rng.random(memory.shape) < 0.05] = np.nan
    network_input = torch.from_numpy(np.nan_to_num(np.clip((memory - low) / (high - low), 0, 1)).astype(np.float32))[
        None
    ]
    converted = memory.copy()
    converted[6] /= 100  # their curvature is per 100 m
    converted[7] = converted[7] / 255 * 0.24 - 0.12
    physical = torch.from_numpy(converted.astype(np.float32))[None]
    torch.testing.assert_close(scale(physical, bundle.reading), network_input, rtol=1e-6, atol=5e-7)
    with torch.inference_mode():
        answer = torch.sigmoid(net(network_input)).squeeze(1)
        torch.testing.assert_close(probability(bundle.network, physical, bundle.reading), answer, rtol=0, atol=5e-6)
    assert {used.name: used.recipe for used in bundle.layers if used.recipe} == {
        "relative_elevation": "circle of 2000 m", "slope": "horn",
    }  # fmt: skip
    assert any("values beyond are clipped" in note for note in notes)


@given(
    band=st.sampled_from(sorted(STORED)),
    times=st.floats(0.2, 5, allow_nan=False),
    stored=st.floats(0, 30000, width=32, allow_nan=False),
)
def test_any_plausible_factor_gives_the_range_that_it_means(band, times, stored):
    factor = NORM[band] * times
    low, high = range_of_factor(band, factor)
    used = layer(band, low=low, high=high, clip=False)
    physical = torch.full((1, 1, 1, 1), stored * STORED[band].scale + STORED[band].offset)
    assert scale(physical, Reading(layers=(used,), fill="zero")).item() == pytest.approx(
        stored * factor, rel=2e-6, abs=2e-6
    )


def test_their_ranges_are_our_own_where_the_units_are():
    for name, ends in DARTS.values():
        if name != "curvature":
            assert ends == (LAYERS[name].low, LAYERS[name].high), name


# facts that the file does not hold


def test_the_recipe_is_the_one_that_a_configuration_makes(tmp_path):
    write_run(tmp_path / "run")
    bundle, _ = import_bundle(tmp_path / "run", Facts(window_m=200))
    elevation = ElevationSettings(path=Path("dem"), window_m=200)
    assert next(used.recipe for used in bundle.layers if used.name == "relative_elevation") == (
        f"circle of {elevation.window_m:g} m"
    )


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (Facts(), "--window-m 100"),
        (Facts(window_m=0), "above 0"),
        (Facts(window_m=100, ranges={"swir1": (0, 1)}), "'swir1'.*not among the inputs"),
        (Facts(window_m=100, tile=250), "multiple of 32"),
        (Facts(window_m=100, ranges={"ndvi": (1, -1)}), "'low' must be below 'high'"),
    ],
)
def test_facts_that_are_missing_or_wrong_are_asked_for(tmp_path, facts, message):
    write_run(tmp_path / "run", net=STUB if facts.tile is None else network())
    with pytest.raises(ConfigError, match=message):
        import_bundle(tmp_path / "run", facts)


def test_a_window_without_relative_elevation_has_no_meaning(tmp_path):
    write_run(tmp_path / "run", net=network(5), sources=("planet", "ndvi"), input_channels=5)
    with pytest.raises(ConfigError, match="--window-m has no meaning"):
        import_bundle(tmp_path / "run", PAPER_WINDOW)


def test_a_factor_that_goes_with_no_known_encoding_is_asked_for(tmp_path):
    """The converter of DARTS wrote 1 for NDVI, whatever was stored."""
    torch.save(legacy(network(), norm=NORM | {"ndvi": 1}), tmp_path / "model.pt")
    with pytest.raises(ConfigError, match="--range ndvi=LOW:HIGH"):
        import_bundle(tmp_path / "model.pt", PAPER_WINDOW)
    bundle, _ = import_bundle(tmp_path / "model.pt", Facts(window_m=100, ranges={"ndvi": (0, 1)}))
    assert (bundle.layers[0].low, bundle.layers[0].high, bundle.layers[0].clip) == (0, 1, False)


def test_a_range_that_is_given_goes_before_what_the_file_says(tmp_path):
    write_run(tmp_path / "run")
    facts = Facts(window_m=300, ranges={"relative_elevation": (-30, 70)})
    bundle, notes = import_bundle(tmp_path / "run", facts)
    metres = torch.tensor([-30.0, 0.0, 12.5]).reshape(1, 1, 1, 3)
    network_input = scale(
        metres, Reading(layers=(bundle.layers[CHANNELS.index("relative_elevation")],), fill="zero")
    ).flatten()
    torch.testing.assert_close(network_input, (metres.flatten() + 30) * 300 / 30000)
    assert not any("(metres + 50)" in note for note in notes)


@pytest.mark.slow
def test_a_band_that_we_make_otherwise_is_asked_for(tmp_path):
    torch.save(lightning(network(2), ("red", "hillshade")), tmp_path / "model.ckpt")
    with pytest.raises(ConfigError, match="--range hillshade=LOW:HIGH"):
        import_bundle(tmp_path / "model.ckpt")
    bundle, _ = import_bundle(tmp_path / "model.ckpt", Facts(ranges={"hillshade": (0, 1)}))
    assert bundle.layers[1].name == "hillshade"
    assert bundle.layers[1].clip


@pytest.mark.slow
def test_the_tile_is_asked_for_where_it_is_part_of_the_answer(tmp_path):
    write_run(tmp_path / "run", net=network(arch="deeplabv3"), architecture="DeepLabV3")
    with pytest.raises(ConfigError, match="--tile 256"):
        import_bundle(tmp_path / "run", PAPER_WINDOW)
    bundle, _ = import_bundle(tmp_path / "run", Facts(window_m=100, tile=512))
    assert (bundle.tile, bundle.fixed_tile) == (512, True)


# what is refused


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", [2, "torch"])
def test_code_is_never_run(tmp_path, protocol):
    sprung, file = tmp_path / "sprung", tmp_path / "model.pt"
    content = legacy(STUB) | {"more": Trap(sprung)}
    if protocol == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps({"config": {}, "statedict": {}, "more": Trap(sprung)}, protocol=protocol))
    with pytest.raises(BundleError) as caught:
        import_bundle(file, PAPER_WINDOW)
    assert "\n" not in str(caught.value)
    assert not sprung.exists()
    with file.open("rb"):
        torch.load(file, weights_only=False) if protocol == "torch" else pickle.loads(file.read_bytes())
    assert sprung.exists(), "the trap would have gone off"


def test_objects_are_named_and_refused(tmp_path):
    content = lightning(STUB, ("red",))
    content["hyper_parameters"]["rate"] = Fraction(1, 3)
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(BundleError, match=r"code or objects \(fractions\.Fraction\), which are never loaded"):
        import_bundle(tmp_path / "model.ckpt")


@pytest.mark.slow
def test_the_paths_and_numpy_numbers_of_lightning_are_plain_values(tmp_path):
    content = lightning(network(1), ("red",))
    content["hyper_parameters"] |= {"learning_rate": np.float64(1e-5), "gamma": np.float32(0.9)}
    content["datamodule_hyper_parameters"] = {"data_dir": tmp_path, "fold": np.int64(2), "augment": np.bool_(True)}
    torch.save(content, tmp_path / "model.ckpt")
    bundle, _ = import_bundle(tmp_path / "model.ckpt")
    assert [used.name for used in bundle.layers] == ["red"]
    assert np.dtype not in torch.serialization.get_safe_globals(), "they are allowed while a model is imported, only"


def test_a_yaml_that_makes_objects_is_refused(tmp_path):
    write_run(tmp_path / "run", net=STUB)
    (tmp_path / "run" / "config.yml").write_text("model: !!python/object/apply:os.getcwd []")
    with pytest.raises(BundleError, match="no YAML of plain values"):
        import_bundle(tmp_path / "run", PAPER_WINDOW)


def without_factors(content):
    del content["config"]["norm_factors"]
    return content


def with_model(content, **settings):
    content["config"]["model"] |= settings
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_factors, "no 'norm_factors'"),
        (lambda _: legacy(STUB, norm={"red": 1 / 3000}), "no norm factor for 'ndvi'"),
        (lambda content: with_model(content, activation="sigmoid"), "sets activation"),
        (lambda content: with_model(content, decoder_channels=[8, 8]), "sets decoder_channels"),
        (lambda content: with_model(content, classes=3), "3 classes"),
        (lambda content: with_model(content, in_channels=9), "9 channels for 10 bands"),
        (lambda content: with_model(content, arch="Unet3Plus"), "'unet3plus', which segmentation_models.pytorch"),
        (lambda content: with_model(content, arch=None), "does not name the network's 'arch'"),
        (lambda content: with_model(content, arch="FPN"), "do not fit fpn with resnet18"),
        (lambda _: legacy(STUB, model_framework="keras"), "made for 'keras'"),
        (lambda content: content | {"config": None}, "no 'norm_factors'"),
        (lambda content: content | {"statedict": {}}, "no weights by name"),
        (lambda content: content["statedict"], "nothing that says what they are"),
        (lambda content: [content["statedict"]], "holds a list"),
        (lambda _: {"state_dict": {}, "hyper_parameters": {}}, "does not name its network and its bands"),
    ],
)
def test_files_that_cannot_be_meant_are_refused_in_one_sentence(tmp_path, change, message):
    torch.save(change(legacy(STUB)), tmp_path / "model.pt")
    with pytest.raises(BundleError, match=message) as caught:
        import_bundle(tmp_path / "model.pt", PAPER_WINDOW)
    assert "\n" not in str(caught.value)


STRANGE = (None, True, -1, 0, float("nan"), 10**400, "a", [], [None], [[]], {}, {"a": {}}, torch.ones(2), np.float64(2))


@pytest.mark.parametrize("kind", ["legacy", "lightning", "run"])
def test_whatever_stands_in_a_strangers_file_ends_in_a_sentence(tmp_path, kind):
    """Values of every kind in every setting are read, or refused in one sentence."""
    written = {
        "legacy": legacy(STUB)["config"],
        "lightning": lightning(network(2), ("red", "nir"))["hyper_parameters"]["config"],
        "run": {
            "model": {"architecture": "unet", "encoder": "resnet18", "input_channels": 4},
            "data_sources": ["ndvi"],
        },
    }[kind]
    paths = [(key,) for key in written] + [("model", key) for key in (*written["model"], 7)]
    refused = 0
    for path in paths:
        for value in STRANGE:
            config = {**written, "model": dict(written["model"])}
            (config if len(path) == 1 else config["model"])[path[-1]] = value
            try:
                read_foreign(tmp_path / "file", config, kind)
            except (BundleError, ConfigError) as error:
                refused += "\n" not in str(error)
    assert refused > 0.6 * len(paths) * len(STRANGE)


def read_foreign(file, config, kind):
    """Read a file of a layout with these settings."""
    file.write_bytes(b"")
    if kind == "legacy":
        read = foreign._darts_legacy(file, {"config": config, "statedict": {"a": torch.ones(1)}})
    elif kind == "lightning":
        parameters = {"config": config}
        read = foreign._darts_lightning(
            file, {"hyper_parameters": parameters, "state_dict": {"model.a": torch.ones(1)}}
        )
    else:
        (file.parent / "config.yml").write_text(yaml.dump(config))
        read = foreign._run(file.parent, file, {"a": torch.ones(1)})
    return _layers(read, Facts())


@pytest.mark.parametrize(
    "text", ["[" * 20_000, "a: !!timestamp x", "a: !!bool x", "a: !!int ''", "a: [" + "[1], " * 3 + "]"]
)
def test_a_yaml_that_is_none_is_refused_in_one_sentence(tmp_path, text):
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(BundleError) as caught:
        foreign._run(tmp_path, tmp_path / "1.pt", {})
    assert "\n" not in str(caught.value)


def test_a_yaml_whose_lists_stand_in_each_other_is_refused_at_once(tmp_path):
    """Nine levels of nine aliases are 387 million texts to a reader of all."""
    lists = "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9))
    (tmp_path / "config.yml").write_text(f"a: &a [x,x,x,x,x,x,x,x,x]\n{lists}model: {{}}\ndata_sources: *j\n")
    with pytest.raises(BundleError, match="cannot have more than 50000 values"):
        foreign._run(tmp_path, tmp_path / "1.pt", {})


@pytest.mark.parametrize("content", [b"", b"no model at all", b"PK\x03\x04 cut"])
def test_files_that_are_no_models_are_refused(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(BundleError, match="torch can read"):
        import_bundle(tmp_path / "model.pt")


def test_a_cut_file_and_a_missing_one_are_refused(tmp_path):
    torch.save(legacy(STUB), tmp_path / "model.pt")
    (tmp_path / "model.pt").write_bytes((tmp_path / "model.pt").read_bytes()[:-1000])
    with pytest.raises(BundleError, match="damaged"):
        import_bundle(tmp_path / "model.pt")
    with pytest.raises(BundleError, match="cannot be read"):
        import_bundle(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("sources", [["PlanetScope", "NDVI"], None, ["planet", 3]])
def test_runs_of_versions_that_are_not_known_are_refused(tmp_path, sources):
    write_run(tmp_path / "run", net=STUB, sources=sources or ())
    if sources is None:
        (tmp_path / "run" / "config.yml").write_text("model: {architecture: Unet}")
    with pytest.raises(BundleError, match="released versions"):
        import_bundle(tmp_path / "run", PAPER_WINDOW)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(BundleError, match="no run of thaw-slump-segmentation"):
        import_bundle(tmp_path)


# through the verbs, and back


def make(names=PAPER_LAYERS, **changes):
    layers = tuple(layer(name) for name in names)
    example = build(ModelSettings(architecture="unet", encoder="resnet18"), channels=len(layers))
    needs = traits(example, channels=len(layers))
    values = {
        "layers": layers,
        "architecture": "unet",
        "encoder": "resnet18",
        "tile": 64,
        "network": network(len(names)),
    }
    return Bundle(**(values | {"stride": needs.stride, "fixed_tile": needs.fixed_tile} | changes))


@pytest.mark.slow
def test_an_import_is_a_bundle_that_loads_and_says_where_it_is_from(tmp_path):
    write_run(tmp_path / "run")
    summary = model.import_model(tmp_path / "run", tmp_path / "bundle", window_m=100)
    bundle = load(tmp_path / "bundle")
    assert any(bundle.id in line for line in summary.lines)
    assert bundle.provenance["from"] == "thaw-slump-segmentation, 10.pt"
    assert bundle.threshold == 0.5
    info = model.model_info(tmp_path / "bundle")
    text = "\n".join(info.lines)
    assert all(phrase in text for phrase in (bundle.id, "unet with resnet18", "256 px", "paper 0.5", "10.pt", "torch"))
    assert list(info.table["layer"]) == list(CHANNELS)
    row = info.table.set_index("layer").loc["relative_elevation"]
    assert (row["seen as 0"], row["seen as 1"], row["beyond"], row["made as"]) == (
        "-50",
        "50",
        "kept",
        "circle of 100 m",
    )
    with pytest.raises(ConfigError, match="holds a bundle already"):
        model.import_model(tmp_path / "run", tmp_path / "bundle", window_m=100)


def test_an_import_that_fails_leaves_nothing(tmp_path):
    write_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="--window-m"):
        model.import_model(tmp_path / "run", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
def test_an_export_to_darts_is_one_that_darts_builds_and_that_comes_back(tmp_path):
    bundle = save(make(), tmp_path / "bundle")
    model.export_model(tmp_path / "bundle", tmp_path / "out" / "model.pt", to="darts")
    content = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
    config = content["config"]
    assert (config["model_framework"], config["bands"], config["patch_size"]) == ("smp", list(PAPER_LAYERS), 64)
    darts_network = smp.create_model(**config["model"], encoder_weights=None)
    darts_network.load_state_dict(content["statedict"])
    _, physical = stored_and_physical(3)
    physical = physical[:, [1, 2, 3, 4, 0, 5, 6, 7, 8, 9]]
    low, high = (
        torch.tensor([end[at] for _, end in (DARTS[name] for name in config["bands"])]).reshape(-1, 1, 1)
        for at in (0, 1)
    )
    with torch.inference_mode():
        answer = torch.sigmoid(darts_network.eval()(((physical - low) / (high - low)).clip(0, 1))).squeeze(1)
        torch.testing.assert_close(probability(bundle.network, physical, bundle.reading), answer, rtol=0, atol=2e-6)
    again, _ = import_bundle(tmp_path / "out" / "model.pt", PAPER_WINDOW)
    assert [(used.name, used.low, used.high, used.clip) for used in again.layers] == [
        (used.name, used.low, used.high, used.clip) for used in bundle.layers
    ]
    state = again.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in bundle.network.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": (layer("red", low=0, high=0.3, clip=False),)}, "whatever the file says"),
        ({"layers": (layer("red", clip=False),)}, "not clipped, and DARTS"),
        ({"layers": (layer("ndwi"),)}, "sees 'ndwi', which DARTS does not have"),
        ({"layers": (layer("hillshade"),)}, "sees 'hillshade'"),
        ({"layers": (layer("curvature"),)}, "whatever the file says"),
        ({"architecture": "pixel"}, "'pixel' network, which DARTS does not build"),
    ],
)
def test_what_darts_would_scale_otherwise_is_not_exported(tmp_path, changes, message):
    with pytest.raises(BundleError, match=message):
        darts_checkpoint(make(("red",), **changes), tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.slow
def test_exports_are_never_replaced_and_settings_have_meaning(tmp_path):
    save(make(("red",)), tmp_path / "bundle")
    (tmp_path / "model.pt").write_text("kept")
    with pytest.raises(ConfigError, match="exists"):
        model.export_model(tmp_path / "bundle", tmp_path / "model.pt", to="darts")
    assert (tmp_path / "model.pt").read_text() == "kept"
    with pytest.raises(ConfigError, match="--pixel-m"):
        model.export_model(tmp_path / "bundle", tmp_path / "new.pt", to="darts", pixel_m=3)
    with pytest.raises(ConfigError, match="above 0"):
        model.export_model(tmp_path / "bundle", tmp_path / "new.onnx", pixel_m=0)
    with pytest.raises(BundleError, match="holds no bundle"):
        model.export_model(tmp_path / "nothing", tmp_path / "new.pt", to="darts")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "model.pt"]


def test_ranges_of_the_command_line():
    assert model.read_ranges(("ndvi=-1:1", "relative_elevation=-30:70")) == {
        "ndvi": (-1, 1), "relative_elevation": (-30, 70),
    }  # fmt: skip
    for wrong in ("ndvi", "ndvi=1", "ndvi=a:b", "ndvi=0:1:2"):
        with pytest.raises(ConfigError, match="NAME=LOW:HIGH"):
            model.read_ranges((wrong,))


@pytest.mark.slow
def test_without_the_packages_onnx_is_refused_with_the_remedy(tmp_path, monkeypatch):
    save(make(("red",)), tmp_path / "bundle")
    monkeypatch.setattr("thawmap.model.interop.onnx.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'thawmap\[onnx\]'"):
        model.export_model(tmp_path / "bundle", tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
def test_an_onnx_file_maps_physical_units_to_probabilities(tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    layers = (layer("red", low=-0.05, high=0.3, clip=False), layer("ndvi"))
    saved = save(make(("red", "ndvi"), layers=layers, thresholds={"validation": 0.3}), tmp_path / "bundle")
    handlers, level = list(logging.getLogger().handlers), logging.getLogger("torch.onnx").level
    model.export_model(tmp_path / "bundle", tmp_path / "model.onnx", pixel_m=3)
    assert (logging.getLogger().handlers, logging.getLogger("torch.onnx").level) == (handlers, level)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "model.onnx"], "one file and no other"
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    images = physical_images(saved, batch=3)
    for batch in (images, images[:1]):
        (answer,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
        assert answer.shape == (len(batch), 1, 64, 64)
        with torch.inference_mode():
            expected = probability(saved.network, batch, saved.reading).numpy()
        np.testing.assert_allclose(answer[:, 0], expected, rtol=0, atol=2e-5)
    check_deepness(session, saved, images)


def physical_images(bundle, batch):
    """Values across and beyond the ranges, some missing."""
    rng = np.random.default_rng(4)
    low, high = (np.array([getattr(used, end) for used in bundle.layers]).reshape(-1, 1, 1) for end in ("low", "high"))
    values = low + (high - low) * rng.uniform(-0.3, 1.3, (batch, len(bundle.layers), 64, 64))
    values[rng.random(values.shape) < 0.1] = np.nan
    return torch.from_numpy(values.astype(np.float32))


def check_deepness(session, bundle, images):
    """Read the metadata as the plugin does.

    JSON by key; pixels / 255, less the mean, by the standard deviation.
    """
    meta = SimpleNamespace(
        **{key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    )
    assert (meta.model_type, meta.tile_size, meta.resolution, meta.seg_thresh) == (
        "Segmentor",
        64,
        300,
        bundle.threshold,
    )
    assert list(meta.class_names.items()) == [("0", "slump")]
    assert 0 <= meta.tiles_overlap < 100
    assert [described["name"] for described in meta.thawmap["layers"]] == [used.name for used in bundle.layers]
    assert session.get_outputs()[0].shape[1:] == [1, 64, 64]
    pixels = images.numpy().transpose(0, 2, 3, 1)
    prepared = (np.float32(pixels * 1.0 / 255.0) - meta.standardization_mean) / meta.standardization_std
    np.testing.assert_allclose(prepared, pixels, rtol=1e-6)
