"""libdefectrt runs on whatever ONNX Runtime it is given, from the promised version on."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support import clibrary

pytestmark = pytest.mark.slow
ENGINE = clibrary.ROOT / "cpp" / "tests" / "engine"
OLDEST = "1.23.0"
#: What has OrtGetApiBase and is of another version.
OTHER = """
struct base {{ const void *(*api)(unsigned); const char *(*version)(void); }};
static const void *api(unsigned asked) {{ (void)asked; return 0; }}
static const char *version(void) {{ return "{version}"; }}
static const struct base own = {{api, version}};
const struct base *OrtGetApiBase(void) {{ return &own; }}
"""


@pytest.fixture(scope="module")
def library():
    try:
        return clibrary.Library(clibrary.build())
    except clibrary.UnavailableError as reason:
        pytest.skip(str(reason))


def oldest():
    """The library of the oldest version that is promised, out of its wheel."""
    kept = clibrary.ROOT / ".cache" / "onnxruntime" / OLDEST
    if not (found := list(kept.glob("libonnxruntime.so.*"))):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", kept]
        if subprocess.run([*pip, f"onnxruntime=={OLDEST}"], check=False).returncode:
            pytest.skip(f"ONNX Runtime {OLDEST} is not to be had")
        (wheel,) = kept.glob("*.whl")
        with zipfile.ZipFile(wheel) as file:
            (name,) = (n for n in file.namelist() if "/libonnxruntime.so." in n)
            (kept / Path(name).name).write_bytes(file.read(name))
        wheel.unlink()
        found = list(kept.glob("libonnxruntime.so.*"))
    return found[0]


def installed():
    """The one of this Python, which is as new as its constraints have it."""
    spec = importlib.util.find_spec("onnxruntime")
    (found,) = Path(spec.origin).parent.glob("capi/libonnxruntime.so.*")
    return found


def made(library, runtime):
    """An image by an engine on an ONNX Runtime that is named."""
    engine = library.open(ENGINE, threads=1, onnxruntime=runtime)
    session = library.session(engine)
    image, mask = np.full((40, 40, 1), 150, np.uint8), np.zeros((40, 40), np.uint8)
    mask[10:20, 10:20] = 1
    try:
        return library.synthesize(session, image, [mask], seed=1)[0]
    finally:
        library.c.defectrt_session_destroy(session)
        library.c.defectrt_engine_destroy(engine)


def test_the_oldest_and_the_newest_make_the_same(library):
    images = [made(library, runtime).astype(int) for runtime in (oldest(), installed())]
    assert (images[0] != 150).any()
    assert np.abs(images[0] - images[1]).max() <= 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (OTHER.format(version="1.22.1"), "ONNX Runtime 1.22.1 in .*other.so: .*needs 1.23"),
        (OTHER.format(version="2.30.0"), "ONNX Runtime 2.30.0 in "),
        (OTHER.format(version="1.99.0"), "ONNX Runtime 1.99.0 in "),
        ("int nothing;", "other.so is no ONNX Runtime: it has no OrtGetApiBase"),
        (None, "ONNX Runtime cannot be loaded: .*other.so"),
    ],
    ids=["too old", "another major version", "without the interface", "another library", "no file"],
)
def test_what_cannot_be_used_is_an_engine_error(library, tmp_path, source, message):
    other = tmp_path / "other.so"
    if source:
        (tmp_path / "other.c").write_text(source, encoding="utf-8")
        command = ["cc", "-shared", "-fPIC", "other.c", "-o", other]
        subprocess.run(command, cwd=tmp_path, check=True)
    with pytest.raises(clibrary.StatusError, match=message) as raised:
        library.open(ENGINE, onnxruntime=other)
    assert raised.value.status == clibrary.CODES["EngineError"]


def test_headers_that_are_not_those_they_were_are_not_taken(tmp_path):
    """A registry that gives another package than the pinned one."""
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho another > package.tgz\n", encoding="utf-8")
    npm.chmod(0o755)
    script = clibrary.ROOT / "cpp" / "cmake" / "fetch-onnxruntime.sh"
    done = subprocess.run(
        [script, tmp_path / "sdk"],
        env={"PATH": f"{npm.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "is not the package that it was" in done.stderr
    assert not (tmp_path / "sdk").exists()
