"""What every backend must do, written once against the `Engine` protocol.

A new backend is a line in ``BACKENDS``.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from typing import Literal

import numpy as np
import pytest
from support.pretended_card import pretended_card
from support.rows import random_rows

from defectrt.diffusion.rows import Prompts, Rows
from defectrt.diffusion.sampler import generate, invert, run
from defectrt.engines.loading import load_engine
from defectrt.engines.manifest import read_manifest
from defectrt.engines.providers import installed
from defectrt.engines.tensorrt_engine import CARDS, Card
from defectrt.errors import EngineError, InputError, UsageError


@dataclass(frozen=True)
class Backend:
    """A backend under test.

    fixture    builds its directory, from the same run as all others
    provider   for ONNX engines; skipped where the installed ONNX Runtime does not have it
    tolerance  largest difference to the ONNX engine on the CPU, which its build compares with
               PyTorch; relative to the largest value
    rounding   largest difference between a row in a batch and the row alone
    needs      packages without which it cannot be tried
    card       it needs a card that TensorRT-RTX builds for, or a pretended one
    slow       its build takes long
    """

    fixture: str
    provider: str | None = None
    tolerance: float = 1e-5
    rounding: float = 1e-5
    needs: tuple[str, ...] = ()
    card: Literal["real", "pretended"] | None = None
    slow: bool = False


BACKENDS = {
    "onnx": Backend("engine"),
    "onnx-cpu": Backend("engine", "cpu", slow=True),
    "onnx-float16": Backend(
        "float16_engine", tolerance=1e-3, rounding=5e-4, needs=("torch",), slow=True
    ),
    "aoti-cpu": Backend("aoti_engine", needs=("torch",), slow=True),
    "onnx-cuda": Backend("engine", "cuda", tolerance=1e-3),
    "onnx-tensorrt": Backend("engine", "tensorrt", tolerance=1e-3),
    "onnx-tensorrt-rtx": Backend("engine", "tensorrt-rtx", tolerance=1e-3),
    "tensorrt-rtx, pretended": Backend("pretended_rtx", card="pretended", slow=True),
    "tensorrt-rtx": Backend(
        "rtx_here",
        tolerance=1e-3,
        rounding=1e-4,
        needs=("cuda.bindings", "tensorrt_rtx_bindings"),
        card="real",
    ),
}


def importable(name):
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False


def has_card():
    try:
        return Card().capability() in CARDS
    except EngineError:
        return False


def missing(backend):
    """What a backend lacks here; nothing if it can be tried."""
    packages = [name for name in backend.needs if not importable(name)]
    if backend.card == "real" and not (packages or has_card()):
        packages = ["an RTX card"]
    return packages + [f"provider {p}" for p in {backend.provider} - {None, *installed()}]


HERE = {name: backend for name, backend in BACKENDS.items() if not missing(backend)}


@pytest.mark.parametrize("name", BACKENDS)
def test_the_backend_is_tried_here(name):
    if name not in HERE:
        pytest.skip(f"{name} was not tried: {', '.join(missing(BACKENDS[name]))} missing")


@pytest.fixture(
    scope="module",
    params=[pytest.param(b, marks=pytest.mark.slow if b.slow else ()) for b in HERE.values()],
    ids=HERE,
)
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def directory(backend, request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pretended_card(folder) if backend.card == "pretended" else nullcontext():
        yield request.getfixturevalue(backend.fixture)


def open_engine(directory, backend, **options):
    options |= {"provider": backend.provider, "trust": read_manifest(directory).fingerprint}
    return load_engine(directory, **options)


@pytest.fixture(scope="module")
def opened(backend, directory):
    with open_engine(directory, backend, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def reference(engine):
    with load_engine(engine, threads=1, provider="cpu") as opened:
        yield opened


def pick(rows, index):
    return Rows(**{f.name: getattr(rows, f.name)[index] for f in fields(Rows)})


def test_it_computes_what_the_onnx_engine_computes_on_the_cpu(opened, backend, reference):
    m, rng = opened.manifest, np.random.default_rng(2)
    shape = (3, m.image.channels, m.image.height, m.image.width)
    pixels = rng.uniform(-1, 1, shape).astype(np.float32)
    rows = random_rows(m, 11)
    for got, expected in (
        *zip(opened.step(rows), reference.step(rows), strict=True),
        (opened.encode(pixels), reference.encode(pixels)),
        (opened.decode(rows.latent), reference.decode(rows.latent)),
    ):
        limit = backend.tolerance * np.abs(expected).max()
        np.testing.assert_allclose(got, expected, rtol=0, atol=limit)


@pytest.mark.parametrize("n", [2, 3, 7, 17])
def test_every_row_of_a_mixed_batch_is_the_row_alone(opened, backend, n):
    rows = random_rows(opened.manifest, n)
    latent, attention = opened.step(rows)
    for i in range(n):
        alone, map_alone = opened.step(pick(rows, slice(i, i + 1)))
        np.testing.assert_allclose(latent[i : i + 1], alone, atol=backend.rounding)
        np.testing.assert_allclose(attention[i : i + 1], map_alone, atol=backend.rounding)


def test_neighbours_in_a_batch_change_no_bit(opened):
    rows = random_rows(opened.manifest, 4)
    others = random_rows(opened.manifest, 4, seed=1)
    mixed = Rows(
        **{
            f.name: np.concatenate([getattr(rows, f.name)[:1], getattr(others, f.name)[1:]])
            for f in fields(Rows)
        }
    )
    for one, two in zip(opened.step(rows), opened.step(mixed), strict=True):
        np.testing.assert_array_equal(one[0], two[0])


def test_the_same_rows_give_the_same_bits(opened):
    rows = random_rows(opened.manifest, 5)
    for one, two in zip(opened.step(rows), opened.step(rows), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 33])
def test_shapes_and_types(opened, n):
    m = opened.manifest
    latent, attention = opened.step(random_rows(m, n))
    assert latent.shape == (n, m.latent.channels, m.latent.height, m.latent.width)
    assert attention.shape == (n, 1, m.attention.height, m.attention.width)
    assert latent.dtype == attention.dtype == np.float32
    assert attention.min() >= 0
    assert attention.max() <= 1
    pixels = np.zeros((n, m.image.channels, m.image.height, m.image.width), np.float32)
    assert opened.encode(pixels).shape == latent.shape
    assert opened.decode(latent).shape == pixels.shape


@pytest.mark.parametrize("n", [2, 5])
def test_every_image_of_a_batch_is_the_image_alone(opened, backend, n):
    m, rng = opened.manifest, np.random.default_rng(0)
    shape = (n, m.image.channels, m.image.height, m.image.width)
    pixels = rng.uniform(-1, 1, shape).astype(np.float32)
    latent = opened.encode(pixels)
    decoded = opened.decode(latent)
    for i in range(n):
        code, image = opened.encode(pixels[i : i + 1]), opened.decode(latent[i : i + 1])
        np.testing.assert_allclose(code[0], latent[i], atol=backend.rounding)
        np.testing.assert_allclose(image[0], decoded[i], atol=backend.rounding)


def test_a_view_counts_by_its_values_not_by_how_it_lies_in_memory(opened):
    rows = random_rows(opened.manifest, 3)
    expected = opened.step(rows)
    wide = np.zeros((*rows.latent.shape[:-1], 2 * rows.latent.shape[-1]), np.float32)
    wide[..., ::2] = rows.latent
    for latent in (wide[..., ::2], np.asfortranarray(rows.latent)):
        for one, two in zip(opened.step(replace(rows, latent=latent)), expected, strict=True):
            np.testing.assert_array_equal(one, two)


def test_what_goes_in_stays_as_it_is(opened):
    rows = random_rows(opened.manifest, 3)
    before = {f.name: getattr(rows, f.name).copy() for f in fields(Rows)}
    latent, attention = opened.step(rows)
    kept = latent.copy(), attention.copy()
    opened.step(random_rows(opened.manifest, 3, seed=1))
    for name, values in before.items():
        np.testing.assert_array_equal(getattr(rows, name), values)
    np.testing.assert_array_equal(latent, kept[0])
    np.testing.assert_array_equal(attention, kept[1])


def test_every_row_has_its_own_prompts(opened, backend):
    rows = random_rows(opened.manifest, 1)
    prompts = range(len(opened.manifest.prompts))
    alone = [opened.step(replace(rows, inside=np.array([p])))[0][0] for p in prompts]
    together = opened.step(
        replace(pick(rows, np.zeros(len(prompts), int)), inside=np.arange(len(prompts)))
    )[0]
    np.testing.assert_allclose(together, alone, atol=backend.rounding)
    assert all(np.abs(alone[0] - other).max() > backend.rounding for other in alone[1:])


def test_the_attention_is_of_the_prompt_inside_alone(opened):
    rows = random_rows(opened.manifest, 4)
    full = replace(rows, mask=np.ones_like(rows.mask), inside=np.full(4, 2))
    same = opened.step(replace(full, outside=np.full(4, 0)))
    other = opened.step(replace(full, outside=np.full(4, 3)))
    np.testing.assert_array_equal(same[1], other[1])
    assert same[1].max() > 0


def test_the_step_is_linear_in_a_b_and_region_and_adds_the_anchor(opened, backend):
    rows = random_rows(opened.manifest, 4)
    n = np.zeros_like(rows.anchor)
    ones = np.ones_like(rows.region)
    epsilon, _ = opened.step(replace(rows, a=rows.a * 0, b=rows.b * 0 + 1, region=ones, anchor=n))
    a, b = (x.reshape(-1, 1, 1, 1) for x in (rows.a, rows.b))
    expected = rows.region * (a * rows.latent + b * epsilon) + rows.anchor
    np.testing.assert_allclose(opened.step(rows)[0], expected, atol=2 * backend.rounding)


def test_the_prompt_inside_acts_only_under_the_mask(opened):
    rows = random_rows(opened.manifest, 3)
    other = replace(rows, inside=np.full(3, 3))
    rows = replace(rows, inside=np.full(3, 2))
    assert np.abs(opened.step(rows)[0] - opened.step(other)[0]).max() > 1e-4
    empty = np.zeros_like(rows.mask)
    np.testing.assert_array_equal(
        opened.step(replace(rows, mask=empty))[0], opened.step(replace(other, mask=empty))[0]
    )


def test_the_method_runs_on_it(opened):
    m = opened.manifest
    rng = np.random.default_rng(0)
    shape = (2, m.latent.channels, m.latent.height, m.latent.width)
    z0, noise = rng.normal(size=(2, *shape)).astype(np.float32)
    mask = np.zeros((2, 1, *shape[2:]), np.float32)
    mask[..., 4:9, 4:9] = 1
    indices = m.prompt_indices("spot")
    prompts = Prompts(
        *(np.full(2, i) for i in (indices.defect, indices.background, indices.masked))
    )
    path = run(opened.step, invert(z0, mask, prompts, m.steps()))
    result = run(opened.step, generate(path, mask, noise, prompts, m.steps()))
    np.testing.assert_array_equal((1 - mask) * result.latent, (1 - mask) * z0)
    assert np.isfinite(result.latent).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: {"latent": r.latent.astype(np.float64)},
            r"latent is float64 .*expected float32",
        ),
        (lambda r: {"latent": r.latent[:, :1]}, r"latent is float32 \[3, 1, 16, 16\], expected"),
        (lambda r: {"mask": r.mask[..., :8]}, r"mask is float32 \[3, 1, 16, 8\]"),
        (lambda r: {"timestep": r.timestep.astype(np.int32)}, "timestep is int32"),
        (lambda r: {"a": r.a[:2]}, r"a is float32 \[2\], expected float32 \[3\]"),
        (lambda r: {"a": r.a[:2], "b": r.b[:1]}, r"a is .*; b is "),
        (lambda r: {"inside": r.inside + 7}, "inside goes outside 0 … 3"),
        (lambda r: {"outside": r.outside - 1}, "outside goes outside 0 … 3"),
        (lambda r: {"timestep": r.timestep + 1000}, "timestep goes outside 0 … 999"),
        (lambda r: {"timestep": r.timestep * 0 - 1}, "timestep goes outside 0 … 999"),
        (lambda r: {"inside": list(r.inside)}, r"inside is a list, expected int64 \[3\]"),
        (lambda r: {"inside": r.inside * 0.5}, r"inside is float64 \[3\], expected int64 \[3\]"),
        (lambda r: {"latent": np.float32(0)}, r"latent is a float32, expected float32 \[3, 4,"),
        (lambda r: {"latent": np.array(0, np.float32)}, r"latent is float32 \[\], expected"),
        (lambda r: {"latent": r.latent.astype(">f4")}, r"latent is >f4 .*expected float32"),
        (lambda r: {"region": None}, "region is a NoneType, expected float32"),
        (lambda r: {"mask": r.mask * 0.5}, "mask holds other values than 0 and 1"),
        (lambda r: {"mask": r.mask * np.float32("nan")}, "mask holds other values than 0 and 1"),
    ],
)
def test_wrong_rows_are_refused_by_name(opened, change, message):
    rows = random_rows(opened.manifest, 3)
    with pytest.raises(InputError, match=message):
        opened.step(replace(rows, **change(rows)))


def test_wrong_images_and_empty_batches_are_refused(opened):
    with pytest.raises(InputError, match="pixels is float32"):
        opened.encode(np.zeros((1, 1, 32, 32), np.float32))
    with pytest.raises(InputError, match="latent is float32"):
        opened.decode(np.zeros((1, 4, 8, 8), np.float32))
    for nothing in (None, [], np.float32(0)):
        with pytest.raises(InputError, match="pixels is a"):
            opened.encode(nothing)
    with pytest.raises(InputError, match="the batch is empty"):
        opened.step(pick(random_rows(opened.manifest, 3), slice(0, 0)))


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_that_there_cannot_be(directory, backend, threads):
    with pytest.raises(UsageError, match=f"{threads} threads; give 1 or more"):
        open_engine(directory, backend, threads=threads)


def test_a_closed_engine_says_so(directory, backend):
    opened = open_engine(directory, backend, threads=1)
    opened.close()
    opened.close()
    m = opened.manifest
    for call in (
        lambda: opened.encode(np.zeros((1, 3, m.image.height, m.image.width), np.float32)),
        lambda: opened.step(random_rows(m, 1)),
        lambda: opened.decode(np.zeros((1, 4, m.latent.height, m.latent.width), np.float32)),
    ):
        with pytest.raises(EngineError, match="the engine is closed"):
            call()


def test_it_says_what_computes(opened, backend):
    assert opened.provider == (backend.provider or ("cuda" if backend.card else "cpu"))
