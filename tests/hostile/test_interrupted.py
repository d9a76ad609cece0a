"""A kill leaves nothing that a second start doesn't put right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mrknee.files import clear_half_written, whole_file

WORDS = ["--train", "6", "--valid", "2", "--size", "64", "--slice-factor", "0.2"]


def start(folder: Path, out: str) -> subprocess.Popen[bytes]:
    """`mrknee phantom` in a process group of its own, so that its workers can be killed with it."""
    source = str(Path(__file__).parents[2] / "src")
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "mrknee", "phantom", out, *WORDS],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def files(folder: Path) -> dict[str, bytes]:
    """Every file and its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_killed_phantom_is_completed(tmp_path: Path) -> None:
    """SIGKILL to all processes of a real phantom; the same call completes only what is missing."""
    whole = start(tmp_path, "whole")
    assert whole.wait(timeout=200) == 0
    killed = start(tmp_path, "killed")
    out = tmp_path / "killed"
    while killed.poll() is None and len(list(out.glob("train/axial/*.npy"))) < 2:
        time.sleep(0.02)
    assert killed.poll() is None, "it had ended before it could be killed"
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    there = {path: path.stat().st_mtime_ns for path in out.glob("*/*/[!.]*.npy")}
    for path in there:
        assert np.load(path, allow_pickle=False).ndim == 3, "a file that is there is whole"
    assert not list(out.glob("*.csv")), "labels come last: without them nobody takes it for a set"
    # what a kill in the middle of a file leaves
    half = out / "train" / "axial" / ".0005.npy.123"
    half.write_bytes(b"\x93NUMPY half")
    again = start(tmp_path, "killed")
    assert again.wait(timeout=200) == 0
    assert files(out) == files(tmp_path / "whole")
    kept = [path for path in there if path.stat().st_mtime_ns == there[path]]
    assert len(kept) >= 2 * 3, "exams that were complete are not written again"


def test_only_what_a_kill_left_is_cleared(tmp_path: Path) -> None:
    """Files that nobody half wrote stay, whatever they are called."""
    with whole_file(tmp_path / "a.npy") as beside:
        beside.write_bytes(b"a")
        name = beside.name
    (tmp_path / name).write_bytes(b"half")
    stay = ["a.npy", ".hidden", ".gitignore", "b.npy.123", ".x.part"]
    for one in stay[1:]:
        (tmp_path / one).write_bytes(b"whole")
    clear_half_written(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(stay)
    clear_half_written(tmp_path / "nowhere")


if sys.platform == "win32":
    pytest.skip("signals as Linux has them", allow_module_level=True)
