"""The row step, Eqs. 3, 4 and 9, in one pass over the latents.

    z' = region · (a z + b ε) + anchor

Rows of the inversion, of the background and of the defect all have this form; they differ in
region and anchor.

A compiler makes the same one pass of the formula, so engines run that; the kernel is kept as what
was tried (docs/decisions/0019).

Shapes: z and anchor [B,C,h,w] float32, ε of any float dtype and memory format, region [B,1,h,w]
float32, a, b [B] float32.
"""

from .operator import row_step

__all__ = ["row_step"]
