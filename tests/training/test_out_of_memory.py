from __future__ import annotations

import json
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
from tests.processes import start
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow


def exhaust_torch() -> None:
    """Allocates more than an address space holds."""
    torch.empty(2**55, dtype=torch.uint8)


def exhaust_numpy() -> None:
    """Allocates more than an address space holds."""
    np.empty(2**55, dtype=np.uint8)


def exhaust_python() -> None:
    """Allocates more than an address space holds."""
    bytearray(2**55)


def exhaust_cuda() -> None:
    """Raises torch's error when a GPU's memory runs out."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def exhaust_system() -> None:
    """Raises the error of starting a process when memory runs out."""
    raise OSError(12, "Cannot allocate memory")


@pytest.mark.parametrize(
    "exhaust", [exhaust_torch, exhaust_numpy, exhaust_python, exhaust_cuda, exhaust_system]
)
def test_out_of_memory_error_names_settings_to_change(exhaust: Any) -> None:  # noqa: ANN401  # a function
    """All out-of-memory errors become one error that names settings and values."""
    with pytest.raises(MrkneeError) as raised, convert_memory_errors(Recipe(batch_exams=4)):
        exhaust()
    assert raised.value.what == "memory ran out during training"
    assert "--slices_at_once 4 (is 0, all)" in str(raised.value)
    assert "--batch_exams 1 with --accumulate 4 (is 4 with 1)" in str(raised.value)


def test_other_errors_are_not_converted() -> None:
    """Other errors are not reported as a lack of memory."""
    with pytest.raises(RuntimeError, match="shapes"), convert_memory_errors(Recipe()):
        raise RuntimeError("shapes don't agree")


def test_slices_at_once_is_not_advised_with_trained_statistics() -> None:
    """They exclude each other."""
    with pytest.raises(MrkneeError) as raised, convert_memory_errors(load_recipe("small")):
        raise MemoryError
    assert "slices_at_once" not in str(raised.value)


def test_killed_worker_process_is_an_error(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL to a process that reads exams ends training with an error; it doesn't hang."""
    frame = batches.frame_exam

    def frame_or_die(*args: Any) -> Sample:  # noqa: ANN401  # passed through
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return frame(*args)

    monkeypatch.setattr(batches, "frame_exam", frame_or_die)
    with pytest.raises(MrkneeError, match="system killed a process that reads exams"):
        train(toy, tmp_path / "run", QUICK.replace(workers=1))
    assert not (RunFolder(tmp_path / "run").marker).exists()


def _train_until_killed(data: Path, out: Path) -> None:
    """Starts a run that is killed after its first batch."""

    def kill(*_: Any) -> None:  # noqa: ANN401  # arguments of the callback
        os.kill(os.getpid(), signal.SIGKILL)

    RunWriter.on_train_batch_end = kill  # type: ignore[assignment, method-assign]
    train(data, out, QUICK)


def test_next_start_reports_that_last_was_killed(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After SIGKILL, the reason is reported; only with --resume, the run continues."""
    out = tmp_path / "run"
    process = start(_train_until_killed, toy, out)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(MrkneeError, match="was killed, most likely because memory ran out"):
        train(toy, out, QUICK)
    train(toy, out, QUICK, resume=True)
    printed = capsys.readouterr().out
    assert "the last start of this run was killed, most likely because memory ran out" in printed
    assert "--batch_exams 1 with --accumulate 3 (is 3 with 1)" in printed
    assert not (RunFolder(out).marker).exists()


def test_reported_cause_of_last_kill(tmp_path: Path) -> None:
    """The report depends on later kills by the kernel, a restart, or a broken or missing marker."""
    recipe = Recipe()
    assert describe_last_kill(tmp_path, recipe) is None
    boot_file = Path("/proc/sys/kernel/random/boot_id")
    boot = boot_file.read_text().strip() if boot_file.exists() else None
    cases = {
        json.dumps({"boot": boot, "kills": -1}): "the kernel has killed processes",
        json.dumps({"boot": "another", "kills": 0}): "the machine went down",
        "no JSON": "most likely because memory ran out",
        "[]": "most likely because memory ran out",
    }
    for text, cause in cases.items():
        (RunFolder(tmp_path).marker).write_text(text)
        assert cause in str(describe_last_kill(tmp_path, recipe))
