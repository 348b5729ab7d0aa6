"""The certificate end to end, at toy size: resumed, keyed, and readable."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from support.program import command_line

from defectrt.errors import InputError, NothingDoneError, UsageError
from defectrt.training.proving.config import ProveConfig
from defectrt.training.proving.prove import prove
from defectrt.training.proving.runs import RUNS, Runs

pytestmark = pytest.mark.slow

TINY = {
    "group": (r"part\d+",),
    "steps": 80,
    "check_every": 20,
    "learning_rate": 0.01,
    "window": 32,
    "width": 4,
    "batch_size": 4,
    "seeds": 2,
    "splits": 1,
    "workers": 1,
}


def _write(path, rng, *, bad):
    image, mask = rng.normal(140, 6, (48, 48)), np.zeros((48, 48), bool)
    if bad:
        y, x = rng.integers(6, 34, 2)
        mask[y : y + 8, x : x + 8] = True
        image[mask] -= 70
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(path.with_suffix(".bmp"))
    if bad:
        Image.fromarray(mask.astype(np.uint8) * 255).save(path.with_suffix(".png"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for i in range(8):
        _write(root / "real" / "hole" / f"part{i:02d}", rng, bad=True)
        _write(root / "good" / f"part{20 + i:02d}", rng, bad=False)
        _write(root / "made" / "hole" / f"made{i:02d}", rng, bad=True)
    return root


@pytest.fixture(scope="module")
def config(data):
    return ProveConfig(synthetic=(data / "made",), good=(data / "good",), **TINY)


@pytest.fixture(scope="module")
def proof(data, config, tmp_path_factory):
    out = tmp_path_factory.mktemp("proof")
    prove(data / "real", out, config, quiet=True)
    return out


def _lines(out):
    found = [json.loads(line) for line in (out / RUNS).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def test_the_certificate_holds_arms_gains_and_hashes(proof):
    body = json.loads((proof / "proof.json").read_text())
    assert list(body["arms"]) == ["real alone", "real + cut-paste", "real + made"]
    assert body["rounds"] == body["rounds_wanted"] == 2
    assert len(body["trainings"]) == 6
    gain = next(g for g in body["gains"] if g["arm"] == "real + made")["figures"]["pixel_ap"]
    means = [body["arms"][a]["figures"]["pixel_ap"]["mean"] for a in ("real + made", "real alone")]
    assert gain["mean"] == pytest.approx(means[0] - means[1])
    assert gain["low"] <= gain["mean"] <= gain["high"]
    split = body["inputs"]["splits"][0]
    assert not set(split["train"].values()) & set(split["test"].values())
    assert "not known what it was learned from" in body["verdicts"][0]["leakage_unknown"][0]


def test_the_page_says_the_verdict_and_loads_nothing(proof):
    page = (proof / "report.html").read_text()
    body = json.loads((proof / "proof.json").read_text())
    assert body["verdicts"][0]["verdict"] in page
    assert "://" not in page
    assert page.count("<svg") == 5


def test_it_learns_to_find_the_holes(proof):
    body = json.loads((proof / "proof.json").read_text())
    best = max(a["figures"]["pixel_ap"]["mean"] for a in body["arms"].values())
    assert best > 0.3


def test_killed_and_gone_on_is_the_same(proof, data, config, tmp_path):
    out = tmp_path / "proof"
    shutil.copytree(proof, out)
    whole = (out / RUNS).read_bytes().splitlines(keepends=True)
    (out / RUNS).write_bytes(b"".join(whole[:4]) + whole[4][:50])
    before = (out / RUNS).stat().st_size
    prove(data / "real", out, config, quiet=True)
    assert (out / RUNS).read_bytes().startswith(b"".join(whole[:4]))
    assert before < (out / RUNS).stat().st_size
    assert _lines(out) == _lines(proof)
    assert (out / "proof.json").read_bytes() == (proof / "proof.json").read_bytes()


def test_a_training_without_its_scores_is_done_again(proof, tmp_path):
    out = tmp_path / "proof"
    shutil.copytree(proof, out)
    key = _lines(out)[0]["key"]
    assert Runs(out).get(key)
    for path in (out / "scores").iterdir():
        path.unlink()
    assert Runs(out).get(key) is None


def test_a_damaged_line_is_a_fault(proof, tmp_path):
    shutil.copytree(proof, tmp_path / "proof")
    with (tmp_path / "proof" / RUNS).open("a") as file:
        file.write("{}\n")
    with pytest.raises(InputError, match="line 7 is damaged"):
        Runs(tmp_path / "proof")


def test_another_picture_is_another_training(proof, data, config, tmp_path):
    shutil.copytree(proof, tmp_path / "proof")
    shutil.copytree(data / "made", tmp_path / "made")
    _write(tmp_path / "made" / "hole" / "made00", np.random.default_rng(9), bad=True)
    prove(
        data / "real",
        tmp_path / "proof",
        config.replace(synthetic=(tmp_path / "made",)),
        quiet=True,
    )
    assert len(_lines(tmp_path / "proof")) == 6 + 2  # the made arm alone, of two seeds


def test_a_spent_budget_says_so(data, config, tmp_path):
    with pytest.raises(NothingDoneError, match="--budget"):
        prove(data / "real", tmp_path / "proof", config.replace(budget=1e-9), quiet=True)


DARK = """
import json, sys
from pathlib import Path
import numpy as np
from PIL import Image
data, out = map(Path, sys.argv[1:])
print(len(list(data.glob("train/*/*.png"))), len(list(data.glob("ground_truth/*/*.png"))))
names = {}
for path in sorted((data / "test").iterdir()):
    np.save(out.parent / f"{path.stem}.npy", 255.0 - np.asarray(Image.open(path).convert("L")))
    names[f"test/{path.name}"] = f"{path.stem}.npy"
out.write_text(json.dumps(names))
"""


def test_a_command_stands_in(data, config, tmp_path):
    (tmp_path / "dark.py").write_text(DARK)
    how = config.replace(
        detector=f"{sys.executable} {tmp_path / 'dark.py'} {{data}} {{out}}",
        healthy=(data / "good",),
        share=(0.25, 0.5),
    )
    body = json.loads(prove(data / "real", tmp_path / "proof", how, quiet=True).read_text())
    assert list(body["arms"]) == [
        "real alone",
        "real + cut-paste",
        "real + healthy",
        "real + made, share 0.25",
        "real + made, share 0.5",
    ]
    assert {arm["figures"]["pixel_ap"]["mean"] for arm in body["arms"].values()} == {1.0}
    assert body["verdicts"][0]["verdict"] == "does not help"


def test_the_command(data, proof, tmp_path):
    out = tmp_path / "proof"
    shutil.copytree(proof, out)
    options = [f"--{k.replace('_', '-')}={v}" for k, v in TINY.items() if k != "group"]
    result = command_line(
        "prove",
        data / "real",
        "--good",
        data / "good",
        "--synthetic",
        data / "made",
        "--group",
        r"part\d+",
        "--out",
        out,
        *options,
    )
    assert result.returncode == 0, result.stderr
    assert "pixel AP changes by" in result.stdout
    assert "warning: made: it is not known what it was learned from" in result.stderr
    assert len(_lines(out)) == 6


def test_a_share_of_all_is_not_possible():
    with pytest.raises(UsageError, match="share"):
        ProveConfig(synthetic=("made",), share="1")


def test_a_proof_needs_a_set_of_made_pictures(data, config, tmp_path):
    with pytest.raises(UsageError, match="--synthetic: needed"):
        prove(data / "real", tmp_path / "proof", config.replace(synthetic=()), quiet=True)
