"""POST /api/v1/uploads: files per series, zips of .npy files and of DICOM files."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrknee.exams import MRNET_SERIES, PLANES, Exam
from mrknee.ranges import Range
from mrknee.server import exam_uploads, limits
from mrknee.server.arrivals import SETTLED_SECONDS, Arrivals, _Arrival
from mrknee.server.dicom_import import import_archive
from mrknee.server.exam_uploads import MAX_UPLOADS, Uploaded
from mrknee.server.limits import DEFAULT_LIMITS, ServiceLimits
from mrknee.server.read_exam import stack_digest, with_digests
from mrknee.server.refusal import RefusalError
from mrknee.server.worklist import UploadedExam
from tests.server.client import Answer, Served, exam_form, form, npy, random_exam
from tests.server.room import API, array, get, problem, wait_until_scored, zipped
from tests.sources.clinical.hospital import PROTOCOL, ROOT, export_study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uploading(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service without data sets; it leaves no files."""
    with Served(onnx_file, tmp_path_factory.mktemp("uploading") / "onnx") as service:
        yield service
        assert service.left == []
        assert service.end() == 0
        assert service.stderr == ""


def upload(service: Served, body: bytes) -> Answer:
    """Sends a form."""
    answer = service.ask("POST", API + "/uploads", body)
    assert service.left == []
    return answer


def upload_zip(service: Served, content: bytes) -> Answer:
    """Sends an archive."""
    return upload(service, form([("archive", "DOE^JANE.zip", content)]))


def members(exam: Exam, folder: str, exam_id: str) -> dict[str, bytes]:
    """Returns the files of an exam in MRNet's layout."""
    return {f"{folder}{n}/{exam_id}.npy": npy(np.asarray(s)) for n, s in exam.stacks.items()}


def stacks_of(service: Served, key: str) -> dict[str, np.ndarray]:
    """Returns the stacks of an exam of the work list."""
    return {
        one["name"]: array(
            service.ask("GET", f"{API}/stacks/{one['sha256']}"),
            (one["slices"], one["rows"], one["cols"]),
        )
        for one in get(service, f"/exams/{key}")["series"]
    }


def test_files_per_series_become_an_exam(uploading: Served) -> None:
    """The exam is in the work list, scored as by /predict, and has the same key if sent again."""
    exam = random_exam(1)
    answer = upload(uploading, exam_form(exam))
    assert answer.status == 201
    assert b"DOE" not in answer.body
    (made,) = answer.json["exams"]
    assert made["key"].startswith("upload~")
    digest = made["key"].removeprefix("upload~")
    assert (made["id"], made["series"]) == (f"upload-{digest[:4]}", list(PLANES))
    assert answer.json["problems"] == []
    for name, stack in stacks_of(uploading, made["key"]).items():
        np.testing.assert_array_equal(stack, exam.stacks[name])
    wait_until_scored(uploading)
    (row,) = [r for r in get(uploading, "/exams")["exams"] if r["key"] == made["key"]]
    expected = uploading.predict(exam).json["findings"]
    for name, probability in row["probabilities"].items():
        np.testing.assert_allclose(probability, expected[name]["probability"], rtol=0, atol=1e-6)
    assert (row["state"], row["labels"], row["data_set"]) == ("scored", None, "upload")
    again = upload(uploading, exam_form(exam)).json["exams"]
    assert again[0]["key"] == made["key"]


def test_a_zip_in_mrnet_s_layout(uploading: Served) -> None:
    """Each complete exam is added; others are reported by name with the reason."""
    first, second = random_exam(2), random_exam(3)
    files = {
        **members(first, "MRNet/valid/", "0001"),
        **members(second, "MRNet/valid/", "0002"),
        "MRNet/valid/axial/0003.npy": npy(first.stacks["axial"]),
        **members(first, "MRNet/valid/", "0004"),
        "MRNet/valid/axial/0004.npy": b"no stack",
        "MRNet/valid/knee/0005.npy": npy(first.stacks["axial"]),
        "MRNet/valid-acl.csv": b"0001,1\n",
        "MRNet/valid/axial/._0001.npy": b"a companion file of macOS",
        **members(first, "MRNet/valid/", "=1+1"),
    }
    answer = upload_zip(uploading, zipped(files))
    assert answer.status == 201
    assert [one["id"] for one in answer.json["exams"]] == ["0001", "0002"]
    for one, exam in zip(answer.json["exams"], (first, second), strict=True):
        for name, stack in stacks_of(uploading, one["key"]).items():
            np.testing.assert_array_equal(stack, exam.stacks[name])
    problems = {one["file"]: one for one in answer.json["problems"]}
    assert {file: one["code"] for file, one in problems.items()} == {
        "MRNet/valid/0003": "missing-plane",
        "MRNet/valid/0004": "not-npy",
        "MRNet/valid/knee/0005.npy": "series-name",
        "MRNet/valid/=1+1": "exam-id",
    }
    assert problems["MRNet/valid/0004"]["field"] == "axial"


