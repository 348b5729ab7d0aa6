"""DFMGAN, ported: a generator of good pictures, then a residual branch with a mask for defects.

Duan et al., "Few-Shot Defect Image Generation via Defect-Aware Feature Manipulation", AAAI 2023,
arXiv 2303.02389. Written from published descriptions of it and of StyleGAN2 (Karras et al., CVPR
2020); no code of either is in it.

Kept. Stage one: a small StyleGAN2 (mapping, modulated convolutions with noise, skips to RGB,
non-saturating loss, lazy R1, moving average) learns good pictures. Stage two, once a type: it is
frozen; a mapping of its own and residual blocks at the finest two sizes learn from the shots. The
first also says where the defect is, a mask M; features become S + R where M ≥ 0 and stay S
elsewhere. Two discriminators judge, the one of stage one the picture and a slimmer one picture and
mask together; mode seeking keeps defects apart.

What differs from the original:

- Windows of 64 px at the picture's own resolution, 16 to 64 channels (the original: whole pictures
  of 256 px, to 512 channels); masks come at 32 px as there at 64, a quarter of the width of the
  picture there and half of it here, so that a small defect has some cells.
- 24,000 windows for good pictures and 6,400 for each type (the original: 3,000,000 and 400,000
  pictures on GPUs); about 0.45 s of a core a step of 8. 2,000 windows of magnetic tiles give blobs
  of colour still; what the default gives was not looked at yet.
- Shots are cropped around their defects, mirrored, and turned unless the surface has a direction;
  adaptive augmentation is shifts by up to an eighth for real and made alike.
- Gradients pass the mask's threshold as through a sigmoid; weights of the losses are our own.
- It makes whole pictures, with no say in which. Here its defect goes onto a given good one: of 256
  good windows that it can make, that most like the window to paint on gets the defect, and the
  difference between both is added there. Labels are its own masks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defectrt.diffusion.rows import Floats
from defectrt.diffusion.seeds import sample_seed
from defectrt.errors import InputError
from defectrt.images.types import Bits
from defectrt.images.window import Window, to_model
from defectrt.masks.examples import Examples
from defectrt.masks.places import LikeExamples
from defectrt.masks.source import Placed
from defectrt.synthesis.tiles import Tile
from defectrt.training.data.crops import Augmentation, Crops
from defectrt.training.data.samples import Sample
from defectrt.training.data.survey import is_directed

from .common import by_type, each, finished, paint, wanted, write

__all__ = ["Backbone", "Branch", "learn_defects", "learn_good", "make"]

WINDOW = 64
#: Channels by size; the branch works at the last two.
_CHANNELS = {4: 64, 8: 64, 16: 64, 32: 32, 64: 16}
_FINE = (32, 64)
_LATENT = 64
_RATE, _R1, _R1_EVERY = 0.002, 0.5, 16
#: Weights of the second discriminator and of mode seeking.
_MATCH, _SEEK = 1.0, 0.1
#: Good windows to choose from, and px of a small one to compare them by.
_BANK, _SMALL = 256, 8
#: Places and defects that are tried for a picture; px of a mask, at least and at most.
_TRIES, _LEAST, _MOST = 40, 12, WINDOW**2 // 4

Noise = dict[int, list[Tensor]]
Module = TypeVar("Module", bound=nn.Module)


def make(
    shots: Sequence[Sample],
    good: Sequence[Sample],
    count: int,
    seed: int,
    out: Path,
    *,
    good_steps: int = 3000,
    defect_steps: int = 800,
    batch: int = 8,
) -> None:
    """Write ``count`` labelled pictures of each type of the shots; those that are there stay.

    good_steps    of stage one
    defect_steps  of stage two, for each type
    batch         windows a step
    """
    types = by_type(shots)
    vary = Augmentation(turn=not is_directed([*good, *shots]), contrast=0.0, brightness=0.0)
    backbone, judge = learn_good(
        Crops(good, WINDOW, seed=seed, augmentation=vary), seed, good_steps, batch
    )
    bank = _Bank(backbone, seed)
    branches = {
        name: learn_defects(
            backbone,
            judge,
            Crops(own, WINDOW, good=0.0, seed=seed, augmentation=vary),
            seed,
            defect_steps,
            batch,
            name,
        )
        for name, own in types.items()
    }

    def source(name: str, examples: Examples) -> _Places:
        return _Places(bank, branches[name], name, examples, seed)

    pictures = wanted(shots, good, count, seed, WINDOW, source)
    for picture in each(pictures, "dfmgan: pictures"):
        if finished(out, picture):
            continue
        tiles, changes = [], []
        for placed in picture.placed:
            found = placed.record
            window = Window(found["y"], found["x"], WINDOW)
            tiles.append(Tile(window, window.crop(placed.mask).copy()))
            before, after, _ = bank.with_defect(
                branches[picture.defect_type], found["good"], found["seed"]
            )
            changes.append((before, after))
        give = iter(changes)
        made = paint(picture.good.image, tiles, WINDOW, WINDOW, lambda _, give=give: next(give))
        write(out, picture, *made)


class _Linear(nn.Module):
    """Fully connected, with equalised learning rate."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.full((outputs,), bias))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight / math.sqrt(self.weight.shape[1]), self.bias)


