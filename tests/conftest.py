"""Shared by the tests: small images, an engine without a network, and one real tiny engine.

This is imported by every process of a check, before any test: what takes long to import is imported
where it is used.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import settings
from support.built import built, built_from
from support.fake_engine import FakeEngine
from support.outputs import save

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test is timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Triton reads this once, when it is first imported: without a GPU, kernels are interpreted.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_ignore_collect(collection_path, config):
    """Files that are slow as a whole need not be imported for the quick check."""
    quick = config.option.markexpr == "not slow" and collection_path.suffix == ".py"
    return (
        True
        if quick
        and "\npytestmark = pytest.mark.slow\n" in collection_path.read_text(encoding="utf-8")
        else None
    )


@pytest.fixture
def opened_as(monkeypatch):
    """Have an engine opened, whatever is asked for; returns it."""

    def use(engine):
        monkeypatch.setattr("defectrt.engines.loading.load_engine", lambda *_, **__: engine)
        return engine

    return use


@pytest.fixture
def fake_engine(opened_as, tmp_path):
    """Make `synthesize` open a `FakeEngine`; returns the directory to name and the engine."""
    engine, directory = opened_as(FakeEngine()), tmp_path / "engine"
    directory.mkdir()
    (directory / "engine.json").write_text("{}")
    return directory, engine


@pytest.fixture
def fake(fake_engine):
    """The engine of `fake_engine`, for what is opened by no directory."""
    return fake_engine[1]


@pytest.fixture
def parts(tmp_path):
    """Three good images with masks: grey, RGB and 16-bit grey."""
    rng = np.random.default_rng(0)
    images, masks = tmp_path / "images", tmp_path / "masks"
    for i, (h, w) in enumerate([(60, 80), (48, 40), (50, 50)]):
        grain = rng.normal(0.6, 0.03, (h, w, 3)).clip(0, 1)
        image = [
            (grain[..., 0] * 255).astype(np.uint8),
            (grain * 255).astype(np.uint8),
            (grain[..., 0] * 65535).astype(np.uint16),
        ][i]
        save(images / f"{i}.png", image)
        mask = np.zeros((h, w), np.uint8)
        mask[20:28, 10 + i : 20 + i] = 255
        save(masks / f"{i}_mask.png", mask)
    return images, masks


@pytest.fixture
def go(parts, fake_engine, tmp_path):
    """Run the job on the parts; returns the folder and the summary."""
    from defectrt.synthesis.job import synthesize

    images, masks = parts

    def run(name="out", **options):
        out = tmp_path / name
        options = {"engine": fake_engine[0], "masks": masks} | options
        return out, synthesize(images, out, quiet=True, **options)

    return run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A training run of a few steps on drawn instances and lines; its images lie beside it."""
    return built("run", _train, tmp_path_factory.mktemp("run") / "beside") / "run"


def _train(folder):
    from defectrt.training.config import TrainConfig
    from defectrt.training.data.samples import Sample
    from defectrt.training.loop.train import train
    from defectrt.training.models.stable_diffusion import SIZES, new_model

    rng, samples = np.random.default_rng(0), []
    for i, defect_type in enumerate(["spot", "line"]):
        image = rng.normal(150, 10, (40, 40, 3)).clip(0, 255).astype(np.uint8)
        mask = np.zeros((40, 40), bool)
        mask[10:18, 10 : 18 + 10 * i] = True
        (folder / f"{i}.bin").write_bytes(image.tobytes())
        samples.append(Sample(folder / f"{i}.bin", defect_type, image, mask))
    config = TrainConfig(steps=3, batch_size=2, learning_rate=1e-3, window=32)
    model = new_model(SIZES["tiny"], prediction_type="v_prediction")
    train(model, samples, config, folder / "run", quiet=True, base_model="tiny")


@pytest.fixture(scope="session")
def engine(run, tmp_path_factory):
    """A real engine directory; beside it ``graphs``, as they were exported."""

    def make(folder):
        from support.graphs import kept

        from defectrt.export.build import build

        with kept(folder / "graphs"):
            build(run, folder / "tiny", steps=(4, 2), quiet=True)

    copy = tmp_path_factory.mktemp("engine") / "of"
    return built("engine", make, copy, of=built_from(run)) / "tiny"


