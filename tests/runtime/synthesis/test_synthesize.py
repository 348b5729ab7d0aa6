"""The job on an engine without a network: layout, bit-identity, independence."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest
from support.fake_engine import WINDOW
from support.outputs import dataset_of, records, save, tree

import defectrt
from defectrt.config.job import JobConfig, SynthesizerConfig
from defectrt.config.synthesis import SynthesisConfig
from defectrt.diffusion.seeds import sample_seed
from defectrt.errors import NothingDoneError, OutputError, PartialError, UsageError
from defectrt.images.compositing import feather
from defectrt.images.png import encode_png
from defectrt.images.reading import read_image
from defectrt.masks.reading import read_mask
from defectrt.output.dataset import DatasetWriter
from defectrt.synthesis import canvas, job
from defectrt.synthesis import pipeline as pipeline_module
from defectrt.synthesis.job import Summary, synthesize


def job_of(folder, engine, **options):
    """The job on ``images`` and ``masks`` of a folder, to ``out``."""
    options |= {"engine": engine, "masks": folder / "masks"}
    return synthesize(folder / "images", folder / "out", quiet=True, **options)


def test_layout(go):
    out, summary = go(category="plate")
    assert (summary.requested, summary.kept, summary.dropped, summary.failed) == (3, 3, [], [])
    expected = {"manifest.jsonl", "dropped.jsonl", "failed.jsonl"}
    expected |= {"job.json", "job.sqlite", "folder.yaml", "report.html"}
    for i in range(3):
        expected |= {
            f"plate/train/good/{i:03}.png",
            f"plate/test/spot/{i:03}.png",
            f"plate/ground_truth/spot/{i:03}_mask.png",
            f"masks/spot/{i:03}.png",
        }
    assert tree(out).keys() == expected
    summary.check()


@pytest.mark.parametrize("blend", ["residual", "decoded"])
@pytest.mark.parametrize("background", ["noised", "replay", "dual"])
def test_outside_the_band_every_pixel_is_the_sources(go, parts, blend, background):
    images, masks = parts
    out, _ = go(blend=blend, background=background, count=2)
    assert len(records(out)) == 6
    for r in records(out):
        source, result = read_image(images / r["source"]), read_image(out / r["image"])
        assert result.dtype == source.dtype
        assert result.shape == source.shape
        mask = read_mask(masks / r["masks"][0]["file"], source.shape[:2])
        outside = feather(mask, 2, 4) == 0
        np.testing.assert_array_equal(result[outside], source[outside])
        assert r["outside_error"] == 0
        darker = source[mask].mean() - result[mask].mean()
        assert darker > 0.3 * np.iinfo(source.dtype).max


def test_good_images_are_kept_bit_for_bit(go, parts):
    out, _ = go()
    for i in range(3):
        np.testing.assert_array_equal(
            read_image(out / f"parts/train/good/00{i}.png"), read_image(parts[0] / f"{i}.png")
        )


def test_labels_are_binary_and_inside_the_mask(go, parts):
    out, _ = go()
    for r in records(out):
        label = read_image(out / r["label"])
        assert label.dtype == np.uint8
        assert set(np.unique(label)) == {0, 255}
        mask = read_mask(parts[1] / r["masks"][0]["file"], label.shape[:2])
        assert not label[..., 0][~mask].any()
        assert r["refined_area"] == (label > 0).sum()
        assert r["mask_area"] == mask.sum()


def test_only_dual_touches_the_background_latent(go):
    for background in ("noised", "replay"):
        out, _ = go(background, background=background)
        assert all(r["latent_outside_error"] == 0 for r in records(out))
    dual, _ = go("dual", background="dual")
    assert all(r["latent_outside_error"] >= 0 for r in records(dual))


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_a_result_does_not_depend_on_the_batch(go, size):
    one, two = (dataset_of(go(str(b), count=2, batch_size=b)[0]) for b in (4, size))
    assert [name for name in one if one[name] != two[name]] == (["job.json"] if size != 4 else [])


def test_a_result_does_not_depend_on_the_other_images(go, parts):
    one, _ = go("a")
    (parts[0] / "0.png").unlink()
    two, _ = go("b")
    for r in records(two):
        other = next(o for o in records(one) if o["source"] == r["source"])
        np.testing.assert_array_equal(
            read_image(two / r["image"]), read_image(one / other["image"])
        )


def test_seed_and_sample_decide_the_noise(go, monkeypatch):
    seen, real = [], pipeline_module.normal
    monkeypatch.setattr(pipeline_module, "normal", lambda *a: seen.append(a[:3]) or real(*a))
    out, _ = go("a", count=2, seed=5, candidates=3)
    seeds = {r["seed"] for r in records(out)}
    assert seeds == {sample_seed(5, f"{i}.png", k) for i in range(3) for k in range(2)}
    assert sorted(seen) == sorted((seed, 0, candidate) for seed in seeds for candidate in range(3))


def test_a_defect_that_does_not_appear_is_not_a_sample(go, fake_engine):
    fake_engine[1].blind = True
    fake_engine[1].level = 0.2  # the colour of the parts
    out, summary = go()
    assert summary.kept == 0
    assert len(summary.dropped) == 3
    assert not (out / "parts" / "test").exists()
    with pytest.raises(
        NothingDoneError, match=r"0 of 3 samples[\s\S]*0.png, sample 0, spot: no defect"
    ):
        summary.check()


def test_a_link_that_leads_nowhere_is_named_and_the_rest_is_made(go, parts):
    (parts[0] / "2.png").unlink()
    (parts[0] / "2.png").symlink_to("gone.png")
    out, summary = go()
    assert len(records(out)) == 2
    (failed,) = summary.failed
    assert "2.png" in failed
    with pytest.raises(PartialError, match=r"2\.png"):
        summary.check()


def test_what_the_manifest_says(go, parts, fake_engine):
    out, _ = go(seed=3, steps=2, background="dual", blend="decoded", count=2)
    r = records(out)[3]
    assert r["image"] == "parts/test/spot/003.png"
    assert r["label"] == "parts/ground_truth/spot/003_mask.png"
    assert r["good"] == "parts/train/good/001.png"
    assert (r["source"], r["sample"]) == ("1.png", 1)
    sha256 = hashlib.sha256((parts[1] / "1_mask.png").read_bytes()).hexdigest()
    assert r["masks"] == [
        {"defect": "spot", "from": "folder", "file": "1_mask.png", "sha256": sha256}
    ]
    for key, path in (
        ("source_sha256", parts[0] / "1.png"),
        ("engine", fake_engine[0] / "engine.json"),
    ):
        assert r[key] == hashlib.sha256(path.read_bytes()).hexdigest()
    options = (r["defect"], r["seed"], r["steps"], r["background"], r["blend"])
    assert options == ("spot", sample_seed(3, "1.png", 1), 2, "dual", "decoded")
    changed = read_image(out / r["image"]) != read_image(parts[0] / "1.png")
    assert r["changed_area"] == changed.any(axis=2).sum() > r["mask_area"]
    assert r["tiles"][0]["window"] == {"y": 8, "x": 0, "side": WINDOW}
    assert r["visibility"] > 0.3
    assert "seconds" not in r


def test_an_image_is_inverted_once_and_the_engine_sees_one_size_only(go, fake_engine):
    """Three images, three defects each of two candidates, 4 steps each way; noised one way."""
    go("noised", count=3, candidates=2, batch_size=2)
    noised = len(fake_engine[1].batches)
    assert noised * 2 == 3 * 3 * 2 * 4
    fake_engine[1].batches.clear()
    go("replay", count=3, candidates=2, batch_size=2, background="replay")
    assert set(fake_engine[1].batches) == {2}
    rows = 3 * 4 + 3 * 3 * 2 * 4
    assert rows <= sum(fake_engine[1].batches) < rows + 2 * 12


def test_dual_denoises_the_background_beside_the_defect(go, fake_engine):
    go(batch_size=1, background="dual")
    assert fake_engine[1].batches == [1] * 3 * (4 + 2 * 4)


def test_a_seed_may_be_any_number(parts, fake_engine, tmp_path):
    for masks in (parts[1], None):
        out = tmp_path / str(masks is None)
        options = {"engine": fake_engine[0], "masks": masks, "seed": -1, "refine": "none"}
        assert synthesize(parts[0], out, quiet=True, **options).kept == 3


def test_numbers_and_images_below_folders(fake_engine, tmp_path):
    names = ["b/1.png", "a/2.png", "a/1.png", "a b/ü.png"]
    for name in names:
        save(tmp_path / "images" / name, np.full((40, 40), 150, np.uint8))
        save(tmp_path / "masks" / name, np.eye(40, dtype=np.uint8))
    sources = {"engine": fake_engine[0], "masks": tmp_path / "masks"}
    synthesize(tmp_path / "images", tmp_path / "o", quiet=True, **sources)
    assert {r["source"]: r["image"][-7:] for r in records(tmp_path / "o")} == {
        "a b/ü.png": "000.png",
        "a/1.png": "001.png",
        "a/2.png": "002.png",
        "b/1.png": "003.png",
    }


def test_a_job_lists_its_images_once(fake_engine, tmp_path, monkeypatch):
    """Beside goods lie what cannot be read, and datasets, begun and finished, in what is linked."""
    images, real, listed = tmp_path / "images", Path.iterdir, []
    for name in ("1.png", "a/2.png", "begun/3.png", "done/4.png"):
        save(images / name, np.full((40, 40), 150, np.uint8))
    for name in ("x.webp", "begun/job.sqlite", "done/job.json", "done/manifest.jsonl"):
        (images / name).touch()
    (images / "done").rename(tmp_path / "done")
    (images / "linked").symlink_to(tmp_path / "done")
    monkeypatch.setattr(Path, "iterdir", lambda path: listed.append(path) or real(path))
    monkeypatch.setattr(Path, "rglob", lambda *_: pytest.fail("walked in another way"))
    monkeypatch.setattr("defectrt.synthesis.job.open_engine", lambda *_: pytest.fail("too far"))
    goods = []
    monkeypatch.setattr(
        "defectrt.synthesis.job._find_goods",
        lambda *a, find=job._find_goods: goods.extend(find(*a)) or goods,
    )
    with pytest.raises(pytest.fail.Exception, match="too far"):
        synthesize(images, tmp_path / "out", engine=fake_engine[0], quiet=True)
    assert [good.name for good in goods] == ["1.png", "a/2.png"]
    below = {images, images / "a", images / "begun", images / "linked"}
    assert sorted(path for path in listed if path.is_relative_to(images)) == sorted(below)


@pytest.mark.parametrize(
    ("dtype", "channels"),
    [("u1", 1), ("u1", 2), ("u1", 3), ("u1", 4), ("u2", 1), ("u2", 3), ("u2", 4)],
)
@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((20, 90), (5, 12, 40, 50)),  # lower than the window
        ((3, 3), (0, 2, 1, 3)),  # smaller all over
        ((80, 70), (0, 6, 64, 70)),  # a mask in the corner
        ((150, 170), (20, 130, 30, 90)),  # a mask larger than the window
        ((40, 40), (0, 40, 0, 39)),  # a mask over nearly everything
    ],
    ids=["low", "tiny", "corner", "large", "full"],
)
def test_images_and_masks_of_every_size(fake_engine, tmp_path, dtype, channels, size, box):
    top, y0, y1, x0, x1 = np.iinfo(dtype).max, *box
    rng = np.random.default_rng(0)
    image = rng.integers(top // 2, top * 2 // 3, (*size, channels), dtype)
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encode_png(image))
    save(tmp_path / "masks" / "a.png", mask)
    job_of(tmp_path, fake_engine[0], feather=7.5).check()
    (r,) = records(tmp_path / "out")
    result = read_image(tmp_path / "out" / r["image"])
    assert result.dtype == dtype
    weight = feather(mask, 2, 7.5)
    np.testing.assert_array_equal(result[weight == 0], image[weight == 0])
    moved = (result != image).any(axis=2)
    assert moved[mask].mean() > 0.95
    if channels in (2, 4):
        np.testing.assert_array_equal(result[..., -1], image[..., -1])
    label = read_image(tmp_path / "out" / r["label"])[..., 0] > 0
    assert not label[~mask].any()
    assert label.sum() > 0.8 * mask.sum()


def test_the_window_leaves_room_for_the_band(fake_engine, tmp_path):
    """A wide soft border lies inside the window, so no seam shows where the window ends."""
    image = np.full((120, 120), 200, np.uint8)
    mask = np.zeros((120, 120), bool)
    mask[50:66, 50:66] = True
    save(tmp_path / "images" / "a.png", image)
    save(tmp_path / "masks" / "a.png", mask)
    job_of(tmp_path, fake_engine[0], feather=20, context=0)
    window = records(tmp_path / "out")[0]["tiles"][0]["window"]
    band = feather(mask, 2, 20) > 0
    inside = np.zeros_like(band)
    inside[window["y"] :, window["x"] :][: window["side"], : window["side"]] = True
    assert inside[band].all()


def test_residual_keeps_the_grain_and_decoded_takes_the_models(go, parts):
    """Under the mask, residual is the source plus a smooth change; decoded is the model's flat."""
    for blend in ("residual", "decoded"):
        out, _ = go(blend, blend=blend)
        r = records(out)[0]
        source, result = read_image(parts[0] / "0.png"), read_image(out / r["image"])
        core = (slice(22, 26), slice(12, 18))
        grain = np.std(result[core].astype(float))
        if blend == "residual":
            assert grain > 0.5 * np.std(source[core].astype(float))
        else:
            assert grain < 1


