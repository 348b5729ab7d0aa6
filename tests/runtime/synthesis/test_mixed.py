"""Defects of several types in one image: who paints what, where, and how it is told apart."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from pycocotools import mask as run_lengths
from support.fake_engine import FakeEngine
from support.outputs import dataset_of, records, save
from support.program import command_line

from defectrt.diffusion.rows import Rows
from defectrt.errors import Cancelled, InputError, UsageError
from defectrt.images.reading import read_image
from defectrt.masks.source import Placed
from defectrt.output.formats import finish
from defectrt.output.merge import merge
from defectrt.output.records import read_finished
from defectrt.synthesis.job import synthesize
from defectrt.synthesis.synthesizer import Synthesizer

pytestmark = pytest.mark.slow

TYPES = ["crack", "hole", "spot"]


class Coloured(FakeEngine):
    """An engine whose defects are as bright as their type's prompt says."""

    def _clean(self, rows: Rows):
        inside = (rows.inside.astype(np.float32) - 3.5).reshape(-1, 1, 1, 1) / 4
        return np.where(rows.mask > 0, inside.astype(np.float32), rows.latent)


@pytest.fixture
def engine(fake_engine, opened_as):
    """One that makes several types; returns its directory."""
    opened_as(Coloured(defect_types=TYPES))
    return fake_engine[0]


@pytest.fixture
def good(tmp_path):
    """Six good images."""
    rng = np.random.default_rng(0)
    for i in range(6):
        save(tmp_path / "good" / f"{i}.png", rng.integers(140, 160, (90, 110), np.uint8))
    return tmp_path / "good"


@pytest.fixture
def make(engine, good, tmp_path):
    """Run a mixed job on the good images; returns its folder and its summary."""

    def run(name="out", defect="crack,hole", images=good, **options):
        # one type is as bright as the images are
        anything = {"refine": "none", "min_change": 0.0, "min_grain": 0.0, "min_coverage": 0.0}
        options = {"size": (6, 10), "mixed": True, "quiet": True} | anything | options
        summary = synthesize(images, tmp_path / name, defect=defect, engine=engine, **options)
        return tmp_path / name, summary

    return run


def types_of(record):
    return [mask["defect"] for mask in record["masks"]]


def parts(out, record):
    """Image, label, and the mask of each type as it is stored."""
    image, label, mask = (read_image(out / record[k])[..., 0] for k in ("image", "label", "mask"))
    found = list(dict.fromkeys(types_of(record)))
    return image, label > 0, {name: mask == 255 - i for i, name in enumerate(found)}, mask > 0


def test_by_default_every_image_gets_a_defect_of_each_of_two_types(make):
    out, summary = make()
    assert summary.kept == summary.by_type["combined"]["kept"] == 6
    for r in records(out):
        assert r["defect"] == "combined"
        assert "/test/combined/" in r["image"]
        assert sorted(types_of(r)) == ["crack", "hole"]
        assert [m["shape"] for m in r["masks"]] == types_of(r)
        assert [m["instance"] for m in r["masks"]] == [0, 1]


