"""Models of other programs in exactly the files that those programs write, with small networks."""

from functools import cache
from types import SimpleNamespace

import segmentation_models_pytorch as smp
import torch
import yaml

CHANNELS = (
    "ndvi", "blue", "green", "red", "nir", "relative_elevation", "slope", "tc_brightness", "tc_greenness", "tc_wetness",
)  # fmt: skip
DIVIDED_BY = (20000, 3000, 3000, 3000, 3000, 30000, 90, 255, 255, 255)
NORM = dict(zip(CHANNELS, (1 / by for by in DIVIDED_BY), strict=True))


@cache
def network(channels=10, arch="unet"):
    torch.manual_seed(len(arch))
    made = smp.create_model(arch, "resnet18", encoder_weights=None, in_channels=channels, classes=1)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return made.eval()


def write_run(folder, *, net=None, prefix="module.", sources=("slope", "planet", "ndvi", "tcvis", "relative_elevation"),
              epochs=(10,), **model):  # fmt: skip
    net = net or network()
    settings = {"architecture": "Unet", "encoder": "resnet18", "encoder_weights": "random", "input_channels": 10}
    config = {"model": settings | model, "data_sources": list(sources), "loss_function": "FocalLoss", "batch_size": 4}
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yml").write_text(yaml.dump(config))
    for epoch in epochs:
        state = {f"{prefix}{name}": value for name, value in net.state_dict().items()}
        if epoch != epochs[-1]:
            state = {name: torch.zeros_like(value) for name, value in state.items()}
        torch.save(state, folder / "checkpoints" / f"{epoch:02d}.pt")
    return net


def legacy(net, bands=CHANNELS, norm=NORM, **config):
    model = {"arch": "Unet", "encoder_name": "resnet18", "in_channels": len(bands), "classes": 1}
    known = {"model": model, "input_combination": list(bands), "norm_factors": dict(norm), "patch_size": 1024}
    return {"config": known | {"model_framework": "smp"} | config, "statedict": net.state_dict()}


STUB = SimpleNamespace(state_dict=lambda: {"encoder.conv1.weight": torch.zeros(1)})


def lightning(net, bands):
    model = {
        "arch": "Unet",
        "encoder_name": "resnet18",
        "encoder_weights": None,
        "in_channels": len(bands),
        "classes": 1,
    }
    state = {f"model.{name}": value for name, value in net.state_dict().items()}
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state | {"val_cmx.confmat": torch.zeros(2, 2)},
        "hyper_parameters": {"config": {"model": model, "bands": list(bands)}, "learning_rate": 1e-5},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "dirpath": "somewhere"}},
    }