def test_a_file_that_is_not_what_was_written_is_not_kept(go, monkeypatch, tmp_path):
    """Measured on the file: one bit outside the band is one too many."""
    write = DatasetWriter.write

    def bad_disk(self, name, defect, image, *masks):
        image[0, 0] ^= 1
        return write(self, name, defect, image, *masks)

    monkeypatch.setattr(DatasetWriter, "write", bad_disk)
    with pytest.raises(OutputError, match=r"00\d.png: differs from its source outside the mask"):
        go()
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


def test_a_label_that_lies_only_beyond_the_border_is_none(fake_engine, tmp_path, monkeypatch):
    """The window mirrors what is beyond the image; a label there is nobody's."""
    save(tmp_path / "images" / "a.png", np.full((20, 40), 150, np.uint8))
    save(tmp_path / "masks" / "a.png", np.tile(np.arange(40) < 39, (20, 1)))

    def beyond(mask, attention, change, how):
        label = np.zeros_like(mask)
        label[0] = mask[0]
        return label

    monkeypatch.setattr(canvas, "refine", beyond)
    summary = job_of(tmp_path, fake_engine[0])
    assert summary.dropped == ["a.png, sample 0, spot: no defect appeared"]


def test_it_runs_outside_the_main_thread(go):
    results = []
    thread = threading.Thread(target=lambda: results.append(go()[1]))
    thread.start()
    thread.join()
    assert results[0].kept == 3


