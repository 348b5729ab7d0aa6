"""Progress for eyes and for pipes."""

from __future__ import annotations

import io

from defectrt.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(stream, total=40, quiet=False):
    with Progress(total, "work", quiet=quiet, stream=stream) as progress:
        for done in range(1, total + 1):
            progress.update(done, loss=0.123456, phase="x")
    return stream.getvalue()


def test_without_a_terminal_one_line_per_ten_percent():
    lines = run(io.StringIO()).splitlines()
    assert len(lines) == 11
    assert lines[0] == "work 1/40 loss 0.1235 phase x"
    assert lines[1].startswith("work 4/40 ")
    assert lines[-1].startswith("work 40/40 ")


def test_on_a_terminal_a_bar_with_time_and_figures():
    text = run(Terminal())
    assert "40/40" in text
    assert "left" in text
    assert "loss 0.1235" in text


def test_quiet_means_nothing():
    assert run(io.StringIO(), quiet=True) == run(Terminal(), quiet=True) == ""


def test_a_total_of_nothing():
    assert run(io.StringIO(), total=0) == ""
