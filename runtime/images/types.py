"""What an image and a mask are here: arrays, their types and their largest size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_PIXELS", "Bits", "Mask", "Pixels"]

Mask = NDArray[np.bool_]


#: [H,W,C] uint8 or uint16; C is 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha.
Bits = NDArray[np.uint8] | NDArray[np.uint16]


Pixels = NDArray[np.float32]


#: Larger images are refused before they are decoded.
MAX_PIXELS = 100_000_000
