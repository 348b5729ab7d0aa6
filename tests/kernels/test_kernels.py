"""The Triton kernels: an error budget against float64, and copies that are wrong on purpose.

Without a GPU they run in Triton's interpreter: the arithmetic of the kernel, not of a GPU.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton")

from defectrt.kernels import geglu, masked_attention, register, row_step
from defectrt.kernels.case import Budget, budget, error
from defectrt.kernels.masked_attention.cases import AttentionCase

OPERATORS = ("geglu", "masked_attention", "row_step", "self_attention")
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


def kernel(operator):
    return importlib.import_module(f"defectrt.kernels.{operator}.kernel")


def cases(operator):
    return importlib.import_module(f"defectrt.kernels.{operator}.cases").CASES


ALL = [(operator, case) for operator in OPERATORS for case in cases(operator)]


@pytest.mark.slow
@pytest.mark.parametrize(("operator", "case"), ALL, ids=[f"{o}-{c}" for o, c in ALL])
def test_error_budget(operator, case):
    found = budget(case, kernel(operator), DEVICE)
    assert found.holds, found


BINARY = ("binary", "spot", "inside", "outside")


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_library_form_computes_the_same(operator):
    """It runs in the kernel's place, so it is held to the same; masks are binary there."""
    for case in cases(operator):
        if getattr(case, "mask", "binary") in BINARY:
            inputs = case.inputs()
            exact = case.reference(*(x.double() if x.is_floating_point() else x for x in inputs))
            plain = error(case.reference(*inputs), exact)
            assert error(case.library(*inputs), exact) <= 2 * plain + case.rounding, case


