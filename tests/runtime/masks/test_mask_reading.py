"""One rule says which pixels of a mask are defect, and every entrance reads by it."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from support.datasets import SIZE, image, write

from defectrt.errors import InputError
from defectrt.images.reading import read_image
from defectrt.images.types import without_alpha
from defectrt.masks.bank import read_bank
from defectrt.masks.folder import MaskFolder
from defectrt.masks.reading import as_mask, from_value, read_mask, read_masks
from defectrt.masks.regions import RegionFile, RegionFolder
from defectrt.masks.registration import Golden
from defectrt.output.records import FinishedDataset
from defectrt.training.data.dataset import read_dataset
from defectrt.training.data.samples import read_pairs

SHAPE = np.zeros(SIZE, bool)
SHAPE[11:24, 9:30] = True
SHAPE[24:30, 12:15] = True
VALUES = SHAPE.astype(np.uint8)
UNEVEN = np.arange(SIZE[0] * SIZE[1]).astype(np.uint8).reshape(SIZE)


def classes(first, step):
    """Three classes in one mask."""
    values = np.full(SIZE, first)
    values[:, 15:] += step
    values[:, 22:] += step
    return np.where(SHAPE, values, 0).astype(np.uint8)


def fringed(top, dtype=np.uint8):
    """What resampling leaves: values below half of the maximum around the shape."""
    values = np.where(SHAPE, top, 0).astype(dtype)
    for i, share in enumerate((0.01, 0.05, 0.1, 0.25, 0.45)):
        values[10 - i, 9:30] = int(share * top)
    values[12, 10:20] = int(0.6 * top)
    return values


def colours(colour, alpha=None):
    values = VALUES[..., None] * np.array(colour, np.uint8)
    return values if alpha is None else np.dstack([values, alpha])


def palette():
    made = Image.fromarray(VALUES).convert("P")
    made.putdata(VALUES.ravel().tolist())
    made.putpalette([0, 0, 0, 0, 0, 3] + [200] * 762)
    return made


#: What is stored, its format, and the suffix where it is another one's. All hold `SHAPE`.
FILES = {
    "hard": (VALUES * 255, "PNG", None),
    "ones": (VALUES, "PNG", None),
    "below half": (VALUES * 127, "PNG", None),
    "classes from 1 on": (classes(1, 1), "PNG", None),
    "classes from 255 down": (classes(255, -1), "PNG", None),
    "smeared": (fringed(255), "PNG", None),
    "smeared and dark": (fringed(100), "PNG", None),
    "smeared, 16 bits": (fringed(60_000, np.uint16), "PNG", None),
    "JPEG": (VALUES * 255, "JPEG", None),
    "JPEG called .png": (VALUES * 255, "JPEG", ".png"),
    "dark JPEG": (VALUES * 100, "JPEG", None),
    "JPEG of values like classes": (VALUES * 20, "JPEG", None),
    "classes called .jpg": (classes(1, 1), "PNG", ".jpg"),
    "capitals": (VALUES, "PNG", ".PNG"),
    "one bit": (SHAPE, "PNG", None),
    "16 bits": (VALUES.astype(np.uint16) * 300, "PNG", None),
    "palette": (palette(), "PNG", None),
    "blue": (colours((0, 0, 9)), "PNG", None),
    "grey and alpha": (np.dstack([VALUES, UNEVEN]), "PNG", None),
    "colour and alpha": (colours((9, 0, 0), UNEVEN), "PNG", None),
    "BMP": (VALUES * 255, "BMP", None),
    "TIFF": (VALUES, "TIFF", None),
    "16-bit TIFF": (VALUES.astype(np.uint16), "TIFF", None),
}
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif"}


def store(path, stored, format):
    path.parent.mkdir(parents=True, exist_ok=True)
    made = stored if isinstance(stored, Image.Image) else Image.fromarray(stored)
    made.save(path, format, **({"quality": 95} if format == "JPEG" else {}))


def stored_as(root, name, case):
    """Store a case as ``name`` with its suffix; returns the path."""
    stored, format, suffix = case
    path = root / f"{name}{suffix or SUFFIXES[format]}"
    store(path, stored, format)
    return path


def in_folder(root, case):
    stored_as(root, "a/7_mask", case)
    return MaskFolder(root)("a/7.bmp", image(0), 0)[0].mask


def in_bank(root, case):
    """A bank keeps defects alone, so it is put back where it was."""
    stored_as(root, "7_mask", case)
    (entry,) = read_bank(root, 100)
    mask = np.zeros(SIZE, bool)
    mask[11 : 11 + entry.shape.shape[0], 9 : 9 + entry.shape.shape[1]] = entry.shape
    return mask


def as_region(root, case):
    stored_as(root, "7", case)
    return RegionFolder(root)("7.bmp", image(0)).mask


def as_only_region(root, case):
    return RegionFile(stored_as(root, "region", case))("7.bmp", image(0)).mask


def as_legal(root, case):
    write(root / "golden.bmp", image(0))
    return Golden(root / "golden.bmp", stored_as(root, "legal", case))._region


def as_forbidden(root, case):
    write(root / "golden.bmp", image(0))
    return ~Golden(root / "golden.bmp", None, stored_as(root, "forbidden", case))._region


def as_label(root, case):
    path = stored_as(root, "7", case)
    finished = FinishedDataset(root, "", [], [], [], [], [], [], {})
    return finished.label(SimpleNamespace(label=path.name))


def as_array(root, case):
    pixels = read_image(stored_as(root, "7", case))
    return as_mask(without_alpha(pixels).max(axis=2), SIZE, "it")


def to_train_beside(root, case):
    write(root / "7.bmp", image(0))
    stored_as(root, "7_mask", case)
    return read_pairs(root, "crack")[0].mask


def to_train_in_folders(root, case):
    write(root / "Imgs/7.bmp", image(0))
    stored_as(root, "Masks/7", case)
    return read_pairs(root, "crack")[0].mask


def of_dataset(image_name, mask_name, layout):
    def read(folder, case):
        write(folder / image_name, image(0))
        stored_as(folder, mask_name, case)
        dataset = read_dataset(folder)
        assert dataset.layout.name == layout
        (sample,) = dataset.samples()
        return sample.mask

    return read


ENTRANCES = {
    "--masks": in_folder,
    "--mask-bank": in_bank,
    "--within folder": as_region,
    "--within file": as_only_region,
    "--legal": as_legal,
    "--forbidden": as_forbidden,
    "label": as_label,
    "array": as_array,
    "--defect, beside": to_train_beside,
    "--defect, folders": to_train_in_folders,
}
DATASETS = {
    "mvtec": ("test/crack/7.bmp", "ground_truth/crack/7_mask"),
    "visa": ("Data/Images/Anomaly/7.bmp", "Data/Masks/Anomaly/7"),
    "pairs": ("crack/7.bmp", "crack/7_mask"),
    "folders": ("crack/images/7.bmp", "crack/masks/7"),
}
ENTRANCES |= {f"--data, {layout}": of_dataset(*names, layout) for layout, names in DATASETS.items()}


#: An array does not say what stored it.
UNKNOWN = ("JPEG of values like classes", "array")


@pytest.mark.parametrize(
    ("file", "entrance"), [pair for pair in product(FILES, ENTRANCES) if pair != UNKNOWN]
)
def test_every_entrance_reads_the_same_pixels(tmp_path, file, entrance):
    np.testing.assert_array_equal(ENTRANCES[entrance](tmp_path, FILES[file]), SHAPE)


EMPTY, FULL = np.zeros(SIZE, np.uint8), np.full(SIZE, 9, np.uint8)
WHITE = np.dstack([FULL, UNEVEN])
#: What is refused, and what is said of it.
REFUSED = {
    "empty": (EMPTY, "the (mask|region) is empty|no masks that are not empty"),
    "full": (FULL, "the mask covers everything, so there is no background"),
    "small": (VALUES[:30], r"the mask is 50x30, its image 50x40$"),
    "turned": (VALUES.T.copy(), "is 40x50, its image 50x40; if EXIF turns the image, the mask has"),
    "transparent": (WHITE, "only the transparency of the mask varies"),
    "black": (np.dstack([EMPTY, UNEVEN]), "only the transparency of the mask varies"),
}
#: A region may be everything, a bank has no image whose size it could have, a label may be empty.
NOT_REFUSED = {
    "full": {"--within folder", "--within file", "--legal"},
    "small": {"--mask-bank", "label"},
    "turned": {"--mask-bank", "label"},
    "empty": {"label"},
    "transparent": {"array"},
    "black": {"array"},
}


@pytest.mark.parametrize(
    ("what", "entrance"),
    [(what, name) for what in REFUSED for name in ENTRANCES if name not in NOT_REFUSED[what]],
)
def test_every_entrance_refuses_the_same(tmp_path, what, entrance):
    stored, message = REFUSED[what]
    if entrance == "array" and what in ("small", "turned"):
        message = r"its image \[40, 50\]"
    if (entrance, what) == ("--forbidden", "full"):
        message = "all that is legal is forbidden too"
    with pytest.raises(InputError, match=message):
        ENTRANCES[entrance](tmp_path, (stored, "PNG", None))


def test_a_region_may_be_everything(tmp_path):
    assert as_region(tmp_path, (FULL, "PNG", None)).all()


def test_masks_of_one_image_add_up_and_one_may_be_empty(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    halves = VALUES * (UNEVEN % 2), VALUES * (1 - UNEVEN % 2)
    for path, values in zip(paths, (*halves, EMPTY), strict=True):
        store(path, values, "PNG")
    np.testing.assert_array_equal(read_masks(paths, SIZE), SHAPE)
    store(paths[2], (1 - VALUES), "PNG")
    with pytest.raises(InputError, match=r"0\.png: the mask covers everything"):
        read_masks(paths, SIZE)


def test_a_rule_of_ones_own_replaces_the_usual_one(tmp_path):
    store(tmp_path / "a.png", fringed(255), "PNG")
    assert read_mask(tmp_path / "a.png", SIZE, from_value(200)).sum() == SHAPE.sum() - 10
    assert read_mask(tmp_path / "a.png", SIZE, from_value(1)).sum() == SHAPE.sum() + 5 * 21


@pytest.mark.parametrize(
    "array", [SHAPE, VALUES, VALUES.astype(np.int64) * 3, VALUES.astype(np.float32)]
)
def test_arrays_that_are_masks(array):
    np.testing.assert_array_equal(as_mask(array, SIZE, "it"), SHAPE)
    np.testing.assert_array_equal(as_mask(array.tolist(), SIZE, "it"), SHAPE)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (VALUES * 0.7, "it: a mask of float64 may hold 0 and 1 alone; apply a threshold first"),
        (np.where(SHAPE, 1, np.nan), "a mask of float64 may hold 0 and 1 alone"),
        (np.where(SHAPE, np.nan, 1.0), "a mask of float64 may hold 0 and 1 alone"),
        (-VALUES.astype(int), "it: the mask holds numbers below 0"),
        (VALUES[..., None], r"it: the mask is \[40, 50, 1\] of uint8, its image \[40, 50\]"),
        (VALUES.astype(str), "its image"),
        (VALUES * 1j, "of complex128"),
    ],
)
def test_arrays_that_are_none(array, message):
    with pytest.raises(InputError, match=message):
        as_mask(array, SIZE, "it")


def test_a_mask_in_a_format_that_is_not_read(tmp_path):
    Image.fromarray(VALUES).save(tmp_path / "7.png", "WEBP")
    with pytest.raises(InputError, match=r"7\.png: not an image of a known format"):
        read_mask(tmp_path / "7.png", SIZE)
