"""What the timings say of a picture: which kernels earn their place on this card.

A picture is one of 512 px in 50 steps, in batches of 16 rows. It takes what the table measured for
a compiled engine, or, before there is a table, the roofline's time at this card's own ceilings,
which is less, so that the shares are too large then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

PICTURE = "a picture at its floor"
#: In the name of the table's line for an engine as it is built.
_ENGINE = "AOTInductor"


def picture(bandwidth: float, peak: float) -> dict[str, Any]:
    """Milliseconds of a picture at these bytes/s and FLOP/s, exponentials left out.

    With what makes shares of it: evaluations a picture, rows a batch, the share that is worth it.
    """
    import roofline

    workload = roofline.WORKLOADS[0]
    card = roofline.Card("this", peak / 1e12, bandwidth / 1e12, float("inf"))
    return {
        "picture_ms": 1e3 * workload.seconds(card),
        "evaluations": workload.evaluations,
        "rows": workload.rows,
        "worth": roofline.WORTH,
    }


def verdicts(rows: Iterable[dict[str, Any]]) -> list[str]:
    """A line for each operator that was timed; none before anything was."""
    rows = list(rows)
    gains: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if "gain_us" in row:
            gains[row["operator"]].append(row["gain_us"])
    floor = next((row for row in rows if "picture_ms" in row), None)
    if floor is None or not gains:
        return []
    engine = [
        1e3 / row["images_s"]
        for row in rows
        if _ENGINE in row.get("contender", "") and row.get("rows") == floor["rows"]
    ]
    whole = engine[-1] if engine else floor["picture_ms"]
    said = "as measured" if engine else "at its floor"
    lines = [f"a picture of 512 px in 50 steps, {said}: {whole:.1f} ms"]
    for operator, found in gains.items():
        saved = sum(found) * floor["evaluations"] / floor["rows"] / 1e3
        word = "earns its place" if saved / whole >= floor["worth"] else "the library stays"
        sizes = f"{len(found)} size{'s' * (len(found) > 1)}"
        lines.append(f"{operator}: saves {100 * saved / whole:.1f} % ({sizes}): {word}")
    return lines
