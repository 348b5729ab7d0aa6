"""Pages and their plots: text stays text, and marks lie where values are."""

from __future__ import annotations

import re

import numpy as np

from defectrt.training.page import Line, bullets, curves, figure, table, write_page


def test_texts_stay_texts(tmp_path):
    evil = '<script>"x"</script>'
    body = [bullets([evil]), table([evil], [[evil, "1"]])]
    body += [figure(np.zeros((2, 2, 3), np.uint8), evil)]
    body += [curves([Line(evil, [(0, 0), (1, 1)], "red")], evil, evil, marks=[(0.5, evil)])]
    write_page(tmp_path / "a.html", evil, body)
    page = (tmp_path / "a.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 11
    assert "default-src 'none'" in page


def test_marks_are_round_and_lie_where_they_say():
    plot = curves([Line("a", [(0.242, 0), (0.891, 1)], "red")], "x", "y")
    marks = dict.fromkeys(re.findall(r'text-anchor="middle">([\d.]+)</text>', plot))
    assert list(marks) == ["0.4", "0.6", "0.8"]
    points = re.search(r'polyline points="([\d., ]+)"', plot)[1].split()
    (left, bottom), (right, top) = (map(float, p.split(",")) for p in points)
    at = float(re.search(r'<text x="([\d.]+)" y="\d+" text-anchor="middle">0.6<', plot)[1])
    assert abs((at - left) / (right - left) - (0.6 - 0.242) / (0.891 - 0.242)) < 0.01
    assert bottom > top


def test_a_logarithmic_axis_puts_ten_times_as_far_apart():
    lines = [Line("a", [(1, 0), (10, 0.5), (100, 1)], "red")]
    plot = curves(lines, "x", "y", logarithmic=True)
    points = re.search(r'polyline points="([\d., ]+)"', plot)[1].split()
    x = [float(p.split(",")[0]) for p in points]
    assert abs((x[1] - x[0]) - (x[2] - x[1])) < 0.2
