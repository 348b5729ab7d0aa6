"""Made pictures for one half of the examples: masks and strengths come from that half alone."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from defectrt.config.job import SynthesizerConfig
from defectrt.engines.manifest import Manifest
from defectrt.errors import InputError
from defectrt.files import read_file, write_whole
from defectrt.images.png import encode_png
from defectrt.images.reading import read_image
from defectrt.images.types import Mask
from defectrt.masks.examples import Examples
from defectrt.masks.sources import open_masks
from defectrt.synthesis.strength import Strengths
from defectrt.synthesis.synthesizer import Synthesizer
from defectrt.synthesis.workpiece import Result, Workpiece

from ..data.layouts import GOOD
from ..data.samples import Sample
from ..data.survey import examples_of, survey

__all__ = ["Painted", "examples_in", "paint"]

_SET, _LARGEST = "set.json", 1 << 20


@dataclass(frozen=True)
class Painted:
    """A made picture twice: with where it changed as its mask, and with the mask asked for."""

    change: Sample
    mask: Sample


def examples_in(
    samples: Sequence[Sample], manifest: Manifest, carried: Mapping[str, Examples]
) -> dict[str, Examples]:
    """What the samples say of masks and strengths, by type, as an engine carries it.

    Whether they run one way, what is ``carried`` says: half of a handful is too few to tell.
    """
    downscale = manifest.image.height // manifest.latent.height
    found = survey(samples, manifest.image.height, downscale, logical=manifest.magnify == "fit")
    found = replace(found, magnify=manifest.magnify, seen=manifest.window or found.seen)
    return {
        name: examples_of([s for s in samples if s.defect_type == name], found).model_copy(
            update={"directed": carried[name].directed}
        )
        for name in found.defect_types
        if name in carried
    }


def paint(
    options: dict[str, Any],
    samples: Sequence[Sample],
    examples: dict[str, Examples],
    manifest: Manifest,
    config: SynthesizerConfig,
    *,
    each: int,
    folder: Path,
    stop: threading.Event,
) -> list[Painted]:
    """``each`` pictures of every type on the good ones among ``samples``, or those in ``folder``.

    ``options`` are those of ``synthesize`` that differ from ``config``; ``examples`` are the
    samples' own, or empty where the engine carries none. Raises `Cancelled` when ``stop`` is set,
    and `InputError` if nothing could be painted.
    """
    if not (folder / _SET).is_file():
        _paint(options, samples, examples, manifest, config, each, folder, stop)
    try:
        names = json.loads(read_file(folder / _SET, _LARGEST))["types"]
        return [_read(folder, i, str(name)) for i, name in enumerate(names)]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / _SET}: damaged ({error}); remove the folder") from error


def _paint(
    options: dict[str, Any],
    samples: Sequence[Sample],
    examples: dict[str, Examples],
    manifest: Manifest,
    config: SynthesizerConfig,
    each: int,
    folder: Path,
    stop: threading.Event,
) -> None:
    how = config.replace(**options)
    goods = [s for s in samples if s.defect_type == GOOD]
    types = sorted({s.defect_type for s in samples} - {GOOD})
    pieces = [
        piece for name in types for piece in _places(name, goods, examples, manifest, how, each)
    ]
    kept: list[str] = []
    with Synthesizer(how) as synthesizer:
        for result in synthesizer.run(pieces, cancel=stop):
            if result.fault is None and result.label.any():
                _write(folder, len(kept), result)
                kept.append(result.defect)
    if missing := [name for name in types if name not in kept]:
        raise InputError(
            f"with {options or 'the defaults'} the engine paints no {', no '.join(missing)}"
        )
    write_whole(folder / _SET, json.dumps({"types": kept, "options": options}).encode() + b"\n")


def _places(
    name: str,
    goods: Sequence[Sample],
    examples: dict[str, Examples],
    manifest: Manifest,
    config: SynthesizerConfig,
    each: int,
) -> Iterator[Workpiece]:
    """Good pictures in turn, with where a defect of a type comes and how strong it is."""
    own = examples.get(name)
    masks = open_masks(
        config,
        name,
        window=manifest.window,
        seed=config.seed,
        band=math.ceil(config.grow + config.feather),
        examples=own,
    )
    strengths = Strengths(config.seed, name, config.strength, own.strengths if own else ())
    order = np.random.default_rng([config.seed, len(goods)]).permutation(len(goods))
    for i in range(each):
        good = goods[int(order[i % len(goods)])]
        number = i // len(goods)
        try:
            placed = masks(good.path.name, good.image, number)
        except InputError:  # this picture has no place for it
            continue
        mask = np.logical_or.reduce([one.mask for one in placed])
        wanted = strengths(good.path.name, number, 0)
        yield Workpiece(good.image, mask, f"{name} {i} {good.path.name}", name, wanted)


def _write(folder: Path, number: int, result: Result) -> None:
    image = result.image if result.image.ndim == 3 else result.image[..., None]
    write_whole(_file(folder, number, "image"), encode_png(image))
    for what, mask in (("change", result.label), ("mask", result.mask)):
        bits: Any = mask.astype(np.uint8)[..., None] * 255
        write_whole(_file(folder, number, what), encode_png(bits))


def _read(folder: Path, number: int, name: str) -> Painted:
    path = _file(folder, number, "image")
    image: Any = read_image(path)
    image = np.broadcast_to(image[..., :3], (*image.shape[:2], 3))
    change, mask = (_bits(_file(folder, number, what)) for what in ("change", "mask"))
    return Painted(Sample(path, name, image, change), Sample(path, name, image, mask))


def _bits(path: Path) -> Mask:
    return np.asarray(read_image(path)[..., 0] > 0)


def _file(folder: Path, number: int, what: str) -> Path:
    return folder / f"{number:03d}_{what}.png"
