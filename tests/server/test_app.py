"""Responses of each path, and refused requests."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from mrknee import __version__
from mrknee.cli import main
from mrknee.exams import PLANES, Exam, Plane, write_stack
from mrknee.inference.model import load_model
from mrknee.metrics.predictions import Predictions
from mrknee.notice import RESEARCH_USE_ONLY
from mrknee.server import uploads
from mrknee.server.limits import DEFAULT_LIMITS
from mrknee.server.schemas import Explained, ModelFacts, Prediction
from tests.server.client import BOUNDARY, KIND, NO_POINT, Served, exam_form, form, npy, random_exam

pytestmark = pytest.mark.slow

Which = Callable[[str], tuple[Served, Path]]

STACK = np.zeros((2, 9, 9), np.uint8)


@pytest.fixture
def which(served: Served, lenient: Served, onnx_file: Path, run_folder: Path) -> Which:
    """Returns a service and its model by kind."""
    return lambda kind: (served, onnx_file) if kind == "onnx" else (lenient, run_folder)


@pytest.mark.parametrize("kind", ["onnx", "run"])
def test_predictions_equal_those_of_the_command(which: Which, kind: str, tmp_path: Path) -> None:
    """For both kinds of model, probabilities equal those of `mrknee predict` to 1e-6."""
    service, model = which(kind)
    exams = [random_exam(1), random_exam(2, (1, 17, 2))]
    for exam in exams:
        for plane, stack in exam.stacks.items():
            write_stack(tmp_path / "exams", plane, exam.id, stack)
    out = tmp_path / "predictions.csv"
    assert main(["predict", str(model), str(tmp_path / "exams"), "--out", str(out)]) == 0
    table = Predictions.read(out)
    for exam, expected in zip(exams, table.probabilities, strict=True):
        answer = service.predict(exam)
        assert answer.status == 200
        found = Prediction.model_validate(answer.json)
        assert found.order == list(table.findings) == list(found.findings)
        numbers = [found.findings[name].probability for name in found.order]
        np.testing.assert_allclose(numbers, expected, rtol=0, atol=1e-6)
        assert found.model == model.name
        assert found.calibrated
        assert found.missing_series == []
        assert found.notice == RESEARCH_USE_ONLY


def test_thresholds_are_applied_to_the_probability(served: Served) -> None:
    """A finding is positive at or above the threshold; without a threshold, the reason is given."""
    calls = set()
    for seed in range(3):
        for finding in served.predict(random_exam(seed)).json["findings"].values():
            call, none = finding["calls"]
            assert (call["rule"], call["threshold"], call["reason"]) == ("Youden", 0.5, None)
            assert call["positive"] == (finding["probability"] >= 0.5)
            calls.add(call["positive"])
            assert none["rule"] == "sensitivity >= 0.90"
            assert (none["threshold"], none["positive"], none["reason"]) == (None, None, NO_POINT)
    assert calls == {True, False}


@pytest.mark.parametrize("kind", ["onnx", "run"])
def test_explanations_equal_those_of_the_command(which: Which, kind: str, tmp_path: Path) -> None:
    """/explain returns the content of explanation.json of `mrknee explain`, numbers to 1e-5."""
    service, model = which(kind)
    exam = random_exam(3)
    for plane, stack in exam.stacks.items():
        write_stack(tmp_path / "exams", plane, "upload", stack)
    words = ["explain", str(model), str(tmp_path / "exams"), "--exam", "upload"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    expected = json.loads((tmp_path / "out" / "explanation.json").read_text())
    answer = service.ask("POST", "/explain", exam_form(exam))
    assert answer.status == 200
    Explained.model_validate(answer.json)
    own = {"model": model.name, "missing_series": [], "notice": RESEARCH_USE_ONLY}
    found = answer.json
    assert found.pop("request_id") == answer.headers["X-Request-ID"]
    assert found.pop("model_digest") == answer.headers["X-Model-Digest"]
    assert found.pop("mrknee") == __version__
    assert_close(found, expected | own)


def assert_close(found: Any, expected: Any) -> None:  # noqa: ANN401  # JSON
    """Asserts equal JSON, numbers to 1e-5."""
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert_close(found[name], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, float):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    else:
        assert found == expected


def test_model_properties_are_reported(served: Served, onnx_file: Path) -> None:
    """/model returns findings, provenance, decisions, preparation and the limits of a request."""
    model = load_model(onnx_file)
    facts = ModelFacts.model_validate(served.ask("GET", "/model").json)
    assert facts.findings == list(model.findings)
    assert facts.provenance == model.provenance
    assert facts.decisions == model.decisions.to_dict()
    assert facts.preparation.model_dump() == model.preparation.to_dict()
    assert facts.mrknee == __version__
    assert facts.limits.slices == uploads.MAX_SLICES
    assert not facts.limits.missing_series


def test_the_service_describes_itself(served: Served, lenient: Served) -> None:
    """/openapi.json lists the paths, the three files, and the fields of the responses.

    Files are required unless planes may be missing.
    """
    loose = lenient.ask("GET", "/openapi.json").json["paths"]["/predict"]["post"]["requestBody"]
    assert "required" not in loose["content"]["multipart/form-data"]["schema"]
    schema = served.ask("GET", "/openapi.json").json
    methods = {path: list(methods) for path, methods in schema["paths"].items()}
    assert {path: own for path, own in methods.items() if not path.startswith("/api/")} == {
        "/predict": ["post"], "/explain": ["post"],
        "/model": ["get"], "/health": ["get"], "/ready": ["get"], "/metrics": ["get"],
        "/": ["get"], "/upload": ["get"],
    }  # fmt: skip
    for path in ("/predict", "/explain"):
        content = schema["paths"][path]["post"]["requestBody"]["content"]
        assert content["multipart/form-data"]["schema"]["required"] == list(PLANES)
        assert "413" in schema["paths"][path]["post"]["responses"]
    assert set(schema["paths"]["/explain"]["post"]["responses"]["200"]["content"]) == {
        "application/json",
        "text/html",
    }
    assert set(Prediction.model_fields) == set(schema["components"]["schemas"]["Prediction"]["properties"])  # fmt: skip # noqa: E501


@pytest.mark.parametrize("accept", ["*/*", "", "application/json", "text/html;q=0.1, application/json", "text/html;q=x"])  # fmt: skip # noqa: E501
def test_json_is_returned_unless_html_is_preferred(served: Served, accept: str) -> None:
    """HTML is returned only if Accept names text/html and does not prefer JSON."""
    answer = served.ask("POST", "/explain", exam_form(random_exam(4)), accept=accept)
    assert answer.json["exam"] == "upload"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/docs", 404), ("GET", "/redoc", 404), ("GET", "/nothing", 404),
        ("POST", "/predict/", 404), ("GET", "/predict", 405), ("PUT", "/explain", 405),
        ("POST", "/", 405), ("DELETE", "/model", 405), ("GET", "/../../etc/passwd", 404),
    ],
)  # fmt: skip
def test_unknown_paths_and_methods_are_refused(
    served: Served, method: str, path: str, status: int
) -> None:
    """The response is a JSON error that lists the valid paths."""
    answer = served.ask(method, path, None if method == "GET" else b"")
    assert answer.status == status
    assert "/predict" in answer.fault["expected"]


def test_browsers_are_asked_not_to_store_responses(served: Served) -> None:
    """Every response, including errors, has no-store and nosniff, and no Server header."""
    pages = [served.ask("GET", path) for path in ("/upload", "/x")]
    for answer in (served.predict(random_exam(1)), *pages):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] is None


def three(**changes: bytes | None) -> bytes:
    """Returns a form of three valid stacks, with the given ones replaced or (None) omitted."""
    contents: dict[str, bytes | None] = {str(p): npy(STACK) for p in PLANES}
    contents.update(changes)
    return form([(n, f"DOE {n}.npy", c) for n, c in contents.items() if c is not None])


HUGE = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (9999999, 9999, 9999), }".ljust(117) + b"\n"  # fmt: skip # noqa: E501

HOSTILE: dict[str, tuple[bytes, int, str | None, str]] = {
    "no stack": (three(axial=b"GIF89a, not an array"), 422, "axial", "not a .npy file"),
    "empty": (three(axial=b""), 422, "axial", "not a .npy file"),
    "pickled": (three(coronal=npy(np.array([print], object))), 422, "coronal", "pickled"),
    "truncated": (three(sagittal=npy(STACK)[:-1]), 422, "sagittal", "truncated"),
    "too long": (three(axial=npy(STACK) + b"x"), 422, "axial", "too long"),
    "promises": (three(axial=HUGE), 422, "axial", "truncated"),
    "rank 2": (three(axial=npy(STACK[0])), 422, "axial", "wrong shape"),
    "rows first": (
        three(axial=npy(np.ones((48, 48, 5), np.uint8))), 422, None, "another order"
    ),
    "no slice": (three(axial=npy(STACK[:0])), 422, "axial", "wrong shape"),
    "text": (three(axial=npy(np.full((2, 2, 2), "a"))), 422, "axial", "can't hold grey values"),
    "NaN": (three(axial=npy(np.full((2, 2, 2), np.nan))), 422, "axial", "NaN or infinite"),
    "many slices": (three(axial=npy(np.zeros((uploads.MAX_SLICES + 1, 1, 1), np.uint8))), 422, "axial", "larger than the service accepts"),  # noqa: E501
    "wide": (three(axial=npy(np.zeros((1, 1, uploads.MAX_SIDE + 1), np.uint8))), 422, "axial", "larger than the service accepts"),  # noqa: E501
    "many pixels": (three(axial=npy(np.zeros((23, 1024, 1024), np.uint8))), 422, None, "larger than the service accepts"),  # noqa: E501
    "two planes": (three(sagittal=None), 422, "sagittal", "lacks a series"),
    "nothing": (form([]), 422, "axial", "lacks a series"),
    "unnamed files": (form([(p, "", b"") for p in PLANES]), 422, "axial", "lacks a series"),
    "another field": (three(knee=npy(STACK)), 422, "knee", "not a series of the model"),
    "text field": (form([("axial", None, b"0001.npy")]), 422, "axial", "text instead of a file"),
    "a plane twice": (form([("axial", "a", npy(STACK))] * 2), 422, "axial", "twice"),
    "two names of a plane": (three(Axial=npy(STACK)), 422, "Axial", "twice"),
    "many files": (form([("axial", "a", b"")] * 50), 400, None, "form can't be read"),
    "many fields": (form([("x", None, b"")] * 50), 400, None, "form can't be read"),
    "long text": (form([("axial", None, b"a" * 100_000)]), 400, None, "form can't be read"),
    "no name": (f"--{BOUNDARY}\r\nContent-Disposition: form-data\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode(), 400, None, "form can't be read"),  # noqa: E501
    "no form": (b"\x00\xff" * 500, 400, None, "form can't be read"),
    "another edge": (three().replace(BOUNDARY.encode(), b"another"), 400, None, "form can't be read"),  # noqa: E501
    "no body": (b"", 400, None, "form can't be read"),
    "too large": (three(axial=bytes(DEFAULT_LIMITS.body_bytes)), 413, None, "too large"),
}  # fmt: skip


@pytest.mark.parametrize("path", ["/predict", "/explain"])
@pytest.mark.parametrize("case", list(HOSTILE))
def test_hostile_uploads_are_refused_with_a_clear_error(
    served: Served, path: str, case: str
) -> None:
    """The error has the expected status, message and field, and no file remains on the disk."""
    body, status, field, words = HOSTILE[case]
    answer = served.ask("POST", path, body)
    assert answer.status == status
    assert answer.fault["field"] == field
    assert words in answer.fault["what"]
    assert served.left == []


def test_an_incomplete_form_is_refused(served: Served) -> None:
    """A form cut at any length is refused."""
    whole = three()
    for length in {*range(0, len(whole) - 4, 37), len(whole) - 4, len(whole) - 3}:
        answer = served.ask("POST", "/predict", whole[:length])
        assert answer.status == 400, length
        assert answer.fault["what"] == "the form can't be read"


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/x-www-form-urlencoded", "", "text/plain", "multipart/mixed"],
)
def test_other_content_types_are_refused(served: Served, kind: str) -> None:
    """The status is 415, and the advice shows how to send a form."""
    answer = served.ask("POST", "/predict", b"axial=0001.npy", kind)
    assert answer.status == 415
    assert "-F axial=@" in answer.fault["advice"]


def test_synonyms_of_plane_names_are_accepted(served: Served) -> None:
    """Case and synonyms of plane names don't matter, and text after the form's end is ignored."""
    usual = served.ask("POST", "/predict", three())
    names = form([(name, "a.npy", npy(STACK)) for name in ("TRA", "Coronal", "sag")])
    for body in (names, three() + b"\r\n\r\n", three() + b"an epilogue\r\n"):
        answer = served.ask("POST", "/predict", body)
        assert answer.status == 200
        assert answer.json["findings"] == usual.json["findings"]


def test_a_compressed_body_is_refused(served: Served) -> None:
    """The error reports the compression, not an incomplete form."""
    headers = {"Content-Encoding": "gzip"}
    answer = served.ask("POST", "/predict", gzip.compress(three()), headers=headers)
    assert answer.status == 415
    assert "compressed" in answer.fault["what"]
    assert answer.fault["found"] == "Content-Encoding: gzip"


@pytest.mark.parametrize(
    ("kind", "body", "found"),
    [
        ("multipart/form-data", three(), "no boundary in the header Content-Type"),
        ("multipart/form-data; boundary=", three(), "no boundary in the header Content-Type"),
        (KIND, b"", "an empty body"),
        (KIND, three()[:-9], "an incomplete form"),
    ],
)
def test_the_error_states_why_a_form_is_unreadable(
    served: Served, kind: str, body: bytes, found: str
) -> None:
    """A missing boundary, an empty body and an incomplete body have different messages."""
    answer = served.ask("POST", "/predict", body, kind)
    assert (answer.status, answer.fault["found"]) == (400, found)


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 999, KIND + "; charset=rot13", KIND + "; charset=undefined", 'multipart/form-data; boundary="\xe9"'])  # fmt: skip # noqa: E501
def test_unusual_content_types_do_not_cause_internal_errors(served: Served, kind: str) -> None:
    """A missing or long boundary or an unknown charset never causes status 500."""
    answer = served.ask("POST", "/predict", three(), kind)
    assert answer.status == 200 if "charset" in kind else answer.status in (200, 400, 422)
    if answer.status != 200:
        assert answer.fault["what"]


def test_a_missing_plane_is_accepted_if_allowed(lenient: Served, run_folder: Path) -> None:
    """Probabilities equal predict's, missing series are listed, an empty form is refused."""
    whole = random_exam(5)
    exam = Exam("5", {plane: whole.stacks[plane] for plane in (Plane.AXIAL, Plane.SAGITTAL)})
    answer = lenient.predict(exam)
    assert answer.json["missing_series"] == ["coronal"]
    expected = load_model(run_folder).predict([exam]).probabilities[0]
    found = [one["probability"] for one in answer.json["findings"].values()]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    page = lenient.ask("POST", "/explain", exam_form(exam), accept="text/html")
    assert "This exam has no coronal series" in page.body.decode()
    assert lenient.ask("POST", "/predict", form([])).status == 422


@pytest.mark.parametrize("dtype", ["int16", "float64", ">u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_other_numeric_types_are_read_as_by_predict(
    served: Served, onnx_file: Path, tmp_path: Path, dtype: str, order: Literal["C", "F"]
) -> None:
    """Other numeric types and memory orders give the same probabilities as `mrknee predict`."""
    rng = np.random.default_rng(1)
    stacks = {p: np.asarray(rng.integers(0, 900, (3, 40, 50)).astype(dtype), order=order) for p in PLANES}  # fmt: skip # noqa: E501
    for plane, stack in stacks.items():
        (tmp_path / "exams" / plane).mkdir(parents=True)
        np.save(tmp_path / "exams" / plane / "0001.npy", stack)
    answer = served.ask("POST", "/predict", three(**{str(p): npy(s) for p, s in stacks.items()}))
    out = tmp_path / "p.csv"
    assert main(["predict", str(onnx_file), str(tmp_path / "exams"), "--out", str(out)]) == 0
    found = [one["probability"] for one in answer.json["findings"].values()]
    np.testing.assert_allclose(found, Predictions.read(out).probabilities[0], rtol=0, atol=1e-6)
