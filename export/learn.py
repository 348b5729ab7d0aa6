"""From a handful of real defects to an engine: look, choose, train, build, show."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path

from defectrt.config.job import SynthesizerConfig
from defectrt.config.synthesis import Share
from defectrt.errors import InputError, OutputError
from defectrt.files import write_whole
from defectrt.images.given import Picture
from defectrt.masks.examples import write_examples
from defectrt.synthesis.synthesizer import Synthesizer
from defectrt.synthesis.workpiece import Workpiece
from defectrt.training.bundled import open_base
from defectrt.training.config import TrainConfig, load_config
from defectrt.training.data.dataset import read_defects
from defectrt.training.data.layouts import LOCO, LOCO_CLASSES
from defectrt.training.data.proposals import propose, proposed_in
from defectrt.training.data.samples import (
    GOOD,
    Defects,
    Sample,
    given_defects,
    given_good,
    read_good,
)
from defectrt.training.data.survey import Survey, examples_of, survey
from defectrt.training.loop.holdout import read_curve
from defectrt.training.loop.runs import device_of
from defectrt.training.loop.train import train
from defectrt.training.models.stable_diffusion import StableDiffusion
from defectrt.training.sheet import Row, sheet
from defectrt.training.threads import set_threads
from defectrt.training.tuning.config import TuneConfig
from defectrt.training.tuning.report import SYNTHESIZE
from defectrt.training.tuning.tune import tune_on

from .build import build
from .graphs import Onnx

__all__ = ["Plan", "learn"]

#: Examples of a type from which one in four is held back, to measure on.
_ENOUGH, _SHARE = 6, 4
#: Made defects a type in the sheet.
_SHOWN = 12
PLAN, SHEET, TUNED = "plan.json", "sheet.png", "tuned"
_ADVICE = "mend this and run the same command again"


@dataclass(frozen=True)
class _Given:
    """What there is to learn from.

    remarks   what must be known of each type's masks
    logical   whether the layout is one of parts that are missing, or in the wrong place
    """

    samples: list[Sample]
    remarks: Mapping[str, str] = field(default_factory=dict)
    logical: bool = False


@dataclass(frozen=True)
class Plan:
    """What was found and what follows from it.

    survey    of all samples
    training  how the model is trained
    learned   samples to learn from, and ``held_out`` those to measure on
    reasons   why, a sentence each
    """

    survey: Survey
    training: TrainConfig
    learned: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    reasons: tuple[str, ...]


def learn(
    defects: str | PathLike[str] | Defects,
    good: str | PathLike[str] | Sequence[Picture] | None = None,
    *,
    out: str | PathLike[str],
    model: str | None = None,
    run: str | PathLike[str] | None = None,
    layout: str | None = None,
    steps: int | None = None,
    preview_every: int = 100,
    device: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    tune: float | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Make an engine ``out`` from examples of one or several types of defect.

    ``defects`` is a dataset in any layout that is known, or one type's folder of images beside
    masks; or a list of ``(image, mask)`` or ``(image, mask, type)``, or lists of them by type.
    ``good`` is a folder of further good images, or a list. Images in lists are arrays, [H,W] or
    [H,W,C], uint8 or uint16; paths of files; or pictures of Pillow's. Masks are arrays [H,W], not
    0 is defect, or paths. In a folder, masks that are missing are proposed and written there (see
    `defectrt.training.data.proposals`).

    ``run``, by default beside ``out``, gets the plan, the training run, and a sheet of real beside
    made defects. Then ``tune`` minutes choose how it paints and how its pictures are used, see
    `defectrt.training.tuning.tune`; ``run``/tuned gets what was tried, and ``synthesize.yaml`` with
    what was chosen. Whatever stopped it, the same call goes on. The other options are those of the
    command line. Returns the engine. Raises the errors of `defectrt.errors`; nothing half made is
    left.
    """
    out = Path(out)
    run = Path(run or out.with_name(f"{out.name}-run"))
    tuned = run / TUNED
    goes_on = tune is not None and tuned.is_dir()
    if out.exists() and not overwrite and not goes_on:
        raise OutputError(f"{out}: already there; add --overwrite, or choose another --out")
    set_threads(threads)
    base = open_base(model)
    given = _read(defects, good, layout, quiet=quiet)
    if tune is not None and goes_on and out.exists() and not overwrite:
        _tune(given, out, tuned, tune, seed, quiet=quiet)
        return out
    plan = _plan(given, base, lora=model is not None, steps=steps, seed=seed)
    _tell(plan, quiet)
    write_whole(run / PLAN, _text(plan).encode(), advice=_ADVICE)
    if not (run / "model").is_dir():
        train(
            base,
            plan.learned,
            plan.training,
            run,
            base_model=model or "bundled",
            resume=True,
            checkpoint_every=50,
            preview_every=preview_every,
            held_out=plan.held_out,
            device=device_of(device),
            quiet=quiet,
        )
    if plan.held_out and not quiet:
        print(_curve(run), file=sys.stderr)
    examples = {
        name: examples_of([s for s in given.samples if s.defect_type == name], plan.survey)
        for name in plan.survey.defect_types
    }
    if tune is not None:
        tuned.mkdir(exist_ok=True)
    build(
        run,
        out,
        Onnx(half_weights=True),
        beside=lambda folder: write_examples(folder, examples),
        overwrite=overwrite,
        quiet=quiet,
    )
    write_whole(run / SHEET, sheet(_rows(given, out, seed)), advice=_ADVICE)
    if not quiet:
        print(f"real beside made defects: {run / SHEET}", file=sys.stderr)
    if tune is not None:
        _tune(given, out, tuned, tune, seed, quiet=quiet)
    return out


