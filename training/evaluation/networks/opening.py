"""Open a feature network by name: the offline default, the published ones by path, ONNX files.

name                 what sees the pictures
efficientnet-lite0   ImageNet weights that come with the extra; the default
inception=FILE       the published network of FID (weights-inception-2015-12-05-6726825d.pth)
alexnet=FILE         AlexNet (alexnet-owt-7be5be79.pth), with the published weights of LPIPS
onnx=FILE            a graph from pictures [B,3,S,S], normalised as ImageNet's are, to features
                     [B,D] and, for distances, to maps [B,C,h,w]

Weights are data: files of PyTorch are read with ``weights_only``, and what ships with a package
only if its hash is the pinned one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor
from torch.nn import functional as F

from defectrt.errors import InputError, UsageError
from defectrt.files import read_input

from ...pretrained import LARGEST, LITE0, load_weights, open_lite0
from .alexnet import AlexNet
from .inception import Inception

__all__ = ["DEFAULT", "Network", "like_tensorflow", "open_network"]

DEFAULT = LITE0
_NAMES = f"{DEFAULT}, inception=FILE, alexnet=FILE, onnx=FILE"
#: SHA-256 of what ships with torchmetrics.
_LPIPS = "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
#: How the hashes of published weights begin, as their files' names say.
_PUBLISHED = {"inception": "6726825d", "alexnet": "7be5be79"}
#: Blocks of EfficientNet-Lite0 at whose ends a stride is reached, 4 to 32.
_LITE0_SEEN = (2, 4, 10, 15)
#: Side of what AlexNet sees; LPIPS was fitted on 64 px and is used on any size.
_SIDES = {DEFAULT: 224, "inception": 299, "alexnet": 128, "onnx": 224}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: What LPIPS takes off, and divides by, in [-1,1].
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
#: Pictures at once.
_BATCH = 16

#: Features [B,D] and maps of [B,C,h,w], of which a network may lack one kind.
_Seen = tuple[Tensor | None, Sequence[Tensor]]


@dataclass(frozen=True)
class Network:
    """A network that sees pictures.

    name      what to call it beside every figure
    sha256    of its weights
    side      px of the square that it sees
    distance  what distances by its maps are called; empty: it has no maps
    see       [B,3,S,S] in [0,1], of that side -> features and maps
    weights   of the channels of each map, [C] each; None: all count alike
    features  whether it has features
    """

    name: str
    sha256: str
    side: int
    distance: str
    features: bool
    see: Callable[[Tensor], _Seen]
    resize: Callable[[Tensor, int], Tensor]
    weights: tuple[Tensor, ...] | None = None

    @torch.inference_mode()
    def __call__(self, pictures: Tensor, told: Callable[[int], object] = int) -> _Seen:
        """Features [N,D] and maps of pictures [N,3,h,w] in [0,1], a few at a time.

        ``told`` is called with the number of those that were seen last.
        """
        parts = []
        for few in pictures.split(_BATCH):
            parts.append(self.see(self.resize(few, self.side)))
            told(len(few))
        features = torch.cat([f for f, _ in parts]) if self.features else None
        return features, [torch.cat(same) for same in zip(*(m for _, m in parts), strict=True)]


def open_network(spec: str) -> Network:
    """Open a network by its name, see above.

    Raises `UsageError` for a name that is none, `InputError` for a file that is not its weights,
    and `ModuleNotFoundError` where the default's package is missing.
    """
    kind, _, file = spec.partition("=")
    if kind not in _SIDES or bool(file) == (kind == DEFAULT):
        raise UsageError(f"network {spec!r}: one of {_NAMES}")
    return _OPEN[kind](Path(file))


def like_tensorflow(pictures: Tensor, side: int) -> Tensor:
    """Resize [B,3,h,w] as TensorFlow 1 did when FID was defined: corners are not aligned."""
    for axis in (2, 3):
        size = pictures.shape[axis]
        at = torch.arange(side, dtype=torch.float32) * (size / side)
        low = at.long().clamp(max=size - 1)
        part = (at - low).view(-1, *[1] * (3 - axis))
        below, above = (
            pictures.index_select(axis, i) for i in (low, (low + 1).clamp(max=size - 1))
        )
        pictures = below + (above - below) * part
    return pictures


def _resized(pictures: Tensor, side: int) -> Tensor:
    return F.interpolate(pictures, (side, side), mode="bilinear", antialias=True)


def _lite0(_: Path) -> Network:
    net, digest = open_lite0()

    def see(pictures: Tensor) -> _Seen:
        x = net._swish(net._bn0(net._conv_stem(_normal(pictures, _MEAN, _STD))))
        seen = []
        for i, block in enumerate(net._blocks):
            x = block(x)
            if i in _LITE0_SEEN:
                seen.append(x)
        x = net._swish(net._bn1(net._conv_head(x)))
        return x.mean(dim=(2, 3)), seen

    name = "EfficientNet-Lite0 (ImageNet)"
    told = "perceptual distance, channels unweighted"
    return Network(name, digest, _SIDES[DEFAULT], told, True, see, _resized)


def _inception(path: Path) -> Network:
    net = Inception()
    digest = load_weights(net, path)

    def see(pictures: Tensor) -> _Seen:
        return net((pictures * 255 - 128) / 128), ()

    name = _named("Inception v3 of FID (2015-12-05)", "inception", digest)
    return Network(name, digest, _SIDES["inception"], "", True, see, like_tensorflow)


def _alexnet(path: Path) -> Network:
    net = AlexNet()
    digest = load_weights(net, path, of_it="features.")
    name = _named("AlexNet (ImageNet)", "alexnet", digest)
    mean, std = (tuple((1 + v) / 2 for v in _SHIFT), tuple(v / 2 for v in _SCALE))

    def see(pictures: Tensor) -> _Seen:
        return None, net(_normal(pictures, mean, std))

    side = _SIDES["alexnet"]
    return Network(name, digest, side, "LPIPS", False, see, _resized, _lpips_weights())


def _onnx(path: Path) -> Network:
    data = read_input(path, LARGEST)
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"{path}: not a graph that ONNX Runtime opens ({error})") from error
    given, outputs = session.get_inputs(), session.get_outputs()
    ranks = [len(o.shape) for o in outputs]
    if len(given) != 1 or len(given[0].shape) != 4 or not {2, 4} & set(ranks):
        raise InputError(
            f"{path}: needs one input [B,3,S,S] and outputs [B,D] or [B,C,h,w], or both"
        )
    side = given[0].shape[2] if isinstance(given[0].shape[2], int) else _SIDES["onnx"]
    last = max((i for i, rank in enumerate(ranks) if rank == 2), default=None)

    def see(pictures: Tensor) -> _Seen:
        values: Any = _normal(pictures, _MEAN, _STD).numpy().astype(np.float32)
        found = [torch.from_numpy(f) for f in session.run(None, {given[0].name: values})]
        maps = [f for f, rank in zip(found, ranks, strict=True) if rank == 4]
        return None if last is None else found[last], maps

    told = "perceptual distance, channels unweighted" if 4 in ranks else ""
    digest = hashlib.sha256(data).hexdigest()
    name = f"{path.name} ({digest[:8]})"
    return Network(name, digest, side, told, last is not None, see, _resized)


_OPEN: dict[str, Callable[[Path], Network]] = {
    DEFAULT: _lite0,
    "inception": _inception,
    "alexnet": _alexnet,
    "onnx": _onnx,
}


def _lpips_weights() -> tuple[Tensor, ...]:
    """The published weights of LPIPS 0.1 for AlexNet, as torchmetrics carries them."""
    spec = find_spec("torchmetrics")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'torchmetrics'", name="torchmetrics")
    path = Path(spec.origin).parent / "functional" / "image" / "lpips_models" / "alex.pth"
    data = read_input(path, LARGEST)
    if (digest := hashlib.sha256(data).hexdigest()) != _LPIPS:
        raise InputError(f"{path}: SHA-256 {digest}, not {_LPIPS}; install torchmetrics again")
    found = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    return tuple(found[f"lin{i}.model.1.weight"].flatten() for i in range(5))


def _named(name: str, kind: str, digest: str) -> str:
    """The name of a published network; of other weights a name that says so."""
    return name if digest.startswith(_PUBLISHED[kind]) else f"{name}, other weights {digest[:8]}"


def _normal(pictures: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    shift, scale = (torch.tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in (mean, std))
    return (pictures - shift) / scale
