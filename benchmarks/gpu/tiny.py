"""The third stage: a tiny model, trained, compiled and run on the device, beside the CPU's.

Pictures of the same run, masks and noise: of an ONNX engine on the CPU, and of engines compiled
for the device in every precision that it has.
"""

from __future__ import annotations

import time
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectrt import Synthesizer, Workpiece
from defectrt.engines.manifest import read_manifest
from defectrt.export.aoti import Aoti
from defectrt.export.backend import Backend
from defectrt.export.build import build
from defectrt.export.graphs import Onnx
from defectrt.images.png import encode_png
from defectrt.training.config import TrainConfig
from defectrt.training.data.samples import Sample
from defectrt.training.loop.train import train
from defectrt.training.models.stable_diffusion import SIZES, hide_progress_bars, new_model

from .stage import Context

Picture = NDArray[np.uint8]

PICTURES = "pictures.png"
_SIDE = 48
_STEPS = 20


def run(context: Context) -> None:
    """Rows: the training, and of every engine its build and its pictures."""
    hide_progress_bars()
    take = context.results.take
    with TemporaryDirectory() as folder:
        tiny = Tiny(Path(folder), context.device)
        take("train", lambda: tiny.trained)
        for precision in ("float32",) if context.toy else ("float32", "float16"):
            take(f"build aoti {precision}", partial(tiny.built, precision))
            take(f"pictures aoti {precision}", partial(tiny.compared, precision))
        if tiny.pictures:
            sheet = np.vstack([np.hstack(row) for row in tiny.pictures.values()])
            (context.out / PICTURES).write_bytes(encode_png(sheet))


class Tiny:
    """A run and its engines, each made when it is first asked for.

    pictures  source, and the results by engine; rows of the sheet, top to bottom
    """

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self.pictures: dict[str, list[Picture]] = {}

    @cached_property
    def workpieces(self) -> list[Workpiece]:
        """Good surfaces of grain, each with a mask in another place."""
        rng, found = np.random.default_rng(0), []
        for i in range(6):
            grain = rng.normal(150, 10, (_SIDE, _SIDE, 3)).clip(0, 255).astype(np.uint8)
            mask = np.zeros((_SIDE, _SIDE), bool)
            mask[12 + i : 26 + i, 10 : 22 + 2 * i] = True
            found.append(Workpiece(grain, mask, f"{i}"))
        return found

    @cached_property
    def trained(self) -> dict[str, Any]:
        """The run's figures; the run lies in ``folder/run``."""
        samples = []
        for piece in self.workpieces:
            image, mask = np.asarray(piece.image).copy(), np.asarray(piece.mask)
            image[mask] //= 2
            path = self.folder / f"{piece.name}.png"
            path.write_bytes(encode_png(image))
            samples.append(Sample(path, "spot", image, mask))
        config = TrainConfig(steps=_STEPS, batch_size=4, learning_rate=1e-3, window=32)
        model = new_model(SIZES["tiny"], prediction_type="v_prediction")
        start = time.perf_counter()
        train(
            model, samples, config, self.folder / "run", base_model="tiny", device=self.device,
            quiet=True,
        )  # fmt: skip
        return {"steps": _STEPS, "train_s": time.perf_counter() - start}

    def _engine(self, backend: Backend) -> Path:
        """An engine of the run."""
        assert self.trained
        out = self.folder / f"{backend.name}-{backend.precision}"
        return out if out.exists() else build(self.folder / "run", out, backend, steps=(10,),
                                              quiet=True)  # fmt: skip

    def _aoti(self, precision: Any) -> Path:
        return self._engine(Aoti.of(self.device, precision, ()))  # type: ignore[arg-type]

    def built(self, precision: str) -> dict[str, Any]:
        """Seconds of a build, and how far the engine is from PyTorch."""
        start = time.perf_counter()
        directory = self._aoti(precision)
        record = read_manifest(directory).provenance.run
        return {"build_s": time.perf_counter() - start, "self_check": record["self_check"]}

    def _made(self, directory: Path) -> list[Picture]:
        """A picture a workpiece, the model's own pixels under the mask, whatever they show."""
        trust = read_manifest(directory).fingerprint
        options = {"blend": "decoded", "min_change": 0, "min_grain": 0}
        options |= {"min_coverage": 0, "max_leak": 1e9}
        with Synthesizer(engine=directory, trust=trust, batch_size=8, **options) as synthesizer:
            results = list(synthesizer.run(self.workpieces))
        faults = [result.fault for result in results if result.fault]
        if faults:
            raise RuntimeError(f"{directory.name}: no defect: {faults[0]}")
        return [np.asarray(result.image, np.uint8) for result in results]

    @cached_property
    def reference(self) -> list[Picture]:
        """The CPU's pictures."""
        made = self._made(self._engine(Onnx()))
        self.pictures["source"] = [np.asarray(piece.image) for piece in self.workpieces]
        self.pictures["onnx cpu"] = made
        return made

    def compared(self, precision: str) -> dict[str, Any]:
        """Grey levels between the device's pictures and the CPU's, and how much was painted."""
        expected = self.reference
        directory = self._aoti(precision)
        start = time.perf_counter()
        found = self.pictures[precision] = self._made(directory)
        seconds = time.perf_counter() - start
        away = np.abs(np.stack(found).astype(int) - np.stack(expected))
        sources = np.stack([np.asarray(piece.image) for piece in self.workpieces])
        return {
            "max_grey": int(away.max()),
            "mean_grey": float(away.mean()),
            "painted_grey": float(np.abs(np.stack(expected).astype(int) - sources).max()),
            "seconds": seconds,
        }
