"""Building an engine: the self-check can fail, and nothing half-made is left behind."""

from __future__ import annotations

import hashlib
import json
import shutil
from copy import deepcopy
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from safetensors.numpy import load_file
from support.graphs import EXPORT, filled

from defectrt.engines.loading import load_engine
from defectrt.engines.manifest import DatasetEntry, read_manifest, verify
from defectrt.engines.onnx_engine import OnnxEngine
from defectrt.errors import EngineError, InputError, OutputError, UsageError
from defectrt.export import build as module
from defectrt.export import proof
from defectrt.export.backends import open_backend
from defectrt.export.build import build
from defectrt.export.config import BuildConfig
from defectrt.export.graphs import Onnx, export_graph
from defectrt.export.rowstep import RowStep, map_size
from defectrt.export.source import open_run, random_rows
from defectrt.training.models.stable_diffusion import SIZES, ModelSize, new_model
from defectrt.training.record import listed

#: Engines are built again and again.
pytestmark = pytest.mark.slow


def test_the_engine_is_whole_and_says_where_it_comes_from(engine, run):
    manifest = verify(engine)
    assert set(manifest.files) == {
        "encoder.onnx",
        "decoder.onnx",
        "denoiser.onnx",
        "prompts.safetensors",
    }
    assert manifest.defect_types == ["line", "spot"]
    assert manifest.schedule.default_steps == 4
    assert manifest.schedule.prediction_type == "v_prediction"
    assert manifest.provenance.base_model == "tiny"
    assert [d.name for d in manifest.provenance.dataset] == ["spot/0.bin", "line/1.bin"]
    errors = manifest.provenance.run["self_check"]
    assert set(errors) == {"encoder", "decoder", "step", "attention"}
    assert all(0 < error < 1e-4 < Onnx().tolerance for error in errors.values())
    assert not list(engine.parent.glob(".*"))


@pytest.mark.slow
@pytest.mark.usefixtures("filled_graphs")
def test_half_weights_and_types_that_were_chosen(run, engine, tmp_path):
    """Half the size and still the model; without the types that were left out."""
    backend = Onnx(half_weights=True)
    half = build(run, tmp_path / "half", backend, steps=(2,), defects=("spot",), quiet=True)
    manifest = verify(half)
    assert manifest.defect_types == ["spot"]
    assert manifest.prompt_indices() == (2, 0, 1)
    assert load_file(half / "prompts.safetensors").popitem()[1].shape[0] == 3
    sizes = [sum(entry.size for entry in verify(e).files.values()) for e in (half, engine)]
    assert sizes[0] < 0.65 * sizes[1]
    errors = read_manifest(half).provenance.run["self_check"]
    assert all(error < 1e-4 for error in errors.values())


@pytest.mark.slow
def test_float16_products_stay_in_their_budget_and_are_float16(float16_engine, engine):
    """Each product of the U-Net is float16, each norm float32, and the boundary as before."""
    manifest, wide = verify(float16_engine), verify(engine)
    assert (manifest.precision, wide.precision) == ("float16", "float32")
    assert manifest.files["encoder.onnx"] == wide.files["encoder.onnx"]
    assert manifest.files["decoder.onnx"] == wide.files["decoder.onnx"]
    assert manifest.files["denoiser.onnx"].size < 0.7 * wide.files["denoiser.onnx"].size
    errors = manifest.provenance.run["self_check"]
    assert 1e-5 < errors["step"] < 5e-3 < Onnx("float16").tolerance

    graph = ir.load(float16_engine / "denoiser.onnx").graph
    types = {}
    for node in graph.all_nodes():
        kinds = {x.dtype for x in node.inputs if x is not None and x.dtype is not None}
        types.setdefault(node.op_type, set()).update(kinds)
    for product in ("Conv", "MatMul", "Gemm", "Attention", "MaskedCrossAttention"):
        floats = types.get(product, {ir.DataType.FLOAT16}) - {ir.DataType.BOOL}
        assert floats == {ir.DataType.FLOAT16}, product
    for norm in ("InstanceNormalization", "LayerNormalization"):
        assert types[norm] == {ir.DataType.FLOAT}, norm


@pytest.mark.slow
def test_a_weight_that_float16_cannot_hold_is_refused(run, float16_engine, tmp_path, monkeypatch):
    monkeypatch.setattr(EXPORT, filled(float16_engine.parent / "graphs"))

    class Spoilt(Onnx):
        def prepare(self, model):
            model.unet.conv_in.weight.data[0, 0, 0, 0] = 1e5
            super().prepare(model)

    with pytest.raises(EngineError, match="differ from the model by more than rounding"):
        build(run, tmp_path / "e", Spoilt("float16"), steps=(2,), quiet=True)
    assert not (tmp_path / "e").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("filled_graphs")
