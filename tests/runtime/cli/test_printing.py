"""What is printed cannot drive a terminal, and what the machine lacks has its own code."""

from __future__ import annotations

import io
import json
import sys

import pytest
from support.datasets import mvtec
from support.fake_engine import FakeEngine
from support.program import command_line

from defectrt.cli.info import info
from defectrt.cli.streams import Escaping
from defectrt.engines.manifest import dump
from defectrt.errors import NoMemoryError
from defectrt.progress import Progress

#: Sets a title, clears the screen, rings, writes backwards, deletes, overwrites the line.
HOSTILE = "\x1b]0;title\x07\x1b[2J\u202egnp\u2066\x7f\x9b2J\rx"
OBEYED = set("\x1b\x07\u202e\u2066\x7f\x9b\r")


@pytest.mark.parametrize("text", sorted(OBEYED), ids=ascii)
def test_what_a_terminal_would_obey_is_shown(text):
    stream = io.StringIO()
    print(f"a{text}b", file=Escaping(stream))
    assert stream.getvalue() == f"a{text.encode('unicode_escape').decode()}b\n"


@pytest.mark.parametrize("text", ["a\tb\n", "Kratzer ä ñ", "划痕", "خدش", "\u200d"], ids=ascii)
def test_all_other_texts_are_as_they_are(text):
    stream = io.StringIO()
    Escaping(stream).writelines([text])
    assert stream.getvalue() == text


@pytest.mark.parametrize("words", [["synthesize", "--images"], ["info"], ["verify"]])
def test_a_name_in_an_error_is_shown(words, tmp_path):
    ended = command_line(*words, tmp_path / HOSTILE)
    assert ended.returncode > 0
    assert r"\x1b]0;title\x07" in ended.stderr
    assert not OBEYED & set(ended.stdout + ended.stderr)


def test_a_name_in_a_table_is_shown(tmp_path):
    root = mvtec(tmp_path / "a")
    for folder in ("test", "ground_truth"):
        (root / folder / "hole").rename(root / folder / HOSTILE[:9])
    ended = command_line("data", "inspect", root)
    assert r"\x1b]0;title" in ended.stdout + ended.stderr
    assert not OBEYED & set(ended.stdout + ended.stderr)


def test_a_bar_still_drives_its_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    with Progress(3, "work", stream=Escaping(terminal)) as progress:
        progress.update(3)
    assert "\x1b[" in terminal.getvalue()
    assert r"\x1b" not in terminal.getvalue()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "memory ran out"),
        (RuntimeError("can't start new thread"), "no more threads"),
    ],
    ids=["memory", "threads"],
)
def test_what_the_machine_lacks_is_no_fault_of_ours(error, said, monkeypatch):
    def lacking():
        raise error

    monkeypatch.setattr(sys.modules["defectrt.cli.app"], "command_line", lacking)
    ended = command_line("info")
    assert ended.returncode == NoMemoryError.exit_code == 20
    assert f"error: {said}" in ended.stderr


def test_json_is_json():
    assert json.loads(command_line("verify", "--json").stdout)["intact"]


@pytest.mark.parametrize(
    ("magnify", "said"),
    [(1, None), (2, "2 times"), ("fit", "fit: the window shows the whole image")],
)
def test_info_tells_how_large_the_model_sees_an_image(tmp_path, capsys, magnify, said):
    dump(FakeEngine().manifest.model_copy(update={"magnify": magnify}), tmp_path)
    info(tmp_path)
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines.get("magnify") == said
