"""Content, not names, decides whether a job goes on: what was changed between runs is told."""

from __future__ import annotations

import numpy as np
import pytest
from support.outputs import dataset_of, records, save

from defectrt.errors import InputError
from defectrt.images.reading import read_image


def brighten(path):
    bits = read_image(path)
    save(path, np.where(bits < np.iinfo(bits.dtype).max - 9, bits + 9, bits).squeeze())


def shift(path):
    save(path, np.roll(read_image(path).squeeze(), 2, 0))


@pytest.mark.parametrize(
    ("file", "change"), [("images/1.png", brighten), ("masks/1_mask.png", shift)]
)
def test_what_was_changed_is_named_and_made_again_if_told(go, parts, file, change):
    root = parts[0].parent
    out, _ = go()
    change(root / file)
    before = dataset_of(out)
    with pytest.raises(InputError, match=rf"^{root / file}: changed since .*--redo"):
        go()
    assert dataset_of(out) == before
    _, summary = go(redo=True)
    assert (summary.made, summary.kept) == (1, 3)
    fresh, _ = go("fresh")
    assert dataset_of(out) == dataset_of(fresh)
    _, again = go()
    assert again.made == 0


def test_a_region_that_was_changed_is_named(go, parts, tmp_path):
    regions = tmp_path / "regions"
    for path in parts[1].iterdir():
        bits = read_image(path).squeeze()
        save(regions / path.name, np.full_like(bits, 255))
    go(within=regions)
    bits = read_image(regions / "2_mask.png").squeeze()
    bits[0] = 0
    save(regions / "2_mask.png", bits)
    with pytest.raises(InputError, match=rf"{regions}/2_mask.png: changed"):
        go(within=regions)


def test_many_changes_are_counted(go, parts):
    go()
    for path in (*parts[0].iterdir(), *parts[1].iterdir()):
        (brighten if path.parent == parts[0] else shift)(path)
    with pytest.raises(InputError, match=r"0.png, .*, .* and 3 more: changed"):
        go()


def test_a_good_image_that_no_sample_was_made_of_is_kept_as_it_is_now(go, parts):
    image, mask = parts[0] / "1.png", parts[1] / "1_mask.png"
    data = mask.read_bytes()
    mask.write_bytes(data[:50])
    out, summary = go()
    assert summary.kept == 2
    brighten(image)
    mask.write_bytes(data)
    go()
    good = records(out)[1]["good"]
    np.testing.assert_array_equal(read_image(out / good), read_image(image))


def test_a_bank_is_part_of_the_job(go, parts, tmp_path):
    bank = tmp_path / "bank"
    for path in parts[1].iterdir():
        save(bank / path.name, read_image(path).squeeze())
    go(masks=None, mask_bank=bank)
    bits = read_image(bank / "0_mask.png").squeeze()
    bits[22, 12] = 0
    save(bank / "0_mask.png", bits)
    with pytest.raises(InputError, match="another job"):
        go(masks=None, mask_bank=bank)
