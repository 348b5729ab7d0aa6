"""Diffusers attention processors for masked inside-outside cross-attention (Eqs. 10, 11).

A U-Net with these processors takes its mask through ``cross_attention_kwargs={"masking": …}``
and both prompts, one behind the other along the tokens, as ``encoder_hidden_states``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isqrt

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

from defectrt.kernels.masked_attention import attention_map, concatenated_softmax, resize_mask

__all__ = ["MaskedCrossAttention", "Masking", "level_mask", "mask_cross_attention", "split_heads"]


@dataclass
class Masking:
    """What the processors need beside the hidden states.

    mask     [B,1,h,w] in {0,1} at latent resolution
    content  [B,L] weights of the inside prompt's content tokens; None collects no maps
    maps     filled with one [B,1,h',w'] map a cross-attention layer, in order of execution
    """

    mask: Tensor
    content: Tensor | None = None
    maps: list[Tensor] = field(default_factory=list)


def level_mask(mask: Tensor, tokens: int) -> Tensor:
    """The mask at the level that has ``tokens`` queries: [B,1,h,w] -> [B,1,h',w']."""
    h, w = mask.shape[-2:]
    factor = isqrt(h * w // tokens)
    return resize_mask(mask, (h // factor, w // factor))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B,N,H·d] -> [B,H,N,d]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class MaskedCrossAttention:
    """Cross-attention to two prompts, chosen per query by the mask."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        masking: Masking | None = None,
    ) -> Tensor:
        """hidden_states [B,N,C], encoder_hidden_states [B,2L,D] = [inside; outside] -> [B,N,C]."""
        if masking is None or encoder_hidden_states is None:
            raise ValueError("masked cross-attention needs a mask and two prompts")
        q = split_heads(attn.to_q(hidden_states), attn.heads)
        k_in, k_out = split_heads(attn.to_k(encoder_hidden_states), attn.heads).chunk(2, dim=2)
        v_in, v_out = split_heads(attn.to_v(encoder_hidden_states), attn.heads).chunk(2, dim=2)
        mask = level_mask(masking.mask, q.shape[2])
        out = concatenated_softmax(q, k_in, v_in, k_out, v_out, mask.flatten(1))
        if masking.content is not None:
            masking.maps.append(attention_map(q, k_in, masking.content).view_as(mask))
        return project_out(attn, out)


def project_out(attn: Attention, heads: Tensor) -> Tensor:
    """Join the heads [B,H,N,d] and apply the layer's output projection."""
    return attn.to_out[1](attn.to_out[0](heads.transpose(1, 2).flatten(2)))


class _SelfAttention(AttnProcessor2_0):
    """Diffusers' own self-attention, which is handed the masking too and has no use for it."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        masking: Masking | None = None,
    ) -> Tensor:
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)


def mask_cross_attention(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Give every cross-attention layer the masked processor; returns the same U-Net."""
    for module in unet.modules():
        if isinstance(module, Attention):
            module.set_processor(
                MaskedCrossAttention() if module.is_cross_attention else _SelfAttention()
            )
    return unet
