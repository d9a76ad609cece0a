from __future__ import annotations

import errno
import signal
import warnings
from pathlib import Path

import pytest

from mrknee.errors import DataError, MrkneeWarning
from mrknee.exit_status import interruptible, status_of


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (DataError("no such thing", code="x", found="y"), "mrknee look: no such thing\n  found: y"),
        (OSError(errno.ENOSPC, "No space left on device", "out.csv"), "to do: make room"),
        (PermissionError(errno.EACCES, "Permission denied", "out.csv"), "file: out.csv"),
    ],
)
def test_what_a_person_has_to_put_right_is_one_message_and_1(
    fault: Exception, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Our errors, and the system's in our form."""

    def work() -> int:
        raise fault

    assert status_of("look", work) == 1
    assert told in capsys.readouterr().err


def test_a_fault_of_the_program_is_not_hidden() -> None:
    """Whatever else is raised keeps its traceback."""

    def work() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        status_of("look", work)


def test_our_warnings_are_notes(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, while the verb works; the status is the verb's own."""

    def work() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning(MrkneeWarning("an old model"), MrkneeWarning, str(Path()), 1)
        return 3

    before = warnings.showwarning
    assert status_of("look", work) == 3
    assert capsys.readouterr().err == "mrknee look: note: an old model\n"
    assert warnings.showwarning is before


@pytest.mark.parametrize(
    ("number", "status", "how"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_signals_end_with_one_line(
    number: signal.Signals, status: int, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """130 and 143; handlers are as before afterwards."""
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore it
    try:
        with pytest.raises(SystemExit) as ended, interruptible("look", "look again"):
            signal.raise_signal(number)
    finally:
        signal.signal(signal.SIGINT, handlers[0])  # which ignores a second Ctrl-C by then
    assert ended.value.code == status
    assert capsys.readouterr().err == f"mrknee look: {how}; look again\n"
    assert signal.getsignal(signal.SIGTERM) is handlers[1]
