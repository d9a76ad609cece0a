from __future__ import annotations

import errno
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrknee.errors import DataError, MrkneeWarning
from mrknee.exit_status import interruptible, run_with_status


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("no such thing", code="x", found="y"), "mrknee view: no such thing\n  found: y"),
        (OSError(errno.ENOSPC, "No space left on device", "out.csv"), "to do: free disk space"),
        (PermissionError(errno.EACCES, "Permission denied", "out.csv"), "file: out.csv"),
    ],
)
def test_errors_are_one_message_and_status_1(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Errors of mrknee and of the system are printed in the same form, with exit status 1."""

    def work() -> int:
        raise error

    assert run_with_status("view", work) == 1
    assert message in capsys.readouterr().err


def test_other_exceptions_are_raised() -> None:
    """Exceptions that are programming errors keep their traceback."""

    def work() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_with_status("view", work)


def test_warnings_of_mrknee_are_notes(capsys: pytest.CaptureFixture[str]) -> None:
    """Each warning is one line while the command runs; the exit status is that of the command."""

    def work() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning(MrkneeWarning("an old model"), MrkneeWarning, str(Path()), 1)
        return 3

    previous = warnings.showwarning
    assert run_with_status("view", work) == 3
    assert capsys.readouterr().err == "mrknee view: note: an old model\n"
    assert warnings.showwarning is previous


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, as in a terminal; a background job may ignore it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)  # interruptible ignores a second Ctrl-C


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize(
    ("number", "status", "cause"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_signals_end_with_one_line(
    number: signal.Signals, status: int, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C gives status 130 and SIGTERM 143; the handler of SIGTERM is restored."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, interruptible("view", "view again"):
        signal.raise_signal(number)
    assert ended.value.code == status
    assert capsys.readouterr().err == f"mrknee view: {cause}; view again\n"
    assert signal.getsignal(signal.SIGTERM) is handler


class Finalized:
    """An object during whose finalizer a signal arrives."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)
        time.sleep(0.001)  # the handler is called here, and what it raises is dropped


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize(
    ("number", "status", "ignored"),
    [(signal.SIGINT, 130, False), (signal.SIGTERM, 143, False), (signal.SIGTERM, 143, True)],
    ids=["SIGINT", "SIGTERM", "SIGTERM of a job that ignores SIGINT"],
)
def test_a_signal_during_a_finalizer_is_not_lost(
    number: signal.Signals, status: int, ignored: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python drops exceptions of finalizers; the command ends all the same, with one line."""
    hook = sys.unraisablehook
    if ignored:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    passed: list[bool] = []

    def work() -> None:
        Finalized(number)
        passed.append(True)
        time.sleep(10)

    with pytest.raises(SystemExit) as ended, interruptible("view", "view again"):
        work()
    assert passed, "the signal was not dropped, so nothing was tested"
    assert ended.value.code == status
    assert capsys.readouterr().err.endswith("; view again\n")
    assert sys.unraisablehook is hook
