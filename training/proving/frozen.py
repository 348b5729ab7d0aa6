"""A detector in seconds: a small head over the frozen features of a pretrained encoder, px by px.

A picture is seen once, in a few ways that it could have been taken; after that a step is a batch of
px. Half of them are of good pictures, a quarter of defects and a quarter of what is around
these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from defectrt.errors import Cancelled
from defectrt.images.window import to_model

from ..data.samples import Cache, Sample
from .config import DetectorConfig
from .networks import RARE, Lite0

if TYPE_CHECKING:
    from .detector import Diet

__all__ = ["BRIGHTNESS", "CONTRAST", "DECAY", "WAYS", "PixelHead", "frozen_steps"]

#: Channels between features and logit.
_HIDDEN = 64
#: px of a step, and of each side of a picture that are remembered.
_BATCH, _KEPT = 2048, 256
#: Of the averaged weights, a step, of every detector.
DECAY = 0.98
#: Ways in which a real defect is seen at most, and every other picture.
_REAL_WAYS, WAYS = 8, 2
#: How contrast and brightness vary, in the crops of the other detectors too.
CONTRAST, BRIGHTNESS = 0.2, 0.08
#: What was seen of the pictures used last, since every training sees them again.
_CACHE: Cache[tuple[NDArray[np.float16], ...]] = Cache(limit=3 << 29)

Features = NDArray[np.float16]


class PixelHead(nn.Module):
    """[B,3,H,W] in [-1,1] -> [B,1,H,W], the logit of a defect: a head over frozen features.

    The features of all levels, brought to half the picture's size, are put together; the head sees
    one px at a time, so that what lies around it is for the encoder to tell.
    """

    def __init__(self, encoder: Lite0, head: nn.Module, mean: Tensor, std: Tensor) -> None:
        """``mean`` and ``std`` [D] of the features on good pictures."""
        super().__init__()
        self.encoder, self.head = encoder, head
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Encode, then look at every px."""
        key = hashlib.sha256(x.numpy().tobytes()).digest()
        levels = _CACHE.get(key, lambda: _levels(self.encoder, x))
        seen = _together(levels, x.shape[2:])
        rows = seen.movedim(1, -1)
        found = self.head((rows - self.mean) / self.std).movedim(-1, 1)
        return F.interpolate(found, size=x.shape[2:], mode="bilinear", align_corners=False)


