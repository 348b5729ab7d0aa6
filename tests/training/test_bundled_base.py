"""The bundled base: what is trained without a model, and what the bundled engine is built from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.outputs import save
from support.program import command_line

from defectrt.engines.loading import BUNDLED_ENGINE
from defectrt.engines.manifest import MANIFEST
from defectrt.files import sha256_of
from defectrt.training.bundled import BUNDLED_RUN, publish
from defectrt.training.models.stable_diffusion import SIZES, new_model, open_model
from defectrt.training.record import read_record

#: Importing diffusers and opening models takes seconds.
pytestmark = pytest.mark.slow

MIB = 2**20


@pytest.fixture
def pairs(tmp_path):
    """Two images of a pit and their masks, large enough for the bundled base."""
    rng = np.random.default_rng(0)
    for i in range(2):
        image = rng.normal(150, 8, (112, 112)).clip(0, 255).astype(np.uint8)
        mask = np.zeros_like(image)
        mask[50:60, 50 : 62 + i] = 255
        image[mask > 0] = 60
        save(tmp_path / "pit" / f"{i}.png", image)
        save(tmp_path / "pit" / f"{i}_mask.png", mask)
    return tmp_path / "pit"


def test_base_and_engine_are_small():
    sizes = [p.stat().st_size for f in (BUNDLED_RUN, BUNDLED_ENGINE) for p in f.rglob("*")]
    assert sum(sizes) <= 30 * MIB
    assert max(sizes) <= 16 * MIB


def test_it_knows_what_the_engine_knows():
    engine = json.loads((BUNDLED_ENGINE / MANIFEST).read_text())
    record = read_record(BUNDLED_RUN)
    assert [prompt.model_dump() for prompt in record.prompts] == engine["prompts"]
    assert record.image_size == engine["image"]["height"]


def test_the_bundled_engine_is_built_from_it_to_the_byte(tmp_path):
    result = command_line("build-engine", "--out", tmp_path / "engine", "--quiet")
    assert result.returncode == 0, result.stderr
    for shipped in BUNDLED_ENGINE.iterdir():
        if shipped.name != MANIFEST:
            assert sha256_of(tmp_path / "engine" / shipped.name) == sha256_of(shipped), shipped.name
    ours, theirs = (
        json.loads((folder / MANIFEST).read_text())
        for folder in (tmp_path / "engine", BUNDLED_ENGINE)
    )
    for manifest in (ours, theirs):
        del manifest["provenance"]  # its self-check is rounding, and tools change
    assert ours == theirs


def test_training_starts_from_it_and_gives_new_types_prompts_of_their_own(pairs, tmp_path):
    words = ["train", "--defect", f"pit={pairs}", "--steps", 1, "--batch-size", 1]
    run = tmp_path / "run"
    result = command_line(*words, "--preview-every", 0, "--out", run, "--quiet")
    assert result.returncode == 0, result.stderr
    record = read_record(run)
    assert record.base_model == "bundled"
    assert [p.text for p in record.prompts] == ["good surface", "", "pit"]
    base, tuned = open_model(BUNDLED_RUN / "model"), open_model(run / "model")
    drift = [
        float((a - b).abs().max())
        for a, b in zip(base.unet.parameters(), tuned.unet.parameters(), strict=True)
    ]
    assert 0 < max(drift) < 0.1
    embeddings, _ = base.encode_prompts(["pit", "good surface", "", "crack"])
    distances = (embeddings[0] - embeddings[1:]).flatten(1).norm(dim=1)
    assert distances.min() > 1


def test_a_model_that_never_learned_anything_is_refused(pairs, tmp_path):
    model = tmp_path / "blank"
    command_line("new-model", "--size", "tiny", "--out", model)
    words = ["train", "--model", model, "--defect", f"pit={pairs}", "--steps", 1, "--quiet"]
    words += ["--batch-size", 1, "--preview-every", 0]
    refused = command_line(*words, "--out", tmp_path / "a")
    assert refused.returncode == 3
    assert f"{model}: its unet and vae never learned anything" in refused.stderr
    assert "--from-nothing" in refused.stderr
    assert not (tmp_path / "a").exists()
    assert command_line(*words, "--out", tmp_path / "b", "--from-nothing").returncode == 0
    assert open_model(tmp_path / "b" / "model").untrained == ("vae",)


def test_a_run_is_published_in_half_precision(run, tmp_path):
    publish(run, tmp_path / "base")
    made, before = open_model(tmp_path / "base" / "model"), open_model(run / "model")
    for ours, theirs in zip(made.unet.parameters(), before.unet.parameters(), strict=True):
        assert (ours == theirs.half().float()).all()
    assert read_record(tmp_path / "base") == read_record(run)
    blank = new_model(SIZES["tiny"])
    assert blank.untrained == ("unet", "vae")
