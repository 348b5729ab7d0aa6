"""One small dataset, annotated in every format: two cracks, a hole in a box, a good picture.

Each function writes into a folder what the tool itself exports, and returns the folder. Images are
those of `support.datasets`, 50 px wide and 40 high.
"""

from __future__ import annotations

import base64
import json
from io import BytesIO

import numpy as np
from PIL import Image

from support.datasets import SIZE, image, mask, write

#: What every format says: images with labels, and px of the polygons; the hole is in a box.
CRACK = [(5.0, 10.0), (25.0, 10.0), (25.0, 16.0), (5.0, 16.0)]
OTHER = [(20.0, 20.0), (40.0, 20.0), (20.0, 36.0)]
BOX = (8, 6, 20, 14)  # left, top, right, bottom
HEIGHT, WIDTH = SIZE


def spotted(seed):
    """An image with a dark spot in `BOX`."""
    picture = np.random.default_rng(seed).normal(160, 3, (*SIZE, 3)).clip(0, 255).astype(np.uint8)
    picture[8:12, 11:17] = 30
    return picture


def pictures(folder, names=("a", "b", "c", "d")):
    """a and b are cracks, c the hole, d good; four more good ones in a folder good."""
    for i, name in enumerate(names):
        write(folder / f"{name}.png", spotted(i) if i == 2 else image(i))
    return folder


def good(root, count=4):
    for i in range(count):
        plain = np.random.default_rng(100 + i).normal(160, 3, (*SIZE, 3))
        write(root / "good" / f"g{i}.png", plain.clip(0, 255).astype(np.uint8))


def coco(root, first=None):
    """Polygons; ``first`` is another segmentation of a."""
    pictures(root / "images")
    data = {
        "info": {},
        "images": [
            {"id": i, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT}
            for i, name in enumerate("abcd")
        ],
        "categories": [{"id": 1, "name": "crack"}, {"id": 7, "name": "Hole"}],
        "annotations": [
            _coco(0, 1, first or [np.ravel(CRACK).tolist()]),
            _coco(1, 1, [np.ravel(OTHER).tolist()]),
            _coco(2, 7, []) | {"bbox": [BOX[0], BOX[1], BOX[2] - BOX[0], BOX[3] - BOX[1]]},
        ],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_default.json").write_text(json.dumps(data))
    return root


def _coco(image_id, category, segmentation):
    common = {"id": image_id + 1, "iscrowd": 0, "area": 1, "bbox": []}
    return common | {"image_id": image_id, "category_id": category, "segmentation": segmentation}


def yolo(root):
    """As Ultralytics wants it: images/train beside labels/train, good ones without a text."""
    pictures(root / "images" / "train")
    share = np.array([WIDTH, HEIGHT])
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nnames:\n  0: crack\n  1: Hole\n")
    folder = root / "labels" / "train"
    folder.mkdir(parents=True)
    for name, points in (("a", CRACK), ("b", OTHER)):
        shares = " ".join(f"{v:.6f}" for v in ((np.array(points) + 0.25) / share).ravel())
        (folder / f"{name}.txt").write_text(f"0 {shares}\n")
    left, top, right, bottom = BOX
    middle = [(left + right) / 2 / WIDTH, (top + bottom) / 2 / HEIGHT]
    sides = [(right - left) / WIDTH, (bottom - top) / HEIGHT]
    (folder / "c.txt").write_text("1 " + " ".join(f"{v:.6f}" for v in (*middle, *sides)) + "\n")
    return root


def voc(root):
    """Boxes alone, so the cracks are in boxes too."""
    pictures(root / "JPEGImages")
    boxes = {"a": ("crack", (5, 10, 25, 16)), "b": ("crack", (20, 20, 40, 36)), "c": ("Hole", BOX)}
    (root / "Annotations").mkdir()
    for name in "abcd":
        objects = ""
        if name in boxes:
            label, (left, top, right, bottom) = boxes[name]
            box = f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax>"
            box += f"<ymax>{bottom}</ymax>"
            objects = f"<object><name>{label}</name><bndbox>{box}</bndbox></object>"
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><folder>x</folder><filename>{name}.png</filename><size><width>{WIDTH}"
            f"</width><height>{HEIGHT}</height><depth>3</depth></size>{objects}</annotation>"
        )
    return root


def labelme(root):
    """A JSON beside every picture."""
    pictures(root)
    shapes = {
        "a": ("crack", "polygon", CRACK),
        "b": ("crack", "polygon", OTHER),
        "c": ("Hole", "rectangle", [BOX[:2], BOX[2:]]),
    }
    for name in "abcd":
        found = []
        if name in shapes:
            label, kind, points = shapes[name]
            found = [{"label": label, "points": points, "shape_type": kind, "group_id": None}]
        data = {"version": "5.5.0", "flags": {}, "shapes": found, "imagePath": f"{name}.png"}
        data |= {"imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}
        (root / f"{name}.json").write_text(json.dumps(data))
    return root


def cvat(root):
    """annotations.xml beside a folder of pictures."""
    pictures(root / "images")
    points = [";".join(f"{x:.2f},{y:.2f}" for x, y in p) for p in (CRACK, OTHER)]
    left, top, right, bottom = BOX
    drawn = [
        f'<polygon label="crack" occluded="0" points="{points[0]}" z_order="0"></polygon>',
        f'<polygon label="crack" points="{points[1]}"></polygon>',
        f'<box label="Hole" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"></box>',
        '<tag label="reviewed"></tag>',
    ]
    images = "".join(
        f'<image id="{i}" name="{name}.png" width="{WIDTH}" height="{HEIGHT}">{drawn[i]}</image>'
        for i, name in enumerate("abcd")
    )
    (root / "annotations.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{images}'
        "</annotations>"
    )
    return root


def label_studio(root):
    """The JSON export of tasks whose pictures were uploaded."""
    pictures(root / "images")
    share = np.array([WIDTH, HEIGHT]) / 100
    left, top, right, bottom = BOX
    box = {"x": left / share[0], "y": top / share[1], "rotation": 0, "rectanglelabels": ["Hole"]}
    box |= {"width": (right - left) / share[0], "height": (bottom - top) / share[1]}
    values = [
        ("polygonlabels", {"points": (np.array(p) / share).tolist(), "polygonlabels": ["crack"]})
        for p in (CRACK, OTHER)
    ] + [("rectanglelabels", box)]
    tasks = []
    for i, name in enumerate("abcd"):
        result = [{"type": "choices", "value": {"choices": ["seen"]}}]
        if i < len(values):
            kind, value = values[i]
            size = {"original_width": WIDTH, "original_height": HEIGHT}
            result.append({"type": kind, "value": value, "from_name": "label"} | size)
        tasks.append(
            {
                "id": i,
                "data": {"image": f"/data/upload/1/0123abcd-{name}.png"},
                "annotations": [{"result": result, "was_cancelled": False}],
            }
        )
    (root / "project.json").write_text(json.dumps(tasks))
    return root


def png(values):
    """A picture as the text in which LabelMe and Label Studio hold masks."""
    file = BytesIO()
    Image.fromarray(values).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


ALL = {
    "coco": coco,
    "yolo": yolo,
    "voc": voc,
    "labelme": labelme,
    "cvat": cvat,
    "label-studio": label_studio,
}
BLOCK = mask(1, y=10, x=5, h=6, w=20) > 0  # what CRACK covers
