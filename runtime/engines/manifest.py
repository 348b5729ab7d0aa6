"""The manifest of an engine directory: guilty until proven innocent.

Everything is checked before anything is opened or executed: the schema, the version, that no
path leaves the directory, the size and hash of every file. All faults come in one message.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from ..config.engine import Magnify
from ..config.names import checked_name
from ..diffusion.schedule import Schedule, StepRow
from ..errors import EngineError, UsageError
from ..files import sha256_of

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "TOLERANCES",
    "DatasetEntry",
    "FileEntry",
    "Manifest",
    "PromptList",
    "Target",
    "dump",
    "hash_file",
    "read_manifest",
    "verify",
]

MANIFEST = "engine.json"
FORMAT_VERSION = 1
#: Largest difference that rounding makes, relative to the largest value, by precision. float32
#: reaches about 1e-5 on the graphs seen so far; a wrong weight reaches 1e-1.
TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}
#: A manifest is a few kB; a larger one is not read at all.
_MAX_BYTES = 4 << 20
#: Names that mean the same on every system: no path, no drive, no control character.
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
#: What file managers leave in every folder that somebody looks at.
_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})

Side = Annotated[int, Field(ge=1, le=16384)]
#: Of a manifest, as a message tells them: one table of steps alone can have hundreds.
_FAULTS = 8
Finite = Annotated[float, Field(allow_inf_nan=False)]
#: a and b of a step reach 1,600 where α is smallest; what float32 cannot hold is damage.
Scalar = Annotated[float, Field(ge=-1e6, le=1e6)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ImageSize(_Strict):
    """Channels and size of what a graph takes or gives."""

    channels: Annotated[int, Field(ge=1, le=256)]
    height: Side
    width: Side


class MapSize(_Strict):
    """Size of the attention map."""

    height: Side
    width: Side


class Vae(_Strict):
    """For information: both are already part of the encoder and decoder graphs."""

    scaling_factor: Finite
    shift_factor: Finite


class Prompt(_Strict):
    """A prompt by its index in the list; ``role`` says which of C_bg, C_m, C_def it is."""

    role: Literal["background", "masked", "defect"]
    name: Annotated[str, AfterValidator(checked_name)]
    text: Annotated[str, Field(max_length=1000)]


def _roles(prompts: list[Prompt]) -> list[Prompt]:
    roles, names = [p.role for p in prompts], [p.name for p in prompts]
    if roles.count("background") != 1 or roles.count("masked") != 1 or "defect" not in roles:
        raise ValueError("needs one background, one masked and at least one defect prompt")
    if len(set(names)) != len(names):
        raise ValueError("two prompts have the same name")
    return prompts


PromptList = Annotated[list[Prompt], AfterValidator(_roles)]

#: (timestep, a, b, c, alpha) of one step.
Row = tuple[
    Annotated[int, Field(ge=0, le=1_000_000)],
    Scalar,
    Scalar,
    Scalar,
    Annotated[float, Field(gt=0, le=1)],
]


class Tables(_Strict):
    """The steps of one schedule, in the order in which they are taken."""

    inversion: Annotated[list[Row], Field(min_length=1, max_length=10_000)]
    generation: Annotated[list[Row], Field(min_length=1, max_length=10_000)]


class ScheduleEntry(_Strict):
    """Tables by their number of steps."""

    solver: Literal["ddim", "dpmsolver++"]
    convention: Literal["paper", "diffusers"]
    prediction_type: Literal["epsilon", "v_prediction", "sample"]
    train_timesteps: Annotated[int, Field(ge=1, le=1_000_000)]
    default_steps: int
    tables: Annotated[dict[str, Tables], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> ScheduleEntry:
        for steps, table in self.tables.items():
            if {steps} != {str(len(table.inversion)), str(len(table.generation))}:
                raise ValueError(f"table {steps} does not hold {steps} steps each way")
            times = [row[0] for row in table.inversion + table.generation]
            if max(times) >= self.train_timesteps:
                raise ValueError(f"table {steps} passes the last of the training timesteps")
            if any(t > later for t, later in pairwise(row[0] for row in table.inversion)):
                raise ValueError(f"table {steps}: inversion does not go from clean to noise")
            if any(t < later for t, later in pairwise(row[0] for row in table.generation)):
                raise ValueError(f"table {steps}: generation does not go from noise to clean")
        if str(self.default_steps) not in self.tables:
            raise ValueError(f"there is no table for the default of {self.default_steps} steps")
        return self


class DatasetEntry(_Strict):
    """A training image, or all of a kind where there are very many: "hole (1200 images)"."""

    name: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @property
    def images(self) -> int:
        """How many it stands for."""
        many = re.search(r"\(([0-9]{1,9}) images\)$", self.name)
        return int(many[1]) if many else 1


class Provenance(_Strict):
    """Where the engine comes from."""

    base_model: str
    run: dict[str, JsonValue]
    dataset: list[DatasetEntry]
    tools: dict[str, str]


class Target(_Strict):
    """What compiled graphs were compiled for; ONNX graphs run anywhere and have none.

    device        where they run
    capabilities  of a processor, by PyTorch's names: all are needed; of cards, as 89: one is
    rows          sizes of a batch that they are compiled for, others are split or padded; or any
    runtime       versions of the packages that run them
    """

    device: Literal["cpu", "cuda"]
    capabilities: list[Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")]]
    rows: list[Annotated[int, Field(ge=1, le=4096)]]
    runtime: dict[str, str]


class FileEntry(_Strict):
    """Size in bytes and SHA-256 of one file."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class PromptIndices(NamedTuple):
    """Indices of C_def, C_bg and C_m."""

    defect: int
    background: int
    masked: int


