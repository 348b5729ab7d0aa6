"""Masks that are proposed: where something stands out, and nowhere else; marked as proposed."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from support.program import command_line

from defectrt.errors import InputError
from defectrt.training.data.dataset import read_dataset
from defectrt.training.data.proposals import (
    _HALF,
    _LEAST,
    Proposer,
    _drawn_around,
    _from_half,
    is_proposed,
    propose,
    proposed_in,
)
from defectrt.training.data.samples import read_good, read_pairs


def surface(seed, height=96, width=120):
    """Grain on grey, and a dark rim on the left that every image has."""
    image = np.random.default_rng(seed).normal(150, 5, (height, width, 1))
    image[:, :9] -= 80
    return image.clip(0, 255).astype(np.uint8)


def spotted(seed, level=60, radius=7, centre=(70, 45)):
    image, mask = surface(seed), np.zeros((96, 120), np.uint8)
    cv2.circle(mask, centre, radius, 1, -1)
    image[mask > 0] = level
    return image, mask > 0


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.fixture(scope="module")
def proposer():
    return Proposer(surface(100 + i) for i in range(12))


@pytest.mark.parametrize("level", [60, 250])
def test_what_is_darker_or_brighter_is_marked(proposer, level):
    image, mask = spotted(0, level)
    assert overlap(proposer(image), mask) > 0.7


def test_the_rim_that_all_images_have_is_no_defect(proposer):
    marked = [proposer(surface(i)) for i in range(10)]
    assert max(mask.mean() for mask in marked) < 0.01
    assert not any(mask[10:-10, 6:14].any() for mask in marked)


def test_views_that_differ_are_compared_roughly():
    proposer = Proposer(surface(100 + i, 90 + i, 110 + 2 * i) for i in range(12))
    image, mask = spotted(0)
    assert overlap(proposer(image), mask) > 0.6


def test_what_is_always_there_is_no_defect_in_a_fixed_view():
    def with_hole(seed):
        image = surface(seed)
        cv2.circle(image, (30, 70), 6, 20, -1)
        return image

    proposer = Proposer(with_hole(100 + i) for i in range(12))
    image, mask = with_hole(0), np.zeros((96, 120), np.uint8)
    cv2.circle(mask, (80, 30), 6, 1, -1)
    image[mask > 0] = 60
    assert overlap(proposer(image), mask > 0) > 0.6


def test_a_thin_line_is_marked_a_px_wider(proposer):
    image, line = surface(0), np.zeros((96, 120), bool)
    line[20:80, 60] = True
    image[line] = 50
    marked = proposer(image)
    assert marked[22:78, 59:62].all()
    assert not marked[:, :55].any()


def test_a_box_says_that_something_is_there_and_where(proposer):
    image, mask = spotted(0, level=115, radius=5)  # the fainter of two spots
    other, _ = spotted(0, level=10, centre=(30, 30))
    image[:, :50] = other[:, :50]
    assert not (proposer(image) & mask).any()
    boxed = proposer(image, [(36, 60, 56, 80)])
    assert overlap(boxed, mask) > 0.5
    assert not boxed[:, :60].any()


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        for name in ("pit", "good"):
            (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(spotted(i)[0][..., 0]).save(tmp_path / "pit" / f"{i}.png")
    for i in range(8):
        Image.fromarray(surface(50 + i)[..., 0]).save(tmp_path / "good" / f"{i}.png")
    return tmp_path


def test_masks_are_written_beside_the_images_and_read_again(folder):
    found = propose(folder, [])
    assert found.proposed == ["pit/0.png", "pit/1.png", "pit/2.png"]
    assert found.nothing == []
    samples = read_pairs(folder / "pit", "pit")
    assert [overlap(s.mask, spotted(0)[1]) > 0.7 for s in samples] == [True] * 3
    assert proposed_in(folder) == {folder / "pit" / f"{i}.png" for i in range(3)}
    assert not list((folder / "good").glob("*_mask.png"))


def test_a_mask_that_is_there_stays_and_one_that_was_changed_is_not_proposed(folder):
    mine = folder / "pit" / "0_mask.png"
    Image.fromarray((spotted(0)[1] * 255).astype(np.uint8)).save(mine)
    before = mine.read_bytes()
    assert propose(folder, read_good(folder / "good")).proposed == ["pit/1.png", "pit/2.png"]
    assert mine.read_bytes() == before
    other = folder / "pit" / "1_mask.png"
    with Image.open(other) as picture:
        picture.load()
        info = picture.info
    levels = np.array(picture)
    levels[0, 0] = 255
    kept = PngImagePlugin.PngInfo()
    for key, text in info.items():
        kept.add_text(key, text)
    Image.fromarray(levels).save(other, pnginfo=kept)  # an editor that keeps what it knows not
    marks = [is_proposed(folder / "pit" / f"{i}_mask.png") for i in range(3)]
    assert marks == [False, False, True]
    assert proposed_in(folder) == {folder / "pit" / "2.png"}


def test_in_mvtecs_layout_masks_go_where_it_wants_them(folder):
    (folder / "train").mkdir()
    (folder / "good").rename(folder / "train" / "good")
    (folder / "test").mkdir()
    (folder / "pit").rename(folder / "test" / "pit")
    assert len(propose(folder, []).proposed) == 3
    names = sorted(p.name for p in (folder / "ground_truth" / "pit").iterdir())
    assert names == ["0_mask.png", "1_mask.png", "2_mask.png"]


def test_in_mvtecs_layout_masks_that_are_there_are_no_images(folder):
    test_in_mvtecs_layout_masks_go_where_it_wants_them(folder)
    (folder / "ground_truth" / "pit" / "1_mask.png").unlink()
    assert propose(folder, []).proposed == ["test/pit/1.png"]
    assert propose(folder, []).proposed == []
    assert len(list(folder.rglob("*_mask.png"))) == 3
    assert len(read_dataset(folder).samples()) == 3 + 8
    assert proposed_in(folder) == {folder / "test" / "pit" / f"{i}.png" for i in range(3)}


def test_in_folders_of_images_and_masks_they_go_beside_the_other_masks(folder):
    (folder / "pit" / "images").mkdir()
    for i in range(3):
        (folder / "pit" / f"{i}.png").rename(folder / "pit" / "images" / f"{i}.png")
    (folder / "pit" / "masks").mkdir()
    Image.fromarray((spotted(0)[1] * 255).astype(np.uint8)).save(folder / "pit" / "masks" / "0.png")
    assert propose(folder, []).proposed == ["pit/images/1.png", "pit/images/2.png"]
    names = sorted(p.name for p in (folder / "pit" / "masks").iterdir())
    assert names == ["0.png", "1_mask.png", "2_mask.png"]
    assert propose(folder, []).proposed == []
    defects = [s for s in read_dataset(folder).samples() if s.defect_type == "pit"]
    assert [bool(s.mask.any()) for s in defects] == [True] * 3


@pytest.mark.parametrize(
    ("text", "said"),
    [("0 0.5 0.5 0.2", "line 1: expected"), ("0 0.5 0.5 0 0.1", "no width"), ("a", "line 1")],
)
def test_boxes_that_cannot_be_read(folder, text, said):
    (folder / "pit" / "0.txt").write_text(text + "\n")
    with pytest.raises(InputError, match=said):
        propose(folder, [])


def test_a_file_that_is_no_text_is_no_box(folder):
    (folder / "pit" / "0.txt").write_bytes("not boxes".encode("utf-16"))
    with pytest.raises(InputError, match="not a text in YOLO"):
        propose(folder, [])


def test_without_good_images_nothing_can_be_compared(folder):
    for path in (folder / "good").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no good images"):
        propose(folder, [])


@pytest.mark.slow
def test_the_command_says_where_nothing_stands_out(folder):
    Image.fromarray(surface(50)[..., 0]).save(folder / "pit" / "9.png")  # like a good one
    done = command_line("data", "propose", folder, "--quiet")
    assert done.returncode == 7
    assert "3 masks proposed; look at them" in done.stdout
    assert "9.png: nothing stands out; draw its mask, or a box" in done.stderr
    assert command_line("data", "propose", folder, "--quiet").returncode == 7


def test_pieces_are_those_that_labelling_all_px_for_every_strongest_one_finds():
    rng = np.random.default_rng(0)
    for trial in range(60):
        noise = rng.normal(0, 1, rng.integers(1, 40, 2)).astype(np.float32)
        away = np.maximum(cv2.GaussianBlur(noise, (0, 0), rng.choice([0.3, 0.8, 2])), 0)
        away = np.round(away * 8) / 8 if trial % 3 == 0 else away
        for limit in (0.0, 0.2, _HALF * float(away.max()), 9.0):
            assert (_from_half(away, limit) == labelled_for_each(away, limit)).all()


def labelled_for_each(away, limit):
    mask = np.zeros(away.shape, bool)
    seeds = np.argwhere(away >= max(limit, 1e-6))
    for y, x in seeds[np.argsort(-away[tuple(seeds.T)], kind="stable")]:
        _, labels = cv2.connectedComponents((away > _HALF * away[y, x]).astype(np.uint8))
        piece = labels == labels[y, x]
        if not mask[y, x] and piece.sum() >= _LEAST:
            mask |= _drawn_around(piece)
    return mask


def test_a_large_noisy_picture_takes_as_long_as_its_px():
    away = np.abs(np.random.default_rng(0).normal(0, 1, (1000, 1000))).astype(np.float32)
    start = time.process_time()
    assert _from_half(away, _HALF * float(away.max())).any()
    assert time.process_time() - start < 30  # 2 s; labelling for each strongest px takes hours
