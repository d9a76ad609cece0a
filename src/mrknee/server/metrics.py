"""Prometheus metrics of the service; they contain nothing about exams or clients."""

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

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Content type of Prometheus's text format."""

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Upper limits of the histogram bins: from a page without an exam to a full queue."""


class Metrics:
    """Metrics of one service, in a separate registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "mrknee_requests", "responses", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "mrknee_request_seconds",
            "time from the request's head to the end of the response",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._startup = Gauge(
            "mrknee_startup_seconds",
            "time from opening the model to listening",
            registry=self._registry,
        )
        self._model = Gauge(
            "mrknee_model",
            "always 1; the labels identify the model and the version",
            ["digest", "version"],
            registry=self._registry,
        )

    def add_gauge(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Adds a gauge that is computed whenever the metrics are read.

        Args:
            name: name without the prefix `mrknee_`.
            what: help text.
            value: returns the current value.
        """
        Gauge(f"mrknee_{name}", what, registry=self._registry).set_function(value)

    def set_model(self, digest: str, version: str) -> None:
        """Sets the labels of `mrknee_model`.

        Args:
            digest: digest of the model.
            version: version of mrknee.
        """
        self._model.labels(digest, version).set(1)

    def set_startup(self, seconds: float) -> None:
        """Sets the time from opening the model to listening."""
        self._startup.set(seconds)

    def count_response(self, path: str, status: int, seconds: float) -> None:
        """Counts a response.

        Args:
            path: a path of the service, or "other".
            status: the HTTP status; 499 if the client disconnected.
            seconds: duration of the request.
        """
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """Returns all metrics in Prometheus's text format."""
        return generate_latest(self._registry)
