"""The denoiser graph IS the row step: one module from (z, t, mask, prompts, a, b, …) to z'."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from defectrt.diffusion.schedule import to_epsilon
from defectrt.errors import UsageError
from defectrt.kernels.masked_attention import (
    attention_map,
    concatenated_softmax,
    masked_attention,
    masked_attention_map,
)
from defectrt.kernels.row_step import row_step
from defectrt.training.models.attention import (
    level_mask,
    mask_cross_attention,
    project_out,
    split_heads,
)
from defectrt.training.models.stable_diffusion import StableDiffusion

__all__ = ["RowStep", "map_size", "masked_cross_attention"]


def masked_cross_attention(
    q: Tensor, k_in: Tensor, v_in: Tensor, k_out: Tensor, v_out: Tensor, inside: Tensor
) -> Tensor:
    """Eqs. 10 and 11, kept whole as one ONNX function while exporting; inside [B,N] bool.

    Other shapes as in `defectrt.kernels.masked_attention`.
    """
    inputs = (q, k_in, v_in, k_out, v_out, inside)
    if torch.onnx.is_in_onnx_export():
        return torch.onnx.ops.symbolic(
            "defectrt::MaskedCrossAttention", inputs, dtype=q.dtype, shape=q.shape, version=1
        )
    return concatenated_softmax(*inputs)


@dataclass
class _Row:
    """What the processors need: the mask, each row's prompts, and where the maps go.

    content is each row's [B,L], or with kernels, which choose, that of all prompts [P,L].
    """

    mask: Tensor
    inside: Tensor
    outside: Tensor
    content: Tensor
    largest_map: int
    kernels: bool
    maps: list[Tensor] = field(default_factory=list)


class _PromptTable(nn.Module):
    """Masked cross-attention whose keys and values were computed at build time.

    k, v [P,L,H·d]: this layer's projections of all P prompts; rows pick theirs by index.
    """

    def __init__(self, attn: Attention, embeddings: Tensor) -> None:
        super().__init__()
        self.register_buffer("k", attn.to_k(embeddings).detach().clone())
        self.register_buffer("v", attn.to_v(embeddings).detach().clone())

    def __call__(  # not forward: diffusers looks at this signature for what to hand over
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        masking: _Row | None = None,
    ) -> Tensor:
        assert masking is not None
        q = split_heads(attn.to_q(hidden_states), attn.heads)
        mask = level_mask(masking.mask, q.shape[2])
        mapped = mask.shape[-1] <= masking.largest_map
        if masking.kernels:
            return project_out(attn, self._fused(q, masking, mask, mapped))
        (k_in, v_in), (k_out, v_out) = (
            [split_heads(table.index_select(0, prompt), attn.heads) for table in (self.k, self.v)]
            for prompt in (masking.inside, masking.outside)
        )
        if mapped:
            masking.maps.append(attention_map(q, k_in, masking.content).view_as(mask))
        inside = mask.flatten(1) > 0
        return project_out(attn, masked_cross_attention(q, k_in, v_in, k_out, v_out, inside))

    def _fused(self, q: Tensor, masking: _Row, mask: Tensor, mapped: bool) -> Tensor:
        """The same as one kernel, which reads the tables where they lie."""
        k, v = (split_heads(table, q.shape[1]) for table in (self.k, self.v))
        operands = (q, k, v, masking.inside, masking.outside, (mask.flatten(1) > 0).float())
        if not mapped:
            return masked_attention(*operands)
        out, share = masked_attention_map(*operands, masking.content)
        masking.maps.append(share.view_as(mask))
        return out


class RowStep(nn.Module):
    """z' = region · (a z + b ε_θ(z, t, prompts)) + anchor, and the attention map.

    Takes a copy of the model's U-Net, so that the model stays as it was. ε-, v- and
    x0-prediction are folded in; latents and schedule are float32, the U-Net may be float16 or
    bfloat16. Attention and update are PyTorch's, or with ``kernels`` the operators of
    `defectrt.kernels`, which are worth less than 3 % of a picture (docs/decisions/0019).
    """

    def __init__(
        self,
        model: StableDiffusion,
        embeddings: Tensor,
        content: Tensor,
        map_side: int,
        *,
        kernels: bool = False,
    ) -> None:
        """embeddings [P,L,D] and content [P,L] of all prompts; map_side is r."""
        super().__init__()
        self.kernels = kernels
        self.unet = mask_cross_attention(deepcopy(model.unet)).eval()
        for module in list(self.unet.modules()):
            if isinstance(module, Attention) and module.is_cross_attention:
                module.set_processor(_PromptTable(module, embeddings))
                # the tables stand in for these; without them the file is smaller
                del module.to_k, module.to_v
        self.register_buffer("content", content)
        alphas = torch.tensor(model.noise_schedule.alphas_cumprod, dtype=torch.float32)
        self.register_buffer("alphas", alphas)
        self.prediction_type, self.map_side = model.prediction_type, map_side

    def forward(
        self,
        latent: Tensor,
        timestep: Tensor,
        mask: Tensor,
        inside: Tensor,
        outside: Tensor,
        a: Tensor,
        b: Tensor,
        region: Tensor,
        anchor: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Shapes as in `defectrt.diffusion.rows.Rows`; (z' [B,C,h,w], attention [B,1,r,r])."""
        content = self.content if self.kernels else self.content.index_select(0, inside)
        row = _Row(mask, inside, outside, content, self.map_side, self.kernels)
        prediction = self.unet(
            latent.to(self.unet.dtype),
            timestep,
            None,
            cross_attention_kwargs={"masking": row},
            return_dict=False,
        )[0].to(latent)
        alpha = self.alphas.index_select(0, timestep).view(-1, 1, 1, 1)
        epsilon = to_epsilon(self.prediction_type, prediction, latent, alpha)
        if self.kernels:
            return row_step(latent, epsilon, a, b, region, anchor), self._mean(row.maps)
        a, b = (x.view(-1, 1, 1, 1) for x in (a, b))
        return region * (a * latent + b * epsilon) + anchor, self._mean(row.maps)

    def _mean(self, maps: list[Tensor]) -> Tensor:
        """Mean over the layers, each resized to r x r (Eq. 13 leaves the choice open)."""
        size = (self.map_side, self.map_side)
        resized = [
            m if m.shape[-2:] == size else F.interpolate(m, size, mode="bilinear") for m in maps
        ]
        return torch.stack(resized).mean(0)


def map_size(model: StableDiffusion, wanted: int | None = None) -> int:
    """The side r of the attention map: one of the levels that attend to the prompts.

    By default the largest level up to max(16, h/4): finer maps are noisier, coarser ones cannot
    follow a small defect. Raises `UsageError` naming the levels if ``wanted`` is none of them.
    """
    config = model.unet.config
    side = int(config.sample_size)
    levels = [
        side >> i for i, kind in enumerate(config.down_block_types) if kind.startswith("CrossAttn")
    ]
    if wanted is None:
        fitting = [level for level in levels if level <= max(16, side // 4)]
        return max(fitting, default=min(levels))
    if wanted not in levels:
        raise UsageError(f"map size {wanted}: this model attends at {', '.join(map(str, levels))}")
    return wanted
