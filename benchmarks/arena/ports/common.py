"""What the ports share: where defects go, the base under a mask, learned prompts, and the files.

Masks, tiles, places and the soft border are those that our own engines use (`defectrt.masks`,
`defectrt.synthesis`), so that an arm of the arena differs in how a defect is painted and in
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from defectrt.config.masks import MaskConfig
from defectrt.config.synthesis import SynthesisConfig
from defectrt.diffusion.rows import Floats, Rows
from defectrt.diffusion.schedule import Schedule, to_epsilon
from defectrt.diffusion.seeds import sample_seed
from defectrt.errors import InputError
from defectrt.files import write_whole
from defectrt.images.png import encode_png
from defectrt.images.types import Bits, Mask
from defectrt.kernels.masked_attention import resize_mask
from defectrt.masks.examples import Examples
from defectrt.masks.source import MaskSource, Placed
from defectrt.masks.sources import open_masks
from defectrt.progress import Progress
from defectrt.stopping import asked_to_stop
from defectrt.synthesis.canvas import Canvas, View
from defectrt.synthesis.tiles import Tile, cut
from defectrt.training.bundled import BUNDLED_RUN, open_base
from defectrt.training.data.crops import Batch
from defectrt.training.data.layouts import GOOD
from defectrt.training.data.samples import Sample
from defectrt.training.data.survey import examples_of, survey
from defectrt.training.loop.objectives import PromptEmbeddings, denoise
from defectrt.training.models.stable_diffusion import MaskedUNet
from defectrt.training.record import read_record

__all__ = [
    "BACKGROUND",
    "BAND",
    "Base",
    "Wanted",
    "by_type",
    "each",
    "finished",
    "learn_prompts",
    "paint",
    "stepped",
    "tiles_of",
    "wanted",
    "write",
]

T = TypeVar("T")

#: The prompt that the bundled base knows good surfaces by.
BACKGROUND = "good surface"
#: The soft border is that of our engines; labels are the masks as they were asked for, and what
#: the other methods do not refuse is painted as it is.
_CONFIG = SynthesisConfig(refine="none")
BAND = int(np.ceil(_CONFIG.grow + _CONFIG.feather))
#: Px of a cell of the base's latents, for the survey of the shots.
_CELL = 4


@dataclass(frozen=True)
class Wanted:
    """A picture to be made.

    good    the picture to paint on
    placed  its instances: each mask [H,W], and how it came about
    seed    its own: of the job's, its type, its name and nothing else
    """

    defect_type: str
    name: str
    good: Sample
    placed: tuple[Placed, ...]
    seed: int

    def tiles(self, window: int) -> Iterator[Tile]:
        """The windows in which all instances are painted, in order."""
        for one in self.placed:
            yield from cut(one.mask, window, _CONFIG.context)


def by_type(shots: Sequence[Sample]) -> dict[str, list[Sample]]:
    """The shots of each type, by name. Raises `InputError` where there are none, or no mask."""
    if not shots:
        raise InputError("there are no real defects to learn from")
    if bare := [s.path.name for s in shots if not s.mask.any() or s.defect_type == GOOD]:
        raise InputError(f"{', '.join(bare[:3])}: shows no defect; each shot needs a mask")
    names = sorted({shot.defect_type for shot in shots})
    return {name: [shot for shot in shots if shot.defect_type == name] for name in names}


def wanted(
    shots: Sequence[Sample],
    good: Sequence[Sample],
    count: int,
    seed: int,
    window: int,
    source: Callable[[str, Examples], MaskSource] | None = None,
) -> list[Wanted]:
    """``count`` pictures of each type, with masks drawn around the shots' own.

    They lie where the surface is as bright as around the shots (`defectrt.masks.places`).
    ``source`` gives the masks of a type in place of the drawn ones. Raises `InputError` if a type
    fits no good picture.
    """
    types = by_type(shots)
    if not good:
        raise InputError("there are no good pictures to paint on")
    # seen at the pictures' own resolution, whatever would suit the defects best
    found = replace(survey([*shots, *good], window, _CELL), magnify=1, seen=window)
    made = list[Wanted]()
    for name, own in types.items():
        examples = examples_of(own, found)
        masks = (
            source(name, examples)
            if source
            else open_masks(
                MaskConfig(), name, window=window, seed=seed, band=BAND, examples=examples
            )
        )
        order = np.random.default_rng([seed, len(made)]).permutation(len(good)).tolist()
        made += [_place(good, order, masks, name, number, seed) for number in range(count)]
    return made


def _place(
    good: Sequence[Sample], order: list[int], masks: MaskSource, name: str, number: int, seed: int
) -> Wanted:
    """Onto the first good picture, in the order from ``number`` on, that has room."""
    why = ""
    for turn in range(len(order)):
        onto = good[order[(number + turn) % len(order)]]
        try:
            placed = masks(onto.path.name, onto.image, number)
        except InputError as fault:
            why = str(fault)
            continue
        file = f"{onto.path.stem}_{number:03d}"
        own = sample_seed(seed, f"{name}/{file}", number)
        return Wanted(name, file, onto, tuple(placed), own)
    raise InputError(f"{name}: none of the {len(good)} good pictures has room for it ({why})")


def tiles_of(shot: Sample, window: int) -> list[Tile]:
    """The windows that show a shot's defect: all of it, cut where it is larger than two of them."""
    return list(cut(shot.mask, window, _CONFIG.context))


