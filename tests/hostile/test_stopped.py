"""Ctrl-C and SIGTERM: one line of output, the usual exit status, and no incomplete file.

The commands run in a process group of their own, and the group gets the signal, as from a terminal.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mrknee.exams import PLANES
from tests.hostile import exported, studies
from tests.hostile.test_interrupted import PHANTOM, files
from tests.sources.clinical.hospital import enhanced, write

pytestmark = pytest.mark.slow

EXAMS = 3000
"""More exams than are read before the first line of progress is shown."""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a model and a data set of many exams, which are links to one file."""
    here = tmp_path_factory.mktemp("many")
    stack = np.random.default_rng(0).integers(0, 255, (24, 256, 256)).astype(np.uint8)
    np.save(here / "stack.npy", stack)
    for plane in PLANES:
        folder = here / "data" / "valid" / plane
        folder.mkdir(parents=True)
        for number in range(EXAMS):
            (folder / f"{number:04d}.npy").hardlink_to(here / "stack.npy")
    (here / "model.onnx").write_bytes(exported.GOOD)
    return here


def stopped(
    folder: Path, words: list[str], number: signal.Signals, *, files: str = "", line: str = ""
) -> tuple[int, str]:
    """Starts a command and sends a signal; returns its status and its output without progress.

    Args:
        folder: working directory.
        words: arguments of `mrknee`.
        number: the signal.
        files: the signal is sent when three files match this pattern.
        line: the signal is sent after a line of progress that starts with this text.
    """
    source = str(Path(__file__).parents[2] / "src")
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "mrknee", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell that starts pytest in the background lets it ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        if line:
            first = process.stderr.readline()
            assert first.startswith(line), first + process.stderr.read()
        while files and process.poll() is None and len(list(folder.glob(files))) < 3:
            time.sleep(0.005)
        assert process.poll() is None, "it had ended before it could be stopped"
        os.killpg(process.pid, number)
        _, rest = process.communicate(timeout=100)
    said = [text for text in rest.splitlines() if not re.search(r" \d+/\d+ ", text)]
    return process.returncode, "\n".join(said)


@pytest.mark.parametrize(
    ("words", "number", "line"),
    [
        (["check", "data"], signal.SIGINT, "reading stacks: "),
        (["predict", "model.onnx", "data", "--out", "new/p.csv"], signal.SIGINT, "reading: "),
        (["predict", "model.onnx", "data", "--out", "new/p.csv"], signal.SIGTERM, "reading: "),
    ],
    ids=["check", "predict", "predict, SIGTERM"],
)
def test_an_interrupted_command_prints_one_line(
    words: list[str], number: signal.Signals, line: str, many: Path
) -> None:
    """Status 130 or 143, no traceback, and no output."""
    status, said = stopped(many, words, number, line=line)
    how = "interrupted" if number == signal.SIGINT else "terminated"
    assert status == 128 + number, said
    assert said == (
        f"mrknee {words[0]}: {how}; no file is incomplete; run the same command again to start over"
    )
    assert not (many / "new").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_phantom_keeps_its_exams(number: signal.Signals, tmp_path: Path) -> None:
    """Worker processes finish their exams and print nothing; no file is incomplete."""
    words = ["phantom", "out", *PHANTOM]
    words[words.index("--train") + 1] = "40"
    status, said = stopped(tmp_path, words, number, files="out/train/sagittal/*.npy")
    assert status == 128 + number
    how = "interrupted" if number == signal.SIGINT else "terminated"
    assert said == (f"mrknee phantom: {how}; run the same command again to continue")
    left = files(tmp_path / "out")
    assert not [name for name in left if "/." in name or name.startswith(".")], "half-written"
    assert 1 <= sum(name.startswith("train/sagittal/") for name in left) < 40


def test_an_interrupted_import_keeps_its_exams(tmp_path: Path) -> None:
    """Imported exams are kept, and no file is recorded as damaged because its process ended."""
    for name in range(60):
        write(enhanced(studies.STACK, studies.SCAN, f"study {name}"), tmp_path / f"in/{name}")
    words = ["import", "in", "out", "--allow-missing-plane"]
    status, said = stopped(tmp_path, words, signal.SIGINT, files="out/sagittal/*.npy")
    assert status == 130
    assert said == ("mrknee import: interrupted; run the same command again to continue")
    record = (tmp_path / "out" / "import.json").read_text()
    assert '"finished": false' in record
    assert "crashed the program" not in "".join(
        path.read_text() for path in (tmp_path / "out" / ".import").glob("*.json")
    )


if sys.platform == "win32":
    pytest.skip("signals as Linux has them", allow_module_level=True)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_exit_status_after_an_interrupt_in_generated_code(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """After an interrupt in generated code Python ends with SIGINT; mrknee keeps its status."""
    program = f"""
import sys, mrknee.cli
def encoders():
    "Interrupted while a dataclass is made."
    exec("import signal; signal.raise_signal({int(number)})")
mrknee.cli.COMMANDS["encoders"] = encoders
sys.argv = ["mrknee", "encoders"]
from mrknee.__main__ import main
sys.exit(main())
"""
    (tmp_path / "stopped.py").write_text(program)
    source = str(Path(__file__).parents[2] / "src")
    ended = subprocess.run(
        [sys.executable, "-m", "stopped"],  # -c would end in another way
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{source}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == status
    assert len(ended.stderr.splitlines()) == 1
