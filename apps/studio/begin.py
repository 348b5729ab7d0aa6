"""What pages have run: each ask becomes the arguments of one command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from defectrt.config.base import Config
from defectrt.config.engine import EngineConfig
from defectrt.config.job import JobConfig

from ..service.asking import job_options
from ..service.line import Line
from .home import Home
from .tasks import Kind

__all__ = ["LearnAsk", "MakeAsk", "ProposeAsk", "ProveAsk", "SampleAsk"]

#: What it is for, its title, its arguments, and what it writes.
Command: TypeAlias = tuple[Kind, str, list[str], Path]


class SampleAsk(Config):
    """What to make of a folder of good pictures: its masks drawn, or its defects moved.

    ``like`` is a set of defective pictures, whose defects are moved, and no engine paints.
    """

    folder: Path
    drawn: bool = False
    engine: str = ""
    like: str = ""
    options: Annotated[dict[str, Any], Field(default_factory=dict)]

    def all_options(self, home: Home) -> dict[str, Any]:
        """Of the job. Raises `UsageError` for those that a page may not give."""
        options = job_options(self.options)
        if self.drawn:
            options["masks"] = home.masks(self.folder)
        if self.like:
            options["like"] = home.below("examples", self.like)
        return options


class MakeAsk(SampleAsk):
    """A dataset from a folder of good pictures."""

    out: Path | None = None

    def command(self, home: Home, line: Line) -> Command:
        """Of `defectrt synthesize`. Raises `UsageError` for options that are not possible."""
        options = self.all_options(home)
        job = JobConfig(images=self.folder, **_engine(line.config) | options)
        line.check(line.config.replace(**{k: v for k, v in options.items() if k not in _FORMATS}))
        out = self.out or _free(
            home.below("datasets", self.folder.name)
            if self.folder.is_relative_to(home.folder)
            else job.dataset
        )
        given = {"images": self.folder, "out": out} | _engine(line.config) | options
        return "make", self.folder.name, ["synthesize", *_arguments(given)], out


class ProposeAsk(Config):
    """Masks for the defective pictures of a set that have none."""

    examples: str
    good: Path

    def command(self, home: Home, line: Line) -> Command:
        """Of `defectrt data propose`."""
        out = home.below("examples", self.examples)
        given = _arguments({"good": self.good})
        return "propose", self.examples, ["data", "propose", str(out), *given], out


class LearnAsk(Config):
    """An engine from the defective pictures of a set."""

    examples: str
    good: Path
    name: str
    steps: Annotated[int | None, Field(ge=1)] = None

    def command(self, home: Home, line: Line) -> Command:
        """Of `defectrt learn`."""
        defects = home.below("examples", self.examples)
        out = home.below("engines", self.name)
        given = _arguments({"good": self.good, "out": out, "steps": self.steps})
        return "learn", self.name, ["learn", str(defects), *given], out


class ProveAsk(Config):
    """Whether made defects help a detector."""

    defects: Path
    good: Path | None = None
    synthetic: Path
    engine: str = ""
    out: Path | None = None
    quick: bool = True

    def command(self, home: Home, line: Line) -> Command:
        """Of `defectrt prove`."""
        out = self.out or _free(home.below("proofs", self.synthetic.name))
        given = {
            "good": self.good,
            "synthetic": self.synthetic,
            "engine": line.config.engine,
            "out": out,
            "quick": self.quick,
        }
        return "prove", self.synthetic.name, ["prove", str(self.defects), *_arguments(given)], out


_FORMATS = {"format", "formats", "category"}


def _engine(config: EngineConfig) -> dict[str, Any]:
    names = config.model_fields_set & EngineConfig.model_fields.keys()
    return {name: getattr(config, name) for name in names}


def _arguments(given: Mapping[str, Any]) -> list[str]:
    """Options as they are typed; what is None is left out."""
    return [word for key, value in given.items() for word in _option(key, value)]


def _option(key: str, value: Any) -> Iterator[str]:
    flag = f"--{key.replace('_', '-')}"
    if value is None or value is False:
        return
    yield flag
    if value is not True:
        yield ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _free(path: Path) -> Path:
    """The path, or the first after it that is not there."""
    number, found = 2, path
    while found.exists():
        found = path.with_name(f"{path.name}-{number}")
        number += 1
    return found
