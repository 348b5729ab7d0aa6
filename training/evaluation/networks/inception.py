"""The Inception v3 that FID was defined with, with the names that its published weights have.

It is the network of 2015-12-05 with 1,008 classes, and differs from torchvision's: means do not
count what lies beyond the border, and the last block takes a maximum in place of a mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Inception"]

#: A convolution: channels that come out, kernel, stride, padding.
_Conv = tuple[int, tuple[int, int], int, tuple[int, int]]


def _c(out: int, kernel: int | tuple[int, int] = 1, stride: int = 1, *, same: bool = True) -> _Conv:
    """One convolution; it keeps the size if ``same``."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    return out, (height, width), stride, (height // 2, width // 2) if same else (0, 0)


class Inception(nn.Module):
    """[B,3,299,299] in [-1,1] -> [B,2048], the features of FID and KID."""

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.Conv2d_1a_3x3 = _Unit(3, _c(32, 3, 2, same=False))
        self.Conv2d_2a_3x3 = _Unit(32, _c(32, 3, same=False))
        self.Conv2d_2b_3x3 = _Unit(32, _c(64, 3))
        self.Conv2d_3b_1x1 = _Unit(64, _c(80))
        self.Conv2d_4a_3x3 = _Unit(80, _c(192, 3, same=False))
        self.Mixed_5b = _small(192, 32)
        self.Mixed_5c = _small(256, 64)
        self.Mixed_5d = _small(288, 64)
        self.Mixed_6a = _to_17(288)
        self.Mixed_6b = _middle(128)
        self.Mixed_6c = _middle(160)
        self.Mixed_6d = _middle(160)
        self.Mixed_6e = _middle(192)
        self.Mixed_7a = _to_8()
        self.Mixed_7b = _large(1280, "mean")
        self.Mixed_7c = _large(2048, "max")
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x: Tensor) -> Tensor:
        """All blocks, and the mean over what is left of the picture."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean(dim=(2, 3))


class _Unit(nn.Module):
    """Convolution, normalisation, rectifier."""

    def __init__(self, inside: int, what: _Conv) -> None:
        super().__init__()
        out, kernel, stride, padding = what
        self.conv = nn.Conv2d(inside, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    """Paths side by side, each a chain of units; ``mean``, ``max`` and ``halved`` pool first."""

    def __init__(
        self, inside: int, units: Mapping[str, _Conv], paths: Sequence[Sequence[str]]
    ) -> None:
        super().__init__()
        self._paths = paths
        before = dict.fromkeys(units, inside)
        for path in paths:
            before |= {b: units[a][0] for a, b in pairwise(path) if a in units}
        for name, what in units.items():
            self.add_module(name, _Unit(before[name], what))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._along(path, x) for path in self._paths], dim=1)

    def _along(self, path: Sequence[str], x: Tensor) -> Tensor:
        for name in path:
            x = _POOLS[name](x) if name in _POOLS else self.get_submodule(name)(x)
        return x


_POOLS = {
    "mean": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "max": lambda x: F.max_pool2d(x, 3, 1, 1),
    "halved": lambda x: F.max_pool2d(x, 3, 2),
}


def _chain(name: str, count: int) -> list[str]:
    return [f"{name}_{i}" for i in range(1, count + 1)]


def _small(inside: int, pooled: int) -> _Block:
    units = {
        "branch1x1": _c(64),
        "branch5x5_1": _c(48),
        "branch5x5_2": _c(64, 5),
        "branch3x3dbl_1": _c(64),
        "branch3x3dbl_2": _c(96, 3),
        "branch3x3dbl_3": _c(96, 3),
        "branch_pool": _c(pooled),
    }
    chains = [_chain("branch5x5", 2), _chain("branch3x3dbl", 3)]
    return _Block(inside, units, [["branch1x1"], *chains, ["mean", "branch_pool"]])


def _to_17(inside: int) -> _Block:
    units = {
        "branch3x3": _c(384, 3, 2, same=False),
        "branch3x3dbl_1": _c(64),
        "branch3x3dbl_2": _c(96, 3),
        "branch3x3dbl_3": _c(96, 3, 2, same=False),
    }
    return _Block(inside, units, [["branch3x3"], _chain("branch3x3dbl", 3), ["halved"]])


def _middle(narrow: int) -> _Block:
    across, down = (1, 7), (7, 1)
    units = {
        "branch1x1": _c(192),
        "branch7x7_1": _c(narrow),
        "branch7x7_2": _c(narrow, across),
        "branch7x7_3": _c(192, down),
        "branch7x7dbl_1": _c(narrow),
        "branch7x7dbl_2": _c(narrow, down),
        "branch7x7dbl_3": _c(narrow, across),
        "branch7x7dbl_4": _c(narrow, down),
        "branch7x7dbl_5": _c(192, across),
        "branch_pool": _c(192),
    }
    chains = [_chain("branch7x7", 3), _chain("branch7x7dbl", 5)]
    return _Block(768, units, [["branch1x1"], *chains, ["mean", "branch_pool"]])


def _to_8() -> _Block:
    units = {
        "branch3x3_1": _c(192),
        "branch3x3_2": _c(320, 3, 2, same=False),
        "branch7x7x3_1": _c(192),
        "branch7x7x3_2": _c(192, (1, 7)),
        "branch7x7x3_3": _c(192, (7, 1)),
        "branch7x7x3_4": _c(192, 3, 2, same=False),
    }
    return _Block(768, units, [_chain("branch3x3", 2), _chain("branch7x7x3", 4), ["halved"]])


def _large(inside: int, pool: str) -> _Block:
    units = {
        "branch1x1": _c(320),
        "branch3x3_1": _c(384),
        "branch3x3_2a": _c(384, (1, 3)),
        "branch3x3_2b": _c(384, (3, 1)),
        "branch3x3dbl_1": _c(448),
        "branch3x3dbl_2": _c(384, 3),
        "branch3x3dbl_3a": _c(384, (1, 3)),
        "branch3x3dbl_3b": _c(384, (3, 1)),
        "branch_pool": _c(192),
    }
    forks = [["branch3x3_1", f"branch3x3_2{end}"] for end in "ab"]
    forks += [[*_chain("branch3x3dbl", 2), f"branch3x3dbl_3{end}"] for end in "ab"]
    return _Block(inside, units, [["branch1x1"], *forks, [pool, "branch_pool"]])
