"""A dataset of defects in a folder, ready to train on.

    dataset = read_dataset(Path("bottle"))                # or layout="mvtec": see `layouts`
    samples = dataset.samples()                           # for `Crops` and `train`
    split = read_split(file, dataset)                     # see `splits`
    samples = samples_of(dataset, split, "train")         # one side of it

Reading looks at names only. `Dataset.samples` looks at headers and masks, and raises one
`InputError` that lists every image which cannot be used; images are decoded when they are
needed, and those used last are kept, up to a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from defectrt.errors import InputError
from defectrt.masks.reading import from_value

from .layouts import GOOD, Item, Layout, Listing, find_layout
from .samples import Cache, Sample, checked, read_pairs

__all__ = ["Dataset", "read_dataset", "read_defects"]


@dataclass(frozen=True)
class Dataset:
    """A folder and what its layout made of it.

    root     the folder that is laid out so: the one that was named, or the only one in it
    layout   how
    listing  its images, and the rule for its masks
    unused   other images in the folder, which are masks of nothing either, by name
    """

    root: Path
    layout: Layout
    listing: Listing
    unused: tuple[str, ...] = ()
    cache: Cache = field(default_factory=Cache, repr=False)

    @property
    def items(self) -> tuple[Item, ...]:
        """All images by name, those with a fault too."""
        return self.listing.items

    @property
    def defect_types(self) -> list[str]:
        """The types of defect, sorted."""
        return sorted({item.defect_type for item in self.items} - {GOOD})

    def samples(self) -> list[Sample]:
        """All defects, and those good images that the layout itself does not keep for testing.

        Raises `InputError` listing what cannot be used.
        """
        return self.read([item for item in self.items if not _kept_for_testing(item)])

    def read(self, items: Sequence[Item]) -> list[Sample]:
        """The samples of some items; raises `InputError` listing what cannot be used."""
        return checked(items, self.listing.rule, self.cache)


def read_dataset(
    path: Path, layout: str | None = None, *, mask_threshold: int | None = None
) -> Dataset:
    """The dataset in a folder; ``layout`` is recognised if it is not named.

    ``mask_threshold`` replaces the layout's rule: mask values from it on are defect.
    Raises `InputError` if the folder can be read in no way, or in more than one.
    """
    found, tree = find_layout(path, layout)
    listing = found.list(tree)
    if mask_threshold is not None:
        listing = replace(listing, rule=from_value(mask_threshold))
    used = {item.path for item in listing.items}.union(*(item.masks for item in listing.items))
    unused = tuple(str(p) for p in tree.images if tree.root / p not in used)
    return Dataset(tree.root, found, listing, unused)


def read_defects(path: Path, layout: str | None = None) -> Dataset | list[Sample]:
    """The dataset in a folder; or, if it is none, the defects of one type with masks beside them.

    Raises `InputError` if the folder is neither.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder of defects")
    try:
        return read_dataset(path, layout)
    except InputError as fault:
        if layout:
            raise
        try:
            return read_pairs(path, path.name)
        except InputError:
            raise fault from None


def _kept_for_testing(item: Item) -> bool:
    return item.defect_type == GOOD and item.subset in ("validation", "test")
