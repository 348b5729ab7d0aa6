"""Registering operators with PyTorch."""

from __future__ import annotations

from collections.abc import Callable
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

    An interpreted kernel is not compiled and returned as it is: PyTorch before 2.12 refuses it.
    """
    from triton.runtime.jit import JITFunction

    return torch.library.wrap_triton(kernel) if isinstance(kernel, JITFunction) else kernel
