"""The one tree of errors, and the codes it shares with the command line and the C library.

Every error says what is wrong, in which file, and what to do about it. The numbers are a
contract: they are never changed and never reused.
"""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "DefectRTError",
    "EngineError",
    "InputError",
    "MissingExtraError",
    "NoMemoryError",
    "NothingDoneError",
    "OutputError",
    "PartialError",
    "TrainingError",
    "UsageError",
]


class DefectRTError(Exception):
    """Base of all errors raised on purpose. ``exit_code`` is also the status in C."""

    exit_code = 1


class UsageError(DefectRTError):
    """The call itself is wrong: an unknown option, two options that exclude each other."""

    exit_code = 2


class InputError(DefectRTError):
    """An image, mask, dataset or configuration cannot be used as it is."""

    exit_code = 3


class EngineError(DefectRTError):
    """An engine directory is damaged, foreign, or of a version this program does not read."""

    exit_code = 4


class OutputError(DefectRTError):
    """Results cannot be written: no permission, no space, or something is in the way."""

    exit_code = 5


class MissingExtraError(DefectRTError):
    """The command needs packages of an extra that is not installed."""

    exit_code = 6


class PartialError(DefectRTError):
    """Some items failed; everything else was made and is on disk."""

    exit_code = 7


class NothingDoneError(DefectRTError):
    """Not a single item could be made."""

    exit_code = 8


class TrainingError(DefectRTError):
    """Training cannot go on (a loss that is not finite, say); the last checkpoint is whole."""

    exit_code = 9


class NoMemoryError(DefectRTError):
    """Memory ran out, or no more threads can be started; what was finished is on disk."""

    exit_code = 20


class Cancelled(DefectRTError):  # noqa: N818 - a state rather than a fault
    """Stopped by the user; what was finished is on disk."""

    exit_code = 130