class Manifest(_Strict):
    """``engine.json``: what an engine is, in numbers that any host can read."""

    format: Literal["defectrt-engine"]
    format_version: int
    backend: Literal["onnx", "aoti", "tensorrt", "tensorrt-rtx"]
    precision: Literal["float32", "float16", "bfloat16"]
    image: ImageSize
    latent: ImageSize
    attention: MapSize
    vae: Vae
    prompts: PromptList
    schedule: ScheduleEntry
    provenance: Provenance
    files: Annotated[dict[str, FileEntry], Field(min_length=1)]
    target: Target | None = None
    #: Px of the model's window to one px of the image: fine defects are painted enlarged. fit: the
    #: model sees the whole image, fitted into its window.
    magnify: Magnify = 1
    _fingerprint: str = PrivateAttr("")

    @field_validator("format_version")
    @classmethod
    def _known_version(cls, value: int) -> int:
        if value != FORMAT_VERSION:
            raise ValueError(f"version {value}; this program reads version {FORMAT_VERSION}")
        return value

    @model_validator(mode="after")
    def _enlarges_to_a_cell_at_most(self) -> Manifest:
        if self.magnify == "fit":
            return self
        if (
            self.image.height % self.magnify
            or self.image.height // self.magnify < self.latent.height
        ):
            raise ValueError(f"magnify: {self.magnify} px are more than a cell of the latents")
        return self

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            if not _FILE_NAME.fullmatch(name) or name == MANIFEST:
                raise ValueError(f"{name!r} is not the name of a file in the directory")
        return files

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the ``engine.json`` that it was read from; since that lists the hash of every
        file, it stands for the whole engine.
        """
        return self._fingerprint

    @property
    def window(self) -> int | None:
        """Side of the square of an image that the model sees at once, in px; None: of all of it."""
        return None if self.magnify == "fit" else self.image.height // self.magnify

    @property
    def defect_types(self) -> list[str]:
        """Names of the kinds of defect the engine can make."""
        return [p.name for p in self.prompts if p.role == "defect"]

    def prompt_indices(self, defect: str | None = None) -> PromptIndices:
        """Prompts for one kind of defect; it may be left out if there is only one."""
        if defect is None and len(self.defect_types) == 1:
            defect = self.defect_types[0]
        if defect not in self.defect_types:
            given = "no defect was named" if defect is None else f"no defect is named {defect!r}"
            raise UsageError(f"{given}; this engine makes: {', '.join(self.defect_types)}")
        index = {(p.role, p.name): i for i, p in enumerate(self.prompts)}
        roles = {p.role: i for i, p in enumerate(self.prompts)}
        return PromptIndices(index["defect", defect], roles["background"], roles["masked"])

    def steps(self, count: int | None = None) -> Schedule:
        """The schedule of ``count`` steps, or of the default."""
        tables = self.schedule.tables
        key = str(count if count is not None else self.schedule.default_steps)
        if key not in tables:
            known = ", ".join(sorted(tables, key=int))
            raise UsageError(f"this engine has no schedule of {key} steps; it has: {known}")
        table = tables[key]
        return Schedule(
            tuple(StepRow(*row) for row in table.inversion),
            tuple(StepRow(*row) for row in table.generation),
        )


def hash_file(path: Path) -> FileEntry:
    """Size and SHA-256 of a file."""
    return FileEntry(sha256=sha256_of(path), size=path.stat().st_size)


def read_manifest(directory: Path) -> Manifest:
    """Read and check ``engine.json`` alone. Raises `EngineError` with what is wrong in it."""
    path = directory / MANIFEST
    text = _read(directory)
    try:
        manifest = Manifest.model_validate_json(text)
        manifest._fingerprint = hashlib.sha256(text).hexdigest()
        # what readers of JSON disagree about: the last of two equal keys here, the first there
        json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite)
        return manifest
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        ]
    except ValueError as error:
        faults = [str(error)]
    more = [f"and {len(faults) - _FAULTS} more"] if len(faults) > _FAULTS else []
    raise EngineError(f"{path}: not a valid manifest: " + "; ".join(faults[:_FAULTS] + more))


def _read(directory: Path) -> bytes:
    path = directory / MANIFEST
    if not directory.is_dir():
        raise EngineError(f"{directory}: no such engine directory")
    # a link or a device may never end
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise EngineError(f"{path}: not a regular file")
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise EngineError(
            f"{directory}: not an engine, {MANIFEST} cannot be read ({error.strerror}); "
            "make one with: defectrt build-engine"
        ) from error
    if len(text) > _MAX_BYTES:
        raise EngineError(f"{path}: larger than {_MAX_BYTES >> 20} MiB; not a manifest")
    return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"given twice: {', '.join(twice)}")
    return dict(pairs)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    return value if isfinite(value) else _no_number(text)


def verify(directory: Path) -> Manifest:
    """Check the manifest and the size and hash of every file; open nothing else.

    A file that the manifest does not list is a fault too, since a graph could read it.
    Raises `EngineError` with all faults in one message.
    """
    manifest = read_manifest(directory)
    faults = [f for name, entry in manifest.files.items() if (f := _fault(directory, name, entry))]
    present = {path.name for path in directory.iterdir()}
    unlisted = sorted(present - manifest.files.keys() - _LITTER - {MANIFEST})
    faults += [f"{name!r} is not in the manifest" for name in unlisted]
    if faults:
        raise EngineError(
            f"{directory}: the engine is damaged, copy or build it again: " + "; ".join(faults)
        )
    return manifest


def _fault(directory: Path, name: str, entry: FileEntry) -> str | None:
    path = directory / name
    if path.is_symlink() or not path.is_file():
        return f"{name} is {'a link' if path.is_symlink() else 'missing'}"
    if (size := path.stat().st_size) != entry.size:
        return f"{name} has {size} bytes instead of {entry.size}"
    try:
        same = sha256_of(path) == entry.sha256
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return None if same else f"{name} does not have the hash in the manifest"


def dump(manifest: Manifest, directory: Path) -> None:
    """Write ``engine.json``."""
    data = manifest.model_dump(mode="json")
    for name, field in Manifest.model_fields.items():
        if not field.is_required() and getattr(manifest, name) == field.default:
            del data[name]
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")