@pytest.fixture
def filled_graphs(engine, monkeypatch):
    """Tiny models of v-prediction become ONNX engines without another export."""
    from support.graphs import EXPORT, filled

    monkeypatch.setattr(EXPORT, filled(engine.parent / "graphs"))


@pytest.fixture(scope="session")
def float16_engine(run, tmp_path_factory):
    """The same run with the U-Net's products in float16; its ``graphs`` beside it."""

    def make(folder):
        from support.graphs import kept

        from defectrt.export.build import build
        from defectrt.export.graphs import Onnx

        with kept(folder / "graphs"):
            build(run, folder / "narrow", Onnx("float16"), steps=(4, 2), quiet=True)

    copy = tmp_path_factory.mktemp("float16") / "of"
    return built("float16", make, copy, of=built_from(run)) / "narrow"


@pytest.fixture(scope="session")
def rtx(run, engine, tmp_path_factory):
    """A float16 engine for RTX cards, and the folder of graphs that it was built from."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="the extra tensorrt-rtx is not installed")

    def make(folder):
        from support.graphs import AUTOENCODER, PLANS, filled

        from defectrt.export.build import build
        from defectrt.export.tensorrt.tensorrt_rtx import TensorRTRTX

        class Kept(TensorRTRTX):
            def open(self, directory, manifest):
                shutil.copytree(self._graphs.name, folder / "graphs")
                return super().open(directory, manifest)

        backend = Kept("float16", (1, 4, 8), capabilities=(89, 120))
        with patch(PLANS, filled(engine.parent / "graphs", AUTOENCODER)):
            build(run, folder / "engine", backend, steps=(4, 2), quiet=True)

    folder = built("rtx", make, tmp_path_factory.mktemp("rtx") / "of", of=built_from(run))
    return folder / "engine", folder / "graphs"


@pytest.fixture(scope="session")
def rtx_here(run, tmp_path_factory):
    """An exact engine for the card that is here."""
    from defectrt.engines.tensorrt_engine import Card
    from defectrt.export.build import build
    from defectrt.export.tensorrt.tensorrt_rtx import TensorRTRTX

    backend = TensorRTRTX("float32", (1, 4, 8), capabilities=(Card().capability(),))
    return build(run, tmp_path_factory.mktemp("here") / "rtx", backend, steps=(4, 2), quiet=True)


@pytest.fixture(scope="session")
def pretended_rtx(engine, tmp_path_factory):
    """A directory as of an engine for RTX cards, whose plans `pretended_card` can run."""
    import onnx

    from defectrt.engines.manifest import hash_file

    directory = tmp_path_factory.mktemp("pretended") / "engine"
    directory.mkdir()
    for name in ("encoder", "denoiser", "decoder"):
        graph = onnx.load(engine / f"{name}.onnx")
        (directory / f"{name}.engine").write_bytes(graph.SerializeToString())
    content = json.loads((engine / "engine.json").read_text())
    content["backend"] = "tensorrt-rtx"
    content["files"] = {p.name: hash_file(p).model_dump() for p in directory.iterdir()}
    content["target"] = {
        "device": "cuda",
        "capabilities": ["89", "120"],
        "rows": [1, 4, 8],
        "runtime": {"tensorrt-rtx": "pretended"},
    }
    (directory / "engine.json").write_text(json.dumps(content))
    return directory


@pytest.fixture(scope="session")
def aoti_engine(run, tmp_path_factory):
    """The same run, compiled for this processor; its batches are padded to 2 rows, or 5."""

    def make(folder):
        from defectrt.export.aoti import Aoti
        from defectrt.export.build import build

        build(run, folder / "compiled", Aoti(buckets=(2, 5)), steps=(4, 2), quiet=True)

    copy = tmp_path_factory.mktemp("aoti") / "of"
    return built("aoti", make, copy, of=built_from(run)) / "compiled"


@pytest.fixture(scope="session")
def magnetic_tile():
    """The real dataset, if DEFECTRT_DATA names the folder that holds ``magnetic_tile``."""
    folder = Path(os.environ.get("DEFECTRT_DATA", "")) / "magnetic_tile"
    if not os.environ.get("DEFECTRT_DATA") or not folder.is_dir():
        pytest.skip("set DEFECTRT_DATA to the folder that holds magnetic_tile")
    return folder