def frozen_steps(
    diet: Diet, config: DetectorConfig, seed: int, turn: bool, stopped: Callable[[], bool]
) -> Iterator[tuple[nn.Module, int]]:
    """After every step the averaged model, ready to be measured, and the step's number.

    Raises `Cancelled` as soon as ``stopped`` says so.
    """
    encoder = Lite0().eval()

    def see(samples: Sequence[Sample], ways: int) -> tuple[Features, Features]:
        """px of good surface [K,N,D] and of defects; of good pictures none of these."""
        found = []
        for sample in samples:
            if stopped():
                raise Cancelled("stopped; run the same command again to go on")
            found += [_remembered(encoder, sample, way) for way in _ways(ways, turn)]
        good, bad = zip(*found, strict=True)
        return np.stack(good), np.stack([b for b in bad if len(b)] or [good[0][:0]])

    plain, _ = see(diet.good, WAYS)
    real = see(diet.real, _REAL_WAYS)
    made = see(diet.made, WAYS) if diet.made else None
    of_good = torch.from_numpy(plain.reshape(-1, plain.shape[-1])).float()
    mean, std = of_good.mean(0), of_good.std(0) + 1e-3
    rng = np.random.default_rng([seed, 11])
    generator = torch.Generator().manual_seed(seed)
    head = _new_head(len(mean), generator)
    averaged = AveragedModel(head, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    optimizer = torch.optim.AdamW(head.parameters(), config.learning_rate, weight_decay=1e-2)
    model = PixelHead(encoder, averaged.module, mean, std).eval()
    share = diet.share if made else 0.0
    for step in range(1, config.steps + 1):
        if stopped():
            raise Cancelled("stopped; run the same command again to go on")
        half = _BATCH // 2
        synthetic = round(half * share)
        parts = [(_drawn(plain, half, rng), 0)]
        for own, count in ((real, half - synthetic), (made, synthetic)):
            if own and count:
                parts += [(_drawn(side, count // 2, rng), shows) for shows, side in enumerate(own)]
        x = torch.from_numpy(np.concatenate([p for p, _ in parts])).float()
        y = torch.cat([torch.full((len(p), 1), float(shows)) for p, shows in parts])
        loss = F.binary_cross_entropy_with_logits(head.train()((x - mean) / std), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        averaged.update_parameters(head)
        yield model, step


def _new_head(features: int, generator: torch.Generator) -> nn.Module:
    head = nn.Sequential(nn.Linear(features, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))
    for module in head:
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            nn.init.zeros_(module.bias)
    nn.init.constant_(head[2].bias, RARE)
    return head


def _drawn(side: Features, count: int, rng: np.random.Generator) -> Features:
    """So many px [count,D] of [K,N,D], every picture as often."""
    return side[rng.integers(len(side), size=count), rng.integers(side.shape[1], size=count)]


def _ways(most: int, turn: bool) -> range:
    """A way is a number below 8: mirrored by its lowest two bits, turned by the third."""
    return range(min(most, 8 if turn else 4))


def _levels(encoder: Lite0, x: Tensor) -> tuple[Features, ...]:
    """The features of [1,3,H,W], the finest first, in half precision."""
    with torch.inference_mode():
        return tuple(level.half().numpy() for level in encoder(x))


def _together(levels: tuple[Features, ...], size: torch.Size) -> Tensor:
    """[B,D,ceil(H/2),ceil(W/2)]: all levels of pictures of ``size``, put together."""
    first, *others = (torch.from_numpy(level).float() for level in levels)
    wide = [
        F.interpolate(o, size=first.shape[2:], mode="bilinear", align_corners=False) for o in others
    ]
    return torch.cat([first, *wide], 1)[..., : -(-size[0] // 2), : -(-size[1] // 2)]


def _remembered(encoder: Lite0, sample: Sample, way: int) -> tuple[Features, ...]:
    """[N,D] px without a defect and [N,D] with one, none of these if there is no defect."""
    whole = hashlib.sha256(np.ascontiguousarray(sample.image).tobytes())
    whole.update(np.packbits(sample.mask).tobytes() + bytes([way]))
    return _CACHE.get(whole.digest(), lambda: _seen(encoder, sample, way))


def _seen(encoder: Lite0, sample: Sample, way: int) -> tuple[Features, ...]:
    rng = np.random.default_rng([way, 5])
    x, mask = to_model(sample.image, sample.mask.shape[0]), sample.mask
    if way & 1:
        x, mask = x[..., ::-1], mask[..., ::-1]
    if way & 2:
        x, mask = x[:, ::-1], mask[::-1]
    if way & 4:
        x, mask = x.swapaxes(1, 2), mask.T
    if way:
        x = x * (1 + rng.uniform(-CONTRAST, CONTRAST))
        x = x + 2 * rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    with torch.inference_mode():
        tensor = torch.from_numpy(np.ascontiguousarray(x, np.float32))[None]
        levels = _levels(encoder, tensor.clamp(-1, 1))
        seen = _together(levels, tensor.shape[2:])[0].movedim(0, -1)
        share = F.adaptive_avg_pool2d(
            torch.from_numpy(mask.astype(np.float32))[None, None], seen.shape[:2]
        )[0, 0]
    rows, shows = seen.reshape(-1, seen.shape[-1]).half().numpy(), share.flatten().numpy()
    bad = np.flatnonzero(shows >= 0.5) if (shows >= 0.5).any() else np.flatnonzero(shows > 0)
    good = np.flatnonzero(shows == 0)
    return tuple(
        rows[rng.choice(side, _KEPT, replace=len(side) < _KEPT)] if len(side) else rows[:0]
        for side in (good, bad)
    )
