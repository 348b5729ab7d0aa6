"""Defects on arrays: the same as the job's, in order, stoppable, and honest about faults."""

from __future__ import annotations

import io
import itertools
import pickle
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.fake_engine import FakeEngine
from support.outputs import records, save, write_folder

import defectrt
from defectrt.errors import Cancelled, EngineError, InputError, UsageError
from defectrt.images.reading import read_image
from defectrt.synthesis import synthesizer as module
from defectrt.synthesis.job import synthesize
from defectrt.synthesis.synthesizer import Synthesizer
from defectrt.synthesis.workpiece import Workpiece


def image(shape=(60, 80), seed=0, dtype=np.uint8):
    top = np.iinfo(dtype).max
    return (np.random.default_rng(seed).normal(0.6, 0.03, shape).clip(0, 1) * top).astype(dtype)


def square(shape=(60, 80)):
    mask = np.zeros(shape, bool)
    mask[20:28, 10:20] = True
    return mask


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [(), (1,), (2,), (3,), (4,)])
def test_what_it_gives_back(fake, dtype, channels):
    part, mask = image((60, 80, *channels), dtype=dtype), square()
    before = part.copy()
    with Synthesizer() as synthesizer:
        result = synthesizer(part, mask, name="a", number=2)
    assert result.fault is None
    assert (result.name, result.number) == ("a", 2)
    assert result.image.shape == part.shape
    assert result.image.dtype == dtype
    np.testing.assert_array_equal(part, before)
    np.testing.assert_array_equal(result.image[~result.band], part[~result.band])
    np.testing.assert_array_equal(result.mask, mask)
    assert result.label.any()
    assert not result.label[~mask].any()
    colour = result.image[..., 0] if channels else result.image
    assert colour[result.label].mean() < 0.7 * colour[~result.band].mean()
    assert result.figures["refined_area"] == result.label.sum()


@pytest.mark.parametrize("drawn", [False, True])
def test_it_is_what_the_job_makes(fake, fake_engine, tmp_path, drawn):
    """The same bits as the folder's, be it one by one or all at once."""
    names = ["a.png", "b.png", "c.png"]
    for i, name in enumerate(names):
        save(tmp_path / "images" / name, image(seed=i))
        save(tmp_path / "masks" / name, square().astype(np.uint8))
    options = {"count": 2, "seed": 7, "engine": fake_engine[0]}
    masks = None if drawn else tmp_path / "masks"
    synthesize(tmp_path / "images", tmp_path / "out", masks=masks, quiet=True, **options)
    mask = None if drawn else square()
    parts = [Workpiece(image(seed=i), mask, name) for i, name in enumerate(names)]
    with Synthesizer(**options) as synthesizer:
        at_once = list(synthesizer.run(parts))
        single = [synthesizer(p.image, p.mask, name=p.name, number=k)
                  for p, k in itertools.product(parts, range(2))]  # fmt: skip
    for r, one, many in zip(records(tmp_path / "out"), single, at_once, strict=True):
        assert (r["source"], r["sample"], r["seed"]) == (many.name, many.number, many.seed)
        for result in (one, many):
            written = read_image(tmp_path / "out" / r["image"])[..., 0]
            np.testing.assert_array_equal(result.image, written)
            label = read_image(tmp_path / "out" / r["label"])[..., 0] > 0
            np.testing.assert_array_equal(result.label, label)


def test_results_come_in_order_and_parts_are_taken_as_there_is_room(fake):
    taken = []

    def endless():
        for i in itertools.count():
            taken.append(i)
            yield image(seed=i)

    with Synthesizer(count=2) as synthesizer:
        results = list(itertools.islice(synthesizer.run(endless()), 20))
    expected = [(str(i), k) for i in range(10) for k in range(2)]
    assert [(r.name, r.number) for r in results] == expected
    assert len(taken) < 60


def test_progress_ends_with_everything_done(fake):
    for parts, total in ((np.stack([image()] * 3), 6), (iter([image()] * 3), None)):
        states = []
        with Synthesizer(count=2, steps=2) as synthesizer:
            assert len(list(synthesizer.run(parts, progress=states.append))) == 6
        assert {s.total for s in states} == {total}
        assert [s.done for s in states] == sorted(s.done for s in states)
        assert states[-1].done == 6
        assert states[-1].steps >= 6 * 2
        assert len({s.steps for s in states}) > 3


def test_another_thread_can_stop_it(fake):
    cancel, states = threading.Event(), []

    def stop_soon(state):
        states.append(state)
        if state.done == 2:
            cancel.set()

    with Synthesizer() as synthesizer:
        results = synthesizer.run(
            (image(seed=i) for i in itertools.count()), progress=stop_soon, cancel=cancel
        )
        with pytest.raises(Cancelled, match=r"stopped after \d+ samples"):
            list(results)
        assert states[-1].done < 20
        with pytest.raises(Cancelled):
            synthesizer(image(), cancel=cancel)
        assert synthesizer(image()).fault is None  # still usable