class Base:
    """The bundled model under a mask, with prompts that are embeddings [1,L,D].

    Its weights stay as they are.
    """

    def __init__(self, steps: int) -> None:
        """With a schedule of ``steps`` each way; inversion by the convention that suits it best."""
        self.model = open_base()
        self.net = MaskedUNet(self.model.unet)
        self.noise = self.model.noise_schedule
        self.alphas = torch.as_tensor(self.noise.alphas_cumprod, dtype=torch.float32)
        self.schedule: Schedule = self.noise.tables(steps, "paper")
        self.window, self.cells = self.model.window, self.model.window // self.model.downscale

    def prompt(self, text: str) -> Tensor:
        """[1,L,D]"""
        return self.model.encode_prompts([text])[0]

    def nearest_prompt(self, batch: Batch, seed: int) -> Tensor:
        """Of the words that the base knows defects by, those that explain a batch best, [1,L,D]."""
        words = read_record(BUNDLED_RUN).prompts
        known = [self.prompt(one.text) for one in words if one.role == "defect"]
        draw = torch.Generator().manual_seed(seed)
        state = draw.get_state()
        losses = []
        for prompt in known:
            draw.set_state(state)
            with torch.inference_mode():
                losses.append(float(self.masked_loss(batch, prompt, draw)))
        return known[int(np.argmin(losses))]

    def masked_loss(self, batch: Batch, inside: Tensor, draw: torch.Generator) -> Tensor:
        """‖m (ε - ε_θ(z_t, t, prompt))‖² by the mask's area, at random t.

        inside [B,L,D] or [1,L,D].
        """
        z0 = self.model.encode(torch.from_numpy(batch.pixels))
        rows, size = len(z0), z0.shape[-2:]
        ground = self.prompt(BACKGROUND).expand(rows, -1, -1)
        return denoise(
            self.net,
            z0,
            resize_mask(torch.from_numpy(batch.mask), (size[0], size[1])),
            torch.randn(z0.shape, generator=draw),
            torch.randint(len(self.alphas), (rows,), generator=draw),
            self.alphas,
            PromptEmbeddings(inside.expand(rows, -1, -1), ground, ground),
            prediction_type=self.model.prediction_type,
        )["defect"]

    def encode(self, pixels: Floats) -> Floats:
        """[B,3,S,S] in [-1,1] -> latents [B,C,h,w]."""
        return np.asarray(self.model.encode(torch.from_numpy(pixels)).numpy(), np.float32)

    def decode(self, latent: Floats) -> Floats:
        """Latents [B,C,h,w] -> [B,3,S,S]."""
        return np.asarray(self.model.decode(torch.from_numpy(latent)).numpy(), np.float32)

    @torch.inference_mode()
    def epsilon(
        self, latent: Floats, timestep: int, mask: Floats, inside: Tensor, outside: Tensor
    ) -> Floats:
        """ε_θ; latent [B,C,h,w], mask [B,1,h,w], prompts [B,L,D] or [1,L,D]."""
        z, rows = torch.from_numpy(latent), len(latent)
        prediction = self.net(
            z,
            torch.full((rows,), timestep),
            torch.from_numpy(mask),
            inside.expand(rows, -1, -1),
            outside.expand(rows, -1, -1),
        )
        alpha = self.alphas[timestep]
        kind = self.model.prediction_type
        return np.asarray(to_epsilon(kind, prediction, z, alpha).numpy(), np.float32)


