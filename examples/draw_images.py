"""Draw the example images: good surfaces, of seeds that training never uses.

python examples/draw_images.py [OUT]
"""

from __future__ import annotations

import sys
from pathlib import Path

from defectrt.images.png import encode_png
from defectrt.training.surfaces import FAMILIES, draw

#: Training counts from 0 up, a hundred million a seed; this is far above.
FIRST_SEED = 2**40 + 200


def main() -> None:
    """Write one image of every family."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("images"))
    out.mkdir(parents=True, exist_ok=True)
    for i, family in enumerate(FAMILIES):
        image, _ = draw(FIRST_SEED + i, family, 256)
        (out / f"{family}.png").write_bytes(encode_png(image))


if __name__ == "__main__":
    main()