def test_each_instance_is_painted_by_its_own_prompt_inside_its_own_mask(make):
    out, _ = make(defect="crack,hole,spot", instances=4, count=2)
    seen: dict[str, set[int]] = {name: set() for name in TYPES}
    for r in records(out):
        image, label, masks, all_masks = parts(out, r)
        np.testing.assert_array_equal(label, all_masks)
        assert len(masks) == 3
        for name, mask in masks.items():
            seen[name].add(int(np.median(image[mask])) // 32)
    levels = [level for own in seen.values() for level in own]
    assert len(levels) == len(set(levels)) == 3  # one brightness a type, each another


def test_shares_hold_over_all_defects_and_single_types_lie_in_their_own_folders(make):
    out, summary = make(defect="crack=3,hole=1", instances="1,3", count=12)
    assert summary.kept == summary.requested == 72
    found = records(out)
    all_types = Counter(name for r in found for name in types_of(r))
    assert 0.65 < all_types["crack"] / all_types.total() < 0.85
    assert {len(r["masks"]) for r in found} == {1, 2, 3}
    for r in found:
        own = set(types_of(r))
        assert r["defect"] == (own.pop() if len(own) == 1 else "combined")
        assert f"/{r['defect']}/" in r["image"]
    assert summary.by_type == {
        name: dict.fromkeys(("requested", "placed", "generated", "kept"), n)
        for name, n in Counter(r["defect"] for r in found).items()
    }


def test_none_lies_over_another(make):
    out, _ = make(instances=5, count=3)
    for r in records(out):
        _, label, masks, _ = parts(out, r)
        assert np.sum([mask.astype(int) for mask in masks.values()], axis=0).max() == 1
        assert label.sum() == r["refined_area"] == sum(int(m.sum()) for m in masks.values())


def test_it_depends_on_neither_batch_order_nor_neighbours_and_goes_on(make, good, monkeypatch):
    whole, _ = make("whole", instances="1,4", count=2, batch_size=1)
    for name in ("0.png", "2.png"):
        alone, _ = make(f"alone{name}", images=good / name, instances="1,4", count=2)
        for r in records(alone):
            (same,) = [
                o for o in records(whole) if (o["source"], o["sample"]) == (name, r["sample"])
            ]
            for key in ("image", "label", "mask"):
                assert (alone / r[key]).read_bytes() == (whole / same[key]).read_bytes()
    step, calls = FakeEngine.step, []

    def stop(self, rows):
        calls.append(1)
        if len(calls) == 40:
            raise Cancelled("stopped")
        return step(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(FakeEngine, "step", stop)
        with pytest.raises(Cancelled):
            make("stopped", instances="1,4", count=2, batch_size=1)
    make("stopped", instances="1,4", count=2, batch_size=1)
    assert dataset_of(tmp := whole.parent / "stopped") == dataset_of(whole)
    with pytest.raises(InputError, match=r"stopped: was started as another job \(masks: "):
        make("stopped", "hole,spot", instances="1,4", count=2, batch_size=1)
    assert dataset_of(tmp) == dataset_of(whole)


def test_coco_and_yolo_have_each_instance_in_its_own_category(make):
    out, _ = make(defect="hole,spot", instances=3, count=2, formats=("coco", "yolo"))
    found = {r["image"]: r for r in records(out)}
    seen = 0
    for part in ("train", "val"):
        data = json.loads((out / "coco" / f"instances_{part}.json").read_text())
        names = {image["id"]: image["file_name"] for image in data["images"]}
        for annotation in data["annotations"]:
            r = found[names[annotation["image_id"]]]
            _, _, masks, _ = parts(out, r)
            outlines = run_lengths.frPyObjects(
                annotation["segmentation"], *masks[types_of(r)[0]].shape
            )
            where = run_lengths.decode(run_lengths.merge(outlines)) > 0
            (inside,) = [name for name, mask in masks.items() if (mask & where).any()]
            assert not (where & ~masks[inside]).any()
            assert annotation["category_id"] == TYPES.index(inside) + 1
            seen += 1
    lines = [
        line.split()[0]
        for path in (out / "yolo" / "labels").rglob("combined_*.txt")
        for line in path.read_text().splitlines()
    ]
    expected = Counter(str(TYPES.index(name)) for r in found.values() for name in types_of(r))
    assert (Counter(lines), seen) == (expected, expected.total())


def test_merged_ones_keep_their_types(make, tmp_path):
    one, _ = make("one")
    two, _ = make("two", "hole,spot", seed=1)
    assert merge([one, two], tmp_path / "both", formats=("coco",)) == 12
    data = [
        json.loads((tmp_path / "both" / "coco" / f"instances_{part}.json").read_text())
        for part in ("train", "val")
    ]
    counts = Counter(a["category_id"] for part in data for a in part["annotations"])
    assert counts == {1: 6, 2: 12, 3: 6}


def test_a_mask_that_does_not_tell_the_types_is_refused(make):
    out, _ = make()
    record = records(out)[0]
    mask = read_image(out / record["mask"])[..., 0]
    for second in (255, 7):  # the second type as the first, and as none
        save(out / record["mask"], np.where(mask == 254, second, mask).astype(np.uint8))
        with pytest.raises(InputError, match=r"\d.png: does not tell the types of its label"):
            finish(out, ["coco"])
    lines = [r | {"mask": None} for r in records(out)]
    (out / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=r"\d.png has no mask of its label's size"):
        finish(out, ["yolo"])
    lines = [r | {"masks": "all"} for r in records(out)]
    (out / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=r"line 1: masks is not a list"):
        read_finished(out)


def test_the_report_says_what_is_combined(make):
    page = (make()[0] / "report.html").read_text()
    assert '"defect_type":"combined","requested":6' in page
    assert '"defects":["crack","hole"]' in page or '"defects":["hole","crack"]' in page


def test_in_python_a_result_tells_its_instances(make, engine, good):
    out, _ = make(instances="1,4")
    options = {"engine": engine, "refine": "none", "defect": "crack,hole", "size": (6, 10)}
    with Synthesizer(mixed=True, instances="1,4", **options) as synthesizer:
        for r in records(out):
            result = synthesizer(good / r["source"])
            assert [i.defect for i in result.instances] == types_of(r)
            assert result.defect == r["defect"]
            np.testing.assert_array_equal(result.image, read_image(out / r["image"])[..., 0])
            union = np.logical_or.reduce([i.label for i in result.instances])
            np.testing.assert_array_equal(union, result.label)
        (alone,) = {i.defect for i in synthesizer(good / "0.png", defect="hole").instances}
        assert alone == "hole"
        mask = np.zeros((90, 110), bool)
        mask[5:9, 5:9] = True
        assert synthesizer(good / "0.png", mask, defect="hole").defect == "hole"
        with pytest.raises(InputError, match="mixed has masks of its own; leave mask out"):
            synthesizer(good / "0.png", mask)


class Mine:
    """Masks that say what they are for; the second is for whatever was asked for."""

    def __call__(self, source, image, sample):
        one, two = np.zeros((2, *image.shape[:2]), bool)
        one[5:12, 5:12] = two[40:47, 60:67] = True
        return [Placed(one, {}, "hole"), Placed(two, {})]

    def record(self):
        return {}


def test_masks_of_a_programs_own_say_of_which_type_they_are(engine, good):
    options = {"engine": engine, "refine": "none", "defect": "crack,hole"}
    with Synthesizer(mask_source=Mine(), **options) as synthesizer:
        result = synthesizer(good / "0.png", defect="crack")
        assert [i.defect for i in result.instances] == ["hole", "crack"]
        assert result.defect == "combined"
        first, second = (np.median(result.image[i.label]) for i in result.instances)
        assert abs(first - second) > 10
        assert synthesizer(good / "0.png", defect="hole").defect == "hole"
    with pytest.raises(UsageError, match="mixed: masks and mask_source say where"):
        Synthesizer(mask_source=Mine(), mixed=True, **options)


def test_examples_of_several_types_are_mixed_too(engine, good, tmp_path):
    for name, dark in (("pit", 20), ("line", 250)):
        image, mask = np.full((40, 40), 150, np.uint8), np.zeros((40, 40), np.uint8)
        mask[18:23, 18:24] = 255
        image[mask > 0] = dark
        save(tmp_path / "like" / name / "0.png", image)
        save(tmp_path / "like" / name / "0_mask.png", mask)
    out = tmp_path / "out"
    synthesize(good, out, like=tmp_path / "like", engine=engine, mixed=True, quiet=True)
    for r in records(out):
        image, _, masks, _ = parts(out, r)
        assert image[masks["pit"]].mean() < 80 < 200 < image[masks["line"]].mean()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--defect", "hole"], "mixed: needs two types of defect or more"),
        (["--masks", "masks"], "mixed: masks and mask_source say where, but not what"),
    ],
)
def test_what_cannot_be_mixed_is_said_before_anything_is_written(
    engine, good, tmp_path, monkeypatch, words, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "masks").mkdir()
    run = command_line("synthesize", "--images", "good", "--engine", engine, "--mixed", *words)
    assert run.returncode == 2
    assert said in run.stderr
    assert not (tmp_path / "good-defects").exists()


def test_a_type_of_that_name_cannot_be_mixed(fake_engine, good, opened_as):
    opened_as(FakeEngine(defect_types=["combined", "hole"]))
    with pytest.raises(UsageError, match="a type that is made is named 'combined'"):
        synthesize(good, engine=fake_engine[0], mixed=True, quiet=True)
