"""libdefectrt, too: nothing leaves the machine, and nothing is written that nobody asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import clibrary

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from support import clibrary
library = clibrary.Library(sys.argv[1])
library.c.defectrt_engine_destroy(library.open(sys.argv[2]))
assert "onnxruntime" not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.parametrize(("told", "silent"), [(None, True), ("0", False)], ids=["ours", "theirs"])
def test_onnx_runtime_keeps_no_events(tmp_path, told, silent):
    """What the user has set is left alone, and shows that the test can see it."""
    try:
        library = clibrary.build()
    except clibrary.UnavailableError as error:
        pytest.skip(str(error))
    # nothing else of ours: ONNX Runtime is silent, too, where CI's variables are set
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    environment["PYTHONPATH"] = str(ROOT / "tests")
    if told:
        environment["ORT_DISABLE_TELEMETRY"] = told
    engine = ROOT / "cpp" / "tests" / "engine"
    command = [sys.executable, "-B", "-c", PROGRAM, str(library), str(engine)]
    subprocess.run(command, env=environment, check=True, timeout=120)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (written == []) is silent, written
