"""Which precision trains fastest on a device."""

from __future__ import annotations

from time import process_time
from typing import Literal

import torch

__all__ = ["fastest"]

#: Repetitions that are timed; the best counts, since other work disturbs the rest.
_TIMES = 3


def fastest(device: torch.device) -> Literal["float32", "bfloat16"]:
    """``bfloat16`` on a card that has it; on a CPU whichever convolves faster, by a short trial.

    Processors without instructions for bfloat16 emulate it, ten times slower than float32.
    """
    if device.type != "cpu":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    slow, quick = (_seconds(dtype) for dtype in (torch.float32, torch.bfloat16))
    return "bfloat16" if quick < slow else "float32"


def _seconds(dtype: torch.dtype) -> float:
    layer = torch.nn.Conv2d(64, 64, 3, padding=1, dtype=dtype)
    rows = torch.zeros(8, 64, 24, 24, dtype=dtype)
    layer(rows)
    times = []
    for _ in range(_TIMES):
        start = process_time()
        layer(rows)
        times.append(process_time() - start)
    return min(times)
