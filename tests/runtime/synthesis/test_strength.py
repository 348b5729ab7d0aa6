"""Defects get the strength that is wanted, whatever paints them, and more is never less."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_engine import FakeEngine
from support.outputs import records, save

from defectrt.config.job import SynthesizerConfig
from defectrt.engines.loading import BUNDLED_ENGINE
from defectrt.engines.manifest import read_manifest
from defectrt.errors import InputError, UsageError
from defectrt.images.contrast import strength_in
from defectrt.masks.examples import Examples, write_examples
from defectrt.masks.places import Places
from defectrt.masks.source import Placed
from defectrt.synthesis.job import synthesize
from defectrt.synthesis.maker import open_makers
from defectrt.synthesis.strength import Strengths, times
from defectrt.synthesis.synthesizer import Synthesizer
from defectrt.synthesis.workpiece import Workpiece


def image(seed=0, level=0.6, noise=0.02, shape=(60, 80)):
    grain = np.random.default_rng(seed).normal(level, noise, shape)
    return (grain.clip(0, 1) * 255).astype(np.uint8)


def square(shape=(60, 80)):
    mask = np.zeros(shape, bool)
    mask[20:30, 10:24] = True
    return mask


@pytest.mark.parametrize("wanted", [0.2, 0.4, 0.6, 0.8])
def test_a_defect_is_as_strong_as_wanted(fake, wanted):
    part = image()
    with Synthesizer(strength=(wanted, wanted)) as synthesizer:
        result = synthesizer(part, square(), name="a")
    assert result.fault is None
    assert result.figures["strength"] == pytest.approx(wanted, abs=0.01)
    assert strength_in(result.image[..., None], result.label) == pytest.approx(wanted, abs=0.02)
    np.testing.assert_array_equal(result.image[~result.band], part[~result.band])


def test_more_strength_is_never_less_of_the_defect_at_any_px(fake):
    part, before = image(), None
    with Synthesizer() as synthesizer:
        free = synthesizer(part, square(), name="a")
        sums = []
        for wanted in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0, 5.0):
            made = synthesizer(part, square(), name="a", strength=wanted)
            change = np.abs(made.image.astype(int) - part)
            if before is not None:
                assert (change >= before).all()
            before = change
            sums.append(int(change.sum()))
            np.testing.assert_array_equal(made.label, free.label)
    assert sums[0] < 0.2 * sums[-1]


def test_the_weakest_can_still_be_seen_and_what_was_refused_stays_refused(fake):
    part = image()
    with Synthesizer(strength=(0.001, 0.001), min_change=0.04) as synthesizer:
        result = synthesizer(part, square(), name="a")
    change = np.abs(result.image.astype(float) - part)[result.label].mean() / 255
    assert change == pytest.approx(0.04, abs=0.004)
    fake.blind, fake.level = True, -0.8
    with Synthesizer(strength=(5, 5)) as synthesizer:
        dark = np.full((60, 80), 26, np.uint8)  # what the engine paints is the surface itself
        assert synthesizer(dark, square(), name="a").fault == "no defect appeared"


def test_a_workpiece_may_say_it_itself(fake):
    parts = [Workpiece(image(), square(), "a", strength=s) for s in (0.3, 0.6)]
    with Synthesizer(strength=(0.1, 0.1)) as synthesizer:
        found = [result.figures["strength"] for result in synthesizer.run(parts)]
        drawn = synthesizer(image(), name="b", strength=0.5)
        with pytest.raises(InputError, match="'c': strength -1"):
            synthesizer(image(), square(), name="c", strength=-1)
    assert found == pytest.approx([0.3, 0.6], abs=0.01)
    assert drawn.figures["strength"] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("interval", ["0,0.5", "0.6,0.5", "0.1,11", "0.5"])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(UsageError, match="strength"):
        SynthesizerConfig(strength=interval)


def test_a_job_draws_one_for_every_sample_and_says_it(fake, fake_engine, tmp_path):
    for i in range(3):
        save(tmp_path / "images" / f"{i}.png", image(i))
    options = {"strength": (0.2, 0.8), "count": 4, "engine": fake_engine[0], "quiet": True}
    synthesize(tmp_path / "images", tmp_path / "out", **options)
    found = [record["strength"] for record in records(tmp_path / "out")]
    assert len(set(found)) == 12
    assert 0.15 < min(found) < 0.4 < 0.6 < max(found) < 0.85


def test_examples_of_an_engine_say_how_strong(fake, fake_engine, tmp_path):
    directory, _ = fake_engine
    disc = np.ones((5, 5), bool)
    anywhere = Places(low=0.0, high=10.0, at_frame=True)
    told = {
        name: Examples.of([disc], strengths, directed=False, places=anywhere, instances=[1])
        for name, strengths in (("spot", [0.3] * 40), ("other", [0.9]))
    }
    write_examples(directory, told)
    with Synthesizer(engine=directory) as synthesizer:
        found = [
            synthesizer(image(i), square(), name=str(i)).figures["strength"] for i in range(20)
        ]
    assert np.median(found) == pytest.approx(0.3, abs=0.03)
    assert len(set(found)) == 20


def test_without_examples_or_an_interval_it_is_as_the_model_paints_it():
    assert Strengths(0, "spot")("a", 0, 1) is None


def test_draws_depend_on_seed_type_image_and_number_alone():
    def draw(seed=0, name="spot", source="a", number=0, instance=0):
        return Strengths(seed, name, (0.1, 0.9))(source, number, instance)

    assert draw() == draw()
    different = [draw(), draw(1), draw(name="hole"), draw(source="b"), draw(number=1)]
    different.append(draw(instance=1))
    assert len(set(different)) == 6


@pytest.mark.parametrize("count", [1, 2, 5, 50])
def test_the_fewer_the_examples_the_wider_they_are_drawn(count):
    known = [0.4 + 0.04 * (i % 3 - 1) for i in range(count)]
    strengths = Strengths(0, "spot", None, known)
    low, middle, high = np.percentile([strengths("a", n, 0) for n in range(1000)], [10, 50, 90])
    assert middle == pytest.approx(np.exp(np.mean(np.log(known))), rel=0.06)
    assert {1: 2.5, 2: 1.5, 5: 1.3, 50: 1.25}[count] < high / low < {1: 6.5, 2: 2.0}.get(count, 1.5)


@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.05, 1.5),
    st.floats(0.05, 1.5),
    st.booleans(),
)
@settings(max_examples=60)
def test_a_factor_never_falls_as_more_is_wanted(seed, one, other, dark):
    rng = np.random.default_rng(seed)
    before = rng.normal(0.5, 0.05, 60).astype(np.float32)
    change = (rng.uniform(0.1, 0.4, 60) * (-1 if dark else 1)).astype(np.float32)
    low, high = sorted((one, other))
    factors = [times(before, change, 0.5, wanted, 0.1) for wanted in (low, high)]
    assert 0.1 <= factors[0] <= factors[1] <= 2.0


def test_a_source_of_masks_changes_where_but_not_how_strong(fake, fake_engine):
    directory, _ = fake_engine
    disc = np.ones((5, 5), bool)
    anywhere = Places(low=0.0, high=10.0, at_frame=True)
    own = Examples.of([disc], [0.3] * 5, directed=False, places=anywhere, instances=[1])
    write_examples(directory, {"spot": own})

    class Source:
        def __call__(self, source, image, sample):
            return [Placed(square(), {"from": "mine"})]

        def record(self):
            return {}

    found = []
    for options in ({}, {"mask_source": Source()}):
        with Synthesizer(engine=directory, **options) as synthesizer:
            found.append(synthesizer(image(), square(), name="a").image)
            drawn = synthesizer(image(), name="a")
    np.testing.assert_array_equal(*found)
    assert drawn.figures["strength"] < 0.5


def test_the_record_says_what_was_wanted_so_that_a_sample_can_be_made_again(
    fake, fake_engine, tmp_path
):
    save(tmp_path / "images" / "a.png", image())
    options = {"strength": (0.2, 0.8), "engine": fake_engine[0], "quiet": True}
    synthesize(tmp_path / "images", tmp_path / "out", **options)
    (record,) = records(tmp_path / "out")
    (mask,) = record["masks"]
    assert mask["strength"] == pytest.approx(record["strength"], abs=0.01)


def test_the_bundled_engine_is_the_same_by_any_path():
    engine = FakeEngine()
    config = SynthesizerConfig()
    unknown = open_makers(engine, config, ["spot"])["spot"]
    assert unknown.strengths["spot"]("a", 0, 0) is None
    engine.manifest = read_manifest(BUNDLED_ENGINE)
    name = engine.manifest.defect_types[0]
    for path in (None, BUNDLED_ENGINE):
        maker = open_makers(engine, SynthesizerConfig(engine=path), [name])[name]
        assert 0.3 <= maker.strengths[name]("a", 0, 0) <= 0.8
