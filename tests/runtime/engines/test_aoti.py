"""Compiled engines: machine code is loaded only whole, trusted, and where it can run."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers.models.attention_processor import Attention
from support.archives import BAD_MEMBERS, CODE, GOOD, entry

from defectrt.cli import main
from defectrt.engines import aoti_engine as runtime
from defectrt.engines.aoti_engine import AotiEngine, batches, capabilities, checked_copy
from defectrt.engines.loading import load_engine
from defectrt.engines.manifest import Manifest, Target, dump, read_manifest, verify
from defectrt.errors import EngineError, UsageError
from defectrt.export import aoti as module
from defectrt.export.aoti import Aoti, export_program, for_gpu
from defectrt.export.build import build
from defectrt.export.rowstep import map_size
from defectrt.export.source import open_run

#: Importing diffusers and opening models takes seconds.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (7, [], [(0, 7, 7)]),
        (130, [], [(0, 63, 63), (63, 63, 63), (126, 4, 4)]),
        (1, [2, 5], [(0, 1, 2)]),
        (2, [2, 5], [(0, 2, 2)]),
        (3, [2, 5], [(0, 3, 5)]),
        (12, [2, 5], [(0, 5, 5), (5, 5, 5), (10, 2, 2)]),
        (3, [1], [(0, 1, 1), (1, 1, 1), (2, 1, 1)]),
    ],
)
def test_rows_are_divided_into_what_was_compiled(count, sizes, expected):
    assert list(batches(count, sizes)) == expected


# ---- the archive ------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path):
    """Write an archive of these members; returns what copying it does."""

    def write(members, **options):
        path = tmp_path / "e.pt2"
        with zipfile.ZipFile(path, "w", **options) as file:
            for name in members:
                file.writestr(name, b"x")
        return lambda: checked_copy(path, entry(path), folder)

    folder = tmp_path / "private"
    folder.mkdir()
    return write


def test_a_program_is_copied_whole(archive, tmp_path):
    copy = archive(GOOD)()
    assert copy == tmp_path / "private" / "e.pt2"
    assert copy.read_bytes() == (tmp_path / "e.pt2").read_bytes()


@pytest.mark.parametrize("bad", BAD_MEMBERS)
def test_what_no_program_holds_is_refused(archive, tmp_path, bad):
    with pytest.raises(EngineError, match=r"e.pt2: not a program of AOTInductor: it holds"):
        archive((*GOOD, bad))()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_are_repeated_or_compressed_and_libraries_too_many(archive):
    with pytest.raises(EngineError, match=r"a.so' twice"):
        archive((*GOOD, f"{CODE}/a.so"))()
    with pytest.raises(EngineError, match=r"a.so' compressed"):
        archive(GOOD, compression=zipfile.ZIP_DEFLATED)()
    for members in (GOOD[1:], (*GOOD, f"{CODE}/b.so")):
        with pytest.raises(EngineError, match="holds no library, or several"):
            archive(members)()


def test_what_is_no_archive(tmp_path):
    path, private = tmp_path / "e.pt2", tmp_path / "private"
    private.mkdir()
    for content in (b"", b"PK\x05\x06", b"\x7fELF" + bytes(100), struct.pack("<100I", *range(100))):
        path.write_bytes(content)
        with pytest.raises(EngineError, match="not a program of AOTInductor"):
            checked_copy(path, entry(path), private)


def test_what_changes_between_the_check_and_the_opening_is_not_loaded(archive, tmp_path):
    archive(GOOD)
    listed = entry(tmp_path / "e.pt2")
    with (tmp_path / "e.pt2").open("r+b") as file:
        file.seek(60)
        file.write(b"?")
    with pytest.raises(EngineError, match="changed while it was opened"):
        checked_copy(tmp_path / "e.pt2", listed, tmp_path / "private")


# ---- where it can run -------------------------------------------------------------------------


HERE = Target(
    device="cpu",
    capabilities=[],
    rows=[],
    runtime={"torch": torch.__version__.partition("+")[0]},
)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "does not say what it was compiled for"),
        (
            HERE.model_copy(update={"runtime": {"torch": "1.0.0"}}),
            r"compiled with PyTorch 1.0.0, .*pip install torch==1.0.0",
        ),
        (HERE.model_copy(update={"runtime": {}}), "compiled with PyTorch None"),
        (
            HERE.model_copy(update={"capabilities": ["sve256", "avx1024"]}),
            "a processor with sve256, avx1024, which this one does not have",
        ),
        (HERE, "lists no encoder.pt2, no denoiser.pt2, no decoder.pt2"),
    ],
)
def test_another_machine_or_version_is_refused(engine, tmp_path, target, message):
    manifest = read_manifest(engine).model_copy(update={"target": target})
    with pytest.raises(EngineError, match=message):
        AotiEngine(tmp_path, manifest)


@pytest.mark.parametrize(
    ("cards", "message"),
    [([], "PyTorch sees none here"), (["75"], "compute capability 80 or 90; here is 75")],
)
def test_a_graph_for_another_card_is_refused(engine, tmp_path, monkeypatch, cards, message):
    target = HERE.model_copy(update={"device": "cuda", "capabilities": ["80", "90"]})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cards))
    monkeypatch.setattr(runtime, "capabilities", lambda device: cards)
    with pytest.raises(EngineError, match=message):
        AotiEngine(tmp_path, read_manifest(engine).model_copy(update={"target": target}))


def test_what_this_processor_can_do():
    found = capabilities("cpu")
    assert set(Aoti().target().capabilities) <= set(found)
    assert all(Target.model_validate(HERE.model_dump() | {"capabilities": [c]}) for c in found)


# ---- building ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "error", "message"),
    [
        (Aoti(buckets=(0,)), UsageError, "--batch-size 0: give 1 to 63"),
        (Aoti(buckets=(1, 64)), UsageError, "--batch-size 64: give 1 to 63"),
        (Aoti.of("cuda", None, (1,)), UsageError, "--batch-size 1: give 2 to 63"),
        (Aoti(precision="float16"), UsageError, "on a CPU the precision is float32"),
        (Aoti.of("cuda", None, ()), EngineError, "PyTorch sees none here; build the engine on"),
    ],
)
def test_what_cannot_be_built_is_refused_before_the_run_is_opened(
    tmp_path, monkeypatch, backend, error, message
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(error, match=message):
        build(tmp_path / "no run", tmp_path / "e", backend, quiet=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_a_compiler_it_says_how_to_get_one(tmp_path):
    """In a process of its own, since a compiler that was found once is remembered."""
    code = (
        "from defectrt.export.aoti import Aoti\n"
        "from defectrt.errors import MissingExtraError\n"
        "try: Aoti().check()\n"
        "except MissingExtraError as error: print(error)\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "run: apt-get install g++" in made.stdout


def test_a_compiler_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    caches = []

    def fail(*args, **options):
        caches.append(Path(module.os.environ["TORCHINDUCTOR_CACHE_DIR"]))
        assert caches[0].is_dir()
        raise RuntimeError("C++ compile error\nx.cpp:3: error: no such file\nmore")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    with pytest.raises(EngineError, match=r"encoder: x.cpp:3: error: no such file; nothing was w"):
        build(run, tmp_path / "e", Aoti(), steps=(2,), quiet=True)
    assert list(tmp_path.iterdir()) == []
    assert not caches[0].exists()


def test_options_of_another_backend_are_refused(tmp_path, monkeypatch, capsys):
    for options, message in (
        (
            ["--batch-size", "2", "--device", "cpu"],
            "--backend onnx takes no --device, no --batch-size",
        ),
        (["--backend", "aoti", "--half-weights"], "--backend aoti takes no --half-weights"),
    ):
        call = ["build-engine", str(tmp_path), "--out", str(tmp_path / "e"), *options]
        monkeypatch.setattr(sys, "argv", ["defectrt", *call])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == UsageError.exit_code
        assert message in capsys.readouterr().err


# ---- the whole way ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_engine_says_what_it_is_and_where_it_runs(aoti_engine):
    manifest = verify(aoti_engine)
    assert set(manifest.files) == {"encoder.pt2", "decoder.pt2", "denoiser.pt2"}
    assert (manifest.backend, manifest.precision) == ("aoti", "float32")
    assert manifest.target == Aoti(buckets=(2, 5)).target()
    assert manifest.target.rows == [2, 5]
    errors = manifest.provenance.run["self_check"]
    assert set(errors) == {"encoder", "decoder", "step", "attention"}
    assert all(0 < error < 1e-4 for error in errors.values())
    assert not list(aoti_engine.parent.glob(".*"))


@pytest.mark.slow
def test_it_is_opened_by_its_fingerprint_only(aoti_engine, tmp_path):
    mine = verify(aoti_engine).fingerprint
    with pytest.raises(EngineError, match=f"is machine code.*--trust {mine}"):
        load_engine(aoti_engine)
    copy = tmp_path / "copy"
    shutil.copytree(aoti_engine, copy)
    manifest = read_manifest(copy)
    schedule = replace_default_steps(manifest, 2)
    dump(schedule, copy)
    with pytest.raises(EngineError, match="is machine code"):
        load_engine(copy, trust=mine)


def replace_default_steps(manifest: Manifest, steps: int) -> Manifest:
    schedule = manifest.schedule.model_copy(update={"default_steps": steps})
    return manifest.model_copy(update={"schedule": schedule})


@pytest.mark.slow
def test_the_private_copies_are_gone_once_loaded(aoti_engine, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    opened = load_engine(aoti_engine, trust=verify(aoti_engine).fingerprint, calls=2)
    assert opened.calls == 2
    assert list(tmp_path.glob("defectrt-*")) == []
    opened.close()


@pytest.mark.slow
def test_an_archive_that_was_trusted_and_is_no_program(aoti_engine, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    copy = tmp_path / "copy"
    shutil.copytree(aoti_engine, copy)
    with zipfile.ZipFile(copy / "decoder.pt2", "w") as file:
        file.writestr("decoder/data/aotinductor/model/a.so", b"no library")
    manifest = read_manifest(copy)
    files = manifest.files | {"decoder.pt2": entry(copy / "decoder.pt2")}
    dump(manifest.model_copy(update={"files": files}), copy)
    with pytest.raises(EngineError, match=r"decoder.pt2: AOTInductor cannot load the program"):
        load_engine(copy, trust=read_manifest(copy).fingerprint)
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]


@pytest.mark.slow
def test_the_callers_number_of_threads_stays(aoti_engine):
    before = torch.get_num_threads()
    with AotiEngine(aoti_engine, verify(aoti_engine), threads=before + 1) as opened:
        m = opened.manifest
        opened.decode(torch.zeros(1, m.latent.channels, m.latent.height, m.latent.width).numpy())
    assert torch.get_num_threads() == before


# ---- the way to a GPU, as far as it goes without one --------------------------------------------


@pytest.mark.slow
@torch.no_grad()
def test_a_narrow_autoencoder_keeps_its_range_and_its_boundary(run):
    """Values that float16 cannot hold pass between its layers, in bfloat16."""
    backend = Aoti("cuda", "float16")
    assert (backend.autoencoder_precision, backend.autoencoder_tolerance) == ("bfloat16", 5e-2)
    source = open_run(run)
    source.model.vae.decoder.conv_in.weight *= 1e6
    backend.prepare(source.model)
    latent = torch.randn(1, *source.latent_shape, generator=torch.Generator().manual_seed(0))
    expected = source.model.decode(latent)
    _, decoder, _ = source.parts(map_size(source.model))
    reached = []
    decoder.module.vae.decoder.conv_in.register_forward_hook(
        lambda layer, inputs, out: reached.append((out.dtype, out.abs().max().item()))
    )
    module = for_gpu(decoder.module, torch.bfloat16)
    got = export_program(module, {"latent": latent}, fixed=True).module()(latent=latent)
    module(latent=latent)
    assert reached[-1][0] == torch.bfloat16
    assert reached[-1][1] > torch.finfo(torch.float16).max
    assert got.dtype == torch.float32
    assert 0 < (got - expected).abs().max() / expected.abs().max() < 5e-2


class FakeCards:
    """CUDA of several cards: which one is current, and what ran on which."""

    def __init__(self, monkeypatch, capabilities, current):
        self.current, self.ran = current, []
        monkeypatch.setattr(runtime, "capabilities", lambda device: capabilities)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: self.current)
        monkeypatch.setattr(torch.cuda, "device", self.device)

    @contextmanager
    def device(self, card):
        before, self.current = self.current, card
        yield
        self.current = before


@pytest.mark.parametrize(
    ("cards", "current", "taken"),
    [(["90"], 0, 0), (["80", "90"], 0, 1), (["90", "90"], 1, 1), (["90", "80"], 1, 0)],
)
def test_programs_are_loaded_on_a_card_that_they_are_for(monkeypatch, cards, current, taken):
    FakeCards(monkeypatch, cards, current)
    target = HERE.model_copy(update={"device": "cuda", "capabilities": ["90"]})
    assert runtime._card(target) == taken


def test_a_captured_program_runs_on_its_card_from_any_thread(monkeypatch):
    cards = FakeCards(monkeypatch, ["90", "90"], 0)
    x = torch.zeros(2, 1)
    captured = runtime._Captured(None, 1)
    graph = SimpleNamespace(replay=lambda: cards.ran.append(cards.current))
    captured._graphs[2] = (graph, [x], [x])
    captured([torch.ones(2, 1)])
    assert (cards.ran, cards.current) == ([1], 0)


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [False, True])
@torch.no_grad()
def test_what_a_gpu_would_be_given_is_one_graph_for_any_batch(run, kernels):
    """In its form for a GPU, traced on a CPU; there the operators are their references.

    GEGLU is always the kernel; attention and update only where they are asked for.
    """
    source = open_run(run)
    (*_, part) = source.parts(map_size(source.model))
    plain = [part.module(**part.example(n)) for n in (2, 5)]
    module = for_gpu(part.module, torch.float32)
    module.kernels = kernels
    program = export_program(module, part.example(3), fewest=2)
    called = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    layers = [m for m in module.modules() if isinstance(m, Attention) and m.is_cross_attention]
    attentions = [name for name in called if name.startswith("defectrt.masked_attention")]
    assert len(layers) > 0
    assert len(attentions) == len(layers) * kernels
    assert called.count("defectrt.geglu.default") > 0
    assert called.count("defectrt.row_step.default") == kernels
    for n, expected in zip((2, 5), plain, strict=True):
        for got, wanted in zip(program.module()(**part.example(n)), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=2e-5)
