"""The pages are true: links, commands, options, Python, what is made from the code."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
from importlib import import_module
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from PIL import Image
from support import pages
from support.program import command_line as program

import defectrt
from defectrt.cli.app import command_line
from defectrt.config.job import JobConfig
from defectrt.config.yaml import read_yaml
from defectrt.engines import loading
from defectrt.engines.manifest import dump, read_manifest
from defectrt.errors import UsageError

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
on_every_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)
PYTHON = [
    (page.relative_to(ROOT).as_posix(), i, block)
    for page in PAGES
    for i, block in enumerate(pages.fenced(page.read_text(), "python"))
]
on_every_block = pytest.mark.parametrize(
    ("name", "source"), [(n, s) for n, _, s in PYTHON], ids=[f"{n}-{i}" for n, i, _ in PYTHON]
)


@pytest.fixture(scope="module")
def group():
    return command_line()


@on_every_page
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
    local = [t for t in targets if not re.match(r"[a-z]+:", t)]
    assert [t for t in local if not (page.parent / t).exists()] == []


def test_the_index_leads_to_every_page():
    text = (ROOT / "docs" / "index.md").read_text()
    others = {p.name for p in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert [name for name in sorted(others) if f"]({name})" not in text] == []


#: What a page holds while it is being written.
PLACEHOLDER = re.compile(r"\b(?:TODO|FIXME|TBD|XXX|JUDGEMENT|BENCH|\w+_CAPTION|FT_\w+)\b")


@on_every_page
def test_nothing_is_left_to_be_filled_in(page):
    assert PLACEHOLDER.findall(page.read_text()) == []


@pytest.mark.parametrize("text", ["*SHEET_CAPTION*", "| FT_STEPS |", "in FT_MIN min", "TODO: more"])
def test_a_placeholder_is_seen(text):
    assert PLACEHOLDER.search(text)


@on_every_page
def test_the_command_line_takes_every_command(page, group):
    found = (pages.fault(command, group) for command in pages.commands(page.read_text()))
    assert [fault for fault in found if fault] == []


def test_commands_are_found():
    text = (
        "Say\n\n    $ defectrt info \\\n      X   # so\n\n    torchrun -m defectrt train\n    ls\n"
    )
    assert pages.commands(text) == ["defectrt info X", "torchrun -m defectrt train"]
    assert len(pages.commands((ROOT / "docs" / "walkthrough.md").read_text())) == 7


@pytest.mark.parametrize(
    "command",
    [
        "defectrt paint",
        "defectrt data look DIR",
        "defectrt synthesize --colour red",
        "defectrt synthesize --count many",
        "defectrt synthesize --background new",
        "defectrt build-engine run",
        "accelerate launch -m defectrt train --kind x",
    ],
)
def test_a_command_that_is_not_taken_is_found(command, group):
    assert pages.fault(command, group)


@on_every_page
def test_options_named_in_the_text_are_there(page, group):
    assert pages.unknown_options(page.read_text(), pages.known_options(group)) == []


def test_an_option_that_is_not_there_is_found(group):
    known = pages.known_options(group)
    assert pages.unknown_options("`--count`, `--matching sum`, `defectrt x --no-flip`", known) == [
        "--matching",
        "--no-flip",
    ]


@on_every_page
def test_scripts_and_modules_are_there(page):
    assert [s for s in pages.scripts(page.read_text()) if pages.missing(s)] == []


def test_a_script_that_is_not_there_is_found():
    text = "    ./slowstart\n    python examples/none.py OUT\n    python -m defectrt.nothing x\n"
    assert len(pages.scripts(text)) == 3
    assert all(map(pages.missing, pages.scripts(text)))


@on_every_page
def test_paths_and_names_in_the_text_are_there(page):
    text = page.read_text()
    assert [path for path in pages.paths(text) if not (ROOT / path).exists()] == []
    assert [name for name in pages.names(text) if not pages.resolves(name)] == []


def test_a_path_or_name_that_is_not_there_is_found():
    text = "`runtime/cellar/`, `defectrt.Job`, `defectrt.engine.Engine`, `defectrt.masks.shapes`"
    assert not (ROOT / pages.paths(text)[0]).exists()
    assert [pages.resolves(name) for name in pages.names(text)] == [False, False, True]


@on_every_block
def test_python_imports_what_is_there(name, source):
    for module, attribute in pages.imports(source):
        try:
            loaded = import_module(module)
        except ModuleNotFoundError as error:
            if str(error.name).startswith("defectrt"):
                raise
            pytest.skip(f"{module} is for {error.name}, which is not installed")
        assert not attribute or hasattr(loaded, attribute), f"{name}: {module}.{attribute}"


@pytest.mark.parametrize("page", [p for p in PAGES if pages.files(p.read_text())], ids=str)
def test_configurations_are_possible(page, tmp_path):
    from defectrt.training.config import load_config

    for name, text in pages.files(page.read_text()).items():
        (tmp_path / name).write_text(text)
        if "images:" in text:
            JobConfig(**read_yaml(tmp_path / name))
        else:
            load_config(None, tmp_path / name, {})


def test_a_configuration_that_is_not_possible_is_found(tmp_path):
    (name, text), *_ = pages.files(
        "    # a.yaml\n    images: x\n    out: y\n    colour: red\n"
    ).items()
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="colour"):
        JobConfig(**read_yaml(tmp_path / name))


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder in which a reader would type: an example, a good image, a small dataset."""
    for folder, name in (("examples/images", "leather"), ("good", "wood")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "examples" / "images" / f"{name}.png", tmp_path / folder)
    for defect_type, numbers in {"MT_Crack": (100, 700), "MT_Free": (1300, 2000)}.items():
        folder = tmp_path / "magnetic_tile" / defect_type / "Imgs"
        folder.mkdir(parents=True)
        for number in numbers:
            tile = np.full((40, 40), number % 251, np.uint8)
            Image.fromarray(tile).save(folder / f"exp1_num_{number}.jpg")
            mask = np.zeros((40, 40), np.uint8)
            mask[10:20, 10:20] = 255 * (defect_type == "MT_Crack")
            Image.fromarray(mask).save(folder / f"exp1_num_{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quicker(tmp_path_factory, monkeypatch):
    """The bundled engine takes four steps where nobody says how many, instead of eight."""
    engine = tmp_path_factory.mktemp("bundled") / "engine"
    shutil.copytree(loading.BUNDLED_ENGINE, engine)
    manifest = read_manifest(engine)
    schedule = manifest.schedule.model_copy(update={"default_steps": 4})
    dump(manifest.model_copy(update={"schedule": schedule}), engine)
    monkeypatch.setattr(loading, "BUNDLED_ENGINE", engine)


def run_python(source):
    """Run a block as a reader would, with an image at hand."""
    exec(compile(source, "page", "exec"), {"image": np.full((96, 96, 3), 150, np.uint8)})


@pytest.mark.slow
@pytest.mark.usefixtures("quicker")
@on_every_block
def test_python_runs(name, source, desk):
    if "defectrt.training.hooks" in source:
        pytest.skip("tests/training/hooks and test_ray_cluster run it with the library it is for")
    if '"OUT"' in source:  # a job that is finished
        defectrt.synthesize("good", "OUT", defect="crack", quiet=True)
    run_python(source)


def test_python_that_does_not_run_is_found():
    with pytest.raises(UsageError, match="unknown key"):
        run_python("import defectrt\ndefectrt.synthesize('good', 'data', kind='scratch')")


def type_in(command):
    """Run a command of a page in this process; what a process of its own would have answered."""
    words = shlex.split(command)
    if words[:2] == ["python", "-m"] and words[2] != "defectrt":
        with patch.object(sys, "argv", words[2:]):
            runpy.run_module(words[2], run_name="__main__")
        return CompletedProcess(command, 0, "", "")
    return program(*words[words.index("defectrt") + 1 :])


@pytest.mark.slow
@pytest.mark.usefixtures("filled_graphs")
def test_the_tutorial_runs(desk):
    text = (ROOT / "docs" / "tutorial.md").read_text()
    for name, content in pages.files(text).items():
        (desk / name).write_text(content)
    commands = pages.runnable(text)
    for command in commands:
        done = type_in(command)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert len(commands) == 13
    assert (desk / "out/scratch/report.html").is_file()
    assert (desk / "out/hole/yolo/data.yaml").is_file()
    assert len(list((desk / "out/crack/parts/test/crack").iterdir())) == 1


@pytest.mark.parametrize(
    ("script", "made", "function"),
    [
        ("docs/make_reference.py", "docs/reference.md", "reference"),
        ("docs/images/make_architecture.py", "docs/images/architecture.svg", "drawing"),
    ],
)
def test_what_is_made_from_the_code_is_up_to_date(script, made, function):
    text = runpy.run_path(str(ROOT / script))[function]()
    assert (ROOT / made).read_text() == text, f"stale: run python {script}"


def test_the_reference_names_every_option_and_public_name(group):
    text = (ROOT / "docs" / "reference.md").read_text()
    missing = [option for option in pages.known_options(group) if f"{option}" not in text]
    public = [name for name in defectrt.__all__ if name != "__version__"]
    missing += [name for name in public if f"### defectrt.{name}\n" not in text]
    assert missing == []


def test_the_drawing_takes_its_rooms_from_the_folders(tmp_path):
    module = runpy.run_path(str(ROOT / "docs/images/make_architecture.py"))
    room = tmp_path / "runtime" / "attic"
    room.mkdir(parents=True)
    (room / "__init__.py").write_text('"""What nobody needs."""\n')
    module["rooms"].__globals__["ROOT"] = tmp_path
    assert module["rooms"]("runtime") == ["attic"]
    assert module["story"](room) == "What nobody needs."


def test_the_version_stands_in_one_place():
    version = defectrt.__version__
    places = [ROOT / name for name in ("pyproject.toml", "CMakeLists.txt", "README.md")]
    places += [p for p in PAGES if p.parent == ROOT / "docs"]
    assert [p.name for p in places if re.search(rf"\b{re.escape(version)}\b", p.read_text())] == []
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def test_the_workflow_names_three_systems_and_runs_what_is_there(group):
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    systems = [job["runs-on"] for job in jobs]
    systems += [s for job in jobs for s in job.get("strategy", {}).get("matrix", {}).get("os", [])]
    assert {s.partition("-")[0] for s in systems} >= {"ubuntu", "macos", "windows"}
    runs = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert [pages.fault(run, group) for run in runs if run.startswith("defectrt")] == [None] * 4
    assert all((ROOT / run.split()[0]).is_file() for run in runs if run.startswith("."))
