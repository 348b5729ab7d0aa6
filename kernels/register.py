"""Registering operators with PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch

__all__ = ["operator", "traceable"]


def operator(name: str) -> Callable[[Callable], Any]:
    """Decorate what launches a kernel as ``defectrt::name``, which changes none of its arguments.

    A compiler sees the Triton kernels inside. Where Triton is not installed the operator is
    registered all the same, for its form on the CPU, and a compiler sees nothing inside.
    """
    register = torch.library.triton_op if find_spec("triton") else torch.library.custom_op
    return register(f"defectrt::{name}", mutates_args=())


def traceable(kernel: Any) -> Any:
    """A Triton kernel, launched by ``traceable(kernel)[grid](…)``, that a compiler sees inside.

    It runs on the card that its tensors are on, whichever is the current one. An interpreted kernel
    is not compiled and returned as it is: PyTorch before 2.12 refuses it.
    """
    from triton.runtime.jit import JITFunction

    if not isinstance(kernel, JITFunction):
        return kernel
    return _OnItsCard(torch.library.wrap_triton(kernel))


class _OnItsCard:
    """A kernel that is launched on its first tensor's card: Triton takes the current one."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*arguments: Any, **constants: Any) -> None:
            with _current(next(x for x in arguments if isinstance(x, torch.Tensor))):
                self._kernel[grid](*arguments, **constants)

        return launch


def _current(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Make a tensor's card the current one; what a compiler traces with is on none."""
    if type(tensor) is torch.Tensor and tensor.is_cuda:
        return torch.cuda.device(tensor.device)
    return nullcontext()
