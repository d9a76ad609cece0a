"""The service answers generated requests as its OpenAPI schema declares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
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

ALL = list(HealthCheck)

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


def test_answers_are_as_declared(described: Any) -> None:  # noqa: ANN401  # untyped
    """No status 5xx; status, media type and fields are declared.

    Half of the requests concern exams, series and findings that exist.
    """
    operations = list(described.include(path_regex="^/api/v1/").get_all_operations())
    assert len(operations) >= 15
    for found in operations:
        operation = found.ok()

        @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=ALL)
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:  # noqa: ANN401  # untyped
            for name, value in (case.path_parameters or {}).items():
                size = len(str(value))
                if size % 2:
                    case.path_parameters[name] = KNOWN[name][size // 2 % len(KNOWN[name])]
            case.call_and_validate(checks=AS_DECLARED)

        check()
