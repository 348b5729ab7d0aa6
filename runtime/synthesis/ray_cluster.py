"""A job on a cluster of Ray: actors make its shards, which are then joined.

Every node sees the images, the engine and OUT under the same paths. Beside OUT lies a folder of
shards, each an output folder of its own, so that what a lost actor had made is there when the next
one goes on with its shard; OUT itself is there whole or not at all.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter, deque
from pathlib import Path
from typing import Any

from ..config.job import JobConfig
from ..errors import DefectRTError, OutputError, UsageError
from ..extras import requires
from ..output.merge import merge
from ..progress import Progress
from .job import Summary, synthesize

__all__ = ["LOCAL", "synthesize_on_ray"]

#: The address of a cluster of this machine alone, which is started for the job.
LOCAL = "local"
#: Shards an actor, so that none waits long for the last.
_SHARDS_EACH = 4
#: Losses of an actor over the same shard, after which it is given up.
_MOST_LOSSES = 3


def synthesize_on_ray(
    config: JobConfig,
    address: str = LOCAL,
    *,
    actors: int | None = None,
    gpu_share: float = 0.0,
    quiet: bool = False,
) -> Summary:
    """Make a dataset on the cluster at ``address``; its bytes are those of `synthesize`.

    actors     that work at once; by default as many as the cluster has processors for, each with
               as many threads as the configuration says, or one
    gpu_share  of a GPU for each, as Ray counts them

    Whatever stops it, the same call goes on. An actor that is lost is replaced, and its shard gone
    on with. Raises `UsageError` for a job that is a shard itself; `OutputError` if a shard's actors
    are lost again and again; and as `synthesize` does, once it is known that a shard cannot be
    made.
    """
    with requires("ray"):
        import ray
    if config.shard:
        raise UsageError("shard: a job on Ray makes shards by itself; leave it out")
    out = config.dataset
    if not (out.is_dir() and any(out.iterdir())):
        threads = config.threads or 1
        config = config.replace(threads=threads)
        started = not ray.is_initialized()
        if started:
            local = {"include_dashboard": False} if address == LOCAL else {"address": address}
            ray.init(**local, logging_level="warning", log_to_driver=False)
        try:
            count = actors or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
            shards = _shards(config, count * _SHARDS_EACH)
            _make_all(ray, shards, count, {"num_cpus": threads, "num_gpus": gpu_share}, quiet)
        finally:
            if started:
                ray.shutdown()
        merge([shard.dataset for shard in shards], out)
        shutil.rmtree(_beside(out))
    return synthesize(config=config, quiet=True)


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.name}-shards")


def _shards(config: JobConfig, wanted: int) -> list[JobConfig]:
    """The same job in as many shards as were begun, or else as are wanted."""
    folder = _beside(config.dataset)
    begun = {path.name.partition("of")[2] for path in folder.glob("*of*")}
    of = int(begun.pop()) if len(begun) == 1 else wanted
    return [
        config.replace(shard=f"{i}/{of}", out=folder / f"{i}of{of}", format="mvtec")
        for i in range(1, of + 1)
    ]


def _make_all(
    ray: Any, shards: list[JobConfig], count: int, resources: dict[str, Any], quiet: bool
) -> None:
    """Have every shard made, ``count`` at a time."""
    actor = ray.remote(**resources, max_restarts=0)(_Maker)
    waiting, busy, losses = deque(shards), dict[Any, tuple[Any, JobConfig]](), Counter[str]()
    idle: list[Any] = []
    with Progress(len(shards), "shards", quiet=quiet) as progress:
        while waiting or busy:
            while waiting and len(busy) < count:
                maker, shard = idle.pop() if idle else actor.remote(), waiting.popleft()
                busy[maker.make.remote(shard)] = maker, shard
            (ready,), _ = ray.wait(list(busy))
            maker, shard = busy.pop(ready)
            try:
                fault = ray.get(ready)
            except ray.exceptions.RayActorError:
                losses[str(shard.shard)] += 1
                if losses[str(shard.shard)] > _MOST_LOSSES:
                    raise OutputError(
                        f"{shard.dataset}: its actor was lost {_MOST_LOSSES + 1} times; see Ray's "
                        "logs, and run the same command again"
                    ) from None
                print(
                    f"note: lost the actor of shard {shard.shard}; another goes on", file=sys.stderr
                )
                waiting.append(shard)
                continue
            if fault:
                raise fault
            idle.append(maker)
            progress.update(len(shards) - len(waiting) - len(busy))


class _Maker:
    """Lives in a process of the cluster."""

    def make(self, shard: JobConfig) -> DefectRTError | None:
        """Make a shard, or go on with it; returns what is wrong with it."""
        try:
            synthesize(config=shard, quiet=True, wait=True)
        except DefectRTError as fault:
            return fault
        return None
