"""The program, run in this process."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from unittest.mock import patch

from defectrt.cli import main


def command_line(*words):
    """Run the program in this process; what a process of its own would have answered."""
    words, out, err = ["defectrt", *map(str, words)], io.StringIO(), io.StringIO()
    with patch.object(sys, "argv", words), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())
