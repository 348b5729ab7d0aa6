"""Leaks: refused, left out, or said to be unknown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from defectrt.errors import InputError
from defectrt.training.data.samples import Sample
from defectrt.training.proving.divisions import divide, fit_for, unknown_leaks
from defectrt.training.proving.material import MadePicture, MadeSet


class Named(Sample):
    """A sample whose hash is its name."""

    def sha256(self) -> str:
        return self.path.stem


def picture(name: str, kind: str, look: int = 0) -> Sample:
    surface = np.random.default_rng(look or sum(name.encode())).uniform(0, 255, (32, 32, 3))
    mask = np.zeros((32, 32), bool)
    mask[4:8, 4:8] = kind != "good"
    return Named(Path(f"{kind}/{name}.png"), kind, surface.astype(np.uint8), mask)


REAL = [picture(f"h{i}_1", "hole") for i in range(4)] + [
    picture(f"g{i}_1", "good") for i in range(4)
]
NAMES = (r"([gh]\d)_",)
MADE = MadeSet("made", (), frozenset())


def names(samples):
    return {s.path.stem for s in samples}


def made_of(*sources: str | None) -> tuple[MadePicture, ...]:
    return tuple(
        MadePicture(picture(f"m{i}_1", "hole", look=90 + i), source)
        for i, source in enumerate(sources)
    )


def test_held_out_pictures_that_were_learned_from_are_refused():
    held_out = [picture("h9_1", "hole"), picture("g9_1", "good")]
    leaky = replace(MADE, learned=frozenset({"h9_1"}))
    with pytest.raises(InputError, match=r"learned from 1 of the pictures to test on: h9_1\.png"):
        divide(REAL, held_out, [leaky], groups=NAMES)


def test_an_exposure_of_a_trained_workpiece_is_not_tested_on():
    held_out = [picture("h0_2", "hole"), picture("h9_1", "hole"), picture("g9_1", "good")]
    sides = divide(REAL, held_out, [MADE], groups=NAMES)
    assert names(sides.divisions[0].test) == {"h9_1", "g9_1"}
    assert "hole/h0_2.png" in sides.notes[0]
    assert sides.fixed


def test_looks_tell_exposures_too():
    twin = picture("other", "hole", look=sum(b"h0_1"))
    held_out = [twin, picture("h9_1", "hole"), picture("g9_1", "good")]
    assert names(divide(REAL, held_out, [MADE]).divisions[0].test) == {"h9_1", "g9_1"}
    by_name = divide(REAL, held_out, [MADE], groups=("(.*)",))
    assert "1 test pictures look nearly the same" in by_name.notes[0]


def test_what_an_engine_learned_from_trains_and_all_else_tests():
    learned = replace(MADE, learned=frozenset({"h0_1", "h1_1", "g0_1", "g1_1"}))
    sides = divide(REAL, None, [learned], groups=NAMES)
    assert names(sides.divisions[0].train) == learned.learned
    assert names(sides.divisions[0].test) == {"h2_1", "h3_1", "g2_1", "g3_1"}


def test_good_pictures_that_were_all_learned_from_leave_none_to_test_on():
    learned = frozenset({"h0_1", "g0_1", "g1_1", "g2_1", "g3_1"})
    with pytest.raises(InputError, match="the test side has no good pictures"):
        divide(REAL, None, [replace(MADE, learned=learned)], groups=NAMES)


def test_without_such_an_engine_halves_train():
    sides = divide(REAL, None, [MADE], groups=NAMES, splits=3)
    assert len(sides.divisions) == 3
    assert not sides.fixed
    assert len({frozenset(names(d.test)) for d in sides.divisions}) > 1
    for division in sides.divisions:
        assert not names(division.train) & names(division.test)
        assert len(division.train) == len(division.test) == 4


def test_pictures_made_on_a_test_picture_are_left_out():
    division = divide(REAL, None, [MADE], groups=NAMES).divisions[0]
    test, train = (next(iter(names(side))) for side in (division.test, division.train))
    made = replace(MADE, pictures=made_of(test, train, "elsewhere"))
    assert [p.source for p in fit_for(made, division, True)] == [train, "elsewhere"]


def test_pictures_of_unknown_source_are_left_out_if_they_look_like_a_test_picture():
    division = divide(REAL, None, [MADE], groups=NAMES).divisions[0]
    twin = division.test[0]
    copy = MadePicture(picture("copy", "hole", look=sum(twin.path.stem.encode())))
    made = replace(MADE, pictures=(copy, *made_of(None)))
    assert [p.sample.path.stem for p in fit_for(made, division, True)] == ["m0_1"]
    assert len(fit_for(made, division, False)) == 2


@pytest.mark.parametrize(
    ("learned", "sources", "said"),
    [
        (frozenset(), ("g0_1",), []),
        (None, ("g0_1",), ["not known what it was learned from"]),
        (frozenset({"x"}), ("g0_1",), ["from 1 pictures that are not among those given"]),
        (frozenset({"h0_1"}), (None,), ["do not say which good pictures"]),
    ],
)
def test_what_cannot_be_known_is_said(learned, sources, said):
    found = unknown_leaks(MadeSet("made", made_of(*sources), learned), {s.sha256() for s in REAL})
    assert len(found) == len(said)
    assert all(text in sentence for text, sentence in zip(said, found, strict=True))
