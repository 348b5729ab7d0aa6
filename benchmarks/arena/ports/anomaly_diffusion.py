"""AnomalyDiffusion, ported: textual inversion with a spatial embedding, and attention re-weighted.

Hu et al., "AnomalyDiffusion: Few-Shot Anomaly Image Generation with Diffusion Model", AAAI 2024,
arXiv 2312.05767. Written from published descriptions; no code of the original is in it.

Kept. The network is frozen; what is learned are a few words for each type of defect (anomaly
embedding) and an encoder that turns a mask into further words (spatial embedding), by the loss
under the mask. A defect is painted under a mask onto a noised good picture, which replaces
everything outside the mask at every step. At every step the clean picture that is foreseen is
compared with the good one: cells of the mask that still look alike get more cross-attention, others
less (adaptive attention re-weighting).

What differs from the original:

- The base: our bundled one of 5.8 M parameters, windows of 96 px at the picture's own resolution
  (the original: latent diffusion of 1.4 G parameters, whole pictures of 256 px).
- Cross-attention is our base's: inside the mask to the learned words, outside to the background's
  (the original: to the learned words everywhere). The learned words start from those that the base
  knows the most alike defect by, and the rest of the prompt stays these.
- The encoder of masks is a convolutional network of 3 levels, pooled, instead of a ResNet-50 with a
  feature pyramid; 8 and 4 words as there.
- 250 steps of batches of 4, minutes on a processor where the original takes a GPU; 16 of sampling.
- All pictures are kept; the authors say that they sorted poor ones out of theirs.
- Weights are n · softmax(1 / (1 + d / mean d)) over the mask's n cells, with d the difference in
  latents at the step before. The original has 1 / d of the present one, which has no bound where
  nothing changed.
- Masks are drawn around the shots' own by our own code instead of by a second textual inversion,
  placed and painted in tiles as ours are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from defectrt.diffusion.noise import normal
from defectrt.diffusion.rows import Floats, Prompts, Rows
from defectrt.diffusion.sampler import generate, noised, run
from defectrt.synthesis.canvas import View
from defectrt.training.data.crops import Augmentation, Batch, Crops
from defectrt.training.data.samples import Sample
from defectrt.training.data.survey import is_directed
from defectrt.training.models.attention import MaskedCrossAttention, Masking, level_mask

from .common import (
    BACKGROUND,
    Base,
    Wanted,
    by_type,
    each,
    finished,
    learn_prompts,
    paint,
    stepped,
    wanted,
    write,
)

__all__ = ["Embeddings", "Reweighting", "make", "weights"]

#: Words for what a defect looks like, and for where it is.
_WORDS, _PLACES = 8, 4
#: Channels of the encoder of masks.
_WIDTH = 16
#: Crops from which a type's first words are chosen.
_FIRST = 8
_PROMPTS = Prompts(*(np.zeros(1, np.int64),) * 3)


def make(
    shots: Sequence[Sample],
    good: Sequence[Sample],
    count: int,
    seed: int,
    out: Path,
    *,
    steps: int = 250,
    batch: int = 4,
    rate: float = 0.005,
    sampling: int = 16,
    reweighted: bool = True,
) -> None:
    """Write ``count`` labelled pictures of each type of the shots; those that are there stay.

    steps       of learning the words of all types, in batches of ``batch`` at ``rate``
    sampling    steps of DDIM
    reweighted  False leaves attention as it is, to see what re-weighting does
    """
    base = Base(sampling)
    pictures = wanted(shots, good, count, seed, base.window)
    learned = learn(base, shots, good, seed, steps=steps, batch=batch, rate=rate)
    attention = Reweighting.into(base)
    for picture in each(pictures, "anomaly diffusion: pictures"):
        if finished(out, picture):
            continue
        target = _Target(base, learned, attention if reweighted else None, picture)
        tiles = picture.tiles(base.window)
        made = paint(picture.good.image, tiles, base.window, base.cells, target.make)
        write(out, picture, *made)


class Embeddings(nn.Module):
    """The words of each type [L,D]: those learned for its looks, those of a mask, and the rest."""

    def __init__(self, starts: dict[str, Tensor]) -> None:
        """From the first words [1,L,D] of each type; before learning, all are these."""
        super().__init__()
        self.looks = nn.ParameterDict(
            {name: nn.Parameter(start[:, :_WORDS].clone()) for name, start in starts.items()}
        )
        self._starts = starts
        width = next(iter(starts.values())).shape[-1]
        channels = [1, _WIDTH, 2 * _WIDTH, 4 * _WIDTH]
        self.levels = nn.ModuleList(
            nn.Conv2d(channels[i], channels[i + 1], 3, stride=2, padding=1) for i in range(3)
        )
        self.places = nn.Linear(4 * sum(channels[1:]), _PLACES * width)
        nn.init.zeros_(self.places.weight)
        nn.init.zeros_(self.places.bias)

    def forward(self, names: Sequence[str], mask: Tensor) -> Tensor:
        """Prompts [B,L,D] of types under masks [B,1,h,w] in {0,1}."""
        x, seen = mask, []
        for level in self.levels:
            x = F.silu(level(x))
            seen.append(F.adaptive_avg_pool2d(x, 2).flatten(1))
        where = self.places(torch.cat(seen, dim=1)).unflatten(1, (_PLACES, -1))
        start = torch.cat([self._starts[name] for name in names])
        looks = torch.cat([self.looks[name] for name in names])
        first = start[:, _WORDS : _WORDS + _PLACES] + where
        return torch.cat([looks, first, start[:, _WORDS + _PLACES :]], dim=1)


def learn(
    base: Base,
    shots: Sequence[Sample],
    good: Sequence[Sample],
    seed: int,
    *,
    steps: int,
    batch: int,
    rate: float,
) -> Embeddings:
    """Fit the words of all types and the encoder of masks to the shots."""
    vary = Augmentation(turn=not is_directed(good))

    def crops_of(own: Sequence[Sample]) -> Crops:
        return Crops(own, base.window, good=0.0, seed=seed, augmentation=vary)

    starts = {
        name: base.nearest_prompt(crops_of(own).batch(0, _FIRST), seed)
        for name, own in by_type(shots).items()
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        learned = Embeddings(starts)
    crops = crops_of(shots)

    def prompts(drawn: Batch) -> Tensor:
        cells = nn.functional.adaptive_max_pool2d(torch.from_numpy(drawn.mask), base.cells)
        return learned(drawn.defect_types, cells)

    learn_prompts(
        base,
        list(learned.parameters()),
        lambda step: crops.batch(step, batch),
        prompts,
        steps=steps,
        rate=rate,
        seed=seed,
        label="anomaly diffusion: words",
    )
    return learned.requires_grad_(False)


def weights(mask: Floats, good: Floats, foreseen: Floats) -> Floats:
    """More than 1 where a defect does not show yet, less where it does; 1 outside the mask.

    mask [B,1,h,w] in {0,1}; good, foreseen [B,C,h,w], latents. Their mean over a mask is 1.
    """
    out = np.ones_like(mask)
    for row, inside in enumerate(mask[:, 0] > 0):
        if inside.any():
            apart = ((good[row] - foreseen[row]) ** 2).sum(axis=0)[inside]
            alike = np.exp(1 / (1 + apart / max(float(apart.mean()), 1e-12)))
            out[row, 0][inside] = inside.sum() * alike / alike.sum()
    return out


class Reweighting:
    """By how much each cell's cross-attention counts: [B,1,h,w], or None for 1 everywhere."""

    def __init__(self) -> None:
        """All the same at first."""
        self.weights: Tensor | None = None

    @classmethod
    def into(cls, base: Base) -> Reweighting:
        """Give every cross-attention layer of a base the re-weighted processor."""
        reweighting = cls()
        for module in base.net.modules():
            if isinstance(module, Attention) and module.is_cross_attention:
                module.set_processor(_Reweighted(reweighting))
        return reweighting


