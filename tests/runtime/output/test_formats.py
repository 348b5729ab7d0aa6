"""COCO, YOLO and folder.yaml: all of them are the label, whoever reads them."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from support.outputs import records, tree, write_folder

from defectrt.config.job import FORMATS, FormatConfig
from defectrt.errors import InputError, OutputError, UsageError
from defectrt.images.reading import read_image
from defectrt.output import written
from defectrt.output.coco import run_lengths
from defectrt.output.formats import finish
from defectrt.output.instances import MAX_GAP, instances, pieces
from defectrt.output.outline import along_edges, outline
from defectrt.output.records import read_finished
from defectrt.output.split import SPLIT, Splitting, split

LAST = [f"s{i}.png" for i in range(5, 10)]
DEFECT_TYPES = ["scratch", "hole", "stain"]


@pytest.fixture
def folder(tmp_path):
    """Ten sources with two holes each, of odd sizes; labels with holes, specks and all corners."""
    rng, samples = np.random.default_rng(0), []
    for i in range(10):
        shape = (30 + i, 47 - i)
        for k in range(2):
            good = rng.integers(0, 255, (*shape, 1 + 2 * (i % 2)), np.uint8)
            label = cv2.GaussianBlur(rng.random(shape), (0, 0), 1 + 2 * k) > 0.5
            if i == 3:
                label = np.full(shape, k == 0)  # nearly all of it, or nearly nothing
                label[0, 0], label[-1, -1] = True, False
            record = {"source": f"s{i}.png", "sample": k, "defect": "hole"}
            samples.append((good, good[::-1], label, np.ones(shape, bool), record))
    return write_folder(tmp_path / "out", DEFECT_TYPES, samples)


def label_of(out, image):
    path = image.replace("/test/", "/ground_truth/").replace(".png", "_mask.png")
    return read_image(out / path)[..., 0] > 0


@pytest.mark.parametrize("name", ["coco", "coco-rle"])
def test_pycocotools_decodes_every_mask_to_the_label(folder, name):
    finish(folder, [name])
    seen = set()
    for part in ("train", "val"):
        coco = COCO(folder / name / f"instances_{part}.json")
        assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == {
            1: "scratch",
            2: "hole",
            3: "stain",
        }
        for entry in coco.loadImgs(coco.getImgIds()):
            image = read_image(folder / entry["file_name"])
            assert image.shape[:2] == (entry["height"], entry["width"])
            found = coco.loadAnns(coco.getAnnIds(imgIds=entry["id"]))
            masks = [coco.annToMask(a).astype(bool) for a in found]
            if "/good/" in entry["file_name"]:
                assert not found
                continue
            seen.add(entry["file_name"])
            label = label_of(folder, entry["file_name"])
            assert (sum(m.astype(int) for m in masks) == label).all()  # each pixel once
            assert {a["category_id"] for a in found} == {2}
            for a, mask in zip(found, masks, strict=True):
                ys, xs = np.nonzero(mask)
                box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
                assert (a["area"], a["bbox"]) == (mask.sum(), box)
    assert seen == {r["image"] for r in records(folder)}


def test_yolo_labels_draw_the_label(folder):
    """One instance a line; OpenCV, which readers draw with, fills it to the label."""
    finish(folder, ["yolo"])
    base, joined = folder / "yolo", 0
    for r in records(folder):
        (image,) = base.glob(f"images/*/hole_{r['image'][-7:]}")
        assert image.read_bytes() == (folder / r["image"]).read_bytes()
        label = label_of(folder, r["image"])
        text = (base / "labels" / image.parent.name / f"{image.stem}.txt").read_text()
        drawn = []
        for line in text.splitlines():
            defect_type, *numbers = line.split()
            assert defect_type == "1"
            points = np.array(numbers, float).reshape(-1, 2) * label.shape[::-1]
            assert len(points) >= 3
            assert (np.round(points) == points.astype(int)).all()
            drawn.append(draw(points.astype(int), label.shape))
        parts = list(instances(label))
        assert len(drawn) == len(parts)
        for mask, part in zip(drawn, parts, strict=True):
            assert mask[part].all()
            joined += (mask & ~part).sum()
    assert 0 < joined < 200  # the cuts between pieces, of one pixel's width
    goods = list(base.glob("images/*/good_*.png"))
    assert len(goods) == 20
    for good in goods:
        assert (base / "labels" / good.parent.name / f"{good.stem}.txt").read_text() == ""
    data = yaml.safe_load((base / "data.yaml").read_text())
    assert data == {
        "train": "images/train",
        "val": "images/val",
        "names": {0: "scratch", 1: "hole", 2: "stain"},
    }


def draw(points, shape):
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    return mask > 0


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_an_outline_draws_its_mask(label):
    """Exactly, holes and all, if it is of one piece; otherwise it has the cuts besides."""
    count, pieces = cv2.connectedComponents(label.astype(np.uint8), connectivity=8)
    for i in range(1, count):
        piece = pieces == i
        np.testing.assert_array_equal(draw(outline(piece), piece.shape), piece)
    if count > 1:
        assert draw(outline(label), label.shape)[label].all()


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_an_outline_along_edges_is_exact_as_pycocotools_fills_it(label):
    for piece in pieces(label):
        polygon = along_edges(piece).ravel().astype(float).tolist()
        found = coco_mask.decode(coco_mask.frPyObjects([polygon], *piece.shape))[..., 0]
        np.testing.assert_array_equal(np.asarray(found) > 0, piece)


def test_an_outline_of_thousands_of_holes_and_pieces():
    """A label that is mostly noise; time that grows with its square would not end."""
    rng = np.random.default_rng(0)
    for density in (0.3, 0.7):
        label = rng.random((120, 120)) < density
        drawn = draw(outline(label), label.shape)
        assert drawn[label].all()
        _, pieces, sizes, _ = cv2.connectedComponentsWithStats(label.astype(np.uint8))
        largest = pieces == 1 + sizes[1:, 4].argmax()
        np.testing.assert_array_equal(draw(outline(largest), label.shape), largest)


def test_an_outline_of_pieces_far_apart():
    label = np.zeros((50, 90), bool)
    label[3, 4] = label[40:45, 80:84] = label[20, 30:40] = True
    drawn = draw(outline(label), label.shape)
    assert drawn[label].all()
    assert drawn.sum() < label.sum() + 150


@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_instances_are_the_label_and_lie_apart(label):
    parts = [m.astype(int) for m in instances(label)]
    np.testing.assert_array_equal(sum(parts, np.zeros(label.shape, int)), label)
    assert all(m.any() for m in parts)


def test_a_gap_is_bridged_up_to_its_limit():
    for gap, count in ((MAX_GAP, 1), (MAX_GAP + 1, 2)):
        for label in (np.zeros((5, 60), bool), np.zeros((60, 5), bool)):
            line = label[2] if label.shape[1] == 60 else label[:, 2]
            line[5:9] = line[9 + gap : 20 + gap] = True
            assert len(list(instances(label))) == count
    assert not list(instances(np.zeros((3, 3), bool)))


@pytest.mark.parametrize(
    ("mask", "runs"),
    [
        ([[0, 0], [0, 0]], [4]),
        ([[1, 1], [1, 1]], [0, 4]),
        ([[0, 1], [1, 1]], [1, 3]),
        ([[1, 0], [0, 1]], [0, 1, 2, 1]),
    ],
)
def test_run_lengths_go_down_the_columns(mask, runs):
    assert run_lengths(np.array(mask, bool)) == runs


def test_a_source_is_on_one_side_and_each_side_has_some(folder):
    sides = split(read_finished(folder).entries)
    sources = {part: {e.source for e in side.entries} for part, side in sides.items()}
    assert [len(sources["train"]), len(sources["val"])] == [8, 2]
    assert not sources["train"] & sources["val"]
    one = [e for e in read_finished(folder).entries if e.source == "s1.png"]
    assert [len(part.entries) for part in split(one).values()] == [2, 0]


def test_a_workpiece_is_on_one_side_and_nothing_made_is_tested_on(folder):
    entries = read_finished(folder).entries
    how = Splitting(workpiece=r"s(\d)", test=0.2)
    sides = split(entries, how)
    assert [len(side.goods) for side in sides.values()] == [12, 4, 4]
    assert [len(side.entries) for side in sides.values()] == [12, 4, 0]
    asked = split(entries, Splitting(workpiece=r"s(\d)", test=0.2, synthetic_test=True))
    assert {e.source for e in asked["test"].entries}.isdisjoint(
        {e.source for side in ("train", "val") for e in asked[side].entries}
    )
    assert len(asked["test"].entries) == 4
    joined = split(entries, Splitting(workpiece="s([0-4])|s[5-9]"))  # the last five are one
    assert {len({e.source for e in side.entries} & set(LAST)) for side in joined.values()} == {0, 5}
    assert split(entries)["val"] == split(entries, Splitting(test=0.2))["val"]


def test_another_split_is_kept_and_changes_what_is_written(folder):
    finish(folder, ["coco", "yolo", "imagefolder"])
    before = tree(folder)
    finish(folder, splitting=Splitting(test=0.2))
    assert json.loads((folder / SPLIT).read_text())["test"] == 0.2
    test = json.loads((folder / "coco" / "instances_test.json").read_text())
    assert test["images"]
    assert test["annotations"] == []
    assert len(list((folder / "yolo" / "images" / "test").iterdir())) == len(test["images"])
    assert yaml.safe_load((folder / "yolo" / "data.yaml").read_text())["test"] == "images/test"
    lines = (folder / "imagefolder" / "test" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["synthetic"] for line in lines] == [False] * len(test["images"])
    kept = tree(folder)
    finish(folder, ["coco"])  # as a review does, which does not say how
    assert tree(folder) == kept
    finish(folder, splitting=Splitting())
    after = tree(folder)
    assert after == before
    (folder / SPLIT).write_text('{"test": "much"}')
    with pytest.raises(InputError, match=r"split\.json: damaged"):
        finish(folder, ["coco"])


def test_labelme_and_label_studio_are_read_again_as_the_labels(folder):
    """By the readers of annotations, which the tools themselves are compared with."""
    finish(folder, ["labelme", "label-studio"])
    tasks = json.loads((folder / "label-studio" / "tasks.json").read_text())
    for r, task in zip(sorted(records(folder), key=lambda r: r["image"]), tasks, strict=True):
        assert task["data"]["image"].endswith(r["image"])
        label = label_of(folder, r["image"])
        scale = np.array(label.shape[::-1]) / 100
        found = np.zeros(label.shape, bool)
        for result in task["annotations"][0]["result"]:
            points = (np.array(result["value"]["points"]) * scale).round().ravel().tolist()
            part = coco_mask.decode(coco_mask.frPyObjects([points], *label.shape))[..., 0]
            found |= np.asarray(part) > 0
            assert result["value"]["polygonlabels"] == ["hole"]
        np.testing.assert_array_equal(found, label)
        name = f"hole_{r['image'][-7:-4]}"
        data = json.loads((folder / "labelme" / f"{name}.json").read_text())
        assert (folder / "labelme" / data["imagePath"]).read_bytes() == (
            (folder / r["image"]).read_bytes()
        )
        drawn = [draw(np.array(shape["points"]), label.shape) for shape in data["shapes"]]
        np.testing.assert_array_equal(np.logical_or.reduce(drawn), label)
    interface = (folder / "label-studio" / "interface.xml").read_text()
    assert [f'<Label value="{name}"/>' in interface for name in DEFECT_TYPES] == [True] * 3


def test_folder_yaml_names_what_is_there(folder):
    finish(folder)
    config = yaml.safe_load((folder / "folder.yaml").read_text())
    assert config["class_path"] == "anomalib.data.Folder"
    options = config["init_args"]
    assert options["name"] == "plate"
    dirs = [options["normal_dir"], options["normal_test_dir"]]
    dirs += options["abnormal_dir"] + options["mask_dir"]
    assert dirs == ["train/good", "test/good", "test/hole", "ground_truth/hole"]
    assert all((folder / options["root"] / d).is_dir() for d in dirs)


def test_the_same_bytes_again_and_in_whatever_order(folder):
    finish(folder, FORMATS)
    first = tree(folder)
    lines = (folder / "manifest.jsonl").read_text().splitlines(keepends=True)
    (folder / "manifest.jsonl").write_text("".join(reversed(lines)))
    finish(folder, FORMATS)
    again = tree(folder)
    assert again.pop("manifest.jsonl") != first.pop("manifest.jsonl")
    assert again == first


def test_an_image_that_changes_sides_is_not_left_on_the_other(folder):
    path = folder / "manifest.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:6]))
    finish(folder, ["yolo"])
    path.write_text("".join(lines))
    finish(folder, ["yolo"])
    names = [p.name for p in folder.glob("yolo/images/*/*")]
    assert len(names) == len(set(names)) == 40


def test_images_are_copies_so_that_changing_one_changes_no_other(folder):
    finish(folder, ["yolo"])
    copies = list(folder.glob("yolo/images/*/*.png"))
    assert len(copies) == 40
    assert all(path.stat().st_nlink == 1 for path in copies)


def test_what_the_user_keeps_in_the_folder_stays(folder):
    """Adding a format again, and samples that go, remove what was written and nothing else."""
    finish(folder, ["yolo"])
    mine = folder / "yolo" / "images" / "train" / "mine.png"
    mine.write_bytes(b"mine")
    (folder / "yolo" / "runs").mkdir()
    (folder / "yolo" / "runs" / "best.pt").write_bytes(b"weights")
    finish(folder, ["yolo", "coco"])
    assert len(list(folder.glob("yolo/labels/*/*.txt"))) == 40
    (folder / "manifest.jsonl").write_text("")
    finish(folder, ["yolo"])
    left = {p.relative_to(folder).as_posix() for p in (folder / "yolo").rglob("*") if p.is_file()}
    assert left == {"yolo/images/train/mine.png", "yolo/runs/best.pt", "yolo/.defectrt.json"}


def test_a_file_of_the_user_with_a_name_of_ours_is_not_replaced(folder):
    (folder / "yolo").mkdir()
    (folder / "yolo" / "data.yaml").write_text("mine")
    with pytest.raises(OutputError, match=r"data\.yaml: there already, and not written by this"):
        finish(folder, ["yolo"])
    assert [p.name for p in (folder / "yolo").rglob("*")] == ["data.yaml"]
    assert (folder / "yolo" / "data.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "damaged"),
        ('{"files": ["../../parts"]}', "outside its folder"),
        ('{"files": ["/etc/passwd"]}', "outside its folder"),
        ('{"files": 7}', "damaged"),
    ],
)
def test_a_list_that_is_not_ours_removes_nothing(folder, text, message):
    finish(folder, ["yolo"])
    before = tree(folder)
    (folder / "yolo" / ".defectrt.json").write_text(text)
    with pytest.raises(InputError, match=message):
        finish(folder, ["yolo"])
    after = tree(folder)
    assert after.pop("yolo/.defectrt.json") == text.encode()
    assert after.items() <= before.items()


def test_a_kill_half_way_leaves_a_list_that_is_true(folder, monkeypatch):
    real, calls = written.write_whole, []

    def killed(path, data):
        calls.append(path)
        if len(calls) == 9:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(written, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        finish(folder, ["yolo"])
    monkeypatch.setattr(written, "write_whole", real)
    finish(folder, ["yolo"])
    assert len(list(folder.glob("yolo/images/*/*.png"))) == 40


def test_ids_are_unique_over_both_sides_of_coco(folder):
    finish(folder, ["coco"])
    sides = [json.loads(p.read_text()) for p in sorted((folder / "coco").iterdir())]
    for key in ("images", "annotations"):
        ids = [entry["id"] for side in sides for entry in side[key]]
        assert len(ids) == len(set(ids)) > 0


def test_a_finished_job_is_given_more_formats_without_any_work(go, fake_engine):
    out, _ = go()
    before = tree(out)
    fake_engine[1].batches.clear()
    _, summary = go(formats=["coco", "yolo"])
    assert (summary.kept, summary.made) == (3, 0)
    assert not fake_engine[1].batches
    after = tree(out)
    assert {name.partition("/")[0] for name in after.keys() - before.keys()} == {"coco", "yolo"}
    assert all(after[name] == before[name] for name in before if not name.startswith("job.sqlite"))


def test_nothing_kept_is_no_fault(tmp_path):
    out = write_folder(tmp_path / "out", DEFECT_TYPES, [])
    finish(out, FORMATS)
    assert not (out / "folder.yaml").exists()
    assert not COCO(out / "coco" / "instances_val.json").getImgIds()
    assert not (out / "yolo").exists()  # its data.yaml would name folders that are not there


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "../../etc/passwd"}, "image leaves the folder"),
        ({"label": "/etc/passwd"}, "label leaves the folder"),
        ({"good": "a\\..\\b"}, "good leaves the folder"),
        ({"good": None}, "line 3 has no good"),
        ({"defect": "rust"}, "of a type that its engine does not make"),
        ({"label": "plate/none.png"}, "cannot be read"),
    ],
    ids=str,
)
def test_a_manifest_is_not_believed(folder, change, message):
    path = folder / "manifest.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | change)
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=message):
        finish(folder, FORMATS)


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"category": "a"}', '{"category": 1, "defect_types": []}']
)
def test_a_damaged_job_is_said(folder, text):
    (folder / "job.json").write_text(text)
    with pytest.raises(InputError, match=r"job\.json: damaged"):
        finish(folder)
    (folder / "manifest.jsonl").write_text("{")
    (folder / "job.json").unlink()
    with pytest.raises(InputError, match=r"not the output of a job"):
        finish(folder)


def test_what_is_in_the_way_is_said(folder):
    (folder / "coco").write_text("a file")
    with pytest.raises(OutputError, match=r"instances_train\.json: cannot be written"):
        finish(folder, ["coco"])
    (folder / "yolo").write_text("a file")
    with pytest.raises(OutputError, match=r"yolo.*: cannot be written"):
        finish(folder, ["yolo"])


def test_formats_are_named_with_commas():
    def formats(given):
        return FormatConfig(format=given).formats

    assert formats("mvtec") == ("mvtec",)
    assert formats(" yolo, coco,yolo") == formats(["yolo", "coco,yolo"]) == ("coco", "yolo")
    for text in ("", ",", "coco,voc", "COCO", []):
        with pytest.raises(UsageError, match="format: choose from mvtec, coco, coco-rle, yolo"):
            formats(text)
