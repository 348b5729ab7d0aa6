"""The training loop: it learns, resumes to the same weights, and stops with the last one whole."""

from __future__ import annotations

import json
import re
from itertools import count

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file

from defectrt.errors import Cancelled, InputError, OutputError, TrainingError, UsageError
from defectrt.training.cli.train import train as train_command
from defectrt.training.config import TrainConfig, load_config
from defectrt.training.data.crops import Batch
from defectrt.training.data.dataset import read_dataset
from defectrt.training.data.samples import GOOD, Sample
from defectrt.training.data.splits import fold, read_split, samples_of, write_split
from defectrt.training.evaluation import previews
from defectrt.training.loop import checkpoint, stages
from defectrt.training.loop import train as loop
from defectrt.training.loop.runs import start
from defectrt.training.loop.train import train
from defectrt.training.models.stable_diffusion import SIZES, new_model, open_model
from defectrt.training.record import refuse_seen

#: Every one trains: a second or more each, a minute together.
pytestmark = pytest.mark.slow

CONFIG = TrainConfig(steps=6, batch_size=2, learning_rate=1e-3, window=32, ema_decay=0.5)


@pytest.fixture
def samples(tmp_path):
    """Four dark instances on grey, two good images."""
    rng = np.random.default_rng(0)
    made = []
    for i, defect_type in enumerate(["spot"] * 4 + [GOOD] * 2):
        image = rng.normal(150, 10, (48, 48, 3)).clip(0, 255).astype(np.uint8)
        mask = np.zeros((48, 48), bool)
        if defect_type != GOOD:
            y, x = rng.integers(4, 36, 2)
            mask[y : y + 8, x : x + 8] = True
        image[mask] //= 4
        path = tmp_path / f"{i}.bin"
        path.write_bytes(image.tobytes())
        made.append(Sample(path, defect_type, image, mask))
    return made


def but(config, **changes):
    return TrainConfig(**config.model_dump() | changes)


def weights(run, part="unet"):
    return load_file(run / "model" / part / "diffusion_pytorch_model.safetensors")


def run_tiny(samples, run, config=CONFIG, **options):
    model = new_model(SIZES["tiny"])
    train(model, samples, config, run, quiet=True, **options)
    return weights(run, "vae" if config.of_vae else "unet")


@pytest.mark.parametrize("objective", loop.OBJECTIVES)
def test_it_trains_its_own_part_and_nothing_else(samples, tmp_path, objective):
    run_tiny(samples, tmp_path / "run", but(CONFIG, objective=objective))
    before, after = new_model(SIZES["tiny"]), open_model(tmp_path / "run" / "model")
    own = "vae" if objective in ("autoencoder", "decoder") else "unet"
    for part in ("unet", "vae", "text_encoder"):
        old, new = (getattr(m, part).state_dict() for m in (before, after))
        same = all(torch.equal(old[k], new[k]) for k in old)
        assert same != (part == own), part


@pytest.mark.slow
@pytest.mark.parametrize("objective", loop.OBJECTIVES)
def test_the_loss_falls(samples, tmp_path, objective):
    run_tiny(samples, tmp_path / "run", but(CONFIG, objective=objective, steps=40, batch_size=4))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    terms = [k for k in log[0] if k not in ("step", "crops_per_s", "memory_gb")]
    first, last = (sum(line[k] for k in terms) for line in (log[0], log[-1]))
    assert last < 0.6 * first
    assert [line["step"] for line in log] == [10, 20, 30, 40]


def test_the_vae_ends_with_latents_of_unit_scale(samples, tmp_path):
    run_tiny(samples, tmp_path / "run", but(CONFIG, objective="autoencoder"))
    model = open_model(tmp_path / "run" / "model")
    batch = loop.Crops(samples, 32).batch(0, 64)
    assert model.encode(torch.from_numpy(batch.pixels)).std() == pytest.approx(1, abs=0.05)


