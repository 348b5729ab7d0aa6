"""The program: ``defectrt``, and ``python -m defectrt`` for launchers that want a module.

Little is imported before signals are heard, so that Ctrl-C shows no traceback.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import NoReturn

from .stopping import as_ctrl_c

__all__ = ["main"]


def main() -> None:
    """Run the command line; exits with the code of the error, 0 without one, 2 for bad usage."""
    with as_ctrl_c():
        try:
            from .cli.app import main as run

            run()
        except KeyboardInterrupt:
            print("stopped; what was finished is on disk", file=sys.stderr)
            _leave(130)


def _leave(code: int) -> NoReturn:
    """End, and at once where a thread may be inside a library, as while an engine is opened.

    One that came back from there while Python ends would abort the process.
    """
    if any(thread.daemon for thread in threading.enumerate()):
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
