"""The training loop: it learns, resumes to the same weights, and stops with the last one whole."""

from __future__ import annotations

import json
from itertools import count

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from defectrt.errors import Cancelled, InputError, OutputError, TrainingError
from defectrt.training import checkpoint, stages
from defectrt.training import train as loop
from defectrt.training.data import GOOD, Sample
from defectrt.training.model import SIZES, new_model, open_model
from defectrt.training.train import TrainConfig, train

CONFIG = TrainConfig(steps=6, batch=2, learning_rate=1e-3, window=32, ema_decay=0.5)


@pytest.fixture
def samples(tmp_path):
    """Four dark spots on grey, two good pictures."""
    rng = np.random.default_rng(0)
    made = []
    for i, kind in enumerate(["spot"] * 4 + [GOOD] * 2):
        picture = rng.normal(150, 10, (48, 48, 3)).clip(0, 255).astype(np.uint8)
        mask = np.zeros((48, 48), bool)
        if kind != GOOD:
            y, x = rng.integers(4, 36, 2)
            mask[y : y + 8, x : x + 8] = True
        picture[mask] //= 4
        path = tmp_path / f"{i}.bin"
        path.write_bytes(picture.tobytes())
        made.append(Sample(path, kind, picture, mask))
    return made


def but(config, **changes):
    return TrainConfig(**config.model_dump() | changes)


def weights(run, part="unet"):
    return load_file(run / "model" / part / "diffusion_pytorch_model.safetensors")


def run_tiny(samples, run, config=CONFIG, **options):
    model = new_model(SIZES["tiny"])
    train(model, samples, config, run, quiet=True, **options)
    return weights(run, "vae" if config.objective == "autoencoder" else "unet")


@pytest.mark.parametrize("objective", ["autoencoder", "denoise", "disentangle"])
def test_it_trains_its_own_part_and_nothing_else(samples, tmp_path, objective):
    run_tiny(samples, tmp_path / "run", but(CONFIG, objective=objective))
    before, after = new_model(SIZES["tiny"]), open_model(tmp_path / "run" / "model")
    own = "vae" if objective == "autoencoder" else "unet"
    for part in ("unet", "vae", "text_encoder"):
        old, new = (getattr(m, part).state_dict() for m in (before, after))
        same = all(torch.equal(old[k], new[k]) for k in old)
        assert same != (part == own), part


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["autoencoder", "denoise", "disentangle"])
def test_the_loss_falls(samples, tmp_path, objective):
    run_tiny(samples, tmp_path / "run", but(CONFIG, objective=objective, steps=120, batch=8))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    terms = [k for k in log[0] if k not in ("step", "crops_per_s", "memory_gb")]
    first, last = (sum(line[k] for k in terms) for line in (log[0], log[-1]))
    assert last < 0.8 * first
    assert [line["step"] for line in log] == list(range(10, 121, 10))


def test_the_vae_ends_with_latents_of_unit_scale(samples, tmp_path):
    run_tiny(samples, tmp_path / "run", but(CONFIG, objective="autoencoder"))
    model = open_model(tmp_path / "run" / "model")
    batch = loop.Crops(samples, 32).batch(0, 64)
    assert model.encode(torch.from_numpy(batch.pixels)).std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("objective", ["autoencoder", "disentangle"])
