"""libdefectrt and Python: the same engine, image, mask and seed give the same images."""

from __future__ import annotations

import ctypes
import shutil
from typing import get_args

import numpy as np
import pytest
from support import clibrary
from support.hostile import CASES, HOSTILE, hostile

from defectrt.config.synthesis import Background, SynthesisConfig
from defectrt.diffusion.schedule import NoiseSchedule
from defectrt.diffusion.seeds import sample_seed
from defectrt.engines.loading import load_engine
from defectrt.engines.manifest import Tables, dump, read_manifest
from defectrt.masks.pieces import pieces
from defectrt.masks.placement import paste

pytestmark = pytest.mark.slow
METHODS = ["change", "attention", "both", "none"]


@pytest.fixture(scope="session")
def library():
    try:
        return clibrary.Library(clibrary.build())
    except clibrary.UnavailableError as reason:
        pytest.skip(str(reason))


def instances_of(size, boxes):
    """Masks that are set in a box (top, left, bottom, right) each."""
    instances = np.zeros((len(boxes), *size), bool)
    for instance, (top, left, bottom, right) in zip(instances, boxes, strict=True):
        instance[top:bottom, left:right] = True
    return instances


def image_of(kind, size, rng):
    height, width = size
    channels, dtype, *same = kind
    top = np.iinfo(dtype).max
    grain = rng.normal(0.6, 0.05, (height, width, channels)).clip(0, 1)
    if same:
        grain = grain[..., :1].repeat(channels, axis=2)
    return (grain * top).astype(dtype)


CASES_OF_IMAGES = {
    "rgb": ((3, np.uint8), (60, 80), (20, 30, 28, 42), {}),
    "grey": ((1, np.uint8), (48, 40), (20, 10, 28, 20), {}),
    "grey in three channels": ((3, np.uint8, "same"), (60, 80), (20, 30, 28, 42), {}),
    "deep grey in three channels": ((3, np.uint16, "same"), (60, 80), (20, 30, 28, 42), {}),
    "deep grey": ((1, np.uint16), (50, 50), (0, 0, 9, 9), {}),
    "deep rgb alpha": ((4, np.uint16), (40, 64), (30, 50, 40, 64), {}),
    "smaller than the window": ((3, np.uint8), (20, 25), (4, 6, 12, 15), {}),
    "scaled": ((3, np.uint8), (90, 90), (20, 20, 55, 50), {}),
    "dual": ((3, np.uint8), (60, 80), (20, 30, 28, 42), {"background": "dual"}),
    "replay": ((3, np.uint8), (60, 80), (20, 30, 28, 42), {"background": "replay"}),
    "of second order, best of 5": (
        (3, np.uint8),
        (60, 80),
        (20, 30, 28, 42),
        {"solver": "dpmsolver++", "candidates": 5},
    ),
    "dual, of second order": (
        (3, np.uint8),
        (60, 80),
        (20, 30, 28, 42),
        {"background": "dual", "solver": "dpmsolver++"},
    ),
    "decoded": ((3, np.uint8), (60, 80), (20, 30, 28, 42), {"blend": "decoded"}),
    "candidates": ((3, np.uint8), (60, 80), (20, 30, 28, 42), {"candidates": 6}),
    "enlarged": ((3, np.uint8), (60, 80), (20, 30, 24, 34), {"magnify": 2}),
    "enlarged in tiles": ((1, np.uint8), (60, 80), (20, 10, 24, 70), {"magnify": 2}),
    "whole": ((3, np.uint8), (90, 121), (20, 30, 44, 60), {"magnify": "fit"}),
    "whole and small": ((4, np.uint16), (21, 15), (4, 6, 12, 15), {"magnify": "fit"}),
    "whole in two places": (
        (1, np.uint8),
        (140, 100),
        [(5, 8, 30, 38), (90, 10, 132, 94)],
        {"magnify": "fit", "blend": "decoded", "strength": 0.3},
    ),
    "in tiles": ((3, np.uint8), (70, 150), (30, 10, 36, 140), {}),
    "two instances": ((3, np.uint8), (60, 90), [(5, 8, 15, 18), (40, 70, 52, 84)], {}),
    "instances beside each other": (
        (3, np.uint8),
        (60, 80),
        [(30, 20, 40, 30), (30, 32, 40, 42), (20, 26, 28, 36)],
        {"candidates": 2},
    ),
    "instances over each other": (
        (1, np.uint16),
        (60, 80),
        [(20, 30, 34, 44), (24, 34, 40, 50)],
        {"background": "dual"},
    ),
    "an instance in tiles and others": (
        (4, np.uint8),
        (70, 150),
        [(30, 10, 36, 140), (5, 60, 12, 70), (28, 70, 50, 80)],
        {"blend": "decoded"},
    ),
    "instances at the corners": (
        (2, np.uint8),
        (40, 120),
        [(0, 0, 6, 6), (34, 112, 40, 120), (0, 112, 7, 120)],
        {"method": "both"},
    ),
    **{
        f"of strength {strength}": (kind, (50, 90), [(30, 10, 36, 70), (5, 60, 12, 70)], how)
        for strength, kind in (
            (0.02, (1, np.uint8)),
            (0.3, (3, np.uint8)),
            (0.7, (4, np.uint16)),
            (9.0, (2, np.uint16)),
        )
        for how in ({"strength": strength, "candidates": 2},)
    },
    "of strength 0.4 that fills its window": (
        (3, np.uint8),
        (32, 32),
        [(0, 0, 32, 32)],
        {"strength": 0.4},
    ),
    **{
        f"refined by {m}": ((2, np.uint8), (60, 80), (20, 30, 30, 42), {"method": m})
        for m in METHODS
    },
}


