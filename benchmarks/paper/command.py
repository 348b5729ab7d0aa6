"""A benchmark as a command: errors in a line, their exit codes, signals as Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable

from defectrt.errors import Cancelled, DefectRTError
from defectrt.stopping import as_ctrl_c


def run_as_command(main: Callable[[], None]) -> None:
    """Call ``main``; exits as `defectrt` does."""
    with as_ctrl_c():
        try:
            main()
        except DefectRTError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            print("stopped; run the same command again to go on", file=sys.stderr)
            sys.exit(Cancelled.exit_code)
