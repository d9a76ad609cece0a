"""The same command completes the work of a killed process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mrknee.files import atomic_write, remove_incomplete
from tests.hostile import studies
from tests.sources.clinical.hospital import enhanced, write

pytestmark = pytest.mark.slow

PHANTOM = ["--train", "6", "--valid", "2", "--size", "64", "--slice-factor", "0.2"]


def start(folder: Path, words: list[str]) -> subprocess.Popen[bytes]:
    """Starts `mrknee ...` in a new process group, so that its workers can be killed with it."""
    source = str(Path(__file__).parents[2] / "src")
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "mrknee", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill_after(process: subprocess.Popen[bytes], out: Path, pattern: str, count: int) -> None:
    """Sends SIGKILL to all processes of the group when `count` files match the pattern."""
    while process.poll() is None and len(list(out.glob(pattern))) < count:
        time.sleep(0.005)
    assert process.poll() is None, "it had ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def files(folder: Path) -> dict[str, bytes]:
    """Returns path -> content of every file in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_killed_phantom_is_completed(tmp_path: Path) -> None:
    """Phantom, all processes killed: the same command writes the missing exams only."""
    whole = start(tmp_path, ["phantom", "whole", *PHANTOM])
    out = tmp_path / "killed"
    killed = start(tmp_path, ["phantom", "killed", *PHANTOM])
    kill_after(killed, out, "*/sagittal/*.npy", 2)  # the plane that is written last
    there = {path: path.stat().st_mtime_ns for path in out.glob("*/*/[!.]*.npy")}
    for path in there:
        assert np.load(path, allow_pickle=False).ndim == 3, "a file that is there is whole"
    assert not list(out.glob("*.csv")), "labels come last: without them nobody takes it for a set"
    # what a kill in the middle of a file leaves
    (out / "train" / "axial" / ".0005.npy.123").write_bytes(b"\x93NUMPY half")
    assert start(tmp_path, ["phantom", "killed", *PHANTOM]).wait(timeout=200) == 0
    assert whole.wait(timeout=200) == 0
    assert files(out) == files(tmp_path / "whole")
    kept = [path for path in there if path.stat().st_mtime_ns == there[path]]
    assert len(kept) >= 2 * 3, "exams that were complete are not written again"


def test_a_killed_import_is_completed(tmp_path: Path) -> None:
    """Import, all processes killed: the same command imports the missing studies only."""
    for number in range(24):
        write(enhanced(studies.STACK, studies.SCAN, f"study {number}"), tmp_path / f"in/{number}")
    words = ["--allow-missing-plane"]
    out = tmp_path / "killed"
    killed = start(tmp_path, ["import", "in", "killed", *words])
    kill_after(killed, out, "sagittal/*.npy", 3)
    record = json.loads((out / "import.json").read_text())
    assert record["finished"] is False
    there = {path: path.stat().st_mtime_ns for path in out.glob("sagittal/[!.]*.npy")}
    assert 3 <= len(there) < 24
    (out / "sagittal" / ".0023.npy.123").write_bytes(b"\x93NUMPY half")
    (out / ".import" / ".0023.json.123").write_bytes(b"{")
    assert start(tmp_path, ["import", "in", "killed", *words]).wait(timeout=200) == 0
    assert start(tmp_path, ["import", "in", "whole", *words]).wait(timeout=200) == 0
    assert files(out) == files(tmp_path / "whole")
    kept = [path for path in there if path.stat().st_mtime_ns == there[path]]
    assert kept, "exams that were complete are not written again"


def test_only_incomplete_files_are_removed(tmp_path: Path) -> None:
    """Temporary files of `atomic_write` are removed; other files are kept, whatever their names."""
    with atomic_write(tmp_path / "a.npy") as beside:
        beside.write_bytes(b"a")
        name = beside.name
    (tmp_path / name).write_bytes(b"half")
    stay = ["a.npy", ".hidden", ".gitignore", "b.npy.123", ".x.part"]
    for one in stay[1:]:
        (tmp_path / one).write_bytes(b"whole")
    remove_incomplete(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(stay)
    remove_incomplete(tmp_path / "nowhere")


if sys.platform == "win32":
    pytest.skip("signals as Linux has them", allow_module_level=True)