@pytest.mark.parametrize(
    ("kept", "error"), [(4, None), (3, PartialError), (1, PartialError), (0, NothingDoneError)]
)
def test_the_summary_knows_its_exit(kept, error):
    summary = Summary(requested=4, kept=kept, failed=["a: bad"], dropped=["b: none"])
    if error is None:
        summary.check()
    else:
        with pytest.raises(error, match=rf"{kept} of 4 samples were made\n  a: bad\n  b: none"):
            summary.check()


@pytest.mark.parametrize(
    "change",
    [
        {"count": 0},
        {"batch_size": 0},
        {"grow": -1},
        {"feather": float("nan")},
        {"grow": float("inf")},
        {"context": -1},
        {"background": "x"},
        {"blend": "y"},
    ],
    ids=str,
)
def test_impossible_options(change):
    with pytest.raises(UsageError, match=rf"not possible:\n  {next(iter(change))}: "):
        SynthesizerConfig(**change)


def test_all_impossible_options_at_once():
    wrong = {"count": 0, "batch_size": 0, "grow": -1, "background": "x", "blend": "y"}
    with pytest.raises(UsageError) as caught:
        SynthesizerConfig(**wrong)
    said = [line.strip().partition(":")[0] for line in str(caught.value).splitlines()[1:]]
    assert sorted(said) == sorted(wrong)


