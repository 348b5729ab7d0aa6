"""A line that waits for nobody: pictures at a fixed rate, to libdefectrt and to Python.

python benchmarks/line.py [--workers 1,2,4] [--seconds 60] [--share 0.8] [--steps 8]
    >> benchmarks/results/line.csv

First it finds how many samples a second so many workers make when all of them are always asked,
then it takes pictures at a ``share`` of that rate, whatever became of the ones before. A queue of 8
pictures lies between; what finds no room is dropped, as on a line. Latency is from the moment at
which a picture was due until its result lies in the caller's memory. A thread an evaluation on both
sides, each side and number of workers in a process of its own. One row each on stdout.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import os
import queue
import subprocess
import sys
import threading
import time

import numpy as np
from sides import LOOSE, ROOT, resident, scene

FIELDS = ["side", "workers", "rate", "seconds", "pictures", "made", "dropped", "made_per_s"]
FIELDS += ["p50_s", "p99_s", "mb", "mb_after", "steps"]
QUEUE = 8


class Python:
    """Threads that take pictures from a queue, on one engine."""

    def __init__(self, engine, defect, steps, workers):
        from defectrt.config.synthesis import SynthesisConfig
        from defectrt.engines.loading import load_engine
        from defectrt.synthesis.pipeline import Pipeline, SourceImage
        from defectrt.synthesis.scheduler import Scheduler, Task

        self.engine = load_engine(engine, threads=1)
        self.pipeline = Pipeline(self.engine, SynthesisConfig(defect=defect, steps=steps, **LOOSE))
        self.classes = SourceImage, Scheduler, Task
        self.scene, self.queue = scene(), queue.Queue(QUEUE)
        for _ in range(workers):
            threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        source, scheduler, task = self.classes
        image, mask = self.scene
        while True:
            seed, told = self.queue.get()
            work = task(self.pipeline.sample(source("x", image.copy()), 0, [mask], seed))
            (done,) = scheduler(self.engine, batch_size=1).run([work])
            done.result()
            told()

    def submit(self, seed, told, *, wait):
        """Queue a picture; False if there is no room."""
        try:
            self.queue.put((seed, told), block=wait)
        except queue.Full:
            return False
        return True


class Cpp:
    """A session, and a thread for every picture on its way, which waits for it."""

    def __init__(self, engine, defect, steps, workers):
        from support import clibrary

        self.library = clibrary.Library(clibrary.build())
        handle = self.library.open(engine, threads=1)
        how = LOOSE | {"steps": steps, "workers": workers, "queue": QUEUE}
        self.session = self.library.session(handle, defect=defect.encode(), **how)
        self.image, mask = scene()
        self.ask = self.library.request(self.image, [mask], 0)
        self.busy = 21

    def submit(self, seed, told, *, wait):
        """Queue a picture; False if there is no room."""
        self.ask.seed, task = seed, ctypes.c_void_p()
        to = ctypes.byref(task)
        status = self.library.c.defectrt_submit(
            self.session, ctypes.byref(self.ask), -1 if wait else 0, to
        )
        if status == self.busy:
            return False
        self.library.check(status, "session", self.session)
        threading.Thread(target=self.settle, args=(task, told)).start()
        return True

    def settle(self, task, told):
        status = self.library.c.defectrt_task_wait(task, -1)
        result, *_arrays = self.library.result(self.image)
        assert status == self.library.c.defectrt_task_result(task, ctypes.byref(result)) == 0
        self.library.c.defectrt_task_release(task)
        told()


SIDES = {"cpp": Cpp, "python": Python}


class Round:
    """Pictures that are sent, and when each was due and came back."""

    def __init__(self, line):
        self.line, self.seconds, self.sent, self.dropped = line, [], 0, 0
        self.came = threading.Semaphore(0)

    def send(self, due, *, wait):
        def told():
            self.seconds.append(time.perf_counter() - due)
            self.came.release()

        self.sent += 1
        self.dropped += not self.line.submit(self.sent, told, wait=wait)

    def settle(self):
        for _ in range(self.sent - self.dropped):
            self.came.acquire()


def capacity(line, seconds):
    """Samples a second with a queue that is never empty."""
    warm = Round(line)
    for _ in range(4):
        warm.send(time.perf_counter(), wait=True)
    warm.settle()
    full, began = Round(line), time.perf_counter()
    while time.perf_counter() < began + seconds:
        full.send(time.perf_counter(), wait=True)
    full.settle()
    return full.sent / (time.perf_counter() - began)


def measure(side, given):
    line = SIDES[side](given.engine, given.defect, given.steps, given.workers)
    rate = given.share * capacity(line, given.seconds / 3)
    before, began = resident(), time.perf_counter()
    taken = Round(line)
    for number in range(int(rate * given.seconds)):
        due = began + number / rate
        time.sleep(max(0, due - time.perf_counter()))
        taken.send(due, wait=False)
    taken.settle()
    took, made = time.perf_counter() - began, len(taken.seconds)
    p50, p99 = np.percentile(taken.seconds, (50, 99))
    numbers = [made / took, p50, p99, before, resident()]
    row = [side, given.workers, f"{rate:.3f}", f"{took:.1f}", taken.sent, made, taken.dropped]
    csv.writer(sys.stdout).writerow([*row, *(f"{n:.3f}" for n in numbers), given.steps])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default=str(ROOT / "runtime" / "engines" / "bundled"))
    parser.add_argument("--defect", default="crack")
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--share", type=float, default=0.8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--side", choices=SIDES)
    given = parser.parse_args()
    if given.side:
        given.workers = int(given.workers)
        measure(given.side, given)
        sys.stdout.flush()
        os._exit(0)  # the workers wait for more
    csv.writer(sys.stdout).writerow(FIELDS)
    sys.stdout.flush()
    for workers in given.workers.split(","):
        for side in SIDES:
            words = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--workers", workers]
            subprocess.run(words, check=True)


if __name__ == "__main__":
    main()
