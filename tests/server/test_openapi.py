"""The service answers generated requests as its OpenAPI schema declares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS, load_all_checks

from mrknee.exams import PLANES
from tests.export.test_onnx import FINDINGS
from tests.server.client import Served
from tests.server.room import get

pytestmark = pytest.mark.slow

load_all_checks()

AS_DECLARED = CHECKS.get_by_names(
    [
        *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
        "response_schema_conformance",
    ]
)

KNOWN: dict[str, list[Any]] = {
    "key": ["knees~valid~0001", "knees~valid~0003"],
    "series": list(PLANES),
    "finding": list(FINDINGS),
    "index": [0, 2],
    "sha256": [""],  # that of the first exam
}
"""Path parameters that lead somewhere; generated ones alone would only lead to 404."""


@pytest.fixture(scope="module")
def described(
    onnx_file: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """The schema of a service with exams and notes."""
    folder = tmp_path_factory.mktemp("described")
    words = ("--exams", str(data), "--notes", str(folder / "notes.sqlite"))
    with Served(onnx_file, folder / "served", *words) as service:
        KNOWN["sha256"] = [get(service, "/exams/knees~valid~0001")["series"][0]["sha256"]]
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json")
        assert service.ask("GET", "/health").status == 200
        assert service.end() == 0
        assert service.stderr == ""


schema = schemathesis.pytest.from_fixture("described")


@schema.include(path_regex="^/api/v1/").parametrize()  # type: ignore[untyped-decorator]
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_declared(case: schemathesis.Case) -> None:
    """No status 5xx; status, media type and fields are declared.

    Half of the requests concern exams, series and findings that exist.
    """
    for name, given in (case.path_parameters or {}).items():
        size = len(str(given))
        if size % 2:
            case.path_parameters[name] = KNOWN[name][size // 2 % len(KNOWN[name])]
    case.call_and_validate(checks=AS_DECLARED)
