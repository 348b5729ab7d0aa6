"""Small datasets in every layout, for the tests: one image's worth of files at a time."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

#: (H, W) of every image.
SIZE = (40, 50)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)


def image(seed):
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def mask(value=255, y=10, x=20, h=6, w=8):
    values = np.zeros(SIZE, np.uint8)
    values[y : y + h, x : x + w] = value
    return values


def mvtec(root, suffix="_mask"):
    """Three good ones (one for testing), two cracks and a hole."""
    for i, name in enumerate(("train/good/000", "train/good/001", "test/good/000")):
        write(root / f"{name}.png", image(i))
    for i, (defect_type, name) in enumerate((("crack", "000"), ("crack", "001"), ("hole", "000"))):
        write(root / "test" / defect_type / f"{name}.png", image(10 + i))
        write(root / "ground_truth" / defect_type / f"{name}{suffix}.png", mask(x=5 * i))
    return root


def loco(root):
    """An image with two masks of one class, one with masks of two, one structural."""
    for i, part in enumerate(("train", "validation", "test")):
        write(root / part / "good" / "000.png", image(i))
    masks = {"logical_anomalies/000": (255, 255), "logical_anomalies/001": (255, 254)}
    masks["structural_anomalies/000"] = (239,)
    for i, (name, values) in enumerate(masks.items()):
        write(root / "test" / f"{name}.png", image(10 + i))
        for n, value in enumerate(values):
            write(root / "ground_truth" / name / f"{n:03}.png", mask(value, x=15 * n))
    classes = [
        {"defect_name": name, "pixel_value": value, "saturation_threshold": s}
        | {"relative_saturation": r}
        for name, value, s, r in (
            ("missing_cable", 255, 1.0, True),
            ("extra_cable", 254, 300, False),
            ("broken_cable", 239, 0.5, True),
        )
    ]
    (root / "defects_config.json").write_text(json.dumps(classes))
    return root


def visa(root):
    """Two normal ones and three anomalies; values in masks are classes 1 and 2."""
    base, rows = root / "candle", ["object,split,label,image,mask"]
    notes = ["image,label,mask"]
    for i, part in enumerate(("train", "test")):
        write(base / "Data/Images/Normal" / f"000{i}.JPG", image(i))
        rows.append(f"candle,{part},normal,candle/Data/Images/Normal/000{i}.JPG,")
        notes.append(f"candle/Data/Images/Normal/000{i}.JPG,normal,")
    for i, label in enumerate(("melded", '"melded,wax missing"', "wax missing")):
        write(base / "Data/Images/Anomaly" / f"00{i}.JPG", image(10 + i))
        values = np.maximum(mask(1 + i % 2), mask(2, y=30) if i == 1 else 0)
        write(base / "Data/Masks/Anomaly" / f"00{i}.png", values)
        names = f"candle/Data/Images/Anomaly/00{i}.JPG,{{}}candle/Data/Masks/Anomaly/00{i}.png"
        rows.append("candle,test,anomaly," + names.format(""))
        notes.append(names.format(f"{label},"))
    rows.append("pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,")
    (base / "image_anno.csv").write_text("\n".join(notes) + "\n")
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(rows) + "\n")
    return root


def pairs(root):
    """As magnetic tiles are: MT_<Kind>/Imgs, masks smeared, the good ones called Free."""
    smear = mask()
    smear[16, 20:28] = range(1, 9)  # a fringe one pixel wide
    for i, defect_type in enumerate(("Crack", "Crack", "Fray")):
        write(root / f"MT_{defect_type}/Imgs/exp1_num_{i}.jpg", image(10 + i))
        write(root / f"MT_{defect_type}/Imgs/exp1_num_{i}.png", smear)
    for i in range(2):
        write(root / f"MT_Free/Imgs/exp1_num_{100 + i}.jpg", image(i))
    return root


def folders(root):
    """<type>/images beside <type>/masks, and a folder of good images."""
    for i, defect_type in enumerate(("crack", "crack", "hole")):
        write(root / defect_type / "images" / f"{i}.jpg", image(10 + i))
        write(root / defect_type / "masks" / f"{i}.png", mask())
    write(root / "good" / "0.jpg", image(0))
    return root


def folders_of_defect_types(root):
    """images/<type> beside masks/<type>."""
    for i, defect_type in enumerate(("crack", "crack", "hole")):
        write(root / "images" / defect_type / f"{i}.jpg", image(10 + i))
        write(root / "masks" / defect_type / f"{i}_mask.png", mask())
    write(root / "images" / "good" / "0.jpg", image(0))
    return root