#: One fault a line: what a hurried hand could write, and the line it would write it for.
SABOTAGE = [
    ("masked_attention", 'tl.where(real, score * scale, float("-inf"))', "score * scale"),
    ("masked_attention", "tl.where(is_inside, m, 1 - m)", "tl.where(is_inside, 1 - m, m)"),
    ("masked_attention", "tl.where(is_inside, m, 1 - m)", "tl.where(is_inside, m > 0, m == 0)"),
    ("masked_attention", "tl.max(share_of_side, 0) > 0", "tl.min(share_of_side, 0) > 0"),
    ("masked_attention", "total = total * shrink +", "total = total +"),
    ("masked_attention", "named = named * shrink +", "named = named +"),
    ("masked_attention", "named / total, mask=real", "named, mask=real"),
    ("masked_attention", "tl.exp2(score - top[:, None])", "tl.exp(score - top[:, None])"),
    ("masked_attention", "q1 = tl.load(", "q1 = 0 * tl.load("),
    ("masked_attention", "v_here + token[:, None] * v_token", "v_here + token[:, None]"),
    ("masked_attention", "prompt = tl.where(known, prompt, 0)", "prompt = prompt * 0"),
    ("masked_attention", "content + prompt * L", "content"),
    ("masked_attention", "D**-0.5 *", "c.D0**-0.5 *"),
    ("row_step", "channel * e_channel + pixel * e_pixel", "element"),
    ("row_step", "m * step +", "step +"),
    ("row_step", "tl.load(b + row)", "tl.load(b)"),
    ("row_step", "region + row * PIXELS + pixel", "region + pixel"),
    ("self_attention", "total = total * shrink +", "total = total +"),
    ("self_attention", "out1 * shrink[:, None]", "out1"),
    ("self_attention", "tl.exp2(score - new_top[:, None])", "tl.exp(score - new_top[:, None])"),
    ("self_attention", "q1 = tl.load(", "q1 = 0 * tl.load("),
    ("self_attention", "(row * N + query) * H + head", "(row * H + head) * N + query"),
    ("geglu", "bias + F + column", "bias + column"),
    ("geglu", "left = k < K - done", "left = k < K"),
    ("geglu", "0.7071067811865476", "0.7978845608028654"),
    ("geglu", "row[:, None] * x_row", "row[:, None] * K"),
    ("geglu", "% band_size % height", "% band_size % BAND"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("operator", "right", "wrong"), SABOTAGE)
def test_a_sabotaged_copy_leaves_the_budget(operator, right, wrong, tmp_path, monkeypatch):
    broken = altered(operator, right, wrong, tmp_path, monkeypatch)
    assert any(not budget(case, broken, DEVICE).holds for case in cases(operator))


def altered(operator, right, wrong, folder, monkeypatch):
    """A copy of an operator's kernel module with one piece of its text replaced."""
    original = kernel(operator)
    text = importlib.util.find_spec(original.__name__).loader.get_source(original.__name__)
    assert text.count(right) == 1
    path = folder / "altered.py"
    path.write_text(text.replace(right, wrong))
    spec = importlib.util.spec_from_file_location(f"{original.__package__}.altered", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_one_sabotaged_copy_leaves_the_budget(tmp_path, monkeypatch):
    broken = altered("geglu", "bias + F + column", "bias + column", tmp_path, monkeypatch)
    assert not budget(cases("geglu")[0], broken, DEVICE).holds


def test_a_kernel_is_launched_on_the_card_of_its_tensors(monkeypatch):
    current, seen = [0], []

    @contextmanager
    def on(tensor):
        current.append(1)
        yield
        current.pop()

    class Kernel(dict):
        def __getitem__(self, grid):
            return lambda *arguments, **constants: seen.append((grid, arguments, current[-1]))

    monkeypatch.setattr(register, "_current", on)
    x = torch.zeros(1)
    register._OnItsCard(Kernel())[3](5, x, BLOCK=1)
    assert seen == [(3, (5, x), 1)]
    assert current == [0]


@pytest.mark.skipif(DEVICE != "cpu", reason="kernels are compiled here, not interpreted")
@pytest.mark.parametrize("operator", OPERATORS)
def test_an_interpreted_kernel_needs_no_leave_of_pytorch(operator, monkeypatch):
    """PyTorch before 2.12 refuses to wrap one."""

    def refuse(kernel):
        raise RuntimeError("wrap_triton only works on functions annotated with triton.jit")

    monkeypatch.setattr(torch.library, "wrap_triton", refuse)
    case = cases(operator)[0]
    case.launch(kernel(operator), *case.inputs())


def test_the_budget_counts_every_row_and_refuses_nan():
    exact = torch.ones(50, 100, dtype=torch.float64)
    one_row = exact.clone()
    one_row[7] *= 1.01
    assert error((one_row,), (exact,)) == pytest.approx(0.01)
    one_row[7, 3] = torch.nan
    assert not Budget(error((one_row,), (exact,)), 1.0, 1.0).holds


@pytest.mark.parametrize("side", ["inside", "outside"])
def test_a_tile_on_one_side_reads_that_prompt_only(side):
    """The other prompt is NaN: any use of it, even with weight zero, would show."""
    case = AttentionCase(40, 100, torch.float16, side, H=1)
    q, k, v, inside, outside, mask, _ = case.inputs(DEVICE)
    other = {"inside": outside, "outside": inside}[side]
    clean = kernel("masked_attention").launch(q, k, v, inside, outside, mask, None)[0]
    for row in range(len(q)):
        k_nan, v_nan = k.clone(), v.clone()
        k_nan[other[row]], v_nan[other[row]] = torch.nan, torch.nan
        one = slice(row, row + 1)
        rows = (inside[one], outside[one], mask[one])
        out = kernel("masked_attention").launch(q[one], k_nan, v_nan, *rows, None)[0]
        assert torch.equal(out[0], clean[row])


@pytest.mark.parametrize("index", [-1, 3, 2**40])
def test_a_prompt_outside_the_table_gives_nan_in_its_row_alone(index):
    q, k, v, inside, outside, mask, _ = AttentionCase(40, 20, H=1).inputs(DEVICE)
    bad = inside.clone()
    bad[1] = index
    out = kernel("masked_attention").launch(q, k, v, bad, outside, mask, None)[0]
    right = kernel("masked_attention").launch(q, k, v, inside, outside, mask, None)[0]
    assert torch.equal(out[0], right[0])
    assert out[1, 0, mask[1] == 1].isnan().all()


def test_a_row_does_not_depend_on_its_neighbours():
    case = AttentionCase(40, 70, torch.float16, B=3, map=True, H=1)
    inputs = case.inputs(DEVICE)
    whole = case.launch(kernel("masked_attention"), *inputs)
    q, k, v, inside, outside, mask, content = inputs
    alone = case.launch(
        kernel("masked_attention"), q[2:], k, v, inside[2:], outside[2:], mask[2:], content
    )
    assert all(torch.equal(w[2:], a) for w, a in zip(whole, alone, strict=True))


OPERATIONS = [
    (masked_attention.masked_attention, "masked_attention", 0, slice(0, 6)),
    (masked_attention.masked_attention_map, "masked_attention_map", 0, slice(0, 7)),
    (row_step.row_step, "row_step", 0, slice(None)),
    (geglu.geglu, "geglu", 0, slice(None)),
]

each_operation = pytest.mark.parametrize(
    ("call", "name", "index", "used"), OPERATIONS, ids=[name for _, name, *_ in OPERATIONS]
)


def operands(name, index, used):
    return cases(name.removesuffix("_map"))[index].inputs()[used]


@each_operation
def test_the_operator_is_registered_whole(call, name, index, used):
    """PyTorch's own check: the schema tells the truth, and so do the shapes told beforehand."""
    inputs = operands(name, index, used)
    operator = getattr(torch.ops.defectrt, name).default
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(operator, inputs, test_utils=checks)


@each_operation
def test_export_keeps_the_operator(call, name, index, used):
    class Layer(torch.nn.Module):
        def forward(self, *inputs):
            return call(*inputs)

    inputs = operands(name, index, used)
    program = torch.export.export(Layer(), inputs)
    assert f"defectrt.{name}.default" in {str(node.target) for node in program.graph.nodes}
    got, expected = program.module()(*inputs), call(*inputs)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@each_operation
def test_the_kernel_gives_the_shapes_and_strides_that_were_told(call, name, index, used):
    """A compiler plans memory with what it was told; the kernel must not leave it otherwise."""
    inputs = operands(name, index, used)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        told = call(*(mode.from_tensor(x) for x in inputs))
    on_device = [x.to(DEVICE) for x in inputs]
    if name == "masked_attention":
        on_device.append(None)
    given = kernel(name.removesuffix("_map")).launch(*on_device)
    told, given = ([x] if isinstance(x, torch.Tensor) else [*x] for x in (told, given))
    for expected, got in zip(told, given, strict=name != "masked_attention"):
        assert got.shape == expected.shape
        assert got.stride() == expected.stride()
        assert got.dtype == expected.dtype


FOR_A_GPU = """
import torch
from torch._functorch.aot_autograd import aot_export_module
from torch._subclasses.fake_tensor import FakeTensorMode
from defectrt.kernels import geglu, masked_attention, row_step
from defectrt.kernels.geglu.cases import GegluCase
from defectrt.kernels.masked_attention.cases import AttentionCase
from defectrt.kernels.row_step.cases import StepCase

attention = AttentionCase(40, 5, torch.float16).inputs()
for call, inputs in (
    (masked_attention.masked_attention, attention[:-1]),
    (masked_attention.masked_attention_map, attention),
    (row_step.row_step, StepCase(4, 4).inputs()),
    (geglu.geglu, GegluCase(4, 16, 16).inputs()),
):
    class Layer(torch.nn.Module):
        def forward(self, *tensors):
            out = call(*tensors)
            return out if isinstance(out, tuple) else (out,)

    with FakeTensorMode():
        tensors = [
            torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")
            for x in inputs
        ]
        kept = torch.export.export(Layer(), tuple(tensors)).graph
        opened = aot_export_module(Layer(), tensors, trace_joint=False)[0].graph
    names = [str(node.target) for graph in (kept, opened) for node in graph.nodes]
    print([x for x in names if x.startswith(("defectrt", "triton"))])
"""


@pytest.mark.slow
def test_for_a_gpu_the_operator_is_kept_by_export_and_opened_by_the_compiler():
    """Traced for CUDA on tensors without memory, in a process where kernels are not interpreted."""
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    command = [sys.executable, "-c", FOR_A_GPU]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(OPERATIONS)
    for (_, name, *_), line in zip(OPERATIONS, lines, strict=True):
        assert line == str([f"defectrt.{name}.default", "triton_kernel_wrapper_functional"])


WITHOUT_TRITON = """
import importlib.util, sys
sys.modules["triton"] = None
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "triton" else found(name, *rest)
import torch
from defectrt.kernels.masked_attention import masked_attention, two_softmaxes
from defectrt.kernels.masked_attention.cases import AttentionCase

q, k, v, inside, outside, mask, _ = AttentionCase(40, 5).inputs()
expected = two_softmaxes(q, k[inside], v[inside], k[outside], v[outside], mask)
assert torch.equal(masked_attention(q, k, v, inside, outside, mask), expected)
"""


@pytest.mark.slow
def test_without_triton_the_operators_are_there_and_quiet():
    command = [sys.executable, "-c", WITHOUT_TRITON]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_gradient_is_refused_not_made_up():
    q, *rest = AttentionCase(40, 5).inputs()
    out = masked_attention.masked_attention(q.requires_grad_(), *rest[:-1])
    with pytest.raises(RuntimeError, match="no autograd formula"):
        out.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v, mask: (q.half(), k, v, mask), "differ in dtype"),
        (lambda q, k, v, mask: (q, k[..., :8], v, mask), "does not fit the tables"),
        (lambda q, k, v, mask: (q, k, v[:, :1], mask), "does not fit the tables"),
        (lambda q, k, v, mask: (q, k, v, mask[:, :-1]), "a mask of"),
    ],
)
def test_operands_that_do_not_fit_are_refused(change, message):
    q, k, v, inside, outside, mask, _ = AttentionCase(40, 5).inputs()
    q, k, v, mask = change(q, k, v, mask)
    with pytest.raises(ValueError, match=message):
        masked_attention.masked_attention(q, k, v, inside, outside, mask)