def test_graphs_are_filled_with_other_weights_and_of_another_form_refused(run, tmp_path):
    """What other tests build without an export is the model's, or no engine."""
    model = new_model(SIZES["tiny"], prediction_type="v_prediction", seed=7)
    shutil.copy(run / "run.json", tmp_path)
    model.save(tmp_path / "model")
    build(tmp_path, tmp_path / "e", steps=(2,), quiet=True)
    model.scheduler["prediction_type"] = "epsilon"
    model.save(tmp_path / "model")
    with pytest.raises(EngineError, match=r"differ from the model .*step"):
        build(tmp_path, tmp_path / "other", steps=(2,), quiet=True)


def test_a_part_is_traced_once(source, monkeypatch):
    """Also what upsamples, for which the exporter would look for the rows it can take."""
    real, traced = torch.export.export, []
    monkeypatch.setattr(torch.export, "export", lambda *a, **k: traced.append(a) or real(*a, **k))
    _, decoder, _ = source.parts(map_size(source.model))
    export_graph(decoder.module, decoder.example(2), decoder.outputs)
    assert len(traced) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bfloat16"}, "onnx is float32 or float16"),
        ({"precision": "float16", "half_weights": True}, "stores them so already"),
    ],
)
def test_precisions_that_cannot_be_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        BuildConfig(**options)


def test_the_backend_has_the_precision_that_was_asked_for():
    assert open_backend(BuildConfig()) == Onnx("float32")
    assert open_backend(BuildConfig(precision="float16")) == Onnx("float16")


@pytest.fixture(scope="module")
def source(run):
    return open_run(run)


def compare(source, engine):
    with load_engine(engine) as opened:
        return proof.compare(source, opened, map_size(source.model), 1e-3, 1e-3)


@pytest.fixture
def exported(engine, monkeypatch):
    """Give `build` the graphs of the session's engine instead of a quarter minute's export."""

    def copy(self, part, directory, say):
        for path in engine.glob(f"{part.name}.*"):
            shutil.copy(path, directory)
        shutil.copy(engine / "prompts.safetensors", directory)

    monkeypatch.setattr(Onnx, "export", copy)


def test_the_comparison_passes_on_what_was_exported(source, engine):
    found, told = compare(source, engine), read_manifest(engine).provenance.run["self_check"]
    assert found.keys() == told.keys()
    assert max(found.values()) < 1e-5  # rounding, as when it was built
    assert max(told.values()) < 1e-5


@pytest.mark.parametrize("prompt", range(4))
def test_one_wrong_prompt_of_many_is_found(source, engine, prompt):
    embeddings = source.embeddings.clone()
    embeddings[prompt] *= 1.2
    with pytest.raises(EngineError, match=r"differ from the model .*attention"):
        compare(replace(source, embeddings=embeddings), engine)


@pytest.mark.parametrize("prompts", [3, 12, 13, 40])
def test_every_prompt_is_compared_inside_and_outside(source, prompts):
    many = replace(source, embeddings=torch.zeros(prompts, 1, 1))
    inside, outside, first = set(), set(), 0
    for count in proof._batches(prompts, 64):
        rows = random_rows(many, count, torch.Generator(), first)
        inside |= set(rows["inside"].tolist())
        outside |= set(rows["outside"].tolist())
        first += count
    assert inside == outside == set(range(prompts))
    assert len(set(proof._batches(prompts, 64))) == 3


def test_the_autoencoder_has_a_limit_of_its_own(source, engine):
    with (
        load_engine(engine) as opened,
        pytest.raises(EngineError, match=r"encoder \S+ \(at most 1e-12\), decoder \S+ \(at"),
    ):
        proof.compare(source, opened, map_size(source.model), 1e-3, 1e-12)


@pytest.mark.parametrize("part", ["encode", "decode", "step"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.01])
def test_one_wrong_number_does_not_pass_the_comparison(source, engine, monkeypatch, part, wrong):
    real = getattr(OnnxEngine, part)

    def broken(self, data):
        result = real(self, data)
        array = result[0] if part == "step" else result
        array[-1, 0, 0, 0] += wrong * np.abs(array).max()
        return result

    monkeypatch.setattr(OnnxEngine, part, broken)
    with pytest.raises(EngineError, match="differ from the model by more than rounding"):
        compare(source, engine)


