"""What every backend must do, written once; run here on ONNX Runtime."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace

import numpy as np
import onnx
import pytest

from defectrt.engine import load_engine
from defectrt.errors import EngineError, InputError
from defectrt.manifest import MANIFEST, hash_file, read_manifest
from defectrt.rows import Prompts, Rows
from defectrt.sampler import generate, invert


@pytest.fixture(scope="module")
def opened(engine):
    with load_engine(engine, threads=1) as opened:
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
    path = invert(opened.step, z0, mask, prompts, m.steps())
    result = generate(opened.step, path, mask, noise, prompts, m.steps())
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
    with pytest.raises(InputError, match="the batch is empty"):
        opened.step(pick(random_rows(opened.manifest, 3), slice(0, 0)))


def test_a_closed_engine_says_so(engine):
    opened = load_engine(engine, threads=1)
    opened.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        opened.decode(np.zeros((1, 4, 16, 16), np.float32))


# ---- the ONNX directory --------------------------------------------------------------------------


def tampered(engine, directory, name, data):
    """A copy with one file replaced, and a manifest that vouches for it."""
    shutil.copytree(engine, directory)
    (directory / name).write_bytes(data)
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["files"][name] = hash_file(directory / name).model_dump()
    (directory / MANIFEST).write_text(json.dumps(manifest))
    return directory


def test_the_attention_is_one_function_whose_body_is_the_standard_operator(engine):
    model = onnx.load(engine / "denoiser.onnx", load_external_data=False)
    functions = {f.name: f for f in model.functions}
    assert model.functions
    assert {f.domain for f in model.functions} == {"defectrt"}
    body = [node.op_type for node in functions["MaskedCrossAttention"].node]
    assert body.count("Attention") == 1
    calls = [n for n in model.graph.node if n.op_type == "MaskedCrossAttention"]
    assert len(calls) == 10
    assert all(n.domain == "defectrt" for n in calls)
    opsets = {o.domain: o.version for o in model.opset_import}
    assert opsets[""] == 23
    onnx.checker.check_model(str(engine / "denoiser.onnx"))


def test_the_prompt_tables_are_safetensors_that_the_graph_runs_on(engine, tmp_path):
    from safetensors.numpy import load_file, save_file

    tables = load_file(engine / "prompts.safetensors")
    manifest = read_manifest(engine)
    assert len(tables) == 20
    assert all(t.shape[0] == len(manifest.prompts) for t in tables.values())
    assert all(t.ndim == 3 for t in tables.values())
    model = onnx.load(engine / "denoiser.onnx", load_external_data=False)
    external = {i.name for i in model.graph.initializer if i.external_data}
    assert external == set(tables)
    save_file({k: v * 0 for k, v in tables.items()}, tmp_path / "zero.safetensors")
    other = tampered(
        engine, tmp_path / "e", "prompts.safetensors", (tmp_path / "zero.safetensors").read_bytes()
    )
    rows = random_rows(manifest, 2)
    with load_engine(engine, threads=1) as one, load_engine(other, threads=1) as two:
        assert np.abs(one.step(rows)[0] - two.step(rows)[0]).max() > 1e-4


def test_a_file_that_is_no_graph(engine, tmp_path):
    with pytest.raises(EngineError, match="ONNX Runtime cannot open the graph"):
        load_engine(tampered(engine, tmp_path / "e", "denoiser.onnx", b"\x80\x04pickle"))


def test_a_graph_of_another_engine(engine, tmp_path):
    encoder = (engine / "encoder.onnx").read_bytes()
    with pytest.raises(EngineError, match=r"not the graph of this manifest: .*pixels"):
        load_engine(tampered(engine, tmp_path / "e", "decoder.onnx", encoder))


def test_a_graph_that_is_not_in_the_manifest(engine, tmp_path):
    shutil.copytree(engine, tmp_path / "e")
    manifest = json.loads((tmp_path / "e" / MANIFEST).read_text())
    del manifest["files"]["decoder.onnx"]
    (tmp_path / "e" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match=r"lists no decoder.onnx"):
        load_engine(tmp_path / "e")
