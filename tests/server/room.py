"""Data sets for tests of the reading room's service, and what they ask for."""

from __future__ import annotations

import gzip
import io
import json
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mrknee.exams import PLANES, Dataset, write_labels, write_sides, write_stack
from mrknee.exams.lesions import mask_file
from mrknee.exams.sides import ExamSide
from tests.export.test_onnx import FINDINGS
from tests.server.client import Answer, Served, random_exam

API = "/api/v1"


def write_room(root: Path) -> Path:
    """Writes a data set of two splits: three exams in valid and two in train.

    Exam 0001 has a mask of an ACL tear in all series, exam 0003 lacks the coronal series, and the
    id of one exam of train needs escaping in addresses.
    """
    ids = {"valid": ["0001", "0002", "0003"], "train": ["0004", "Knie <5> 100%"]}
    for split, names in ids.items():
        for number, exam_id in enumerate(names):
            exam = random_exam(10 * len(split) + number, (3, 4, 5))
            for plane, stack in exam.stacks.items():
                if (exam_id, plane) != ("0003", "coronal"):
                    write_stack(root / split, plane, exam_id, stack)
        for position, finding in enumerate(FINDINGS):
            labels = {name: float((k >> position) % 2 == 0) for k, name in enumerate(names)}
            if finding == "meniscus":
                labels[names[0]] = np.nan
            write_labels(root, split, finding, labels)
    exams = Dataset.of_split(root, "valid", allow_missing_plane=True)
    for plane in PLANES:
        mask = np.zeros_like(exams["0001"].stacks[plane])
        mask[1, 10:20, 5:9] = 1
        path = mask_file(exams, "acl", plane, "0001")
        write_stack(path.parents[1], plane, "0001", mask)
    write_sides(root, {"0001": ExamSide("right", True), "0002": ExamSide(None, False)})
    return root


def wait_until_scored(service: Served) -> None:
    """Waits until no exam of the work list is waiting."""
    for _ in range(600):
        progress = get(service, "/progress")
        if progress["scored"] + progress["failed"] == progress["total"]:
            return
        time.sleep(0.05)
    raise AssertionError(progress)


def get(service: Served, path: str) -> Any:  # noqa: ANN401  # JSON
    """Returns the JSON of an address below /api/v1."""
    answer = service.ask("GET", API + path)
    assert answer.status == 200, answer.body
    return answer.json


def problem(answer: Answer, status: int) -> dict[str, Any]:
    """Returns the error of /api/v1, checked to have its documented form."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    found: dict[str, Any] = json.loads(answer.body)
    texts = {"type", "title", "detail", "code", "field", "expected", "found", "advice"}
    assert set(found) == texts | {"status", "request_id"}
    assert found["status"] == status
    assert found["type"] == f"urn:mrknee:error:{found['code']}"
    assert found["request_id"] == answer.headers["X-Request-ID"]
    return found


def array(answer: Answer, shape: tuple[int, ...], dtype: str = "u1") -> np.ndarray:
    """Returns the array of a binary response, unpacked if it is compressed."""
    assert answer.status == 200, answer.body
    body = answer.body
    if answer.headers["Content-Encoding"] == "gzip":
        body = gzip.decompress(body)
    return np.frombuffer(body, dtype).reshape(shape)


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Returns a zip with the given files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in files.items():
            archive.writestr(name, file)
    return content.getvalue()
