"""Candidates: which are fit, which is best, and that no instance is left without a defect."""

from __future__ import annotations

import numpy as np
import pytest
from support.fake_engine import LATENT, WINDOW, FakeEngine

from defectrt.config.synthesis import SynthesisConfig
from defectrt.diffusion.noise import normal
from defectrt.synthesis.acceptance import fault, score
from defectrt.synthesis.pipeline import Pipeline, SourceImage
from defectrt.synthesis.scheduler import Scheduler, Task

#: What the parts of these tests are, as grey and as the engine sees it.
GREY, LEVEL = 153, 0.2


class Fickle(FakeEngine):
    """Paints a dark spot where the noise under the mask is negative on the whole, else nothing."""

    def _clean(self, rows):
        mask = np.broadcast_to(rows.mask, rows.latent.shape)
        mean = (rows.latent * mask).sum((1, 2, 3)) / np.maximum(mask.sum((1, 2, 3)), 1)
        level = np.where(mean < 0, -0.8, LEVEL).reshape(-1, 1, 1, 1)
        return np.where(rows.mask > 0, level, rows.latent).astype(np.float32)


def instance(y, x, size=64):
    mask = np.zeros((size, size), bool)
    mask[y : y + 8, x : x + 8] = True
    return mask


def make(engine, instances, seed, candidates=1, **options):
    pipeline = Pipeline(engine, SynthesisConfig(candidates=candidates, **options))
    good = SourceImage("part.png", np.full((64, 64, 3), GREY, np.uint8))
    (task,) = Scheduler(engine).run([Task(pipeline.sample(good, 0, instances, seed))])
    return task.result()


