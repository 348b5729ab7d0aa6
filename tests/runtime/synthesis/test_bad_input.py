"""Whatever is wrong with the input: one clear message each, and the rest goes on."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image
from support.outputs import save

from defectrt.errors import (
    EngineError,
    InputError,
    NothingDoneError,
    OutputError,
    PartialError,
    UsageError,
)
from defectrt.images.png import encode_png
from defectrt.synthesis.job import synthesize


def grey(h=40, w=40, value=99):
    return np.full((h, w), value, np.uint8)


def test_bad_images_are_skipped_and_listed_and_the_rest_goes_on(go, parts):
    images, masks = parts
    (images / "a_empty.png").write_bytes(b"")
    (images / "b_cut.png").write_bytes((images / "0.png").read_bytes()[:300])
    save(images / "c_nomask.png", np.full((40, 40), 99, np.uint8))
    save(images / "d_size.png", np.full((40, 40), 99, np.uint8))
    save(masks / "d_size.png", np.full((41, 40), 255, np.uint8))
    save(images / "e_blank.png", np.full((40, 40), 99, np.uint8))
    save(masks / "e_blank.png", np.zeros((40, 40), np.uint8))
    (images / "notes.txt").write_text("not an image, and not meant as one")
    _, summary = go()
    assert summary.kept == 3
    assert summary.requested == 8
    text = "\n".join(summary.failed)
    assert len(summary.failed) == 5
    for part in (
        "a_empty.png: the file is empty",
        "b_cut.png: damaged or truncated",
        "c_nomask.png: no mask",
        "d_size.png: the mask is 40x41, its image 40x40",
        "e_blank.png: the mask is empty",
    ):
        assert part in text
    with pytest.raises(PartialError, match="3 of 8 samples were made"):
        summary.check()


def test_folders_that_are_not_there(parts, fake_engine, tmp_path):
    images, masks = parts
    none, out, engine = tmp_path / "none", tmp_path / "o", fake_engine[0]
    with pytest.raises(InputError, match="none: no such folder of images"):
        synthesize(none, out, engine=engine, masks=masks, quiet=True)
    with pytest.raises(InputError, match="none: no such folder of masks"):
        synthesize(images, out, engine=engine, masks=none, quiet=True)
    with pytest.raises(InputError, match="holds no images"):
        synthesize(engine, out, engine=engine, masks=masks, quiet=True)
    assert not out.exists()


def test_an_engine_that_is_not_one(parts, tmp_path):
    images, masks = parts
    with pytest.raises(EngineError, match="no such engine directory"):
        synthesize(images, tmp_path / "o", engine=tmp_path / "none", masks=masks, quiet=True)
    with pytest.raises(EngineError, match=r"engine.json cannot be read"):
        synthesize(images, tmp_path / "o", engine=images, masks=masks, quiet=True)


def test_output_that_cannot_be_written_is_said_before_any_work(go, fake_engine, tmp_path):
    (tmp_path / "out").write_text("a file")
    for out in ("out", "out/below"):
        with pytest.raises(OutputError, match="cannot be written"):
            go(out)
    with pytest.raises(UsageError, match=r"category: '../up' cannot be the name of a folder"):
        go("other", category="../up")
    assert not fake_engine[1].batches


def test_steps_and_defects_that_the_engine_does_not_have(go, tmp_path):
    with pytest.raises(UsageError, match="no schedule of 7 steps; it has: 2, 4"):
        go(steps=7)
    with pytest.raises(UsageError, match="no defect is named 'rust'; this engine makes: spot"):
        go(defect="rust")
    assert not (tmp_path / "out").exists()


def test_nothing_but_bad_images(go, parts, fake_engine):
    for i in range(3):
        (parts[0] / f"{i}.png").write_bytes(b"bad")
    out, summary = go()
    assert not fake_engine[1].batches
    assert (summary.requested, summary.kept, len(summary.failed)) == (3, 0, 3)
    assert not (out / "parts").exists()
    with pytest.raises(NothingDoneError, match="0 of 3 samples were made"):
        summary.check()


def test_a_mask_that_is_damaged(go, parts):
    path = parts[1] / "1_mask.png"
    path.write_bytes(path.read_bytes()[:60])
    _, summary = go()
    assert summary.kept == 2
    assert len(summary.failed) == 1
    assert "1_mask.png: damaged or truncated" in summary.failed[0]


def test_two_masks_for_one_image(go, parts):
    save(parts[1] / "1_mask.tif", grey())
    _, summary = go()
    assert summary.failed == ["1.png: more than one mask: 1_mask.png, 1_mask.tif; keep one"]


def test_a_name_that_is_not_utf_8(go, parts):
    name = os.fsdecode(b"\xff.png")
    try:
        save(parts[0] / name, grey())
        save(parts[1] / name, grey())
    except OSError:
        pytest.skip("this file system does not have such names")
    _, summary = go()
    assert summary.kept == 3
    assert summary.failed[0].endswith("not UTF-8; rename the file, or set PYTHONUTF8=1")


def test_what_is_hidden_is_no_image(go, parts):
    (parts[0] / "._1.png").write_bytes(b"what some systems put beside a file")
    save(parts[0] / ".thumbs" / "1.png", grey())
    (parts[0] / "folder.png").mkdir()
    _, summary = go()
    assert (summary.requested, summary.failed) == (3, [])


def test_masks_and_results_below_the_images_are_no_images(parts, fake_engine, tmp_path):
    root = tmp_path / "all"
    (root / "sub").mkdir(parents=True)
    parts[0].rename(root / "sub" / "images")
    parts[1].rename(root / "masks")
    (root / "masks" / "sub").mkdir()
    for mask in (root / "masks").glob("*.png"):
        (root / "masks" / "sub" / "images").mkdir(exist_ok=True)
        mask.rename(root / "masks" / "sub" / "images" / mask.name)
    for _ in range(2):
        folders = {"out": root / "out", "masks": root / "masks"}
        summary = synthesize(root, engine=fake_engine[0], quiet=True, **folders)
        assert (summary.requested, summary.kept, summary.failed) == (3, 3, [])


def test_one_folder_for_two_things(parts, fake_engine, tmp_path):
    images = parts[0]
    for masks, out in (
        (images, tmp_path / "out"),
        (parts[1], images),
        (images / ".." / "images", parts[1]),
    ):
        with pytest.raises(UsageError, match="images, masks and results need a folder each"):
            synthesize(images, out, engine=fake_engine[0], masks=masks, quiet=True)
    assert len(list(images.iterdir())) == 3


def test_an_engine_that_is_not_square(go, fake_engine):
    manifest = fake_engine[1].manifest
    image = manifest.image.model_copy(update={"width": 64})
    fake_engine[1].manifest = manifest.model_copy(update={"image": image})
    with pytest.raises(EngineError, match="not a square"):
        go()


def test_what_is_no_list_of_images_is_refused(fake_engine, tmp_path):
    grey, out = np.full((60, 80), 128, np.uint8), tmp_path / "out"
    for image in (grey, grey[..., None].repeat(3, axis=2), Image.fromarray(grey)):
        with pytest.raises(UsageError, match=r"one image alone; give a list of them"):
            synthesize(image, out, quiet=True)
    with pytest.raises(InputError, match="the list is empty"):
        synthesize([], out, quiet=True)
    with pytest.raises(InputError, match=r"nowhere.png: cannot be read"):
        synthesize([tmp_path / "nowhere.png"], out, quiet=True)
    assert not out.exists()


def test_a_bad_file_of_a_list_is_told_by_its_name_alone(fake_engine, tmp_path):
    save(tmp_path / "good.png", np.full((60, 80), 128, np.uint8))
    (tmp_path / "bad.png").write_bytes(b"no image")
    given = [tmp_path / "good.png", tmp_path / "bad.png"]
    summary = synthesize(given, tmp_path / "out", engine=fake_engine[0], quiet=True)
    (reason,) = summary.failed
    assert reason.startswith("bad.png: not an image")


@pytest.mark.parametrize(("top", "told"), [(4095, True), (65535, False)])
def test_twelve_bits_in_sixteen_are_told(go, parts, capsys, top, told):
    image = np.random.default_rng(0).integers(0, top + 1, (60, 80), dtype=np.uint16)
    (parts[0] / "0.png").write_bytes(encode_png(image))
    go()
    note = capsys.readouterr().err
    assert ("1 images have 16 bits and use the lower 13 of them at most" in note) == told
    assert ("0.png; scale them" in note) == told