def test_a_decoder_leaves_the_latents_as_they_were(samples, tmp_path):
    run_tiny(samples, tmp_path / "run", but(CONFIG, objective="decoder"))
    pixels = torch.from_numpy(loop.Crops(samples, 32).batch(0, 4).pixels)
    before, after = new_model(SIZES["tiny"]), open_model(tmp_path / "run" / "model")
    latents = before.encode(pixels)
    assert torch.equal(latents, after.encode(pixels))
    assert not torch.equal(before.decode(latents), after.decode(latents))


def test_the_rate_rises_stays_and_falls():
    config = but(CONFIG, steps=10, warmup=3, cooldown=4)
    shares = [loop._share_of_rate(config, step) for step in range(10)]
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    assert [loop._share_of_rate(but(CONFIG, steps=2), step) for step in range(2)] == [1, 1]


@pytest.mark.slow
def test_a_run_cools_down_to_smaller_changes(samples, tmp_path):
    warm = run_tiny(samples, tmp_path / "warm", but(CONFIG, ema_decay=0))
    cool = run_tiny(samples, tmp_path / "cool", but(CONFIG, ema_decay=0, cooldown=CONFIG.steps))
    start = new_model(SIZES["tiny"]).unet.state_dict()
    moved = [sum(float((w[k] - start[k]).abs().sum()) for k in w) for w in (warm, cool)]
    assert moved[1] < 0.8 * moved[0]


@pytest.mark.parametrize(
    ("objective", "precision"),
    [
        ("autoencoder", "float32"),
        ("disentangle", "float32"),
        pytest.param("disentangle", "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_resumes_to_the_same_weights(
    samples, tmp_path, monkeypatch, objective, precision
):
    config = but(CONFIG, objective=objective, precision=precision)
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


def test_losses_may_be_read_later_and_are_the_same(samples, tmp_path, monkeypatch):
    """A card's are read every ten steps; of six here, every four and at the end."""

    def told(name):
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(x).items() if k in kept} for x in lines]

    kept, seen = ("step", "matching", "regularizer"), []
    config = but(CONFIG, steps=11)
    at_once = run_tiny(samples, tmp_path / "at_once", config)
    monkeypatch.setitem(loop._READ_EVERY, "cpu", 4)
    read = loop._read
    monkeypatch.setattr(loop, "_read", lambda *a: (seen.append(len(a[0].unread)), read(*a))[1])
    later = run_tiny(samples, tmp_path / "later", config)
    assert same(at_once, later)
    assert told("at_once") == told("later")
    assert seen == [4, 4, 3, 0]


def test_what_is_not_finite_is_found_before_anything_is_made_of_it(samples, tmp_path, monkeypatch):
    calls, real = count(), stages.disentangle

    def poisoned(*args, **kwargs):
        terms = real(*args, **kwargs)
        return {k: v * float("nan") for k, v in terms.items()} if next(calls) == 4 else terms

    monkeypatch.setattr(stages, "disentangle", poisoned)
    monkeypatch.setitem(loop._READ_EVERY, "cpu", 100)
    with pytest.raises(TrainingError, match=r"nan at step 4.*--resume --steps 3 makes"):
        run_tiny(samples, tmp_path / "run", checkpoint_every=3)
    newest = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert int(newest.name) == 3
    assert all(v.isfinite().all() for v in load_file(newest / "weights.safetensors").values())


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
    with pytest.raises(InputError, match="images are not the same"):
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
    with pytest.raises(UsageError, match=r"(?s)objective.*steps.*learning_rate.*precision"):
        TrainConfig(objective="x", steps=0, learning_rate=-1, precision="int4")


def test_a_window_that_does_not_fit_the_model(samples, tmp_path):
    with pytest.raises(InputError, match=r"30 px does not divide by 4.*take 32"):
        run_tiny(samples, tmp_path / "run", but(CONFIG, window=30))


