"""Matrix products inside kernels."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["dot"]

#: Triton's interpreter keeps bfloat16 as bit patterns and multiplies those, so operands are
#: widened there first. That changes no value: products are summed in float32 either way.
_WIDEN = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a @ b in float32; PRECISION says how float32 operands are multiplied."""
    if _WIDEN:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)
