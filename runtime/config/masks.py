"""Where defects come: the options of masks, regions and placement."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from .base import Config, Interval, WholeInterval

__all__ = ["ANYWHERE", "DRAWN", "FOREGROUND", "MOST_INSTANCES", "SHAPES", "MaskConfig"]

#: Regions that have a name.
ANYWHERE, FOREGROUND = Path("anywhere"), Path("foreground")
#: Defects in one picture.
MOST_INSTANCES = 100
#: Masks that can be drawn by name; see `defectrt.masks.shapes`.
SHAPES = (
    "blob",
    "crack",
    "dent",
    "hole",
    "particle",
    "perlin",
    "scratch",
    "spot",
    "stain",
)
#: Whatever suits the name of the type, though the engine has the shapes of examples.
DRAWN = "drawn"


class MaskConfig(Config):
    """Where masks come from and where they may lie; without any, drawn to suit the defect."""

    masks: Annotated[
        Path | None,
        Field(
            description="Folder of masks: name.png or name_mask.png; not 0 is defect. Without it, "
            "masks are drawn to suit the type of defect."
        ),
    ] = None
    mask_bank: Annotated[
        Path | None,
        Field(description="Folder of real defects' masks, to be turned, scaled and placed anew."),
    ] = None
    shape: Annotated[
        str | None,
        Field(
            description=f"What to draw as masks: {', '.join(SHAPES)}, or {DRAWN}: what suits the "
            "type's name. By default around the examples that the engine learned from, or else "
            f"{DRAWN}."
        ),
    ] = None
    like: Annotated[
        Path | None,
        Field(
            description="Folder of real defects, images with masks, or a folder a type: their own "
            "changes are put onto the images, warped, and no model paints. One is enough."
        ),
    ] = None
    instances: Annotated[
        WholeInterval | None,
        Field(
            description="Defects in one picture, apart from each other: a number, or from LOW to "
            "HIGH, equally often, where not all have room at least LOW; by default as many as "
            "the examples that the engine learned from show, else 1. A folder of masks decides "
            "for itself.",
        ),
    ] = None
    mixed: Annotated[
        bool,
        Field(
            description="Defects of several types in one picture: each of the instances, by "
            "default 2, takes its type by the shares of --defect. Pictures that show several are "
            "of the type combined."
        ),
    ] = False
    mask_scale: Annotated[
        Interval | None,
        Field(
            description="Smallest and largest scale of a mask beside that from the bank, by "
            "default 0.8 to 1.25, or beside that of an example, by default 0.71 to 1.41; from 0.1 "
            "to 10."
        ),
    ] = None
    mask_min_area: Annotated[
        int, Field(ge=1, description="Px that a mask from the bank keeps at least.")
    ] = 16
    size: Annotated[
        Interval | None,
        Field(
            description="Smallest and largest longest side of a mask in px; by default what "
            "the bank, the examples or the type of defect have."
        ),
    ] = None
    within: Annotated[
        Path | None,
        Field(
            description="Where a defect may be: anywhere, on the workpiece before its background "
            "(foreground), or where a folder of region masks, or one region mask for all, is not "
            "0. By default where it looks like the places of the examples that the engine learned "
            "from. A mask lies whole in its region or the image is skipped.",
            json_schema_extra={"metavar": "anywhere|foreground|PATH"},
        ),
    ] = None
    golden: Annotated[
        Path | None,
        Field(
            description="An image of the workpiece on which --legal and --forbidden were drawn; "
            "they are found again in every image, and where that is not sure, the image is skipped."
        ),
    ] = None
    legal: Annotated[
        Path | None, Field(description="Mask on the golden image: a defect may be here.")
    ] = None
    forbidden: Annotated[
        Path | None, Field(description="Mask on the golden image: no defect may be here.")
    ] = None
    margin: Annotated[
        int | None,
        Field(
            ge=0,
            description="Px around a mask that have to be legal too; by default the soft border.",
        ),
    ] = None

    @model_validator(mode="after")
    def _masks_go_together(self) -> MaskConfig:
        drawn_on = self.legal or self.forbidden
        faults = [
            (
                sum(map(bool, (self.masks, self.mask_bank, self.shape, self.like))) > 1,
                "masks, mask_bank, shape and like exclude each other",
            ),
            (self.like and self.size, "size: like keeps the sizes of its examples"),
            (
                self.shape not in (None, DRAWN, *SHAPES),
                f"shape {self.shape!r}: one of {', '.join((*SHAPES, DRAWN))}",
            ),
            (self.within and self.golden, "within and golden exclude each other"),
            (self.golden and not drawn_on, "golden needs legal, forbidden or both"),
            (drawn_on and not self.golden, "legal and forbidden need golden"),
            (
                self.masks and self.instances,
                "instances: a folder of masks decides for itself",
            ),
            (
                self.instances
                and not 1 <= self.instances[0] <= self.instances[1] <= MOST_INSTANCES,
                f"instances: from low to high, 1 to {MOST_INSTANCES}",
            ),
            (self.masks and self.size, "size: a folder of masks decides for itself"),
            (
                self.size and not 1 <= self.size[0] <= self.size[1] <= 4096,
                "size: from low to high, 1 to 4096 px",
            ),
            (
                self.mask_scale and not 0.1 <= self.mask_scale[0] <= self.mask_scale[1] <= 10,
                "mask_scale: from low to high, 0.1 to 10",
            ),
        ]
        if found := [text for wrong, text in faults if wrong]:
            raise ValueError("; ".join(found))
        return self

    @property
    def mask_paths(self) -> list[Path]:
        """Its folders and files: no good images, should they lie among these."""
        within = None if self.within in (ANYWHERE, FOREGROUND) else self.within
        given: tuple[Any, ...] = (
            self.masks,
            self.mask_bank,
            self.like,
            within,
            self.golden,
            self.legal,
            self.forbidden,
        )
        return [path for path in given if path]