def wrong(source, part):
    """The run with one thing other than in the graphs that were exported."""
    model = replace(source.model, unet=deepcopy(source.model.unet))
    with torch.no_grad():
        model.unet.conv_out.weight *= 1.01
    epsilon = source.model.scheduler | {"prediction_type": "epsilon"}
    return {
        "table": replace(source, embeddings=source.embeddings.roll(1, 0)),
        "weight": replace(source, model=model),
        "prediction": replace(source, model=replace(source.model, scheduler=epsilon)),
        "attention": replace(source, content=source.content * 0.9),
    }[part]


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize("part", ["table", "weight", "prediction", "attention"])
def test_the_self_check_finds_what_is_wrong_and_leaves_nothing(source, tmp_path, monkeypatch, part):
    monkeypatch.setattr(module, "open_run", lambda *a: wrong(source, part))
    expected = "attention" if part == "attention" else "step"
    with pytest.raises(EngineError, match=rf"differ from the model.*{expected} .*nothing was wri"):
        build(tmp_path, tmp_path / "e", steps=(2,), quiet=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("exported")
def test_overwriting_keeps_the_old_engine_until_the_new_one_is_there(
    run, engine, tmp_path, monkeypatch
):
    out = tmp_path / "e"
    shutil.copytree(engine, out)
    before = (out / "engine.json").read_bytes()
    with pytest.raises(OutputError, match="already there; add --overwrite"):
        build(run, out, quiet=True)
    with monkeypatch.context() as full:
        full.setattr(module, "dump", lambda *a: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OutputError, match="cannot be written"):
            build(run, out, steps=(2,), overwrite=True, quiet=True)
    assert (out / "engine.json").read_bytes() == before
    build(run, out, steps=(3,), overwrite=True, quiet=True)
    assert list(read_manifest(out).schedule.tables) == ["3"]
    assert [p.name for p in tmp_path.iterdir()] == ["e"]


def test_a_folder_that_is_not_an_engine_is_never_replaced(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="not an engine, so it is not replaced"):
        build(run, tmp_path / "mine", overwrite=True, quiet=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_what_is_not_a_finished_run(run, tmp_path):
    with pytest.raises(InputError, match="holds no model: not a run"):
        build(tmp_path, tmp_path / "e", quiet=True)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="not finished, go on with --resume"):
        build(tmp_path, tmp_path / "e", quiet=True)
    shutil.copytree(run / "model", tmp_path / "model")
    with pytest.raises(InputError, match="not the record of a run"):
        build(tmp_path, tmp_path / "e", quiet=True)
    record = json.loads((run / "run.json").read_text())
    record["prompts"] = record["prompts"][:2]
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="trained without a defect"):
        build(tmp_path, tmp_path / "e", quiet=True)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["prompts", 3, "name"], "line", "two prompts have the same name"),
        (["prompts", 3, "name"], "../up", r"prompts.3.name"),
        (["prompts", 0, "role"], "defect", "needs one background"),
        (["prompts", 0, "text"], 7, r"prompts.0.text"),
        (["prompts", 0, "more"], 7, r"prompts.0.more"),
        (["prompts"], "all", "not the record of a run"),
        (["image_size"], "32", "image_size"),
        (["image_size"], 0, "image_size"),
        (["image_size"], 33, "no multiple of 2"),
        (["dataset"], "all", "dataset"),
        (["dataset", 0, "sha256"], "?", r"dataset.0.sha256"),
        (["base_model"], None, "base_model"),
    ],
)
def test_a_record_that_cannot_become_an_engine_is_refused_before_the_export(
    run, tmp_path, monkeypatch, path, value, message
):
    monkeypatch.setattr(Onnx, "export", lambda *a: pytest.fail("it was exported"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(run / "model")
    record = node = json.loads((run / "run.json").read_text())
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=message):
        build(tmp_path / "run", tmp_path / "e", quiet=True)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_defect_that_the_run_does_not_know(run, tmp_path):
    with pytest.raises(UsageError, match="no defect dent; it was trained on: line, spot"):
        build(run, tmp_path / "e", defects=("spot", "dent"), quiet=True)


def test_steps_that_the_schedule_does_not_have(run, tmp_path):
    with pytest.raises(InputError, match="choose from 1 to 1000"):
        build(run, tmp_path / "e", steps=(0,), quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_the_size_of_the_attention_map():
    small = new_model(ModelSize(window=64, vae=(16, 16), unet=(32, 32, 32), text=32))
    assert map_size(small) == 16
    assert map_size(small, 8) == 8
    assert map_size(new_model(SIZES["tiny"])) == 16
    with pytest.raises(UsageError, match="this model attends at 32, 16, 8"):
        map_size(small, 10)


def test_the_model_stays_as_it_was():
    model = new_model(SIZES["tiny"])
    before = {k: v.clone() for k, v in model.unet.state_dict().items()}
    embeddings, content = model.encode_prompts(["a", "b", "c"])
    RowStep(model, embeddings, content, 16)
    after = model.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


@torch.no_grad()
def test_a_backend_may_change_its_graphs_and_the_model_stays_as_it_was(run):
    source = open_run(run)
    parts = (source.model.unet, source.model.vae)
    before = [{k: v.clone() for k, v in part.state_dict().items()} for part in parts]
    for part in source.parts(map_size(source.model)):
        for weight in part.module.parameters():
            weight.zero_()
    for part, weights in zip(parts, before, strict=True):
        assert all(torch.equal(v, weights[k]) for k, v in part.state_dict().items())


def test_very_many_training_images_are_named_by_defect_type():
    few = [DatasetEntry(name=f"hole/{i}.png", sha256=f"{i:064x}") for i in range(1000)]
    assert listed(few) == few
    many = [*few, DatasetEntry(name="good/a.png", sha256="f" * 64)]
    hole, good = listed(many)
    assert (hole.name, good.name) == ("hole (1000 images)", "good (1 images)")
    assert (hole.images, good.images, few[0].images) == (1000, 1, 1)
    assert good.sha256 == hashlib.sha256(b"f" * 64).hexdigest()
    assert listed(many[::-1])[1] == hole
    assert listed([*many[1:], many[1]])[0] != hole
