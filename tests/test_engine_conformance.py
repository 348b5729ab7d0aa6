"""What every backend must do, written once against the `Engine` protocol.

A new backend adds the fixture that builds its directory to ``BACKENDS``.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from defectrt.engine import load_engine
from defectrt.errors import EngineError, InputError, UsageError
from defectrt.rows import Prompts, Rows
from defectrt.sampler import generate, invert, run

#: Fixtures that build an engine directory, a backend each.
BACKENDS = ["engine"]


@pytest.fixture(scope="module", params=BACKENDS)
def directory(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def opened(directory):
    with load_engine(directory, threads=1) as opened:
        yield opened


def random_rows(manifest, n, seed=0):
    """Rows of inversion, background and defect, mixed, as a scheduler would batch them."""
    rng = np.random.default_rng(seed)
    c, h, w = manifest.latent.channels, manifest.latent.height, manifest.latent.width
    mask = (rng.random((n, 1, h, w)) < 0.3).astype(np.float32)
    table = manifest.steps()
    steps = [(table.inversion, table.generation)[i % 2][rng.integers(len(table))] for i in range(n)]
    defect = np.arange(n) % 3 == 2
    region = np.where(defect.reshape(-1, 1, 1, 1), mask, 1 - mask).astype(np.float32)
    anchor = rng.normal(size=(n, c, h, w)) * (1 - mask) * defect.reshape(-1, 1, 1, 1)
    return Rows(
        latent=rng.normal(size=(n, c, h, w)).astype(np.float32),
        timestep=np.array([s.timestep for s in steps]),
        mask=mask,
        inside=np.where(defect, 2, 1),
        outside=np.zeros(n, np.int64),
        a=np.array([s.a for s in steps], np.float32),
        b=np.array([s.b for s in steps], np.float32),
        region=region,
        anchor=anchor.astype(np.float32),
    )


def pick(rows, index):
    return Rows(**{f.name: getattr(rows, f.name)[index] for f in fields(Rows)})


def test_every_row_of_a_mixed_batch_is_the_row_alone(opened):
    rows = random_rows(opened.manifest, 7)
    latent, attention = opened.step(rows)
    for i in range(7):
        alone, map_alone = opened.step(pick(rows, slice(i, i + 1)))
        np.testing.assert_allclose(latent[i : i + 1], alone, atol=1e-5)
        np.testing.assert_allclose(attention[i : i + 1], map_alone, atol=1e-5)


def test_the_same_rows_give_the_same_bits(opened):
    rows = random_rows(opened.manifest, 5)
    for one, two in zip(opened.step(rows), opened.step(rows), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
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
def test_every_picture_of_a_batch_is_the_picture_alone(opened, n):
    m, rng = opened.manifest, np.random.default_rng(0)
    shape = (n, m.image.channels, m.image.height, m.image.width)
    pixels = rng.uniform(-1, 1, shape).astype(np.float32)
    latent = opened.encode(pixels)
    decoded = opened.decode(latent)
    for i in range(n):
        np.testing.assert_allclose(opened.encode(pixels[i : i + 1])[0], latent[i], atol=1e-5)
        np.testing.assert_allclose(opened.decode(latent[i : i + 1])[0], decoded[i], atol=1e-5)


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


def test_every_row_has_its_own_prompts(opened):
    rows = random_rows(opened.manifest, 1)
    prompts = range(len(opened.manifest.prompts))
    alone = [opened.step(replace(rows, inside=np.array([p])))[0][0] for p in prompts]
    together = opened.step(
        replace(pick(rows, np.zeros(len(prompts), int)), inside=np.arange(len(prompts)))
    )[0]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert all(np.abs(alone[0] - other).max() > 1e-5 for other in alone[1:])


def test_the_attention_is_of_the_prompt_inside_alone(opened):
    rows = random_rows(opened.manifest, 4)
    full = replace(rows, mask=np.ones_like(rows.mask), inside=np.full(4, 2))
    same = opened.step(replace(full, outside=np.full(4, 0)))
    other = opened.step(replace(full, outside=np.full(4, 3)))
    np.testing.assert_array_equal(same[1], other[1])
    assert same[1].max() > 0


def test_the_step_is_linear_in_a_b_and_region_and_adds_the_anchor(opened):
    rows = random_rows(opened.manifest, 4)
    n = np.zeros_like(rows.anchor)
    ones = np.ones_like(rows.region)
    epsilon, _ = opened.step(replace(rows, a=rows.a * 0, b=rows.b * 0 + 1, region=ones, anchor=n))
    a, b = (x.reshape(-1, 1, 1, 1) for x in (rows.a, rows.b))
    expected = rows.region * (a * rows.latent + b * epsilon) + rows.anchor
    np.testing.assert_allclose(opened.step(rows)[0], expected, atol=2e-5)


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


def test_wrong_pictures_and_empty_batches_are_refused(opened):
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
def test_threads_that_there_cannot_be(directory, threads):
    with pytest.raises(UsageError, match=f"{threads} threads; give 1 or more"):
        load_engine(directory, threads=threads)


def test_a_closed_engine_says_so(directory):
    opened = load_engine(directory, threads=1)
    opened.close()
    opened.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        opened.decode(np.zeros((1, 4, 16, 16), np.float32))
