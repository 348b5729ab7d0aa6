"""Commands in the background: one at a time, without their studio, and to their end."""

from __future__ import annotations

import os
import signal
import time

import pytest

from defectrt.apps.studio.runner import PROCESS
from defectrt.apps.studio.tasks import Tasks


def until(condition, seconds=60):
    """Wait for something that processes bring about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "tasks"


def listening(tasks, task):
    """Whether a command that does not end by itself has got to its point."""
    return "defectrt serve: http" in tasks.task(task.id).said


SERVE = ["serve", "--port", "0"]


@pytest.mark.slow
def test_what_runs_outlives_its_studio_and_the_others_wait_their_turn(folder):
    with Tasks(folder) as tasks:
        first = tasks.begin("make", "first", SERVE, folder)
        wrong = tasks.begin("make", "wrong", ["synthesize", "--images", "/nowhere"], folder)
        second = tasks.begin("make", "second", ["--version"], folder)
        waits = tasks.begin("make", "waits", ["--version"], folder)
        assert first.command == "defectrt serve --port 0"
        until(lambda: listening(tasks, first))
        assert (tasks.task(first.id).status, tasks.task(second.id).status) == (
            "running",
            "waiting",
        )
    with Tasks(folder) as tasks:
        assert tasks.task(first.id).status == "running"
        assert [task.title for task in tasks.all()] == ["waits", "second", "wrong", "first"]
        assert tasks.stop(waits.id).status == "stopped"
        time.sleep(1)
        assert tasks.task(second.id).status == "waiting"
        tasks.stop(first.id)
        until(lambda: tasks.task(first.id).status == "stopped")
        until(lambda: tasks.task(second.id).status == "done")
        assert tasks.task(second.id).said.startswith("defectrt 0.")
        assert tasks.task(wrong.id).status == "failed"
        assert "error: /nowhere" in tasks.task(wrong.id).said
        assert tasks.task(waits.id).said == ""


@pytest.mark.slow
def test_one_that_was_killed_goes_on_when_the_studio_starts_again(folder):
    with Tasks(folder) as tasks:
        task = tasks.begin("make", "it", SERVE, folder)
        until(lambda: listening(tasks, task))
    runner = int((folder / task.id / PROCESS).read_text())
    os.killpg(runner, signal.SIGKILL)
    with Tasks(folder) as tasks:
        until(lambda: tasks.task(task.id).said.count("defectrt serve: http") == 2)
        tasks.stop(task.id)
        until(lambda: tasks.task(task.id).status == "stopped")


def test_how_far_a_command_is_stands_in_its_words(folder):
    with Tasks(folder) as tasks:
        task = tasks.begin("make", "it", ["--version"], folder)
        tasks.stop(task.id)
        said = "7 good images\ndisentangle 3/12 matching 0.5 left 0:40\nwarning: 1/2 of it\n"
        (folder / task.id / "said.txt").write_text(said)
        now = tasks.task(task.id)
    assert (now.stage, now.done, now.total) == ("disentangle", 3, 12)
    assert now.figures == "matching 0.5 left 0:40"


@pytest.mark.parametrize("identity", ["0" * 16, "..", "../tasks", "", "A" * 16])
def test_there_is_no_task_of_another_name(folder, identity):
    with Tasks(folder) as tasks, pytest.raises(KeyError):
        tasks.task(identity)
