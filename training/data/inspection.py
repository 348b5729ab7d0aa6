"""What a dataset holds, before anyone trains on it: everything decoded once, every fault named."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from statistics import median

import cv2
import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from defectrt.config.synthesis import SynthesisConfig
from defectrt.cores import cores
from defectrt.errors import InputError
from defectrt.files import first_of
from defectrt.images.folder import find_files, left_out
from defectrt.images.reading import read_image
from defectrt.images.types import Mask
from defectrt.masks.reading import mask_values, smeared, unsmeared
from defectrt.progress import Progress

from .dataset import Dataset
from .layouts import GOOD, LAYOUTS, Item
from .samples import mask_of

__all__ = ["DefectTypeReport", "Problem", "Report", "inspect"]


@dataclass(frozen=True)
class Problem:
    """Why an image cannot be trained on as it is, or should not be."""

    name: str
    reason: str


@dataclass
class DefectTypeReport:
    """The images of one defect type.

    images    that are named so, and ``usable``, how many of them can be trained on
    subsets   of the layout's own split, with the number of images in each
    sizes     WIDTHxHEIGHT with the number of images, most frequent first
    formats   such as "8-bit grey", likewise
    coverage  smallest, median and largest share of an image that is defect
    defects   connected areas (8 neighbours) in all, and ``most`` in one image
    smallest  px of the smallest area
    fit       share of the areas that a window shows whole, at the image's resolution
    extended  images smaller than the window, which mirroring extends
    smeared   masks that count from half their maximum on, since a fringe was smeared
    """

    images: int = 0
    usable: int = 0
    subsets: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)
    coverage: tuple[float, float, float] | None = None
    defects: int = 0
    most: int = 0
    smallest: int | None = None
    fit: float | None = None
    extended: int = 0
    smeared: int = 0


@dataclass
class Report:
    """What was understood of a dataset; `rows` is for people, ``asdict`` for machines.

    classes  of a layout that has some: name, pixel value, and how much of it is enough
    unused   images in the folder that are none of this layout, and no mask of it
    not_read files in the folder that look like images, but are not PNG, JPEG, TIFF or BMP
    """

    root: str
    layout: str
    window: int
    defect_types: dict[str, DefectTypeReport]
    problems: list[Problem]
    classes: list[dict[str, object]]
    unused: list[str]
    not_read: list[str]

    @property
    def usable(self) -> int:
        """Images that can be trained on."""
        return sum(defect_type.usable for defect_type in self.defect_types.values())

    def render(self) -> Group:
        """For people, to be printed with rich."""
        lines: list[Text | Table] = [
            Text(f"{self.root}: laid out as {LAYOUTS[self.layout].about}"),
            self._table(),
        ]
        lines += [Text(line) for line in self._notes()]
        if self.problems:
            lines.append(Text(f"{len(self.problems)} problems:"))
            lines += [Text(f"  {p.name}: {p.reason}") for p in self.problems]
        return Group(*lines)

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE, pad_edge=False)
        heads = ("defect_type", "images", "usable", "size", "covered min/median/max", "defects")
        for head in (*heads, "smallest", f"fit {self.window} px"):
            table.add_column(head, justify="left" if head in ("defect_type", "size") else "right")
        for name, defect_type in self.defect_types.items():
            table.add_row(
                name,
                str(defect_type.images),
                str(defect_type.usable),
                _sizes(defect_type),
                *_figures(defect_type),
            )
        return table

    def _notes(self) -> Iterator[str]:
        defect_types = self.defect_types.values()
        formats = sum(
            (Counter(defect_type.formats) for defect_type in defect_types), Counter[str]()
        )
        yield "formats: " + ", ".join(f"{name} {n}" for name, n in formats.most_common())
        subsets = sum(
            (Counter(defect_type.subsets) for defect_type in defect_types), Counter[str]()
        )
        if set(subsets) - {""}:
            named = ((name or "none", n) for name, n in subsets.most_common())
            yield "the layout's own subsets: " + ", ".join(f"{name} {n}" for name, n in named)
        if extended := sum(defect_type.extended for defect_type in defect_types):
            yield f"{extended} images are smaller than {self.window} px; mirroring extends them"
        if fringe := sum(defect_type.smeared for defect_type in defect_types):
            yield (
                f"{fringe} masks are smeared: they count from half their maximum on "
                "(--mask-threshold 1 takes every value but 0)"
            )
        if self.classes:
            yield "classes: " + ", ".join(
                f"{c['defect_name']} {c['pixel_value']}" for c in self.classes
            )
        if self.unused:
            yield f"{len(self.unused)} other images are not used: {first_of(self.unused)}"
        if self.not_read:
            yield (
                f"{len(self.not_read)} files are not read, as they are not PNG, JPEG, TIFF or BMP: "
                f"{first_of(self.not_read)}"
            )


def inspect(dataset: Dataset, window: int = 512, *, quiet: bool = True) -> Report:
    """Decode every image and mask of a dataset and report what is there.

    ``window`` is the side in px of the crops that a model would see.
    """
    facts = list(_look_at_all(dataset, quiet=quiet))
    defect_types: dict[str, list[_Facts]] = defaultdict(list)
    for fact in sorted(
        facts, key=lambda fact: (fact.item.defect_type == GOOD, fact.item.defect_type)
    ):
        defect_types[fact.item.defect_type].append(fact)
    problems = [Problem(f.item.name, f.fault) for f in facts if f.fault]
    prefix = f"{dataset.root}{os.sep}"
    return Report(
        root=str(dataset.root),
        layout=dataset.layout.name,
        window=window,
        defect_types={
            defect_type: _report(of_defect_type, window)
            for defect_type, of_defect_type in defect_types.items()
        },
        problems=[Problem(p.name, p.reason.replace(prefix, "")) for p in problems]
        + [*_specks(facts), *_duplicates(facts)],
        classes=[c.model_dump() for c in dataset.listing.classes],
        unused=list(dataset.unused),
        not_read=[
            p.relative_to(dataset.root).as_posix() for p in left_out(find_files(dataset.root))
        ],
    )


@dataclass(frozen=True)
class _Facts:
    """One image: size (H, W), and per defect (height, width, area) in px."""

    item: Item
    fault: str | None = None
    size: tuple[int, int] | None = None
    format: str = ""
    pixels: str = ""
    covered: float = 0.0
    defects: tuple[tuple[int, int, int], ...] = ()
    smeared: int = 0


def _look_at_all(dataset: Dataset, *, quiet: bool) -> Iterator[_Facts]:
    """In the order of the items; a few at a time, so that memory stays flat."""
    look = partial(_look, dataset)
    threads = cores()
    remaining = iter(dataset.items)
    done = 0
    with (
        Progress(len(dataset.items), "inspect", quiet=quiet) as progress,
        ThreadPoolExecutor(threads) as pool,
    ):
        while chunk := list(islice(remaining, 4 * threads)):
            yield from pool.map(look, chunk)
            done += len(chunk)
            progress.update(done)


def _look(dataset: Dataset, item: Item) -> _Facts:
    try:
        image = read_image(item.path)
    except InputError as fault:
        return _Facts(item, item.fault or str(fault).removeprefix(f"{item.path}: "))
    size = image.shape[0], image.shape[1]
    depth = f"{8 * image.dtype.itemsize}-bit"
    colour = ("grey", "grey + alpha", "colour", "colour + alpha")[image.shape[2] - 1]
    facts = partial(
        _Facts,
        item,
        size=size,
        format=f"{depth} {colour}",
        pixels=hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest(),
    )
    if item.fault:
        return facts(fault=item.fault)
    try:
        rule = dataset.listing.rule
        mask = mask_of(item, rule, size)
        fringes = rule is unsmeared and sum(smeared(mask_values(path)) for path in item.masks)
    except InputError as fault:
        return facts(fault=str(fault).removeprefix(f"{item.path}: "))
    return facts(covered=float(mask.mean()), defects=_areas(mask), smeared=int(fringes))


def _areas(mask: Mask) -> tuple[tuple[int, int, int], ...]:
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    columns = [cv2.CC_STAT_HEIGHT, cv2.CC_STAT_WIDTH, cv2.CC_STAT_AREA]
    return tuple((int(h), int(w), int(area)) for h, w, area in stats[1:, columns])


def _report(facts: Sequence[_Facts], window: int) -> DefectTypeReport:
    usable = [f for f in facts if not f.fault]
    covered = [f.covered for f in usable if f.item.defect_type != GOOD]
    defects = [d for f in usable for d in f.defects]
    sizes = [f.size for f in facts if f.size]
    return DefectTypeReport(
        images=len(facts),
        usable=len(usable),
        subsets=dict(Counter(f.item.subset for f in facts).most_common()),
        sizes=dict(Counter(f"{w}x{h}" for h, w in sizes).most_common()),
        formats=dict(Counter(f.format for f in facts if f.format).most_common()),
        coverage=(min(covered), median(covered), max(covered)) if covered else None,
        defects=len(defects),
        most=max((len(f.defects) for f in usable), default=0),
        smallest=min((area for _, _, area in defects), default=None),
        fit=sum(max(h, w) <= window for h, w, _ in defects) / len(defects) if defects else None,
        extended=sum(min(size) < window for size in sizes),
        smeared=sum(f.smeared for f in usable),
    )


def _specks(facts: Sequence[_Facts]) -> Iterator[Problem]:
    """Masks that hold less than what counts as a defect in a result."""
    least = SynthesisConfig().refine_min_area
    for fact in facts:
        area = sum(area for _, _, area in fact.defects)
        if fact.defects and area < least:
            yield Problem(fact.item.name, f"only {area} px of the mask are defect")


def _duplicates(facts: Sequence[_Facts]) -> Iterator[Problem]:
    """Images of the same pixels; one that is good and defective at once says so."""
    first: dict[str, Item] = {}
    for fact in facts:
        if not fact.pixels:
            continue
        before = first.setdefault(fact.pixels, fact.item)
        if before is not fact.item:
            as_another = (
                f", which is {before.defect_type}"
                if before.defect_type != fact.item.defect_type
                else ""
            )
            yield Problem(fact.item.name, f"the same image as {before.name}{as_another}")


def _sizes(defect_type: DefectTypeReport) -> str:
    if len(defect_type.sizes) <= 1:
        return next(iter(defect_type.sizes), "")
    sides = [tuple(map(int, size.split("x"))) for size in defect_type.sizes]
    widths, heights = zip(*sides, strict=True)
    return f"{min(widths)}-{max(widths)}x{min(heights)}-{max(heights)}"


def _figures(defect_type: DefectTypeReport) -> tuple[str, str, str, str]:
    if defect_type.coverage is None or defect_type.fit is None:
        return "", "", "", ""
    shares = " / ".join(_percent(share) for share in defect_type.coverage)
    return (
        shares,
        str(defect_type.defects),
        f"{defect_type.smallest} px",
        f"{100 * defect_type.fit:.0f} %",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share < 0.1 else f"{100 * share:.0f} %"
