"""The plane around a module's weights: its directions, its centre, and shapes that are known."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plane(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return import_module("benchmarks.paper.plane")


@pytest.fixture
def module():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 5, 3), nn.GroupNorm(1, 5), nn.Linear(4, 6))


def test_every_filter_has_the_length_of_the_modules_own(plane, module):
    found = plane.direction(module, torch.Generator().manual_seed(0))
    assert list(found) == [name for name, _ in module.named_parameters()]
    for name in ("0.weight", "2.weight"):
        own = module.get_parameter(name).detach()
        lengths = [w.flatten(1).norm(dim=1) for w in (own, found[name])]
        torch.testing.assert_close(*lengths)
        assert not torch.allclose(own, found[name])
    for name in ("0.bias", "1.weight", "1.bias", "2.bias"):
        assert not found[name].any()


def test_another_seed_is_another_direction(plane, module):
    first, same, other = (
        plane.direction(module, torch.Generator().manual_seed(seed))["0.weight"]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.allclose(first, other)


def test_the_weights_are_moved_and_come_back(plane, module):
    before = {name: w.detach().clone() for name, w in module.named_parameters()}
    along = plane.direction(module, torch.Generator().manual_seed(0))

    def halfway():
        with plane.moving(module, [along]) as move:
            move([2.0])
            move([0.5])
            weights = module.get_parameter("2.weight")
            torch.testing.assert_close(weights, before["2.weight"] + 0.5 * along["2.weight"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        halfway()
    assert all(torch.equal(w, before[name]) for name, w in module.named_parameters())


def surface_of(plane, module, loss, at):
    directions = [plane.direction(module, torch.Generator().manual_seed(i)) for i in (0, 1)]
    with plane.moving(module, directions) as move, torch.no_grad():
        rows = []
        for y in at:
            rows.append([])
            for x in at:
                move((x, y))
                rows[-1].append(float(loss()))
    return np.array(rows), directions


def test_a_quadratic_has_the_curvature_that_is_known(plane):
    """½ k |W - W₀|² + 1 around W₀: along a direction as long as W it is k |W|²."""
    module = nn.Linear(30, 20, bias=False).double()
    own, k = module.weight.detach().clone(), 3.0
    at = np.linspace(-0.5, 0.5, 5)
    surface, (first, second) = surface_of(
        plane, module, lambda: 1 + k / 2 * (module.weight - own).square().sum(), at
    )
    found = plane.shape(surface, at)
    length = float(own.square().sum())
    across = float((first["weight"] * second["weight"]).sum())
    known = np.linalg.eigvalsh(k * np.array([[length, across], [across, length]]))
    assert found.centre == pytest.approx(1)
    assert found.curvature == pytest.approx(tuple(known[::-1]))
    assert found.relative == pytest.approx(found.curvature)
    assert found.least == pytest.approx((0, 0, 1))
    assert found.sharpness == pytest.approx(100 * (surface.max() - 1) / 2)
    assert found.low == pytest.approx((surface <= 1.1).mean())


def test_a_slope_and_a_saddle_are_told_from_a_minimum(plane):
    x, y = np.meshgrid(at := np.linspace(-1, 1, 5), at)
    saddle = plane.shape(5 + x**2 - 3 * y**2, at)
    assert saddle.curvature == pytest.approx((2, -6))
    assert saddle.relative == pytest.approx((0.4, -1.2))
    slope = plane.shape(5 + x, at)
    assert slope.curvature == pytest.approx((0, 0))
    assert slope.least == pytest.approx((-1, -1, 4 / 5))


def test_mixed_terms_count(plane):
    x, y = np.meshgrid(at := np.linspace(-1, 1, 5), at)
    assert plane.shape(1 + x * y, at).curvature == pytest.approx((1, -1))


def test_the_drawing_is_whole_and_shows_both(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    plot = import_module("benchmarks.paper.plot")
    x, y = np.meshgrid(at := np.linspace(-1, 1, 5), at)
    flat, steep = 1 + 0.01 * (x**2 + y**2), 1 + 20 * (x**2 + y**2)
    text = plot.draw({"flat": flat, "steep": steep}, at)
    drawing = ElementTree.fromstring(text)
    words = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert {"flat", "steep"} <= set(words)
    fills = [
        {r.get("fill") for r in panel.iter("{http://www.w3.org/2000/svg}rect")}
        for panel in list(drawing)[1:3]
    ]
    assert len(fills[0]) == 2  # the centre and all around it
    assert len(fills[1]) > 5
    assert sys.getsizeof(text) < 1 << 20
