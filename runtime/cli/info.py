"""``defectrt info``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .text import megabytes

if TYPE_CHECKING:
    from ..engines.manifest import Manifest

__all__ = ["info"]


def info(
    engine: Annotated[
        Path | None, typer.Argument(help="Engine directory; by default the bundled one.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The whole manifest as JSON, with category ids.")
    ] = False,
) -> None:
    """Show what an engine is: its types of defect, window, schedules, and where it comes from.

    Reads the manifest alone; `defectrt verify` also checks the files.

    Examples:

      defectrt info engines/hole

      defectrt info --json
    """
    from ..engines.loading import BUNDLED_ENGINE
    from ..engines.manifest import read_manifest

    directory = engine or BUNDLED_ENGINE
    manifest = read_manifest(directory)
    if as_json:
        ids = {name: i for i, name in enumerate(manifest.defect_types, 1)}
        data = {"directory": str(directory), "category_ids": ids}
        typer.echo(json.dumps(data | manifest.model_dump(mode="json"), indent=1))
        return
    for name, value in _rows(directory, manifest):
        typer.echo(f"{name:<13} {' '.join(value.splitlines())}")


def _rows(directory: Path, manifest: Manifest) -> list[tuple[str, str]]:
    """What an engine is, a line each."""
    image, latent, schedule = manifest.image, manifest.latent, manifest.schedule
    steps = sorted(map(int, schedule.tables))
    made = manifest.provenance
    tools = ", ".join(f"{name} {version}" for name, version in made.tools.items())
    rows = [
        ("engine", str(directory)),
        ("backend", f"{manifest.backend}, {manifest.precision}"),
        ("fingerprint", manifest.fingerprint),
        *_target(manifest),
        ("window", f"{image.width}x{image.height} px"),
        *_magnify(manifest),
        ("latents", f"{latent.channels} x {latent.height} x {latent.width}"),
        ("attention", f"{manifest.attention.height} x {manifest.attention.width}"),
    ]
    rows += [
        ("makes" if i == 1 else "", f"{i}  {prompt.name}: {prompt.text!r}")
        for i, prompt in enumerate((p for p in manifest.prompts if p.role == "defect"), 1)
    ]
    rows += [
        ("steps", f"{', '.join(map(str, steps))}; {schedule.default_steps} by default"),
        ("schedule", f"{schedule.prediction_type}, {schedule.solver}"),
        ("inversion", f"as in {schedule.convention}"),
        ("base model", made.base_model or "not said"),
        ("trained on", f"{sum(entry.images for entry in made.dataset):,} images"),
        ("made with", tools or "not said"),
    ]
    rows += [
        ("files" if i == 0 else "", f"{name}, {megabytes(entry.size)}, sha256 {entry.sha256}")
        for i, (name, entry) in enumerate(sorted(manifest.files.items()))
    ]
    return rows


def _magnify(manifest: Manifest) -> list[tuple[str, str]]:
    """What the window shows of an image, unless that is as much as it is large."""
    if manifest.magnify == "fit":
        return [("magnify", "fit: the window shows the whole image")]
    return [("magnify", f"{manifest.magnify} times")] if manifest.magnify > 1 else []


def _target(manifest: Manifest) -> list[tuple[str, str]]:
    """What compiled graphs are for."""
    target = manifest.target
    if target is None:
        return []
    from ..engines.tensorrt_engine import CARDS, SUFFIX

    cards = {str(capability): f"{capability} ({name})" for capability, name in CARDS.items()}
    rows = [
        ("runs on" if i == 0 else "", f"{target.device} {cards.get(name, name)}")
        for i, name in enumerate(target.capabilities or ["of any kind"])
    ]
    sizes = ", ".join(map(str, target.rows)) or "any size"
    if manifest.backend in SUFFIX and target.rows:
        sizes = f"1 to {max(target.rows)} rows"
    rows += [("batches of", sizes)]
    rows += [("needs", ", ".join(f"{k} {v}" for k, v in target.runtime.items()))]
    if manifest.backend == "tensorrt":
        rows += [("mind", "plans of this backend have never run on hardware so far")]
    return rows
