"""The command line: one file a command, no logic."""

from .app import app, main

__all__ = ["app", "main"]
