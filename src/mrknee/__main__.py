"""`python -m mrknee` and the command `mrknee`."""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 128 + signal.SIGINT


def main() -> int:
    """Runs the command line; returns the exit status."""
    try:
        from mrknee.cli import main as run  # within, so that Ctrl-C meanwhile is no traceback

        return run()
    except KeyboardInterrupt:
        print("\nmrknee: interrupted", file=sys.stderr)
    except SystemExit as ended:
        if ended.code != INTERRUPTED:
            raise
    # Where Ctrl-C came while Python ran generated code (a dataclass, while importing), Python
    # would end by the signal itself, whatever the exit status is.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    raise SystemExit(main())
