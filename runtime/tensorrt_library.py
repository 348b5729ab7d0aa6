"""TensorRT and TensorRT-RTX: one API, two modules, imported only when an engine needs one."""

from __future__ import annotations

from types import ModuleType

from .extras import requires

__all__ = ["CARDS", "library"]

#: Compute capabilities that TensorRT-RTX builds for, with the cards that have them.
CARDS = {
    75: "GeForce RTX 20, Quadro RTX, T4",
    80: "A100, A30",
    86: "GeForce RTX 30, RTX A2000 to A6000, A10, A40",
    89: "GeForce RTX 40, RTX Ada, L4, L40",
    120: "GeForce RTX 50, RTX PRO Blackwell",
    121: "DGX Spark",
}


def library(backend: str) -> ModuleType:
    """The module of ``tensorrt`` or ``tensorrt-rtx``. Raises `MissingExtraError` without it."""
    with requires(backend):
        if backend == "tensorrt-rtx":
            import tensorrt_rtx_libs  # noqa: F401 - loads what the bindings need

            import tensorrt_rtx_bindings as module
        else:
            import tensorrt as module
        if not hasattr(module, "Builder"):  # the folder of a package of types alone
            raise ModuleNotFoundError("no module named 'tensorrt'", name="tensorrt")
    return module
