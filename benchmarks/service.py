"""Load on a service: arrivals that wait for nobody, at half, full and twice what it can do.

    python benchmarks/service.py [--engine DIR] [--seconds 60] [--soak MINUTES] [--steps N]

Starts `defectrt serve` as a process, measures its capacity with a few clients that ask one after
another, then sends requests at random times whatever became of those before (Poisson, so that a
service that is slow is not asked less), and looks at the process's memory (of Linux, /proc). One
line of CSV a round on standard output; exit code 1 if anything but 200 or 429 came back, or if the
memory of a soak grew by more than a tenth after its first fifth.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

#: Clients that find the capacity; samples that the service lets wait.
CLIENTS, QUEUE = 12, 32


@dataclass
class Round:
    """What became of the requests of one round; times in seconds, memory in MB."""

    what: str
    asked_per_s: float
    seconds: float
    asked: int
    made: int
    made_per_s: float
    p50_s: float
    p99_s: float
    refused: int
    other: int
    memory_before: float
    memory_after: float
    memory_peak: float


@contextmanager
def service(engine: Path | None):
    """A service on a free port; yields its address and process."""
    words = [sys.executable, "-m", "defectrt", "serve", "--port", "0", "--queue", str(QUEUE)]
    words += ["--engine", str(engine)] if engine else []
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        yield process.stderr.readline().rpartition(" ")[2].strip(), process
    finally:
        process.send_signal(signal.SIGTERM)
        print(process.stderr.read(), end="", file=sys.stderr)
        process.wait()


def memory(process: subprocess.Popen, key: str = "VmRSS") -> float:
    """Of a process, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition(f"{key}:")[2].split()[0]) / 1000


class Asking:
    """Sends samples; takes down how long each took and what came back."""

    def __init__(self, client: httpx.AsyncClient, steps: int | None) -> None:
        self._client, self._number = client, 0
        self._values = {"steps": str(steps)} if steps else {}
        grain = np.random.default_rng(0).normal(150, 6, (120, 160)).clip(0, 255)
        mask = np.zeros((120, 160), np.uint8)
        mask[50:60, 70:90] = 255
        self._files = {"image": png(grain.astype(np.uint8)), "mask": png(mask)}
        self.start()

    def start(self) -> None:
        """Begin a new count."""
        self.seconds, self.statuses = [], Counter()

    async def ask(self) -> None:
        """One sample, of a number of its own."""
        self._number += 1
        began = time.perf_counter()
        values = self._values | {"number": str(self._number)}
        answer = await self._client.post("/v1/synthesize", files=self._files, data=values)
        # a sample that is not fit took as long
        status = 200 if answer.status_code == 422 else answer.status_code
        self.statuses[status] += 1
        if status == 200:
            self.seconds.append(time.perf_counter() - began)


def png(array: np.ndarray) -> bytes:
    """The bytes of a file."""
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


async def capacity(asking: Asking, seconds: float) -> float:
    """Samples a second of clients that ask one after another."""
    end = time.monotonic() + seconds

    async def ask_on() -> None:
        while time.monotonic() < end:
            await asking.ask()

    await asking.ask()  # what is slow once
    asking.start()
    began = time.monotonic()
    await asyncio.gather(*(ask_on() for _ in range(CLIENTS)))
    return asking.statuses[200] / (time.monotonic() - began)


async def load(asking: Asking, rate: float, seconds: float, rng: random.Random) -> float:
    """Ask at random times, ``rate`` a second, and wait for all answers; returns the seconds."""
    asking.start()
    began = due = time.monotonic()
    tasks = []
    while (due := due + rng.expovariate(rate)) < began + seconds:
        await asyncio.sleep(max(0, due - time.monotonic()))
        tasks.append(asyncio.create_task(asking.ask()))
    await asyncio.gather(*tasks)
    return time.monotonic() - began


async def measure(what: str, asking: Asking, process, rate: float, seconds: float, rng) -> Round:
    """One round, and its row."""
    before = memory(process)
    took = await load(asking, rate, seconds, rng)
    made = asking.statuses[200]
    p50, p99 = np.percentile(asking.seconds or [np.nan], (50, 99))
    return Round(
        what,
        round(rate, 3),
        round(took, 1),
        sum(asking.statuses.values()),
        made,
        round(made / took, 3),
        round(float(p50), 3),
        round(float(p99), 3),
        asking.statuses[429],
        sum(n for status, n in asking.statuses.items() if status not in (200, 429)),
        round(before, 1),
        round(memory(process), 1),
        round(memory(process, "VmHWM"), 1),
    )


async def run(options: argparse.Namespace) -> int:
    """All rounds; returns the exit code."""
    rng, wrong = random.Random(options.seed), 0
    table = csv.DictWriter(sys.stdout, [f.name for f in fields(Round)])
    table.writeheader()
    with service(options.engine) as (url, process):
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        client = httpx.AsyncClient(base_url=url, timeout=300, limits=limits, trust_env=False)
        async with client:
            asking = Asking(client, options.steps)
            most = await capacity(asking, options.seconds / 2)
            parts = [(f"{share} of capacity", share, options.seconds) for share in (0.5, 1, 2)]
            soak = 60 * options.soak / 10
            parts += [(f"soak {i + 1} of 10", 2, soak) for i in range(10 if soak else 0)]
            rounds = []
            for what, share, seconds in parts:
                found = await measure(what, asking, process, share * most, seconds, rng)
                table.writerow(asdict(found))
                sys.stdout.flush()
                rounds.append(found)
                wrong += found.other
    if options.soak and rounds[-1].memory_after > 1.1 * rounds[-9].memory_after:
        print("the memory grew", file=sys.stderr)
        wrong += 1
    print(f"capacity {most:.3f} samples/s, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return bool(wrong)


def main() -> int:
    """Read the options, and go."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", type=Path, help="an engine's directory; the bundled one")
    parser.add_argument("--seconds", type=float, default=60, help="of a round")
    parser.add_argument("--soak", type=float, default=0, help="minutes at twice the capacity")
    parser.add_argument("--steps", type=int, help="of diffusion; the engine's first schedule")
    parser.add_argument("--seed", type=int, default=0)
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
