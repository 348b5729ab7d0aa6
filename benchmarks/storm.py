"""A storm of kills: commands that die at random times end with the files they would have had.

    python benchmarks/storm.py [--kills 40] [--seed 0] [--commands synthesize,train,…] [--work DIR]

Each command runs once undisturbed. Then, again and again in a folder of its own, it is started,
killed (SIGKILL, or SIGTERM one time in four) after a random part of the processor's time that it
takes (of Linux, /proc: whatever else runs), and started again as a user would, until it ends by
itself; all files that it promises are compared, byte for byte. One line of JSON a round on standard
output; exit code 1 if any round differed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

#: Kills of one folder, before it may end by itself.
MOST = 12
#: Seconds after which a command hangs.
HANGS = 3600
#: What says when or how often something was done.
TOLD = ("job.sqlite*", "log.jsonl", ".lock", "report.html", "tensorboard/*")


@dataclass(frozen=True)
class Command:
    """What is run in a folder of its own, its files going to ``out``, and what goes on with it."""

    words: str
    resume: tuple[str, ...] = ()


def commands(good: Path, defects: Path, run: Path) -> dict[str, Command]:
    """The commands, on drawn images."""
    model = run.parents[1] / "tiny"
    words = {
        "synthesize": f"synthesize --images {good} --out out --count 2 "
        "--format coco,yolo --defect scratch,hole",
        "train": f"train --model {model} --from-nothing --defect spot={defects} --good {good} "
        "--out out --steps 8 --batch-size 2 --checkpoint-every 2",
        "build-engine": f"build-engine {run} --out out --steps 4",
        "learn": f"learn {defects} --good {good} --out out/engine --steps 6 "
        "--preview-every 0 --device cpu",
    }
    resume = {"train": ("--resume",)}
    return {name: Command(text, resume.get(name, ())) for name, text in words.items()}


def draw(folder: Path) -> tuple[Path, Path]:
    """Good images, and images with masks beside them."""
    rng, good, defects = np.random.default_rng(0), folder / "good", folder / "spot"
    (defects / "masks").mkdir(parents=True)
    (defects / "images").mkdir()
    good.mkdir()
    for i in range(6):
        grain = rng.normal(150, 8, (96, 96, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(grain).save(good / f"{i}.png")
        grain[30:42, 30 : 42 + 3 * i] = 40
        mask = np.zeros((96, 96), np.uint8)
        mask[30:42, 30 : 42 + 3 * i] = 255
        Image.fromarray(grain).save(defects / "images" / f"{i}.png")
        Image.fromarray(mask).save(defects / "masks" / f"{i}.png")
    return good, defects


def start(command: Command, folder: Path) -> subprocess.Popen[bytes]:
    """Start or go on; what it says goes to the file ``said`` beside the folder."""
    folder.mkdir(exist_ok=True)
    words = command.words.split()
    words += command.resume if (folder / "out" / "run.json").exists() else ()
    line = [sys.executable, "-m", "defectrt", *words]
    with folder.with_name("said").open("wb") as said:
        return subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL, stderr=said)


def spent(process: subprocess.Popen[bytes]) -> float:
    """Seconds of the processor that it has had so far."""
    numbers = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


def files(folder: Path) -> dict[str, str]:
    """The hash of every file that is promised, by its path in ``folder``."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(path.match(told) for told in TOLD)
    }


def storm(
    command: Command, whole: dict[str, str], seconds: float, folder: Path, dice: random.Random
):
    """One folder: killed until it ends; (kills, paths that differ)."""
    kills = 0
    while True:
        process, began = start(command, folder), time.monotonic()
        how = signal.SIGTERM if dice.random() < 0.25 else signal.SIGKILL
        limit = dice.uniform(0.2, 1.1) * seconds if kills < MOST else float("inf")
        while process.poll() is None and spent(process) < limit:
            if time.monotonic() - began > HANGS:
                process.kill()
                process.wait()
                return kills, ["it does not end"]
            time.sleep(0.02)
        if process.returncode is not None:
            break
        process.send_signal(how)
        process.wait()
        kills += 1
    found = files(folder)
    differing = sorted(n for n in found.keys() | whole.keys() if found.get(n) != whole.get(n))
    if process.returncode:
        differing.insert(0, f"exit code {process.returncode}")
    return kills, differing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40, help="in all, of every command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default="synthesize,train,build-engine,learn")
    parser.add_argument("--work", type=Path, default=Path(".cache/storm"))
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    work = options.work.resolve()
    known = commands(*draw(work), work / "train-whole" / "out")
    dice, bad = random.Random(options.seed), 0
    defectrt = [sys.executable, "-m", "defectrt"]
    subprocess.run([*defectrt, "new-model", "--size", "tiny", "--out", work / "tiny"], check=True)
    wanted = options.commands.split(",")
    needed = {"train", *wanted} if "build-engine" in wanted else set(wanted)
    for name in sorted(needed, key=list(known).index):
        folder, said, before = work / name, work / "said", os.times()
        if start(known[name], folder).wait():
            sys.exit(f"{name} does not run: {said.read_text()[-500:]}")
        now = os.times()
        seconds = sum(now[2:4]) - sum(before[2:4])
        whole, kills, rounds = files(folder), 0, 0
        folder.rename(work / f"{name}-whole")
        while name in wanted and kills < options.kills and rounds < options.kills:
            more, differing = storm(known[name], whole, seconds, folder, dice)
            kills, rounds = kills + more, rounds + 1
            bad += bool(differing)
            report = {"command": name, "round": rounds, "kills": more, "kills_so_far": kills}
            words = said.read_text(errors="replace")[-300:] if differing else ""
            print(json.dumps(report | {"differing": differing[:5], "said": words}), flush=True)
            if differing:
                folder.rename(work / f"{name}-{rounds}")
            else:
                shutil.rmtree(folder)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
