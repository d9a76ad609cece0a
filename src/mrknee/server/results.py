"""Results of exams, computed once per content of an exam and kept in memory of limited size.

- `Results`: predictions, explanations, and predictions without parts of an exam, for requests.
- `Scoring`: scores the work list while no request is processed.

Used from one event loop; models are computed in the thread of the request queue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32
from starlette.requests import ClientDisconnect

from mrknee.errors import MrkneeError, RequestError
from mrknee.inference.ablation import Ablation
from mrknee.server import schemas
from mrknee.server.api_schemas import ExamExplained, SeriesMap, WhatIf, WhatIfResult
from mrknee.server.exam_reader import ExamReader
from mrknee.server.lru import LeastRecentlyUsed
from mrknee.server.read_exam import ReadExam
from mrknee.server.refusal import RefusalError, as_refusal, print_error
from mrknee.server.request_queue import RequestQueue, retrieve
from mrknee.server.service import Service, refusal_of
from mrknee.server.uploads import Received
from mrknee.server.worklist import Entry, WorkList
from mrknee.transforms.settings import PreparationSettings

KEPT_PREDICTIONS = 20_000
"""Number of predictions kept; each has about 5 kB."""

KEPT_EXPLANATION_BYTES = 128_000_000
"""Memory for the heat maps of explanations."""

KEPT_FEATURE_BYTES = 256_000_000
"""Memory for feature maps of exams for `what_if`: about 10 exams of EfficientNet-Lite0, 60 of
AlexNet."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class StoredExplanation:
    """An explanation without the exam's stacks.

    Attributes:
        content: the response, with an empty request id.
        maps: series -> contribution of each cell to each finding, in the model's order.
    """

    content: ExamExplained
    maps: Mapping[str, Float32[np.ndarray, "findings _ _ _"]]

    @property
    def size(self) -> int:
        """Bytes of the maps."""
        return sum(each.nbytes for each in self.maps.values())


@dataclass(eq=False)
class _Running:
    future: Future[Any]
    waiting: int = 0


class Results:
    """Predictions and explanations of exams of the work list.

    Requests for the same result share one computation. If all their clients disconnect before it
    starts, it is cancelled.

    Args:
        service: computes the results.
        queue: the queue of exams.
    """

    def __init__(self, service: Service, queue: RequestQueue) -> None:
        self._service, self._queue = service, queue
        self._predictions = LeastRecentlyUsed[schemas.Prediction](KEPT_PREDICTIONS, lambda _: 1)
        self._explanations = LeastRecentlyUsed[StoredExplanation](
            KEPT_EXPLANATION_BYTES, lambda one: one.size
        )
        self._ablations = LeastRecentlyUsed[Ablation](KEPT_FEATURE_BYTES, lambda one: one.size)
        self._running: dict[Hashable, _Running] = {}

    async def prediction(
        self, entry: Entry, read: ReadExam, disconnected: Callable[[], Awaitable[None]]
    ) -> schemas.Prediction:
        """Returns the prediction of an exam, and stores it in the work list.

        Args:
            entry: the exam.
            read: its stacks.
            disconnected: returns when the client disconnects.

        Raises:
            RefusalError: the queue is full, the exam lacks a series, or the model failed.
            ClientDisconnect: the client disconnected.
        """
        found = self._predictions.get(read.digest)
        if found is None:
            refuse_missing(self._service, read)
            work = self._predict(read)
            found = await self._shared(
                ("prediction", read.digest),
                work,
                lambda done: self._predictions.put(read.digest, done),
                disconnected,
            )
        self._store(entry, found)
        return found

    async def predict_when_idle(self, entry: Entry, read: ReadExam) -> None:
        """Predicts an exam once no request is processed, and stores it in the work list.

        Raises:
            RefusalError: the exam lacks a series, or the model failed.
        """
        found = self._predictions.get(read.digest)
        if found is None:
            refuse_missing(self._service, read)
            found = await self._queue.process_when_idle(self._predict(read))
            self._predictions.put(read.digest, found)
        self._store(entry, found)

    def _store(self, entry: Entry, found: schemas.Prediction) -> None:
        entry.state, entry.problem = "scored", None
        entry.probabilities = {name: one.probability for name, one in found.findings.items()}
        entry.remarks = tuple(dict.fromkeys(remark.code for remark in found.remarks))

    def _predict(self, read: ReadExam) -> Callable[[], schemas.Prediction]:
        received = Received(read.exam, read.digests)
        return lambda: self._service.predict(received, "").content

    async def explanation(
        self, read: ReadExam, disconnected: Callable[[], Awaitable[None]]
    ) -> StoredExplanation:
        """Returns the explanation of an exam; arguments and errors as of `prediction`.

        Raises:
            RefusalError: also if the model can't be explained.
            ClientDisconnect: the client disconnected.
        """
        found = self._explanations.get(read.digest)
        if found is None:
            refuse_missing(self._service, read)
            if not self._service.model.explainable:
                fault = RequestError(
                    "the model's predictions can't be explained",
                    code="not-explainable",
                    expected="a model without a transformer over slices, or an ensemble whose "
                    "members have the same size and crop",
                    advice="GET /api/v1/model states `explainable`",
                )
                raise RefusalError(409, fault)
            service, exam = self._service, read.exam

            def work() -> StoredExplanation:
                explanation = service.explanation(exam)
                content = ExamExplained(
                    **service.origin(exam, ""),
                    **explanation.description(),
                    maps={
                        name: series_map(
                            explanation.preparation, explanation.shapes[name], native.shape[1:]
                        )
                        for name, native in explanation.native.items()
                    },
                    cell_scale=max(
                        float(np.abs(native).max()) for native in explanation.native.values()
                    ),
                )
                return StoredExplanation(content, explanation.native)

            found = await self._shared(
                ("explanation", read.digest),
                work,
                lambda done: self._explanations.put(read.digest, done),
                disconnected,
            )
        return found

    async def what_if(
        self, read: ReadExam, asked: WhatIf, disconnected: Callable[[], Awaitable[None]]
    ) -> WhatIfResult:
        """Predicts an exam without some series or slices; errors as of `prediction`.

        The features of the exam are computed at the first request and kept.

        Args:
            read: the stacks of the exam.
            asked: what to leave out.
            disconnected: returns when the client disconnects.
        """
        refuse_missing(self._service, read)
        model = self._service.model
        known = self._ablations.get(read.digest)
        slices = {name: frozenset(indices) for name, indices in asked.without_slices.items()}

        def work() -> tuple[Ablation, WhatIfResult]:
            try:
                ablation = known or model.ablation(read.exam)
                found = ablation.without(asked.without_series, slices)
            except MrkneeError as fault:
                raise refusal_of(fault) from fault
            return ablation, WhatIfResult(
                logits=dict(zip(model.findings, found.logits.tolist(), strict=True)),
                probabilities=dict(zip(model.findings, found.probabilities.tolist(), strict=True)),
                origin=ablation.origin,
            )

        key = ("what-if", read.digest, asked.model_dump_json())
        _, result = await self._shared(
            key, work, lambda done: self._ablations.put(read.digest, done[0]), disconnected
        )
        return result

    async def _shared(
        self,
        key: Hashable,
        work: Callable[[], Result],
        store: Callable[[Result], None],
        disconnected: Callable[[], Awaitable[None]],
    ) -> Result:
        """Waits for the computation of a result; starts it if it is not running."""
        running = self._running.get(key)
        if running is None:
            started = running = self._running[key] = _Running(self._queue.submit(work))

            def end(answer: asyncio.Future[Result]) -> None:
                self._forget(key, started)
                if not answer.cancelled() and answer.exception() is None:
                    store(answer.result())

            asyncio.wrap_future(running.future).add_done_callback(end)
        running.waiting += 1
        answer: asyncio.Future[Result] = asyncio.wrap_future(running.future)
        leaving = asyncio.ensure_future(disconnected())
        try:
            both: list[asyncio.Future[Any]] = [answer, leaving]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            answer.add_done_callback(retrieve)
            raise ClientDisconnect
        finally:
            leaving.cancel()
            running.waiting -= 1
            if not running.waiting and running.future.cancel():  # not once the work has started
                self._forget(key, running)

    def _forget(self, key: Hashable, running: _Running) -> None:
        """Removes a computation, unless another one has taken its place."""
        if self._running.get(key) is running:
            del self._running[key]