def is_dark(seed, tile, candidate):
    """Whether the noise of a candidate is negative under the mask of an instance of 8 px."""
    noise = normal(seed, tile, candidate, (3, LATENT, LATENT))
    at = slice(LATENT // 2 - 2, LATENT // 2 + 2)
    return noise[:, at, at].mean() < 0


def test_an_engine_for_fine_defects_sees_less_of_the_image_enlarged():
    engine = FakeEngine()
    engine.manifest = engine.manifest.model_copy(update={"magnify": 2})
    mask = np.zeros((64, 64), bool)
    mask[30, 28:34] = True
    sample = make(engine, [mask], seed=0, candidates=1, grow=1, feather=2, context=4)
    (tile,) = sample.figures["tiles"]
    assert tile["window"]["side"] == WINDOW // 2
    assert sample.fault is None
    assert (sample.image[~sample.band] == GREY).all()
    assert sample.image[mask].mean() < GREY - 20


def striped(height, width):
    """Stripes that are too fine for the model's window, which sees them grey."""
    image = np.full((height, width, 3), GREY, np.uint8)
    image[:, ::2] -= 40
    image[:, 1::2] += 40
    return image


def test_an_engine_that_sees_images_whole_paints_at_their_own_resolution():
    """What is too fine for it stays as it was, and goes where it painted."""
    engine = FakeEngine()
    engine.manifest = engine.manifest.model_copy(update={"magnify": "fit"})
    image, mask = striped(96, 128), np.zeros((96, 128), bool)
    mask[30:60, 40:90] = True
    mask[80:90, 10:20] = True
    pipeline = Pipeline(engine, SynthesisConfig(grow=1, feather=2))
    good = SourceImage("part.png", image)
    (task,) = Scheduler(engine).run([Task(pipeline.sample(good, 0, [mask], 0))])
    sample = task.result()
    (tile,) = sample.figures["tiles"]
    assert tile["window"] == {"y": -16, "x": 0, "side": 128}
    assert sample.fault is None
    np.testing.assert_array_equal(sample.image[~sample.band], image[~sample.band])
    assert (sample.label == mask).mean() > 0.99
    middle = sample.image[36:54, 48:82].astype(int)
    assert middle.mean() < GREY - 60
    assert np.abs(middle[:, 1:] - middle[:, :-1]).max() <= 2


def test_one_image_serves_pipelines_of_several_schedules():
    """Each gets the inversion of its own; what it makes is what it makes of a fresh image."""
    engine, shared = FakeEngine(), SourceImage("part.png", striped(64, 64))
    for steps, background in ((4, "replay"), (2, "replay"), (4, "noised"), (2, "dual")):
        pipeline = Pipeline(engine, SynthesisConfig(steps=steps, background=background))
        fresh = SourceImage("part.png", striped(64, 64))
        tasks = [Task(pipeline.sample(s, 0, [instance(28, 28)], 0)) for s in (shared, fresh)]
        one, two = (task.result() for task in Scheduler(engine).run(tasks))
        np.testing.assert_array_equal(one.image, two.image)


@pytest.mark.parametrize("seed", range(8))
def test_the_best_candidate_is_kept_and_the_unfit_are_counted(seed):
    sample = make(Fickle(), [instance(28, 28)], seed, candidates=5)
    dark = [is_dark(seed, 0, c) for c in range(5)]
    assert sample.tries == 5
    assert len(sample.rejected) == dark.count(False)
    assert (sample.fault is None) == any(dark)
    if any(dark):
        assert dark[sample.figures["tiles"][0]["candidate"]]


def test_a_sample_with_one_instance_missing_is_not_a_sample():
    """Were it kept, the image would show fewer defects than were asked for."""
    instances = [instance(28, 28), instance(2, 2)]
    faults = [make(Fickle(), instances, seed, retries=0).fault for seed in range(12)]
    assert None in faults
    assert any(fault and fault.startswith("1 of 2 instances: no defect") for fault in faults)
    assert any(fault and fault.startswith("2 of 2 instances: no defect") for fault in faults)


def test_while_none_is_fit_as_many_candidates_are_tried_again():
    first = [make(Fickle(), [instance(28, 28)], seed, retries=0) for seed in range(12)]
    again = [make(Fickle(), [instance(28, 28)], seed, retries=20) for seed in range(12)]
    assert {one.tries for one in first} == {1}
    assert any(one.fault for one in first)
    assert not any(one.fault for one in again)
    for one, more in zip(first, again, strict=True):
        assert (more.tries > 1) == bool(one.fault)
        assert len(more.rejected) == more.tries - 1
        assert more.figures["tiles"][0]["candidate"] == more.tries - 1


def test_too_small_a_change_and_a_leak_are_faults():
    job = SynthesisConfig(min_coverage=0.1, max_leak=0.5)
    assert fault(job, shown=0.1, visibility=0.2, coverage=0.1, seam=0.1) is None
    assert "no defect" in fault(job, shown=0.0, visibility=0.0, coverage=0.0, seam=0.0)
    assert "only 9.9%" in fault(job, shown=0.099, visibility=0.2, coverage=0.099, seam=0.0)
    assert "leaks" in fault(job, shown=0.5, visibility=0.2, coverage=0.5, seam=0.101)
    blind = SynthesisConfig(min_coverage=0.1, max_leak=0.5, refine="none")
    assert fault(blind, shown=0.2, visibility=0.2, coverage=1.0, seam=0.3) is None
    assert "only 9.0%" in fault(blind, shown=0.09, visibility=0.2, coverage=1.0, seam=0.0)
    assert "no defect" in fault(blind, shown=0.0, visibility=0.0, coverage=1.0, seam=0.0)


def test_the_score_wants_strength_and_cover_and_no_leak():
    best = score(visibility=0.3, coverage=0.6, seam=0.0)
    assert best == 1
    assert score(visibility=0.1, coverage=0.6, seam=0.0) == pytest.approx(0.5)
    assert score(visibility=0.3, coverage=0.25, seam=0.0) == pytest.approx(0.5)
    assert score(visibility=0.3, coverage=0.6, seam=0.15) == pytest.approx(0.5)
    assert score(visibility=0.0, coverage=0.0, seam=0.0) == 0
    assert WINDOW == 2 * LATENT  # what `is_dark` takes for granted