def test_a_killed_run_resumes_to_the_same_weights(samples, tmp_path, monkeypatch, objective):
    config = but(CONFIG, objective=objective)
    whole = run_tiny(samples, tmp_path / "whole", config, checkpoint_every=2)
    calls, step = count(), loop._step

    def die(*args):
        if next(calls) == 5:
            raise RuntimeError("killed")
        return step(*args)

    monkeypatch.setattr(loop, "_step", die)
    with pytest.raises(RuntimeError, match="killed"):
        run_tiny(samples, tmp_path / "run", config, checkpoint_every=2)
    monkeypatch.undo()
    assert not (tmp_path / "run" / "model").exists()
    resumed = run_tiny(samples, tmp_path / "run", config, checkpoint_every=2, resume=True)
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_ctrl_c_finishes_the_step_and_resumes(samples, tmp_path, monkeypatch):
    import os
    import signal

    whole = run_tiny(samples, tmp_path / "whole")
    calls, step = count(), loop._step

    def interrupt(*args):
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*args)

    monkeypatch.setattr(loop, "_step", interrupt)
    with pytest.raises(Cancelled, match="stopped at step 3 of 6; go on with --resume"):
        run_tiny(samples, tmp_path / "run")
    monkeypatch.undo()
    resumed = run_tiny(samples, tmp_path / "run", resume=True)
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_a_loss_that_is_not_finite_stops_with_a_whole_checkpoint(samples, tmp_path, monkeypatch):
    calls, real = count(), stages.disentangle

    def poisoned(*args, **kwargs):
        terms = real(*args, **kwargs)
        return {k: v * float("nan") for k, v in terms.items()} if next(calls) == 3 else terms

    monkeypatch.setattr(stages, "disentangle", poisoned)
    with pytest.raises(TrainingError, match=r"nan at step 3.*--resume --steps 2 makes"):
        run_tiny(samples, tmp_path / "run", checkpoint_every=2)
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").name == "0000002"


def test_a_full_disk_leaves_the_checkpoint_before(samples, tmp_path, monkeypatch):
    calls, real = count(), checkpoint.save_file

    def full(tensors, path):
        if next(calls) == 4:  # in the middle of the second checkpoint
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OutputError, match=r"No space left.*continue with --resume"):
        run_tiny(samples, tmp_path / "run", checkpoint_every=2)
    kept = list((tmp_path / "run" / "checkpoints").iterdir())
    assert [p.name for p in kept] == ["0000002"]


def test_a_run_is_not_overwritten_and_not_continued_as_another(samples, tmp_path):
    run_tiny(samples, tmp_path / "run")
    with pytest.raises(InputError, match="holds a run already; add --resume"):
        run_tiny(samples, tmp_path / "run")
    with pytest.raises(InputError, match=r"started otherwise: learning_rate: 0.001 -> 0.01"):
        run_tiny(samples, tmp_path / "run", but(CONFIG, learning_rate=1e-2), resume=True)
    with pytest.raises(InputError, match="pictures are not the same"):
        run_tiny(samples[1:], tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_is_named(samples, tmp_path):
    run_tiny(samples, tmp_path / "run")
    newest = checkpoint.latest(tmp_path / "run" / "checkpoints")
    (newest / "optimizer.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(TrainingError, match="0000006: not a checkpoint of this run"):
        run_tiny(samples, tmp_path / "run", resume=True)


def test_the_record_says_what_went_in(samples, tmp_path):
    run_tiny(samples, tmp_path / "run", base_model="models/base")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["base_model"] == "models/base"
    assert record["image_size"] == 32
    assert [p["role"] for p in record["prompts"]] == ["background", "masked", "defect"]
    assert record["prompts"][2] == {"role": "defect", "name": "spot", "text": "spot"}
    assert len({d["sha256"] for d in record["dataset"]}) == 6


def test_all_faults_of_a_configuration_at_once():
    with pytest.raises(InputError, match=r"(?s)objective.*steps.*learning_rate.*precision"):
        TrainConfig(objective="x", steps=0, learning_rate=-1, precision="int4")


def test_a_window_that_does_not_fit_the_model(samples, tmp_path):
    with pytest.raises(InputError, match=r"30 px does not divide by 4.*take 32"):
        run_tiny(samples, tmp_path / "run", but(CONFIG, window=30))


def test_the_average_follows_the_weights():
    module = torch.nn.Linear(2, 2, bias=False)
    ema = checkpoint.Ema(module, 0.9)
    torch.nn.init.constant_(module.weight, 1.0)
    start = ema.weights["weight"].clone()
    ema.update(module, 1)  # warm-up: decay 2/11
    torch.testing.assert_close(ema.weights["weight"], start * 2 / 11 + 9 / 11)
    ema.update(module, 10_000)
    expected = 0.9 * (start * 2 / 11 + 9 / 11) + 0.1
    torch.testing.assert_close(ema.weights["weight"], expected)
