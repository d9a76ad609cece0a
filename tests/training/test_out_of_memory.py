from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import get_worker_info

from mrknee.errors import MrkneeError
from mrknee.run_folder import RunFolder
from mrknee.training.out_of_memory import convert_memory_errors, describe_last_kill
from mrknee.training.recipe import Recipe, load_recipe
from mrknee.training.run import train
from mrknee.training.run_writer import RunWriter
from mrknee.transforms import batches
from mrknee.transforms.batches import Sample
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow


def take_torch() -> None:
    """More than an address space holds."""
    torch.empty(2**55, dtype=torch.uint8)


def take_numpy() -> None:
    """More than an address space holds."""
    np.empty(2**55, dtype=np.uint8)


def take_python() -> None:
    """More than an address space holds."""
    bytearray(2**55)


def take_cuda() -> None:
    """Raises torch's error when a GPU's memory runs out."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def take_system() -> None:
    """Raises the error of starting a process when memory runs out."""
    raise OSError(12, "Cannot allocate memory")


@pytest.mark.parametrize("take", [take_torch, take_numpy, take_python, take_cuda, take_system])
def test_running_out_of_memory_says_what_to_change(take: Any) -> None:  # noqa: ANN401  # a function
    """All out-of-memory errors become one error that names settings and values."""
    with pytest.raises(MrkneeError) as raised, convert_memory_errors(Recipe(batch_exams=4)):
        take()
    assert raised.value.what == "memory ran out while training"
    assert "--slices_at_once 4 (is 0, all)" in str(raised.value)
    assert "--batch_exams 1 with --accumulate 4 (is 4 with 1)" in str(raised.value)


def test_other_errors_stay_as_they_are() -> None:
    """Other errors are not reported as a lack of memory."""
    with pytest.raises(RuntimeError, match="shapes"), convert_memory_errors(Recipe()):
        raise RuntimeError("shapes don't agree")


def test_trained_statistics_are_not_advised_away() -> None:
    """slices_at_once isn't advised with trained statistics, because they exclude each other."""
    with pytest.raises(MrkneeError) as raised, convert_memory_errors(load_recipe("demo")):
        raise MemoryError
    assert "slices_at_once" not in str(raised.value)


def test_a_worker_ended_by_the_kernel_is_a_message(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL to a process that reads exams ends training with an error; it doesn't hang."""
    frame = batches.frame_exam

    def killed(*given: Any) -> Sample:  # noqa: ANN401  # passed through
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return frame(*given)

    monkeypatch.setattr(batches, "frame_exam", killed)
    with pytest.raises(MrkneeError, match="process that reads exams was ended by the system"):
        train(toy, tmp_path / "run", QUICK.replace(workers=1))
    assert not (RunFolder(tmp_path / "run").marker).exists()


def _killed_in_training(data: Path, out: Path) -> None:
    """Starts a run that is killed after its first batch."""

    def kill(*_: Any) -> None:  # noqa: ANN401  # the loop's
        os.kill(os.getpid(), signal.SIGKILL)

    RunWriter.on_train_batch_end = kill  # type: ignore[assignment, method-assign]
    train(data, out, QUICK)


def test_the_next_start_says_that_the_last_was_ended(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After SIGKILL, the reason is reported; only with --resume, the run continues."""
    out = tmp_path / "run"
    start = multiprocessing.get_context("spawn").Process(
        target=_killed_in_training, args=(toy, out)
    )
    start.start()
    start.join()
    assert start.exitcode == -signal.SIGKILL
    with pytest.raises(MrkneeError, match="ended without a word, most likely for lack of memory"):
        train(toy, out, QUICK)
    train(toy, out, QUICK, resume=True)
    told = capsys.readouterr().out
    assert "the last start of this run was ended without a word, most likely for lack" in told
    assert "--batch_exams 1 with --accumulate 3 (is 3 with 1)" in told
    assert not (RunFolder(out).marker).exists()


def test_what_is_known_of_the_end_is_said(tmp_path: Path) -> None:
    """The report depends on later kills by the kernel, a restart, or a broken or missing marker."""
    recipe = Recipe()
    assert describe_last_kill(tmp_path, recipe) is None
    boot_file = Path("/proc/sys/kernel/random/boot_id")
    boot = boot_file.read_text().strip() if boot_file.exists() else None
    cases = {
        json.dumps({"boot": boot, "kills": -1}): "the kernel has ended processes",
        json.dumps({"boot": "another", "kills": 0}): "the machine went down",
        "no JSON": "most likely for lack of memory",
        "[]": "most likely for lack of memory",
    }
    for text, said in cases.items():
        (RunFolder(tmp_path).marker).write_text(text)
        assert said in str(describe_last_kill(tmp_path, recipe))
