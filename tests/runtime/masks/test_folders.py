"""Which files are listed, which are opened, and which is the mask of which."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import ExifTags, Image
from support.datasets import image, mask, write

from defectrt.errors import InputError
from defectrt.images.folder import find_files, find_images, left_out, left_out_note
from defectrt.images.reading import image_size, read_image
from defectrt.masks.bank import read_bank
from defectrt.masks.folder import MaskFolder
from defectrt.masks.pairing import Names
from defectrt.synthesis.job import synthesize
from defectrt.training.data.dataset import read_dataset
from defectrt.training.data.inspection import inspect
from defectrt.training.data.samples import read_good, read_pairs
from defectrt.training.data.splits import fold


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def listed(root):
    return [path.relative_to(root).as_posix() for path in find_images(root)]


def test_images_of_all_folders_below_are_listed_by_name(tmp_path):
    names = ["B/2.JPG", "a/b/1.tiff", "a/b/2.bmp", "a/b.png", "z.jpeg", "z.tif"]
    touch(tmp_path, *reversed(names))
    assert listed(tmp_path) == sorted(names)


def test_what_systems_leave_behind_is_no_image(tmp_path):
    touch(tmp_path, "a.png", "._a.png", ".thumbs/a.png", "Thumbs.db", "__MACOSX/._a.png")
    touch(tmp_path, "sub/__MACOSX/a.png", "notes.txt", "__kept/a.png")
    (tmp_path / "folder.png").mkdir()
    assert listed(tmp_path) == ["__kept/a.png", "a.png"]


def test_linked_folders_are_followed_and_circles_are_not(tmp_path):
    touch(tmp_path, "root/a/1.png", "elsewhere/2.png")
    (tmp_path / "root/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/a/up").symlink_to(tmp_path / "root")
    (tmp_path / "elsewhere/self").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/broken.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "root/3.png").symlink_to(tmp_path / "elsewhere/2.png")
    names = ["3.png", "a/1.png", "b/2.png", "broken.png", "c/2.png"]  # reading it says what it is
    assert listed(tmp_path / "root") == names


def test_a_folder_that_is_none(tmp_path):
    touch(tmp_path, "file")
    with pytest.raises(InputError, match="none: no such folder"):
        find_images(tmp_path / "none")
    with pytest.raises(InputError, match="file: cannot be listed"):
        find_images(tmp_path / "file")


def test_files_in_formats_that_are_not_read_are_named(tmp_path):
    touch(tmp_path, "a.webp", "sub/b.JFIF", "c.gif", "d.heic", "e.png", "f.txt", ".g.webp")
    files = find_files(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in left_out(files)]
    assert names == ["a.webp", "c.gif", "d.heic", "sub/b.JFIF"]
    note = left_out_note([*files, *find_files(tmp_path / "sub")])
    assert note.startswith("4 files are not read, as they are not PNG, JPEG, TIFF or BMP: ")
    assert note.endswith(", …")
    assert "a.webp" in note
    assert left_out_note(find_files(tmp_path / "sub")).endswith("sub/b.JFIF")
    (tmp_path / "sub/b.JFIF").unlink()
    assert left_out_note(find_files(tmp_path / "sub")) is None


def test_inspection_names_files_that_are_not_read(tmp_path):
    write(tmp_path / "crack/1.jpg", image(0))
    write(tmp_path / "crack/1.png", mask())
    touch(tmp_path, "crack/2.webp")
    assert inspect(read_dataset(tmp_path)).not_read == ["crack/2.webp"]


def test_synthesize_names_files_that_are_not_read_even_if_quiet(
    parts, fake_engine, tmp_path, capsys
):
    images, masks = parts
    touch(masks, "9.webp")
    synthesize(images, tmp_path / "out", engine=fake_engine[0], masks=masks, quiet=True)
    assert "note: 1 files are not read, as they are not" in capsys.readouterr().err


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 40\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("format", ["EPS", "GIF", "WEBP", "PPM", "TGA"])
def test_other_formats_are_not_opened_whatever_their_name(tmp_path, format):
    path = tmp_path / "a.png"
    if format == "EPS":
        path.write_bytes(EPS)
    else:
        Image.fromarray(image(0)).save(path, format)
    for read in (read_image, image_size):
        with pytest.raises(InputError, match=r"a\.png: not an image of a known format"):
            read(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "16.tif"])
def test_the_header_tells_the_size_that_is_read(tmp_path, suffix, orientation):
    path, pixels = tmp_path / f"a.{suffix}", np.zeros((20, 30), np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    if suffix == "16.tif":
        pixels = pixels.astype(np.uint16)
    Image.fromarray(pixels).save(path, exif=exif)
    expected = (30, 20) if orientation > 4 else (20, 30)
    assert image_size(path) == read_image(path).shape[:2] == expected


def test_a_turned_tiff_is_one_to_inspect_split_and_train_on(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for name in ("1", "2"):
        (tmp_path / "crack").mkdir(exist_ok=True)
        stored = image(int(name))
        Image.fromarray(stored).save(tmp_path / f"crack/{name}.tif", exif=exif)
        write(tmp_path / f"crack/{name}.png", mask().T)
    dataset = read_dataset(tmp_path)
    assert inspect(dataset).problems == []
    assert fold(dataset, 0).left_out == ()
    for sample in dataset.samples():
        assert sample.image.shape[:2] == sample.mask.shape == (50, 40)


def test_no_image_has_a_size_that_cannot_be_read(tmp_path):
    pages = [Image.fromarray(image(i)) for i in range(2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "empty.png").touch()
    for name, message in (
        ("a.tif", "holds several images"),
        ("empty.png", "the file is empty"),
        ("none.png", "cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            image_size(tmp_path / name)


#: Files, and the masks of the images among them; None of one that has none, "?" if it is unclear.
PAIRINGS = {
    "beside, lossless": (["7.jpg", "7.png"], {"7.jpg": "7.png"}),
    "beside, TIFF": (["7.jpg", "7.tif"], {"7.jpg": "7.tif"}),
    "beside, BMP in capitals": (["7.JPG", "7.BMP"], {"7.JPG": "7.BMP"}),
    "beside, PNG of a BMP": (["7.bmp", "7.png"], {"7.bmp": "7.png"}),
    "beside, named": (["7.png", "7_mask.png"], {"7.png": "7_mask.png"}),
    "beside, named and lossy": (["7.png", "7_mask.jpg"], {"7.png": "7_mask.jpg"}),
    "named before same": (
        ["7.jpg", "7.png", "7_mask.png"],
        {"7.jpg": "7_mask.png", "7.png": "7_mask.png"},
    ),
    "lossless before lossy": (["7.bmp", "7_mask.jpg", "7_mask.png"], {"7.bmp": "7_mask.png"}),
    "two as good": (["7.jpg", "7_mask.png", "7_mask.tif"], {"7.jpg": "?"}),
    "two alike": (["7.bmp", "7.tif"], {"7.bmp": "?", "7.tif": "?"}),
    "masks alone": (
        ["7_mask.tif", "7_mask.png", "7_mask.jpg"],
        {"7_mask.tif": None, "7_mask.png": None, "7_mask.jpg": None},
    ),
    "none": (["7.jpg", "77.png"], {"7.jpg": None, "77.png": None}),
    "below": (["a/7.jpg", "a/7.png", "b/7.jpg"], {"a/7.jpg": "a/7.png", "b/7.jpg": None}),
    "dots": (["a.b.jpg", "a.b.png"], {"a.b.jpg": "a.b.png"}),
    "folders": (["images/7.jpg", "masks/7.png"], {"images/7.jpg": "masks/7.png"}),
    "folders in capitals": (["Images/7.jpg", "Masks/7.png"], {"Images/7.jpg": "Masks/7.png"}),
    "folders of labels": (["IMGS/7.jpg", "Labels/7.bmp"], {"IMGS/7.jpg": "Labels/7.bmp"}),
    "folders below": (
        ["a/images/b/7.png", "a/masks/b/7.png", "a/masks/b/7_mask.PNG"],
        {"a/images/b/7.png": "a/masks/b/7_mask.PNG"},
    ),
    "folders, lossless": (
        ["images/7.png", "masks/7.jpg", "masks/7.png"],
        {"images/7.png": "masks/7.png"},
    ),
    "folders, two as good": (["images/7.png", "masks/7.bmp", "masks/7.tif"], {"images/7.png": "?"}),
    "folders, none": (["images/7.png", "masks/8.png"], {"images/7.png": None}),
    "both ways": (
        ["images/7.jpg", "masks/7.png", "b/7.jpg", "b/7.png"],
        {"images/7.jpg": "masks/7.png", "b/7.jpg": "b/7.png"},
    ),
}


@pytest.mark.parametrize("case", PAIRINGS)
def test_which_is_the_mask_of_which(case):
    files, expected = PAIRINGS[case]
    pairs = Names(map(PurePosixPath, files)).pairs()
    found = {str(p.image): "?" if p.fault else p.mask and str(p.mask) for p in pairs}
    assert found == expected


@pytest.mark.parametrize("case", PAIRINGS)
def test_masks_to_train_on_are_paired_so(tmp_path, case):
    files, expected = PAIRINGS[case]
    if set(expected.values()) & {None, "?"}:
        for name in files:
            write(tmp_path / name, mask())
        with pytest.raises(InputError) as error:
            read_pairs(tmp_path, "crack")
        faulty = [name for name, found in expected.items() if found in (None, "?")]
        assert len(str(error.value).splitlines()) == len(faulty)
        return
    masks = set(expected.values())
    for name in files:
        write(tmp_path / name, mask() if name in masks else image(0))
    samples = read_pairs(tmp_path, "crack")
    assert [s.path.relative_to(tmp_path).as_posix() for s in samples] == sorted(expected)
    assert all(s.mask.any() for s in samples)


def test_folders_of_masks_are_paired_so(tmp_path):
    touch(tmp_path, "a/7.jpg", "a/7.png", "a/8.png", "a/8_mask.jpg", "b/9.bmp", "b/9.tif")
    masks = MaskFolder(tmp_path)
    assert masks.mask_of(PurePosixPath("a/7.jpg")) == tmp_path / "a/7.png"
    assert masks.mask_of(PurePosixPath("a/8.jpg")) == tmp_path / "a/8_mask.jpg"
    with pytest.raises(InputError, match=r"b/9\.jpg: more than one mask: 9\.bmp, 9\.tif; keep one"):
        masks.mask_of(PurePosixPath("b/9.jpg"))


def test_a_bank_is_paired_so(tmp_path):
    for name in ("Images/7.png", "Images/8.png", "b/9.tif", "b/10.bmp"):
        write(tmp_path / name, image(0))
    for name in ("Masks/7.png", "b/9.png", "b/10_mask.jpg", "c/11.png"):
        write(tmp_path / name, mask())
    found = [entry.file for entry in read_bank(tmp_path, 10)]
    assert found == ["Masks/7.png", "b/10_mask.jpg", "b/9.png", "c/11.png"]
    write(tmp_path / "b/10.tif", mask())
    (tmp_path / "b/10_mask.jpg").unlink()
    with pytest.raises(InputError, match=r"b/10\.bmp: which of 10\.bmp, 10\.tif is the mask"):
        read_bank(tmp_path, 10)


def test_good_images_lie_at_any_depth_and_their_masks_are_none(tmp_path):
    for name in ("1.png", "a/2.jpg", "a/2_mask.png", "images/3.png", "masks/3.png"):
        write(tmp_path / name, image(0))
    found = [s.path.relative_to(tmp_path).as_posix() for s in read_good(tmp_path)]
    assert found == ["1.png", "a/2.jpg", "images/3.png"]
