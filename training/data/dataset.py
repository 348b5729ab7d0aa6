"""A dataset of defects in a folder, ready to train on.

    dataset = read_dataset(Path("bottle"))                # or layout="mvtec": see `layouts`
    samples = dataset.samples()                           # for `Crops` and `train`
    split = read_split(file, dataset)                     # see `splits`
    samples = dataset.samples(split)                      # its training side
    held_out = dataset.samples(split, "test")             # its other side

Reading looks at names only. `Dataset.samples` looks at headers and masks, and raises one
`InputError` that lists every image which cannot be used; images are decoded when they are
needed, and those used last are kept, up to a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from defectrt.errors import InputError

from .layouts import Item, Layout, Listing, find_layout, from_value
from .samples import GOOD, Cache, Sample, checked

if TYPE_CHECKING:
    from .splits import Split

__all__ = ["Dataset", "read_dataset"]


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

    def samples(
        self, split: Split | None = None, side: Literal["train", "test"] = "train"
    ) -> list[Sample]:
        """The samples of one side of a split, in the order of their names.

        Without a split, all defects and those good images that the layout itself does not keep
        for testing. Raises `InputError` listing what cannot be used: images with a fault, and
        images that the split does not know as they are.
        """
        if split is None:
            return self.read([item for item in self.items if not _kept_for_testing(item)])
        entries = {entry.name: entry for entry in getattr(split, side)}
        items = [item for item in self.items if item.name in entries]
        missing = sorted(entries.keys() - {item.name for item in items})
        if missing:
            raise InputError(f"{self.root}: lacks images of the split: {_some(missing)}")
        samples = self.read(items)
        hashes = ((item.name, sample.sha256()) for item, sample in zip(items, samples, strict=True))
        changed = [name for name, sha in hashes if entries[name].sha256 not in (None, sha)]
        if changed:
            raise InputError(f"{self.root}: images changed since the split: {_some(changed)}")
        return samples

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
        listing = Listing(listing.items, from_value(mask_threshold), listing.classes)
    used = {item.path for item in listing.items}.union(*(item.masks for item in listing.items))
    unused = tuple(str(p) for p in tree.images if tree.root / p not in used)
    return Dataset(tree.root, found, listing, unused)


def _kept_for_testing(item: Item) -> bool:
    return item.defect_type == GOOD and item.part in ("validation", "test")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
