"""Any detector as a command: a folder to train on and to test goes in, scores come out.

The folder, ``{data}`` in the command:

    train/good/000.png …                    good pictures
    train/TYPE/000.png …                    pictures with a defect, real and made
    ground_truth/TYPE/000_mask.png …        their masks, 0 and 255
    test/000.png …                          pictures to score, in no order of type, without masks

The answer, the file ``{out}``, is JSON: ``{"test/000.png": "scores/000.npy", …}``, for every test
picture an array [H,W] of numbers, the larger the more like a defect, as NumPy's ``.npy`` beside
``{out}`` or below it.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectrt.errors import Cancelled, InputError, TrainingError, UsageError
from defectrt.files import write_whole
from defectrt.images.png import encode_png

from ..data.layouts import GOOD
from ..data.samples import Sample
from .figures import TOP

__all__ = ["answers", "parts_of", "scored"]

#: Seconds between looks whether to stop; lines of what a command said last.
_LOOK, _LINES = 1.0, 5


def parts_of(command: str) -> list[str]:
    """The words of a command. Raises `UsageError` unless {data} and {out} are among them."""
    words = shlex.split(command)
    if not all(any(place in word for word in words) for place in ("{data}", "{out}")):
        raise UsageError(f"--detector {command!r}: needs {{data}} and {{out}}, see docs/proof.md")
    return words


def scored(
    command: str,
    train: Sequence[Sample],
    test: Sequence[Sample],
    seed: int,
    stopped: Callable[[], bool],
) -> list[NDArray[np.float32]]:
    """What a command says of each test picture, [H,W], brought into the range of logits.

    Raises as `answers` does.
    """
    found = answers(command, train, test, seed, stopped)
    low, high = (float(f([f(scores) for scores in found])) for f in (np.min, np.max))
    scale = 2 * TOP / max(high - low, 1e-12)
    return [np.asarray((scores - low) * scale - TOP, np.float32) for scores in found]


def answers(
    command: str,
    train: Sequence[Sample],
    test: Sequence[Sample],
    seed: int,
    stopped: Callable[[], bool],
) -> list[NDArray[np.float64]]:
    """What a command says of each test picture, [H,W], as it says it.

    ``train`` are real and made pictures and good ones; {seed} in the command is ``seed``. Raises
    `TrainingError` if the command fails, `InputError` if its answer is not as it should be.
    """
    with tempfile.TemporaryDirectory(prefix="defectrt-prove-") as folder:
        data, out = Path(folder, "data"), Path(folder, "out", "scores.json")
        _write(data, train, test)
        out.parent.mkdir()
        places = {"{data}": str(data), "{out}": str(out), "{seed}": str(seed)}
        _run([_filled(word, places) for word in parts_of(command)], stopped)
        return list(_answers(out, test))


def _filled(word: str, places: dict[str, str]) -> str:
    for place, value in places.items():
        word = word.replace(place, value)
    return word


def _write(data: Path, train: Sequence[Sample], test: Sequence[Sample]) -> None:
    count = Counter[str]()
    for sample in train:
        kind = sample.defect_type
        name, count[kind] = f"{count[kind]:03d}", count[kind] + 1
        write_whole(data / "train" / kind / f"{name}.png", encode_png(sample.image))
        if kind != GOOD:
            mask: Any = sample.mask.astype(np.uint8) * 255
            write_whole(data / "ground_truth" / kind / f"{name}_mask.png", encode_png(mask))
    for i, sample in enumerate(test):
        write_whole(data / _name(i), encode_png(sample.image))


def _name(number: int) -> str:
    return f"test/{number:03d}.png"


def _run(words: list[str], stopped: Callable[[], bool]) -> None:
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT)
        except OSError as error:
            raise UsageError(f"--detector: {words[0]} cannot be run ({error})") from error
        while True:
            try:
                code = process.wait(_LOOK)
                break
            except subprocess.TimeoutExpired:
                if stopped():
                    process.terminate()
                    process.wait()
                    raise Cancelled("stopped; run the same command again to go on") from None
        if code:
            said.seek(0)
            last = said.read().decode(errors="replace").splitlines()[-_LINES:]
            raise TrainingError(f"--detector: {words[0]} ended with {code}: " + "\n".join(last))


def _answers(out: Path, test: Sequence[Sample]) -> Iterator[NDArray[np.float64]]:
    try:
        names = dict(json.loads(out.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"--detector: wrote no answer that can be read ({error})") from error
    for i, sample in enumerate(test):
        path = (out.parent / str(names.get(_name(i)))).resolve()
        if not path.is_relative_to(out.parent.resolve()):
            raise InputError(f"--detector: the scores of {_name(i)} lie outside its folder")
        try:
            scores = np.load(path, allow_pickle=False).astype(np.float64)
        except (OSError, ValueError) as error:
            raise InputError(f"--detector: {_name(i)} has no scores ({error})") from error
        if scores.shape != sample.mask.shape or not np.isfinite(scores).all():
            raise InputError(
                f"--detector: the scores of {_name(i)} are {scores.shape}, not "
                f"{sample.mask.shape}, or not all finite"
            )
        yield scores