class _Reweighted(MaskedCrossAttention):
    """Masked cross-attention, its map multiplied by the weights: so is what it hands on."""

    def __init__(self, reweighting: Reweighting) -> None:
        self._reweighting = reweighting

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        masking: Masking | None = None,
    ) -> Tensor:
        """hidden_states [B,N,C] -> [B,N,C]."""
        out = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, masking)
        if (given := self._reweighting.weights) is None or masking is None:
            return out
        mask = level_mask(masking.mask, hidden_states.shape[1])
        size = mask.shape[-2:]
        # the mean over those cells of a coarser one that are in the mask
        share = F.adaptive_avg_pool2d(masking.mask, size).clamp(min=1e-6)
        mean = F.adaptive_avg_pool2d(given * masking.mask, size) / share
        factor = torch.where(mask > 0, mean, 1.0).flatten(1).unsqueeze(2)
        bias = attn.to_out[0].bias
        shift = 0.0 if bias is None else bias
        return (out - shift) * factor + shift


class _Target:
    """Paints under a picture's masks with the words of its type."""

    def __init__(
        self, base: Base, learned: Embeddings, attention: Reweighting | None, picture: Wanted
    ) -> None:
        self._base, self._learned, self._attention = base, learned, attention
        self._picture, self._tile = picture, 0
        self._ground = base.prompt(BACKGROUND)

    def make(self, view: View) -> tuple[Floats, Floats]:
        """What is there and what becomes of it, [3,S,S] each."""
        base, mask = self._base, view.latent_mask
        z0 = base.encode(view.pixels[None])
        noise = normal(self._picture.seed, self._tile, 0, z0.shape)
        self._tile += 1
        words = self._learned([self._picture.defect_type], torch.from_numpy(mask))
        foreseen = None

        def step(rows: Rows) -> tuple[Floats, Floats]:
            nonlocal foreseen
            timestep = int(rows.timestep[0])
            if self._attention and foreseen is not None:
                self._attention.weights = torch.from_numpy(weights(mask, z0, foreseen))
            try:
                epsilon = base.epsilon(rows.latent, timestep, mask, words, self._ground)
            finally:
                if self._attention:
                    self._attention.weights = None
            alpha = np.float32(base.alphas[timestep])
            foreseen = (rows.latent - (1 - alpha) ** 0.5 * epsilon) / alpha**0.5
            return stepped(rows, epsilon), np.zeros_like(mask)

        path = noised(z0, mask, noise, base.schedule)
        made = run(step, generate(path, mask, noise, _PROMPTS, base.schedule, "noised")).latent
        before, after = base.decode(np.concatenate([z0, made]))
        return before, after
