"""O2MAG, ported: defects from one example by grafted self-attention, without training a network.

"One-to-More: High-Fidelity Training-Free Anomaly Generation with Attention Control", CVPR 2026,
arXiv 2603.18093. From published descriptions of the method alone, and where they leave something
open it was decided here; its code, which has no licence, was not read.

Kept. Three branches over DDIM inversion: the example with its defect, the good picture, and the
target on top of the good picture's inverted noise. In every self-attention layer the
target's queries inside its mask attend to the example's keys and values inside *its* mask, and all
other queries to the good picture's (tri-branch attention grafting). The words for the defect are
fitted to the one example, the network stays (anomaly-guided optimisation). Outside the mask the
target follows the good picture's inversion.

What differs from the original:

- The base: our bundled one of 5.8 M parameters (the original: Stable Diffusion, 860 M). It attends
  to itself on grids of 12x12 and 6x6 cells alone, 8 and 16 px, so the graft is coarse.
- Cross-attention is our base's: inside the mask to the defect's words, outside to the background's.
  So all of the mask attends to the defect, which the original has to see to (dual attention
  enhancement); its other half, in self-attention, is the hard mask on the example's keys.
- 10 steps each way instead of 50, and 30 of optimisation, of batches of two, from those words that
  the base knows the most alike defect by.
- Keys and values of the example and of the good picture are kept from their inversion, which sees
  the same latents at the same levels, instead of being computed again beside the target.
- No classifier-free guidance: our base was trained with it built in.
- Under the mask, ``fresh`` of the start is noise of its own, by default all of it, so that no two
  pictures are alike; at 0 it is the good picture's inverted noise, as around the mask.
- Masks are drawn around the shots' own by our own code, placed and painted in tiles as ours are.
- Each picture takes one of the shots as its example: give a single shot to make all from one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor

from defectrt.diffusion.noise import normal
from defectrt.diffusion.rows import Floats, Prompts, Rows
from defectrt.diffusion.sampler import generate, invert, run
from defectrt.images.window import to_model
from defectrt.masks.resizing import latent_mask
from defectrt.synthesis.canvas import View
from defectrt.training.data.crops import Batch
from defectrt.training.data.samples import Sample
from defectrt.training.models.attention import Masking, level_mask, project_out, split_heads

from .common import (
    BACKGROUND,
    Base,
    by_type,
    each,
    finished,
    learn_prompts,
    paint,
    stepped,
    tiles_of,
    wanted,
    write,
)

__all__ = ["Graft", "make"]

#: Every row of a branch has the same prompts: the sampler's indices say nothing here.
_PROMPTS = Prompts(*(np.zeros(1, np.int64),) * 3)


def make(
    shots: Sequence[Sample],
    good: Sequence[Sample],
    count: int,
    seed: int,
    out: Path,
    *,
    steps: int = 10,
    fit: int = 30,
    rate: float = 0.03,
    fresh: float = 1.0,
    grafted: bool = True,
) -> None:
    """Write ``count`` labelled pictures of each type of the shots; those that are there stay.

    steps    of DDIM, each way
    fit      steps in which the words are fitted to each example, at ``rate``
    fresh    share of noise of its own in the start under the mask
    grafted  False leaves self-attention as it is, to see what the graft does
    """
    pictures = wanted(shots, good, count, seed, (base := Base(steps)).window)
    graft = Graft.into(base)
    known = {
        name: [_Example.of(base, graft, shot, seed, fit, rate) for shot in own]
        for name, own in by_type(shots).items()
    }
    for picture in each(pictures, "o2mag: pictures"):
        if finished(out, picture):
            continue
        rng = np.random.default_rng(picture.seed)
        own = known[picture.defect_type]
        example = own[int(rng.integers(len(own)))]
        target = _Target(
            base,
            graft,
            example.branches[int(rng.integers(len(example.branches)))],
            example.words,
            seed=picture.seed,
            fresh=fresh,
            grafted=grafted,
        )
        tiles = picture.tiles(base.window)
        made = paint(picture.good.image, tiles, base.window, base.cells, target.make)
        write(out, picture, *made)


#: Keys and values [1,H,N,d] of every self-attention layer.
_Lent = dict[int, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class _Loan:
    """What a target takes at one level: from the example inside its mask, else from the good.

    Masks [1,1,h,w] are the example's and the target's.
    """

    example: _Lent
    good: _Lent
    example_mask: Tensor
    target_mask: Tensor


class Graft:
    """What self-attention gives away and takes.

    kept  filled with the keys and values of the next evaluation, if it is there
    loan  taken by the next evaluation, if it is there
    """

    def __init__(self) -> None:
        """Attention is as it always was."""
        self.kept: _Lent | None = None
        self.loan: _Loan | None = None

    @classmethod
    def into(cls, base: Base) -> Graft:
        """Give every self-attention layer of a base the grafting processor."""
        graft = cls()
        own = (
            m for m in base.net.modules() if isinstance(m, Attention) and not m.is_cross_attention
        )
        for layer, module in enumerate(own):
            module.set_processor(_GraftedAttention(graft, layer))
        return graft


class _GraftedAttention:
    """Self-attention whose queries attend to an example inside the mask, to the good outside."""

    def __init__(self, graft: Graft, layer: int) -> None:
        self._graft, self._layer = graft, layer

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        masking: Masking | None = None,
    ) -> Tensor:
        """hidden_states [B,N,C] -> [B,N,C]."""
        q, k, v = (
            split_heads(project(hidden_states), attn.heads)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        if self._graft.kept is not None:
            self._graft.kept[self._layer] = k, v
        loan = self._graft.loan
        if loan is None:
            return project_out(attn, F.scaled_dot_product_attention(q, k, v))
        seen, inside = (
            level_mask(mask, q.shape[2]).flatten(1).bool()
            for mask in (loan.example_mask, loan.target_mask)
        )
        defect = F.scaled_dot_product_attention(
            q, *loan.example[self._layer], attn_mask=seen[:, None, None, :]
        )
        surface = F.scaled_dot_product_attention(q, *loan.good[self._layer])
        return project_out(attn, torch.where(inside[:, None, :, None], defect, surface))


@dataclass(frozen=True)
class _Branch:
    """An inverted window: its mask [1,1,h,w], and latents and keys by level, clean to noise."""

    mask: Floats
    path: list[Floats]
    lent: list[_Lent]


@dataclass(frozen=True)
class _Example:
    """One shot: the words fitted to it, and its windows inverted."""

    words: Tensor
    branches: list[_Branch]

    @classmethod
    def of(
        cls, base: Base, graft: Graft, shot: Sample, seed: int, fit: int, rate: float
    ) -> _Example:
        tiles = tiles_of(shot, base.window)
        pixels = np.stack([to_model(t.window.crop(shot.image), base.window) for t in tiles])
        masks = np.stack([latent_mask(t.mask, base.cells, base.cells) for t in tiles])
        views = Batch(pixels, masks, (shot.defect_type,) * len(tiles))
        words = base.nearest_prompt(views, seed).clone().requires_grad_()
        rng = np.random.default_rng(seed)

        def batch(step: int) -> Batch:
            rows = rng.integers(len(tiles), size=2)
            return Batch(pixels[rows], masks[rows], (shot.defect_type,) * 2)

        learn_prompts(
            base,
            [words],
            batch,
            lambda crops: words,
            steps=fit,
            rate=rate,
            seed=seed,
            label=f"o2mag: words of {shot.path.stem}",
        )
        words = words.detach()
        branches = [
            _inverted(base, graft, base.encode(view[None]), mask[None], words)
            for view, mask in zip(pixels, masks, strict=True)
        ]
        return cls(words, branches)


def _inverted(base: Base, graft: Graft, z0: Floats, mask: Floats, words: Tensor) -> _Branch:
    """All of a latent [1,C,h,w], inverted with the words under its mask."""
    ground, lent = base.prompt(BACKGROUND), list[_Lent]()

    def evaluated(latent: Floats, timestep: int) -> Floats:
        graft.kept = {}
        try:
            epsilon = base.epsilon(latent, timestep, mask, words, ground)
            lent.append(graft.kept)
        finally:
            graft.kept = None
        return epsilon

    def step(rows: Rows) -> tuple[Floats, Floats]:
        return stepped(rows, evaluated(rows.latent, int(rows.timestep[0]))), np.zeros_like(mask)

    path = run(step, invert(z0, np.zeros_like(mask), _PROMPTS, base.schedule))
    evaluated(path[-1], base.schedule.generation[0].timestep)
    return _Branch(mask, path, lent)


class _Target:
    """The third branch, beside an example's and a good picture's."""

    def __init__(
        self,
        base: Base,
        graft: Graft,
        example: _Branch,
        words: Tensor,
        *,
        seed: int,
        fresh: float,
        grafted: bool,
    ) -> None:
        self._base, self._graft, self._example, self._words = base, graft, example, words
        self._seed, self._fresh, self._grafted, self._tile = seed, fresh, grafted, 0
        self._ground = base.prompt(BACKGROUND)

    def make(self, view: View) -> tuple[Floats, Floats]:
        """What is there and what becomes of it, [3,S,S] each."""
        base, mask = self._base, view.latent_mask
        z0 = base.encode(view.pixels[None])
        good = _inverted(base, self._graft, z0, np.zeros_like(mask), self._ground)
        noise = normal(self._seed, self._tile, 0, z0.shape)
        self._tile += 1
        start = np.sqrt(1 - self._fresh) * good.path[-1] + np.sqrt(self._fresh) * noise
        levels = iter(range(len(base.schedule), 0, -1))

        def step(rows: Rows) -> tuple[Floats, Floats]:
            level = next(levels)
            if self._grafted:
                self._graft.loan = _Loan(
                    self._example.lent[level],
                    good.lent[level],
                    torch.from_numpy(self._example.mask),
                    torch.from_numpy(mask),
                )
            try:
                epsilon = base.epsilon(
                    rows.latent, int(rows.timestep[0]), mask, self._words, self._ground
                )
            finally:
                self._graft.loan = None
            return stepped(rows, epsilon), np.zeros_like(mask)

        outside = [(1 - mask) * z for z in good.path]
        star = generate(outside, mask, start.astype(np.float32), _PROMPTS, base.schedule, "replay")
        before, after = base.decode(np.concatenate([z0, run(step, star).latent]))
        return before, after
