"""The backend that a configuration asks for."""

from __future__ import annotations

from .aoti import Aoti
from .backend import Backend
from .config import BuildConfig
from .graphs import Onnx

__all__ = ["open_backend"]


def open_backend(config: BuildConfig) -> Backend:
    """What makes the files of an engine; TensorRT's door is opened only when it is asked for."""
    if config.backend == "onnx":
        return Onnx("float16" if config.precision == "float16" else "float32", config.half_weights)
    if config.backend == "aoti":
        return Aoti.of(config.device or "cpu", config.precision, config.batch_size)
    from .tensorrt.tensorrt import TensorRT
    from .tensorrt.tensorrt_rtx import TensorRTRTX

    precision, (usual, most) = config.precision or "float16", config.batch_size or (8, 32)
    if config.backend == "tensorrt-rtx":
        return TensorRTRTX(precision, (1, usual, most), capabilities=config.compute_capability)
    return TensorRT(
        precision,
        (1, usual, most),
        plugin=not config.standard_attention,
        weight_streaming=config.weight_streaming,
    )