def _tune(
    given: _Given, engine: Path, out: Path, minutes: float, seed: int, *, quiet: bool
) -> None:
    """Choose settings of the engine by the gain on its held-out examples, and say so."""
    config = TuneConfig(engine=engine, budget=minutes, seed=seed)
    body = json.loads(tune_on(given.samples, out, config, quiet=quiet).read_bytes())
    if not quiet:
        print(body["sentence"], file=sys.stderr)
        print(f"what was chosen: --config {out / SYNTHESIZE}", file=sys.stderr)


def _read(
    defects: str | PathLike[str] | Defects,
    good: str | PathLike[str] | Sequence[Picture] | None,
    layout: str | None,
    *,
    quiet: bool,
) -> _Given:
    """All samples of what `learn` takes."""
    if good is None:
        samples = []
    elif isinstance(good, str | PathLike):
        samples = read_good(Path(good))
    else:
        samples = given_good(good)
    if isinstance(defects, str | PathLike):
        return _read_folder(Path(defects), samples, layout, quiet=quiet)
    samples += given_defects(defects)
    _check(samples, "defects")
    return _Given(samples)


def _read_folder(
    defects: Path, samples: list[Sample], layout: str | None, *, quiet: bool
) -> _Given:
    """All samples of a dataset, or of one folder of images beside masks, and the good images.

    Masks are proposed for images that have none.
    """
    if not defects.is_dir():
        raise InputError(f"{defects}: no such folder of defects")
    nothing = propose(defects, samples, layout=layout, quiet=quiet).nothing
    if nothing:
        raise InputError(
            f"{defects}: no mask, and nothing stands out, in {', '.join(nothing)}; draw "
            "NAME_mask.png beside it, or put a box into NAME.txt (see defectrt data propose), or "
            "take it away"
        )
    found = read_defects(defects, layout)
    samples += found if isinstance(found, list) else found.samples()
    _check(samples, str(defects))
    logical = not isinstance(found, list) and found.layout in (LOCO, LOCO_CLASSES)
    return _Given(samples, _remarks(samples, proposed_in(defects, layout)), logical)


def _check(samples: Sequence[Sample], what: str) -> None:
    if not any(sample.defect_type != GOOD for sample in samples):
        raise InputError(f"{what}: shows no defects; each needs a mask, see defectrt data inspect")
    if not any(sample.defect_type == GOOD for sample in samples):
        raise InputError(f"{what}: has no good images; give a folder of them with --good")


def _remarks(samples: Sequence[Sample], proposed: Collection[Path]) -> dict[str, str]:
    remarks = {}
    for name in {sample.defect_type for sample in samples} - {GOOD}:
        own = [sample.path in proposed for sample in samples if sample.defect_type == name]
        if any(own):
            remarks[name] = f", {sum(own)} of {len(own)} masks are proposed"
    return remarks


