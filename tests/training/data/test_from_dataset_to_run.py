"""From a dataset to a run: what is learned from, what is written, what may be measured."""

from __future__ import annotations

import json

import pytest
from support.datasets import image, mask, mvtec, visa, write

from defectrt.errors import InputError, UsageError
from defectrt.images.reading import read_image
from defectrt.training.config import RunConfig, TrainConfig, load_config
from defectrt.training.data.dataset import read_dataset
from defectrt.training.data.splits import fold, read_split, samples_of, whole, write_split
from defectrt.training.evaluation.heldout import evaluate
from defectrt.training.loop.runs import start
from defectrt.training.models.stable_diffusion import SIZES, new_model
from defectrt.training.record import seen

#: Every one trains.
pytestmark = pytest.mark.slow

TRAINING = TrainConfig(steps=2, batch_size=2, learning_rate=1e-3, window=32)


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blank")
    new_model(SIZES["tiny"]).save(folder)
    return folder


@pytest.fixture
def bottle(tmp_path):
    root = mvtec(tmp_path / "bottle")
    write(root / "test/hole/001.png", image(50))
    write(root / "ground_truth/hole/001_mask.png", mask())
    return root


def run(blank, out, training=TRAINING, *, resume=False, **options):
    config = RunConfig(model=str(blank), from_nothing=True, out=out, preview_every=0, **options)
    list(start(config, training, resume=resume, quiet=True))
    return json.loads((out / "run.json").read_text())


@pytest.mark.slow
def test_a_split_is_learned_from_and_its_other_side_may_be_measured(blank, bottle, tmp_path):
    dataset = read_dataset(bottle)
    split = fold(dataset, 0)
    write_split(split, tmp_path / "split.json")
    out = tmp_path / "run"
    record = run(blank, out, data=bottle, split=tmp_path / "split.json")
    assert {d["sha256"] for d in record["dataset"]} == {e.sha256 for e in split.train}
    assert read_split(out / "split.json", dataset) == split
    assert seen(out).keys() == {e.sha256 for e in split.train}
    result = evaluate(out, samples_of(dataset, split, "test"), count=2, steps=2)
    assert result.defect_types.keys() == {"crack", "hole"}
    with pytest.raises(InputError, match="has learned from 4 of the images"):
        evaluate(out, samples_of(dataset, split, "train"), count=2, steps=2)
    go_on = TRAINING.model_copy(update={"steps": 3})
    run(blank, out, go_on, data=bottle, split=tmp_path / "split.json", resume=True)


def test_a_whole_dataset_is_learned_from_but_for_its_good_test_images(blank, bottle, tmp_path):
    out = tmp_path / "run"
    record = run(blank, out, data=bottle)
    assert len(record["dataset"]) == 6
    dataset = read_dataset(bottle)
    assert read_split(out / "split.json", dataset) == whole(dataset)
    assert [p["name"] for p in record["prompts"]] == ["background", "masked", "crack", "hole"]
    path = next((bottle / "ground_truth").rglob("*.png"))
    kept = path.read_bytes()
    bits = read_image(path).squeeze()
    bits[0, 0] = 255 - bits[0, 0]
    write(path, bits)
    with pytest.raises(InputError, match="the masks of the training images are not the same"):
        run(blank, out, data=bottle, resume=True)
    path.write_bytes(kept)
    write(bottle / "train/good/009.png", image(9))
    with pytest.raises(InputError, match="the training images are not the same"):
        run(blank, out, data=bottle, resume=True)


def test_a_list_that_came_with_a_dataset_gets_its_hashes(blank, tmp_path):
    root = visa(tmp_path / "visa")
    path = root / "split_csv" / "2cls.csv"
    lines = (root / "split_csv" / "1cls.csv").read_text().replace("test,anom", "train,anom")
    path.write_text(lines + "candle,test,normal,candle/Data/Images/Normal/0009.JPG,\n")
    run(blank, tmp_path / "run", data=root, split=path)
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert [len(split[side]) for side in ("train", "test")] == [4, 2]
    without = [e["name"] for side in ("train", "test") for e in split[side] if not e["sha256"]]
    assert without == ["Data/Images/Normal/0009.JPG"]  # which is not there


@pytest.mark.slow
def test_a_model_a_defect_type_has_the_split_too(blank, bottle, tmp_path):
    list(
        start(
            RunConfig(
                model=str(blank),
                from_nothing=True,
                out=tmp_path / "r",
                data=bottle,
                per_defect_type=True,
                preview_every=0,
            ),
            TRAINING,
            quiet=True,
        )
    )
    assert (tmp_path / "r" / "crack" / "split.json").is_file()
    assert json.loads((tmp_path / "r/hole/run.json").read_text())["prompts"][2]["name"] == "hole"


def test_the_configuration_of_a_run_starts_it_again_from_anywhere(
    blank, bottle, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = RunConfig(
        model=str(blank), from_nothing=True, out="run", data="bottle", preview_every=0
    )
    list(start(config, TRAINING, quiet=True))
    again, training = load_config(None, tmp_path / "run" / "config.yaml", {})
    assert again.data == bottle
    assert training == TRAINING


def test_options_of_a_dataset_need_one(blank, tmp_path):
    for option in ({"split": tmp_path / "x.json"}, {"layout": "mvtec"}):
        with pytest.raises(UsageError, match="only with --data, the dataset it is of"):
            run(blank, tmp_path / "run", **option)


def test_images_that_are_not_read_are_named(blank, bottle, tmp_path, capsys):
    (bottle / "train/good/9.webp").touch()
    config = RunConfig(
        model=str(blank), from_nothing=True, out=tmp_path / "run", data=bottle, preview_every=0
    )
    list(start(config, TRAINING))
    assert "note: 1 files are not read, as they are not PNG" in capsys.readouterr().err


def test_augmentation_reaches_the_crops(blank, bottle, tmp_path, monkeypatch):
    from defectrt.training.loop import train as loop

    given = []
    real = loop.Crops
    monkeypatch.setattr(loop, "Crops", lambda *a, **k: given.append(k) or real(*a, **k))
    still = {"flip": "none", "turn": True, "contrast": 0.0, "brightness": 0.0, "loose": 0.25}
    run(blank, tmp_path / "run", TRAINING.model_copy(update=still), data=bottle)
    assert vars(given[0]["augmentation"]) == still
