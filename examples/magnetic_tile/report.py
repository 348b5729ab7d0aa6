"""Measure an engine on good images: what happens to the background, in latents and pixels.

    python report.py ENGINE IMAGES MASKS --defect blowhole [--first 8] [--steps 50]

Prints one line of JSON. Errors are root mean squares outside the mask; latents have about unit
variance, pixels are in grey levels of 255.

    round_trip      latent: background denoised again after inversion (`dual`), against z_0
    replay          latent: background of a replayed generation, against z_0
    autoencoder     pixels: encoded and decoded, against the image
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import perf_counter

import numpy as np

from defectrt.diffusion.noise import normal
from defectrt.diffusion.rows import Prompts
from defectrt.diffusion.sampler import generate, invert, run
from defectrt.diffusion.seeds import item_id
from defectrt.engines.loading import load_engine
from defectrt.images.reading import read_image
from defectrt.images.window import place_window, to_model
from defectrt.masks.folder import MaskFolder
from defectrt.masks.reading import read_mask
from defectrt.masks.resizing import latent_mask


def rms(difference: np.ndarray, where: np.ndarray) -> float:
    """Root mean square of [B,C,h,w] where [B,1,h,w] is 1."""
    return float(np.sqrt((difference**2 * where).sum() / (where.sum() * difference.shape[1])))


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("engine", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("masks", type=Path)
    parser.add_argument("--defect", required=True)
    parser.add_argument("--first", type=int, default=8, help="images to take")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    masks = MaskFolder(args.masks)
    with load_engine(args.engine, threads=args.threads) as engine:
        m = engine.manifest
        side, schedule = m.image.height, m.steps(args.steps)
        pixels, pixel_masks, latent_masks, noise = [], [], [], []
        for path in sorted(args.images.iterdir())[: args.first]:
            image = read_image(path)
            mask = read_mask(masks.mask_of(path.relative_to(args.images)), image.shape[:2])
            window = place_window(mask, side, 8)
            pixels.append(to_model(window.crop(image), side))
            latent_masks.append(latent_mask(window.crop(mask), m.latent.height, m.latent.width))
            pixel_masks.append(latent_mask(window.crop(mask), side, side))
            shape = (m.latent.channels, m.latent.height, m.latent.width)
            noise.append(normal(0, item_id(path.name), 0, shape))
        x, outside = np.stack(pixels), 1 - np.stack(latent_masks)
        indices = m.prompt_indices(args.defect)
        prompts = Prompts(*(np.full(len(x), i) for i in indices))
        z0 = engine.encode(x)
        times, errors = {}, {}
        start = perf_counter()
        path = run(engine.step, invert(z0, 1 - outside, prompts, schedule))
        times["inversion"] = perf_counter() - start
        for way in ("replay", "dual"):
            start = perf_counter()
            generation = generate(path, 1 - outside, np.stack(noise), prompts, schedule, way)
            result = run(engine.step, generation)
            times[way] = perf_counter() - start
            errors[way] = rms(result.latent - z0, outside)
        decoded = (engine.decode(z0) - x) * 127.5
        print(
            json.dumps(
                {
                    "engine": args.engine.name,
                    "convention": m.schedule.convention,
                    "steps": len(schedule),
                    "images": len(x),
                    "round_trip": round(errors["dual"], 5),
                    "replay": errors["replay"],
                    "autoencoder": round(rms(decoded, 1 - np.stack(pixel_masks)), 2),
                    "seconds_an_image": {k: round(v / len(x), 3) for k, v in times.items()},
                }
            )
        )


if __name__ == "__main__":
    main()
