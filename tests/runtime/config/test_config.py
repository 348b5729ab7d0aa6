"""One set of options: whoever says them, in whatever way, means the same."""

from __future__ import annotations

import json
import re

import pytest
from support.outputs import dataset_of, tree
from support.program import command_line

from defectrt.config.command_line import keys
from defectrt.config.engine import EngineConfig
from defectrt.config.job import AREAS, FolderConfig, FormatConfig, JobConfig, SynthesizerConfig
from defectrt.config.yaml import read_yaml, write_yaml
from defectrt.errors import UsageError
from defectrt.export.config import BuildConfig
from defectrt.synthesis.job import Summary, synthesize
from defectrt.training.config import RunConfig, TrainConfig, dump_config, load_config

#: Between them, every field of a job has a value that is not its default.
JOBS = [
    JobConfig(
        images="good",
        out="data",
        category="plate",
        mark=False,
        shard="2/8",
        healthy=0.2,
        format="yolo,coco",
        workpiece=r"tile(\d+)",
        test_share=0.25,
        synthetic_test=True,
        engine="engines/hole",
        batch_size=3,
        threads=2,
        provider="auto",
        trust="ab,cd",
        defect="hole=3,dent",
        count=2,
        strength=(0.2, 0.7),
        candidates=5,
        retries=7,
        seed=-7,
        steps=10,
        background="dual",
        blend="decoded",
        refine="both",
        refine_threshold=0.25,
        refine_smooth=0,
        refine_min_area=9,
        min_change=0.5,
        min_grain=1.5,
        min_coverage=0.125,
        max_leak=2.5,
        grow=1.5,
        feather=3,
        context=21,
        mask_bank="bank",
        mask_scale=(0.5, 2),
        mask_min_area=5,
        size=(8, 20.5),
        instances=(2, 5),
        mixed=True,
        golden="one.png",
        legal="legal.png",
        forbidden="not.png",
        margin=0,
    ),
    JobConfig(images="good", out="data", masks="masks", within="foreground"),
    JobConfig(images="good", out="data", shape="perlin", within="regions"),
    JobConfig(images="good", out="data", like="defects", within="anywhere"),
]
BUILDS = [
    BuildConfig(steps=(50,), solver="ddim", convention="diffusers", map_size=8, half_weights=True),
    BuildConfig(backend="aoti", defect=("hole", "dent"), batch_size=(2, 5, 9), device="cpu"),
    BuildConfig(backend="tensorrt-rtx", precision="bfloat16", compute_capability=(89, 120)),
    BuildConfig(
        backend="tensorrt", batch_size=(4, 8), weight_streaming=True, standard_attention=True
    ),
]
RUNS = [
    (
        RunConfig(
            model="models/base",
            from_nothing=True,
            out="runs/x",
            data="data",
            layout="mvtec",
            split="split.json",
            defect={"hole": "a", "dent": "b"},
            good=("good", "better"),
            mask_threshold=9,
            per_defect_type=True,
            checkpoint_every=3,
            keep_checkpoints=4,
            preview_every=0,
            preview_steps=7,
            tensorboard=False,
            mlflow=True,
            device="cuda:1",
            threads=2,
        ),
        TrainConfig(
            objective="denoise",
            steps=3,
            batch_size=2,
            accumulate=3,
            learning_rate=1e-3,
            warmup=1,
            cooldown=2,
            weight_decay=0,
            optimizer="adafactor",
            lora=8,
            ema=0.5,
            good_share=0.25,
            prior_weight=0.5,
            guidance=1.5,
            normalize_by_mask_area=False,
            background_prompt="fine",
            masked_prompt="hidden",
            prompt={"hole": "a deep hole"},
            precision="bfloat16",
            gradient_checkpointing=True,
            window=64,
            flip="none",
            turn=True,
            magnify="fit",
            contrast=0.25,
            brightness=0.5,
            loose=0.25,
            prediction="sample",
            seed=3,
        ),
    )
]