class _Conv(nn.Module):
    """Convolution with equalised learning rate; with a style, modulated and demodulated."""

    def __init__(self, inputs: int, outputs: int, side: int = 3, style: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.style = _Linear(style, inputs, bias=1.0) if style else None

    def forward(self, x: Tensor, w: Tensor | None = None, *, demodulate: bool = True) -> Tensor:
        """x [B,C,h,w]; w [B,W] if it has a style."""
        weight = self.weight / math.sqrt(self.weight[0].numel())
        padding = weight.shape[-1] // 2
        if self.style is None or w is None:
            return F.conv2d(x, weight, self.bias, padding=padding)
        scale = self.style(w)
        y = F.conv2d(x * scale[:, :, None, None], weight, padding=padding)
        if demodulate:
            power = (scale.square() @ weight.square().sum(dim=(2, 3)).T + 1e-8).rsqrt()
            y = y * power[:, :, None, None]
        return y + self.bias[None, :, None, None]


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def _up(x: Tensor, size: int) -> Tensor:
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


class _Mapping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Linear(_LATENT, _LATENT) for _ in range(3))

    def forward(self, z: Tensor) -> Tensor:
        x = F.normalize(z, dim=1) * math.sqrt(_LATENT)
        for layer in self.layers:
            x = _act(layer(x))
        return x


class _Block(nn.Module):
    """Two modulated convolutions at one size, each with noise; twice as fine as what it gets."""

    def __init__(self, size: int, inputs: int) -> None:
        super().__init__()
        self.size, outputs = size, _CHANNELS[size]
        self.first = _Conv(inputs, outputs, style=_LATENT)
        self.second = _Conv(outputs, outputs, style=_LATENT)
        self.strength = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor, w: Tensor, noise: list[Tensor]) -> Tensor:
        x = _up(x, self.size)
        for i, conv in enumerate((self.first, self.second)):
            x = _act(conv(x, w) + self.strength[i] * noise[i])
        return x


#: Features of a size, those one size coarser, and what becomes of the former.
_Change = Callable[[int, Tensor, Tensor], Tensor]


