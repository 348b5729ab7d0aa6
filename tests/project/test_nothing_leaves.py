"""Every command without a network and with an empty home: no socket, and no file but those of OUT.

Python's sockets are seen by its audit events, those of libraries by the network's absence and by
what they keep for later: a cache or a queue in the home or the temporary folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.outputs import save

from defectrt.training.models.stable_diffusion import SIZES, new_model

pytestmark = pytest.mark.slow

#: Ends the process with the event's name at the first socket, and at a write outside of WORK.
WATCH = """
import os, sys
work, words = os.environ["WORK"], sys.argv[1:]
# urllib3, which clients of hubs import, binds a socket to ::1 to see whether there is IPv6
probed = {"socket.__new__", "socket.bind"} if os.environ.get("PROBES") else set()

def watch(event, given):
    fault = event.startswith("socket.") and event not in probed | {"socket.gethostname"}
    if event == "open" and isinstance(given[0], str) and not given[0].startswith("/dev/"):
        writes = isinstance(given[1], str) and set(given[1]) & set("wax+")
        fault = writes and not os.path.abspath(given[0]).startswith(work)
    if fault:
        os.write(2, f"LEFT: {event} {given}\\n".encode())
        os._exit(99)

sys.addaudithook(watch)
if graphs := os.environ.get("GRAPHS"):
    from pathlib import Path
    from unittest.mock import patch
    from support.graphs import EXPORT, filled
    patch(EXPORT, filled(Path(graphs))).start()
sys.argv = ["defectrt", *words]
from defectrt.__main__ import main
main()
"""
TESTS = Path(__file__).parents[1]
#: They import PyTorch and its libraries.
PROBING = {"new-model", "train", "build-engine", "evaluate", "bench", "learn"}
#: They fill graphs instead of exporting them again, which build-engine does.
FILLING = {"bench", "learn"}
COMMANDS = {
    "synthesize": "synthesize --images few --out out --format coco,yolo",
    "series": "series --image good/0.png --defect hole --strengths 0.3 --out out",
    "merge": "merge one two --out out",
    "doctor": "doctor",
    "info": "info",
    "verify": "verify",
    "data inspect": "data inspect parts",
    "data split": "data split parts --shots 2 --out out",
    "new-model": "new-model --size tiny --out out",
    "train": "train --defect spot=parts/spot --good good --out out --steps 2 --batch-size 2 "
    "--window 32 --preview-every 2 --preview-steps 2",
    "build-engine": "build-engine run --out out --steps 4",
    "evaluate": "evaluate run --real parts --out out --count 2 --steps 2",
    "threshold": "threshold parts --good good --scores scores.json --out out",
    "bench": "bench run --images 1 --steps 2 --rounds 1",
    "learn": "learn parts/spot --good good --model base/model --out out/engine --steps 2 "
    "--preview-every 0",
}


@pytest.fixture(scope="module")
def lonely():
    """What starts a program without a network, or nothing where that is not allowed."""
    words = ["unshare", "--map-root-user", "--net", "--"]
    tried = shutil.which("unshare") and subprocess.run([*words, "true"], capture_output=True)
    return words if tried and tried.returncode == 0 else []


@pytest.fixture
def work(tmp_path, run):
    """Good images, few and more, defects, a run, and a base to learn from."""
    rng = np.random.default_rng(0)
    for i in range(4):
        image = rng.normal(150, 8, (64, 64, 3)).clip(0, 255).astype(np.uint8)
        for folder in ("good", *["few"] * (i < 2)):
            save(tmp_path / "work" / folder / f"{i}.png", image)
        image[20:30, 20 : 32 + i] = 40
        mask = np.zeros((64, 64), np.uint8)
        mask[20:30, 20 : 32 + i] = 255
        for part, what in (("images", image), ("masks", mask)):
            save(tmp_path / "work" / "parts" / "spot" / part / f"{i}.png", what)
    scores = {f"{folder}/{i}.png": i for folder in ("good", "images") for i in range(4)}
    (tmp_path / "work" / "scores.json").write_text(json.dumps(scores))
    shutil.copytree(run, tmp_path / "work" / "run")
    base = new_model(SIZES["tiny"], prediction_type="v_prediction")
    base.untrained = ()
    base.save(tmp_path / "work" / "base" / "model")
    for name in ("home", "temporary"):
        (tmp_path / name).mkdir()
    return tmp_path / "work"


def asked(work, words, lonely, graphs=None):
    """The program with the watch, in a home and a temporary folder of its own."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(work.parent / "home"),
        "TMPDIR": str(work.parent / "temporary"),
        "WORK": str(work.parent),
        "OMP_NUM_THREADS": "1",
    }
    if words.split()[0] in PROBING:
        environment["PROBES"] = "1"
    if graphs:
        environment |= {"GRAPHS": str(graphs), "PYTHONPATH": str(TESTS)}
    command = [*lonely, sys.executable, "-B", "-c", WATCH, *words.split()]
    return subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_opens_no_socket_and_writes_nowhere_else(name, work, lonely, engine):
    if name == "merge":
        for folder in ("one", "two"):
            given = f"synthesize --images few --out {folder} --seed {len(folder)}"
            assert asked(work, given, lonely).returncode == 0
    before = {path for path in work.rglob("*") if path.is_file()}
    graphs = engine.parent / "graphs" if name in FILLING else None
    ended = asked(work, COMMANDS[name], lonely, graphs)
    assert ended.returncode == 0, ended.stderr[-2000:]
    written = {path for path in work.rglob("*") if path.is_file()} - before
    assert all(work / "out" in path.parents or path == work / "out" for path in written)
    left = [p for folder in ("home", "temporary") for p in (work.parent / folder).rglob("*")]
    assert [path for path in left if path.is_file()] == []


def test_the_watch_sees_a_socket(work, lonely):
    program = WATCH.replace("from defectrt", "import socket; socket.socket()\nfrom defectrt")
    environment = {"PATH": os.environ["PATH"], "HOME": f"{work}", "WORK": f"{work}"}
    command = [*lonely, sys.executable, "-B", "-c", program, "info"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 99
    assert "LEFT: socket" in ended.stderr


def test_the_watch_sees_a_file_elsewhere(work, lonely):
    elsewhere = work.parent.parent / f"{work.parent.name}-elsewhere"
    program = WATCH.replace("from defectrt", f"open({str(elsewhere)!r}, 'w')\nfrom defectrt")
    environment = {"PATH": os.environ["PATH"], "HOME": f"{work}", "WORK": f"{work}"}
    command = [*lonely, sys.executable, "-B", "-c", program, "info"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 99
    assert "LEFT: open" in ended.stderr