def test_a_zip_of_dicom_files(uploading: Served, tmp_path: Path) -> None:
    """The exams are those of Exam.from_dicom, with spacing, orientation and position."""
    frame = {"FrameOfReferenceUID": ROOT + "7"}
    scans = [replace(scan, elements={**scan.elements, **frame}) for scan in PROTOCOL]
    source = export_study(tmp_path / "study", scans=scans)
    files = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in source.rglob("*") if p.is_file()}  # fmt: skip # noqa: E501
    answer = upload_zip(uploading, zipped(files))
    assert answer.status == 201, answer.body
    (made,) = answer.json["exams"]
    expected = Exam.from_dicom(source, allow_missing_plane=True)
    found = get(uploading, "/exams/" + made["key"])
    assert [one["name"] for one in found["series"]] == list(expected.stacks)
    for one in found["series"]:
        assert one["sha256"] == stack_digest(expected.stacks[one["name"]])
        assert all(distance > 0 for distance in one["spacing"])
    orientation = {one["name"]: one["orientation"] for one in found["series"]}
    assert orientation["coronal"] == ["R", "L", "S", "I"]
    assert orientation["sagittal"] == ["A", "P", "S", "I"]
    assert {one["position"]["frame"] for one in found["series"]} == {1}
    assert found["side"] in ("left", "right", None)


def bomb() -> bytes:
    """Returns a zip of 300 kB that unpacks to 300 MB."""
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for plane in PLANES:
            archive.writestr(f"{plane}/0001.npy", bytes(100_000_000))
    return content.getvalue()


def linked() -> bytes:
    """Returns a zip with a symbolic link."""
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        link = zipfile.ZipInfo("axial/0001.npy")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return content.getvalue()


STACK = npy(np.zeros((2, 9, 9), np.uint8))
PICKLED = npy(np.array([{"a": 1}], dtype=object))
HUGE = npy(np.zeros((2, 1025, 9), np.uint8))


def exam_of(content: bytes) -> dict[str, bytes]:
    """Returns the files of an exam whose stacks are all the same file."""
    return {f"{plane}/0001.npy": content for plane in PLANES}


ARCHIVES: dict[str, tuple[bytes, str]] = {
    "bomb": (bomb(), "archive-too-large"),
    "traversal": (zipped({"../axial/0001.npy": STACK}), "archive-unsafe"),
    "absolute": (zipped({"/axial/0001.npy": STACK}), "archive-unsafe"),
    "drive": (zipped({"c:\\axial\\0001.npy": STACK}), "archive-unsafe"),
    "link": (linked(), "archive-unsafe"),
    "no zip": (b"PK\x03\x04 but no more", "archive"),
    "truncated": (zipped(exam_of(STACK))[:-30], "archive"),
    "nothing": (zipped({}), "import"),
    "text": (zipped({"readme.txt": b"hello"}), "import"),
    "zip in a zip": (zipped({"a.zip": zipped(exam_of(STACK))}), "import"),
    "pickled": (zipped(exam_of(PICKLED)), "pickled"),
    "pickle": (zipped(exam_of(pickle.dumps(print))), "not-npy"),
    "huge stack": (zipped(exam_of(HUGE)), "too-large"),
    "script": (zipped({"axial/<script>.npy": STACK}), "missing-plane"),
}


@pytest.mark.parametrize("case", list(ARCHIVES))
def test_hostile_archives_are_refused(uploading: Served, case: str) -> None:
    """The error has the code of the fault, and nothing remains on the disk."""
    content, code = ARCHIVES[case]
    before = get(uploading, "/progress")["total"]
    found = problem(upload_zip(uploading, content), 422)
    assert found["code"] == code
    assert get(uploading, "/progress")["total"] == before


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([("archive", "a.zip", b""), ("axial", "a.npy", STACK)], 422, "form"),
        ([("archive", None, b"text")], 422, "form"),
        ([("axial", "a.npy", STACK)], 422, "missing-plane"),
        ([("knee", "a.npy", STACK)], 422, "form"),
        ([], 422, "missing-plane"),
        ([("x", None, b"")] * 50, 400, "form"),
    ],
)
def test_other_forms_are_refused(
    uploading: Served, parts: list[Any], status: int, code: str
) -> None:
    """An archive must come alone, and files need the names of series."""
    assert problem(upload(uploading, form(parts)), status)["code"] == code


