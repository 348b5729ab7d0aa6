"""The command line. Progress goes to standard error, results to standard output."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from importlib.metadata import entry_points
from itertools import pairwise
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import Cancelled, DefectRTError, InputError, NoMemoryError, UsageError
from ..files import ADVICE
from .doctor import doctor
from .info import info
from .inspect import inspect
from .merge import merge
from .remake import remake
from .review import review
from .series import series
from .sign import sign
from .streams import open_streams, written_output
from .synthesize import synthesize
from .verify import verify

__all__ = ["command_line", "main"]

#: Set to see the whole traceback of an error.
DEBUG = "DEFECTRT_DEBUG"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"defectrt {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help=f"Show where an error arose; also {DEBUG}=1.")
    ] = False,
) -> None:
    if debug:
        os.environ[DEBUG] = "1"


def command_line() -> Any:
    """All commands as one group.

    Training and export register theirs as entry points, so that nothing here imports upwards.
    """
    app = typer.Typer(
        callback=_options,
        no_args_is_help=True,
        context_settings={"help_option_names": ["--help", "-h"]},
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help="Realistic, labelled defects in photographs of good workpieces, on your own machines.",
    )
    for command in (synthesize, series, merge, review, inspect, remake, sign, doctor, info, verify):
        app.command()(command)
    for entry in sorted(entry_points(group="defectrt.commands"), key=lambda e: e.name):
        command = entry.load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name)
        else:
            app.command(entry.name)(command)
    return typer.main.get_command(app)


def main() -> None:
    """Run the command line; exits with the code of the error, 0 without one, 2 for bad usage.

    Raises `KeyboardInterrupt` for Ctrl-C where nothing is at hand to be finished first.
    """
    open_streams()
    try:
        with written_output():
            _run()
    except Exception as error:
        if not isinstance(error, DefectRTError) and _was_interrupted(error):
            raise KeyboardInterrupt from None
        ours = _as_ours(error)
        sys.exit(_report(ours, ours.exit_code if isinstance(ours, DefectRTError) else 1))


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether a signal is behind it: modules in C that are interrupted raise an ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _as_ours(error: Exception) -> Exception:
    """An error that is the machine's or a path's, and no fault of ours, as one of the tree."""
    if isinstance(error, MemoryError):
        return NoMemoryError(f"memory ran out; {ADVICE}")
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return NoMemoryError(f"no more threads can be started; {ADVICE}")
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):
        return InputError(f"{error}: links that lead to each other lead nowhere")
    if isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
        return InputError(f"{error.filename}: no path ({error.strerror})")
    return error


def _run() -> None:
    for before, word in pairwise(["", *sys.argv[1:]]):
        if not word or (word.startswith("--") and word.endswith("=")):
            name = word or (before if before.startswith("-") else "an argument")
            raise UsageError(f"{name} is empty; is a variable of the shell not set?")
    try:
        command_line()()
    except SystemExit as ended:
        if ended.code == Cancelled.exit_code:  # what Typer makes of Ctrl-C
            raise KeyboardInterrupt from None
        raise


def _report(error: Exception, code: int) -> int:
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    if isinstance(error, DefectRTError):
        text = str(error)
    else:
        text = f"unexpected {type(error).__name__}: {error} (a fault in defectrt; see --debug)"
    print(f"error: {text}", file=sys.stderr)
    return code