def stepped(rows: Rows, epsilon: Floats) -> Floats:
    """z' = region (a z + b ε) + anchor, see `defectrt.diffusion.rows`."""
    a, b = rows.a[:, None, None, None], rows.b[:, None, None, None]
    return np.asarray(rows.region * (a * rows.latent + b * epsilon) + rows.anchor, np.float32)


def learn_prompts(
    base: Base,
    learned: Sequence[Tensor],
    batch: Callable[[int], Batch],
    prompts: Callable[[Batch], Tensor],
    *,
    steps: int,
    rate: float,
    seed: int,
    label: str,
) -> None:
    """Textual inversion: fit ``learned``, from which ``prompts`` makes [B,L,D], in place.

    Minimises the denoising loss under the mask (`Base.masked_loss`) of each step's ``batch``.
    Nothing of the base is changed.
    """
    optimiser = torch.optim.Adam(learned, lr=rate)
    draw = torch.Generator().manual_seed(seed)
    for step in each(range(steps), label):
        crops = batch(step)
        loss = base.masked_loss(crops, prompts(crops), draw)
        optimiser.zero_grad()
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, 2 * (1 - step / steps))  # falls over the second half
        optimiser.step()


def paint(
    image: Bits,
    tiles: Iterable[Tile],
    side: int,
    cells: int,
    make: Callable[[View], tuple[Floats, Floats]],
) -> tuple[Bits, Mask]:
    """A good picture [H,W,C] with a defect in every tile, one after another, and its label.

    ``make`` gets what a model of ``side`` px and ``cells`` latent cells sees of a tile, and returns
    it before and after, [3,side,side] each. The difference is added to the picture with a soft
    border; beyond it every bit stays.
    """
    canvas = Canvas(image)
    for tile in tiles:
        view = View(canvas.image, tile, _CONFIG, side=side, latent=(cells, cells))
        before, after = make(view)
        nothing = np.zeros((cells, cells), np.float32)
        found = view.assess(0, before, before, after, nothing, 0.0)
        canvas.paint(view, replace(found, reason=None))
    return canvas.image, canvas.label


def finished(out: Path, picture: Wanted) -> bool:
    """Whether a picture is there, so that a job that was stopped goes on where it was."""
    return _files(out, picture)[0].exists()


def write(out: Path, picture: Wanted, image: Bits, label: Mask) -> None:
    """The mask first: a picture that is there is whole."""
    file, mask = _files(out, picture)
    write_whole(mask, encode_png((label * np.uint8(255))[..., None]))
    write_whole(file, encode_png(image))


def _files(out: Path, picture: Wanted) -> tuple[Path, Path]:
    folder = out / picture.defect_type
    return folder / f"{picture.name}.png", folder / f"{picture.name}_mask.png"


def each(items: Sequence[T], label: str) -> Iterator[T]:
    """The items, with progress. The first Ctrl-C lets the one at hand finish, then counts."""
    with asked_to_stop() as stop, Progress(len(items), label) as bar:
        for done, item in enumerate(items, 1):
            yield item
            bar.update(done)
            if stop.is_set():
                raise KeyboardInterrupt
