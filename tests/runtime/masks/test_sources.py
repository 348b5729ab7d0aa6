"""Masks from every source: seeded, recorded, whole inside their region, or the image is out."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from support.outputs import records, save

from defectrt.config.masks import MaskConfig
from defectrt.errors import InputError, NothingDoneError, PartialError, UsageError
from defectrt.images.reading import read_image
from defectrt.masks import sources
from defectrt.masks.bank import read_bank, transplant
from defectrt.masks.examples import Examples
from defectrt.masks.folder import MaskFolder
from defectrt.masks.pieces import pieces
from defectrt.masks.placement import paste
from defectrt.masks.places import Places
from defectrt.masks.reading import read_mask
from defectrt.masks.regions import Region
from defectrt.masks.shapes import draw_shape
from defectrt.masks.sources import open_masks
from defectrt.synthesis.job import synthesize

IMAGE = np.full((120, 150, 3), 128, np.uint8)


class Fixed:
    """A region, given."""

    def __init__(self, mask):
        self.mask, self.calls = mask, 0

    def __call__(self, source, image):
        self.calls += 1
        return Region(self.mask, {"from": "fixed"})

    def record(self):
        return {"from": "fixed"}


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")
    rng = np.random.default_rng(0)
    for i in range(4):
        mask = np.zeros((80, 90), np.uint8)
        cv2.ellipse(mask, (45, 40), (int(rng.integers(4, 20)), 3), i * 40, 0, 360, 255, -1)
        save(folder / f"{i}_mask.png", mask)
    return folder


def options_of(bank):
    return {"drawn": {}, "bank": {"mask_bank": bank}, "perlin": {"shape": "perlin"}}


def source_of(defect="hole", seed=0, **options):
    return open_masks(MaskConfig(**options), defect, window=64, seed=seed, band=6)


@pytest.mark.parametrize("drawn", ["drawn", "bank", "perlin"])
def test_a_sample_depends_on_its_seed_name_and_number_alone(bank, drawn):
    def masks(seed=1, name="a/7.png", sample=0):
        source = source_of("scratch", seed, **options_of(bank)[drawn])
        source("other.png", IMAGE[:100], 3)  # what came before does not matter
        (instance,) = source(name, IMAGE, sample)
        return instance

    one, same = masks(), masks()
    np.testing.assert_array_equal(one.mask, same.mask)
    assert one.record == same.record
    assert json.loads(json.dumps(one.record)) == one.record
    others = [masks(seed=2), masks(name="a/8.png"), masks(sample=1)]
    assert len({instance.record["seed"] for instance in [one, *others]}) == 4
    assert not any(np.array_equal(one.mask, other.mask) for other in others)


@pytest.mark.parametrize("drawn", ["drawn", "bank", "perlin"])
def test_every_type_draws_places_of_its_own(bank, drawn):
    def corner(defect):
        (instance,) = source_of(defect, 1, **options_of(bank)[drawn])("a.png", IMAGE, 0)
        return tuple(instance.record["corner"])

    assert len({corner(defect) for defect in ("scratch", "hole", "crack")}) == 3


def test_the_record_of_a_transplant_makes_it_again(bank):
    source = source_of(seed=3, mask_bank=bank)
    entries = {(e.file, e.piece): e for e in read_bank(bank, 16)}
    seen = set()
    for sample in range(30):
        (instance,) = source("7.png", IMAGE, sample)
        r = instance.record
        entry = entries[r["file"], r["piece"]]
        assert r["sha256"] == entry.sha256
        assert 0.8 * 0.85**5 <= r["scale"] <= 1.25
        shape = transplant(entry.shape, r["angle"], r["scale"], mirror=r["mirror"], min_area=16)
        np.testing.assert_array_equal(instance.mask, paste(shape, r["corner"], IMAGE.shape[:2]))
        seen.add((r["file"], r["mirror"]))
    assert len(seen) >= 6


def test_the_record_of_a_drawn_mask_makes_it_again():
    source = source_of("crack", 3, instances=2)
    for sample in range(10):
        for instance in source("7.png", IMAGE, sample):
            r = instance.record
            shape = draw_shape(r["shape"], r["size"], np.random.default_rng(r["shape_seed"]))
            np.testing.assert_array_equal(instance.mask, paste(shape, r["corner"], IMAGE.shape[:2]))


def counts_of(source, samples=60):
    """How many samples have each number of instances."""
    return Counter(len(source("7.png", IMAGE, sample)) for sample in range(samples))


@pytest.mark.parametrize("drawn", ["drawn", "bank", "perlin"])
def test_every_number_of_instances_that_was_asked_for_is_as_frequent(bank, drawn):
    source = source_of(size=(4, 8), instances="1,3", **options_of(bank)[drawn])
    found = counts_of(source)
    assert set(found) == {1, 2, 3}
    assert min(found.values()) >= 10
    assert source.record()["instances"] == (1, 3)


def test_without_a_number_there_are_as_many_as_the_examples_show():
    places = Places(low=0.0, high=1e3, at_frame=True)
    disc = np.ones((3, 3), bool)
    own = Examples.of([disc], [0.5], directed=False, places=places, instances=[1, 4, 4, 4])

    def source(**options):
        config = MaskConfig(**options)
        return open_masks(config, "hole", window=64, seed=0, band=2, examples=own)

    found = counts_of(source())
    assert set(found) == {1, 4}
    assert 0.6 < found[4] / found.total() < 0.9
    assert counts_of(source(shape="blob", size=(3, 3))) == found
    assert set(counts_of(source(instances=2))) == {2}


def test_examples_shapes_are_scaled_or_left_for_drawn_ones():
    places = Places(low=0.0, high=1e3, at_frame=True)
    disc = np.hypot(*np.mgrid[-12:13, -12:13]) <= 12
    own = Examples.of([disc], [0.5], directed=False, places=places, instances=[1])

    def placed(**options):
        masks = open_masks(
            MaskConfig(**options), "scratch", window=64, seed=0, band=2, examples=own
        )
        return [masks("a.png", np.zeros((200, 200, 1), np.uint8), n)[0] for n in range(30)]

    areas = {
        s: [p.mask.sum() / disc.sum() for p in placed(mask_scale=s)] for s in ((0.5, 0.6), (2, 3))
    }
    assert max(areas[0.5, 0.6]) < 0.5
    assert min(areas[2, 3]) > 2.5
    assert {p.record["from"] for p in placed()} == {"examples"}
    assert {p.record["shape"] for p in placed(shape="drawn")} == {"scratch"}


def test_where_not_all_have_room_there_are_as_many_as_fit_but_the_least():
    small = np.full((16, 40), 128, np.uint8)[..., None]

    def found(instances):
        source = source_of("hole", size=(6, 6), margin=0, instances=instances)
        return {len(source("7.png", small, sample)) for sample in range(20)}

    assert {2} < found((1, 9)) <= {1, 2, 3}
    with pytest.raises(InputError, match=r"7.png: no place for mask \d whole inside its region"):
        found((4, 9))


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    drawn=st.sampled_from(["drawn", "bank", "perlin"]),
    defect=st.sampled_from(["scratch", "hole", "crack"]),
    instances=st.integers(1, 3),
    margin=st.sampled_from([0, 6]),
    rough=st.floats(3, 12),
    share=st.floats(0.1, 0.95),
)
def test_no_pixel_is_forbidden_and_no_mask_is_clipped(
    bank, monkeypatch, seed, drawn, defect, instances, margin, rough, share
):
    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.normal(size=(120, 150)), (0, 0), rough)
    region = field < np.quantile(field, share)
    monkeypatch.setattr(sources, "_open_regions", lambda *_: Fixed(region))
    options = options_of(bank)[drawn] | {"instances": instances, "margin": margin}
    source = source_of(defect, seed, **options)
    try:
        placed = source("7.png", IMAGE, 0)
    except InputError:
        event("no place")
        return
    assert len(placed) == instances
    together = np.zeros(region.shape, int)
    for instance in placed:
        assert instance.mask.any()
        assert cv2.connectedComponents(instance.mask.astype(np.uint8))[0] == 2
        near = (
            cv2.distanceTransform(1 - instance.mask.astype(np.uint8), cv2.DIST_L2, 5)
            <= margin * 0.9
        )
        assert region[near].all()
        assert instance.record["within"] == {"from": "fixed"}
        together += instance.mask
    assert together.max() == 1
    if instances > 1:  # 13 px apart at least, so that their soft borders do not meet
        assert (
            cv2.connectedComponents(cv2.dilate(together.astype(np.uint8), np.ones((7, 7))))[0]
            == instances + 1
        )


def test_regions_are_told_once_an_image_and_forgotten_with_it(monkeypatch):
    region = Fixed(np.ones((120, 150), bool))
    monkeypatch.setattr(sources, "_open_regions", lambda *_: region)
    source = source_of()
    images = [IMAGE.copy(), IMAGE.copy()]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda k: source("7.png", images[k % 2], k), range(20)))
    assert region.calls == 2
    assert len(source.region._known) == 2
    del images[0]
    assert len(source.region._known) == 1


def test_a_region_that_cannot_be_told_is_asked_for_once(monkeypatch):
    def refuse(source, image):
        calls.append(source)
        raise InputError(f"{source}: cannot be told")

    calls = []
    monkeypatch.setattr(sources, "_open_regions", lambda *_: refuse)
    source = source_of()
    for sample in range(3):
        with pytest.raises(InputError, match=r"7.png: cannot be told"):
            source("7.png", IMAGE, sample)
    assert calls == ["7.png"]


def test_a_folder_gives_pieces_far_apart_as_instances(tmp_path):
    mask = np.zeros((120, 150), np.uint8)
    mask[10:14, 10:30] = mask[16:20, 12:15] = 255  # close together: one instance
    mask[100:110, 120:140] = 255
    save(tmp_path / "7.png", mask)
    placed = source_of(masks=tmp_path)("7.jpg", IMAGE, 0)
    assert [(p.record["piece"], int(p.mask.sum())) for p in placed] == [(0, 92), (1, 200)]
    np.testing.assert_array_equal(placed[0].mask | placed[1].mask, mask > 0)
    (whole,) = MaskFolder(tmp_path)("7.jpg", IMAGE, 0)
    np.testing.assert_array_equal(whole.mask, mask > 0)


@settings(max_examples=100)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60), st.integers(1, 20),
    st.floats(0, 0.1),
)  # fmt: skip
def test_pieces_are_all_of_the_mask_and_apart(seed, h, w, gap, share):
    mask = np.random.default_rng(seed).random((h, w)) < share
    found = pieces(mask, gap)
    together = np.zeros(mask.shape, int)
    for piece in found:
        together += paste(piece.shape, piece.corner, mask.shape)
    np.testing.assert_array_equal(together, mask)
    for i, a in enumerate(found):
        for b in found[:i]:
            pa, pb = (np.argwhere(p.shape) + p.corner for p in (a, b))
            assert np.abs(pa[:, None] - pb[None]).max(axis=2).min() >= gap


def test_given_masks_lie_in_their_region_or_the_image_is_out(tmp_path):
    for name, x in (("in", 20), ("out", 95)):
        mask = np.zeros((120, 150), np.uint8)
        mask[40:50, x : x + 10] = 255
        save(tmp_path / "masks" / f"{name}.png", mask)
    region = np.zeros((120, 150), np.uint8)
    region[:, :100] = 255
    save(tmp_path / "region.png", region)
    source = source_of(masks=tmp_path / "masks", within=tmp_path / "region.png")
    (instance,) = source("in.png", IMAGE, 0)
    assert instance.record["within"]["file"] == "region.png"
    with pytest.raises(InputError, match=r"out.png: 50 px of its mask lie where no defect may be"):
        source("out.png", IMAGE, 0)
    assert set(source.record()) == {"from", "files", "within"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": "a", "mask_bank": "b"}, "masks, mask_bank, shape and like exclude each other"),
        (
            {"mask_bank": "a", "shape": "blob"},
            "masks, mask_bank, shape and like exclude each other",
        ),
        ({"shape": "scrach"}, "shape 'scrach': one of blob, crack, dent, hole, particle, perlin"),
        ({"within": "foreground", "golden": "g", "legal": "l"}, "within and golden exclude"),
        ({"golden": "g"}, "golden needs legal, forbidden or both"),
        ({"forbidden": "f"}, "legal and forbidden need golden"),
        ({"instances": 0}, "instances: from low to high, 1 to 100"),
        ({"instances": (3, 2)}, "instances: from low to high, 1 to 100"),
        ({"instances": "1,101"}, "instances: from low to high, 1 to 100"),
        ({"instances": "some"}, "instances: write a number or LOW,HIGH, as in 1,3, not 'some'"),
        ({"instances": 1.5}, "instances: write a number or LOW,HIGH, as in 1,3, not 1.5"),
        ({"masks": "a", "instances": 2}, "a folder of masks decides for itself"),
        ({"mask_scale": (2, 1)}, "mask_scale: from low to high"),
        ({"mask_min_area": 0}, "mask_min_area: .*greater than or equal to 1, not 0"),
        ({"margin": -1}, "margin: .*greater than or equal to 0, not -1"),
    ],
    ids=str,
)
def test_impossible_options(options, message):
    with pytest.raises(UsageError, match=message):
        MaskConfig(**options)


# ---- through the whole job ----------------------------------------------------------------------


def run(images, engine, out, **options):
    return synthesize(images, out, engine=engine, refine="none", quiet=True, **options)


def test_a_bank_within_regions_touches_no_forbidden_pixel(fake_engine, bank, tmp_path):
    rng = np.random.default_rng(0)
    allowed = np.zeros((100, 140), np.uint8)
    allowed[30:80, 20:110] = 1
    for i in range(4):
        grain = rng.integers(120, 140, (100, 140, 3)).astype(np.uint8)
        save(tmp_path / "images" / f"{i}.png", grain)
        save(tmp_path / "regions" / f"{i}.png", allowed if i < 3 else allowed[::-1] * (i < 3))
    where = {"mask_bank": bank, "within": tmp_path / "regions"}
    out = tmp_path / "out"
    summary = run(tmp_path / "images", fake_engine[0], out, count=2, **where)
    with pytest.raises(PartialError, match=r"6 of 8 samples.*\n.*3.png: the region is empty"):
        summary.check()
    for r in records(out):
        source = read_image(tmp_path / "images" / r["source"])
        result = read_image(out / r["image"])
        assert (result != source).any()
        np.testing.assert_array_equal(result[allowed == 0], source[allowed == 0])
        (instance,) = r["masks"]
        assert instance["within"]["file"] == r["source"]
    told = json.loads((out / "job.json").read_text())["masks"]
    assert told["from"] == "bank"
    assert told["within"]["from"] == "regions"


def test_images_of_a_surface_have_no_foreground(fake_engine, tmp_path):
    rng = np.random.default_rng(0)
    save(tmp_path / "images" / "0.png", rng.integers(100, 150, (90, 90), np.uint8))
    summary = run(tmp_path / "images", fake_engine[0], tmp_path / "out", within="foreground")
    with pytest.raises(NothingDoneError, match=r"0.png: cannot tell the part from its surround"):
        summary.check()


def test_the_bank_may_lie_among_the_images(fake_engine, bank, tmp_path):
    save(tmp_path / "0.png", np.full((90, 90), 130, np.uint8))
    for path in bank.iterdir():
        (tmp_path / "bank").mkdir(exist_ok=True)
        (tmp_path / "bank" / path.name).write_bytes(path.read_bytes())
    bank = str(tmp_path / "bank")
    summary = run(tmp_path, fake_engine[0], tmp_path / "out", mask_bank=bank)
    assert (summary.requested, summary.kept) == (1, 1)


def test_a_mask_of_the_folder_is_read_mask(fake_engine, parts, tmp_path):
    out = tmp_path / "out"
    assert run(parts[0], fake_engine[0], out, masks=parts[1]).kept == 3
    for r in records(out):
        label = read_image(out / r["label"])[..., 0] > 0
        mask = read_mask(parts[1] / r["masks"][0]["file"], label.shape)
        np.testing.assert_array_equal(label, mask)