def test_a_callback_that_fails_is_heard(fake):
    def fail(state):
        raise ZeroDivisionError

    with Synthesizer() as synthesizer, pytest.raises(ZeroDivisionError):
        synthesizer(image(), progress=fail)


def test_leaving_the_loop_is_fine(fake):
    with Synthesizer() as synthesizer:
        for result in synthesizer.run([image()] * 50):
            assert result.fault is None
            break
        assert synthesizer(image()).fault is None


def test_no_defect_and_no_place_are_faults_not_errors(fake):
    def nowhere(source, image, sample):
        raise InputError("no room for a defect")

    fake.blind, fake.level = True, 0.2  # the colour of the parts
    with Synthesizer() as synthesizer:
        result = synthesizer(image(), square())
    assert result.fault == "no defect appeared"
    np.testing.assert_array_equal(result.image, image())
    assert not result.label.any()
    with Synthesizer(mask_source=nowhere) as synthesizer:
        (result,) = synthesizer.run([image()])
    assert result.fault == "no room for a defect"
    np.testing.assert_array_equal(result.image, image())


@pytest.mark.parametrize(
    ("part", "mask", "message"),
    [
        ([[1, 2]], None, "not list"),
        (np.zeros((9, 9)), None, "not float64"),
        (np.zeros(9, np.uint8), None, r"not \[9\]"),
        (np.zeros((9, 9, 5), np.uint8), None, r"not \[9, 9, 5\]"),
        (np.zeros((0, 9), np.uint8), None, r"not \[0, 9\]"),
        (np.zeros((9, 9), np.uint8), np.ones((9, 8)), r"the mask is \[9, 8\]"),
        (np.zeros((9, 9), np.uint8), np.full((9, 9), "x"), "the mask is .* of <U1"),
        (np.zeros((9, 9), np.uint8), np.zeros((9, 9)), "the mask is empty"),
        (np.broadcast_to(np.uint8(0), (20_000, 20_000)), None, "more than 100 megapixels"),
    ],
)
def test_arrays_that_cannot_be_used(fake, part, mask, message):
    with Synthesizer() as synthesizer:
        with pytest.raises(InputError, match=f"workpiece 'x': .*{message}"):
            synthesizer(part, mask, name="x")
        results = synthesizer.run([image(), Workpiece(part, mask, "x")])
        assert next(results).name == "0"
        with pytest.raises(InputError, match=message):
            next(results)


def test_what_it_refuses(fake):
    with pytest.raises(UsageError, match="no defect is named 'rust'"):
        Synthesizer(defect="rust")
    synthesizer = Synthesizer()
    synthesizer.close()
    with pytest.raises(EngineError, match="closed"):
        synthesizer(image())
    with pytest.raises(EngineError, match="closed"):
        list(synthesizer.run([]))


def test_another_process_opens_it_anew_by_its_configuration(fake):
    with Synthesizer(seed=5, defect="spot") as ours:
        theirs = pickle.loads(pickle.dumps(ours))
        assert theirs is not ours
        assert theirs.config == ours.config
        np.testing.assert_array_equal(
            theirs(image(), square(), name="a").image, ours(image(), square(), name="a").image
        )


def test_the_package_offers_it():
    assert defectrt.Synthesizer is Synthesizer
    assert (defectrt.Workpiece, defectrt.State) == (Workpiece, module.State)
    assert defectrt.Result is module.Result


def test_an_engine_that_is_not_one(tmp_path):
    with pytest.raises(EngineError, match="not an engine"):
        Synthesizer(engine=tmp_path)


def test_it_is_shared_by_threads(fake):
    with Synthesizer() as synthesizer:
        alone = [synthesizer(image(seed=i), number=i).image for i in range(8)]
        results = {}

        def work(i):
            results[i] = synthesizer(image(seed=i), number=i).image

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i in range(8):
        np.testing.assert_array_equal(results[i], alone[i])


@pytest.fixture
def several(opened_as):
    return opened_as(FakeEngine(defect_types=("crack", "hole", "spot")))


def test_types_take_turns_whatever_else_is_made(several):
    with Synthesizer(defect="crack,hole", count=4) as synthesizer:
        assert synthesizer.defect_types == ["crack", "hole"]
        results = list(synthesizer.run([image()] * 6))
        alone = synthesizer(image(), name="4", number=3)
    for i in range(6):
        made = [r.defect for r in results[4 * i :][:4]]
        assert made in (["crack", "hole"] * 2, ["hole", "crack"] * 2)
    assert {r.defect for r in results[::4]} == {"crack", "hole"}
    assert alone.defect == results[19].defect
    np.testing.assert_array_equal(alone.image, results[19].image)


