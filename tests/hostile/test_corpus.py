"""Every malformed input gives one clear error, soon, in little memory, and does nothing else."""

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
"""By the clock, far beyond what `CPU_SECONDS` can take: only a process that waits is ended so."""


class Worker:
    """The watched process; a new one is started where a case has ended it.

    Args:
        folder: where it stands; empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.process: subprocess.Popen[str] | None = None

    def read(self, reader: str, path: Path) -> dict[str, Any]:
        """What came of reading this file."""
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
    """One watched process for all cases."""
    worker = Worker(tmp_path_factory.mktemp("hostile") / "here")
    yield worker
    worker.stop()


@cache
def model() -> Path:
    """A checkpoint that the cases spoil copies of, for as long as the tests run."""
    import atexit
    import tempfile

    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return models.write_model(folder / "model")


def all_cases() -> list[Case]:
    """The corpus."""
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
def test_one_clear_error_and_nothing_else(case: Case, worker: Worker, tmp_path: Path) -> None:
    """A MrkneeError in bounded processor time and 500 MB; nothing executed, nothing left."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    path = folder / case.file
    case.write(path)
    written = sorted(folder.glob("input*"))  # some have an ending of their own
    found = worker.read(case.reader, written[0] if written else path)
    assert found["raised"] == "MrkneeError", found
    assert case.said in found["message"]
    assert len(found["message"]) < 10_000
    assert all(c.isprintable() or c == "\n" for c in found["message"])
    assert found["seconds"] < CPU_SECONDS
    assert found["bytes"] < MEMORY_BYTES
    assert not found["executed"]
    assert found["left"] == []


def test_the_corpus_is_as_large_as_it_says() -> None:
    """More than 700 cases, as docs/background/untrusted-files.md says; some for every reader."""
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
def test_what_the_cases_are_made_from_is_read(
    reader: str,
    write: Callable[[Path], object],
    worker: Worker,
    tmp_path: Path,
) -> None:
    """The files that the corpus spoils are good ones: it is the spoiling that is refused."""
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
def test_the_watch_sees(worker: Worker, tmp_path: Path, read: str, raised: str) -> None:
    """Too much memory, too much time and a payload that runs are noticed by the watch itself."""
    content(read)(tmp_path / "input")
    found = worker.read("python", tmp_path / "input")
    assert found["raised"] == raised, found
    if raised == "nothing":
        assert found["executed"]
