"""Verdicts from made-up trainings: what is said, what is not, and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from defectrt.errors import NothingDoneError
from defectrt.training.data.samples import Sample
from defectrt.training.proving import certificate as of_certificate
from defectrt.training.proving.arms import CUT_PASTE, REAL, arms
from defectrt.training.proving.certificate import Evidence, certificate, write_certificate
from defectrt.training.proving.config import ProveConfig
from defectrt.training.proving.divisions import Division, Sides
from defectrt.training.proving.figures import tally_of
from defectrt.training.proving.figures import test_set as of_side
from defectrt.training.proving.material import MadePicture, MadeSet
from defectrt.training.proving.runs import Run, Runs

pytestmark = pytest.mark.slow

MADE = "real + made"


class Named(Sample):
    """A sample whose hash is its name."""

    def sha256(self) -> str:
        return self.path.stem


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    monkeypatch.setattr(of_certificate, "DRAWS", 200)


def _picture(i: int, kind: str) -> Sample:
    mask = np.zeros((24, 24), bool)
    mask[4 : 8 + i % 3, 4:9] = kind != "good"
    image = np.full((24, 24, 3), 140, np.uint8)
    image[mask] = 60 + i
    return Named(Path(f"{kind}{i}.png"), kind, image, mask)


PICTURES = tuple(_picture(i, kind) for kind in ("hole", "good") for i in range(16))
#: How well defects are told from the rest, by arm, with what the seeds differ by.
WELL = {REAL: 1.0, CUT_PASTE: 1.0, MADE: 1.0}


def _evidence(out, well, *, seeds=3, lacking=(), noise=0.02, made=PICTURES, steps=100) -> Evidence:
    config = ProveConfig(synthetic=("made",), steps=600)
    runs, kinds, trainings = Runs(out), arms(config, ["made"]), []
    test = of_side(PICTURES, range(len(PICTURES)))
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        shift = rng.normal(0, noise)
        background = [rng.normal(-3, 1.5, s.mask.shape) for s in PICTURES]
        for arm in kinds:
            key = f"{seed}{arm.name}".encode().hex().ljust(64, "0")
            trainings.append((arm, 0, seed, key))
            if (arm.name, seed) in lacking:
                continue
            height = well[arm.name] + shift + rng.normal(0, noise)
            logits = [
                (noise_ + height * 2 * s.mask).astype(np.float32)
                for s, noise_ in zip(PICTURES, background, strict=True)
            ]
            run = Run(key, arm.name, 0, seed, steps, 1.0, (), {})
            runs.add(run, tally_of(PICTURES, logits))
    division = Division(PICTURES, PICTURES, tuple(range(32)), tuple(range(32)))
    return Evidence(
        config=config,
        sides=Sides((division,), True, True, ()),
        tests=[test],
        arms=kinds,
        made=[MadeSet("made", tuple(MadePicture(s) for s in made if s.mask.any()), frozenset())],
        unknown=[[]],
        trainings=trainings,
        runs=runs,
    )


@pytest.mark.parametrize(
    ("made", "noise", "said"),
    [(1.8, 0.02, "helps"), (0.5, 0.02, "does not help"), (1.0, 0.25, "cannot be told yet")],
)
def test_verdict(tmp_path, made, noise, said):
    body = certificate(_evidence(tmp_path, WELL | {MADE: made}, noise=noise))
    found = body["verdicts"][0]
    assert found["verdict"] == said
    assert found["sentence"].startswith(
        f"{MADE}: {said}. Over real alone, with 3 trainings of each"
    )
    assert bool(found["why"]) == (said != "helps")


def test_detectors_that_found_nothing_prove_nothing(tmp_path):
    found = certificate(_evidence(tmp_path, dict.fromkeys(WELL, 0.0)))["verdicts"][0]
    assert found["verdict"] == "cannot be told yet"
    assert "no detector learned to find defects" in found["why"][0]


def test_one_seed_tells_no_interval(tmp_path):
    found = certificate(_evidence(tmp_path, WELL | {MADE: 1.8}, seeds=1))["verdicts"][0]
    assert found["verdict"] == "cannot be told yet"
    assert "one training tells no interval" in found["sentence"]


def test_only_seeds_of_which_all_arms_are_finished_are_compared(tmp_path):
    body = certificate(_evidence(tmp_path, WELL, lacking={(MADE, 2)}))
    assert (body["rounds"], body["rounds_wanted"]) == (2, 3)
    assert len(body["trainings"]) == 6


def test_no_whole_seed_is_no_certificate(tmp_path):
    with pytest.raises(NothingDoneError, match="no seed of all arms is finished"):
        certificate(_evidence(tmp_path, WELL, seeds=1, lacking={(MADE, 0)}))


def test_trainings_that_were_cut_off_are_told(tmp_path):
    assert certificate(_evidence(tmp_path / "a", WELL, steps=400))["notes"] == []
    notes = certificate(_evidence(tmp_path / "b", WELL, steps=600))["notes"]
    assert notes[0].startswith("9 of 9 trainings were cut off at 600 steps")


def test_why_names_labels_that_are_unlike(tmp_path):
    wide = [
        Named(
            s.path, s.defect_type, s.image, s.mask | np.roll(s.mask, 5, 1) | np.roll(s.mask, 10, 1)
        )
        for s in PICTURES
    ]
    why = certificate(_evidence(tmp_path, WELL | {MADE: 0.5}, made=wide))["verdicts"][0]["why"]
    assert "hole: the labels of made ones are 3.0 times as large as those of real ones" in why


def test_why_names_the_kind_of_error(tmp_path):
    body = certificate(_evidence(tmp_path, WELL | {REAL: 2.0, MADE: 0.5}))
    own, base = (body["arms"][name]["errors"] for name in (MADE, REAL))
    assert own["covered"] < base["covered"] - 0.05
    why = " ".join(body["verdicts"][0]["why"])
    assert "less of a defect is covered (27%, real alone 53%)" in why
    assert "more good pictures have false alarms" in why
    assert "fewer defects are hit" not in why


def test_the_hash_is_of_all_else(tmp_path):
    first, again = (certificate(_evidence(tmp_path / n, WELL)) for n in "ab")
    other = certificate(_evidence(tmp_path / "c", WELL | {MADE: 1.5}))
    assert first["sha256"] == again["sha256"] != other["sha256"]


def test_names_reach_the_page_as_text(tmp_path):
    body = certificate(_evidence(tmp_path / "runs", WELL))
    body["verdicts"][0]["sentence"] = "<script>alert(1)</script>"
    write_certificate(tmp_path / "out", body)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
