"""The YAML: what is accepted is obeyed, what is not is refused with its place and a remedy."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from thawmap.config import AugmentSettings, Config, ModelSettings, TrainingSettings, json_schema, load, parse
from thawmap.config.recipes import RECIPES, Name
from thawmap.errors import ConfigError
from thawmap.layers import LAYERS, PAPER_LAYERS

MINIMAL = """\
project: test
scenes:
  kind: rasters
  path: scenes/*
  files:
    optical.tif:
      red: {band: 1, scale: 0.0001}
"""
LINES = MINIMAL.count("\n")


def read(*more: str, overrides: tuple[str, ...] = ()) -> Config:
    """The minimal configuration with lines added."""
    return parse(MINIMAL + "\n".join(more), name="thawmap.yaml", folder=Path("/project"), overrides=overrides)


def refusal(*more: str, overrides: tuple[str, ...] = ()) -> str:
    """Why the minimal configuration with these lines is refused."""
    with pytest.raises(ConfigError) as caught:
        read(*more, overrides=overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_papers_recipe_has_the_papers_values():
    config = read("recipe: nitze2021")
    assert [layer.name for layer in config.input_layers] == list(PAPER_LAYERS)
    assert (config.model.architecture, config.model.encoder) == ("unetplusplus", "resnet34")
    assert ([(loss.name, loss.weight) for loss in config.training.loss], config.training.batch_size) == (
        [("focal", 1.0)],
        6,
    )
    assert [(phase.name, phase.epochs, phase.tiles) for phase in config.training.phases] == [
        ("sparse", 100, "positive"),
        ("full", 20, "all"),
    ]
    assert (config.tiles.size, config.tiles.overlap, config.inference.overlap) == (256, 25, 128)
    assert config.training.optimiser.betas == (0.9, 0.999)
    assert config.training.schedule.name == "constant"
    assert config.training == TrainingSettings()
    assert config.augment == AugmentSettings()


def test_a_recipe_lies_under_what_the_yaml_says_and_is_resolved_key_by_key():
    config = read()
    assert config.recipe == "thawmap2026"
    assert config.training.loss != TrainingSettings().loss
    assert parse(config.as_yaml(), name="resolved.yaml", folder=Path()) == config
    for recipe in ("thawmap2026", "nitze2021"):
        explicit = read(f"recipe: {recipe}", "training: {loss: focal, schedule: constant}", "augment: {}")
        assert explicit.training == TrainingSettings()
    own = read("training: {batch_size: 3}", overrides=["training.loss=lovasz"])
    assert (own.training.batch_size, own.training.schedule) == (3, config.training.schedule)
    assert [loss.name for loss in own.training.loss] == ["lovasz"]


def test_a_configuration_from_python_has_the_recipe_that_it_says():
    scenes = read().as_json()["scenes"]
    assert Config.model_validate({"scenes": scenes}).training == read().training
    assert Config.model_validate({"scenes": scenes, "recipe": "nitze2021"}).training == TrainingSettings()


def test_every_recipe_is_a_configuration():
    assert set(RECIPES) == set(Name.__args__)
    for recipe, sections in RECIPES.items():
        resolved = read(f"recipe: {recipe}").as_json()
        defaults = {"training": TrainingSettings(), "augment": AugmentSettings(), "model": ModelSettings()}
        plain = {section: settings.model_dump(mode="json") for section, settings in defaults.items()}
        differs = {
            (section, key)
            for section in ("training", "augment", "model")
            for key in plain[section]
            if resolved[section][key] != plain[section][key]
        }
        assert differs == {(section, key) for section, keys in sections.items() for key in keys}


@pytest.mark.parametrize(
    ("line", "terms"),
    [
        ("loss: dice", [{"name": "dice", "weight": 1}]),
        ("loss: {name: tversky, beta: 0.6}", [{"name": "tversky", "alpha": 0.3, "beta": 0.6, "weight": 1}]),
        (
            "loss: [{name: bce, positive_weight: 5, weight: 0.5}, lovasz]",
            [{"name": "bce", "positive_weight": 5, "weight": 0.5}, {"name": "lovasz", "weight": 1}],
        ),
    ],
)
def test_a_loss_is_a_name_its_settings_or_a_sum_and_is_resolved_to_a_list(line, terms):
    config = read(f"training: {{{line}}}")
    assert config.as_json()["training"]["loss"] == terms
    assert parse(config.as_yaml(), name="resolved.yaml", folder=Path()).training == config.training


@pytest.mark.parametrize(
    ("lines", "line", "expected"),
    [
        (["recipe: paper"], LINES + 1, "'recipe' is 'paper'"),
        (["recipe: [nitze2021]"], LINES + 1, "recipe"),
        (["training: 5"], LINES + 1, "training"),
        (["tile: {size: 64}"], LINES + 1, "unknown key 'tile'; did you mean 'tiles'?"),
        (
            ["", "training:", "  batchsize: 8"],
            LINES + 3,
            "unknown key 'training.batchsize'; did you mean 'batch_size'?",
        ),
        (
            ["training:", "  optimiser:", "    learning: 1"],
            LINES + 3,
            "unknown key 'training.optimiser.learning'; known",
        ),
        (["training: {phases: [{name: a, epochs: 1}, {name: b, epoch: 2}]}"], LINES + 1, "did you mean 'epochs'?"),
        (
            ["layers: [red, {nme: swir9, low: 0, high: 1}]"],
            LINES + 1,
            "unknown key 'layers.1.nme'; did you mean 'name'?",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_file_line_and_the_nearest(lines, line, expected):
    message = refusal(*lines)
    assert message.startswith(f"thawmap.yaml:{line}: ")
    assert expected in message


def test_an_unknown_key_of_a_band_is_found_in_the_depth():
    text = MINIMAL.replace("{band: 1,", "{bnd: 1,")
    with pytest.raises(ConfigError, match=r"x.yaml:7: unknown key 'scenes.files.optical.tif.red.bnd'; .*'band'"):
        parse(text, name="x.yaml", folder=Path())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tiles: {size: 250}", "'tiles.size' is 250: must be a multiple of 32"),
        ("tiles: {overlap: 256}", "overlap is 256 px; it must be smaller than the tile's 256 px"),
        ("tiles: 3", "'tiles' must have keys of its own: size, overlap, min_valid"),
        ("training:", "'training' must have keys of its own: loss, optimiser"),
        ("training: {loss: focl}", "'training.loss' is 'focl': must be 'bce' or 'focal' or 'dice' or 'jaccard' or"),
        ("training: {loss: {name: focl}}", "'training.loss.name' is 'focl': must be 'bce' or 'focal' or 'dice'"),
        ("training: {loss: [dice, focl]}", "'training.loss.1' is 'focl': must be 'bce' or 'focal' or 'dice'"),
        ("training: {loss: {gamma: 2}}", "key 'training.loss.name' is missing; add it"),
        ("training: {loss: {name: tversky, alhpa: 1}}", "unknown key 'training.loss.alhpa'; did you mean 'alpha'?"),
        ("training: {loss: [bce, {name: dice, gamma: 1}]}", "unknown key 'training.loss.1.gamma'; known here: name"),
        ("training: {loss: {name: bce, weight: 0}}", "'training.loss.weight' is 0: must be greater than 0"),
        ("training: {loss: []}", "'training.loss': must name at least one loss"),
        ("training: {loss: 3}", "'training.loss' is 3: must be a section of keys"),
        ("training: {optimiser: {lr: .nan}}", "'training.optimiser.lr' is nan"),
        ("training: {optimiser: {betas: [0.9, 1.0]}}", "'training.optimiser.betas.1' is 1.0: must be less than 1"),
        ("training: {optimiser: {betas: [0.9]}}", "key 'training.optimiser.betas.1' is missing"),
        ("training: {phases: []}", "'training.phases'"),
        ("training: {phases: [{name: a, epochs: 0}]}", "'training.phases.0.epochs' is 0"),
        ("training: {phases: [{epochs: 1}]}", "key 'training.phases.0.name' is missing; add it"),
        ("inference: {tile: 17}", "'inference.tile' is 17: must be 'auto' or greater than or equal to 32"),
        ("inference: {tile: 96, overlap: 96}", "overlap is 96 px; it must be smaller"),
        ("polygons: {threshold: 1.5}", "'polygons.threshold' is 1.5: must be 'bundle' or"),
        ("outputs: {vectors: gpkg}", "'outputs.vectors' is 'gpkg': must be a list"),
        ("outputs: {vectors: [kml]}", "'outputs.vectors.0' is 'kml': must be 'gpkg', 'shp' or 'parquet'"),
        ("labels: {}", "give exactly one of them"),
        ("labels: {path: a.gpkg, raster: m.tif}", "give exactly one of them"),
        ("labels: {raster: m.tif, ignore: 0}", "value 0 is in two of"),
        ("split: {validation: [a, b], test: [b]}", "'b' is both validation and test"),
        ("layers: [red, red]", "layer 'red' is listed twice"),
        ("layers: [red, bleu]", "layer 'bleu' is not known"),
        ("layers: [red, {of: [ndvi]}]", "a group of context layers has two lists"),
        ("layers: [red, {of: [ndvi], context: [mean_4km]}]", "layer 'ndvi_mean_4km' is not known"),
        ("layers: [red, {of: [fog], context: [mean_40m]}]", "context layers of these such as ndvi_mean_40m"),
        ("layers: [red, 5]", "'layers.1' is 5: must be a valid string or a section of keys"),
        ("layers: []", "'layers'"),
    ],
)
def test_a_wrong_value_is_refused_with_line_key_and_what_is_allowed(line, expected):
    message = refusal(line)
    assert message.startswith(f"thawmap.yaml:{LINES + 1}: ")
    assert expected in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  path: scenes/*\n", "", "either 'path' or 'table'"),
        ("  path: scenes/*\n", "  path: a/*\n  table: a.csv\n", "either 'path' or 'table'"),
        ("  kind: rasters\n", "  kind: rasters\n  grid: dem.tif\n", "grid is 'dem.tif', which is not one of the files"),
        (
            "      red:",
            "      green: {band: 2}\n    b.tif:\n      green: {band: 1}\n      red:",
            "'green' is mapped twice",
        ),
        ("{band: 1,", "{band: 0,", "'scenes.files.optical.tif.red.band' is 0: must be greater"),
        ("  kind: rasters\n", "", "key 'scenes.kind' is missing"),
        ("kind: rasters", "kind: raster", "must be 'planetscope' or 'sentinel2' or 'rasters'"),
    ],
)
def test_scenes_that_contradict_themselves_are_refused(old, new, expected):
    assert old in MINIMAL
    with pytest.raises(ConfigError, match=r"^x\.yaml:\d+: ") as caught:
        parse(MINIMAL.replace(old, new), name="x.yaml", folder=Path())
    assert expected in str(caught.value)


def test_several_faults_are_counted():
    assert refusal("tile: 1", "modell: 2", "labels: {}").endswith("(and 2 more)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a configuration has keys"),
        ("- a\n- b\n", "a configuration has keys"),
        ("a: b: c\n", "x.yaml:1: not valid YAML"),
        ("scenes: [1, 2\nproject: x\n", "x.yaml:2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("project: !python/object 1\n", "x.yaml:1: not valid YAML ('!python/object' has no meaning"),
        ("project: 2021-02-30\n", "not valid YAML (day is out of range for month)"),
        ("project: \x00\n", "not valid YAML"),
        ("? [a, b]\n: 1\n", "x.yaml:1: a key is a list or a section"),
        ("project: &a [*a]\n", "x.yaml:1: the alias *a contains itself"),
        ("1: 2\n", "x.yaml:1: key 1 is no text in YAML; put it in quotes: '1'"),
        ("project: a\non: 2\n", "x.yaml:2: key on is no text in YAML; put it in quotes: 'on'"),
        ("~: 2\n", "x.yaml:1: key ~ is no text in YAML; put it in quotes: '~'"),
        ("project: !!binary aGk=\n", "x.yaml:1: not valid YAML ('tag:yaml.org,2002:binary' has no meaning"),
        ("project: " + "9" * 5000 + "\n", "not valid YAML"),
        ("[" * 30, "x.yaml:1: a configuration cannot have more than 20 levels"),
        ("{a: " * 100_000, "x.yaml:1: a configuration cannot have more than 20 levels"),
        (
            f"a: &a [{'x, ' * 99}]\nb: &b [{'*a, ' * 99}]\nc: [{'*b, ' * 99}]",
            "x.yaml:3: a configuration cannot have more",
        ),
        ("project: a\nscenes: {}\nproject: b\n", "x.yaml:3: key 'project' stands twice"),
        ("tiles:\n  size: 64\n  size: 96\n", "x.yaml:3: key 'tiles.size' stands twice"),
        ("project: a\n", "key 'scenes' is missing; add it"),
    ],
)
def test_what_is_no_configuration_is_refused_in_one_sentence(text, expected):
    with pytest.raises(ConfigError) as caught:
        parse(text, name="x.yaml", folder=Path())
    assert str(caught.value).startswith("x.yaml")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@given(st.text(max_size=60) | st.text("abc:-[]{}&*!?|>'\"% \n01#", max_size=60))
def test_no_text_ends_in_anything_but_a_configuration_error(text):
    with pytest.raises(ConfigError):
        parse(text, name="x.yaml", folder=Path())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "split: {test: [20190621]}",
            "'split.test.0' is 20190621, which is a number in YAML; put it in quotes: '20190621'",
        ),
        ("split: {test: [20190621_203514]}", "is 20190621_203514, which is a number"),
        ("split: {validation: [a, 007]}", "'split.validation.1' is 007, which is a number"),
        ("split: {test: [2019-06-21]}", "is 2019-06-21, which is a date"),
        ("split: {test: [no]}", "is no, which is true or false"),
        ("labels: {path: 5}", "'labels.path' is 5, which is a number"),
        ("model: {encoder: 1.50}", "'model.encoder' is 1.50, which is a number"),
    ],
)
def test_what_yaml_takes_for_no_text_is_to_be_put_in_quotes(text, expected):
    assert expected in refusal(text)
    key, _, value = text.partition(": ")
    assert expected in refusal(overrides=(f"{key}={value}",))


def test_aliases_and_merges_that_stay_small_are_obeyed_each_on_its_own():
    text = f"{MINIMAL}tiles: &tiles {{size: 64}}\nlayers: &names [red, nir]\nsplit: {{test: *names}}\n"
    config = parse(text, name="x.yaml", folder=Path(), overrides=("layers.0=green",))
    assert (config.tiles.size, config.layers, config.split.test) == (64, ("green", "nir"), ("red", "nir"))


def test_a_file_larger_than_any_configuration_is_refused(tmp_path):
    (tmp_path / "t.yaml").write_text("# " + "x" * 2**20, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"t\.yaml is larger than a configuration may be \(1 MiB\); name scenes in a"):
        load(tmp_path / "t.yaml")


@pytest.mark.parametrize(
    "override",
    [
        "tiles.size=100000000",
        "inference.tile=1000000000",
        "inference.overlap=99999999999999999999",
        "inference.batch_size=1000000000000",
        "training.batch_size=1000000000000",
        "training.seed=99999999999999999999",
        "tune.seed=99999999999",
        "crossval.seeds=[99999999999999999999]",
        "training.phases=[{name: a, epochs: 1000000000000}]",
        "training.schedule={name: plateau, patience: 1000000000000}",
        "engine.workers=1000000000",
        "tune.trials=1000000000",
        "polygons.opening_m=1e9",
        "polygons.simplify_m=1e300",
        "crossval.folds.buffer_m=1e300",
        "sources.elevation={path: dem, window_m: 1e9}",
    ],
)
def test_numbers_that_no_machine_holds_are_refused(override):
    message = refusal(overrides=(override,))
    assert message.startswith(f"--set {override}: ")
    assert "less than" in message


ODD = [
    "~", "no", "on", "-0", "0x1F", "1_0", "1e400", ".nan", "-.inf", "9" * 400, "\u00b2", "\uff11\uff12", "2019-06-21",
    "2019-13-45", "12:30:45", "''", '"\\u0000"', "\u202e", "!!set {a}", "!!binary aGk=", "&a b", "*a", "<<", "=", "[]",
    "{}", "[[]]", "{1: 2}", "{<<: {size: 64}}", "{<<: 3}", "|\n  a", "%", "@", "`", "- a", "? a", "a: b", "!!bool x",
]  # fmt: skip
SECTIONS = list(Config.model_fields)
odd = st.sampled_from(ODD) | st.text(max_size=8) | st.integers().map(str) | st.floats().map(str)
values = st.recursive(
    odd,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(odd, inner, max_size=3).map(lambda pairs: f"{{{', '.join(map(': '.join, pairs.items()))}}}")
    ),
    max_leaves=6,
)
keys = st.sampled_from(SECTIONS) | st.sampled_from(
    [f"{name}.{key}" for name in SECTIONS for key in ("0", "size", "kind", "\u00b2", "1_0", "")]
)


@given(
    lines=st.lists(st.tuples(st.sampled_from(SECTIONS) | odd, values), max_size=3),
    overrides=st.lists(st.tuples(keys | odd, values), max_size=2),
)
def test_whatever_stands_in_a_yaml_or_in_set_is_obeyed_or_refused(lines, overrides):
    text = MINIMAL + "".join(f"{key}: {value}\n" for key, value in lines)
    with suppress(ConfigError):
        config = parse(text, name="x.yaml", folder=Path(), overrides=[f"{key}={value}" for key, value in overrides])
        assert config.as_yaml() == parse(config.as_yaml(), name="y.yaml", folder=Path()).as_yaml()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml cannot be read \(No such file.*thawmap init"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ConfigError, match=r"picture\.yaml is not text"):
        load(tmp_path / "picture.yaml")


def test_relative_paths_count_from_the_yamls_folder(tmp_path, monkeypatch):
    file = tmp_path / "thawmap.yaml"
    file.write_text(MINIMAL + "labels: {path: ../labels.gpkg, extent: /data/extent.gpkg}\n", encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in (file, Path("../thawmap.yaml")):
        config = load(name)
        assert config.scenes.path.parent.resolve() == tmp_path / "scenes"
        assert config.labels.path.resolve() == tmp_path.parent / "labels.gpkg"
        assert config.labels.extent == Path("/data/extent.gpkg")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("training.batch_size=8", lambda config: config.training.batch_size == 8),
        ("training.optimiser.eps=1e-6", lambda config: config.training.optimiser.eps == 1e-6),
        ("project=a=b", lambda config: config.project == "a=b"),
        ("layers=[red, nir]", lambda config: config.layers == ("red", "nir")),
        ("split.validation=[Horton]", lambda config: config.split.validation == ("Horton",)),
        ("inference.tile=512", lambda config: config.inference.tile == 512),
        ("polygons.threshold=bundle", lambda config: config.polygons.threshold == "bundle"),
        ("tiles.min_valid=0", lambda config: config.tiles.min_valid == 0),
        ("scenes.region=Lena", lambda config: config.scenes.region == "Lena"),
    ],
)
def test_an_override_is_obeyed(override, value):
    assert not value(read()) or override == "polygons.threshold=bundle"
    assert value(read(overrides=(override,)))


def test_an_override_reaches_into_lists_and_the_last_one_counts():
    config = read(
        "training: {phases: [{name: a, epochs: 1}, {name: b, epochs: 2}]}",
        overrides=("training.phases.1.epochs=7", "training.phases.1.epochs=9"),
    )
    assert [phase.epochs for phase in config.training.phases] == [1, 9]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.batchsize=8", "unknown key 'training.batchsize'; did you mean 'batch_size'?"),
        ("trainin.batch_size=8", "unknown key 'trainin'; did you mean 'training'?"),
        ("tiles.size=250", "'tiles.size' is 250: must be a multiple of 32"),
        ("training=", "'training' must have keys of its own"),
        ("layers=[bleu]", "layer 'bleu' is not known"),
        ("training.batch_size", "not of the form KEY=VALUE"),
        ("=8", "not of the form KEY=VALUE"),
        ("project.name=x", "has no place 'project.name'"),
        ("project=a: b: c", "not valid YAML"),
        ("layers.0=red", "'layers': must be a list"),
    ],
)
def test_a_wrong_override_is_named_as_it_was_given(override, expected):
    message = refusal(overrides=(override,))
    assert message.startswith(f"--set {override}: ")
    assert expected in message


def test_a_fault_of_the_file_is_not_blamed_on_an_override():
    message = refusal("tiles: {size: 250}", overrides=("tiles.overlap=10",))
    assert message.startswith(f"thawmap.yaml:{LINES + 1}: 'tiles.size'")


def test_a_configuration_is_frozen():
    config = read()
    for section, key in ((config, "project"), (config.training.optimiser, "lr"), (config.scenes, "region")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, "x")


def test_layers_may_have_ranges_of_their_own():
    config = read("layers: [red, {name: slope, high: 45}, {name: coherence, low: 0, high: 1, clip: false}]")
    red, slope, coherence = config.input_layers
    assert red == LAYERS["red"]
    assert (slope.low, slope.high, slope.units) == (0, 45, "degrees")
    assert (coherence.low, coherence.high, coherence.clip) == (0, 1, False)


def sections(**fields: st.SearchStrategy) -> st.SearchStrategy[dict[str, Any]]:
    """Sections of a YAML, each of which may be absent."""
    return st.fixed_dictionaries({}, optional=fields)


@pytest.mark.slow
@given(
    chosen=sections(
        project=st.text("abcäøЯ '\":#-{}[]*&01"),
        layers=st.lists(st.sampled_from([*LAYERS]), min_size=1, unique=True),
        tiles=sections(size=st.integers(2, 32).map(lambda size: 32 * size), overlap=st.integers(0, 31)),
        training=sections(seed=st.integers(-(2**63), 2**64 - 1), optimiser=sections(lr=st.floats(1e-9, 10))),
        polygons=sections(threshold=st.just("bundle") | st.floats(0, 1)),
        labels=st.sampled_from([{"path": "a/b.gpkg", "scene": "id"}, {"raster": "m.tif", "ignore": 9}, None]),
    )
)
@settings(max_examples=30)
def test_the_resolved_configuration_read_again_is_the_same(chosen):
    raw = yaml.safe_load(MINIMAL) | chosen
    config = parse(yaml.safe_dump(raw), name="a", folder=Path("/project"))
    again = parse(yaml.safe_dump(config.as_json()), name="b", folder=Path("/elsewhere"))
    assert again == config
    assert parse(json.dumps(config.as_json(), ensure_ascii=False), name="c", folder=Path("/elsewhere")) == config


def described(section: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    """Fields of a section of the schema that have no description."""
    missing = []
    for name, field in section["properties"].items():
        output = field.get("description") or definitions.get(field.get("$ref", "").rsplit("/", 1)[-1], {}).get(
            "description"
        )
        optional = any("$ref" in option for option in field.get("anyOf", ()))
        if not output and not optional:
            missing.append(name)
    return missing


@pytest.mark.slow
def test_the_schema_describes_every_field():
    schema = json.loads(json_schema())
    definitions = schema["$defs"]
    for title, section in {"Config": schema, **definitions}.items():
        assert section["description"], title
        assert described(section, definitions) == [], title


@pytest.mark.slow
def test_the_schema_allows_no_other_key_anywhere():
    schema = json.loads(json_schema())
    assert all(section["additionalProperties"] is False for section in (schema, *schema["$defs"].values()))


def test_every_default_of_the_schema_is_what_an_empty_section_gives():
    schema = json.loads(json_schema())
    resolved = read("recipe: nitze2021").as_json()
    for name in ("tiles", "training", "inference", "split"):
        section = schema["$defs"][schema["properties"][name]["$ref"].rsplit("/", 1)[-1]]
        for key, field in section["properties"].items():
            if "default" in field:
                assert resolved[name][key] == field["default"], f"{name}.{key}"


def test_a_group_of_context_layers_is_every_layer_with_every_statistic():
    text = f"{MINIMAL}layers: [red, {{of: [ndvi, nir], context: [mean_15m, deviation_30m]}}, slope]\n"
    config = parse(text, name="x.yaml", folder=Path())
    expected = ["red", "ndvi_mean_15m", "ndvi_deviation_30m", "nir_mean_15m", "nir_deviation_30m", "slope"]
    assert [layer.name for layer in config.input_layers] == expected
    assert config.as_json()["layers"] == expected
