"""What the tests keep between runs: built once, nobody's to change, gone when it is out of date."""

from __future__ import annotations

import pytest
from support import built


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(built, "HOME", tmp_path / "home")
    return tmp_path / "home"


def test_it_is_made_once_and_everyone_gets_a_copy(home, tmp_path):
    made = []

    def make(folder):
        made.append(folder)
        (folder / "file").write_text("as made")

    for name in "ab":
        copy = built.built("thing", make, tmp_path / name)
        assert (copy / "file").read_text() == "as made"
        (copy / "file").write_text("changed by a test")
    assert len(made) == 1


def test_of_other_sources_it_is_made_anew(home, tmp_path, monkeypatch):
    for i, key in enumerate(("old", "new", "old")):
        monkeypatch.setattr(built, "key", lambda key=key: key)
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
    whole = built.built("thing", lambda f: (f / "file").write_text(""), tmp_path / "b")
    assert [path.name for path in whole.iterdir()] == ["file"]


def test_the_key_is_of_the_sources(tmp_path, monkeypatch):
    for place in ("runtime/engines", "runtime/cli", "training", "export", "tests/support"):
        (tmp_path / place).mkdir(parents=True)
    for name in built._TESTS:
        (tmp_path / name).write_text("")
    monkeypatch.setattr(built, "ROOT", tmp_path)
    keys = {built.key.__wrapped__()}
    for name in ("runtime/engines/a.py", "export/b.py", *built._TESTS):
        (tmp_path / name).write_text("changed")
        keys.add(built.key.__wrapped__())
    assert len(keys) == 6
    (tmp_path / "runtime/cli/c.py").write_text("no engine is made by this")
    assert built.key.__wrapped__() in keys
