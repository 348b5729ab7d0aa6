"""Being told to stop: every signal that asks for an end is heard, where nobody else hears it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from support.outputs import save

from defectrt.__main__ import _leave
from defectrt.errors import Cancelled
from defectrt.stopping import SIGNALS, as_ctrl_c, asked_to_stop


@pytest.fixture(autouse=True)
def _restored():
    """Nothing is ignored, and whatever a test does, the handlers are those from before."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:  # as SIGHUP is under nohup
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_asks_and_the_second_is_as_before(number):
    said, before = [], []
    signal.signal(number, lambda *_: before.append(1))
    with asked_to_stop(lambda: said.append(1), theirs=True) as stop:
        signal.raise_signal(number)
        assert stop.is_set()
        assert (said, before) == ([1], [])
        signal.raise_signal(number)
    assert (said, before) == ([1], [1])


@pytest.mark.parametrize("number", SIGNALS)
def test_handlers_of_the_host_and_what_is_ignored_stay(number):
    heard = []
    for handler in (lambda *_: heard.append(1), signal.SIG_IGN):
        signal.signal(number, handler)
        with asked_to_stop() as stop:
            assert signal.getsignal(number) is handler
            signal.raise_signal(number)
        assert not stop.is_set()
    assert heard == [1]


@pytest.mark.parametrize("number", SIGNALS)
def test_nobodys_handler_is_ours_and_comes_back(number):
    with as_ctrl_c():
        before = signal.getsignal(number)
        with asked_to_stop() as stop:
            signal.raise_signal(number)
        assert stop.is_set()
        assert signal.getsignal(number) == before
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_job_finishes_what_is_at_hand(number, go, fake_engine, monkeypatch):
    step, calls = fake_engine[1].step, []

    def told(rows):
        calls.append(1)
        if len(calls) == 14:
            signal.raise_signal(number)
        return step(rows)

    monkeypatch.setattr(fake_engine[1], "step", told)
    with pytest.raises(Cancelled, match=r"stopped after \d+ of 18 samples"):
        go(batch_size=1, count=6)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_program_says_how_to_go_on_whichever_signal_it_was(number, tmp_path):
    for i in range(40):
        save(tmp_path / "good" / f"{i}.png", np.full((40, 40), 150, np.uint8))
    words = ["synthesize", "--images", tmp_path / "good", "--steps", 20, "--batch-size", 1]
    command = [sys.executable, "-m", "defectrt", *map(str, words)]
    with subprocess.Popen(command, stderr=-1, text=True) as process:
        assert process.stderr.readline().startswith("synthesize ")
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == Cancelled.exit_code, errors
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_there_is_no_traceback_whenever_it_comes(number, tmp_path):
    """From when the program's own code begins, while it imports, until its work has begun."""
    save(tmp_path / "good" / "a.png", np.full((40, 40), 150, np.uint8))
    program = (
        "import sys; sys.argv = sys.argv[1:]\n"
        "from defectrt.__main__ import main\n"
        "print('here', flush=True)\n"
        "main()"
    )
    words = ["defectrt", "synthesize", "--images", tmp_path / "good", "--out", tmp_path / "out"]
    command = [sys.executable, "-c", program, *map(str, words)]
    for delay in (0.15, 0.3, 0.6, 0.9):
        with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as process:
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors, (delay, errors)
        assert process.returncode in (0, Cancelled.exit_code), (delay, errors)


@pytest.mark.parametrize("inside", [False, True])
def test_it_ends_at_once_where_a_thread_may_be_inside_a_library(monkeypatch, inside):
    left = []
    threads = [threading.Thread(daemon=False), threading.Thread(daemon=inside)]
    monkeypatch.setattr(threading, "enumerate", lambda: threads)
    monkeypatch.setattr(os, "_exit", left.append)
    with pytest.raises(SystemExit, match="130"):  # also behind an _exit that is none
        _leave(130)
    assert left == [130] * inside
