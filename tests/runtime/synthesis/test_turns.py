"""Whose turn it is: shares exact over a job, drawn by the seed, independent for single images."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectrt.config.synthesis import Share, SynthesisConfig
from defectrt.errors import UsageError
from defectrt.synthesis.turns import Turns, shares_of, turn, type_of

NAMES = [f"{i}.png" for i in range(12)]


def requested(turns):
    """Samples of each type, of all images."""
    return Counter(name for index in range(len(NAMES)) for _, name in turns.of(index))


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40), min_size=1))
def test_a_turn_has_every_type_as_often_as_its_share_all_along(shares):
    types = turn(shares)
    assert Counter(types) == shares
    for place in range(1, len(types) + 1):
        given = Counter(types[:place])
        for name, share in shares.items():
            assert abs(given[name] - share * place / len(types)) < 1.5


@pytest.mark.parametrize(
    ("shares", "count", "expected"),
    [
        ({"a": 3, "b": 1}, 1, {"a": 9, "b": 3}),
        ({"a": 1, "b": 1}, 3, {"a": 18, "b": 18}),
        ({"a": 2, "b": 1, "c": 4}, 7, {"a": 24, "b": 12, "c": 48}),
    ],
)
def test_shares_are_exact_over_the_job(shares, count, expected):
    for seed in range(5):
        turns = Turns([shares], NAMES, seed, count)
        assert requested(turns) == expected


def test_an_image_gets_every_type_if_it_has_as_many_samples():
    turns = Turns([{"a": 1, "b": 1, "c": 1}], NAMES, 0, 3)
    assert {frozenset(name for _, name in turns.of(i)) for i in range(12)} == {frozenset("abc")}


def test_types_do_not_go_with_the_order_of_the_names():
    """Two cameras whose pictures alternate get both types."""
    turns = Turns([{"a": 1, "b": 1}], NAMES, 0, 1)
    types = [name for i in range(12) for _, name in turns.of(i)]
    assert {*types[::2]} == {*types[1::2]} == {"a", "b"}
    other = Turns([{"a": 1, "b": 1}], NAMES, 1, 1)
    assert types != [name for i in range(12) for _, name in other.of(i)]


def test_runs_share_what_both_ask_for():
    one, both = {"a": 1}, {"a": 1, "b": 1}
    turns, grown = Turns([both], NAMES, 0, 2), Turns([one, both], NAMES, 0, 2)
    for i in range(12):
        assert set(grown.of(i)) == set(turns.of(i)) | {(0, "a"), (1, "a")}
    assert requested(grown) == {"a": 24, "b": 12}


def test_alone_a_sample_has_its_type_of_seed_name_and_number():
    types = turn({"a": 1, "b": 1, "c": 2})
    for name in NAMES:
        assert Counter(type_of(types, 3, name, k) for k in range(4)) == {"a": 1, "b": 1, "c": 2}
    over = Counter(type_of(types, 3, str(i), 0) for i in range(4000))
    assert abs(over["c"] - 2000) < 200
    assert len({tuple(type_of(types, s, n, 0) for n in NAMES) for s in range(5)}) == 5


def test_shares_are_in_the_engines_order_and_as_small_as_they_can_be():
    config = SynthesisConfig(defect="hole=2,crack=6")
    assert list(shares_of(config.defect, ["crack", "dent", "hole"]).items()) == [
        ("crack", 3),
        ("hole", 1),
    ]
    assert shares_of((), ["crack", "hole"]) == {"crack": 1, "hole": 1}
    with pytest.raises(UsageError, match="no defect is named 'rust'; this engine makes: crack"):
        shares_of((Share("rust"),), ["crack"])


@pytest.mark.parametrize(
    "given",
    ["crack=3, hole", ["crack=3", "hole"], {"crack": 3, "hole": 1}, (("crack", 3), ("hole", 1))],
    ids=str,
)
def test_shares_can_be_said_in_many_ways(given):
    config = SynthesisConfig(defect=given)
    assert config.defect == (Share("crack", 3), Share("hole", 1))
    assert config.model_dump(mode="json")["defect"] == ["crack=3", "hole"]


@pytest.mark.parametrize("given", [None, [], (), {}])
def test_nothing_named_is_all(given):
    assert SynthesisConfig(defect=given).defect == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("crack=0", "write TYPE or TYPE=SHARE"),
        ("crack=-1", "write TYPE or TYPE=SHARE"),
        ("crack=half", "write TYPE or TYPE=SHARE"),
        ("crack=20000", "from 1 to 10,000"),
        ("", "write TYPE or TYPE=SHARE"),
        ("=3", "write TYPE or TYPE=SHARE"),
        ({"crack": 0.5}, "write TYPE or TYPE=SHARE"),
        ("crack,hole,crack", "crack: named twice"),
        (7, "defect: "),
    ],
)
def test_shares_that_are_not_possible(given, said):
    with pytest.raises(UsageError, match=said):
        SynthesisConfig(defect=given)
