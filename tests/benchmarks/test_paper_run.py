"""The whole at the smallest scale: every stage once, stopped and gone on with."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from support.drawn import spot

from defectrt.errors import InputError
from defectrt.masks.reading import read_any_mask
from defectrt.output.records import read_finished
from defectrt.training.config import TrainConfig
from defectrt.training.data.crops import Augmentation, Crops
from defectrt.training.data.dataset import read_dataset
from defectrt.training.evaluation.networks.opening import open_network
from defectrt.training.loop.stages import make_stage
from defectrt.training.models.stable_diffusion import SIZES, new_model, open_model
from defectrt.training.proving.material import read_real
from defectrt.training.record import read_record

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def small(filled_graphs, monkeypatch, tmp_path):
    """A tiny model in the place of the bundled base, five spots and five good pictures a side."""
    monkeypatch.syspath_prepend(ROOT)
    model = new_model(SIZES["tiny"], prediction_type="v_prediction")
    model.untrained = ()
    model.save(tmp_path / "base" / "model")
    monkeypatch.setattr("defectrt.training.bundled.BUNDLED_RUN", tmp_path / "base")
    monkeypatch.setattr("defectrt.export.learn.sheet", lambda rows: b"")
    monkeypatch.setattr("defectrt.training.evaluation.two_sample._DRAWS", 2)
    pictures = "defectrt.training.evaluation.pictures.open_network"
    monkeypatch.setattr(pictures, cache(open_network))
    for i in range(8):
        spot(tmp_path / "data" / "spot" / f"s{i}", i)
        spot(tmp_path / "data" / "good" / f"g{i}", 50 + i, depth=0)
    config = import_module("benchmarks.paper.config")
    anything = {"min_change": 0, "min_coverage": 0, "min_grain": 0, "max_leak": 1e6}
    return config.PaperConfig(
        datasets={"spots": {"path": tmp_path / "data", "group": (r"([sg]\d+)[^/]*$",)}},
        shots=3,
        good=4,
        instances=3,
        steps=1,
        synthesis=anything | {"steps": 4},
        detector={"seeds": 1, "steps": 2, "check_every": 1},
        landscape={"points": 3, "rows": 2},
        device="cpu",
        threads=1,
    )


def test_every_stage_once_and_never_again(small, tmp_path, monkeypatch):
    run, stages = (import_module(f"benchmarks.paper.{name}") for name in ("run", "stages"))
    out, proved = tmp_path / "out", stages.prove
    monkeypatch.setattr(stages, "FOLDS", (0,))
    monkeypatch.setattr(stages, "build", _copy_of_ours)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "prove", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.run(small, out, quiet=True)
    tables = (out / "paper.md").read_text()
    assert "Table 1." in tables  # what is finished is there
    assert "Table 2a" not in tables
    with (out / "stages.jsonl").open("a") as file:
        file.write('{"stage": "prove spots/spots/0", "ro')  # a line that was being written

    monkeypatch.setattr(stages, "prove", proved)
    monkeypatch.setattr(stages, "learn", stopped)
    rows = import_module("benchmarks.paper.rows").read_rows(run.run(small, out, quiet=True))
    said = [json.loads(line)["stage"] for line in (out / "stages.jsonl").read_text().splitlines()]
    assert len(said) == len(set(said)) == 9
    tables = (out / "paper.md").read_text()
    for title in ("Table 1.", "Table 2a.", "Table 4.", "Table 5. Refinement", "Figure 4."):
        assert title in tables
    detectors = [r for r in rows if r.part == "detectors"]
    arms = {"real alone", "real + cut-paste", "ours", "ours-masks"}
    assert {r.method for r in detectors} == arms
    assert {r.tested for r in detectors} == {4}
    pictures = {r.method for r in rows if r.part == "pictures"}
    assert pictures == {"ours", "ours-unseen", "naive"}
    assert {r.network for r in rows if r.part == "pictures"} == {"EfficientNet-Lite0 (ImageNet)"}
    fold = out / "spots" / "spots" / "0"
    assert (fold / "sheet.png").is_file()
    _is_labelled_by_masks(fold)
    _is_the_other_objective(fold)
    _has_the_plain_losses_in_its_centre(fold, rows)
    with pytest.raises(InputError, match="begun with other instances"):
        run.run(small.replace(instances=4), out, quiet=True)


def _copy_of_ours(run, out, *_, beside, **__):
    """An engine in the place of the one that would be built of another run."""
    assert (run / "model").is_dir()
    shutil.copytree(out.with_name("ours"), out)
    beside(out)


def _is_labelled_by_masks(fold):
    """The same pictures, with the masks that were asked for as their labels."""
    ours, masked = (read_finished(fold / "made" / name) for name in ("ours", "ours-masks"))
    assert [e.image for e in ours.entries] == [e.image for e in masked.entries]
    for entry, other in zip(ours.entries, masked.entries, strict=True):
        assert (ours.out / entry.image).read_bytes() == (masked.out / other.image).read_bytes()
        mask = read_any_mask(ours.out / entry.mask)
        assert np.array_equal(masked.label(other), mask)
        assert not (ours.label(entry) & ~mask).any()


def _is_the_other_objective(fold):
    ours, naive = (read_record(fold / "engines" / f"{name}-run") for name in ("ours", "naive"))
    differs = {k for k in ours.config if ours.config[k] != naive.config[k]}
    assert differs == {"objective", "guidance"}
    assert naive.config["objective"] == "denoise"
    assert ours.dataset == naive.dataset
    assert ours.base_sha256 == naive.base_sha256


def _has_the_plain_losses_in_its_centre(fold, rows):
    """The loss of training itself, with the run's weights, on the same crops and noise."""
    run = fold / "engines" / "ours-run"
    model, samples = open_model(run / "model"), read_real(fold / "shots")
    still = Augmentation("none", contrast=0, brightness=0)
    batch = Crops(samples, 32, good=0, seed=0, augmentation=still).batch(0, 2)
    found = {r.method: r.value for r in rows if r.part == "landscape" and r.figure == "L_0"}
    for name, objective in {"L′, Eq. 2": "denoise", "L, Eq. 5": "disentangle"}.items():
        config = TrainConfig(objective=objective, window=32)
        stage = make_stage(model, samples, config, torch.device("cpu"))
        with torch.no_grad():
            terms = stage(batch, torch.Generator().manual_seed(0))
        assert found[name] == pytest.approx(float(sum(terms.values())), rel=1e-4)


