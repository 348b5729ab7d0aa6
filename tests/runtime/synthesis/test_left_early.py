"""A run that is left early: it lets go of everything at once, and of an engine that hangs."""

from __future__ import annotations

import gc
import signal
import threading
import weakref

import numpy as np
import pytest
from support.fake_engine import FakeEngine

from defectrt.errors import EngineError
from defectrt.synthesis.scheduler import Decode, Scheduler, Task
from defectrt.synthesis.synthesizer import Synthesizer

pytestmark = pytest.mark.slow


class Image(np.ndarray):
    """An image that can be watched."""


@pytest.fixture
def no_collector():
    """Without the collector, what holds itself stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def synthesizer(fake_engine):
    with Synthesizer(engine=fake_engine[0], steps=2, batch_size=1) as synthesizer:
        yield synthesizer


def images(count, seen):
    """Images of which ``seen`` tells whether anybody holds them."""
    for _ in range(count):
        image = np.full((40, 40, 3), 150, np.uint8).view(Image)
        seen.append(weakref.ref(image))
        yield image


@pytest.mark.parametrize("taken", [0, 1, 3, 6], ids="{} taken".format)
def test_a_run_holds_no_image_once_it_is_left(synthesizer, no_collector, taken):
    seen = []
    results = synthesizer.run(images(6, seen))
    for _ in range(taken):
        next(results)
    results.close()
    assert len(seen) >= taken
    assert [image for image in seen if image() is not None] == []


def test_what_was_finished_is_let_go_of_while_the_run_goes_on(synthesizer, no_collector):
    seen, most = [], 0
    for _ in synthesizer.run(images(30, seen)):
        most = max(most, sum(image() is not None for image in seen))
    assert len(seen) == 30
    assert most < 12


class Endless(FakeEngine):
    """An engine whose decoder never returns, unless it is told to stop."""

    def __init__(self):
        super().__init__()
        self.told, self.entered = threading.Event(), threading.Event()

    def decode(self, latent):
        self.entered.set()
        assert self.told.wait(20), "nobody stopped it"
        raise EngineError("stopped")

    def stop(self):
        self.told.set()


def test_ctrl_c_ends_an_engine_that_never_returns():
    engine = Endless()

    def work():
        yield Decode(np.zeros((1, 3, 16, 16), np.float32))

    def press():
        engine.entered.wait()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # as a terminal does

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        list(Scheduler(engine).run([Task(work())]))
    assert engine.told.is_set()
