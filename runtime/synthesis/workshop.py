"""An open engine, set up for a configuration: workpieces in memory become work for a scheduler."""

from __future__ import annotations

from dataclasses import replace

from ..config.job import SynthesizerConfig
from ..config.names import COMBINED
from ..engines.engine import Engine
from ..errors import InputError
from ..masks.source import MaskSource, Placed
from .maker import Maker, open_makers, open_mixed, types_made
from .pipeline import memory_of
from .scheduler import Call, Task, Work
from .turns import shares_of, turn, type_of
from .workpiece import Checked, Result

__all__ = ["Workshop"]


class Workshop:
    """Makes what a configuration says, on an engine that stays the caller's.

    Cheap to set up: the engine is open already, and many may share it.

    defect_types  those that it makes, in the engine's order
    """

    def __init__(
        self, engine: Engine, config: SynthesizerConfig, mask_source: MaskSource | None = None
    ) -> None:
        """Raises `UsageError` for a type of defect or a number of steps that the engine lacks."""
        shares = shares_of(config.defect, types_made(engine, config))
        self._config = config
        self._makers = open_makers(engine, config, shares, mask_source)
        self._mixed = open_mixed(self._makers, config, shares) if config.mixed else None
        self._turn, self.defect_types = turn(shares), list(shares)

    def task(self, workpiece: Checked | InputError, number: int) -> Task[Result]:
        """A sample of a workpiece; one that cannot be used is an error when its turn comes."""
        size = () if isinstance(workpiece, InputError) else workpiece.source.image.shape[:2]
        return Task(self._make(workpiece, number), memory_of(*size) if size else 0)

    def _make(self, workpiece: Checked | InputError, number: int) -> Work[Result]:
        if isinstance(workpiece, InputError):
            raise workpiece
        if self._config.like and workpiece.mask is not None:
            raise InputError(
                f"workpiece {workpiece.source.name!r}: like has masks of its own; leave mask out"
            )
        if self._mixed and not workpiece.defect:
            if workpiece.mask is not None:
                raise InputError(
                    f"workpiece {workpiece.source.name!r}: mixed has masks of its own; leave mask "
                    "out, or say which defect it is for"
                )
            return (yield from self._made(workpiece, number, COMBINED, self._mixed))
        defect = workpiece.defect or type_of(
            self._turn, self._config.seed, workpiece.source.name, number
        )
        if defect not in self._makers:
            raise InputError(
                f"workpiece {workpiece.source.name!r}: {defect!r} is not made here, but "
                f"{', '.join(self._makers)}"
            )
        return (yield from self._made(workpiece, number, defect, self._makers[defect]))

    def _made(self, workpiece: Checked, number: int, defect: str, maker: Maker) -> Work[Result]:
        try:
            placed = yield Call("masks", lambda: _placed(workpiece, maker, number))
        except InputError as fault:
            return workpiece.without(number, defect, str(fault))
        sample = yield from maker.paint(workpiece.source, number, placed)
        return workpiece.result(sample, defect, placed)


def _placed(workpiece: Checked, maker: Maker, number: int) -> list[Placed]:
    if workpiece.mask is not None:
        placed = [Placed(workpiece.mask, {"from": "given"})]
    else:
        placed = maker.masks(workpiece.source.name, workpiece.source.image, number)
    if workpiece.strength is not None:
        placed = [replace(one, strength=workpiece.strength) for one in placed]
    return maker.strong(workpiece.source, number, placed)
