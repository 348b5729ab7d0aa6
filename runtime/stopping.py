"""Being told to stop: Ctrl-C, ``docker stop`` (SIGTERM), a terminal that was closed (SIGHUP)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["SIGNALS", "as_ctrl_c", "asked_to_stop"]

#: All that ask for an end; Windows has no SIGHUP.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
#: Handlers that nobody chose.
_NOBODYS = (signal.SIG_DFL, signal.default_int_handler)


@contextmanager
def asked_to_stop(
    say: Callable[[], object] = lambda: None, *, theirs: bool = False
) -> Iterator[threading.Event]:
    """An event that the first signal sets, so that what is at hand is finished; ``say`` says so.

    A second one does what it did before. Handlers of the host stay in place, unless ``theirs`` is
    set, and so does what is ignored, as under nohup; all do outside of the main thread.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    ours = {
        number: handler
        for number, handler in handlers.items()
        if handler in _NOBODYS or (theirs and callable(handler))
    }

    def restore() -> None:
        for number, handler in ours.items():
            signal.signal(number, handler)

    def told(*_: object) -> None:
        restore()
        stop.set()
        say()

    for number in ours:
        signal.signal(number, told)
    try:
        yield stop
    finally:
        restore()


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `KeyboardInterrupt`, as Ctrl-C does: in a program of ours."""
    numbers = [n for n in SIGNALS if signal.getsignal(n) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
