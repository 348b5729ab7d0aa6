"""Anomaly detectors that learn from good pictures alone, as a command for ``--detector``.

    python -m benchmarks.arena.anomaly NAME {data} {out} {seed} [SETTING=VALUE …]

NAME is PatchCore (Roth et al. 2022), RD4AD (Deng and Li 2022) or SuperSimpleNet (Rolih et al.
2024), the models of anomalib with its losses and optimisers. What they see through is
EfficientNet-Lite0 with ImageNet weights, since those come from a package index: `Lite0`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defectrt.errors import DefectRTError, UsageError
from defectrt.images.reading import read_image
from defectrt.training.evaluation.networks.opening import DEFAULT, open_network

from .makers import ANOMALY
from .outside import reached
from .process import took

__all__ = ["COST", "Lite0", "main"]

#: Environment variable: a file that gets a line of JSON with what a training took.
COST = "DEFECTRT_ARENA_COST"
#: Side of the square that is seen, px, as anomalib resizes.
_SIDE = 256
_MODELS = "anomalib.models.image"
#: What the models call the maps at strides 4, 8 and 16, and their channels in a ResNet-18.
_LAYERS = {"layer1": (0, 64), "layer2": (1, 128), "layer3": (2, 256)}
#: Settings: the share of patches PatchCore keeps; steps and batch of those that are trained.
SETTINGS: dict[str, dict[str, float]] = {
    "PatchCore": {"coreset": 0.01},
    "RD4AD": {"steps": 200, "batch": 4},
    "SuperSimpleNet": {"steps": 300, "batch": 4},
}


class Lite0(nn.Module):
    """Takes the place of anomalib's TimmFeatureExtractor: [B,3,H,W] in [0,1] -> maps by layer.

    EfficientNet-Lite0's maps at strides 4, 8 and 16 have 24, 40 and 112 channels. ``as_resnet``
    embeds them into the 64, 128 and 256 of a ResNet-18 by a fixed matrix with orthonormal columns:
    lengths and angles, of which losses and scores are made, stay as they are.
    """

    as_resnet = False

    def __init__(self, backbone: str, layers: Sequence[str], pre_trained: bool = True) -> None:
        """``layers`` are named as a ResNet's; the name of the backbone is not looked at."""
        super().__init__()
        self._see, self._layers = open_network(DEFAULT).see, list(layers)
        self.out_dims = [f.shape[1] for f in self(torch.zeros(1, 3, 64, 64)).values()]

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """The maps asked for."""
        maps = self._see(pictures)[1]
        return {name: self._embedded(maps[_LAYERS[name][0]], name) for name in self._layers}

    def _embedded(self, seen: Tensor, name: str) -> Tensor:
        if not self.as_resnet:
            return seen
        generator = torch.Generator().manual_seed(seen.shape[1])
        drawn = torch.randn(_LAYERS[name][1], seen.shape[1], generator=generator)
        return torch.einsum("oc,bchw->bohw", torch.linalg.qr(drawn)[0], seen).contiguous()


def _model(package: str, *, as_resnet: bool = False) -> Any:
    """A model's module, which sees through `Lite0`."""
    reached("anomalib", "timm")
    _without_compiled()
    module = import_module(f"{_MODELS}.{package}.torch_model")
    module.TimmFeatureExtractor = type("Lite0", (Lite0,), {"as_resnet": as_resnet})  # type: ignore[attr-defined]
    return module


def _without_compiled() -> None:
    """torchvision beside a torch from elsewhere: its compiled operators are declared, not used."""
    try:
        import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
        import_module("torchvision")


_kept: list[torch.library.Library] = []  # a library's operators end with it


def _patchcore(good: Tensor, settings: Mapping[str, float]) -> Callable[[Tensor], Tensor]:
    model = _model("patchcore").PatchcoreModel(layers=["layer2", "layer3"], backbone="resnet18")
    model.train()
    for few in good.split(8):
        model(few)
    model.subsample_embedding(settings["coreset"])
    model.eval()
    return lambda pictures: model(pictures).anomaly_map


