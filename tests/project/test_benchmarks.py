"""The benchmarks of kernels and engines: they refuse what is wrong, and count what they say."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from support.built import built
from support.graphs import EXPORT, filled

pytest.importorskip("triton")

from defectrt.kernels.case import Budget
from defectrt.kernels.geglu import cases as geglu_cases

#: Importing diffusers and opening models takes seconds.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BUNDLED_ENGINE = ROOT / "runtime" / "engines" / "bundled"


@pytest.fixture
def benchmark(monkeypatch):
    """Import a benchmark by name, even if a library has met a folder of that name before."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return import_module(name)

    return load


@pytest.fixture(scope="module")
def sd15():
    """The roofline module and its count of SD 1.5."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        roofline = __import__("roofline")
        yield roofline, roofline.count(roofline.SD15)


@pytest.mark.slow
def test_the_counts_are_those_of_sd15(sd15):
    """803 GFLOP a row, two a multiply-add, as counted independently; parameters as published."""
    roofline, counted = sd15
    sums = {
        kind: sum(x.flops for x in counted.layers if x.kind.startswith(kind)) / 1e9
        for kind in roofline.PRODUCTS
    }
    assert counted.flops / 1e9 == pytest.approx(803, abs=1)
    assert sums["convolution"] == pytest.approx(444, abs=1)
    assert sums["linear"] == pytest.approx(233, abs=1)
    assert sums["self-attention"] + sums["cross-attention"] == pytest.approx(126, abs=1)
    # norms and biases aside: 859.5 million parameters
    weights = sum(x.weights for x in counted.layers if x.kind in ("convolution", "linear")) / 2
    assert weights / 1e6 == pytest.approx(859.5, abs=1)


def test_a_layer_takes_what_its_slower_side_takes(benchmark):
    roofline = benchmark("roofline")
    card = roofline.Card("", tflops=1e-9, bandwidth=1e-10, exps=1e-11)
    layer = roofline.Layer("linear", flops=100, moved=10, weights=50)
    assert layer.seconds(1, card) == pytest.approx(60 / 100)
    assert layer.seconds(1000, card) == pytest.approx((10 * 1000 + 50) / 100)
    assert replace(layer, moved=1).seconds(1000, card) == pytest.approx(100_000 / 1000)
    assert replace(layer, exps=3).seconds(1000, card) == pytest.approx(3000 / 10)


def test_one_convolution_by_hand(sd15):
    """The first: 4 to 320 channels of 64x64, 3x3, float16."""
    _, counted = sd15
    first = next(x for x in counted.layers if x.kind == "convolution")
    assert first.flops == 2 * 64 * 64 * 320 * 4 * 3 * 3 == 94_371_840
    assert first.moved == 2 * (4 + 320) * 64 * 64
    assert first.weights == 2 * (320 * 4 * 3 * 3 + 320)


def test_one_attention_by_hand(sd15):
    """The first: 4096 queries and keys, 8 heads of 40; then 77 tokens."""
    _, counted = sd15
    own = next(x for x in counted.layers if x.kind == "self-attention, d = 40")
    assert own.flops == 2 * (2 * 4096 * 4096 * 40) * 8 == 21_474_836_480
    assert own.moved == 2 * 4 * 4096 * 320
    assert own.exps == 8 * 4096 * 4096
    cross = next(x for x in counted.layers if x.kind == "cross-attention")
    assert cross.flops == 2 * (2 * 4096 * 77 * 40) * 8
    assert cross.moved == 2 * 2 * 4096 * 320
    assert cross.weights == 2 * 2 * 77 * 320


def test_what_is_fused_by_hand(sd15):
    """What a row of the first layers moves less, in bytes; nothing else differs."""
    _, counted = sd15

    def bytes_saved(name):
        first = next(x for x in counted.fusions if x.name == name)
        before, after = (sum(x.moved for x in form) for form in (first.library, first.fused))
        return before - after

    element = 2 * 4096 * 320
    assert bytes_saved("GEGLU in its product") == 2 * element * 4 + 2 * element * 4
    assert bytes_saved("group norm in one pass") == element
    assert bytes_saved("residuals added in the products before") == 6 * element
    assert bytes_saved("row step, for the compiler's") == 0
    bias = 2 * 4096 * 160
    assert bytes_saved("masked cross-attention") == 2 * bias + 4 * 2 * 2 * 77 * 320


def test_the_timed_sizes_are_the_layers_of_sd15(sd15):
    """As many layers of each size as the U-Net has, and as much work in each; a row of 16."""
    roofline, counted = sd15
    layers = {
        "masked_attention": [x for x in counted.layers if x.kind == "cross-attention"],
        "self_attention": [x for x in counted.layers if x.kind.startswith("self-attention")],
        "geglu": [x.fused[0] for x in counted.fusions if x.name == "GEGLU in its product"],
    }
    for operator, of_the_unet in layers.items():
        sizes = import_module(f"defectrt.kernels.{operator}.cases").SIZES
        for case in (x for x in sizes if x.dtype == torch.float16):
            work = case.cost().flops // case.B
            width = getattr(
                case, "K", None
            )  # levels have the same work in GEGLU, not the same bytes
            moved = 2 * 5 * width * case.N if width else None
            same = [x for x in of_the_unet if x.flops == work and moved in (None, x.moved)]
            assert len(same) == case.layers, case
    assert roofline.WORKLOADS[0].rows == 16


def test_the_autoencoder_is_as_counted_independently(sd15):
    roofline, _ = sd15
    encode, decode = (x.flops / 1e9 for x in roofline.count_autoencoder(roofline.SD15_VAE, 512))
    assert encode == pytest.approx(1117, abs=2)
    assert decode == pytest.approx(2515, abs=2)


def test_the_kept_predictions_are_what_the_script_says(sd15, tmp_path):
    roofline, _ = sd15
    roofline.write(tmp_path / "now.csv")
    kept = ROOT / "benchmarks" / "results" / "roofline.csv"
    assert kept.read_text() == (tmp_path / "now.csv").read_text()


@pytest.mark.slow
def test_the_documented_predictions_are_what_the_script_says(sd15):
    roofline, counted = sd15
    text = (ROOT / "docs" / "performance.md").read_text()
    assert roofline.table(counted, [1, 4, 16, 64], roofline.H100) in text
    assert roofline.floors() in text
    assert roofline.savings() in text


@pytest.mark.parametrize("holds", [True, False])
def test_a_kernel_outside_its_budget_is_not_timed(benchmark, monkeypatch, holds):
    kernels = benchmark("kernels")
    monkeypatch.setattr(kernels, "budget", lambda *_: Budget(1.0, 1.0 if holds else 0.1, 0.0))
    monkeypatch.setattr(kernels.Clock, "measure", lambda *_: (2e-3, 3e-3))
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)
    monkeypatch.setattr(geglu_cases.GegluCase, "inputs", lambda self, device: ())
    case, clock = geglu_cases.CASES[0], kernels.Clock("cpu")
    row = kernels.row("geglu", case, clock, (1e9, 1e12), timing=True)
    assert row["refused"] is not holds
    assert ("p50_us" in row) is holds
    assert "p50_us" not in kernels.row("geglu", case, clock, (1e9, 1e12), timing=False)
    if holds:
        assert row["of_floor"] == pytest.approx(row["floor_us"] / 2000)
        assert kernels.line(row).endswith("LOSES")
    else:
        assert kernels.line(row).startswith("REFUSED")


def many_sizes(kernels):
    """Rows of more sizes than Dynamo compiles one function for."""
    clock = kernels.Clock("cpu", repeats=2)
    cases = [geglu_cases.GegluCase(n, 16, 16) for n in range(3, 7)]
    with torch._dynamo.config.patch(recompile_limit=2):
        return [kernels.times(case, Standin, clock, (1e9, 1e12)) for case in cases]


class Standin:
    """A kernel in the place of GEGLU's, to be timed."""

    @staticmethod
    def launch(x, *_):
        return x


