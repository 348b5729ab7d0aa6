"""Self-attention in as few columns as a head has.

    out = softmax(q kᵀ/√d) v

Shapes: q, k, v [B,H,N,d], any strides; out [B,H,N,d].

Libraries compute heads of 40 columns in kernels for 64 and heads of 80 in kernels for 96; here a
head is a power of two and a rest, 40 = 32 + 8 in 48 columns and 80 = 64 + 16 in 80. That is 4 % of
a picture of 512 px on an RTX 4090 at most, and nothing on an H100, which waits for exponentials
(docs/performance.md). So nothing runs it: it waits for a card that shows it to be faster.
"""

from .reference import self_attention

__all__ = ["self_attention"]
