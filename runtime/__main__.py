"""``python -m defectrt``: the command line, for launchers that want a module."""

from .cli import main

main()
