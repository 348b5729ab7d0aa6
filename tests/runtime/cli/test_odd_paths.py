"""Paths and names that no disk has: the right code before any work, and ``-h`` everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from support.outputs import save
from support.program import command_line

from defectrt.cli.app import command_line as group
from defectrt.doctor import Finding, examine
from defectrt.errors import InputError, OutputError, UsageError


@pytest.fixture
def good(tmp_path):
    save(tmp_path / "good" / "a.png", np.full((40, 40, 3), 150, np.uint8))
    return tmp_path / "good"


@pytest.fixture(params=["a loop of links", "a name of 300 letters"])
def nowhere(request, tmp_path):
    if request.param == "a name of 300 letters":
        return tmp_path / ("y" * 300)
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    return tmp_path / "one"


@pytest.mark.parametrize("option", ["images", "masks", "mask-bank", "within", "golden", "config"])
def test_what_is_read(option, good, nowhere, tmp_path):
    given = {"images": good, "out": tmp_path / "out"} | {option: nowhere}
    if option == "golden":
        given["legal"] = good / "a.png"
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    ended = command_line("synthesize", *words)
    assert ended.returncode == InputError.exit_code, ended.stderr
    assert "a fault in defectrt" not in ended.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_written(good, nowhere):
    ended = command_line("synthesize", "--images", good, "--out", nowhere)
    assert ended.returncode in (InputError.exit_code, OutputError.exit_code), ended.stderr


def test_the_folders_of_merge(good, nowhere, tmp_path):
    ended = command_line("merge", good, nowhere, "--out", tmp_path / "out")
    assert ended.returncode == InputError.exit_code, ended.stderr


@pytest.mark.parametrize("category", ["x" * 300, "字" * 100], ids=["letters", "bytes"])
def test_a_category_that_no_disk_takes(category, good, tmp_path):
    ended = command_line(
        "synthesize", "--images", good, "--category", category, "--out", tmp_path / "out"
    )
    assert ended.returncode == UsageError.exit_code, ended.stderr
    assert not (tmp_path / "out").exists()


def test_links_that_lead_back_are_followed_once(good, tmp_path):
    (good / "again").symlink_to(good)
    (good / "deep").mkdir()
    (good / "deep" / "up").symlink_to("..")
    from defectrt.images.folder import find_images

    assert find_images(good) == [good / "a.png"]


def commands(command, words=()):
    yield words
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*words, name))


@pytest.mark.parametrize("words", list(commands(group())), ids=" ".join)
def test_h_is_help(words):
    short, long = command_line(*words, "-h"), command_line(*words, "--help")
    assert short.returncode == 0
    assert short.stdout == long.stdout
    assert short.stdout.startswith("Usage: ")


def test_doctor_says_what_it_is_at(monkeypatch, capsys):
    def nothing(*_):
        return iter(())

    for name in ("_packages", "_extras", "_runtime", "_providers", "_plans", "_trials"):
        monkeypatch.setattr(f"defectrt.doctor.{name}", nothing)
    monkeypatch.setattr("defectrt.doctor._self_test", lambda *_: Finding("ok", "self-test", ""))
    said = []
    list(examine(say=said.append))
    assert len(said) == 4
    ended = command_line("doctor", "--json")
    assert [f"{text} …" for text in said] == ended.stderr.splitlines()
