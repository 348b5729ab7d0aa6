"""Networks with narrow products: weights of 16 bits, norms and their statistics in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["TYPES", "Narrowed", "narrow", "round_weights"]

TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def narrow(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast weights to ``dtype`` in place, all but those of norms, which stay float32.

    What enters a norm is cast up and what leaves it down, so that an exported graph says in its
    types that statistics are float32.
    """
    for part in module.modules():
        if _is_norm(part):
            part.register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))
            part.register_forward_hook(lambda _, inputs, out: out.to(dtype))
        else:
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                tensor.data = tensor.data.to(dtype) if tensor.is_floating_point() else tensor.data


class Narrowed(nn.Module):
    """An encoder or decoder with a narrow autoencoder, and float32 at its boundary."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        """``module`` has its autoencoder as ``vae``, which is changed in place."""
        super().__init__()
        narrow(module.vae, dtype)
        self.module, self.dtype = module, dtype

    def forward(self, **inputs: Tensor) -> Tensor:
        """The one input by its name; float32 in and out."""
        return self.module(*(x.to(self.dtype) for x in inputs.values())).float()


@torch.no_grad()
def round_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Round in place, and keep as float32, the weights that `narrow` would cast."""
    for part in module.modules():
        for parameter in () if _is_norm(part) else part.parameters(recurse=False):
            parameter.copy_(parameter.to(dtype))


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.GroupNorm | nn.LayerNorm)
