"""`python -m mrknee` and the command `mrknee`."""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


def main() -> int:
    """Runs the command line; returns the exit status."""
    try:
        from mrknee.cli import main as run  # within, so that Ctrl-C meanwhile is no traceback

        status = run()
    except KeyboardInterrupt:
        print("\nmrknee: interrupted", file=sys.stderr)
        status = INTERRUPTED
    except SystemExit as ended:
        if ended.code not in (INTERRUPTED, TERMINATED):
            raise
        status = int(ended.code)
    if status in (INTERRUPTED, TERMINATED):
        # Where KeyboardInterrupt came while Python ran generated code (a dataclass, while
        # importing), Python would end by SIGINT itself, whatever the exit status is.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
