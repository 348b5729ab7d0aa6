"""The command line: one file a command, no logic."""

from .app import command_line, main

__all__ = ["command_line", "main"]