class Backbone(nn.Module):
    """The generator of good windows: z [B,64] and noise -> [B,3,64,64] in about [-1,1]."""

    def __init__(self) -> None:
        """With random weights."""
        super().__init__()
        self.mapping = _Mapping()
        self.start = nn.Parameter(torch.randn(1, _CHANNELS[4], 4, 4))
        sizes = list(_CHANNELS)
        self.blocks = nn.ModuleList(_Block(size, _CHANNELS[max(4, size // 2)]) for size in sizes)
        self.colours = nn.ModuleList(_Conv(_CHANNELS[s], 3, 1, style=_LATENT) for s in sizes)

    def coarse(self, z: Tensor, noise: Noise) -> Tensor:
        """The features that a branch starts from, [B,64,16,16]."""
        w, x = self.mapping(z), self.start.expand(len(z), -1, -1, -1)
        for size, block in zip(_CHANNELS, self.blocks, strict=True):
            if size < _FINE[0]:
                x = block(x, w, noise[size])
        return x

    def forward(self, z: Tensor, noise: Noise, change: _Change | None = None) -> Tensor:
        """``change`` may manipulate the features of each size."""
        w, x = self.mapping(z), self.start.expand(len(z), -1, -1, -1)
        image = torch.zeros(len(z), 3, 4, 4)
        for size, block, colour in zip(_CHANNELS, self.blocks, self.colours, strict=True):
            coarser = x
            x = block(x, w, noise[size])
            if change:
                x = change(size, coarser, x)
            image = _up(image, size) + colour(x, w, demodulate=False)
        return image


class Branch(nn.Module):
    """The defect-aware residual blocks of one type, on a backbone that stays as it is."""

    def __init__(self) -> None:
        """With random weights."""
        super().__init__()
        self.mapping = _Mapping()
        self.blocks = nn.ModuleList(_Block(size, _CHANNELS[size // 2]) for size in _FINE)
        self.mask = _Conv(_CHANNELS[_FINE[0]], 1, 1)

    def forward(
        self, backbone: Backbone, z: Tensor, noise: Noise, defect: Tensor, own: Noise
    ) -> tuple[Tensor, Tensor]:
        """A picture [B,3,64,64], and its mask [B,1,64,64]: a defect where it is at least 0.

        defect [B,64] and ``own`` are the branch's z and noise.
        """
        w = self.mapping(defect)
        residual, mask = Tensor(), Tensor()

        def change(size: int, coarser: Tensor, x: Tensor) -> Tensor:
            nonlocal residual, mask
            if size == _FINE[0]:
                residual = self.blocks[0](coarser, w, own[size])
                mask = self.mask(residual)
            elif size == _FINE[1]:
                residual = self.blocks[1](residual, w, own[size])
            else:
                return x
            return x + _gate(_up(mask, size)) * residual

        image = backbone(z, noise, change)
        return image, _up(mask, WINDOW)

    def where(self, coarser: Tensor, defect: Tensor, own: Noise) -> Tensor:
        """The mask [B,1,64,64] of other defects on the same surface, whose features these are."""
        residual = self.blocks[0](coarser, self.mapping(defect), own[_FINE[0]])
        return _up(self.mask(residual), WINDOW)


def _gate(mask: Tensor) -> Tensor:
    """1 where the mask is at least 0, else 0; its gradient is a sigmoid's."""
    soft = mask.sigmoid()
    return (mask >= 0).to(mask) + soft - soft.detach()


class _Judge(nn.Module):
    """A discriminator of windows of some ``channels``: residual blocks, spread over the batch."""

    def __init__(self, channels: int, slim: int = 1) -> None:
        super().__init__()
        widths = [_CHANNELS[size] // slim for size in reversed(_CHANNELS)]
        self.enter = _Conv(channels, widths[0], 1)
        self.blocks = nn.ModuleList(
            nn.ModuleList([_Conv(a, a), _Conv(a, b), _Conv(a, b, 1)])
            for a, b in itertools.pairwise(widths)
        )
        self.last = _Conv(widths[-1] + 1, widths[-1])
        self.out = nn.Sequential(nn.Flatten(), _Linear(widths[-1] * 16, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,64,64] -> [B,1]."""
        x = _act(self.enter(x))
        for first, second, skip in self.blocks:
            y = F.avg_pool2d(_act(second(_act(first(x)))), 2)
            x = (y + F.avg_pool2d(skip(x), 2)) / math.sqrt(2)
        # a root of nothing has no slope, and of one window there is no spread
        spread = (x.var(dim=0, unbiased=False) + 1e-8).sqrt().mean().expand(len(x), 1, 4, 4)
        return self.out(_act(self.last(torch.cat([x, spread], dim=1))))


def _noise(rows: int, sizes: Sequence[int], draw: torch.Generator) -> Noise:
    return {s: [torch.randn(rows, 1, s, s, generator=draw) for _ in range(2)] for s in sizes}


def _z(rows: int, draw: torch.Generator) -> Tensor:
    return torch.randn(rows, _LATENT, generator=draw)


def _shifted(x: Tensor, draw: torch.Generator) -> Tensor:
    """Each window moved by up to an eighth, mirrored at its border."""
    most = WINDOW // 8
    padded = F.pad(x, (most,) * 4, mode="reflect")
    corners = torch.randint(2 * most + 1, (len(x), 2), generator=draw).tolist()
    return torch.stack(
        [
            one[:, top : top + WINDOW, left : left + WINDOW]
            for one, (top, left) in zip(padded, corners, strict=True)
        ]
    )


def _laid_out(module: Module) -> Module:
    """Channels last in memory, a third faster on a processor."""
    return module.to(memory_format=torch.channels_last)


def _optimiser(*modules: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(
        [p for m in modules for p in m.parameters()], lr=_RATE, betas=(0.0, 0.99), eps=1e-8
    )


def _averaged(average: nn.Module, module: nn.Module, step: int) -> None:
    """The moving average over a fiftieth of the steps so far, or 300."""
    keep = 1 - 1 / min(300, 1 + step / 50)
    with torch.no_grad():
        for kept, new in zip(average.parameters(), module.parameters(), strict=True):
            kept.lerp_(new, 1 - keep)


def _told_apart(judge: nn.Module, real: Tensor, made: Tensor, step: int) -> Tensor:
    """What a discriminator minimises: the non-saturating loss, and now and then R1."""
    loss = F.softplus(-judge(real)).mean() + F.softplus(judge(made)).mean()
    if step % _R1_EVERY == 0:
        real = real.detach().requires_grad_()
        (slope,) = torch.autograd.grad(judge(real).sum(), real, create_graph=True)
        loss = loss + _R1_EVERY * _R1 / 2 * slope.square().sum(dim=(1, 2, 3)).mean()
    return loss


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def learn_good(crops: Crops, seed: int, steps: int, batch: int) -> tuple[Backbone, nn.Module]:
    """Stage one: the averaged generator of good windows, frozen, and its discriminator."""
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone, average, judge = map(_laid_out, (Backbone(), Backbone(), _Judge(3)))
    average.load_state_dict(backbone.state_dict())
    ours, theirs = _optimiser(backbone), _optimiser(judge)
    sizes = list(_CHANNELS)
    for step in each(range(steps), "dfmgan: good pictures"):
        real = _shifted(torch.from_numpy(crops.batch(step, batch).pixels), draw)
        made = _shifted(backbone(_z(batch, draw), _noise(batch, sizes, draw)), draw)
        _step(theirs, _told_apart(judge, real, made.detach(), step))
        judge.requires_grad_(False)
        _step(ours, F.softplus(-judge(made)).mean())
        judge.requires_grad_(True)
        _averaged(average, backbone, step)
    return average.requires_grad_(False).eval(), judge


def learn_defects(
    backbone: Backbone,
    judge: nn.Module,
    crops: Crops,
    seed: int,
    steps: int,
    batch: int,
    name: str,
) -> Branch:
    """Stage two: the averaged branch of one type, from crops that show it.

    The backbone stays as it is, and so does ``judge``, of which a copy goes on learning.
    """
    draw = torch.Generator().manual_seed(sample_seed(seed, name, 0))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        modules = Branch(), Branch(), _Judge(4, slim=2), _Judge(3)
        branch, average, both, own = map(_laid_out, modules)
    average.load_state_dict(branch.state_dict())
    own.load_state_dict(judge.state_dict())
    ours, theirs = _optimiser(branch), _optimiser(own, both)
    sizes = list(_CHANNELS)
    for step in each(range(steps), f"dfmgan: {name}"):
        shown = crops.batch(step, batch)
        real = torch.cat(
            [torch.from_numpy(shown.pixels), _as_made(torch.from_numpy(shown.mask))], dim=1
        )
        z, noise, defects = _z(batch, draw), _noise(batch, sizes, draw), _z(batch, draw)
        image, mask = branch(backbone, z, noise, defects, _noise(batch, _FINE, draw))
        real, made = (
            _shifted(both_, draw) for both_ in (real, torch.cat([image, mask.tanh()], dim=1))
        )
        loss = _told_apart(own, real[:, :3], made[:, :3].detach(), step)
        _step(theirs, loss + _told_apart(both, real, made.detach(), step))
        for fixed in (own, both):
            fixed.requires_grad_(False)
        # other defects on the same surface should have other masks, the more so the further apart
        others = _z(batch, draw)
        moved = branch.where(backbone.coarse(z, noise), others, _noise(batch, _FINE, draw))
        apart = (mask.tanh() - moved.tanh()).abs().mean() / (defects - others).abs().mean()
        fooled = F.softplus(-own(made[:, :3])).mean() + _MATCH * F.softplus(-both(made)).mean()
        _step(ours, fooled + _SEEK / (apart + 1e-3).clamp(min=0.02))
        for free in (own, both):
            free.requires_grad_(True)
        _averaged(average, branch, step)
    return average.requires_grad_(False).eval()


def _as_made(mask: Tensor) -> Tensor:
    """A real mask [B,1,64,64] in {0,1} as the branch makes them: in [-1,1], from 32 px."""
    return _up(F.max_pool2d(mask, WINDOW // _FINE[0]), WINDOW) * 2 - 1


class _Bank:
    """Good windows that a backbone can make, and which looks most like a real one."""

    def __init__(self, backbone: Backbone, seed: int) -> None:
        self._backbone, self._seed = backbone, seed
        self._small = np.concatenate([_small(self._good(number)) for number in range(_BANK)])

    def like(self, view: Floats) -> int:
        """The number of the one most like a window [3,64,64]."""
        apart = np.abs(self._small - _small(view[None])).mean(axis=(1, 2, 3))
        return int(apart.argmin())

    @torch.inference_mode()
    def with_defect(self, branch: Branch, number: int, seed: int) -> tuple[Floats, Floats, Floats]:
        """Without and with a defect, [3,64,64] each, and its mask [64,64]: where at least 0."""
        draw = torch.Generator().manual_seed(seed)
        z, noise = self._inputs(number)
        image, mask = branch(self._backbone, z, noise, _z(1, draw), _noise(1, _FINE, draw))
        return self._good(number)[0], image[0].numpy(), mask[0, 0].numpy()

    @torch.inference_mode()
    def _good(self, number: int) -> Floats:
        return np.asarray(self._backbone(*self._inputs(number)).numpy(), np.float32)

    def _inputs(self, number: int) -> tuple[Tensor, Noise]:
        draw = torch.Generator().manual_seed(sample_seed(self._seed, "good", number))
        return _z(1, draw), _noise(1, list(_CHANNELS), draw)


def _small(windows: Floats) -> Floats:
    """[B,3,64,64] -> [B,3,8,8]."""
    return np.asarray(F.adaptive_avg_pool2d(torch.from_numpy(windows), _SMALL).numpy(), np.float32)


class _Places:
    """Masks of a branch's own, where defects of its type lie: a source of masks.

    A place is drawn first, then defects on the good window most like it, until one lies whole
    inside; its record says which.
    """

    def __init__(
        self, bank: _Bank, branch: Branch, name: str, examples: Examples, seed: int
    ) -> None:
        self._bank, self._branch, self._seed = bank, branch, sample_seed(seed, name, 0)
        self._region = LikeExamples(examples.places)

    def __call__(self, source: str, image: Bits, sample: int) -> list[Placed]:
        """One defect. Raises `InputError` if none fits."""
        rng = np.random.default_rng(sample_seed(self._seed, source, sample))
        region = self._region(source, image).mask
        ys, xs = np.nonzero(region)
        for _ in range(_TRIES if len(ys) else 0):
            at = int(rng.integers(len(ys)))
            room = np.maximum(np.array(region.shape) - WINDOW, 0)
            corner = np.clip(np.array([ys[at], xs[at]]) - WINDOW // 2, 0, room)
            window = Window(int(corner[0]), int(corner[1]), WINDOW)
            good = self._bank.like(to_model(window.crop(image), WINDOW))
            seed = int(rng.integers(2**53))
            label = self._bank.with_defect(self._branch, good, seed)[2] >= 0
            allowed = window.crop(region)
            if _LEAST <= label.sum() <= _MOST and allowed[label].all():
                mask = np.zeros(region.shape, bool)
                window.paste(mask, label)
                where = {"y": window.y, "x": window.x}
                return [Placed(mask, {"from": "dfmgan", "good": good, "seed": seed} | where)]
        raise InputError(f"{source}: no defect of {_TRIES} lies whole where defects do")

    def record(self) -> dict[str, object]:
        """Weights decide the masks, not settings."""
        return {"from": "dfmgan"}
