"""The program: ``defectrt``, and ``python -m defectrt`` for launchers that want a module.

Little is imported before signals are heard, so that Ctrl-C shows no traceback.
"""

from __future__ import annotations

import sys

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
            sys.exit(130)


if __name__ == "__main__":
    main()