def _plan(
    given: _Given,
    base: StableDiffusion,
    *,
    lora: bool,
    steps: int | None,
    seed: int,
) -> Plan:
    samples, window = given.samples, base.window
    found = survey(samples, window, base.downscale, logical=given.logical)
    warnings = [f"{name}{remark}; look at them" for name, remark in sorted(given.remarks.items())]
    found = replace(found, warnings=(*found.warnings, *warnings))
    learned, held_out, reasons = [], list[Sample](), list[str]()
    for name in (*found.defect_types, GOOD):
        own = [sample for sample in samples if sample.defect_type == name]
        held = own[_SHARE - 1 :: _SHARE] if name != GOOD and len(own) >= _ENOUGH else []
        held_out += held
        learned += [sample for sample in own if sample not in held]
        if held:
            reasons.append(
                f"{name}: {len(held)} of {len(own)} examples are held back, to measure on"
            )
        elif name != GOOD:
            reasons.append(
                f"{name}: all {len(own)} are learned from; of {_ENOUGH} or more, "
                f"one in {_SHARE} would be held back"
            )
    magnify, whole = found.magnify, found.magnify == "fit"
    if whole:
        reasons.append(f"images are seen whole: {found.why}")
        reasons.append("images are neither mirrored nor turned: what lies where counts")
    elif found.directed:
        reasons.append("crops are mirrored, not turned: the surface has a direction")
    else:
        reasons.append("crops are mirrored and turned: the surface has no direction")
    if magnify in (2, 4):
        reasons.append(f"images are enlarged {magnify} times: {found.why}")
    chosen = {
        "flip": "none" if whole else "both",
        "turn": not (found.directed or whole),
        "seed": seed,
        "window": window,
        "magnify": magnify,
    }
    if steps is not None:
        chosen |= {"steps": steps, "cooldown": min(150, steps // 3), "warmup": min(20, steps // 4)}
    _, training = load_config(
        "sd15-lora" if lora else "few", None, {"out": Path("run"), "model": "base"} | chosen
    )
    if lora:
        training = training.model_copy(update={"prediction": None})
    shown = "whole images" if magnify == "fit" else f"crops of {window // magnify} px"
    reasons.append(f"{training.steps} steps of {training.batch_size} {shown}")
    return Plan(found, training, tuple(learned), tuple(held_out), tuple(reasons))


def _tell(plan: Plan, quiet: bool) -> None:
    for warning in plan.survey.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if quiet:
        return
    for name, found in plan.survey.defect_types.items():
        print(
            f"{name}: {found.images} images, {found.instances} defects, in the middle "
            f"{found.longest:.0f} px long and {found.width:.0f} px thick",
            file=sys.stderr,
        )
    print(f"{plan.survey.good} good images", *plan.reasons, sep="\n", file=sys.stderr)


def _text(plan: Plan) -> str:
    types = {name: vars(found) for name, found in plan.survey.defect_types.items()}
    return (
        json.dumps(
            {
                "defect_types": types,
                "good": plan.survey.good,
                "directed": plan.survey.directed,
                "magnify": plan.survey.magnify,
                "warnings": plan.survey.warnings,
                "reasons": plan.reasons,
                "held_out": [f"{s.defect_type}/{s.path.name}" for s in plan.held_out],
            },
            indent=1,
        )
        + "\n"
    )


def _curve(run: Path) -> str:
    """The learning curve in words."""
    points = read_curve(run)
    best = min(points, key=lambda point: point[1])[0]
    text = ", ".join(f"{step}: {loss:.3f}" for step, loss in points)
    return f"loss on what was held back, by step: {text}; the weights of step {best} are taken"


def _rows(given: _Given, engine: Path, seed: int) -> list[Row]:
    """Real and made defects of each type, on good images in turn."""
    samples = given.samples
    good = [sample for sample in samples if sample.defect_type == GOOD][:_SHOWN]
    rows = []
    for name in sorted({sample.defect_type for sample in samples} - {GOOD}):
        real = [(s.image, s.mask) for s in samples if s.defect_type == name][:_SHOWN]
        config = SynthesizerConfig(
            engine=engine, defect=(Share(name),), count=-(-_SHOWN // len(good)), seed=seed
        )
        pieces = [Workpiece(sample.image, name=sample.path.name) for sample in good]
        with Synthesizer(config) as synthesizer:
            results = [r for r in synthesizer.run(pieces) if r.fault is None][:_SHOWN]
        made = [(r.image if r.image.ndim == 3 else r.image[..., None], r.label) for r in results]
        rows.append(Row(name, real, made, given.remarks.get(name, "")))
    return rows
