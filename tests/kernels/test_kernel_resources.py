"""What the kernels need on each compute capability: the table in the repository is true."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

from defectrt.kernels.resources import CAPABILITIES, TABLE, everything, fingerprint, sample

pytestmark = pytest.mark.slow

AGAIN = "run: python -m defectrt.kernels.resources"

#: Bytes of shared memory a block may have, by compute capability (CUDA's programming guide).
SHARED = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 120: 99 * 1024}


@pytest.fixture(scope="module")
def table():
    return json.loads(TABLE.read_text())


def test_the_table_is_of_these_sources_and_this_compiler(table):
    assert table["fingerprint"] == fingerprint(), f"a kernel has changed; {AGAIN}"
    import triton

    assert table["triton"] == triton.__version__, f"another Triton; {AGAIN}"


def test_every_build_is_in_the_table(table):
    assert {str(c) for c in CAPABILITIES} == {c for row in table["kernels"].values() for c in row}
    assert all(len(row) == len(CAPABILITIES) for row in table["kernels"].values())
    cases = {str(case) for _, case, _ in everything()}
    assert cases == {name.partition(" ")[2] for name in table["kernels"]}


def test_nothing_spills_and_everything_fits(table):
    for name, row in table["kernels"].items():
        for capability, figures in row.items():
            assert figures["spilled"] == 0, (name, capability)
            assert figures["shared"] <= SHARED[int(capability)], (name, capability)
            assert 16 <= figures["registers"] <= 255, (name, capability)


def check(*arguments):
    """Compile in a process of its own: in this one, kernels are interpreted."""
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    command = [sys.executable, "-m", "defectrt.kernels.resources", "--check", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_compiling_again_gives_the_table():
    assert {capability for *_, capability in sample()} == set(CAPABILITIES)
    done = check()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "builds are as the table says" in done.stdout


@pytest.mark.slow
def test_a_wrong_figure_is_found(tmp_path, table):
    """One small kernel compiled, against a table that claims fewer registers."""
    name = next(name for name in table["kernels"] if name.startswith("row_step"))
    table["kernels"][name]["90"]["registers"] -= 1
    (tmp_path / "table.json").write_text(json.dumps(table))
    done = check("--only", "row_step", "--table", str(tmp_path / "table.json"))
    assert done.returncode == 1, done.stderr
    assert "sm_90" in done.stdout
    assert done.stdout.count("\n") == 1
