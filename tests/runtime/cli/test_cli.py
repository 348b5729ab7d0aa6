"""The command line as a user meets it: help, exit codes, messages, pipes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.datasets import mvtec
from support.outputs import save
from support.program import command_line

import defectrt
from defectrt.cli import main
from defectrt.errors import DefectRTError
from defectrt.extras import requires

COMMANDS = [
    "synthesize",
    "series",
    "merge",
    "doctor",
    "info",
    "verify",
    "train",
    "new-model",
    "build-engine",
]


#: The module, whose name in the package is taken by the application that it makes.
app = sys.modules["defectrt.cli.app"]


def program(*words, stdout=subprocess.PIPE, **env):
    """Run the program as its own process."""
    return subprocess.run(
        [sys.executable, "-c", "from defectrt.cli import main; main()", *map(str, words)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
        check=False,
    )


def test_version_and_help_without_heavy_imports():
    result = program("--version")
    assert result.stdout == f"defectrt {defectrt.__version__}\n"
    code = (
        "import sys; from defectrt import cli; sys.argv = ['defectrt', '--help']\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'onnxruntime', 'cv2', 'diffusers'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip().endswith("[]")
    assert all(command in out.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_examples(command):
    result = command_line(command, "--help")
    assert result.returncode == 0
    assert "Examples:" in result.stdout
    assert f"defectrt {command} " in result.stdout


def test_bad_usage_is_2_and_names_what_is_missing():
    result = command_line("synthesize", "--out", "x")
    assert result.returncode == 2
    assert "images: needed; give --images or images: in the file" in result.stderr
    assert command_line("frobnicate").returncode == 2


def test_the_codes_are_pinned():
    def all_kinds(kind):
        return {kind.__name__: kind.exit_code} | {
            k: v for sub in kind.__subclasses__() for k, v in all_kinds(sub).items()
        }

    assert all_kinds(DefectRTError) == {
        "DefectRTError": 1,
        "UsageError": 2,
        "InputError": 3,
        "EngineError": 4,
        "OutputError": 5,
        "MissingExtraError": 6,
        "NoMemoryError": 20,
        "PartialError": 7,
        "NothingDoneError": 8,
        "TrainingError": 9,
        "Cancelled": 130,
    }


def test_a_missing_extra_names_the_line_to_run():
    with pytest.raises(DefectRTError, match=r"package nonesuch.*pip install 'defectrt\[train\]'"):  # noqa: SIM117
        with requires("train"):
            import nonesuch  # noqa: F401
    with pytest.raises(ModuleNotFoundError):  # noqa: SIM117
        with requires("train"):
            import defectrt.nonesuch  # noqa: F401


@pytest.mark.slow
def test_the_runtime_needs_no_torch(engine, parts, tmp_path):
    """The whole job with torch and its company made impossible to import."""
    names = ("torch", "diffusers", "transformers", "onnx")
    block = f"import sys\nfor n in {names}: sys.modules[n] = None\n"
    words = ["synthesize", "--images", parts[0], "--masks", parts[1], "--engine", engine]
    words += ["--out", tmp_path / "out", "--defect", "spot", "--refine", "none", "--quiet"]
    code = f"{block}from defectrt.cli import main; sys.argv[1:] = {list(map(str, words))}; main()"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "3 requested, 3 placed, 3 generated (3 now), 3 kept" in result.stdout
    assert len((tmp_path / "out" / "manifest.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
def test_synthesize_speaks_to_eyes_and_machines(engine, parts, tmp_path):
    images, masks = parts
    (images / "zz.png").write_bytes(b"")
    words = ["synthesize", "--images", images, "--masks", masks, "--engine", engine]
    words += ["--defect", "spot", "--refine", "none"]
    result = command_line(*words, "--out", tmp_path / "a", "--json")
    assert result.returncode == 7
    summary = json.loads(result.stdout)
    assert summary["requested"] == 4
    assert summary["kept"] == 3
    assert "synthesize 4/4 kept 3" in result.stderr
    assert "error: 3 of 4 samples were made\n" in result.stderr
    assert "zz.png: the file is empty" in result.stderr
    again = command_line(*words, "--out", tmp_path / "a", "--quiet")
    assert again.returncode == 7
    assert "4 requested, 3 placed, 3 generated (0 now), 3 kept" in again.stdout
    assert "0 of 3 candidates rejected, 1 images failed" in again.stdout
    other = command_line(*words, "--out", tmp_path / "a", "--seed", "1")
    assert other.returncode == 3
    assert "was started as another job (seed: 0 -> 1)" in other.stderr
    save(tmp_path / "mine" / "a.png", np.zeros((4, 4), np.uint8))
    taken = command_line(*words, "--out", tmp_path / "mine")
    assert taken.returncode == 5
    assert "not empty and not a job's folder; choose another --out" in taken.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--engine", "none"], 4, "no such engine directory"),
        (["--images", "none"], 3, "no such folder of images"),
        (["--masks", "none"], 3, "no such folder of masks"),
        (["--out", "/proc/none"], 5, "cannot be written"),
        (["--steps", "3"], 2, "no schedule of 3 steps; it has: 2, 4"),
        (["--defect", "rust"], 2, "no defect is named 'rust'; this engine makes: line, spot"),
        (["--category", "../up"], 2, "'../up' cannot be the name of a folder"),
        (["--count", "0"], 2, "count: input should be greater than or equal to 1, not 0"),
        (["--format", "coco,voc"], 2, "format: choose from mvtec, coco, coco-rle, yolo"),
        (["--refine", "magic"], 2, "Invalid value for '--refine'"),
        (["--feather", "nan"], 2, "feather: input should be"),
        (["--mask-bank", "bank"], 2, "masks, mask_bank, shape and like exclude each other"),
        (["--within", "none"], 3, "none: no such region; give a folder, an image, or"),
        (["--legal", "none.png"], 2, "legal and forbidden need golden"),
        (["--shape", "scrach"], 2, "shape 'scrach': one of blob, crack"),
        (["--instances", "0"], 2, "instances: from low to high, 1 to 100"),
    ],
)
def test_one_clear_message_and_the_right_code(engine, parts, tmp_path, words, code, message):
    options = {
        "--images": parts[0],
        "--masks": parts[1],
        "--engine": engine,
        "--out": tmp_path / "out",
        "--defect": "spot",
    } | {words[0]: words[1]}
    result = command_line("synthesize", *[w for pair in options.items() for w in pair])
    assert result.returncode == code
    assert message in result.stderr
    assert result.stderr.lower().count("error:") == 1
    assert "Traceback" not in result.stderr


def test_an_unexpected_fault_is_one_line_unless_asked_for_more(monkeypatch, capsys):
    monkeypatch.setattr(app, "command_line", lambda: 1 / 0)
    with pytest.raises(SystemExit) as stop:
        app.main()
    text = capsys.readouterr().err
    assert stop.value.code == 1
    assert "unexpected ZeroDivisionError" in text
    assert "Traceback" not in text
    monkeypatch.setenv(app.DEBUG, "1")
    with pytest.raises(SystemExit):
        app.main()
    assert "Traceback" in capsys.readouterr().err


def test_debug_shows_where_an_expected_error_arose(tmp_path):
    words = ["synthesize"]
    for option in ("images", "masks", "engine", "out"):
        words += [f"--{option}", tmp_path / option]
    assert "Traceback" not in command_line(*words).stderr
    result = program("--debug", *words)
    assert result.returncode == 3
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("images: no such folder of images, nor an image\n")


def test_commands_that_cannot_be_loaded_are_one_line(monkeypatch, capsys):
    def broken(group):
        raise ModuleNotFoundError(f"No module of {group}")

    monkeypatch.setattr(app, "entry_points", broken)
    with pytest.raises(SystemExit) as stop:
        app.main()
    assert stop.value.code == 1
    text = capsys.readouterr().err
    assert text.startswith("error: unexpected ModuleNotFoundError: No module of defectrt.commands")
    assert text.count("\n") == 1


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_that_works(engine, tmp_path):
    for i in range(10):
        save(tmp_path / "images" / f"{i}.png", np.full((40, 40), 150, np.uint8))
        save(tmp_path / "masks" / f"{i}.png", np.eye(40, dtype=np.uint8))
    words = ["synthesize", "--engine", engine, "--defect", "spot", "--refine", "none"]
    for option in ("images", "masks", "out"):
        words += [f"--{option}", tmp_path / option]
    words += ["--count", 10, "--batch-size", 1, "--threads", 1]
    words = list(map(str, words))
    started = [sys.executable, "-c", "from defectrt.cli import main; main()", *words]
    with subprocess.Popen(started, stdout=-1, stderr=-1, text=True) as process:
        assert process.stderr.readline().startswith("synthesize 1/100")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "finishing the samples at hand; Ctrl-C again stops at once" in errors
    assert re.search(
        r"error: stopped after \d+ of 100 samples; run the same command again to go on\n$", errors
    )
    done = len((tmp_path / "out" / "manifest.jsonl").read_text().splitlines())
    assert 0 < done < 100
    assert len(list((tmp_path / "out" / "parts" / "test" / "spot").iterdir())) == done
    resumed = program(*words, "--quiet", "--json")
    assert resumed.returncode == 0
    summary = json.loads(resumed.stdout)
    assert (summary["kept"], summary["made"]) == (100, 100 - done)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is missing")
@pytest.mark.slow
@pytest.mark.parametrize("words", [["info"], ["--help"]])
def test_a_full_standard_output_is_told(words):
    with Path("/dev/full").open("w") as full:
        result = program(*words, stdout=full)
    assert result.returncode == 5
    assert result.stderr.startswith("error: standard output: cannot be written (No space")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_without_streams_the_work_is_done(tmp_path):
    code = (
        "import sys; sys.stdout = sys.stderr = None\n"
        f"sys.argv = ['defectrt', 'synthesize', '--images', {str(tmp_path)!r}, '--out', '/none']\n"
        "from defectrt.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (3, b"", b"")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_what_a_terminal_cannot_show_is_escaped(tmp_path, encoding):
    root = mvtec(tmp_path / "a")
    for folder in ("test", "ground_truth"):
        (root / folder / "hole").rename(root / folder / "部")
    result = program("data", "inspect", root, PYTHONIOENCODING=encoding)
    assert result.returncode in (0, 7), result.stderr
    assert "\\u90e8" in result.stdout


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["synthesize", "--images", ""], "--images"),
        (["synthesize", "--images="], "--images="),
        (["info", ""], "an argument"),
    ],
)
def test_an_empty_argument_is_not_the_folder_at_hand(monkeypatch, capsys, words, name):
    monkeypatch.setattr("sys.argv", ["defectrt", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"error: {name} is empty; is a variable of the shell not set?" in capsys.readouterr().err