def test_the_compiled_form_is_compiled_for_every_case(benchmark):
    assert not [row for row in many_sizes(benchmark("kernels")) if "compiled_us" not in row]


def test_where_dynamo_stops_compiling_no_time_stands_for_compiled(benchmark, monkeypatch):
    kernels = benchmark("kernels")
    torch._dynamo.reset()
    monkeypatch.setattr(torch._dynamo, "reset", lambda: None)
    rows = many_sizes(kernels)
    assert "compiled_us" in rows[0]
    assert "compiled_us" not in rows[-1]
    assert rows[-1]["not_compiled"] == "Dynamo ran it as it is"
    head = {"operator": "geglu", "case": "", "found": 0.0, "limit": 0.0, "refused": False}
    assert "NOT COMPILED" in kernels.line(head | rows[-1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("script", ["kernels", "gpu_table"])
def test_without_a_gpu_they_say_so(benchmark, monkeypatch, capsys, script):
    monkeypatch.setattr(sys, "argv", [script])
    assert benchmark(script).main() == 2
    assert "finds n" in capsys.readouterr().err


SMALL_TABLE = ("--cpu", "--small", "--steps", "2", "--repeats", "2")


@pytest.fixture
def table(benchmark, tmp_path, monkeypatch):
    """The module; its small network's graph is exported once and then filled."""
    table = benchmark("gpu_table")

    def make(folder):
        from support.graphs import kept

        with kept(folder / "graphs"):
            table.main([*SMALL_TABLE, "--buckets", "1", "--compile"])

    place = built("table", make, tmp_path / "of", of=[ROOT / "benchmarks" / "gpu_table.py"])
    monkeypatch.setattr(EXPORT, filled(place / "graphs"))
    return table


@pytest.mark.slow
def test_the_table_runs_on_a_cpu(table, tmp_path, capsys):
    arguments = [
        *SMALL_TABLE,
        "--buckets",
        "1",
        "3",
        "--compile",
        "--json",
        str(tmp_path / "lines"),
        "--engine",
        str(BUNDLED_ENGINE),
    ]
    assert table.main(arguments) == 0
    lines = [json.loads(x) for x in (tmp_path / "lines").read_text().splitlines()]
    assert [x["rows"] for x in lines] == [1, 1, 3, 1, 3, 1, 1, 3]
    assert all(x["found"] < 1e-5 for x in lines[:5])
    assert [x["contender"] for x in lines[3:5]] == ["row step, ONNX Runtime on cpu"] * 2
    assert lines[5]["contender"] == "plain loop, one whole image"
    for x in lines[:5]:
        assert 0 < x["p50_ms"] <= x["p99_ms"]
    assert all({"commit", "device", "torch", "precision", "peak_TFLOPs"} <= set(x) for x in lines)
    assert "row step, ONNX Runtime on cpu" in capsys.readouterr().out


@pytest.mark.slow
def test_what_is_wrong_or_cannot_be_made_loses_its_own_lines(benchmark, monkeypatch, capsys):
    table = benchmark("gpu_table")
    fuse, asked = table.fuse_geglu, []

    def broken(unet):
        fuse(unet)
        unet.conv_out.bias += 0.01

    def unavailable(bench, provider):
        asked.append(provider)
        raise RuntimeError("no such provider")

    monkeypatch.setattr(table, "fuse_geglu", broken)
    monkeypatch.setattr(table, "onnx_step", unavailable)
    assert table.main([*SMALL_TABLE, "--buckets", "1", "2", "--compile"]) == 1
    out = capsys.readouterr()
    assert "not timed: row step, kernels, 1 rows: WrongError" in out.err
    assert out.err.count("no such provider") == 2
    assert asked == ["cpu"]
    assert "| plain loop (diffusers, eager, dual) | 1 |" in out.out
    assert "row step" not in out.out


def test_the_profile_counts_products_as_they_are(benchmark):
    flops = benchmark("onnx_profile").flops
    assert flops("Conv", [[4, 8, 9, 9], [16, 8, 3, 3]], [[4, 16, 9, 9]]) == 2 * 4 * 81 * 16 * 72
    assert flops("MatMul", [[4, 5, 7], [7, 3]], [[4, 5, 3]]) == 2 * 4 * 5 * 7 * 3
    queries, keys = [2, 3, 10, 4], [2, 3, 6, 4]
    assert flops("Attention", [queries, keys, keys], [queries]) == 2 * 2 * (2 * 3 * 10 * 6 * 4)
    assert flops("Add", [[4]], [[4]]) == 0


def test_the_profile_is_of_the_whole_denoiser(benchmark, monkeypatch, capsys):
    module = benchmark("onnx_profile")
    monkeypatch.setattr(module, "ceilings", lambda: (1e11, 1e10))
    monkeypatch.setattr(sys, "argv", ["onnx_profile", "--head", "--rows", "1", "--repeats", "2"])
    module.main()
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    parts = {line["part"]: line for line in lines}
    assert {"convolution", "matrix product", "attention", "moving and sizes"} < set(parts)
    assert sum(float(line["share"]) for line in lines) == pytest.approx(1, abs=0.01)
    assert int(parts["convolution"]["operators"]) > 50
    assert all((line["GFLOP_s"] != "") == (line["part"] in module.PRODUCTS.values())
               for line in lines)  # fmt: skip


@pytest.mark.parametrize("wrong", [0.01, float("nan")])
def test_a_compiled_program_that_is_wrong_is_not_timed(benchmark, wrong):
    compiled = benchmark("compiled")
    right = [np.ones((2, 3), np.float32)]
    compiled.check("aoti", right, right)
    with pytest.raises(SystemExit, match=r"aoti is .* from PyTorch: nothing to compare"):
        compiled.check("aoti", [right[0] + np.float32(wrong)], right)


def test_ways_take_turns(benchmark):
    taken = []
    ways = {name: lambda example, name=name: taken.append(name) for name in "ab"}
    times = benchmark("compiled").measure(ways, {}, rounds=2)
    assert "".join(taken) == "ababab"
    assert [len(times[name]) for name in "ab"] == [2, 2]