def values_of(*configs):
    """What was chosen, by the keys of files."""
    return {
        key: value
        for config in configs
        for key, value in config.model_dump(mode="json", by_alias=True, exclude_unset=True).items()
    }


def words_of(values):
    """The same as a command line would have it."""
    words = []
    for key, value in values.items():
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, dict):
            words += [word for name, text in value.items() for word in (flag, f"{name}={text}")]
        elif key in ("instances", "mask_scale", "size", "strength"):
            words += [flag, ",".join(map(str, value))]
        elif isinstance(value, list):
            words += [word for item in value for word in (flag, item)]
        else:
            words += [flag, value]
    return words


def both_ways(values, tmp_path):
    """The options on the command line, and in a file that it names."""
    file = tmp_path / "options.yaml"
    file.write_text(write_yaml(values), encoding="utf-8")
    return [words_of(values), ["--config", file]]


@pytest.mark.parametrize("areas", [(JOBS,), (BUILDS,), tuple(zip(*RUNS, strict=True))])
def test_the_examples_of_these_tests_leave_no_field_out(areas):
    for configs in areas:
        chosen = {name for config in configs for name in config.model_fields_set}
        assert chosen == set(type(configs[0]).model_fields)
        for name, field in type(configs[0]).model_fields.items():
            default = field.get_default(call_default_factory=True)
            assert any(getattr(config, name) != default for config in configs), name


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_the_same_on_the_command_line_in_a_file_and_in_python(job, tmp_path, monkeypatch):
    asked = []

    def run(images=None, out=None, config=None, **options):
        asked.append(config)
        return Summary()

    monkeypatch.setattr("defectrt.synthesis.job.synthesize", run)
    values = values_of(job)
    for words in both_ways(values, tmp_path):
        result = command_line("synthesize", *words)
        assert result.returncode == 0, result.stderr
    assert asked == [job, job]
    assert JobConfig(**values) == job


@pytest.mark.parametrize("config", BUILDS)
def test_an_engine_is_the_same_on_the_command_line_and_in_a_file(config, tmp_path, monkeypatch):
    from defectrt.export import backends, build

    asked, built = [], []
    monkeypatch.setattr(backends, "open_backend", lambda how: asked.append(how) or "backend")
    monkeypatch.setattr(build, "build", lambda *args, **options: built.append((args, options)))
    for words in both_ways(values_of(config), tmp_path):
        result = command_line("build-engine", "run", "--out", "engine", *words)
        assert result.returncode == 0, result.stderr
    assert asked == [config, config]
    for args, options in built:
        assert args[2] == "backend"
        named = [options[name] for name in ("steps", "solver", "convention", "map_side", "defects")]
        assert named == [
            config.steps,
            config.solver,
            config.convention,
            config.map_size,
            config.defect,
        ]


@pytest.mark.parametrize("configs", RUNS)
def test_a_run_is_the_same_on_the_command_line_and_in_a_file(configs, tmp_path, monkeypatch):
    from defectrt.training.loop import runs

    asked = []

    def start(run, training, **options):
        asked.append((run, training))
        return []

    monkeypatch.setattr(runs, "start", start)
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)
    for words in both_ways(values_of(*configs), tmp_path):
        result = command_line("train", *words)
        assert result.returncode == 0, result.stderr
    assert asked == [configs, configs]
    file = tmp_path / "again.yaml"
    file.write_text(dump_config(*configs), encoding="utf-8")
    assert load_config(None, file, {})[1] == configs[1]


