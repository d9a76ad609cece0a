"""Malformed label files, tables of predictions, lists of paths and studies, and `split.csv`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.case import PICKLE, Case, content

LABELS = "0000,1\n0001,0\n0002,\n"
PREDICTIONS = "exam,abnormal,acl\n0000,0.25,1\n0001,0.5,0\n"
LISTING = "".join(f"x/{plane}/0000.npy\n" for plane in ("axial", "coronal", "sagittal"))
PARTS = "exam,part\n0000,train\n"


def cases() -> Iterator[Case]:
    """Yields all cases."""
    yield from _labels()
    yield from _predictions()
    yield from _listings()
    yield from _parts()
    yield from _samples()
    for reader in ("labels", "predictions", "listing", "parts", "sample"):
        yield from _no_text(reader)


def _no_text(reader: str) -> Iterator[Case]:
    """Yields files that are not text, or too large, for any of the readers."""
    yield Case(reader, "pickle", content(PICKLE))
    yield Case(reader, "UTF-16", content(LABELS.encode("utf-16")), "not text")
    yield Case(reader, "Latin-1", content("Münster,1\n".encode("latin1")), "not text")
    yield Case(reader, "an incomplete character", content(LABELS.encode() + b"\xc3"), "not text")
    yield Case(reader, "a lone surrogate", content(b"\xed\xa0\x80,1\n"), "not text")
    yield Case(reader, "a pipe", lambda path: os.mkfifo(path))
    yield Case(reader, "a folder", lambda path: path.mkdir())
    yield Case(reader, "an endless device", lambda path: path.symlink_to("/dev/zero"))

    def hole(path: Path) -> None:
        path.touch()
        os.truncate(path, 10**12)

    yield Case(reader, "a sparse file of 10^12 bytes", hole, "too large")


def _labels() -> Iterator[Case]:
    texts = {
        "a header": ("exam,acl\n" + LABELS, "neither 0 nor 1"),
        "one field": ("0000\n", "invalid line"),
        "three fields": ("0000,1,1\n", "invalid line"),
        "no id": (",1\n", "invalid line"),
        "semicolons": ("0000;1\n", "invalid line"),
        "tabs": ("0000\t1\n", "invalid line"),
        "an id twice": (LABELS + "0000,1\n", "two labels"),
        "an id twice, spaced": (LABELS + " 0000 ,1\n", "two labels"),
        "label 2": ("0000,2\n", "neither 0 nor 1"),
        "label -1": ("0000,-1\n", "neither 0 nor 1"),
        "label 1.5": ("0000,1.5\n", "neither 0 nor 1"),
        "label nan": ("0000,nan\n", "neither 0 nor 1"),
        "label inf": ("0000,inf\n", "neither 0 nor 1"),
        "label 1 in Arabic": ("0000,\u0661\n", "neither 0 nor 1"),
        "label as text": ("0000,yes\n", "neither 0 nor 1"),
        "mixed line ends and a bad label": ("0000,1\r0001,0\r\n0002,2\n", "neither 0 nor 1"),
        "an open quote": ('0000,1\n"0001,0\n0002,1\n', "not valid CSV"),
        "text after a quote": ('"0000"x,1\n', "not valid CSV"),
        "a field of 200,000 characters": ("0" * 200_000 + ",1\n", "not valid CSV"),
        "an open quote before 3 MB": ('"' + "0,1\n" * 750_000, "not valid CSV"),
        "NUL": ("0000,\0\n", "neither 0 nor 1"),
        "a million commas": ("," * 1_000_000, "invalid line"),
        "a terminal escape sequence": ("0000,\x1b[2J\x1b]0;owned\x07\n", "neither 0 nor 1"),
        "300,000 exams, the last twice": (
            "".join(f"{i},1\n" for i in range(300_000)) + "299999,1\n",
            "two labels",
        ),
        "1,000,001 lines": ("0,1\n" * 1_000_001, "too large"),
    }
    for name, (text, message) in texts.items():
        yield Case("labels", name, content(text), message)


def _predictions() -> Iterator[Case]:
    head = "exam,acl\n"
    texts = {
        "empty": ("", "the wrong header"),
        "no header": ("0000,0.5\n", "the wrong header"),
        "no finding": ("exam\n0000\n", "the wrong header"),
        "a finding twice": ("exam,acl,acl\n0000,0,1\n", "named twice"),
        "a finding that is a path": ("exam,../../acl\n0000,1\n", "name can't be used"),
        "a finding of two words": ("exam,acl tear\n0000,1\n", "name can't be used"),
        "a finding called exam": ("exam,exam\n0000,1\n", "reserved name"),
        "only a header": (head, "no exam"),
        "an exam twice": (head + "0000,0\n0000,1\n", "can't be used"),
        "no exam id": (head + ",0.5\n", "can't be used"),
        "a blank exam id": (head + " ,0.5\n", "can't be used"),
        "one field too few": (head + "0000\n", "can't be used"),
        "one field too many": (head + "0000,0,1\n", "can't be used"),
        "an empty line": (head + "\n0000,1\n", "can't be used"),
        "NaN": (head + "0000,nan\n", "can't be used"),
        "infinity": (head + "0000,inf\n", "can't be used"),
        "1e999": (head + "0000,1e999\n", "can't be used"),
        "a negative number": (head + "0000,-0.1\n", "can't be used"),
        "above 1": (head + "0000,1.0000001\n", "can't be used"),
        "underscores": (head + "0000,0_1\n", "can't be used"),
        "Arabic digits": (head + "0000,\u0660.\u0665\n", "can't be used"),
        "hexadecimal": (head + "0000,0x1p-2\n", "can't be used"),
        "decimal comma": (head + '0000,"0,5"\n', "can't be used"),
        "an empty field": (head + "0000,\n", "can't be used"),
        "an open quote": (head + '"0000,0.5\n', "not valid CSV"),
        "a field of 200,000 characters": (head + "0000," + "0" * 200_000 + "\n", "not valid CSV"),
        "a digit repeated 100,000 times": (head + "0000," + "9" * 100_000 + "\n", "can't be used"),
        "NUL": (head + "0000,0\0\n", "can't be used"),
        "mixed line ends": ("exam,acl\r0000,1\r\n0001,2\n", "can't be used"),
        "a terminal escape sequence": ("\x1b[2J\x1b[31mexam,acl\n0000,1\n", "the wrong header"),
        "200,000 exams, the last twice": (
            head + "".join(f"{i},.5\n" for i in range(200_000)) + "199999,.5\n",
            "can't be used",
        ),
        "100,000 findings": (",".join(["exam", *(f"f{i}" for i in range(100_000))]) + "\n", ""),
    }
    for name, (text, message) in texts.items():
        yield Case("predictions", name, content(text), message)


def _listings() -> Iterator[Case]:
    texts = {
        "empty": ("", "empty"),
        "blank lines": ("\n \n\t\n", "empty"),
        "no plane": ("x/oblique/0000.npy\n", "the required form"),
        "another ending": (LISTING.replace(".npy", ".dcm"), "the required form"),
        "a plane twice": (LISTING + LISTING, "twice"),
        "a missing plane": ("x/axial/0000.npy\n", "is not listed"),
        "NUL": ("x/axial/\0.npy\n", ""),
        "a name of 100,000 characters": ("x/axial/" + "0" * 100_000 + ".npy\n", ""),
        "the ending of a pickle": ("x/axial/0000.pkl\n", "the required form"),
        "a terminal escape sequence": ("\x1b[2J/0000.npy\n", "the required form"),
    }
    for name, (text, message) in texts.items():
        yield Case("listing", name, content(text), message)


def _samples() -> Iterator[Case]:
    from mrknee.inference.rsna_submission import COLUMNS

    head, line = ",".join(COLUMNS) + "\n", "1.2" + ",0.5" * 12 + "\n"
    texts = {
        "empty": "",
        "blank lines": "\n\n",
        "no study": head,
        "other columns": "StudyInstanceUID,ACL\n1.2,0.5\n",
        "a short line": head + "1.2,0.5\n",
        "a study twice": head + line + line,
        "an open quote": head + '"' + line,
        "a field of 200,000 characters": head + "1" * 200_000 + line,
        "a terminal escape sequence": "\x1b[2J" + head + line,
        "200,000 studies, the last twice": head
        + "".join(f"{i}{',.5' * 12}\n" for i in range(200_000))
        + f"199999{',.5' * 12}\n",
    }
    for name, text in texts.items():
        yield Case("sample", name, content(text), "the sample submission can't be used")


def _parts() -> Iterator[Case]:
    yield Case("parts", "empty", content(""), "split of the run can't be read")
    yield Case(
        "parts",
        "the wrong header",
        content("id,part\n0000,train\n"),
        "split of the run can't be read",
    )
    yield Case("parts", "no part", content("exam,part\n0000\n"), "split of the run can't be read")
    yield Case(
        "parts", "unknown part", content("exam,part\n0000,test\n"), "split of the run can't be read"
    )
    yield Case(
        "parts", "an exam twice", content(PARTS + "0000,train\n"), "split of the run can't be read"
    )