def test_a_workpiece_may_say_its_type_and_gets_what_that_type_alone_makes(several):
    with Synthesizer(defect="spot") as synthesizer:
        alone = synthesizer(image(), name="a", number=5)
    with Synthesizer() as synthesizer:
        named = synthesizer(image(), name="a", number=5, defect="spot")
        (listed,) = synthesizer.run([Workpiece(image(), name="a", defect="hole")])
        with pytest.raises(InputError, match="'a': 'rust' is not made here, but crack, hole, spot"):
            synthesizer(image(), name="a", defect="rust")
    assert (named.defect, listed.defect) == ("spot", "hole")
    np.testing.assert_array_equal(named.image, alone.image)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "CMYK", "I;16"])
def test_files_and_pictures_are_images_too(fake, tmp_path, mode):
    part = image((60, 80), dtype=np.uint16) if mode == "I;16" else image((60, 80, 3))
    picture = Image.fromarray(part) if mode == "I;16" else Image.fromarray(part).convert(mode)
    path = tmp_path / "part.tif"
    picture.save(path)
    array = np.squeeze(read_image(path))
    mask = tmp_path / "mask.png"
    save(mask, square().astype(np.uint8))
    with Synthesizer() as synthesizer:
        expected = synthesizer(array, square(), name="part.tif")
        made = [
            synthesizer(path, square()),
            synthesizer(str(path), mask),
            synthesizer(picture, str(mask), name="part.tif"),
            *synthesizer.run([Workpiece(path, mask)]),
        ]
        (bare,) = synthesizer.run([path])
        assert (bare.name, bare.image.dtype, bare.image.shape) == (
            "part.tif",
            array.dtype,
            array.shape,
        )
    for result in made:
        assert result.name == "part.tif"
        np.testing.assert_array_equal(result.image, expected.image)


@pytest.mark.parametrize(
    ("part", "mask", "message"),
    [
        ("none.png", None, "none.png: cannot be read"),
        (Path("text.png"), None, "text.png: not an image"),
        (Image.new("F", (8, 8)), None, "pixel format F is not supported"),
        (np.zeros((8, 8), np.uint8), "none.png", "none.png: cannot be read"),
    ],
)
def test_files_and_pictures_that_cannot_be_used(fake, tmp_path, monkeypatch, part, mask, message):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no image")
    with Synthesizer() as synthesizer, pytest.raises(InputError, match=message):
        synthesizer(part, mask)


@pytest.mark.parametrize("shape", [(60, 80), (60, 80, 3), (60, 80, 2), (700, 900, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_result_shows_itself_in_a_notebook(fake, shape, dtype):
    mask = np.zeros(shape[:2], bool)
    mask[20:36, 10:30] = True
    with Synthesizer() as synthesizer:
        result = synthesizer(image(shape, dtype=dtype), mask)
    with Image.open(io.BytesIO(result._repr_png_())) as picture:
        shown = np.asarray(picture).astype(int)
    side = (shown.shape[1] - 4) // 2
    assert max(shown.shape[0], side) <= 480
    plain, marked = shown[:, :side], shown[:, side + 4 :]
    changed = (plain != marked).any(axis=2)
    assert 20 < changed.sum() < 400
    assert (marked[changed] == (255, 64, 0)).all()
    assert plain.std() > 1  # 16 bits are stretched


@pytest.mark.slow
def test_the_examples_in_the_documentation_run(capsys, tmp_path, monkeypatch):
    text = (Path(__file__).parents[3] / "docs" / "outputs.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (example,) = [block for block in blocks if "Synthesizer" in block]
    exec(example, {})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("0 ")
    assert second.startswith("1 ")
    monkeypatch.chdir(tmp_path)
    good = np.full((20, 20, 1), 150, np.uint8)
    label = np.zeros((20, 20), bool)
    label[8:12, 8:12] = True
    sample = (good, good, label, label, {"source": "a.png", "sample": 0, "defect": "spot"})
    write_folder(tmp_path / "OUT", ["spot"], [sample])
    (example,) = [block for block in blocks if "finish" in block]
    exec(example, {})
    assert (tmp_path / "OUT" / "yolo" / "data.yaml").exists()


@pytest.mark.slow
def test_the_bundled_engine_makes_a_crack():
    part = image((96, 96, 3))
    with defectrt.Synthesizer(defect="crack", candidates=2) as synthesizer:
        assert synthesizer.defect_types == ["crack"]
        result = synthesizer(part)
        again = synthesizer(part)
    assert result.fault is None
    np.testing.assert_array_equal(result.image, again.image)
