"""What a detector says of pictures: maps or single scores, in a folder, a list, or by a command."""

from __future__ import annotations

import csv
import hashlib
import io
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from defectrt.errors import InputError
from defectrt.files import parse_json, read_input, sha256_of, write_whole
from defectrt.images.folder import find_files
from defectrt.stopping import asked_to_stop

from ..data.samples import Sample
from ..proving.command import answers

__all__ = ["Scores", "read_scores", "scores_by"]

_MOST = 1 << 30
_MAPS = (".npy", ".tiff", ".tif")
_SHOWN = 5

#: Of each picture a map [H,W], or of each a single score [].
Scores = list[NDArray[np.float64]]
Said = Mapping[tuple[str, ...], "float | Path"]


def read_scores(path: Path, samples: Sequence[Sample]) -> Scores:
    """The scores of ``samples``, each the larger the more like a defect.

    ``path`` is a folder of maps, or a list of maps and numbers: JSON ``{picture: score}`` or CSV
    with the columns ``path`` and ``score``. A picture is named by the end of its path without
    suffix, as far as that tells it apart: ``test/hole/000`` is ``…/made/test/hole/000.png``. Maps
    of another size are scaled to the picture's. Raises `InputError` for pictures without scores,
    names that are of two pictures, values that are not finite, and maps beside single scores.
    """
    said = _folder(path) if path.is_dir() else _list(path)
    chosen = _matched(path, said, samples)
    found = [_value(value, s) for value, s in zip(chosen, samples, strict=True)]
    if len({f.ndim for f in found}) > 1:
        raise InputError(f"{path}: has maps for some pictures and single scores for others")
    return found


def scores_by(command: str, samples: Sequence[Sample], out: Path, seed: int) -> Scores:
    """The maps of a command, kept in ``out``: the same command on the same pictures is not run.

    It is another command once a file that it names was changed. Raises as
    `defectrt.training.proving.command.answers` does.
    """
    parts = [command, str(seed), *_files_of(command), *(s.sha256() for s in samples)]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    kept = out / "scores" / f"{key}.npz"
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as stored:
            return [stored[str(i)].astype(np.float64) for i in range(len(samples))]
    with asked_to_stop() as stop:
        found = answers(command, (), samples, seed, stop.is_set)
    arrays: dict[str, Any] = {str(i): f.astype(np.float32) for i, f in enumerate(found)}
    np.savez_compressed(data := io.BytesIO(), **arrays)
    write_whole(kept, data.getvalue())
    return [a.astype(np.float64) for a in arrays.values()]


def _files_of(command: str) -> list[str]:
    """Hashes of the files that a command names: its program's text, and a model."""
    return [sha256_of(path) for path in map(Path, shlex.split(command)) if path.is_file()]


def _folder(path: Path) -> Said:
    files = [f for f in find_files(path) if f.suffix.lower() in _MAPS]
    if not files:
        raise InputError(f"{path}: holds no maps, {' or '.join(_MAPS)}")
    return {_key(f.relative_to(path)): f for f in files}


def _list(path: Path) -> Said:
    data = read_input(path, _MOST)
    try:
        rows = _json(data) if path.suffix.lower() == ".json" else _csv(data)
        said = {_key(PurePath(name)): _told(path, value) for name, value in rows}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(
            f"{path}: not a list of scores; expected JSON {{picture: score}} or CSV with the "
            f"columns path and score ({error})"
        ) from error
    if not said:
        raise InputError(f"{path}: holds no scores")
    return said


def _json(data: bytes) -> Iterator[tuple[str, Any]]:
    yield from dict(parse_json(data)).items()


def _csv(data: bytes) -> Iterator[tuple[str, Any]]:
    for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")):
        yield row["path"], row["score"]


def _told(path: Path, value: Any) -> float | Path:
    """A score, or where a map lies."""
    if isinstance(value, str) and value.lower().endswith(_MAPS):
        return path.parent / value
    return float(value)


def _key(path: PurePath) -> tuple[str, ...]:
    return path.with_suffix("").parts


def _matched(path: Path, said: Said, samples: Sequence[Sample]) -> list[float | Path]:
    """What is said of each picture, by the longest name that its path ends in."""
    by_name: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for key in said:
        by_name[key[-1]].append(key)
    taken: dict[tuple[str, ...], Sample] = {}
    missing = []
    for sample in samples:
        own = _key(sample.path.absolute())
        fitting = [k for k in by_name[own[-1]] if own[-len(k) :] == k]
        if not fitting:
            missing.append(str(sample.path))
            continue
        key = max(fitting, key=len)
        if key in taken:
            raise InputError(
                f"{path}: {'/'.join(key)} names {taken[key].path} and {sample.path}; name them "
                "with more of their folders"
            )
        taken[key] = sample
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise InputError(f"{path}: no scores of {', '.join(missing[:_SHOWN])}{more}")
    return [said[key] for key in taken]


def _value(value: float | Path, sample: Sample) -> NDArray[np.float64]:
    found = np.asarray(value, np.float64) if isinstance(value, float) else _map(value)
    if not np.isfinite(found).all():
        raise InputError(f"{sample.path}: its scores are not all finite")
    size = sample.mask.shape
    if found.ndim == 2 and found.shape != size:
        found = np.asarray(cv2.resize(found, size[::-1], interpolation=cv2.INTER_LINEAR))
    return found


def _map(path: Path) -> NDArray[np.float64]:
    data = read_input(path, _MOST)
    try:
        if path.suffix.lower() == ".npy":
            found = np.load(io.BytesIO(data), allow_pickle=False)
        else:
            found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        found = np.squeeze(np.asarray(found, np.float64))
    except (ValueError, TypeError, cv2.error) as error:
        raise InputError(f"{path}: not a map of numbers ({error})") from error
    if found.ndim != 2:
        raise InputError(f"{path}: {found.ndim} dimensions, not a map [H,W]")
    return found
