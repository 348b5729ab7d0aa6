"""``defectrt prove``. Torch is imported only when the command runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from defectrt.config.command_line import given, with_file, with_options
from defectrt.errors import UsageError
from defectrt.extras import requires

from ..proving.config import QUICK, ProveConfig

__all__ = ["prove"]


@with_options(ProveConfig)
def prove(
    defects: Annotated[
        Path,
        typer.Argument(
            help="Dataset of real defects with masks: MVTec's layout, a folder a type, pictures "
            "beside masks."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the certificate.")],
    config: Annotated[
        Path | None, typer.Option(help="YAML file; its keys are the options below, with _ for -.")
    ] = None,
    tune: Annotated[
        float | None,
        typer.Option(
            help="Prove nothing, but choose settings of the one --engine, so many minutes long: "
            "tune.json, and synthesize.yaml and prove.yaml for --config.",
            metavar="MINUTES",
            min=0,
        ),
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option(help="With --tune: made pictures of each type beside each half.", min=2),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="One split, 300 steps, nothing begun after 8 minutes."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The certificate as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Warnings alone.")] = False,
    **options: Any,
) -> None:
    """Say with intervals whether made defects help a detector on your own defects.

    Trains the same small detector on real pictures alone, on real + cut-paste and on real + each
    set of made ones, over seeds and over divisions in which no workpiece is on both sides; tests
    it on real pictures that neither it nor the made ones have learned from. OUT gets proof.json
    and report.html. Whatever stops it, the same command goes on.

    Examples:

      defectrt prove defects --good good --synthetic made --out proof

      defectrt prove defects --good good --synthetic made --engine engines/part --held-out test
      --out proof --quick

      defectrt prove defects --good good --synthetic made --group 'part(\\d+)' --share 0.25,0.5
      --out proof

      defectrt prove defects --good good --engine engines/part --tune 60 --out tuned
    """
    chosen = with_file(config, given(options, ProveConfig))
    if tune is not None:
        _tune(defects, out, chosen, tune, pictures, quiet=quiet, as_json=as_json)
        return
    if pictures is not None:
        raise UsageError("--pictures is for --tune; see --per-real")
    how = ProveConfig(**(QUICK if quick else {}) | chosen)
    with requires("train"):
        from ..proving.prove import prove as run_all
    path = run_all(defects, out, how, quiet=quiet)
    proof = json.loads(path.read_bytes())
    if as_json:
        typer.echo(json.dumps(proof))
        return
    for said in proof["verdicts"]:
        typer.echo(said["sentence"])
        for text in (*said["leakage_unknown"], *said["why"]):
            typer.echo(f"  {text}")
    for note in proof["notes"]:
        typer.echo(f"note: {note}")
    typer.echo(path.with_name("report.html"))


def _tune(
    defects: Path,
    out: Path,
    options: dict[str, Any],
    minutes: float,
    pictures: int | None,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    from ..tuning.config import TuneConfig

    engines = options.pop("engine", ())
    if len(engines) != 1:
        raise UsageError("--tune: needs the one --engine whose settings are to be chosen")
    if strange := sorted(options.keys() - TuneConfig.model_fields.keys()):
        names = ", ".join(f"--{key.replace('_', '-')}" for key in strange)
        raise UsageError(
            f"--tune: not with {names}; it chooses on the examples that the engine has learned "
            "from and reads no others"
        )
    own: dict[str, Any] = {} if pictures is None else {"pictures": pictures}
    how = TuneConfig(**options | own, engine=engines[0], budget=minutes)
    with requires("train"):
        from ..tuning.tune import tune
    path = tune(defects, out, how, quiet=quiet)
    if as_json:
        typer.echo(json.dumps(json.loads(path.read_bytes())))
        return
    typer.echo(json.loads(path.read_bytes())["sentence"])
    typer.echo(path.with_name("tune.html"))