def test_an_oversized_body_is_refused(uploading: Served) -> None:
    """More than the service accepts is refused as a problem."""
    found = problem(upload_zip(uploading, bytes(DEFAULT_LIMITS.body_bytes)), 413)
    assert found["code"] == "too-large"


def test_a_file_per_series_is_named_in_its_error(uploading: Served) -> None:
    """The error of a file names its series."""
    parts = [(str(plane), "a.npy", STACK) for plane in PLANES[:2]]
    found = problem(upload(uploading, form([*parts, ("sagittal", "a.npy", PICKLED)])), 422)
    assert (found["code"], found["field"]) == ("pickled", "sagittal")


def test_an_import_has_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import is killed after its time, and its process gets no more memory than allowed."""
    archive = tmp_path / "archive.zip"
    archive.write_bytes(zipped({"a.dcm": b"no DICOM"}))
    monkeypatch.setitem(limits.RANGES, "import_seconds", Range(0, 1))
    short = ServiceLimits(import_seconds=0)
    with pytest.raises(RefusalError) as caught:
        asyncio.run(import_archive(archive, tmp_path / "out", MRNET_SERIES, short, left=False))
    assert caught.value.fault.found == "no result after 0 seconds"
    program = (
        "from mrknee.server.dicom_process import limit_this_process as limit\n"
        "limit(60, 4096)\ntry:\n    bytearray(5 * 2**30)\nexcept MemoryError:\n    print('refused')"
    )
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "refused\n"


def test_an_upload_never_displaces_its_own_exams(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exam beyond the limit of bytes is a problem, and not one that is kept and dropped."""
    exams = [UploadedExam(with_digests(random_exam(number))) for number in range(3)]
    monkeypatch.setattr(exam_uploads, "MAX_UPLOADED_BYTES", 2.5 * exams[0].read.size)
    uploaded = Uploaded()
    for number, exam in enumerate(exams):
        assert not uploaded.full
        uploaded.add(f"exam {number}", exam)
    assert uploaded.exams == exams[:2]
    assert [(one.file, one.fault.code) for one in uploaded.problems] == [("exam 2", "too-many")]


def test_an_upload_that_has_expired_is_not_aborted() -> None:
    """A new upload is refused in order while an expired one still waits for the disk."""

    async def meet() -> None:
        arrivals = Arrivals(ServiceLimits())
        began = asyncio.get_running_loop().time() - 2 * SETTLED_SECONDS
        async with asyncio.timeout(0) as limit:
            expired = _Arrival("127.0.0.1", began, limit, 60)
            try:
                await asyncio.sleep(60)
            finally:
                with pytest.raises(RefusalError, match="too many uploads are in progress"):
                    arrivals._abort_slowest([expired], "one")

    with pytest.raises(TimeoutError):
        asyncio.run(meet())


def test_the_oldest_uploads_are_dropped(onnx_file: Path, tmp_path: Path) -> None:
    """At most `MAX_UPLOADS` exams are kept, and further ones of an archive are reported."""
    files: dict[str, bytes] = {}
    for number in range(MAX_UPLOADS + 2):
        files |= members(random_exam(number, (1, 1, 1)), "", f"{number:04d}")
    with Served(onnx_file, tmp_path) as service:
        answer = upload_zip(service, zipped(files))
        assert len(answer.json["exams"]) == MAX_UPLOADS
        assert [one["code"] for one in answer.json["problems"]] == ["too-many"] * 2
        oldest = answer.json["exams"][0]["key"]
        sha256 = get(service, f"/exams/{oldest}")["series"][0]["sha256"]
        newest = upload(service, exam_form(random_exam(99))).json["exams"][0]["key"]
        assert get(service, "/progress")["total"] == MAX_UPLOADS
        problem(service.ask("GET", f"{API}/exams/{oldest}"), 404)
        problem(service.ask("GET", f"{API}/stacks/{sha256}"), 404)
        assert get(service, f"/exams/{newest}")["id"].startswith("upload-")
        wait_until_scored(service)
        assert service.end() == 0
