"""`python -m mrknee` and the command `mrknee`."""

from mrknee.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
