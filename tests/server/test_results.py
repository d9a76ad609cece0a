"""Results of the work list inside the application: shared computations and background scoring."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from mrknee.exams import write_stack
from mrknee.server.app import create_app
from mrknee.server.limits import DEFAULT_LIMITS
from mrknee.server.service import Service
from mrknee.server.worklist import WorkList
from tests.server.client import random_exam
from tests.server.room import API
from tests.server.test_inside import WaitingModel, ask

PLACES = DEFAULT_LIMITS.max_waiting

PATH = API + "/exams/knees~valid~000{}/prediction"


@pytest.fixture
def work_list(data: Path) -> WorkList:
    """The exams of a data set."""
    exams = WorkList()
    exams.add_data_set(data)
    return exams


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[None]:
    """Runs the application's background work, as a server does."""
    messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    started = asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        assert message["type"].endswith(".complete"), message
        started.set()

    messages.put_nowait({"type": "lifespan.startup"})
    scope = {"type": "lifespan"}
    serving = asyncio.ensure_future(app(scope, messages.get, send))  # type: ignore[arg-type]
    await started.wait()
    yield
    messages.put_nowait({"type": "lifespan.shutdown"})
    await serving


async def begun(model: WaitingModel) -> None:
    """Waits until the model computes."""
    assert await asyncio.to_thread(model.begun.wait, 60)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits for a condition."""
    for _ in range(2000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition is not met")


async def in_flight(app: ASGIApp) -> int:
    """Returns the number of exams waiting or being processed."""
    _, text = await ask(app, "GET", "/metrics")
    line = next(one for one in text.decode().splitlines() if one.startswith("mrknee_exams "))
    return int(float(line.split()[1]))


def test_requests_for_one_result_share_a_computation(onnx_file: Path, work_list: WorkList) -> None:
    """Many requests for one exam take one place and are computed once."""
    model = WaitingModel(onnx_file)
    app = create_app(Service(model, "m"), work_list=work_list)

    async def meet() -> None:
        path = PATH.format(1)
        many = [asyncio.create_task(ask(app, "GET", path)) for _ in range(2 * PLACES)]
        await begun(model)
        assert await in_flight(app) == 1
        model.allowed.set()
        answers = await asyncio.gather(*many)
        assert [status for status, _ in answers] == [200] * len(many)
        assert len({json.dumps(json.loads(body)["findings"]) for _, body in answers}) == 1
        assert (await ask(app, "GET", path))[0] == 200
        assert model.reading.count(1) == 1

    asyncio.run(meet())


def test_a_result_that_nobody_waits_for_is_not_computed(
    onnx_file: Path, work_list: WorkList
) -> None:
    """A waiting computation is cancelled when its last client disconnects, and can be repeated."""
    model = WaitingModel(onnx_file)
    app = create_app(Service(model, "m"), work_list=work_list)

    async def meet() -> None:
        first = asyncio.create_task(ask(app, "GET", PATH.format(1)))
        await begun(model)
        one, other = asyncio.Event(), asyncio.Event()
        second = asyncio.create_task(ask(app, "GET", PATH.format(2), one))
        third = asyncio.create_task(ask(app, "GET", PATH.format(2), other))

        async def both() -> bool:
            return await in_flight(app) == 2

        await until(both)
        one.set()
        assert (await second)[0] == 499
        assert await in_flight(app) == 2  # the third still waits
        other.set()
        assert (await third)[0] == 499

        async def alone() -> bool:
            return await in_flight(app) == 1

        await until(alone)
        again = asyncio.create_task(ask(app, "GET", PATH.format(2)))
        model.allowed.set()
        assert (await first)[0] == (await again)[0] == 200
        assert model.reading.count(1) == 2

    asyncio.run(meet())


def test_scoring_waits_for_requests(onnx_file: Path, work_list: WorkList) -> None:
    """A request is computed before the work list, after at most one exam of it."""
    model = WaitingModel(onnx_file)
    app = create_app(Service(model, "m"), work_list=work_list)

    async def meet() -> None:
        async with running(app):
            await begun(model)  # the first exam of the work list
            upload = asyncio.create_task(ask(app, "POST", "/predict"))

            async def waits() -> bool:
                return await in_flight(app) == 1

            await until(waits)
            model.allowed.set()
            assert (await upload)[0] == 200
            # the work list's first exam, the upload, and no more than one that began since
            assert model.reading.count(1) <= 3

            async def done() -> bool:
                _, body = await ask(app, "GET", API + "/progress")
                progress = json.loads(body)
                return bool(progress["scored"] + progress["failed"] == progress["total"] == 5)

            await until(done)
            assert model.most == 1

    asyncio.run(meet())


def test_a_failing_exam_does_not_stop_the_others(
    onnx_file: Path, work_list: WorkList, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exam on which the model fails is marked and reported, and the others are scored."""
    model = WaitingModel(onnx_file)
    model.allowed.set()
    predict = model.predict

    def fail_once(exams: Any) -> Any:  # noqa: ANN401  # as the model's
        if exams[0].id == "0002":
            raise ValueError("DOE^JANE")
        return predict(exams)

    model.predict = fail_once  # type: ignore[method-assign]
    app = create_app(Service(model, "m"), work_list=work_list)

    async def meet() -> list[dict[str, Any]]:
        async with running(app):

            async def done() -> bool:
                _, body = await ask(app, "GET", API + "/progress")
                return bool(json.loads(body)["scored"] == 3)

            await until(done)
            _, body = await ask(app, "GET", API + "/exams")
        rows: list[dict[str, Any]] = json.loads(body)["exams"]
        return rows

    rows = asyncio.run(meet())
    failed = {row["id"]: row["problem"]["code"] for row in rows if row["state"] == "failed"}
    assert failed == {"0002": "internal", "0003": "missing-plane"}
    errors = capsys.readouterr().err
    assert "ValueError" in errors
    assert "DOE" not in errors


def test_a_full_queue_refuses_other_results(onnx_file: Path, tmp_path: Path) -> None:
    """With the maximum number of computations waiting, another one is refused for now."""
    for number in range(PLACES + 1):
        for plane, stack in random_exam(number).stacks.items():
            write_stack(tmp_path / "knees", plane, f"{number}", stack)
    exams = WorkList()
    exams.add_data_set(tmp_path / "knees")
    model = WaitingModel(onnx_file)
    app = create_app(Service(model, "m"), work_list=exams)

    async def meet() -> None:
        paths = [f"{API}/exams/knees~{number}/prediction" for number in range(PLACES + 1)]
        waiting = [asyncio.create_task(ask(app, "GET", path)) for path in paths[:-1]]

        async def full() -> bool:
            return await in_flight(app) == PLACES

        await until(full)
        status, body = await ask(app, "GET", paths[-1])
        assert (status, json.loads(body)["code"]) == (503, "busy")
        model.allowed.set()
        assert [status for status, _ in await asyncio.gather(*waiting)] == [200] * PLACES
        assert (await ask(app, "GET", paths[-1]))[0] == 200

    asyncio.run(meet())