def changed(engine, to, **update):
    """A copy of an engine whose manifest says something else."""
    shutil.copytree(engine, to)
    dump(read_manifest(to).model_copy(update=update), to)
    return to


def solving_by(engine, solver, to):
    """A copy of an engine whose steps are this solver's; whether they suit it is no matter."""
    entry = read_manifest(engine).schedule
    noise = NoiseSchedule.from_config({"steps_offset": 1})
    ways = {n: vars(noise.tables(int(n), solver=solver)) for n in entry.tables}
    tables = {
        n: Tables(**{way: list(map(tuple, rows)) for way, rows in both.items()})
        for n, both in ways.items()
    }
    return changed(engine, to, schedule=entry.model_copy(update={"tables": tables}))


@pytest.mark.parametrize("name", CASES_OF_IMAGES)
def test_images(library, engine, name, tmp_path):
    kind, size, boxes, options = CASES_OF_IMAGES[name]
    if magnify := options.get("magnify"):
        engine = changed(engine, tmp_path / "engine", magnify=magnify)
    if solver := options.get("solver"):
        engine = solving_by(engine, solver, tmp_path / "engine")
    image = image_of(kind, size, np.random.default_rng(7))
    instances = instances_of(size, boxes if isinstance(boxes, list) else [boxes])
    method, candidates = options.get("method", "change"), options.get("candidates", 1)
    background, blend = options.get("background", "noised"), options.get("blend", "residual")
    # the model is hardly trained: whatever it paints is a defect, wherever it leaks
    loose = {"min_grain": 0.25, "min_coverage": 0.0, "max_leak": 1e6}
    config = SynthesisConfig(
        defect="spot",
        candidates=candidates,
        background=background,
        blend=blend,
        refine=method,
        min_change=1e-3,
        refine_min_area=1,
        **loose,
    )
    seed = sample_seed(3, "x", 0)
    strength = options.get("strength")
    expected, latents = clibrary.in_python(
        engine, image, instances, seed, config, strength=strength
    )
    assert expected.fault is None

    handle = library.open(engine)
    session = library.session(
        handle,
        defect=b"spot",
        background=get_args(Background).index(background),
        blend=["residual", "decoded"].index(blend),
        refine=METHODS.index(method),
        min_change=1e-3,
        refine_min_area=1,
        **loose,
    )
    size = latents[0][0].size
    try:
        made = library.synthesize(
            session, image, instances, seed, candidates, latent=size, strength=strength or 0
        )
    finally:
        library.c.defectrt_session_destroy(session)
        library.c.defectrt_engine_destroy(handle)
    out, label, band, latent, result = made

    assert result.tiles == len(expected.figures["tiles"])
    last = expected.figures["tiles"][-1]
    assert result.candidate == last["candidate"]
    nearest = min(np.abs(latent - z.reshape(-1)).max() for batch in latents for z in batch)
    assert nearest <= 1e-5
    assert np.array_equal(band > 0, expected.band)
    assert np.abs(out.astype(int) - expected.image.astype(int)).max() <= 1
    assert np.array_equal(out[band == 0], image[band == 0])
    assert (label > 0).any()
    # a pixel whose change is the threshold to the last bit may fall on either side
    assert ((label > 0) != expected.label).sum() <= 1
    for figure in ("visibility", "strength", "coverage", "seam", "latent_outside_error"):
        assert getattr(result, figure) == pytest.approx(expected.figures[figure], abs=1e-3)
    assert result.mask_area == expected.figures["mask_area"]


