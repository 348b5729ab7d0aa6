"""A graph whose inputs and outputs stay where they are on a device, for batch after batch."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort

from ..diffusion.rows import Floats
from .signature import Array, Signature

__all__ = ["BoundSession"]


class BoundSession:
    """A session with memory on its device for one size of batch, until another size comes.

    Without it a run on a GPU takes new memory for every input and output, each time. A scheduler's
    batches are all of one size, so the memory is taken once, and addresses stay the same.
    """

    def __init__(self, session: ort.InferenceSession, signature: Signature, device: str) -> None:
        """device is ONNX Runtime's name of where the provider computes."""
        self._session, self._signature, self._device = session, signature, device
        self._lock, self._rows = threading.Lock(), 0
        self._inputs: dict[str, ort.OrtValue] = {}
        self._outputs: dict[str, ort.OrtValue] = {}

    def run(
        self, names: list[str], feeds: Mapping[str, Any], options: ort.RunOptions
    ) -> list[Floats]:
        """Outputs by name, as copies; one call at a time has the memory."""
        with self._lock:
            rows = len(next(iter(feeds.values())))
            if rows != self._rows:
                self._bind(rows)
            for name, array in feeds.items():
                self._inputs[name].update_inplace(np.ascontiguousarray(array))
            self._session.run_with_iobinding(self._binding, options)
            return [np.array(self._outputs[name].numpy()) for name in names]

    def _bind(self, rows: int) -> None:
        self._rows = 0  # should memory run out here, the next call begins anew
        self._binding = self._session.io_binding()
        self._inputs = {n: self._take(a, rows) for n, a in self._signature.inputs.items()}
        self._outputs = {n: self._take(a, rows) for n, a in self._signature.outputs.items()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        self._rows = rows

    def _take(self, array: Array, rows: int) -> ort.OrtValue:
        shape = [rows if s == "B" else s for s in array.shape]
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, array.kind, self._device)
