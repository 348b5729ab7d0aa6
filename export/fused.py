"""Put the fused operators into a U-Net: GEGLU, and group normalisation with SiLU.

A compiled U-Net wants the first only: a compiler cannot move GEGLU's gate into its matrix product,
while it fuses normalisation and SiLU itself (docs/decisions/0012). Without a compiler, both save
memory traffic.
"""

from __future__ import annotations

import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from defectrt.kernels.geglu import geglu
from defectrt.kernels.group_norm_silu import group_norm_silu

__all__ = ["fuse_geglu", "fuse_group_norm", "split_geglu"]


class _Geglu(nn.Module):
    """A GEGLU layer whose gate is applied inside its matrix product."""

    def __init__(self, layer: GEGLU) -> None:
        super().__init__()
        self.proj = layer.proj

    def forward(self, hidden_states: Tensor) -> Tensor:
        return geglu(hidden_states, self.proj.weight, self.proj.bias)


class _SplitGeglu(nn.Module):
    """A GEGLU layer as two products of half the width, whose results need not be cut apart."""

    def __init__(self, layer: GEGLU) -> None:
        super().__init__()
        weights, biases = layer.proj.weight.chunk(2), layer.proj.bias.chunk(2)
        self.weight, self.gate_weight = (nn.Parameter(w.clone(), False) for w in weights)
        self.bias, self.gate_bias = (nn.Parameter(b.clone(), False) for b in biases)

    def forward(self, hidden_states: Tensor) -> Tensor:
        gate = F.gelu(F.linear(hidden_states, self.gate_weight, self.gate_bias))
        return F.linear(hidden_states, self.weight, self.bias) * gate


class _NormSilu(nn.Module):
    """A group normalisation and the SiLU behind it."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        return group_norm_silu(x, norm.num_groups, norm.weight, norm.bias, norm.eps)


def fuse_geglu(unet: nn.Module) -> int:
    """Replace every GEGLU layer in place; returns how many there were."""
    return _replace_geglu(unet, _Geglu)


def split_geglu(unet: nn.Module) -> int:
    """Split every GEGLU layer in place; returns how many there were.

    ONNX Runtime's CPU provider is 3 to 4 % faster so (docs/performance.md).
    """
    return _replace_geglu(unet, _SplitGeglu)


def _replace_geglu(unet: nn.Module, kind: type[_Geglu] | type[_SplitGeglu]) -> int:
    found = [
        (parent, name)
        for parent in unet.modules()
        for name, child in parent.named_children()
        if isinstance(child, GEGLU) and child.proj.bias is not None
    ]
    for parent, name in found:
        setattr(parent, name, kind(getattr(parent, name)))
    return len(found)


def fuse_group_norm(unet: UNet2DConditionModel) -> int:
    """Replace every normalisation that SiLU follows, in place; returns how many there were.

    A residual block applies one SiLU module to both its norms and to the time embedding, so that
    module becomes the identity and the embedding's projection gets a SiLU of its own.
    """
    blocks = [
        m
        for m in unet.modules()
        if isinstance(m, ResnetBlock2D)
        and isinstance(m.nonlinearity, nn.SiLU)
        and isinstance(m.norm1, nn.GroupNorm)
        and not m.skip_time_act
    ]
    for block in blocks:
        block.norm1, block.norm2 = _NormSilu(block.norm1), _NormSilu(block.norm2)
        if block.time_emb_proj is not None:
            block.time_emb_proj = nn.Sequential(nn.SiLU(), block.time_emb_proj)
        block.nonlinearity = nn.Identity()
    if isinstance(unet.conv_act, nn.SiLU) and isinstance(unet.conv_norm_out, nn.GroupNorm):
        unet.conv_norm_out, unet.conv_act = _NormSilu(unet.conv_norm_out), nn.Identity()
        return 2 * len(blocks) + 1
    return 2 * len(blocks)
