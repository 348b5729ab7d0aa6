"""Shared by the tests: small images, an engine without a network, and one real tiny engine."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

import numpy as np
import pytest
from built import built
from PIL import Image

from defectrt.cli import app, main
from defectrt.diffusion.schedule import NoiseSchedule
from defectrt.engines.manifest import Manifest, hash_file
from defectrt.images.png import encode_png
from defectrt.synthesis.job import synthesize

WINDOW, LATENT = 32, 16

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Triton reads this once, when it is first imported: without a GPU, kernels are interpreted.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def command_line(*words):
    """Run the program in this process; what a process of its own would have answered."""
    words, out, err = ["defectrt", *map(str, words)], io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", words),
        # commands are added at every start
        patch.object(app, "registered_commands", [*app.registered_commands]),
        patch.object(app, "registered_groups", [*app.registered_groups]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())


def manifest_dict(files=None):
    """A valid manifest as plain JSON."""
    schedule = NoiseSchedule.from_config({})
    tables = {
        str(n): {
            "inversion": [list(row) for row in schedule.tables(n).inversion],
            "generation": [list(row) for row in schedule.tables(n).generation],
        }
        for n in (4, 2)
    }
    return {
        "format": "defectrt-engine",
        "format_version": 1,
        "backend": "onnx",
        "precision": "float32",
        "image": {"channels": 3, "height": WINDOW, "width": WINDOW},
        "latent": {"channels": 3, "height": LATENT, "width": LATENT},
        "attention": {"height": 8, "width": 8},
        "vae": {"scaling_factor": 1.0, "shift_factor": 0.0},
        "prompts": [
            {"role": "background", "name": "background", "text": "good surface"},
            {"role": "masked", "name": "masked", "text": ""},
            {"role": "defect", "name": "spot", "text": "spot"},
        ],
        "schedule": {
            "convention": "paper",
            "prediction_type": "epsilon",
            "train_timesteps": 1000,
            "default_steps": 4,
            "tables": tables,
        },
        "provenance": {"base_model": "", "run": {}, "dataset": [], "tools": {}},
        "files": files or {"denoiser.onnx": {"sha256": "0" * 64, "size": 0}},
    }


class FakeEngine:
    """An engine that paints a dark instance under the mask, in plain arithmetic.

    Its latent is the image, halved; its ε pulls what is under the mask to -0.8 (or, with
    ``blind``, leaves the background as it is, so that no defect appears).
    """

    calls, provider = 1, "cpu"

    def __init__(self, blind=False):
        self.manifest = Manifest.model_validate_json(json.dumps(manifest_dict()))
        self.blind, self.batches = blind, []

    def encode(self, pixels):
        b, c, h, w = pixels.shape
        return pixels.reshape(b, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5)).astype(np.float32)

    def decode(self, latent):
        return latent.repeat(2, axis=2).repeat(2, axis=3)

    def step(self, rows):
        self.batches.append(len(rows.latent))
        alpha = NoiseSchedule.from_config({}).alphas_cumprod[rows.timestep].reshape(-1, 1, 1, 1)
        clean = self._clean(rows)
        epsilon = (rows.latent - alpha**0.5 * clean) / (1 - alpha) ** 0.5
        a, b = (x.reshape(-1, 1, 1, 1) for x in (rows.a, rows.b))
        z = rows.region * (a * rows.latent + b * epsilon) + rows.anchor
        attention = rows.mask.reshape(len(z), 1, 8, 2, 8, 2).max(axis=(3, 5))
        return z.astype(np.float32), attention.astype(np.float32)

    def _clean(self, rows):
        if self.blind:
            inside = (rows.mask * 0 + self.level).astype(np.float32)
        else:
            inside = np.full_like(rows.mask, -0.8)
        return np.where(rows.mask > 0, inside, rows.latent)

    level = 0.0

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def fake_engine(monkeypatch, tmp_path):
    """Make `synthesize` open a `FakeEngine`; returns the directory to name and the engine."""
    engine, directory = FakeEngine(), tmp_path / "engine"
    directory.mkdir()
    (directory / "engine.json").write_text("{}")
    monkeypatch.setattr("defectrt.synthesis.job.load_engine", lambda path, **options: engine)
    return directory, engine


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


def records(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def tree(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def dataset_of(out):
    """All files of a dataset by name, byte for byte; the journal is not one."""
    return {name: data for name, data in tree(out).items() if not name.startswith("job.sqlite")}


@pytest.fixture
def go(parts, fake_engine, tmp_path):
    """Run the job on the parts; returns the folder and the summary."""
    images, masks = parts

    def run(name="out", **options):
        out = tmp_path / name
        options = {"engine": fake_engine[0], "masks": masks} | options
        return out, synthesize(images, out, quiet=True, **options)

    return run


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_folder(out, defect_types, samples, dropped=(), failed=(), category="plate"):
    """A finished output folder: of each sample (good, image, label, mask, record)."""
    out.mkdir()
    (out / "job.json").write_text(json.dumps({"category": category, "defect_types": defect_types}))
    lines = []
    for i, (good, image, label, mask, record) in enumerate(samples):
        name, base = f"{i:03}.png", out / "plate"
        defect_type = record["defect"]
        split = "test" if i % 5 == 4 else "train"
        paths = {
            "image": base / "test" / defect_type / name,
            "label": base / "ground_truth" / defect_type / f"{i:03}_mask.png",
            "good": base / split / "good" / name,
            "mask": out / "masks" / defect_type / name,
        }
        for path, array in zip(paths.values(), (image, label, good, mask), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            bits = array.astype(np.uint8) * np.uint8(255) if array.dtype == bool else array
            path.write_bytes(encode_png(bits))
        lines.append({k: p.relative_to(out).as_posix() for k, p in paths.items()} | record)
    for name, records in (("manifest", lines), ("dropped", dropped), ("failed", failed)):
        text = "".join(json.dumps(record) + "\n" for record in records)
        (out / f"{name}.jsonl").write_text(text)
    return out


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
    """A real engine directory."""

    def make(folder):
        from defectrt.export.build import build

        build(run, folder / "tiny", steps=(4, 2), quiet=True)

    return built("engine", make, tmp_path_factory.mktemp("engine") / "of") / "tiny"


@pytest.fixture(scope="session")
def rtx(run, tmp_path_factory):
    """A float16 engine for RTX cards, and the folder of graphs that it was built from."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="the extra tensorrt-rtx is not installed")

    def make(folder):
        from defectrt.export.build import build
        from defectrt.export.tensorrt.tensorrt_rtx import TensorRTRTX

        class Kept(TensorRTRTX):
            def open(self, directory, manifest):
                shutil.copytree(self._graphs.name, folder / "graphs")
                return super().open(directory, manifest)

        backend = Kept("float16", (1, 4, 8), capabilities=(89, 120))
        build(run, folder / "engine", backend, steps=(4, 2), quiet=True)

    folder = built("rtx", make, tmp_path_factory.mktemp("rtx") / "of")
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

    return built("aoti", make, tmp_path_factory.mktemp("aoti") / "of") / "compiled"


@pytest.fixture(scope="session")
def magnetic_tile():
    """The real dataset, if DEFECTRT_DATA names the folder that holds ``magnetic_tile``."""
    folder = Path(os.environ.get("DEFECTRT_DATA", "")) / "magnetic_tile"
    if not os.environ.get("DEFECTRT_DATA") or not folder.is_dir():
        pytest.skip("set DEFECTRT_DATA to the folder that holds magnetic_tile")
    return folder
