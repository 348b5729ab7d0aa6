"""libdefectrt with libtorch: compiled engines give the same images, and are trusted alike.

DEFECTRT_TORCH_LIBRARY names the library, built with -DDEFECTRT_WITH_TORCH=ON (cpp/ci.sh does).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support import clibrary
from support.archives import BAD_MEMBERS, CODE, GOOD, entry

from defectrt.config.synthesis import SynthesisConfig
from defectrt.engines.loading import load_engine
from defectrt.engines.manifest import dump, read_manifest, verify
from defectrt.errors import EngineError, UsageError

LIBRARY = os.environ.get("DEFECTRT_TORCH_LIBRARY")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not LIBRARY, reason="set DEFECTRT_TORCH_LIBRARY to a libdefectrt with torch"
    ),
]
LOOSE = {"min_grain": 0.0, "min_coverage": 0.0, "max_leak": 1e6}

#: In a process of its own, in which nobody else has loaded libtorch.
PROGRAM = """
import sys, numpy as np
from support import clibrary
library, engine, trust, given, out = sys.argv[1:]
library, data = clibrary.Library(library), np.load(given)
handle = library.open(engine, 1, trust)
loose = {"min_change": 1e-3, "min_grain": 0.0, "refine_min_area": 1}
loose |= {"min_coverage": 0.0, "max_leak": 1e6}
session = library.session(handle, defect=b"spot", background=1 + int(data["dual"]), **loose)
size, candidates = int(data["latent"]), int(data["candidates"])
made = library.synthesize(session, data["image"], [data["mask"]], 5, candidates, size)
library.c.defectrt_session_destroy(session)
library.c.defectrt_engine_destroy(handle)
assert "torch" not in sys.modules
np.savez(out, image=made[0], band=made[2], latent=made[3])
"""


@pytest.fixture(scope="module")
def library():
    return clibrary.Library(LIBRARY)


@pytest.mark.parametrize(("dual", "candidates"), [(False, 1), (True, 1), (False, 7)])
def test_images(aoti_engine, tmp_path, dual, candidates):
    rng = np.random.default_rng(3)
    image = rng.normal(150, 12, (60, 80, 3)).clip(0, 255).astype(np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[20:30, 30:44] = True
    trust = verify(aoti_engine).fingerprint
    way = "dual" if dual else "replay"
    config = SynthesisConfig(
        defect="spot",
        candidates=candidates,
        background=way,
        min_change=1e-3,
        refine_min_area=1,
        **LOOSE,
    )
    expected, decoded = clibrary.in_python(
        aoti_engine, image, [mask], 5, config, threads=1, trust=trust
    )
    given, out = tmp_path / "given.npz", tmp_path / "out.npz"
    size = decoded[0][0].size
    np.savez(given, image=image, mask=mask, dual=dual, latent=size, candidates=candidates)
    command = [sys.executable, "-c", PROGRAM, LIBRARY, aoti_engine, trust, given, out]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
    made = np.load(out)
    latents = [z.reshape(-1) for batch in decoded for z in batch]
    assert min(np.abs(made["latent"] - z).max() for z in latents) <= 1e-5
    assert np.abs(made["image"].astype(int) - expected.image.astype(int)).max() <= 1
    assert np.array_equal(made["band"] > 0, expected.band)
    assert np.array_equal(made["image"][made["band"] == 0], image[made["band"] == 0])
    assert (made["image"] != image).any()


def refused(library, directory, trust, error):
    """What C says, after Python has said the same kind of thing."""
    with pytest.raises(error):
        load_engine(directory, trust=trust)
    with pytest.raises(clibrary.StatusError) as said:
        library.open(directory, 1, trust)
    assert said.value.status == clibrary.CODES[error.__name__]
    return str(said.value)


def test_it_is_opened_by_its_fingerprint_only(library, aoti_engine):
    mine = verify(aoti_engine).fingerprint
    for trust in (None, "", "0" * 64):
        text = refused(library, aoti_engine, trust, EngineError)
        assert "is machine code" in text
        assert text.endswith(mine)
    for trust in ("yes", mine[:-1], f"{mine} no"):
        assert "no fingerprint" in refused(library, aoti_engine, trust, UsageError)
    for trust in (f"{'0' * 64}, {mine}", mine.upper(), f"\t{mine}\n"):
        library.c.defectrt_engine_destroy(library.open(aoti_engine, 1, trust))


def changed(engine, directory, members=None, **update):
    """A copy with another denoiser or other words in the manifest, and its fingerprint."""
    shutil.copytree(engine, directory)
    manifest = read_manifest(directory)
    if members is not None:
        with zipfile.ZipFile(directory / "denoiser.pt2", "w") as file:
            for name in members:
                file.writestr(name, b"no library")
        files = manifest.files | {"denoiser.pt2": entry(directory / "denoiser.pt2")}
        update["files"] = files
    dump(manifest.model_copy(update=update), directory)
    return verify(directory).fingerprint


@pytest.mark.parametrize("bad", BAD_MEMBERS)
def test_an_archive_that_holds_something_else(library, aoti_engine, tmp_path, bad):
    trust = changed(aoti_engine, tmp_path / "e", (*GOOD, bad))
    text = refused(library, tmp_path / "e", trust, EngineError)
    assert "denoiser.pt2: not a program of AOTInductor: it holds" in text


def test_an_archive_without_a_library_and_one_that_is_none(library, aoti_engine, tmp_path):
    trust = changed(aoti_engine, tmp_path / "a", GOOD[1:])
    assert "holds no library" in refused(library, tmp_path / "a", trust, EngineError)
    trust = changed(aoti_engine, tmp_path / "b", [f"{CODE}/a.so"])
    text = refused(library, tmp_path / "b", trust, EngineError)
    assert "denoiser.pt2: AOTInductor cannot load the program" in text


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"runtime": {"torch": "1.0.0"}}, "compiled with PyTorch 1.0.0"),
        ({"runtime": {}}, "compiled with PyTorch unknown"),
        ({"capabilities": ["avx2", "avx1024"]}, "a processor with avx1024"),
        ({"device": "cuda"}, "sees none here"),
        (None, "does not say what it was compiled for"),
    ],
)
def test_another_machine_or_version_is_refused(library, aoti_engine, tmp_path, update, message):
    target = read_manifest(aoti_engine).target
    target = target.model_copy(update=update) if update is not None else None
    trust = changed(aoti_engine, tmp_path / "e", target=target)
    assert message in refused(library, tmp_path / "e", trust, EngineError)
