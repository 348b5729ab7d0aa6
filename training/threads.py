"""Threads of PyTorch on a CPU."""

from __future__ import annotations

import torch

from defectrt.cores import cores, threads_of

__all__ = ["set_threads"]


def set_threads(wanted: int | None) -> None:
    """Let PyTorch compute with ``wanted`` threads, see `defectrt.cores.threads_of`.

    By default with as many as it would take (``OMP_NUM_THREADS`` counts), and no more than there
    are cores: it knows nothing of a container's quota.
    """
    torch.set_num_threads(
        min(torch.get_num_threads(), cores()) if wanted is None else threads_of(wanted)
    )
