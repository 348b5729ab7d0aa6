"""libdefectrt and Python: the same engine, picture, mask and seed give the same pictures."""

from __future__ import annotations

import clibrary
import numpy as np
import pytest
from test_manifest import CASES, HOSTILE, hostile

from defectrt.engine import load_engine
from defectrt.maker import Good, Job, Maker
from defectrt.noise import sample_seed
from defectrt.refine import Refinement
from defectrt.scheduler import Scheduler, Task

pytestmark = pytest.mark.slow
METHODS = ["change", "attention", "both", "none"]


@pytest.fixture(scope="session")
def library():
    try:
        return clibrary.Library(clibrary.build())
    except clibrary.UnavailableError as reason:
        pytest.skip(str(reason))


class Recorder:
    """An engine that keeps the latents it decodes."""

    def __init__(self, engine):
        self.engine, self.latents = engine, []
        self.manifest, self.encode, self.step = engine.manifest, engine.encode, engine.step
        self.calls = engine.calls

    def decode(self, latent):
        self.latents.append(latent.copy())
        return self.engine.decode(latent)


def in_python(directory, picture, mask, seed, job):
    """The sample, and all latents that were decoded."""
    with load_engine(directory) as engine:
        recorder = Recorder(engine)
        maker = Maker(recorder, job)
        work = maker.sample(Good("x", picture), 0, [mask], seed)
        (task,) = Scheduler(recorder, batch=job.batch).run([Task(work)])
        return task.result(), recorder.latents


def picture_of(kind, size, rng):
    height, width = size
    channels, dtype = kind
    top = np.iinfo(dtype).max
    grain = rng.normal(0.6, 0.05, (height, width, channels)).clip(0, 1)
    return (grain * top).astype(dtype)


CASES_OF_PICTURES = {
    "rgb": ((3, np.uint8), (60, 80), (20, 30, 28, 42), {}),
    "grey": ((1, np.uint8), (48, 40), (20, 10, 28, 20), {}),
    "deep grey": ((1, np.uint16), (50, 50), (0, 0, 9, 9), {}),
    "deep rgb alpha": ((4, np.uint16), (40, 64), (30, 50, 40, 64), {}),
    "smaller than the window": ((3, np.uint8), (20, 25), (4, 6, 12, 15), {}),
    "scaled": ((3, np.uint8), (90, 90), (20, 20, 55, 50), {}),
    "dual": ((3, np.uint8), (60, 80), (20, 30, 28, 42), {"background": "dual"}),
    "decoded": ((3, np.uint8), (60, 80), (20, 30, 28, 42), {"blend": "decoded"}),
    "candidates": ((3, np.uint8), (60, 80), (20, 30, 28, 42), {"candidates": 6}),
    "in strokes": ((3, np.uint8), (70, 150), (30, 10, 36, 140), {}),
    **{
        f"refined by {m}": ((2, np.uint8), (60, 80), (20, 30, 30, 42), {"method": m})
        for m in METHODS
    },
}


@pytest.mark.parametrize("name", CASES_OF_PICTURES)
def test_pictures(library, engine, name):
    kind, size, (top, left, bottom, right), options = CASES_OF_PICTURES[name]
    picture = picture_of(kind, size, np.random.default_rng(7))
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    method, candidates = options.get("method", "change"), options.get("candidates", 1)
    background, blend = options.get("background", "replay"), options.get("blend", "residual")
    # the model is hardly trained: whatever it paints is a defect, wherever it leaks
    refinement = Refinement(method=method, min_change=1e-3, min_area=1)
    loose = {"min_coverage": 0.0, "max_leak": 1e6}
    job = Job(
        defect="spot",
        candidates=candidates,
        background=background,
        blend=blend,
        refinement=refinement,
        **loose,
    )
    seed = sample_seed(3, "x", 0)
    expected, latents = in_python(engine, picture, mask, seed, job)
    assert expected.fault is None

    handle = library.open(engine)
    session = library.session(
        handle,
        defect=b"spot",
        background=["replay", "dual"].index(background),
        blend=["residual", "decoded"].index(blend),
        refine=METHODS.index(method),
        min_change=1e-3,
        min_area=1,
        **loose,
    )
    size = latents[0][0].size
    try:
        made = library.synthesize(session, picture, mask, seed, candidates, latent=size)
    finally:
        library.c.defectrt_session_destroy(session)
        library.c.defectrt_engine_destroy(handle)
    out, label, band, latent, result = made

    assert result.strokes == len(expected.figures["strokes"])
    last = expected.figures["strokes"][-1]
    assert result.candidate == last["candidate"]
    nearest = min(np.abs(latent - z.reshape(-1)).max() for batch in latents for z in batch)
    assert nearest <= 1e-5
    assert np.array_equal(band > 0, expected.band)
    assert np.abs(out.astype(int) - expected.picture.astype(int)).max() <= 1
    assert np.array_equal(out[band == 0], picture[band == 0])
    assert (label > 0).any()
    # a pixel whose change is the threshold to the last bit may fall on either side
    assert ((label > 0) != expected.label).sum() <= 1
    for figure in ("visibility", "coverage", "seam", "latent_outside_error"):
        assert getattr(result, figure) == pytest.approx(expected.figures[figure], abs=1e-3)
    assert result.mask_area == expected.figures["mask_area"]


def test_without_a_defect_both_say_so(library, engine):
    picture = picture_of((3, np.uint8), (40, 40), np.random.default_rng(0))
    mask = np.zeros((40, 40), bool)
    mask[10:20, 10:20] = True
    job = Job(defect="spot", refinement=Refinement(min_area=10_000))
    expected, _ = in_python(engine, picture, mask, 1, job)
    assert expected.fault == "no defect appeared"
    handle = library.open(engine)
    session = library.session(handle, defect=b"spot", min_area=10_000)
    with pytest.raises(clibrary.StatusError, match="no defect appeared") as fault:
        library.synthesize(session, picture, mask, 1)
    assert fault.value.status == 8
    library.c.defectrt_session_destroy(session)
    library.c.defectrt_engine_destroy(handle)


@pytest.mark.parametrize("name", ["", "a/7.png", "ä/ö.png", "x" * 300])
def test_seeds(library, name):
    for seed, sample in ((0, 0), (2**64 - 1, 5), (12345678901, 2**32 - 1)):
        assert library.sample_seed(seed, name, sample) == sample_seed(seed, name, sample)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_hostile_engines(library, tmp_path, case):
    hostile(case, tmp_path / "engine")
    with pytest.raises(clibrary.StatusError) as fault:
        library.open(tmp_path / "engine")
    assert fault.value.status == clibrary.CODES[case["kind"]]
    assert case["message"] in str(fault.value)


def test_the_engine_that_hostile_ones_are_made_of_passes_until_its_graphs_are_opened(library):
    with pytest.raises(clibrary.StatusError, match="ONNX Runtime cannot open the graph"):
        library.open(HOSTILE / "engine")


def test_names_mean_the_same_to_both():
    """What Python's reader takes for a word character is what the C++ table says."""
    import runpy

    script = clibrary.ROOT / "cpp" / "src" / "make_word_ranges.py"
    table = (clibrary.ROOT / "cpp" / "src" / "word_ranges.inc").read_text(encoding="utf-8")
    assert runpy.run_path(str(script))["text"]() == table