def test_the_average_follows_the_weights():
    module = torch.nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    ema = checkpoint.averaging(module, 0.9)
    for value in (1.0, 2.0):  # decays of the warm-up: 0, then 2/11
        torch.nn.init.constant_(module.weight, value)
        ema.step(checkpoint.trained(module).values())
    (average,) = ema.shadow_params
    torch.testing.assert_close(average, torch.full_like(average, 1 * 2 / 11 + 2 * 9 / 11))


def test_the_average_is_shown_and_taken_back_to_the_bit():
    module = torch.nn.Linear(2, 2)
    own, ema = module.weight.detach().clone(), checkpoint.averaging(module, 0.9)
    for average in ema.shadow_params:
        average.add_(1)

    def stopped():
        torch.testing.assert_close(module.weight.detach(), own + 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), checkpoint.averaged(module, ema):
        stopped()
    assert torch.equal(module.weight, own)
    with checkpoint.averaged(module, checkpoint.averaging(module, 0.0)):
        assert torch.equal(module.weight, own)


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_a_lora_is_merged_into_a_plain_unet(samples, tmp_path):
    merged = run_tiny(samples, tmp_path / "run", but(CONFIG, lora=2))
    before = new_model(SIZES["tiny"])
    assert merged.keys() == before.unet.state_dict().keys()
    changed = {k for k, v in before.unet.state_dict().items() if not torch.equal(v, merged[k])}
    assert changed
    assert all(re.search(r"\.to_(q|k|v|out\.0)\.weight$", name) for name in changed)
    inputs = torch.randn(1, 4, 16, 16), torch.tensor([10]), torch.randn(1, 5, 32)
    before.unet.load_lora_adapter(tmp_path / "run" / "lora", prefix=None, use_safetensors=True)
    with torch.no_grad():
        adapted = before.unet.eval()(*inputs).sample
        plain = open_model(tmp_path / "run" / "model").unet(*inputs).sample
    torch.testing.assert_close(plain, adapted, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"lora": 2}, {"optimizer": "adafactor"}, {"accumulate": 2}, {"ema_decay": 0.0}],
    ids=str,
)
def test_every_defect_type_of_run_resumes_to_the_same_weights(samples, tmp_path, changes):
    config = but(CONFIG, steps=4, **changes)
    whole = run_tiny(samples, tmp_path / "whole", config)
    run_tiny(samples, tmp_path / "run", but(config, steps=2))
    newest = checkpoint.latest(tmp_path / "run" / "checkpoints")
    weights, average = (load_file(newest / f"{x}.safetensors") for x in ("weights", "ema"))
    assert average.keys() == (weights.keys() if config.ema_decay else set())
    assert same(whole, run_tiny(samples, tmp_path / "run", config, resume=True))


def test_without_an_average_the_model_has_the_weights_themselves(samples, tmp_path):
    run = tmp_path / "run"
    model = run_tiny(samples, run, but(CONFIG, ema_decay=0.0))
    newest = checkpoint.latest(run / "checkpoints")
    assert same(model, load_file(newest / "weights.safetensors"))
    assert load_file(newest / "ema.safetensors") == {}


def test_gradient_checkpointing_changes_memory_and_not_weights(samples, tmp_path):
    plain = run_tiny(samples, tmp_path / "plain", but(CONFIG, steps=2))
    again = run_tiny(samples, tmp_path / "again", but(CONFIG, steps=2, gradient_checkpointing=True))
    for name, weight in plain.items():
        torch.testing.assert_close(again[name], weight)


def test_a_step_is_a_mean_over_the_defects_of_all_its_batches():
    """Batches of 1 and 3 defects: their means count 1/4 and 3/4, and accelerate halves them."""
    masks = np.zeros((2, 4, 1, 8, 8), np.float32)
    masks[0, :1, 0, 2, 2] = masks[1, 1:, 0, 3, 3] = 1
    batches = [Batch(np.zeros((4, 3, 8, 8), np.float32), mask, ("spot",) * 4) for mask in masks]
    accelerator = loop._accelerator(CONFIG, "cpu")
    assert loop._shares(batches, accelerator) == [0.5, 1.5]
    batches = [Batch(b.pixels, b.mask * 0, b.defect_types) for b in batches]
    assert loop._shares(batches, accelerator) == [1, 1]


