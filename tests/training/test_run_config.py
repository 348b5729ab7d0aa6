"""A run's configuration: what replaces what, and every fault in one message."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from defectrt.config.command_line import given
from defectrt.config.yaml import read_yaml
from defectrt.errors import InputError, UsageError
from defectrt.training.config import PRESETS, RunConfig, TrainConfig, dump_config, load_config

NEEDED = {"model": "m", "out": "runs/x"}


@pytest.fixture
def write(tmp_path):
    def make(text):
        path = tmp_path / "run.yaml"
        path.write_text(text) if isinstance(text, str) else path.write_bytes(text)
        return path

    return make


def test_options_go_over_the_file_over_the_preset_over_the_defaults(write):
    file = write("model: m\nout: runs/x\nbatch_size: 3\nsteps: 7\ngood: data/good\n")
    run, training = load_config("sd15", file, {"steps": 9})
    assert (training.steps, training.batch_size, training.accumulate) == (9, 3, 4)
    assert training.warmup == TrainConfig().warmup
    assert run.good == (Path("data/good"),)


def test_a_file_may_name_its_preset_and_an_option_another(write):
    file = write("preset: sd21\nmodel: m\nout: runs/x\n")
    assert load_config(None, file, {})[1].window == 768
    assert load_config("sd15", file, {})[1].window == 512


def test_a_key_replaces_the_one_below_it_whole(write):
    file = write("model: m\nout: x\ndefect:\n  hole: a\n  crack: b\n")
    assert load_config(None, file, {"defect": {"dent": "c"}})[0].defect == {"dent": Path("c")}


def test_every_fault_is_in_one_message(write):
    file = write("learning_rat: 1\nsteps: many\ngood_share: 2\ndevice: tpu\n_secret: 1\n")
    with pytest.raises(UsageError) as caught:
        load_config(None, file, {"lora": -1})
    lines = str(caught.value).splitlines()[1:]
    said = {line.strip().partition(":")[0] for line in lines}
    assert said == {
        "out", "learning_rat", "steps", "good_share", "device", "_secret", "lora",
    }  # fmt: skip
    assert "learning_rat: unknown key; did you mean learning_rate?" in str(caught.value)


@pytest.mark.parametrize("objective", ["autoencoder", "decoder"])
def test_a_lora_of_the_autoencoder_is_refused(objective):
    with pytest.raises(UsageError, match=f"lora: there is none for the {objective}"):
        TrainConfig(lora=4, objective=objective)


def test_what_is_written_down_reads_back_the_same(write):
    run, training = load_config(
        "sd15-lora", None, NEEDED | {"defect": {"hole": "a"}, "prompt": {"hole": "a deep hole"}}
    )
    again = load_config(None, write(dump_config(run, training)), {})
    assert again[1] == training
    assert again[0].defect == {"hole": Path("a").resolve()}
    assert again[0].out == Path("runs/x").resolve()


@pytest.mark.parametrize(
    ("preset", "objective"),
    [("small-autoencoder", "autoencoder"), ("small-base", "denoise"), ("small", "disentangle")],
)
def test_a_small_model_is_made_in_three_stages(preset, objective):
    assert load_config(preset, None, NEEDED)[1].objective == objective


@pytest.mark.parametrize(
    ("preset", "window", "prediction"),
    [
        ("sd15", 512, "epsilon"),
        ("sd15-lora", 512, "epsilon"),
        ("sd21", 768, "v_prediction"),
        ("sd21-base", 512, "epsilon"),
    ],
)
def test_stable_diffusion_has_the_iterations_of_the_paper(preset, window, prediction):
    _, training = load_config(preset, None, NEEDED)
    assert (training.objective, training.steps) == ("disentangle", 500)
    assert (training.window, training.prediction) == (window, prediction)


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(UsageError, match=r"preset sd3: there are .*sd15"):
        load_config("sd3", None, NEEDED)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: 3\nsteps: 4\n", "given twice: steps"),
        ("- steps\n", "expected keys with values"),
        ("1: 2\n", "expected keys with values"),
        ("steps: [1\n", "line 2"),
        ("model: !!python/object/apply:os.system [exit]\n", "not YAML"),
        ("[" * 5000, "not YAML"),
        ("model: " + "x" * (1 << 20), "too large"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("when: 2026-99-99\n", "not YAML"),
    ],
    ids=["twice", "list", "number", "open", "python", "deep", "large", "binary", "date"],
)
def test_a_hostile_file_is_refused_by_name(write, text, said):
    with pytest.raises(InputError, match=rf"(?s)run\.yaml: .*{re.escape(said)}"):
        read_yaml(write(text))


def test_a_file_that_is_not_there():
    with pytest.raises(InputError, match=r"none\.yaml: the configuration cannot be read"):
        read_yaml(Path("none.yaml"))


def test_an_option_of_pairs_says_how_it_is_written():
    areas = (RunConfig, TrainConfig)
    options = {"defect": ["hole=a/b=c"], "steps": None, "good": []}
    assert given(options, *areas) == {"defect": {"hole": "a/b=c"}}
    with pytest.raises(UsageError, match="--prompt hole: write TYPE=TEXT"):
        given({"prompt": ["hole"]}, *areas)


def test_the_documentation_explains_every_value_of_the_presets():
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    for preset, path in PRESETS.items():
        assert f"`{preset}`" in text
        for key in read_yaml(path):
            assert f"`{key}`" in text, key
