"""How many CPU cores there are for this process: the one place that says so."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from math import ceil
from pathlib import Path, PurePosixPath

__all__ = ["cores", "threads_of"]

#: Where Linux says in which control groups a process is, and where they are mounted.
_GROUPS, _MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def cores(groups: Path = _GROUPS, mount: Path = _MOUNT) -> int:
    """CPU cores that this process may use, at least 1.

    Those that it may run on, or fewer where a container has less time than that: the quota of its
    control groups, of version 1 or 2, rounded up.
    """
    if hasattr(os, "sched_getaffinity"):
        there = len(os.sched_getaffinity(0))
    else:
        there = os.cpu_count() or 1
    return max(1, min([there, *(ceil(quota) for quota in _quotas(groups, mount))]))


def threads_of(wanted: int | None) -> int:
    """Threads to compute with: as many as were asked for, by default one a core.

    More than there are cores would take turns on them, which is far slower: they are not started,
    and a note on standard error says so.
    """
    here = cores()
    if wanted is None or wanted <= here:
        return wanted or here
    print(
        f"note: {wanted} threads were asked for, and there are {here} cores for this process; "
        f"it takes {here} threads",
        file=sys.stderr,
    )
    return here


def _quotas(groups: Path, mount: Path) -> Iterator[float]:
    """Cores by time, of every control group that this process is in and that has a limit."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, colon, place = rest.partition(":")
        if not colon:
            continue
        if not controllers:
            yield from _limits(mount, place, "cpu.max")
        elif "cpu" in controllers.split(","):
            for name in (controllers, "cpu"):
                yield from _limits(mount / name, place, "cpu.cfs_quota_us", "cpu.cfs_period_us")


def _limits(root: Path, place: str, *names: str) -> Iterator[float]:
    """Those of a group and of all that it is in; a container sees its own at the root."""
    path = PurePosixPath(place.lstrip("/"))
    for group in (path, *path.parents):
        try:
            words = " ".join((root / group / name).read_text() for name in names).split()
            quota, period = (int(word) for word in words)
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if quota > 0 and period > 0:
            yield quota / period
