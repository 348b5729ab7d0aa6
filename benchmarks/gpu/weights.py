"""Weights that come back: a model's parts in float16, in several files that are each small enough.

    PYTHONPATH=benchmarks python -m gpu.weights OUT/base-*.safetensors --out MODEL

makes a Stable Diffusion directory of them, to draw with or to train from.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from defectrt.training.models.stable_diffusion import SIZES, StableDiffusion, new_model

#: Bytes of tensors in a file, at most; it has to stay under 16 MiB with its header.
MOST_BYTES = 15 << 20
_PARTS = ("unet", "vae", "text_encoder")


def save(model: StableDiffusion, out: Path, name: str, facts: dict[str, str]) -> list[Path]:
    """Write ``out/<name>-1.safetensors`` and so on, each whole under its name or as it was before.

    ``facts`` go into every file, with what the weights do not say themselves.
    """
    facts = facts | {"scaling_factor": repr(model.vae.config.scaling_factor)}
    tensors = {
        f"{part}.{key}": value.detach().to("cpu", torch.float16).contiguous()
        for part in _PARTS
        for key, value in getattr(model, part).state_dict().items()
    }
    paths = []
    for number, group in enumerate(_groups(tensors), 1):
        path = out / f"{name}-{number}.safetensors"
        partial = out / f".{path.name}"
        save_file(group, partial, metadata=facts | {"file": str(number)})
        partial.replace(path)
        paths.append(path)
    return paths


def _groups(tensors: dict[str, Tensor]) -> Iterable[dict[str, Tensor]]:
    """The tensors in their order, in groups of at most `MOST_BYTES`."""
    group: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if group and size + tensor.nbytes > MOST_BYTES:
            yield group
            group, size = {}, 0
        group[name] = tensor
        size += tensor.nbytes
    yield group


def load(paths: Sequence[Path]) -> tuple[StableDiffusion, dict[str, str]]:
    """The model in float32, and the facts that were saved with it.

    Raises `ValueError` if the files are not all of one moment, or one is missing.
    """
    tensors: dict[str, Tensor] = {}
    facts: list[dict[str, str]] = []
    for path in paths:
        with safe_open(path, "pt") as file:
            facts.append({k: v for k, v in file.metadata().items() if k != "file"})
            tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if any(fact != facts[0] for fact in facts):
        raise ValueError(f"{paths[0].parent}: the files are of different moments: {facts}")
    found = facts[0]
    model = new_model(SIZES[found["size"]], prediction_type=found["prediction_type"])
    for part in _PARTS:
        own = {
            key.partition(".")[2]: value.float()
            for key, value in tensors.items()
            if key.startswith(f"{part}.")
        }
        module: Any = getattr(model, part)
        if missing := set(module.state_dict()) - set(own):
            raise ValueError(f"{paths[0].parent}: {len(missing)} tensors of {part} are missing")
        module.load_state_dict({k: v.to(module.state_dict()[k].dtype) for k, v in own.items()})
    model.vae.register_to_config(scaling_factor=float(found["scaling_factor"]))
    return model, found


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    model, facts = load(sorted(arguments.files))
    model.save(arguments.out)
    print(facts)


if __name__ == "__main__":
    main()
