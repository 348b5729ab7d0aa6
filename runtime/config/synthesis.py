"""What to make: the options of one sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from .base import Config, Interval, parts

__all__ = ["MAX_STRENGTH", "Background", "Blend", "Refine", "Share", "SynthesisConfig"]

#: Where z^m comes from: ``noised``, the image with the candidate's own noise, without inversion;
#: ``replay``, the stored inversion; ``dual``, denoised again beside the defect.
Background: TypeAlias = Literal["noised", "replay", "dual"]
#: ``residual`` adds the change that the model made to the original; ``decoded`` blends to the
#: model's own pixels.
Blend: TypeAlias = Literal["residual", "decoded"]
#: Which witness says where the defect is; see `defectrt.synthesis.refinement`.
Refine: TypeAlias = Literal["attention", "change", "both", "none"]


#: Largest share: percentages with two places.
_MAX_SHARE = 10_000
#: Of a defect: beyond, on a dark surface, it is white.
MAX_STRENGTH = 10


class Share(NamedTuple):
    """A type of defect, and how many of the samples are of it, beside the other types' shares."""

    defect_type: str
    share: int = 1


def _shares(value: Any) -> Any:
    """Types and shares, from texts with commas, names, pairs or a mapping."""
    if value is None:
        return ()
    if isinstance(value, Mapping):
        value = list(value.items())
    texts = parts(value)
    if not isinstance(texts, tuple):
        return value
    shares = tuple(_share(text) for text in texts)
    names = [share.defect_type for share in shares]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)}: named twice")
    return shares


def _share(given: Any) -> Share:
    """One type: TYPE, TYPE=SHARE, or both as a pair."""
    name, share = given.split("=", 1) if isinstance(given, str) and "=" in given else (given, 1)
    if isinstance(given, list | tuple) and len(given) == 2:
        name, share = given
    try:
        share = int(str(share))
    except ValueError:
        share = 0
    if not isinstance(name, str) or not name.strip() or not 1 <= share <= _MAX_SHARE:
        raise ValueError(
            f"write TYPE or TYPE=SHARE, the share a whole number from 1 to {_MAX_SHARE:,}, as in "
            f"crack=3,hole=1, not {given!r}"
        )
    return Share(name.strip(), share)


def _texts(shares: tuple[Share, ...]) -> list[str]:
    return [s.defect_type if s.share == 1 else f"{s.defect_type}={s.share}" for s in shares]


class SynthesisConfig(Config):
    """What to make of every image."""

    defect: Annotated[
        tuple[Share, ...],
        BeforeValidator(_shares),
        PlainSerializer(_texts),
        Field(
            description="Types of defect to make, with commas, and how many parts of the samples "
            "each gets, as in crack=3,hole=1; by default all that the engine makes, in equal "
            "parts.",
            json_schema_extra={"metavar": "TYPE[=SHARE],…"},
        ),
    ] = ()
    count: Annotated[
        int,
        Field(
            ge=1,
            le=1_000_000,
            description="Samples an image; those of one mask share an inversion.",
        ),
    ] = 1
    strength: Annotated[
        Interval | None,
        Field(
            description="Least and greatest contrast of a defect to its surroundings: 0.1 is "
            "barely visible, 0.5 half as bright or half as bright again, 1 black or twice as "
            "bright. By default around those of the examples that the engine learned from; 0.3 to "
            "0.8 for the bundled engine; else as strong as the model paints it."
        ),
    ] = None
    candidates: Annotated[int, Field(ge=1, description="Tries a defect; the best is kept.")] = 1
    retries: Annotated[
        int,
        Field(
            ge=0,
            le=100,
            description="How many times as many again are tried while none shows a defect.",
        ),
    ] = 3
    seed: Annotated[
        int,
        Field(
            description="Another seed, other defects. With an image's name and the sample's number "
            "it decides the noise."
        ),
    ] = 0
    steps: Annotated[
        int | None,
        Field(description="Diffusion steps; one of the engine's schedules, by default its first."),
    ] = None
    background: Annotated[
        Background,
        Field(
            description="noised: the image with noise, as in training. replay: the inverted image, "
            "twice the work. dual: the inverted image, denoised again, as in the paper; take 20 "
            "steps or more. With noised and replay no latent outside the mask changes."
        ),
    ] = "noised"
    blend: Annotated[
        Blend,
        Field(description="residual: add the change to the original. decoded: the model's pixels."),
    ] = "residual"
    refine: Annotated[
        Refine,
        Field(
            description="Where the label lies (Eq. 13): where the image changed, where the model "
            "paid attention to the defect, both, or none: the mask as it is."
        ),
    ] = "change"
    refine_threshold: Annotated[
        float,
        Field(ge=0, le=1, description="Of the attention, a share of its maximum in the mask."),
    ] = 0.5
    refine_smooth: Annotated[
        float,
        Field(
            ge=0,
            description="Blur of the change before it is compared, standard deviation in px.",
        ),
    ] = 1.0
    refine_min_area: Annotated[
        int, Field(ge=0, description="Px of a piece of the label at least; less is noise.")
    ] = 4
    min_change: Annotated[
        float,
        Field(ge=0, le=1, description="Smallest change that counts as defect, share of the range."),
    ] = 0.03
    min_grain: Annotated[
        float,
        Field(
            ge=0,
            description="What it has to exceed that by, in units of the surface's own variation: "
            "a good surface that is painted anew changes too.",
        ),
    ] = 2.0
    min_coverage: Annotated[
        float,
        Field(ge=0, le=1, description="Share of the mask that must change; less is no defect."),
    ] = 0.25
    max_leak: Annotated[
        float,
        Field(
            ge=0,
            description="Change that may be cut off at the border, as a share of the defect's own; "
            "more is a seam.",
        ),
    ] = 1.0
    grow: Annotated[
        float,
        Field(ge=0, description="Px beyond the mask in which the result still counts fully."),
    ] = 2.0
    feather: Annotated[
        float,
        Field(ge=0, description="Px over which it then fades; beyond, every pixel stays."),
    ] = 4.0
    context: Annotated[
        int,
        Field(
            ge=0,
            description="Px of surroundings that the model sees around a mask which fills its "
            "window; at least as many as grow and feather take.",
        ),
    ] = 8

    @model_validator(mode="after")
    def _strength_is_possible(self) -> SynthesisConfig:
        if self.strength and not 0 < self.strength[0] <= self.strength[1] <= MAX_STRENGTH:
            raise ValueError(f"strength: from low to high, above 0 and up to {MAX_STRENGTH}")
        return self

    def record(self) -> dict[str, Any]:
        """All that decides what is made, for the journal."""
        return {name: getattr(self, name) for name in SynthesisConfig.model_fields}
