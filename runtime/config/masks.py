"""Where defects come: the options of masks, regions and placement."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..masks.bank import read_bank
from ..masks.folder import MaskFolder
from ..masks.placed import BankShapes, DrawnShapes, LimitedMasks, PlacedMasks, Shapes
from ..masks.regions import Everywhere, Foreground, RegionFile, RegionFolder, RegionSource
from ..masks.registration import Golden
from ..masks.shapes import SHAPES
from ..masks.source import MaskSource

__all__ = ["Masks"]


@dataclass(frozen=True)
class Masks:
    """Where masks come from and where they may lie; without any option, drawn to suit the type.

    folder      a mask for every image, of the same name; excludes ``bank`` and ``shape``
    bank        a folder of real defects' masks, to be turned, scaled, and placed at random
    shape       what to draw, one of `defectrt.masks.shapes.SHAPES`; None for what suits the
                type of defect that is made
    within      where a defect may be: "foreground", a folder of region masks of the images'
                names, or one region mask for all; None for everywhere
    golden      an image on which ``legal`` and ``forbidden`` regions were drawn, which are then
                found again in every other image; excludes ``within``
    instances       masks a sample, apart from each other; a folder decides for itself
    scale       smallest and largest scale of a mask from the bank
    min_area    px that a mask from the bank keeps at least
    margin      px around a mask that have to be legal too; None for what the soft border takes,
                so that not even that touches a forbidden pixel

    Raises `UsageError` for options that exclude or need each other, all in one message.
    """

    folder: str | Path | None = None
    bank: str | Path | None = None
    shape: str | None = None
    within: str | Path | None = None
    golden: str | Path | None = None
    legal: str | Path | None = None
    forbidden: str | Path | None = None
    instances: int = 1
    scale: tuple[float, float] = (0.8, 1.25)
    min_area: int = 16
    margin: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is not possible."""
        given = self.folder, self.bank, self.shape
        drawn_on = self.legal or self.forbidden
        faults = [
            (sum(map(bool, given)) > 1, "masks, mask-bank and shape exclude each other"),
            (
                self.shape is not None and self.shape not in SHAPES,
                f"shape {self.shape!r}: one of {', '.join(SHAPES)}",
            ),
            (self.within and self.golden, "within and golden exclude each other"),
            (self.golden and not drawn_on, "golden needs legal, forbidden or both"),
            (drawn_on and not self.golden, "legal and forbidden need golden"),
            (self.instances < 1, "instances: at least 1"),
            (self.folder and self.instances > 1, "instances: a folder of masks decides for itself"),
            (not 0.1 <= self.scale[0] <= self.scale[1] <= 10, "scale: from low to high, 0.1 to 10"),
            (self.min_area < 1, "min_area: at least 1 px"),
            ((self.margin or 0) < 0, "margin: 0 px or more"),
        ]
        found = [text for wrong, text in faults if wrong]
        if found:
            raise UsageError("the masks' options are not possible: " + "; ".join(found))

    def paths(self) -> list[Path]:
        """Its folders and files: no good images, should they lie among these."""
        within = None if self.within == "foreground" else self.within
        given = self.folder, self.bank, within, self.legal, self.forbidden
        return [Path(path) for path in given if path]

    def open(self, defect_type: str, window: int, seed: int, band: int) -> MaskSource:
        """The source for a type of defect.

        ``window`` is the side that the model sees, in px; ``band`` is the width of the soft border
        around a mask. Raises `InputError` for folders and files that cannot be used.
        """
        margin = band if self.margin is None else self.margin
        gap = max(window // 4, 2 * band + 1)
        regions = self._regions()
        if self.folder:
            folder = MaskFolder(Path(self.folder), gap)
            return folder if isinstance(regions, Everywhere) else LimitedMasks(folder, regions)
        shapes: Shapes = (
            BankShapes(read_bank(Path(self.bank), gap), self.scale, self.min_area)
            if self.bank
            else DrawnShapes(self.shape or defect_type, window)
        )
        return PlacedMasks(
            shapes, seed, regions, margin=margin, instances=self.instances, gap=2 * band + 1
        )

    def _regions(self) -> RegionSource:
        if self.golden:
            legal, forbidden = (Path(p) if p else None for p in (self.legal, self.forbidden))
            return Golden(Path(self.golden), legal, forbidden)
        if self.within is None:
            return Everywhere()
        if self.within == "foreground":
            return Foreground()
        path = Path(self.within)
        return RegionFolder(path) if path.is_dir() else RegionFile(path)