@pytest.mark.parametrize("seed", range(4))
def test_pieces(library, engine, seed):
    """A mask that is split gives the instances, and the order, of a folder of masks in Python."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(60, 160, 2)
    mask = np.zeros((height, width), bool)
    for _ in range(5):
        y, x = rng.integers(0, height - 3), rng.integers(0, width - 3)
        mask[y : y + rng.integers(2, 20), x : x + rng.integers(2, 20)] = True
    with load_engine(engine) as opened:
        window = opened.manifest.image.height
    gap = max(window // 4, 2 * 6 + 1)  # twice the soft border by default, and one
    instances = [paste(part.shape, part.corner, mask.shape) for part in pieces(mask, gap)]
    image = image_of((1, np.uint8), mask.shape, rng)
    handle = library.open(engine)
    loose = {"min_change": 1e-3, "min_grain": 0.0, "min_coverage": 0.0, "max_leak": 1e6}
    loose |= {"refine_min_area": 1}
    session = library.session(handle, defect=b"spot", **loose)
    try:
        split = library.synthesize(session, image, [mask], seed, split=True)
        listed = library.synthesize(session, image, instances, seed)
    finally:
        library.c.defectrt_session_destroy(session)
        library.c.defectrt_engine_destroy(handle)
    for a, b in zip(split[:3], listed[:3], strict=True):
        assert np.array_equal(a, b)
    config = SynthesisConfig(defect="spot", **loose)
    expected, _ = clibrary.in_python(engine, image, instances, seed, config)
    assert split[4].tiles == len(expected.figures["tiles"])
    assert np.abs(split[0].astype(int) - expected.image.astype(int)).max() <= 1


def test_an_engine_that_sees_whole_images_has_no_window_and_splits_no_mask(
    library, engine, tmp_path
):
    mask = np.zeros((60, 160), bool)
    mask[5:15, 5:15] = mask[40:52, 140:152] = True
    image = image_of((1, np.uint8), mask.shape, np.random.default_rng(0))
    loose = {"min_change": 1e-3, "refine_min_area": 1, "min_coverage": 0.0, "max_leak": 1e6}
    tiles = []
    for directory, window in (
        (engine, 32),
        (changed(engine, tmp_path / "engine", magnify="fit"), 0),
    ):
        handle = library.open(directory)
        info = clibrary.EngineInfo(ctypes.sizeof(clibrary.EngineInfo))
        library.check(
            library.c.defectrt_engine_get_info(handle, ctypes.byref(info)), "engine", handle
        )
        assert info.window == window
        session = library.session(handle, defect=b"spot", **loose)
        try:
            tiles.append(library.synthesize(session, image, [mask], 1, split=True)[4].tiles)
        finally:
            library.c.defectrt_session_destroy(session)
            library.c.defectrt_engine_destroy(handle)
    assert tiles == [2, 1]


def test_without_a_defect_both_say_so(library, engine):
    image = image_of((3, np.uint8), (40, 40), np.random.default_rng(0))
    mask = np.zeros((40, 40), bool)
    mask[10:20, 10:20] = True
    config = SynthesisConfig(defect="spot", refine_min_area=10_000)
    expected, _ = clibrary.in_python(engine, image, [mask], 1, config)
    assert expected.fault == "no defect appeared"
    handle = library.open(engine)
    session = library.session(handle, defect=b"spot", refine_min_area=10_000)
    with pytest.raises(clibrary.StatusError, match="no defect appeared") as fault:
        library.synthesize(session, image, [mask], 1)
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


def test_the_filters_of_cpp_are_tested_with_what_opencv_makes():
    import runpy

    script = clibrary.ROOT / "cpp" / "tests" / "make_filter_vectors.py"
    vectors = script.with_name("filters.txt").read_text(encoding="utf-8").split()
    made = runpy.run_path(str(script))["text"]().split()
    assert len(made) == len(vectors)
    for word, expected in zip(made, vectors, strict=True):
        # another build of OpenCV may round the last digit otherwise
        assert word == expected or abs(float(word) - float(expected)) <= 1e-5
