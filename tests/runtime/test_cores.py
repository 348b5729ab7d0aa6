"""Cores: those that a process may use, and no more than its container has time for."""

from __future__ import annotations

import os

import pytest

from defectrt import cores as module
from defectrt.config.job import SynthesizerConfig
from defectrt.cores import cores, threads_of
from defectrt.engines import loading

V1 = "3:cpuset:/\n4:cpu,cpuacct:/docker/1\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A machine of 64 cores, and its files; returns what counts them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)

    def count(groups, **files):
        for name, text in files.items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "groups").write_text(groups)
        return cores(tmp_path / "groups", tmp_path / "mount")

    return count


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {}, 64),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/elsewhere\n", {"cpu.max": "400000 100000\n"}, 4),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        (V1, {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        (
            V1,
            {
                "cpu,cpuacct/docker/1/cpu.cfs_quota_us": "50000",
                "cpu,cpuacct/docker/1/cpu.cfs_period_us": "50000",
            },
            1,
        ),
        ("nonsense", {}, 64),
        ("0::/\n", {"cpu.max": "rubbish\n"}, 64),
    ],
)
def test_the_quota_of_the_control_groups_counts(here, groups, files, expected):
    assert here(groups, **files) == expected


def test_a_machine_without_control_groups(tmp_path):
    assert cores(tmp_path / "none", tmp_path / "none") == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("wanted", "taken"), [(None, 2), (1, 1), (2, 2), (8, 2)])
def test_more_threads_than_cores_are_not_started_and_that_is_said(
    wanted, taken, monkeypatch, capsys
):
    monkeypatch.setattr(module, "cores", lambda: 2)
    assert threads_of(wanted) == taken
    said = capsys.readouterr().err
    assert ("8 threads were asked for, and there are 2 cores" in said) == (wanted == 8)


def test_an_engine_gets_no_more_threads_than_there_are_cores(monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 2)
    given = {}
    monkeypatch.setattr(loading, "load_engine", lambda path, **options: given.update(options))
    loading.open_engine(SynthesizerConfig(threads=8), tries=100)
    assert given["threads"] == given["calls"] == 2


@pytest.mark.parametrize(("wanted", "before", "taken"), [(None, 8, 2), (None, 1, 1), (8, 1, 2)])
def test_training_gets_no_more_threads_than_there_are_cores(wanted, before, taken, monkeypatch):
    torch = pytest.importorskip("torch")
    from defectrt.training import threads

    given = []
    monkeypatch.setattr(module, "cores", lambda: 2)
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: before)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    threads.set_threads(wanted)
    assert given == [taken]
