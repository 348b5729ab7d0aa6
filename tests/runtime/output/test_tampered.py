"""OUT while and after somebody else was there: what is not ours any more is made again, or told."""

from __future__ import annotations

import shutil

import pytest
from support.fake_engine import FakeEngine
from support.outputs import dataset_of

from defectrt.errors import OutputError

pytestmark = pytest.mark.slow

HARM = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "emptied": lambda path: path.write_bytes(b""),
    "foreign": lambda path: path.write_bytes(b"\x89PNG of somebody else"),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}
PLACES = {
    "image": "parts/test/spot/000.png",
    "label": "parts/ground_truth/spot/000_mask.png",
    "mask": "masks/spot/000.png",
    "good": "parts/train/good/000.png",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("harm", ["cut", "emptied", "foreign", "gone"])
def test_a_file_that_is_not_what_was_written_is_made_again(go, place, harm):
    whole, _ = go("whole")
    out, _ = go("out")
    HARM[harm](out / PLACES[place])
    _, summary = go("out")
    assert summary.made == 1
    assert dataset_of(out) == dataset_of(whole)
    assert go("out")[1].made == 0


def test_a_folder_in_place_of_a_file_is_told(go):
    out, _ = go("out")
    HARM["a folder"](out / PLACES["image"])
    with pytest.raises(OutputError, match=r"000\.png: cannot be written \(Is a directory\)"):
        go("out")


@pytest.mark.parametrize("what", ["the journal", "OUT", "the journal, and another came"])
def test_what_is_removed_during_a_run_is_one_error(go, tmp_path, monkeypatch, what):
    step, calls = FakeEngine.step, []
    out, journal = tmp_path / "out", tmp_path / "out" / "job.sqlite"

    def remove(self, rows):
        calls.append(1)
        if len(calls) == 14:
            if what == "OUT":
                shutil.rmtree(out)
            else:
                journal.unlink()
            if what.endswith("came"):
                journal.write_bytes(b"")
        return step(self, rows)

    monkeypatch.setattr(FakeEngine, "step", remove)
    with pytest.raises(OutputError, match=r"job\.sqlite: was removed or replaced while the job"):
        go("out", batch_size=1, count=6)
    assert len(calls) >= 14
