"""The networks of a proof's detector: a small U-Net from random start, or a pretrained encoder.

Both take [B,3,H,W] in [-1,1] to [B,1,H,W], the logit of a defect; H and W are multiples of 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defectrt.extras import requires

from ..pretrained import open_lite0
from .config import DetectorConfig

__all__ = ["RARE", "Lite0", "Lite0UNet", "UNet", "network_name", "new_network"]

#: Logit of the share of pixels that show a defect, about 2 %: what is guessed before learning.
RARE = -4.0
#: Blocks of EfficientNet-Lite0 after which a picture is seen 2, 4, 8 and 16 times smaller, and
#: their channels.
_SEEN = {0: 16, 2: 24, 4: 40, 10: 112}
#: Blocks that learn; those before see edges and textures, and stay as they are.
_LEARN = range(3, 11)
#: Of the learning rate, for what is pretrained.
_SLOWER = 0.1
#: Side of the coarsest cell, px.
_CELL = 16
#: What ImageNet's pictures were normalised with, in [0,1].
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def new_network(config: DetectorConfig) -> UNet | Lite0UNet:
    """The network before training; what starts at random comes from torch's own generator."""
    return Lite0UNet(config.width) if config.backbone else UNet(config.width)


def network_name(config: DetectorConfig) -> str:
    """What to call the network beside its figures."""
    if config.frozen:
        return "a head px by px over frozen EfficientNet-Lite0 (ImageNet)"
    if config.backbone:
        return f"U-Net over EfficientNet-Lite0 (ImageNet), {config.width} channels wide"
    return f"U-Net from random start, {config.width} channels wide"


class UNet(nn.Module):
    """[B,3,H,W] in [-1,1] -> [B,1,H,W], the logit of a defect; H and W are multiples of 8."""

    def __init__(self, width: int) -> None:
        """``width`` channels at full resolution, twice as many at each of three levels below."""
        super().__init__()
        w = width
        self.down = nn.ModuleList(_block(i, o) for i, o in ((3, w), (w, 2 * w), (2 * w, 4 * w)))
        self.bottom = _block(4 * w, 8 * w)
        self.up = nn.ModuleList(_block(i, o) for i, o in ((12 * w, 4 * w), (6 * w, 2 * w)))
        self.top = _block(3 * w, w)
        self.out = nn.Conv2d(w, 1, 1)
        nn.init.constant_(self.out.bias, RARE)

    def forward(self, x: Tensor) -> Tensor:
        """Encode, then decode with what was seen at each level."""
        seen = []
        for block in self.down:
            seen.append(block(x))
            x = F.max_pool2d(seen[-1], 2)
        x = self.bottom(x)
        for block in (*self.up, self.top):
            x = block(torch.cat([F.interpolate(x, scale_factor=2), seen.pop()], 1))
        return self.out(x)

    def learned(self, rate: float) -> list[dict[str, Any]]:
        """What learns, as an optimizer takes it, and at which rate."""
        return [{"params": list(self.parameters()), "lr": rate}]


class Lite0(nn.Module):
    """EfficientNet-Lite0 with ImageNet's weights: [B,3,H,W] in [-1,1] -> [B,C,h,w] at four scales.

    Its batch norms keep ImageNet's statistics: those of a few crops, half of them good, are not
    those of a whole test picture. Nothing in it learns until it is told to.
    """

    def __init__(self) -> None:
        """Raises `MissingExtraError` where the weights' package is missing.

        Raises `InputError` if they are not those that are pinned.
        """
        super().__init__()
        with requires("evaluate"):
            net, _ = open_lite0()
        self.stem = nn.Sequential(net._conv_stem, net._bn0, net._swish)
        self.blocks = nn.ModuleList(list(net._blocks)[: max(_SEEN) + 1])
        for name, values in (("mean", _MEAN), ("std", _STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> Self:
        """Train or not; it keeps its statistics."""
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The finest features first; a picture is continued to whole cells of the coarsest."""
        h, w = x.shape[2:]
        x = F.pad(x, (0, -w % _CELL, 0, -h % _CELL), mode="replicate")
        x, seen = self.stem(((x + 1) / 2 - self.mean) / self.std), []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in _SEEN:
                seen.append(x)
        return seen


class Lite0UNet(nn.Module):
    """`Lite0` and a light decoder from random start; its first blocks do not learn."""

    def __init__(self, width: int) -> None:
        """``width`` channels at full resolution, up to four times as many below.

        Raises as `Lite0` does.
        """
        super().__init__()
        self.encoder = Lite0()
        w, seen = width, list(_SEEN.values())
        for i in _LEARN:
            self.encoder.blocks[i].requires_grad_(True)
        self.full = _block(3, w)
        wide = (4 * w, 4 * w, 2 * w)
        self.up = nn.ModuleList(
            _block(below + beside, out)
            for below, beside, out in zip(
                (seen[3], *wide), (*seen[2::-1], w), (*wide, w), strict=True
            )
        )
        self.out = nn.Conv2d(w, 1, 1)
        nn.init.constant_(self.out.bias, RARE)

    def forward(self, x: Tensor) -> Tensor:
        """Encode, then decode with what was seen at each level."""
        h, w = x.shape[2:]
        x = F.pad(x, (0, -w % _CELL, 0, -h % _CELL), mode="replicate")
        seen = [self.full(x), *self.encoder(x)]
        x = seen.pop()
        for block in self.up:
            x = block(torch.cat([F.interpolate(x, scale_factor=2), seen.pop()], 1))
        return self.out(x)[..., :h, :w]

    def learned(self, rate: float) -> list[dict[str, Any]]:
        """What learns, as an optimizer takes it: the encoder more slowly."""
        return [
            {"params": list(self._of_encoder()), "lr": _SLOWER * rate},
            {"params": [p for m in (self.full, self.up, self.out) for p in m.parameters()]},
        ]

    def _of_encoder(self) -> Iterator[nn.Parameter]:
        return (p for i in _LEARN for p in self.encoder.blocks[i].parameters())


def _block(inside: int, outside: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inside, outside):
        layers += [
            nn.Conv2d(channels, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)
