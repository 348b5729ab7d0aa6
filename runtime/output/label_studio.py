"""Label Studio: OUT/label-studio, tasks to import and the interface that goes with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from ..files import write_whole
from .instances import pieces
from .outline import along_edges
from .records import FinishedDataset, KeptSample, read_finished

__all__ = ["write_label_studio"]

#: What polygons are drawn with, and on what, in the interface.
_NAME, _IMAGE = "label", "image"


def write_label_studio(out: Path) -> None:
    """Write ``tasks.json``, a task a sample with its polygons, and ``interface.xml``.

    Images stay where they are: Label Studio serves them from OUT as local files.
    """
    folder = read_finished(out)
    tasks = [_task(folder, entry) for entry in folder.entries]
    text = json.dumps(tasks, separators=(",", ":"))
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in folder.defect_types)
    interface = (
        f'<View>\n  <Image name="{_IMAGE}" value="$image" zoom="true"/>\n'
        f'  <PolygonLabels name="{_NAME}" toName="{_IMAGE}">\n{labels}  </PolygonLabels>\n</View>\n'
    )
    write_whole(out / "label-studio" / "interface.xml", interface.encode())
    write_whole(out / "label-studio" / "tasks.json", text.encode() + b"\n")


def _task(folder: FinishedDataset, entry: KeptSample) -> dict[str, Any]:
    address = "/data/local-files/?d=" + quote(entry.image)
    data = {_IMAGE: address, "source": entry.source, "defect": entry.defect}
    return {"data": data, "annotations": [{"result": list(_results(folder, entry))}]}


def _results(folder: FinishedDataset, entry: KeptSample) -> Iterator[dict[str, Any]]:
    """A region a piece, its points in percents of width and height."""
    found = [(i, piece) for i, mask in folder.instances(entry) for piece in pieces(mask)]
    for number, (place, mask) in enumerate(found, 1):
        points = along_edges(mask) / mask.shape[::-1] * 100
        value = {
            "points": points.round(9).tolist(),
            "closed": True,
            "polygonlabels": [folder.defect_types[place]],
        }
        yield {
            "id": f"r{number}",
            "type": "polygonlabels",
            "from_name": _NAME,
            "to_name": _IMAGE,
            "original_width": mask.shape[1],
            "original_height": mask.shape[0],
            "image_rotation": 0,
            "value": value,
        }
