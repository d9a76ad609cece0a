"""What the service counts, for Prometheus: numbers only, nothing of an exam or a client."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

KIND = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of Prometheus's text format."""

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Upper ends of the histogram's bins: from a page without an exam to a full queue."""


class Metrics:
    """The counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "mrknee_requests", "answers", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "mrknee_request_seconds",
            "from a request's head to the head of its answer",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._startup = Gauge(
            "mrknee_startup_seconds",
            "from opening the model to listening",
            registry=self._registry,
        )
        self._model = Gauge(
            "mrknee_model", "1, with what is served", ["digest", "version"], registry=self._registry
        )

    def gauge(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A number that is asked for whenever metrics are.

        Args:
            name: what it is called, without the prefix `mrknee_`.
            what: what it counts.
            value: gives it.
        """
        Gauge(f"mrknee_{name}", what, registry=self._registry).set_function(value)

    def serves(self, digest: str, version: str) -> None:
        """Notes what is served.

        Args:
            digest: of the model.
            version: of the program.
        """
        self._model.labels(digest, version).set(1)

    def started(self, seconds: float) -> None:
        """Notes how long it took to open the model and to listen."""
        self._startup.set(seconds)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Counts an answer.

        Args:
            path: one of the service's addresses, or "other".
            status: the HTTP status; 499 where the client went away.
            seconds: how long it took.
        """
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self._registry)
