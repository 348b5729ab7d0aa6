"""OUT/folder.yaml, for anomalib's Folder datamodule."""

from __future__ import annotations

from pathlib import Path

from ..config.yaml import write_yaml
from ..files import write_whole
from .records import read_finished

__all__ = ["write_folder_yaml"]


def write_folder_yaml(out: Path) -> None:
    """Write ``folder.yaml`` for anomalib's Folder datamodule; none if nothing was kept.

    Its paths start from OUT, so that the folder can be moved.
    """
    folder = read_finished(out)
    if not folder.entries:
        return
    defects = sorted({entry.defect for entry in folder.entries})
    options = {
        "name": folder.category,
        "root": folder.category,
        "normal_dir": "train/good",
        "normal_test_dir": "test/good",
        "abnormal_dir": [f"test/{defect}" for defect in defects],
        "mask_dir": [f"ground_truth/{defect}" for defect in defects],
    }
    if not (out / folder.category / "test" / "good").is_dir():
        del options["normal_test_dir"]
    head = "# For anomalib, run in this folder: anomalib train --model Padim --data folder.yaml\n"
    data = {"class_path": "anomalib.data.Folder", "init_args": options}
    write_whole(out / "folder.yaml", (head + write_yaml(data)).encode())
