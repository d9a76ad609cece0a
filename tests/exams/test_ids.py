from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, Dataset, Findings, write_labels, write_stack
from mrknee.exams.ids import refuse_id
from mrknee.metrics.predictions import Predictions

GOOD = ["0000", "-5", "+12.5", "knee 7", 'a "quoted", id', "Müller-ß", "é", "膝0001", "a=b", "'=1"]
BAD = {
    "=1+1": "formula",
    "+A1": "formula",
    "-2+3": "formula",
    "@SUM(A1)": "formula",
    "\uff1d1": "formula",
    "\t=1": "U+0009",
    "a\rb": "U+000D",
    "a\nb": "U+000A",
    "a\x1b[2J": "U+001B",
    "a\u202eb": "U+202E",
    "a\u2028b": "U+2028",
    "\ufeff0000": "U+FEFF",
    " 0000": "space",
    "0000 ": "space",
    "": "empty",
    os.fsdecode(b"kn\xe4e"): "UTF-8",
}


@pytest.mark.parametrize("exam_id", GOOD)
def test_a_valid_id_is_kept_in_files_and_tables(exam_id: str, tmp_path: Path) -> None:
    """A valid id is read from a data set, written to tables and joined again."""
    for plane in PLANES:
        write_stack(tmp_path / "valid", plane, exam_id, np.ones((1, 4, 4), np.uint8))
    write_labels(tmp_path, "valid", "acl", {exam_id: 1.0})
    exams = Dataset.of_split(tmp_path, "valid")
    assert exams.ids == (exam_id,)
    assert exams.labels.tolist() == [[1.0]]
    Predictions(exams.ids, Findings(["acl"]), np.array([[0.5]])).write(tmp_path / "p.csv")
    assert Predictions.read(tmp_path / "p.csv").labels(tmp_path, "valid").tolist() == [[1.0]]


@pytest.mark.parametrize(("exam_id", "found"), BAD.items(), ids=map(ascii, BAD))
def test_an_invalid_id_is_refused(exam_id: str, found: str, tmp_path: Path) -> None:
    """An invalid id is refused before a table is written; the message is valid UTF-8."""
    with pytest.raises(MrkneeError, match="id can't be used") as caught:
        refuse_id(exam_id, Path(f"axial/{exam_id}.npy"))
    assert found in str(caught.value.found)
    str(caught.value).encode()
    with pytest.raises(MrkneeError, match="id can't be used"):
        Predictions((exam_id,), Findings(["acl"]), np.array([[0.5]])).write(tmp_path / "p.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [b"kn\xe4e.npy", b"=1+1.npy", b"a\rb.npy"])
def test_a_folder_with_an_invalid_id_is_refused(name: bytes, tmp_path: Path) -> None:
    """The folder is refused, with the file's name, before any exam is read."""
    for plane in PLANES:
        (tmp_path / plane).mkdir()
        file = os.path.join(os.fsencode(tmp_path / plane), name)  # noqa: PTH118  # bytes
        Path(os.fsdecode(file)).write_bytes(b"never read")
    with pytest.raises(MrkneeError, match="id can't be used") as caught:
        Dataset(tmp_path)
    assert str(caught.value.file).startswith(f"{tmp_path}/axial/")
