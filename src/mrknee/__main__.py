"""Entry point of `python -m mrknee` and of the command `mrknee`."""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


def main() -> int:
    """Runs the command line and returns the exit status."""
    try:
        from mrknee.cli import main as run  # here, so that Ctrl-C during import is handled too

        status = run()
    except KeyboardInterrupt:
        print("\nmrknee: interrupted", file=sys.stderr)
        status = INTERRUPTED
    except SystemExit as ended:
        if ended.code not in (INTERRUPTED, TERMINATED):
            raise
        status = int(ended.code)
    if status in (INTERRUPTED, TERMINATED):
        # If KeyboardInterrupt was raised in generated code (a dataclass being created during an
        # import), Python ends itself with SIGINT, regardless of the exit status.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
