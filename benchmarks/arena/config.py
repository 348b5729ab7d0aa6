"""What an arena is: one YAML file, its folds, its rows, and the detector that judges them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from defectrt.config.base import Config
from defectrt.config.yaml import read_yaml
from defectrt.errors import InputError, UsageError
from defectrt.training.proving.config import ProveConfig

from .makers import ANOMALY, MAKERS

__all__ = ["ArenaConfig", "EngineSpec", "Row", "load", "slug"]

#: Rows that the gains are over.
CUT_PASTE = "cut-paste"


class EngineSpec(Config):
    """An engine for each fold: built before, or learned from the fold's shots.

    built     its directory for each fold, in the folds' order
    shots     a type to learn from; all if left out
    steps     of training; by default what `learn` chooses
    naive_of  another of the engines: learned as that one was, by the naive loss L'
    """

    built: tuple[Path, ...] = ()
    shots: Annotated[int, Field(ge=1)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    naive_of: str | None = None


class Row(Config):
    """One row of the table: who makes defects, or who finds them without any.

    make    a maker of `makers.MAKERS`, given ``with``
    engine  for ``make: synthesize``: a name of ``engines``, or a directory; else the bundled one
    folder  instead of ``make``: a dataset that was made elsewhere; {fold} in it is 0, 1 …, and
            {folds} the folder that holds the folds
    detect  instead: an anomaly detector of `makers.ANOMALY`, trained on good pictures alone
    shots   a type that it may see; all if left out
    about   what it is, for the page
    """

    make: str | None = None
    engine: str | None = None
    folder: str | None = None
    detect: str | None = None
    shots: Annotated[int, Field(ge=1)] | None = None
    about: str = ""
    settings: Annotated[dict[str, Any], Field(alias="with", default_factory=dict)]

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = {"make": MAKERS, "detect": ANOMALY, "folder": None}
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("needs one of make, folder and detect")
        known, name = ways[given[0]], getattr(self, given[0])
        if known is not None and name not in known:
            raise ValueError(f"{given[0]} {name!r}: one of {', '.join(sorted(known))}")
        return self


class ArenaConfig(Config):
    """Everything that decides the table.

    name      of the dataset, in the table
    folds     folder that `folds.py` wrote: FOLD/shots, FOLD/good, FOLD/test
    dataset   instead: a dataset in any layout, which is divided with ``types`` and ``shots``
    good      good pictures of a side at most, where ``dataset`` is divided
    group, near  what a workpiece is, as in `defectrt prove`
    seeds     trainings of every row and fold
    count     made pictures a type
    seed      of everything that is drawn
    detector  further options of `ProveConfig`: steps, share, workers …
    """

    name: str
    folds: Path | None = None
    dataset: Path | None = None
    layout: str | None = None
    types: tuple[str, ...] = ()
    shots: Annotated[int, Field(ge=1)] = 5
    good: Annotated[int, Field(ge=2)] = 100
    group: tuple[str, ...] = ("auto",)
    near: Annotated[int, Field(ge=1)] | None = None
    seeds: Annotated[int, Field(ge=1)] = 3
    count: Annotated[int, Field(ge=1)] = 200
    seed: Annotated[int, Field(ge=0)] = 0
    detector: Annotated[dict[str, Any], Field(default_factory=dict)]
    engines: Annotated[dict[str, EngineSpec], Field(default_factory=dict)]
    rows: dict[str, Row]

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (self.folds is None) == (self.dataset is None):
            raise ValueError("needs either folds or dataset")
        if clash := {slug(n) for n in self.rows if [*map(slug, self.rows)].count(slug(n)) > 1}:
            raise ValueError(f"rows are told apart by letters and digits alone: {sorted(clash)}")
        self.proof()
        return self

    def proof(self, **more: Any) -> ProveConfig:
        """How the detector is trained; raises `UsageError` for options that it has not."""
        own = {"group": self.group, "near": self.near, "seeds": self.seeds, "seed": self.seed}
        if taken := set(self.detector) & {*own, "synthetic", "good", "held_out", "splits"}:
            raise UsageError(f"detector: {', '.join(sorted(taken))}: the arena says that itself")
        return ProveConfig(**{"synthetic": ()} | own | self.detector | more)


def load(path: Path) -> ArenaConfig:
    """Read a configuration; paths in it are as seen from the folder one runs in."""
    given = read_yaml(path)
    if not isinstance(given.get("rows"), dict) or not given["rows"]:
        raise InputError(f"{path}: has no rows")
    return ArenaConfig(**given)


def slug(name: str) -> str:
    """A row's name as a folder's."""
    kept = "".join(c if c.isalnum() else "-" for c in name.lower())
    return "-".join(part for part in kept.split("-") if part)