@pytest.mark.slow
def test_good_images_weigh_what_prior_weight_says(samples, tmp_path):
    runs = {
        weight: run_tiny(samples, tmp_path / str(weight), but(CONFIG, prior_weight=weight))
        for weight in (0.0, 1.0)
    }
    assert not same(runs[0.0], runs[1.0])
    only_good = [s for s in samples if s.defect_type == GOOD]
    before = new_model(SIZES["tiny"]).unet.state_dict()
    config = but(CONFIG, prior_weight=0.0, weight_decay=0.0)
    assert same(run_tiny(only_good, tmp_path / "good", config), before)


@pytest.mark.slow
def test_previews_are_the_same_images_and_change_no_weights(samples, tmp_path):
    plain = run_tiny(samples, tmp_path / "plain")
    run = tmp_path / "run"
    assert same(plain, run_tiny(samples, run, preview_every=4, preview_steps=2))
    assert sorted(p.name for p in (run / "previews").iterdir()) == ["000004.png", "000006.png"]
    first, last = (np.asarray(Image.open(p)) for p in sorted((run / "previews").iterdir()))
    assert first.shape == last.shape == (8 * 96, 3 * 96, 3)
    assert np.array_equal(first[:, : 2 * 96], last[:, : 2 * 96])  # originals and masks
    assert not np.array_equal(first[:, 2 * 96 :], last[:, 2 * 96 :])
    assert set(np.unique(first[:, 96 : 2 * 96])) == {0, 255}
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 6]
    assert lines[0]["preview"] == "previews/000004.png"
    assert lines[0]["outside_error"] > 0
    assert 0 <= lines[0]["defects_shown"] <= 1


def test_previews_show_every_defect_type_by_its_prompt(samples, tmp_path):
    samples[0] = Sample(samples[0].path, "line", samples[0].image, samples[0].mask)
    config = but(CONFIG, steps=1, prompts={"line": "a thin line"})
    run_tiny(samples, tmp_path / "run", config, preview_every=1, preview_steps=1)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    texts = {p["name"]: p["text"] for p in record["prompts"]}
    assert texts == {
        "background": "good surface", "masked": "", "line": "a thin line", "spot": "spot",
    }  # fmt: skip
    assert (
        previews._fixed(samples, but(config, window=32)).defect_types
        == ("line",) * 4 + ("spot",) * 4
    )


def test_an_autoencoder_shows_what_it_keeps(samples, tmp_path):
    config = but(CONFIG, objective="autoencoder", steps=1)
    run_tiny(samples, tmp_path / "run", config, preview_every=1)
    line = json.loads((tmp_path / "run" / "log.jsonl").read_text())
    assert 0 < line["error"] < 2


