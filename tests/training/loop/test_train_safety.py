"""Killed at any moment, on a full disk, twice at once: a run is never lost and never wrong."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from itertools import count

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from support.program import command_line

from defectrt.errors import OutputError
from defectrt.training.config import TrainConfig
from defectrt.training.data.samples import GOOD, Sample
from defectrt.training.loop import checkpoint
from defectrt.training.loop import run_directory as rundir
from defectrt.training.loop import train as loop
from defectrt.training.loop.train import train
from defectrt.training.models.stable_diffusion import SIZES, new_model
from defectrt.training.record import read_record

#: Every one trains, most in a process of its own.
pytestmark = pytest.mark.slow

CONFIG = TrainConfig(steps=6, batch_size=2, learning_rate=1e-3, window=32, ema_decay=0.5)
OPTIONS = {"checkpoint_every": 2, "preview_every": 3, "preview_steps": 2, "quiet": True}


def images(folder):
    rng, made = np.random.default_rng(0), []
    folder.mkdir(parents=True, exist_ok=True)
    for i, defect_type in enumerate(["spot", "spot", GOOD]):
        image = rng.normal(150, 10, (40, 40, 3)).clip(0, 255).astype(np.uint8)
        mask = np.zeros((40, 40), bool)
        mask[8 + i : 18, 10:20] = defect_type != GOOD
        path = folder / f"{i}.bin"
        path.write_bytes(image.tobytes())
        made.append(Sample(path, defect_type, image, mask))
    return made


def train_tiny(run, config=CONFIG, **options):
    samples = images(run.parent / "images")
    return train(new_model(SIZES["tiny"]), samples, config, run, **OPTIONS | options)


class Killer:
    """Counts what a process does in a run, and kills it at the ``last`` of these moments.

    A moment is a step that begins, or anything done to a file or directory of the run.
    """

    def __init__(self, run, last=None):
        self.run, self.last, self.moments = str(run), last, 0
        sys.addaudithook(self.saw)
        step = loop._step
        loop._step = lambda *args: (self.moment(), step(*args))[1]

    def saw(self, event, args):
        if args and event.split(".")[0] in ("open", "os", "shutil"):
            path = os.fspath(args[0]) if isinstance(args[0], str | os.PathLike) else ""
            if str(path).startswith(self.run):
                self.moment()

    def moment(self):
        self.moments += 1
        if self.moments == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def child(run, config, last, report):
    """A process of its own: one thread, so that all of them compute the same bits."""
    torch.set_num_threads(1)
    killer = Killer(run, last)
    train_tiny(run, config, resume=True)
    report.value = killer.moments


def torn(run, config):
    """A process that is killed with half of its second checkpoint's average on the disk."""
    torch.set_num_threads(1)
    calls, real = count(), checkpoint.save_file

    def half(tensors, path):
        real(tensors, path)
        if next(calls) == 4:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.save_file = half
    train_tiny(run, config, resume=True)


