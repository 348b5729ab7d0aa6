"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one service, in a registry of its own."""

    def __init__(self, waiting: Callable[[], float], rows: Callable[[], float]) -> None:
        """``waiting`` and ``rows`` are asked whenever somebody looks."""
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "defectrt_requests",
            "Requests that were answered, by path and status.",
            ["path", "status"],
            registry=self._registry,
        )
        self.samples = Counter(
            "defectrt_samples",
            "Samples: made, without a defect, or given up by whoever asked.",
            ["end"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "defectrt_sample_seconds",
            "From a sample's being taken in to its end.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        for name, text, function in (
            ("defectrt_waiting", "Samples that are under way or wait.", waiting),
            ("defectrt_rows", "Rows that went through the engines.", rows),
        ):
            Gauge(name, text, registry=self._registry).set_function(function)

    def text(self) -> bytes:
        """All of them, in Prometheus' form."""
        return generate_latest(self._registry)
