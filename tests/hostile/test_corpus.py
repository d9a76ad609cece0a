"""Every malformed input gives one clear error within limits, and has no other effect."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import exported, models, packed, recipes, stacks, studies, tables
from tests.hostile.case import Case, content
from tests.hostile.worker import CPU_SECONDS, MEMORY_BYTES, NAMES
from tests.metrics.test_scorecard import a_scorecard

pytestmark = pytest.mark.slow

HANG_SECONDS = 120.0
"""Wall-clock limit, far above `CPU_SECONDS`: it only ends a process that waits."""


class Worker:
    """The monitored process; a new one is started after a case that ended it.

    Args:
        folder: its empty working directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.process: subprocess.Popen[str] | None = None

    def read(self, reader: str, path: Path) -> dict[str, Any]:
        """Returns the outcome of reading this file."""
        if self.process is None:
            self.process = self._start()
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"reader": reader, "path": str(path)}) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], HANG_SECONDS)
        line = process.stdout.readline() if ready else ""
        if not line:
            self.stop()
            return {"raised": f"the process ended or hung: {process.returncode}", "message": ""}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> subprocess.Popen[str]:
        root = Path(__file__).parents[2]
        paths = [str(root / "src"), str(root), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.worker"],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def stop(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One monitored process for all cases."""
    worker = Worker(tmp_path_factory.mktemp("hostile") / "here")
    yield worker
    worker.stop()


@cache
def model() -> Path:
    """Returns a checkpoint whose copies the cases corrupt; it is removed after the tests."""
    import atexit
    import tempfile

    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return models.write_model(folder / "model")


def all_cases() -> list[Case]:
    """Returns the corpus."""
    card = a_scorecard(full=True)
    return [
        *stacks.cases(),
        *tables.cases(),
        *recipes.cases(),
        *recipes.scorecards(card),
        *recipes.phantoms(),
        *models.cases(model()),
        *exported.cases(),
        *studies.cases(),
        *packed.cases(),
    ]


CASES = all_cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_malformed_input_gives_one_error(case: Case, worker: Worker, tmp_path: Path) -> None:
    """A MrkneeError in bounded processor time and 500 MB; nothing is executed or written."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    path = folder / case.file
    case.write(path)
    written = sorted(folder.glob("input*"))  # some need another ending
    found = worker.read(case.reader, written[0] if written else path)
    assert found["raised"] == "MrkneeError", found
    assert case.message in found["message"]
    assert len(found["message"]) < 10_000
    assert all(c.isprintable() or c == "\n" for c in found["message"])
    assert found["seconds"] < CPU_SECONDS
    assert found["bytes"] < MEMORY_BYTES
    assert not found["executed"]
    assert found["left"] == []


def test_the_corpus_has_the_documented_size() -> None:
    """More than 700 cases, as docs/background/untrusted-files.md states; some for every reader."""
    assert len(CASES) > 700
    assert len({case.id for case in CASES}) == len(CASES)
    assert {case.reader for case in CASES} == set(NAMES)


@pytest.mark.parametrize(
    ("reader", "write"),
    [
        ("stack", content(stacks.GOOD)),
        ("labels", content(tables.LABELS)),
        ("labels", content("\ufeff0000,1\r0001,0\r\n0002,\n")),
        ("predictions", content(tables.PREDICTIONS)),
        ("listing", content(tables.LISTING)),
        ("parts", content(tables.PARTS)),
        ("recipe", content(recipes.RECIPE)),
        ("scorecard", content(a_scorecard(full=True).to_json())),
        ("checkpoint", lambda path: shutil.copytree(model(), path)),
        (
            "weights",
            lambda path: shutil.copy(model() / "weights.safetensors", f"{path}.safetensors"),
        ),
        ("onnx", content(exported.GOOD)),
        ("exam", content(exported.GOOD)),
        ("import", content(studies.GOOD_DICOM, ".dcm")),
        ("import", content(studies.GOOD_NIFTI, "_axial.nii")),
        ("import", content(studies.zipped(("a.dcm", studies.GOOD_DICOM)), ".zip")),
        ("import", content(packed.tarred(("a.dcm", studies.GOOD_DICOM)), ".tar")),
    ],
)
def test_the_uncorrupted_files_are_read(
    reader: str,
    write: Callable[[Path], object],
    worker: Worker,
    tmp_path: Path,
) -> None:
    """The files that the corpus corrupts are valid: only the corruption is refused."""
    write(tmp_path / Case(reader, "good", write).file)
    (written,) = tmp_path.iterdir()
    found = worker.read(reader, written)
    assert found["raised"] == "nothing", found


@pytest.mark.parametrize(
    ("read", "raised"),
    [
        ("bytearray(b'1') * 10**9", "MemoryError"),
        ("open('EXECUTED', 'w')", "nothing"),
        ("for _ in iter(int, 1): pass", "the process ended or hung: -27"),
    ],
)
def test_the_worker_reports(worker: Worker, tmp_path: Path, read: str, raised: str) -> None:
    """The worker reports excessive memory and time, and code that a file executed."""
    content(read)(tmp_path / "input")
    found = worker.read("python", tmp_path / "input")
    assert found["raised"] == raised, found
    if raised == "nothing":
        assert found["executed"]