@pytest.fixture(scope="module")
def processes():
    """Starts processes from one that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_train_safety"])

    def start(target, *args):
        process = context.Process(target=target, args=args)
        process.start()
        return process

    start.context = context
    return start


def finish(process):
    process.join()
    return process.exitcode


def what_counts(run):
    """Everything of a run but its speed: model, previews, losses."""
    files = {
        path.relative_to(run).as_posix(): path.read_bytes()
        for part in ("model", "previews")
        for path in sorted((run / part).rglob("*"))
        if path.is_file()
    }
    path = run / "log.jsonl"  # it has no lines before step 10 but those of previews
    log = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    own = ("crops_per_s", "memory_gb")
    return files, [{k: v for k, v in line.items() if k not in own} for line in log]


@pytest.fixture(scope="module")
def whole(processes, tmp_path_factory):
    """An uninterrupted run, and how many moments it had."""
    run = tmp_path_factory.mktemp("whole") / "run"
    report = processes.context.Value("i", 0)
    assert finish(processes(child, run, CONFIG, None, report)) == 0
    return run, report.value


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments_it_ends_with_the_same_bits(processes, whole, tmp_path, seed):
    reference, moments = whole
    assert moments > 60
    run, rng = tmp_path / "run", random.Random(seed)
    report = processes.context.Value("i", 0)
    codes = [
        finish(processes(child, run, CONFIG, rng.randrange(1, moments // 2), report))
        for _ in range(3)
    ]
    assert -signal.SIGKILL in codes
    assert finish(processes(child, run, CONFIG, None, report)) == 0
    assert what_counts(run) == what_counts(reference)
    left = [p.name for p in run.rglob(".*") if p.name != ".lock"]
    assert left == []


@pytest.mark.slow
def test_killed_within_a_checkpoint_file_the_one_before_counts(processes, whole, tmp_path):
    run, report = tmp_path / "run", processes.context.Value("i", 0)
    assert finish(processes(torn, run, CONFIG)) == -signal.SIGKILL
    assert [p.name for p in (run / "checkpoints").glob("[0-9]*")] == ["0000002"]
    assert finish(processes(child, run, CONFIG, None, report)) == 0
    assert what_counts(run) == what_counts(whole[0])


def test_a_second_process_on_the_same_run_is_refused(tmp_path):
    with (
        rundir.locked(tmp_path / "run"),
        pytest.raises(OutputError, match="another process is training here"),
    ):
        train_tiny(tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()
    train_tiny(tmp_path / "run", CONFIG.model_copy(update={"steps": 1}))


def holds(run, held):
    """A process that locks a run and never lets go."""
    with rundir.locked(run):
        held.set()
        signal.pause()


def test_a_killed_process_leaves_its_run_free(processes, tmp_path):
    held = processes.context.Event()
    process = processes(holds, tmp_path / "run", held)
    assert held.wait(60)
    with pytest.raises(OutputError, match="another process is training here"):
        rundir.locked(tmp_path / "run").__enter__()
    process.kill()
    assert finish(process) == -signal.SIGKILL
    with rundir.locked(tmp_path / "run"):
        pass


def test_a_run_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written here"):
        rundir.locked(tmp_path / "file" / "run").__enter__()


def full_after(monkeypatch, writes):
    """A disk that takes ``writes`` files or directories more."""
    calls, real = count(), os.fsync

    def full(handle):
        if next(calls) >= writes:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)


@pytest.mark.slow
def test_a_full_disk_at_any_write_stops_and_loses_nothing(tmp_path, monkeypatch):
    train_tiny(tmp_path / "whole")
    run = tmp_path / "run"
    for writes in (1, 3, 5, 10, 14):
        full_after(monkeypatch, writes)
        with pytest.raises(OutputError, match=r"No space left.*--resume"):
            train_tiny(run, resume=True)
        monkeypatch.undo()
        for kept in (run / "checkpoints").glob("[0-9]*"):
            assert (kept / "weights.safetensors").exists()
    train_tiny(run, resume=True)
    assert what_counts(run)[0] == what_counts(tmp_path / "whole")[0]


@pytest.mark.slow
def test_a_torn_line_of_the_log_does_not_stop_a_resumed_run(tmp_path):
    run = tmp_path / "run"
    train_tiny(run)
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "match')
    train_tiny(run, resume=True)
    lines = (run / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3, 6]


def test_the_newest_checkpoints_are_kept(tmp_path):
    train_tiny(tmp_path / "run", checkpoint_every=1, keep_checkpoints=3, preview_every=0)
    kept = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["0000004", "0000005", "0000006"]


@pytest.mark.slow
def test_a_checkpoint_becomes_a_model_with_fewer_steps(tmp_path):
    """What the message about a loss that is not finite promises."""
    short = CONFIG.model_copy(update={"steps": 4})
    train_tiny(tmp_path / "short", short, preview_every=0)
    run = tmp_path / "run"
    train_tiny(run, checkpoint_every=4, preview_every=0)
    shutil.rmtree(run / "checkpoints" / "0000006")
    train_tiny(run, short, resume=True, preview_every=0)
    assert what_counts(run)[0] == what_counts(tmp_path / "short")[0]


@pytest.mark.slow
def test_diffusers_opens_the_model_and_paints(tmp_path):
    path = train_tiny(tmp_path / "run")
    assert {p.suffix for p in path.rglob("*") if p.is_file()} <= {".json", ".safetensors"}
    pipeline = StableDiffusionPipeline.from_pretrained(path, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("spot", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (32, 32, 3)


def _rank(run, config, rank, port):
    os.environ |= {
        "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    train_tiny(run, config)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_train_as_one_that_accumulates(processes, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = CONFIG.model_copy(update={"objective": "autoencoder", "steps": 3})
    ranks = [processes(_rank, tmp_path / "two", config, rank, port) for rank in (0, 1)]
    assert [finish(rank) for rank in ranks] == [0, 0]
    train_tiny(tmp_path / "one", config.model_copy(update={"accumulate": 2}))
    two, one = (
        checkpoint.load_file(tmp_path / name / "checkpoints" / "0000003" / "weights.safetensors")
        for name in ("two", "one")
    )
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=2e-5, rtol=1e-4)
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2


@pytest.fixture
def tiny_job(tmp_path):
    """What is trained on what, as words of the command line."""
    new_model(SIZES["tiny"]).save(tmp_path / "model")
    for sample in images(tmp_path / "images"):
        folder = tmp_path / sample.defect_type
        folder.mkdir(exist_ok=True)
        Image.fromarray(sample.image).save(folder / f"{sample.path.stem}.png")
        if sample.mask.any():
            Image.fromarray(sample.mask).save(folder / f"{sample.path.stem}_mask.png")
    return [
        *("--model", tmp_path / "model", "--defect", f"spot={tmp_path / 'spot'}", "--from-nothing"),
        *("--good", tmp_path / GOOD, "--batch-size", 2, "--learning-rate", 1e-3, "--window", 32),
        *("--warmup", 0, "--cooldown", 0, "--checkpoint-every", 2, "--preview-every", 0, "--quiet"),
    ]


#: accelerate starts several processes on one machine as for cards alone; without any, gloo is used.
LAUNCH = [
    "accelerate.commands.launch",
    "--multi_gpu",
    "--num_processes",
    "2",
    "--num_machines",
    "1",
]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


def test_accelerate_launches_two_and_one_alone_goes_on(tiny_job, tmp_path):
    """By the command lines of the docs, with gloo: the weights are those of one process."""
    two, one = tmp_path / "two", tmp_path / "one"
    words = ["train", *tiny_job]
    launch = [sys.executable, "-m", *LAUNCH, "-m", "defectrt", *words, "--out", two, "--steps", 2]
    done = subprocess.run(
        [*map(str, launch)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert read_record(two).processes == 2
    done = command_line(*words, "--out", two, "--steps", 4, "--resume")
    assert done.returncode == 3
    assert "accumulate x processes: 1 x 2 -> 1 x 1, and should stay 2" in done.stderr
    for run, more in ((two, ["--resume"]), (one, [])):
        done = command_line(*words, "--out", run, "--steps", 4, "--accumulate", 2, *more)
        assert done.returncode == 0, done.stderr
    weights = [
        checkpoint.load_file(run / "checkpoints" / "0000004" / "weights.safetensors")
        for run in (two, one)
    ]
    for name, weight in weights[1].items():
        torch.testing.assert_close(weights[0][name], weight, atol=2e-5, rtol=1e-4)
