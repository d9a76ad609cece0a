from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mrknee import progress
from mrknee.progress import track

WORK = """
import time
from mrknee import progress
progress.QUIET_SECONDS = {quiet}
progress.LINE_SECONDS = {every}
for _ in progress.track(range(30), 30, "reading"):
    time.sleep(0.02)
"""


def test_track_yields_its_items() -> None:
    """Items are yielded unchanged and in order."""
    assert list(track(iter("abc"), 3, "reading")) == ["a", "b", "c"]


def test_short_tasks_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Tasks of less than two seconds print nothing."""
    assert progress.QUIET_SECONDS == 2.0
    list(track(range(100), 100, "reading"))
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_without_a_terminal_there_are_plain_lines() -> None:
    """Lines show rate and remaining time, without control characters, and end with a last line."""
    code = WORK.format(quiet=0.0, every=0.2)
    finished = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    lines = finished.stderr.splitlines()
    assert 2 <= len(lines) <= 6
    assert "reading: " in lines[0]
    assert "exams/s" in lines[0]
    assert "s left" in lines[0]
    assert lines[-1].startswith("reading: 30/30 exams")
    assert "\x1b" not in finished.stderr


@pytest.mark.slow
def test_on_a_terminal_there_is_a_bar() -> None:
    """A terminal shows one bar that is redrawn, with count and rate."""
    reader, terminal = pty.openpty()
    code = WORK.format(quiet=0.0, every=0.2)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=terminal)  # noqa: S603
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(reader, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    process.wait()
    os.close(reader)
    text = shown.decode()
    assert process.returncode == 0
    assert "30/30" in text
    assert "exams/s" in text
    assert "\x1b[" in text


def test_progress_can_be_switched_off_and_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines and reports are printed only while progress is on."""
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    progress.show_progress(False)
    try:
        list(track(range(3), 3, "reading"))
        progress.report("a report")
        with progress.Progress(3, "reading") as shown:
            shown.write("a line")
        assert capsys.readouterr() == ("", "")
    finally:
        progress.show_progress(True)
    list(track(range(3), 3, "reading"))
    progress.report("a report")
    out, err = capsys.readouterr()
    assert out == "a report\n"
    assert err.splitlines()[-1].startswith("reading: 3/3 exams")


@pytest.mark.slow
def test_notebook_redraws_one_line(tmp_path: Path) -> None:
    """In a real kernel a cell's output is one bar, and standard error is empty."""
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "one",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": WORK.format(quiet=0.0, every=0.2),
    }
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    file = tmp_path / "notebook.ipynb"
    file.write_text(json.dumps(notebook))
    subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-m", "jupyter", "execute", "--inplace", str(file)],
        check=True,
        capture_output=True,
        env={**os.environ, "JUPYTER_PLATFORM_DIRS": "1"},
    )
    outputs = json.loads(file.read_text())["cells"][0]["outputs"]
    assert [output["output_type"] for output in outputs] == ["display_data"]
    text = "".join(outputs[0]["data"]["text/plain"])
    assert "30/30" in text
    assert "exams/s" in text