def refuse_missing(service: Service, read: ReadExam) -> None:
    """Refuses an exam that lacks series of the model, unless that is allowed.

    Raises:
        RefusalError: the exam lacks a series.
    """
    needed = service.model.trained.names
    missing = [name for name in needed if name not in read.exam.stacks]
    nothing = len(missing) == len(needed)
    if not missing or (service.allow_missing_plane and not nothing):
        return
    fault = RequestError(
        "the exam lacks a series",
        code="missing-plane",
        expected=", ".join(needed),
        found=", ".join(read.exam.stacks),
        advice=None if nothing else "start the service with --allow-missing-plane",
    )
    raise RefusalError(422, fault, field=missing[0])


def series_map(
    preparation: PreparationSettings, stack: tuple[int, ...], cells: tuple[int, ...]
) -> SeriesMap:
    """Returns where a heat map lies in its stack.

    Args:
        preparation: preprocessing of the stack.
        stack: (slices, rows, cols) of the stack.
        cells: (slices, map rows, map cols) of the heat map.
    """
    _, rows, cols = stack
    up, over = preparation.axes(rows, cols)
    top, left = up.start * rows / up.scaled, over.start * cols / over.scaled
    height, width = preparation.crop * rows / up.scaled, preparation.crop * cols / over.scaled
    return SeriesMap(
        slices=cells[0],
        rows=cells[1],
        cols=cells[2],
        top=top,
        left=left,
        height=height,
        width=width,
        slices_read=preparation.slices_read(stack[0]),
    )


class Scoring:
    """Scores the exams of the work list, one at a time, while no request is processed.

    Args:
        work_list: the exams.
        reader: reads their stacks.
        results: computes and stores the predictions.
    """

    def __init__(self, work_list: WorkList, reader: ExamReader, results: Results) -> None:
        self._work_list, self._reader, self._results = work_list, reader, results
        self._more = asyncio.Event()
        self._scored, self._seconds = 0, 0.0

    def notify(self) -> None:
        """Reports that exams were added to the work list."""
        self._more.set()

    @property
    def seconds_left(self) -> float | None:
        """Estimated time to score the rest; None before the first exam."""
        waiting = self._work_list.count("waiting")
        if not waiting:
            return 0.0
        return waiting * self._seconds / self._scored if self._scored else None

    async def run(self) -> None:
        """Scores all exams, and those that are added later, until cancelled."""
        while True:
            entry = self._work_list.next_waiting()
            if entry is None:
                self._more.clear()
                await self._more.wait()
                continue
            began = time.perf_counter()
            try:
                read = await self._reader.read(entry, keep=False)
                await self._results.predict_when_idle(entry, read)
            except Exception as error:
                refusal = as_refusal(error)
                if refusal.status == 500:
                    print_error(error)
                if refusal.status == 503:  # too many requests read files
                    self._work_list.requeue(entry)
                    await asyncio.sleep(1)
                    continue
                entry.state, entry.problem = "failed", refusal.fault
            self._scored += 1
            self._seconds += time.perf_counter() - began