def test_the_record_of_a_job_holds_all_that_decides_the_result():
    config = JobConfig(images="a", out="b", refine_threshold=0.3)
    assert set(config.record()) == set(SynthesisConfig.model_fields)
    assert config.record()["refine_threshold"] == 0.3


def test_the_package_offers_the_job():
    assert defectrt.synthesize is synthesize
    assert defectrt.JobConfig is JobConfig
    assert defectrt.SynthesizerConfig is SynthesizerConfig
    assert defectrt.Summary is Summary
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        _ = defectrt.nonesuch


def test_without_masks_they_are_drawn_from_the_seed_and_the_name(parts, fake_engine, tmp_path):
    outs = [tmp_path / name for name in "abc"]
    for out, seed in zip(outs, (1, 1, 2), strict=True):
        made = synthesize(parts[0], out, engine=fake_engine[0], seed=seed, quiet=True)
        assert made.kept == 3
    one, same, other = ([read_image(o / r["label"]) for r in records(o)] for o in outs)
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    drawn = [r["masks"][0] for r in records(outs[0])]
    assert {d["from"] for d in drawn} == {"drawn"}
    assert len({d["seed"] for d in drawn}) == 3


def test_the_results_of_another_job_are_no_good_images(parts, fake_engine, tmp_path):
    images, masks = parts
    first = synthesize(images, images / "first", engine=fake_engine[0], masks=masks, quiet=True)
    again = synthesize(images, tmp_path / "again", engine=fake_engine[0], masks=masks, quiet=True)
    assert first.requested == again.requested == 3


@pytest.mark.parametrize(
    "category", ["yolo", "YOLO", "coco", "masks", "manifest.jsonl", "report.html", "job.sqlite"]
)
def test_a_category_has_no_name_of_ours(go, tmp_path, category):
    with pytest.raises(UsageError, match="is the name of something else in OUT"):
        go(category=category)
    assert not (tmp_path / "out").exists()
