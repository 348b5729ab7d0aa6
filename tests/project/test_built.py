"""What the tests keep between runs: built once, nobody's to change, gone when it is out of date."""

from __future__ import annotations

import pytest
from support import built


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(built, "HOME", tmp_path / "home")
    return tmp_path / "home"


def write(folder):
    (folder / "file").write_text("as made")


def test_it_is_made_once_and_everyone_gets_a_copy(home, tmp_path):
    made = []

    def make(folder):
        made.append(folder)
        write(folder)

    for name in "ab":
        copy = built.built("thing", make, tmp_path / name)
        assert (copy / "file").read_text() == "as made"
        (copy / "file").write_text("changed by a test")
    assert len(made) == 1


def test_of_another_key_it_is_made_anew(home, tmp_path, monkeypatch):
    for i, key in enumerate(("old", "new", "old")):
        monkeypatch.setattr(built, "key", lambda *_, key=key: key)
        made = built.built(
            "thing", lambda f, i=i: (f / "file").write_text(str(i)), tmp_path / str(i)
        )
        assert (made / "file").read_text() == str(i)
        assert [path.name for path in (home / "thing").iterdir() if path.is_dir()] == [key]


def test_what_failed_half_way_is_not_kept(home, tmp_path):
    def fail(folder):
        (folder / "half").write_text("")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        built.built("thing", fail, tmp_path / "a")
    whole = built.built("thing", write, tmp_path / "b")
    assert [path.name for path in whole.iterdir()] == ["file"]


#: A small project: its files, and what makes something by it.
SOURCES = {
    "runtime/__init__.py": "import defectrt.cli",
    "runtime/cli.py": "",
    "runtime/files.py": "",
    "runtime/engines/__init__.py": "",
    "runtime/engines/engine.py": "def late():\n    from .. import files",
    "runtime/engines/other.py": "",
    "export/__init__.py": "from .build import build",
    "export/build.py": "from defectrt.engines import engine",
    "export/learn.py": "",
    "tests/support/__init__.py": "",
    "tests/support/graphs.py": "import defectrt.export.build",
    "tests/support/rows.py": "",
}
NOT_NEEDED = {
    "runtime/cli.py",
    "runtime/engines/other.py",
    "export/learn.py",
    "tests/support/rows.py",
}


def make(folder):
    from support.graphs import kept

    kept(folder)


@pytest.mark.parametrize("changed", SOURCES)
def test_the_key_is_of_the_sources_that_are_needed(tmp_path, monkeypatch, changed):
    for name, text in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(built, "ROOT", tmp_path)
    before = built.key(make)
    with (tmp_path / changed).open("a") as file:
        file.write("\n# changed")
    assert (built.key(make) == before) == (changed in NOT_NEEDED)


def test_the_key_is_of_what_makes_it_the_machine_and_what_it_is_made_of(tmp_path, monkeypatch):
    given = tmp_path / "given"
    (given / "folder").mkdir(parents=True)
    (given / "folder" / "file").write_text("one")
    keys = {built.key(make), built.key(write), built.key(write, [given])}
    (given / "folder" / "file").write_text("two")
    keys.add(built.key(write, [given]))
    monkeypatch.setattr(built, "_machine", lambda: "another")
    keys.add(built.key(write))
    assert len(keys) == 5


def test_what_the_fixtures_are_built_by_is_found():
    needed = built._needed(["defectrt.export.build.build", "support.graphs.filled"])
    assert needed > {"defectrt.export.rowstep", "defectrt.training.models.attention"}
    assert needed > {"defectrt.export.graphs", "defectrt.kernels.geglu.operator", "support"}
    assert not [name for name in needed if name.startswith("defectrt.cli")]
