"""Nothing leaves the machine, and nothing is written that nobody asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[3] / "cpp" / "tests" / "engine"

PROGRAM = """
import sys
from defectrt.engines.loading import load_engine
with load_engine(sys.argv[1], threads=1) as engine:
    assert engine.provider == "cpu"
"""


@pytest.mark.parametrize(("told", "silent"), [(None, True), ("0", False)], ids=["ours", "theirs"])
def test_onnx_runtime_keeps_no_events(tmp_path, told, silent):
    """What the user has set is left alone, and shows that the test can see it."""
    # nothing else of ours: ONNX Runtime is silent, too, where CI's variables are set
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    if told:
        environment["ORT_DISABLE_TELEMETRY"] = told
    command = [sys.executable, "-B", "-c", PROGRAM, str(ENGINE)]
    subprocess.run(command, env=environment, check=True, timeout=120)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (written == []) is silent, written
