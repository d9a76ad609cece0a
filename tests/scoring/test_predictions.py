from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import Findings, write_labels
from mrknee.scoring.predictions import Predictions

TABLE = Predictions(
    ("0003", "0001"), Findings(["acl", "abnormal"]), np.array([[0.25, 1 / 3], [1.0, 0.0]])
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Ids, findings and probabilities come back, to nine digits."""
    path = tmp_path / "new" / "predictions.csv"
    TABLE.write(path)
    assert path.read_text().splitlines()[0] == "exam,abnormal,acl"
    read = Predictions.read(path)
    assert (read.ids, read.findings) == (TABLE.ids, TABLE.findings)
    np.testing.assert_allclose(read.probabilities, TABLE.probabilities, atol=1e-9)


def test_two_float32_numbers_stay_two(tmp_path: Path) -> None:
    """Neighbouring 32-bit probabilities are not written alike: rounding would make ties."""
    near = np.float32(0.7)
    column = np.array([[near], [np.nextafter(near, np.float32(1))]], dtype=np.float64)
    Predictions(("a", "b"), Findings(["acl"]), column).write(tmp_path / "p.csv")
    first, second = Predictions.read(tmp_path / "p.csv").probabilities[:, 0]
    assert np.float32(first) != np.float32(second)


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    """Columns are found by name (a peer's script writes them in another order unnoticed)."""
    (tmp_path / "p.csv").write_text("exam,meniscus,abnormal\n0000,0.1,0.9\n")
    read = Predictions.read(tmp_path / "p.csv")
    assert read.findings == ("abnormal", "meniscus")
    assert read.probabilities.tolist() == [[0.9, 0.1]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "id,acl\n0000,0.5\n",
        "exam\n0000\n",
        "exam,acl\n0000,1.5\n",
        "exam,acl\n0000,nan\n",
        "exam,acl\n0000,high\n",
        "exam,acl\n0000\n",
        "exam,acl\n0000,0.5,0.5\n",
        "exam,acl\n0000,0.5\n0000,0.5\n",
        "exam,acl,acl\n0000,0.5,0.5\n",
    ],
)
def test_what_is_no_table_of_predictions_is_refused(tmp_path: Path, text: str) -> None:
    """Another header, another form, an exam twice, or no probability: one clear error."""
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(MrkneeError):
        Predictions.read(tmp_path / "p.csv")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that isn't there is an error of our own type."""
    with pytest.raises(MrkneeError, match="missing"):
        Predictions.read(tmp_path / "p.csv")


def test_labels_are_joined_by_id_and_finding(tmp_path: Path) -> None:
    """In the predictions' order; a finding without labels is not known."""
    write_labels(tmp_path, "valid", "acl", {"0001": 1.0, "0003": np.nan})
    labels = TABLE.labels(tmp_path, "valid")
    np.testing.assert_array_equal(labels, [[np.nan, np.nan], [np.nan, 1.0]])


def test_other_exams_than_predicted_are_refused(tmp_path: Path) -> None:
    """Scoring a part of a split, or exams of another, would give a number of something else."""
    write_labels(tmp_path, "valid", "acl", dict.fromkeys(["0001", "0002", "0003"], 1.0))
    with pytest.raises(MrkneeError, match="no prediction for it") as error:
        TABLE.labels(tmp_path, "valid")
    assert error.value.exam == "0002"


def test_an_exam_without_a_label_is_not_known(tmp_path: Path) -> None:
    """As in training: no line at all means not known."""
    write_labels(tmp_path, "valid", "acl", {"0001": 1.0})
    labels = TABLE.labels(tmp_path, "valid")
    assert np.isnan(labels[0]).all()
    assert labels[1, 1] == 1.0


def test_no_label_file_is_an_error(tmp_path: Path) -> None:
    """The error says which files were looked for."""
    with pytest.raises(MrkneeError, match=r"valid-<finding>\.csv"):
        TABLE.labels(tmp_path, "valid")