def test_the_journal_is_the_same_whoever_asked(parts, fake_engine, tmp_path):
    """All of the output is, byte for byte."""
    images, masks = parts
    options = {"engine": str(fake_engine[0]), "masks": str(masks), "count": 2, "refine": "none"}
    options |= {"format": "coco", "category": "plate", "batch_size": 3, "feather": 3.5}
    synthesize(images, tmp_path / "python", quiet=True, **options)
    values = {"images": str(images), **options}
    file = tmp_path / "options.yaml"
    file.write_text(write_yaml(values | {"out": str(tmp_path / "yaml")}), encoding="utf-8")
    for words in (["--config", file], [*words_of(values), "--out", tmp_path / "line"]):
        result = command_line("synthesize", *words, "--quiet")
        assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "python" / "job.json").read_text())
    assert (record["batch_size"], record["feather"], record["refine"]) == (3, 3.5, "none")
    made = [dataset_of(tmp_path / name) for name in ("python", "yaml", "line")]
    assert made[0] == made[1] == made[2]
    assert any(name.startswith("coco/") for name in made[0])


def test_the_command_line_goes_over_the_file(go, fake_engine, parts, tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text(f"images: {parts[0]}\nmasks: {parts[1]}\ncount: 2\nseed: 4\nformat: [yolo]\n")
    words = ["--engine", fake_engine[0], "--out", tmp_path / "out", "--count", 1]
    result = command_line("synthesize", "--config", file, *words, "--format", "coco", "--json")
    assert json.loads(result.stdout)["kept"] == 3
    assert json.loads((tmp_path / "out" / "job.json").read_text())["seed"] == 4
    assert {"coco"} == {name.split("/")[0] for name in tree(tmp_path / "out")} & {"coco", "yolo"}
    file.write_text("tensorboard: true\nturn: true\nmodel: m\nout: x\n")
    run, training = load_config(None, file, {"tensorboard": False})
    assert (run.tensorboard, training.turn) == (False, True)


@pytest.mark.parametrize(
    ("command", "in_file", "words", "said"),
    [
        (
            ["synthesize"],
            {"candidats": 3, "count": 0, "refine": "magic", "images": "x"},
            ["--batch-size", -1],
            {
                "batch_size": "input should be greater than or equal to 1, not -1",
                "count": "input should be greater than or equal to 1, not 0",
                "refine": "input should be 'attention', 'change', 'both' or 'none', not 'magic'",
                "candidats": "unknown key; did you mean candidates?",
            },
        ),
        (
            ["build-engine", "run", "--out", "engine"],
            {"bakend": "onnx", "map_size": 0, "steps": []},
            ["--batch-size", "many"],
            {
                "steps": "tuple should have at least 1 item after validation, not 0, not []",
                "map_size": "input should be greater than or equal to 1, not 0",
                "batch_size.0": "input should be a valid integer, unable to parse string as an "
                "integer, not 'many'",
                "bakend": "unknown key; did you mean backend?",
            },
        ),
        (
            ["train"],
            {"learning_rat": 1, "objective": "x"},
            ["--lora", -1],
            {
                "out": "needed; give --out or out: in the file",
                "objective": "input should be 'autoencoder', 'decoder', 'denoise' or "
                "'disentangle', not 'x'",
                "lora": "input should be greater than or equal to 0, not -1",
                "learning_rat": "unknown key; did you mean learning_rate?",
            },
        ),
    ],
    ids=["synthesize", "build-engine", "train"],
)
def test_every_fault_is_in_one_message(tmp_path, command, in_file, words, said):
    """Of the file and of the command line, before anything is opened."""
    (tmp_path / "options.yaml").write_text(write_yaml(in_file))
    result = command_line(*command, "--config", tmp_path / "options.yaml", *words)
    assert result.returncode == 2
    head, *lines = result.stderr.splitlines()
    assert head == "error: the options are not possible:"
    assert dict(line.strip().split(": ", 1) for line in lines) == said


def test_a_file_that_cannot_be_read_is_another_fault(tmp_path):
    for text, said in (("count: [", "not YAML"), ("- count", "expected keys with values")):
        (tmp_path / "options.yaml").write_text(text)
        result = command_line("synthesize", "--config", tmp_path / "options.yaml")
        assert result.returncode == 3
        assert f"options.yaml: {said}" in result.stderr


def test_python_names_an_unknown_option_too():
    with pytest.raises(UsageError, match=r"cuont: unknown key; did you mean count\?"):
        synthesize("good", "data", cuont=3)
    with pytest.raises(UsageError, match=r"images: needed[\s\S]*zzz: unknown key$"):
        JobConfig(out="data", zzz=1)


@pytest.mark.parametrize(
    ("command", "areas", "left"),
    [
        ("synthesize", AREAS, ()),
        ("train", (RunConfig, TrainConfig), ()),
        ("build-engine", (BuildConfig,), ()),
        ("doctor", (EngineConfig,), ("batch_size", "threads", "provider")),
        ("bench", (EngineConfig,), ("engine", "trust")),
    ],
)
def test_help_shows_every_field_once_with_its_text(command, areas, left):
    text = command_line(command, "--help").stdout
    options = re.findall(r"^  (?:-\w, )?--([a-z-]+)", text, re.MULTILINE)
    assert len(options) == len(set(options))
    said = " ".join(text.split())
    for key, field in keys(*areas):
        assert (key.replace("_", "-") in options) == (key not in left), key
        assert field.description, key
        if key not in left:
            # a long line is broken at hyphens too
            assert field.description.replace(" ", "") in said.replace(" ", ""), key


def test_the_areas_of_a_job_are_all_of_it():
    named = [name for area in AREAS for name in area.model_fields]
    assert len(named) == len(set(named))
    assert set(named) == set(JobConfig.model_fields)
    files = {*FolderConfig.model_fields, *FormatConfig.model_fields}
    assert set(named) - files == set(SynthesizerConfig.model_fields)


def test_replace_checks_again_and_keeps_the_rest():
    job = JOBS[0]
    other = job.replace(count=4, format="coco")
    assert (other.count, other.formats) == (4, ("coco",))
    assert job.replace(formats=("coco",), count=4) == other
    assert other.replace(count=job.count, format=job.formats) == job
    assert job.replace() == job
    with pytest.raises(UsageError, match="count: input should be"):
        job.replace(count=0)
    with pytest.raises(UsageError, match="masks, mask_bank, shape and like exclude each other"):
        job.replace(masks="masks")
    with pytest.raises(UsageError, match="counts: unknown key; did you mean count"):
        job.replace(counts=3)


def test_options_beside_a_configuration_replace_what_it_says(go, parts, fake_engine, tmp_path):
    folders = {"images": parts[0], "masks": parts[1], "engine": fake_engine[0]}
    config = JobConfig(**folders, out=tmp_path / "no", count=3, seed=5)
    summary = synthesize(out=tmp_path / "out", config=config, count=2, quiet=True)
    assert summary.kept == 6
    record = json.loads((tmp_path / "out" / "job.json").read_text())
    assert record == json.loads((go(count=2, seed=5, name="b")[0] / "job.json").read_text())
    assert not (tmp_path / "no").exists()


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        JOBS[0].count = 5


def test_a_file_is_what_was_written(tmp_path):
    for config in (*JOBS, *BUILDS):
        values = config.model_dump(mode="json", by_alias=True)
        (tmp_path / "all.yaml").write_text(write_yaml(values), encoding="utf-8")
        assert type(config)(**read_yaml(tmp_path / "all.yaml")) == config


@pytest.mark.parametrize("key", ["images", "out", "engine", "masks", "within"])
def test_an_empty_text_is_no_path(key):
    with pytest.raises(UsageError, match=f"{key}: is empty; leave it out, or write"):
        JobConfig(**{"images": "good", key: ""})


def test_more_samples_than_anybody_could_wait_for_are_refused_at_once():
    with pytest.raises(UsageError, match="count: input should be less than or equal to 1000000"):
        JobConfig(images="good", count=10**20)
