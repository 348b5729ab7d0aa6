"""The step of both branches, Eqs. 3 and 9, in one pass over the latents.

    row     z'  = region · (a z + b ε) + anchor
    dual    z^m' = (1-m) (a z^m + b ε^m)        z*' = m (a z* + b ε*) + z^m'
    start   z^m' = (1-m) (a z^m + b ε^m)        z*' = m n + z^m'

`row_step` is the form that every row of the method has; `dual_step` computes both branches of
Eq. 9; `start_step` is the last step of the inversion, which also makes z*_T: the defect branch
starts from noise n under the mask. The noise is Philox4x32-10 and Box-Muller in float64, the
numbers of `defectrt.diffusion.noise`.

Shapes: latents and anchor [B,C,h,w] float32, ε of any float dtype and memory format, masks and
regions [B,1,h,w] float32, a, b [B] float32. m is binary.
"""

from .operator import dual_step, row_step, start_step
from .reference import normal

__all__ = ["dual_step", "normal", "row_step", "start_step"]