def _rd4ad(good: Tensor, settings: Mapping[str, float]) -> Callable[[Tensor], Tensor]:
    module = _model("reverse_distillation", as_resnet=True)
    mode = import_module(f"{_MODELS}.reverse_distillation.anomaly_map").AnomalyMapGenerationMode
    model = module.ReverseDistillationModel(
        "resnet18", (_SIDE, _SIDE), [*_LAYERS], mode.ADD, pre_trained=False
    )
    loss = import_module(f"{_MODELS}.reverse_distillation.loss").ReverseDistillationLoss()
    learned = [*model.decoder.parameters(), *model.bottleneck.parameters()]
    optimizer = torch.optim.Adam(learned, 0.005, betas=(0.5, 0.99))
    model.train()
    for few in _batches(good, settings):
        _step(optimizer, loss(*model(few)))
    model.eval()
    return lambda pictures: model(pictures).anomaly_map


def _supersimplenet(good: Tensor, settings: Mapping[str, float]) -> Callable[[Tensor], Tensor]:
    model = _model("supersimplenet").SupersimplenetModel(backbone="resnet18")
    loss = import_module(f"{_MODELS}.supersimplenet.loss").SSNLoss()
    optimizer = torch.optim.AdamW(
        [
            {"params": model.adaptor.parameters(), "lr": 1e-4},
            {"params": model.segdec.parameters(), "lr": 2e-4, "weight_decay": 1e-5},
        ]
    )
    steps = int(settings["steps"])
    schedule = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, [int(steps * 0.8), int(steps * 0.9)], gamma=0.4
    )
    model.train()
    for few in _batches(good, settings):
        found = model(few, None, torch.zeros(len(few)))
        _step(optimizer, loss(*found))
        schedule.step()
    model.eval()
    return lambda pictures: model(pictures).anomaly_map


_OF = dict(zip(ANOMALY, (_patchcore, _rd4ad, _supersimplenet), strict=True))


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _batches(good: Tensor, settings: Mapping[str, float]) -> Iterator[Tensor]:
    """Good pictures, drawn; as many batches as ``settings`` say."""
    for _ in range(int(settings["steps"])):
        yield good[torch.randperm(len(good))[: int(settings["batch"])]]


def _seen(path: Path) -> Tensor:
    """[1,3,S,S] in [0,1]."""
    image: Any = read_image(path)
    top = np.iinfo(image.dtype).max
    pixels = torch.from_numpy(image.astype(np.float32) / top).permute(2, 0, 1)[None]
    return F.interpolate(
        pixels.expand(1, 3, -1, -1), (_SIDE, _SIDE), mode="bilinear", antialias=True
    )


def _scores(data: Path, out: Path, find: Callable[[Tensor], Tensor]) -> None:
    """Write what is said of each test picture, at its own size."""
    names = {}
    for path in sorted((data / "test").glob("*.png")):
        height, width = read_image(path).shape[:2]
        with torch.inference_mode():
            found = F.interpolate(find(_seen(path)), (height, width), mode="bilinear")
        np.save(out.parent / f"{path.stem}.npy", found[0, 0].numpy())
        names[f"test/{path.name}"] = f"{path.stem}.npy"
    out.write_text(json.dumps(names))


def settings_of(name: str, given: Mapping[str, Any]) -> dict[str, float]:
    """A detector's settings; raises `UsageError` for one that it has not."""
    if unknown := {*given} - {*SETTINGS[name]}:
        raise UsageError(f"{name}: {', '.join(sorted(unknown))}: has {', '.join(SETTINGS[name])}")
    return SETTINGS[name] | {key: float(value) for key, value in given.items()}


def main(argv: Sequence[str]) -> int:
    """Train on the good pictures, score the others; 0 if it is done."""
    name, data, out, seed, *rest = argv
    began = time.monotonic()
    try:
        settings = settings_of(name, dict(part.split("=", 1) for part in rest))
        torch.set_num_threads(1)
        torch.manual_seed(int(seed))
        np.random.seed(int(seed))  # noqa: NPY002
        good = torch.cat([_seen(path) for path in sorted(Path(data, "train", "good").glob("*"))])
        _scores(Path(data), Path(out), _OF[name](good, settings))
    except DefectRTError as error:
        print(error, file=sys.stderr)
        return 1
    if place := os.environ.get(COST):
        with Path(place).open("a", encoding="utf-8") as file:
            told = {"detector": " ".join([name, *rest])} | took()
            told["seconds"] = round(time.monotonic() - began, 1)
            file.write(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
