"""The bundled base: the model that the bundled engine was built from, to be trained further.

It lies beside this file as a run, in ``bundled_base``: a record and a model in half precision.

python -m defectrt.training.bundled RUN OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from defectrt.errors import InputError
from defectrt.files import write_directory, write_whole

from .models.stable_diffusion import StableDiffusion, open_model
from .record import listed, read_record

__all__ = ["BUNDLED_RUN", "open_base", "publish"]

#: A finished run, so that engines are built from it as from any other.
BUNDLED_RUN = Path(__file__).parent / "bundled_base"
_ADVICE = "mend this and publish again"


def open_base(model: str | None = None, *, untrained: bool = False) -> StableDiffusion:
    """The model to start from: the one that is named, or the bundled base.

    Raises `InputError` if it cannot be opened, or if it never learned anything and need not be
    ``untrained``.
    """
    opened = open_model(model or BUNDLED_RUN / "model")
    if opened.untrained and not untrained:
        raise InputError(
            f"{model}: its {' and '.join(opened.untrained)} never learned anything; leave out "
            "--model to start from the bundled base, train it first (see the recipe in "
            "examples/bundled_engine), or add --from-nothing to defectrt train"
        )
    return opened


def publish(run: Path, out: Path) -> None:
    """Write a finished run as a base: its record, and its model in half precision.

    The weights are those that an engine with weights of half precision holds. Raises `InputError`
    if it is not a run, `OutputError` if ``out`` cannot be written.
    """
    record, model = read_record(run), open_model(run / "model")
    record = record.model_copy(update={"dataset": listed(record.dataset)})
    for part in (model.unet, model.vae, model.text_encoder):
        for weights in part.parameters():
            weights.data = weights.data.half()

    def write(directory: Path) -> None:
        model.save(directory / "model")
        text = record.model_dump_json(indent=1) + "\n"
        write_whole(directory / "run.json", text.encode(), advice=_ADVICE)

    write_directory(out, write, advice=_ADVICE)


if __name__ == "__main__":
    publish(Path(sys.argv[1]), Path(sys.argv[2]))
