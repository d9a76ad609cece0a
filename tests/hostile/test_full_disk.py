"""A full disk gives one clear error; existing files are unchanged and none is incomplete.

The tests mount a small memory file system, which requires root (CI is root); otherwise skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mrknee.cli import main
from mrknee.run_folder import RunFolder
from mrknee.training.resumption import RunProgress, save_state
from tests.conftest import write_toy_dataset
from tests.hostile import studies
from tests.hostile.test_interrupted import files
from tests.sources.clinical.hospital import enhanced, write

pytestmark = pytest.mark.slow

NO_SPACE = "No space left on device"


def mount(folder: Path, options: str) -> None:
    """Mounts a memory file system, or changes the size of a mounted one."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        pytest.skip(f"no memory file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "size=8m")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)  # noqa: S603, S607


def fill(disk: Path, leave: int) -> Path:
    """Fills the disk, except for `leave` bytes."""
    filling = disk / "filling"
    free = shutil.disk_usage(disk).free
    filling.write_bytes(bytes(max(free - leave, 0)))
    return filling


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Asserts exit status 1 and a message that the disk is full."""
    assert main(words) == 1
    message = capsys.readouterr().err
    assert f"mrknee {words[0]}: {NO_SPACE}\n  file: " in message
    assert message.endswith("free disk space, or write to another disk\n")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a toy data set, a run of one epoch, and its predictions."""
    here = tmp_path_factory.mktemp("trained")
    data = write_toy_dataset(here / "data", 8, 4)
    assert main(["train", str(data), "--out", str(here / "run"), *SETTINGS]) == 0
    return here


SETTINGS = [
    "--network.encoder=test_resnet",
    "--network.shared_encoder=true",
    "--weights=none",
    "--epochs=1",
    "--preparation.size=48",
    "--preparation.crop=32",
    "--workers=0",
]


@pytest.mark.parametrize(
    "command", ["predict", "evaluate", "explain", "export", "submit", "compare"]
)
def test_existing_results_are_kept(
    command: str, trained: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command that writes a result: the earlier result is unchanged and nothing was added."""
    run, data = str(trained / "run"), str(trained / "data")
    table = str(trained / "run" / "predictions-valid.csv")
    exam = sorted((trained / "data" / "valid" / "axial").glob("*.npy"))[0].stem
    other = Path(shutil.copy(table, trained / "other.csv"))
    listing = trained / "paths.csv"
    planes = ("axial", "coronal", "sagittal")
    listing.write_text("".join(f"{data}/valid/{plane}/{exam}.npy\n" for plane in planes))
    out = disk / "out"
    words = {
        "predict": ["predict", run, data, "--out", str(out)],
        "submit": ["submit", run, str(listing), str(out)],
        "evaluate": ["evaluate", table, data, "--out", str(out)],
        "compare": ["compare", table, str(other), data, "--out", str(out)],
        "explain": ["explain", run, data, "--exam", exam, "--out", str(out)],
        "export": ["export", run, "--out", str(out)],
    }[command]
    if command in ("predict", "submit", "export"):
        out.write_text("before")
    else:
        out.mkdir()
        (out / "before").write_text("before")
    fill(disk, 0)
    before = files(disk)
    fails(words, capsys)
    assert files(disk) == before


def test_a_full_disk_is_reported_for_a_training_state(disk: Path) -> None:
    """PyTorch reports a full disk as "unexpected pos"; mrknee raises the system's error instead."""
    file = RunFolder(disk).state
    file.parent.mkdir()
    file.write_text("before")
    with pytest.raises(OSError, match=NO_SPACE) as caught:
        save_state(disk, RunProgress(), {"a": torch.zeros(3_000_000)})
    assert caught.value.filename == str(file)
    assert files(disk) == {"resume/last.ckpt": b"before"}


def test_training_resumes_after_a_full_disk(
    trained: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train: the disk is full in the middle of the run; with free space, --resume completes it."""
    filling = fill(disk, 2_500_000)
    words = ["train", str(trained / "data"), "--out", str(disk / "run"), *SETTINGS]
    fails(words, capsys)
    assert (disk / "run" / "settings.yaml").exists(), "it had begun"
    assert not list((disk / "run").rglob(".*")), "nothing half-written"
    assert not (disk / "run" / "scorecard.json").exists()
    filling.unlink()
    mount(disk, "remount,size=40m")
    assert main([*words, "--resume"]) == 0
    assert (disk / "run" / "scorecard.json").exists()


def test_an_import_resumes_after_a_full_disk(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Import: no exam is incomplete; with free space, the same command completes the import."""
    for number in range(6):
        write(enhanced(studies.STACK, studies.SCAN, f"study {number}"), tmp_path / f"in/{number}")
    filling = fill(disk, 800_000)
    words = ["import", str(tmp_path / "in"), str(disk / "out"), "--allow-missing-plane"]
    fails(words, capsys)
    assert not list((disk / "out").rglob(".*.npy*")), "nothing half-written"
    filling.unlink()
    assert main(words) == 0
    words[2] = str(tmp_path / "whole")
    assert main(words) == 0
    assert files(disk / "out") == files(tmp_path / "whole")


def test_a_phantom_resumes_after_a_full_disk(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Phantom: no exam is incomplete; with free space, the same command completes the set."""
    filling = fill(disk, 300_000)
    words = ["--train", "4", "--valid", "0", "--size", "64", "--slice-factor", "0.2"]
    fails(["phantom", str(disk / "set"), *words], capsys)
    assert not list((disk / "set").rglob(".*")), "nothing half-written"
    filling.unlink()
    assert main(["phantom", str(disk / "set"), *words]) == 0
    assert main(["phantom", str(tmp_path / "whole"), *words]) == 0
    assert files(disk / "set") == files(tmp_path / "whole")
