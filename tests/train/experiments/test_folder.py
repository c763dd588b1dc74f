"""The plan that an experiment was begun with: what may have changed since, and what may not."""

import json

import pytest

from thawmap.config import parse
from thawmap.errors import ConfigError
from thawmap.train.experiments import crossval, tune
from thawmap.train.experiments.folder import write_plan

YAML = """
scenes: {kind: rasters, path: "*.tif", files: {"{name}.tif": {red: {band: 1}, nir: {band: 2}}}}
layers: [red, nir]
labels: {raster: mask.tif}
tune: {keys: {training.optimiser.lr: {low: 0.001, high: 0.1}}}
"""


@pytest.fixture(params=[crossval, tune], ids=["crossval", "tune"])
def experiment(request):
    return request.param


def begun(experiment, folder, yaml=YAML):
    config = parse(yaml, name="t.yaml", folder=folder)
    write_plan(folder / experiment.PLAN, config, "store")
    return config


def test_a_plan_of_before_a_key_was_there_goes_on_with_its_default(experiment, tmp_path):
    config = begun(experiment, tmp_path)
    path = tmp_path / experiment.PLAN
    plan = json.loads(path.read_text())
    assert plan["config"]["augment"].pop("gaps", "absent") != "absent"
    path.write_text(json.dumps(plan))
    experiment.check_begun(tmp_path, config, store="store", resume=True)


def test_another_value_is_another_experiment(experiment, tmp_path):
    begun(experiment, tmp_path)
    other = parse(YAML + "augment: {flip: 0.25}\n", name="t.yaml", folder=tmp_path)
    with pytest.raises(ConfigError, match="with other augment"):
        experiment.check_begun(tmp_path, other, store="store", resume=True)


def test_what_was_begun_goes_on_only_when_it_is_asked_to(experiment, tmp_path):
    config = begun(experiment, tmp_path)
    with pytest.raises(ConfigError, match="add --resume"):
        experiment.check_begun(tmp_path, config, store="store", resume=False)
