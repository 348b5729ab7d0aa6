"""Places that are painted without a defect: which they are, and where they go."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from support.fake_engine import FakeEngine
from support.outputs import dataset_of, records, save
from support.program import command_line

from defectrt.errors import InputError, PartialError, UsageError
from defectrt.images.reading import read_image
from defectrt.output.mark import read_mark
from defectrt.output.merge import merge
from defectrt.output.records import read_finished
from defectrt.synthesis.job import synthesize
from defectrt.synthesis.remake import remake

pytestmark = pytest.mark.slow


class Painter(FakeEngine):
    """Paints what its prompt says: dark, or by the background's as bright as the surface."""

    healthy = 150 / 127.5 - 1

    def _clean(self, rows):
        index = self.manifest.prompt_indices().background
        inside = np.where(rows.inside == index, self.healthy, -0.8).reshape(-1, 1, 1, 1)
        return np.where(rows.mask > 0, inside, rows.latent).astype(np.float32)


@pytest.fixture
def good(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        save(tmp_path / "good" / f"{i}.png", rng.integers(140, 160, (60, 70), np.uint8))
    return tmp_path / "good"


@pytest.fixture
def make(fake_engine, opened_as, good, tmp_path):
    """Run a job on the good images; returns its folder and its summary."""

    def run(name, engine=None, **options):
        opened_as(engine or Painter())
        options = {"engine": fake_engine[0], "refine": "none", "quiet": True} | options
        return tmp_path / name, synthesize(good, tmp_path / name, **options)

    return run


def lines(out):
    return [json.loads(line) for line in (out / "healthy.jsonl").read_text().splitlines()]


def test_a_share_of_the_samples_shows_nothing_and_lies_beside_the_dataset(make):
    out, summary = make("out", count=8, healthy=0.5)
    plain, _ = make("plain", count=8)
    healthy = lines(out)
    assert summary.healthy == len(healthy)
    assert summary.kept + summary.healthy == 48
    assert 14 <= len(healthy) <= 34  # of 48, each by a fair draw: within three deviations
    for record in healthy:
        image, source = read_image(out / record["image"]), read_image(out / record["good"])
        changed = (image != source).any(axis=2)
        assert record["image"].startswith("healthy/spot/")
        assert "label" not in record
        assert changed.any()
        assert image.min() > 120
    # the others are the same samples as without, byte for byte
    files, others = dataset_of(out), dataset_of(plain)
    kept = {r["image"] for r in records(out)}
    assert kept
    assert all(files[name] == others[name] for name in kept)
    assert {(r["source"], r["sample"]) for r in records(out)}.isdisjoint(
        (r["source"], r["sample"]) for r in healthy
    )


def test_what_shows_a_defect_is_not_healthy(make):
    class Dark(Painter):
        healthy = -0.8

    _, summary = make("out", Dark(), count=4, healthy=0.5)
    assert summary.healthy == 0
    assert summary.kept
    with pytest.raises(PartialError, match=r"painted healthy, [0-9.]+% of its mask shows"):
        summary.check()


def test_the_job_goes_on_after_a_file_is_gone(make):
    out, _ = make("out", count=4, healthy=0.5)
    before = dataset_of(out)
    (out / lines(out)[0]["image"]).unlink()
    _, summary = make("out", count=4, healthy=0.5)
    assert summary.made == 1
    assert dataset_of(out) == before


def test_another_share_is_another_job(make):
    make("out", count=2, healthy=0.5)
    with pytest.raises(InputError, match=r"healthy: 0\.5 -> 0\.25"):
        make("out", count=2, healthy=0.25)


def test_shards_and_datasets_bring_theirs_when_they_are_joined(make, tmp_path):
    whole, _ = make("whole", count=4, healthy=0.5)
    shards = [make(f"part{i}", count=4, healthy=0.5, shard=f"{i}/2")[0] for i in (1, 2)]
    merge(shards, tmp_path / "joined")
    assert dataset_of(tmp_path / "joined") == dataset_of(whole)
    other, _ = make("other", count=2, healthy=0.5, seed=1)
    merge([whole, other], tmp_path / "both")
    both = read_finished(tmp_path / "both")
    wanted = [read_image(out / r["image"]) for out in (whole, other) for r in lines(out)]
    assert len(both.healthy) == len(wanted)
    for record, image in zip(both.healthy, wanted, strict=True):
        assert np.array_equal(read_image(both.out / record["image"]), image)
        assert (both.out / record["good"]).is_file()


def test_its_mark_says_so_and_it_is_not_made_again_alone(make, good):
    out, _ = make("out", count=4, healthy=0.5)
    path = out / lines(out)[0]["image"]
    assert read_mark(path).healthy
    assert not read_mark(out / records(out)[0]["image"]).healthy
    with pytest.raises(InputError, match="painted healthy by a job"):
        remake(path, good)


def test_what_moves_defects_paints_nothing(make, good, tmp_path):
    shutil.copytree(good, tmp_path / "like" / "spot")
    mask = np.zeros((60, 70), np.uint8)
    mask[20:30, 20:30] = 255
    for path in list((tmp_path / "like" / "spot").iterdir()):
        save(path.with_name(f"{path.stem}_mask.png"), mask)
    with pytest.raises(UsageError, match="like paints nothing"):
        make("out", like=tmp_path / "like", healthy=0.5)
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_how_many(fake_engine, opened_as, good, tmp_path):
    opened_as(Painter())
    arguments = ["--images", good, "--engine", fake_engine[0], "--out", tmp_path / "out"]
    done = command_line("synthesize", *arguments, "--count", 4, "--healthy", 0.5, "--quiet")
    said = len(lines(tmp_path / "out"))
    assert done.returncode == 0
    assert f"{24 - said} kept, {said} healthy" in done.stdout
