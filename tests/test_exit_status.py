from __future__ import annotations

import errno
import signal
import sys
import time
import warnings
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
    """Each warning is one line while the verb runs; the exit status is that of the verb."""

    def work() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning(MrkneeWarning("an old model"), MrkneeWarning, str(Path()), 1)
        return 3

    previous = warnings.showwarning
    assert run_with_status("view", work) == 3
    assert capsys.readouterr().err == "mrknee view: note: an old model\n"
    assert warnings.showwarning is previous


@pytest.mark.parametrize(
    ("number", "status", "cause"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_signals_end_with_one_line(
    number: signal.Signals, status: int, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C gives status 130 and SIGTERM 143; the signal handlers are restored."""
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore it
    try:
        with pytest.raises(SystemExit) as ended, interruptible("view", "view again"):
            signal.raise_signal(number)
    finally:
        signal.signal(signal.SIGINT, handlers[0])  # which ignores a second Ctrl-C by then
    assert ended.value.code == status
    assert capsys.readouterr().err == f"mrknee view: {cause}; view again\n"
    assert signal.getsignal(signal.SIGTERM) is handlers[1]


class Finalized:
    """An object during whose finalizer a signal arrives."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)
        time.sleep(0.001)  # the handler is called here, and what it raises is dropped


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_a_finalizer_is_not_lost(
    number: signal.Signals, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python drops exceptions of finalizers; the verb ends all the same, with one line."""
    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    signal.signal(signal.SIGINT, signal.default_int_handler)
    passed: list[bool] = []

    def work() -> None:
        Finalized(number)
        passed.append(True)
        time.sleep(10)

    try:
        with pytest.raises(SystemExit) as ended, interruptible("view", "view again"):
            work()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert passed, "the signal was not dropped, so nothing was tested"
    assert ended.value.code == status
    assert capsys.readouterr().err.endswith("; view again\n")
    assert sys.unraisablehook is hook
