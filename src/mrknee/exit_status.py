"""Exit statuses of a command, and the message printed when it fails or is interrupted.

0: success; 1: an error that the user can correct, reported in one message; 2: an invalid command
line; 130: interrupted by Ctrl-C; 143: terminated by SIGTERM.
"""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mrknee.errors import MrkneeError, MrkneeWarning, OutputError

AGAIN_SECONDS = 0.05
"""Delay of an interrupt that Python has dropped: long enough for the finalizer to end."""


def run_with_status(command: str, work: Callable[[], int]) -> int:
    """Runs a command and returns the exit status; errors and notes go to standard error."""
    previous, warnings.showwarning = warnings.showwarning, _warning_printer(command)
    try:
        return work()
    except BrokenPipeError:  # the reader of the output has closed it, as `| head` does
        sys.stderr.close()
        return 0
    except MrkneeError as error:
        print(f"mrknee {command}: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # the system's message: no space left, permission denied, ...
        from mrknee.files import FULL_DISK  # imported here because `--help` doesn't need it

        advice = "free disk space, or write to another disk" if error.errno in FULL_DISK else None
        file = Path(error.filename) if isinstance(error.filename, str) else None
        output_error = OutputError(
            error.strerror or str(error), code="system", file=file, advice=advice
        )
        print(f"mrknee {command}: {output_error}", file=sys.stderr)
        return 1
    finally:
        warnings.showwarning = previous


@contextmanager
def interruptible(command: str, advice: str) -> Iterator[None]:
    """Ends a command on Ctrl-C or SIGTERM with a one-line message instead of a traceback.

    Args:
        command: the command's name.
        advice: how to continue afterwards, printed in the message.

    Raises:
        SystemExit: with status 130 or 143, as shells report commands ended by these signals.
    """
    received = signal.SIGINT

    def terminate(*_: object) -> None:
        nonlocal received
        received = signal.SIGTERM
        raise KeyboardInterrupt

    def interrupt_again(dropped: sys.UnraisableHookArgs) -> None:
        # Python drops what is raised in a finalizer or in the callback of a weak reference
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            main = threading.main_thread().ident
            again = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (main, received))
            again.daemon = True
            again.start()
        else:
            hook(dropped)

    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, terminate) if in_main_thread else None
    hook, sys.unraisablehook = sys.unraisablehook, interrupt_again
    try:
        yield
    except KeyboardInterrupt:
        if in_main_thread:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would give a traceback
        cause = "terminated" if received == signal.SIGTERM else "interrupted"
        print(f"mrknee {command}: {cause}; {advice}", file=sys.stderr)
        sys.exit(128 + received)
    finally:
        sys.unraisablehook = hook
        if in_main_thread:
            signal.signal(signal.SIGTERM, previous)


def _warning_printer(command: str) -> Callable[..., None]:
    """Returns a `warnings.showwarning` that prints each warning of mrknee as a one-line note.

    Warnings of other libraries are shown as before.
    """
    previous = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:  # noqa: ANN401
        if issubclass(category, MrkneeWarning):
            print(f"mrknee {command}: note: {message}", file=sys.stderr)
        else:
            previous(message, category, *place)

    return show