def test_drawn_trays_are_two_folds_in_the_layout_of_loco(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT)
    material = import_module("benchmarks.paper.material")
    monkeypatch.setattr(material, "TRAYS", 2)
    config = import_module("benchmarks.paper.config").PaperConfig(
        datasets={"trays": {"logical": True}}, shots=1, good=2
    )
    (trays,) = material.categories(config, tmp_path)
    material.divide(trays, config)
    assert trays.types(0) == trays.types(1) == ["extra", "missing", "swapped"]
    sides = []
    for number in material.FOLDS:
        learned = read_dataset(trays.fold(number) / "loco", "loco-classes").samples()
        kinds = Counter(s.defect_type for s in learned)
        assert kinds == {"extra": 1, "missing": 1, "swapped": 1, "good": 2}
        shots = {s.defect_type: s for s in read_real(trays.fold(number) / "shots")}
        for sample in learned:
            if sample.defect_type != "good":
                assert np.array_equal(sample.image, shots[sample.defect_type].image)
                assert np.array_equal(sample.mask, shots[sample.defect_type].mask)
        test = {s.image.tobytes() for s in read_real(trays.fold(number) / "test")}
        assert not test & {s.image.tobytes() for s in learned}
        sides.append(test)
    assert not sides[0] & sides[1]
    assert not (tmp_path / "trays" / "trays" / "drawn").exists()