@pytest.mark.slow
def test_tensorboard_gets_the_losses_and_the_images(samples, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = but(CONFIG, steps=10)
    run_tiny(samples, tmp_path / "run", config, tensorboard=True, preview_every=10, preview_steps=1)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"matching", "regularizer", "prior", "defects_shown"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["preview"]
    logged = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    [scalar] = events.Scalars("matching")
    assert (scalar.step, scalar.value) == (10, pytest.approx(logged["matching"]))


@pytest.mark.slow
def test_mlflow_gets_the_losses_and_goes_on_with_a_run(samples, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra [mlflow] is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    run, options = tmp_path / "run", {"mlflow": True, "preview_every": 10, "preview_steps": 1}
    run_tiny(samples, run, but(CONFIG, steps=10), **options)
    run_tiny(samples, run, but(CONFIG, steps=20), resume=True, **options)
    client = mlflow.MlflowClient()
    number = (run / "mlflow.txt").read_text().strip()
    found = client.get_run(number)
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.params["batch_size"] == str(CONFIG.batch_size)
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["matching"] for line in logged if "matching" in line}
    assert {m.step: m.value for m in client.get_metric_history(number, "matching")} == losses
    assert losses.keys() == {10, 20}
    assert client.list_artifacts(number, "images")


def test_the_model_has_to_predict_what_the_preset_expects(samples, tmp_path):
    with pytest.raises(InputError, match="predicts epsilon, the configuration wants v_prediction"):
        run_tiny(samples, tmp_path / "run", but(CONFIG, prediction="v_prediction"))
    model = new_model(SIZES["tiny"], prediction_type="v_prediction")
    config = but(CONFIG, prediction="v_prediction", steps=1)
    train(model, samples, config, tmp_path / "run", quiet=True)
    assert open_model(tmp_path / "run" / "model").prediction_type == "v_prediction"


def test_what_this_machine_cannot_do_is_said_before_anything_is_written(samples, tmp_path):
    with pytest.raises(InputError, match="float16 trains on a GPU only"):
        run_tiny(samples, tmp_path / "run", but(CONFIG, precision="float16"))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="torch sees no GPU here"):
            run_tiny(samples, tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()


def test_another_model_does_not_continue_a_run(samples, tmp_path):
    run_tiny(samples, tmp_path / "run")
    with pytest.raises(InputError, match="the model is not the same"):
        train(
            new_model(SIZES["tiny"], seed=1), samples, CONFIG, tmp_path / "run",
            resume=True, quiet=True,
        )  # fmt: skip


def test_a_gradient_that_is_not_finite_does_not_reach_the_weights(samples, tmp_path, monkeypatch):
    calls, real = count(), stages.disentangle

    def poisoned(*args, **kwargs):
        terms = real(*args, **kwargs)
        if next(calls) == 3:  # a finite loss whose gradient is not
            matching = terms["matching"]
            terms["matching"] = matching + (matching - matching.detach()).abs().sqrt()
        return terms

    monkeypatch.setattr(stages, "disentangle", poisoned)
    with pytest.raises(TrainingError, match=r"gradient is nan at step 3"):
        run_tiny(samples, tmp_path / "run", checkpoint_every=1)
    newest = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert newest.name == "0000003"
    assert all(v.isfinite().all() for v in load_file(newest / "weights.safetensors").values())


@pytest.mark.slow
def test_a_model_a_defect_type(samples, tmp_path):
    from support.outputs import save

    new_model(SIZES["tiny"]).save(tmp_path / "base")
    for sample in samples:
        folder = tmp_path / ("good" if sample.defect_type == GOOD else sample.path.stem)
        save(folder / f"{sample.path.stem}.png", sample.image)
        if sample.defect_type != GOOD:
            save(folder / f"{sample.path.stem}_mask.png", sample.mask.astype(np.uint8))
    run, training = load_config(
        "small",
        None,
        {
            "model": str(tmp_path / "base"), "from_nothing": True, "out": tmp_path / "out",
            "steps": 2, "batch_size": 2,
            "defect": {"dent": tmp_path / "0", "hole": tmp_path / "1"}, "good": tmp_path / "good",
            "per_defect_type": True, "preview_every": 0, "tensorboard": False, "device": "cpu",
        },
    )  # fmt: skip
    made = list(start(run, training, quiet=True))
    assert made == [tmp_path / "out" / defect_type / "model" for defect_type in ("dent", "hole")]
    records = [json.loads((path.parent / "run.json").read_text()) for path in made]
    for defect_type, record in zip(("dent", "hole"), records, strict=True):
        assert [p["name"] for p in record["prompts"]] == ["background", "masked", defect_type]
        assert {d["name"].split("/")[0] for d in record["dataset"]} == {"good", defect_type}
    again = load_config(None, tmp_path / "out" / "config.yaml", {})
    assert again[0].per_defect_type
    assert again[1] == training
    before = [weights(path.parent) for path in made]
    assert list(start(*again, resume=True, quiet=True)) == made
    assert all(same(old, weights(path.parent)) for old, path in zip(before, made, strict=True))


@pytest.mark.parametrize("lora", [0, 2])
def test_a_model_of_the_form_of_stable_diffusion_2_trains(samples, tmp_path, lora):
    """Linear projections, another number of heads a level, v-prediction."""
    model = new_model(SIZES["tiny"], prediction_type="v_prediction")
    model.unet = UNet2DConditionModel(
        sample_size=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        norm_num_groups=16,
    )
    before = {k: v.clone() for k, v in model.unet.state_dict().items()}
    train(model, samples, but(CONFIG, steps=2, lora=lora), tmp_path / "run", quiet=True)
    after = weights(tmp_path / "run")
    assert after.keys() == before.keys()
    assert not same(after, before)
    assert open_model(tmp_path / "run" / "model").unet.config.use_linear_projection


@pytest.mark.slow
def test_a_run_goes_on_from_its_directory_alone(samples, tmp_path, capsys):
    from support.outputs import save

    new_model(SIZES["tiny"]).save(tmp_path / "base")
    save(tmp_path / "hole" / "0.png", samples[0].image)
    save(tmp_path / "hole" / "0_mask.png", samples[0].mask.astype(np.uint8))
    out = tmp_path / "run"
    options = {"preset": "small", "quiet": True}
    given = {"batch_size": 2, "preview_every": 0, "tensorboard": False, "device": "cpu"}
    given |= {"model": str(tmp_path / "base"), "defect": [f"hole={tmp_path / 'hole'}"]}
    given["from_nothing"] = True
    train_command(**options, **given, out=tmp_path / "whole", steps=3)
    train_command(**options, **given, out=out, steps=2)
    train_command(resume=True, quiet=True, out=out, steps=3)
    assert capsys.readouterr().out.split() == [
        str(path / "model") for path in (tmp_path / "whole", out, out)
    ]
    assert same(weights(tmp_path / "whole"), weights(out))


@pytest.mark.slow
def test_one_side_of_a_split_is_trained_on_and_kept_with_hashes(samples, tmp_path):
    from support.outputs import save

    new_model(SIZES["tiny"]).save(tmp_path / "base")
    for i, sample in enumerate(samples):
        folder = tmp_path / "data" / ("good" if sample.defect_type == GOOD else "hole")
        save(folder / f"{i}.png", sample.image)
        if sample.defect_type != GOOD:
            save(folder / f"{i}_mask.png", sample.mask.astype(np.uint8))
    dataset = read_dataset(tmp_path / "data")
    split = fold(dataset, 0)
    write_split(split, tmp_path / "fold.json")
    values = {
        "model": str(tmp_path / "base"), "from_nothing": True, "out": tmp_path / "run",
        "steps": 1, "batch_size": 2,
        "data": tmp_path / "data", "split": tmp_path / "fold.json", "preview_every": 0,
        "tensorboard": False, "device": "cpu",
    }  # fmt: skip
    list(start(*load_config("small", None, values), quiet=True))
    assert read_split(tmp_path / "run" / "split.json", dataset) == split
    refuse_seen(samples_of(dataset, split, "test"), tmp_path / "run")
    with pytest.raises(InputError, match="has learned from"):
        refuse_seen(samples_of(dataset, split, "train"), tmp_path / "run")


def test_faults_of_a_run_are_found_before_the_model_is_opened(tmp_path):
    run, training = load_config(
        None,
        None,
        {"model": "none", "out": tmp_path, "per_defect_type": True, "prompt": {"hole": "a hole"}},
    )
    with pytest.raises(
        InputError, match=r"(?s)fine-tune needs defects.*model a defect type.*for hole"
    ):
        list(start(run, training))
