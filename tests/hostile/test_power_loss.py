"""A run resumes after a power loss from the files on the disk, with the same result.

A run trains on a separate file system, in an image on a loop device. At a random moment the process
is stopped and the image is copied: the copy contains what has been written to the disk, without
what is still in the system's cache. The copy is mounted, and the run is resumed in it. Mounting
requires root (CI is root); otherwise skipped.

`MRKNEE_POWER_LOSSES=20` tests more moments than the default of 2.
"""

from __future__ import annotations

import filecmp
import os
import posix
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mrknee.files import atomic_write
from mrknee.training.run import train
from tests.conftest import write_toy_dataset
from tests.training.test_resumption import _save_time, assert_same_run, start_training
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow

LOSSES = int(os.environ.get("MRKNEE_POWER_LOSSES", "2"))

FILE_SYSTEMS = {
    # without the automatic sync of replaced files, which other file systems lack
    "ext4": (["mkfs.ext4", "-q"], "noauto_da_alloc,commit=1", 64),
    # its copy has the same UUID, which XFS would not mount twice
    "xfs": (["mkfs.xfs", "-q"], "nouuid", 320),
}
"""Command that creates a file system, options of its mount, and minimum size in MB."""

RECIPE = QUICK.replace(epochs=4, batch_exams=2, save_every=1, loggers=[])


def run(*words: object) -> None:
    """Runs a system command; skips the test if it fails, for example without permission."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        pytest.skip(f"{words[0]}: {done.stderr.strip()}")


@contextmanager
def mounted(image: Path, folder: Path, options: str) -> Iterator[Path]:
    """Mounts the file system in an image."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-o", f"loop,{options}", str(image), str(folder)]
    subprocess.run(command, check=True)  # noqa: S603
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S603, S607


def copy_disk(image: Path, copy: Path) -> None:
    """Copies the state of an image at one moment: repeats until two copies are equal."""
    again = copy.with_suffix(".again")
    shutil.copyfile(image, copy)
    while True:
        shutil.copyfile(image, again)
        if filecmp.cmp(copy, again, shallow=False):
            again.unlink()
            return
        again.replace(copy)


def make_disk(kind: str, image: Path) -> str:
    """Creates a file system in an image; returns its mount options."""
    make, options, megabytes = FILE_SYSTEMS[kind]
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which(make[0]) is None:
        pytest.skip(f"requires root and {make[0]}")
    with image.open("wb") as file:
        file.truncate(megabytes * 2**20)
    run(*make, image)
    folder = image.with_suffix(".try")
    folder.mkdir()
    run("mount", "-o", f"loop,{options}", image, folder)
    run("umount", folder)
    return options


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
@pytest.mark.parametrize("durable", [True, False])
def test_a_file_that_was_written_is_on_the_disk(
    kind: str, durable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New and replaced files are complete after a power loss; without a sync they are not.

    The last file is synced in both cases, which writes the names of the others to the disk.
    """
    monkeypatch.setattr(os, "fsync", posix.fsync)
    options = make_disk(kind, tmp_path / "disk")
    content = b"whole" * 40_000
    with mounted(tmp_path / "disk", tmp_path / "mounted", options) as disk:
        for number in (*range(8), *range(4)):
            with atomic_write(disk / str(number), durable=durable) as beside:
                beside.write_bytes(content)
        with atomic_write(disk / "last") as beside:
            beside.write_bytes(content)
        copy_disk(tmp_path / "disk", tmp_path / "copy")
    with mounted(tmp_path / "copy", tmp_path / "again", options) as found:
        assert (found / "last").read_bytes() == content
        whole = [(found / str(number)).read_bytes() == content for number in range(8)]
    assert all(whole) if durable else not any(whole)


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_a_run_resumes_after_a_power_loss(kind: str, tmp_path: Path) -> None:
    """A run resumed after a power loss at a random moment equals an uninterrupted one exactly."""
    image = tmp_path / "disk"
    options = make_disk(kind, image)
    data, whole = write_toy_dataset(tmp_path / "toy", 8, 4), tmp_path / "whole"
    train(data, whole, RECIPE)
    draw = random.Random(11)  # noqa: S311  # moments, not secrets
    with mounted(image, tmp_path / "mounted", options) as disk:
        for loss in range(LOSSES):
            out = disk / f"run{loss}"
            process = start_training(data, out, RECIPE)
            last, saves = _save_time(out), draw.randrange(16)
            while saves and process.is_alive():
                if _save_time(out) != last:
                    last, saves = _save_time(out), saves - 1
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.3))
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGSTOP)
            copy_disk(image, tmp_path / "copy")
            process.kill()
            process.join()
            shutil.rmtree(out, ignore_errors=True)
            with mounted(tmp_path / "copy", tmp_path / "again", options) as found:
                resumed = start_training(data, found / out.name, RECIPE)
                resumed.join()
                assert resumed.exitcode == 0
                assert_same_run(whole, found / out.name)
