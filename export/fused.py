"""Change a U-Net's GEGLU layers into a form that is faster where it runs.

A compiler cannot move GEGLU's gate into its matrix product; the kernel does (docs/decisions/0012).
"""

from __future__ import annotations

import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from torch import Tensor, nn

from defectrt.kernels.geglu import geglu

__all__ = ["fuse_geglu", "split_geglu"]


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
