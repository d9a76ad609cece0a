from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import Findings, Remark, write_labels
from mrknee.metrics.predictions import Predictions, align

TABLE = Predictions(
    ("0003", "0001"), Findings(["acl", "abnormal"]), np.array([[0.25, 1 / 3], [1.0, 0.0]])
)


def test_write_and_read(tmp_path: Path) -> None:
    """Ids, findings and probabilities are preserved, to nine digits."""
    path = tmp_path / "new" / "predictions.csv"
    TABLE.write(path)
    assert path.read_text().splitlines()[0] == "exam,acl,abnormal"
    read = Predictions.read(path)
    assert (read.ids, read.findings) == (TABLE.ids, TABLE.findings)
    np.testing.assert_allclose(read.probabilities, TABLE.probabilities, atol=1e-9)


def test_float32_neighbours_stay_different(tmp_path: Path) -> None:
    """Neighbouring 32-bit probabilities are written differently, so that no ties arise."""
    near = np.float32(0.7)
    column = np.array([[near], [np.nextafter(near, np.float32(1))]], dtype=np.float64)
    Predictions(("a", "b"), Findings(["acl"]), column).write(tmp_path / "p.csv")
    first, second = Predictions.read(tmp_path / "p.csv").probabilities[:, 0]
    assert np.float32(first) != np.float32(second)


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    """Columns are identified by name, and the order of the file is kept."""
    (tmp_path / "p.csv").write_text("exam,meniscus,abnormal\n0000,0.1,0.9\n")
    read = Predictions.read(tmp_path / "p.csv")
    assert read.findings == ("meniscus", "abnormal")
    assert read.probabilities.tolist() == [[0.1, 0.9]]
    assert read["abnormal"].tolist() == [0.9]


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
def test_invalid_tables_are_rejected(tmp_path: Path, text: str) -> None:
    """A wrong header or format, a repeated exam or an invalid probability raises an error."""
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(MrkneeError):
        Predictions.read(tmp_path / "p.csv")


def test_missing_file_is_reported(tmp_path: Path) -> None:
    """A missing file raises an MrkneeError."""
    with pytest.raises(MrkneeError, match="missing"):
        Predictions.read(tmp_path / "p.csv")


def test_labels_are_joined_by_id_and_finding(tmp_path: Path) -> None:
    """Labels follow the order of the predictions; findings without labels are unknown."""
    write_labels(tmp_path, "valid", "acl", {"0001": 1.0, "0003": np.nan})
    labels = TABLE.labels(tmp_path, "valid")
    np.testing.assert_array_equal(labels, [[np.nan, np.nan], [1.0, np.nan]])


def test_labels_of_other_exams_are_rejected(tmp_path: Path) -> None:
    """Scoring part of a split, or exams of another split, raises an error."""
    write_labels(tmp_path, "valid", "acl", dict.fromkeys(["0001", "0002", "0003"], 1.0))
    with pytest.raises(MrkneeError, match="have no prediction") as error:
        TABLE.labels(tmp_path, "valid")
    assert error.value.exam == "0002"


def test_exam_without_a_label_is_unknown(tmp_path: Path) -> None:
    """An exam that isn't in the label file is unknown, as in training."""
    write_labels(tmp_path, "valid", "acl", {"0001": 1.0})
    labels = TABLE.labels(tmp_path, "valid")
    assert np.isnan(labels[0]).all()
    assert labels[1, 0] == 1.0


def test_no_label_file_is_an_error(tmp_path: Path) -> None:
    """The error states which files were expected."""
    with pytest.raises(MrkneeError, match=r"valid-<finding>\.csv"):
        TABLE.labels(tmp_path, "valid")


def three_single_task_files(folder: Path) -> str:
    """Writes single-finding files in different orders of exams; one finding occurs twice."""
    (folder / "a.csv").write_text("exam,abnormal\n0001,0.1\n0002,0.2\n")
    (folder / "b.csv").write_text("exam,acl\n0002,0.6\n0001,0.5\n")
    (folder / "c.csv").write_text("exam,meniscus,acl\n0001,0.9,0.1\n0002,0.8,0.2\n")
    return ",".join(str(folder / name) for name in ("a.csv", "b.csv", "c.csv"))


def test_several_files_are_one_model(tmp_path: Path) -> None:
    """Findings are joined by exam id; a finding in two files is averaged."""
    read = Predictions.read_joined(three_single_task_files(tmp_path))
    assert read.ids == ("0001", "0002")
    assert read.findings == ("abnormal", "acl", "meniscus")
    np.testing.assert_allclose(read.probabilities, [[0.1, 0.3, 0.9], [0.2, 0.4, 0.8]])


def test_one_file_is_one_table(tmp_path: Path) -> None:
    """A spec without a comma, or that is the name of an existing file, is one file."""
    for name in ("p.csv", "fold 1,2.csv"):
        TABLE.write(tmp_path / name)
        read = Predictions.read_joined(str(tmp_path / name))
        np.testing.assert_allclose(read.probabilities, TABLE.probabilities, atol=1e-9)


def test_an_ensemble_is_the_mean() -> None:
    """Tables of the same findings are averaged, in any order of exams."""
    other = Predictions(TABLE.ids[::-1], TABLE.findings, TABLE.probabilities[::-1] / 2)
    joined = Predictions.joined([TABLE, other])
    assert joined.ids == TABLE.ids
    np.testing.assert_allclose(joined.probabilities, TABLE.probabilities * 0.75)


def test_files_of_different_exams_are_not_joined(tmp_path: Path) -> None:
    """Joining files of different exams raises an error that names the exam and both files."""
    spec = three_single_task_files(tmp_path)
    (tmp_path / "b.csv").write_text("exam,acl\n0002,0.6\n0009,0.5\n")
    with pytest.raises(MrkneeError, match=r"different exams[\s\S]*a\.csv and .*b\.csv") as error:
        Predictions.read_joined(spec)
    assert error.value.exam == "0001"
    with pytest.raises(MrkneeError, match="in table 1, not in table 2"):
        Predictions.joined([TABLE, Predictions(("0003",), TABLE.findings, np.zeros((1, 2)))])


@pytest.mark.parametrize("spec", ["a.csv,", "a.csv,,b.csv", "a.csv,a.csv", "a.csv, a.csv"])
def test_empty_or_repeated_file_names_are_rejected(spec: str) -> None:
    """A repeated file or a trailing comma raises an error."""
    with pytest.raises(MrkneeError, match="each once"):
        Predictions.read_joined(spec)


def test_joining_no_tables_is_rejected() -> None:
    """Joining no tables raises an error."""
    with pytest.raises(MrkneeError, match="no predictions"):
        Predictions.joined([])


def test_models_are_aligned() -> None:
    """Tables are aligned to the first one's exams and the common findings, with notes."""
    ids, findings = ("0001", "0003"), Findings(["cyst", "abnormal", "acl"])
    other = Predictions(ids, findings, np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]))
    (first, second), notes = align(["one", "two"], [TABLE, other])
    np.testing.assert_array_equal(first.probabilities, TABLE.probabilities)
    assert (second.ids, second.findings) == (TABLE.ids, TABLE.findings)
    np.testing.assert_array_equal(second.probabilities, [[0.6, 0.5], [0.3, 0.2]])
    assert notes == ("excluded, because not all models have it: cyst (two)",)


def test_models_of_different_exams_or_findings_are_rejected() -> None:
    """Different exams, or no common finding, raise an error."""
    more = Predictions(
        (*TABLE.ids, "0007"), TABLE.findings, np.vstack([TABLE.probabilities, [[0, 0]]])
    )
    with pytest.raises(MrkneeError, match="in two, not in one") as error:
        align(["one", "two"], [TABLE, more])
    assert error.value.exam == "0007"
    cyst = Predictions(TABLE.ids, Findings(["cyst"]), np.zeros((2, 1)))
    with pytest.raises(MrkneeError, match="no finding in common"):
        align(["one", "two"], [TABLE, cyst])


@pytest.mark.parametrize("name", ["exam", "mean"])
def test_columns_with_a_reserved_name_are_rejected(tmp_path: Path, name: str) -> None:
    """A finding can't have the name of the id column or of the mean."""
    (tmp_path / "p.csv").write_text(f"exam,acl,{name}\n0000,0.1,0.9\n")
    with pytest.raises(MrkneeError, match="reserved name"):
        Predictions.read(tmp_path / "p.csv")


def test_table_without_exams_is_rejected(tmp_path: Path) -> None:
    """A table with only a header raises an error that names the cause."""
    (tmp_path / "p.csv").write_text("exam,acl\n")
    with pytest.raises(MrkneeError, match="contains no exams"):
        Predictions.read(tmp_path / "p.csv")


def test_labels_without_exams_keep_their_columns(tmp_path: Path) -> None:
    """Without exams, the labels still have one column per finding."""
    (tmp_path / "valid-acl.csv").write_text("")
    none = Predictions((), TABLE.findings, np.zeros((0, 2)))
    assert none.labels(tmp_path, "valid").shape == (0, 2)


def test_ids_are_the_same_in_predictions_and_labels(tmp_path: Path) -> None:
    """Ids with a comma or a quotation mark are preserved in both kinds of files."""
    ids = ("knee, left", 'the "other" one')
    Predictions(ids, Findings(["acl"]), np.array([[0.1], [0.9]])).write(tmp_path / "p.csv")
    write_labels(tmp_path, "valid", "acl", {ids[1]: 1.0, ids[0]: 0.0})
    labels = Predictions.read(tmp_path / "p.csv").labels(tmp_path, "valid")
    assert labels.tolist() == [[0.0], [1.0]]


def test_singular_and_plural_in_errors(tmp_path: Path) -> None:
    """The error for an invalid line uses singular and plural correctly."""
    for header, line, numbers in (("acl", "2", "a number"), ("acl,cyst", "2,2", "2 numbers")):
        (tmp_path / "p.csv").write_text(f"exam,{header}\n0000,{line}\n")
        with pytest.raises(MrkneeError, match=f"and {numbers} from 0 to 1"):
            Predictions.read(tmp_path / "p.csv")


def test_columns_may_be_in_any_case(tmp_path: Path) -> None:
    """`ACL` is acl; an invalid column raises an error that names the file."""
    path = tmp_path / "p.csv"
    path.write_text("Exam,ACL, Abnormal\n0000,0.1,0.9\n")
    read = Predictions.read(str(path))
    assert read.findings == ("acl", "abnormal")
    assert read.probabilities.tolist() == [[0.1, 0.9]]
    for header in ("exam,ACL,acl", "exam,acl tear", "exam,acl,"):
        path.write_text(f"{header}\n0000,0.1,0.9\n")
        with pytest.raises(MrkneeError, match="column") as error:
            Predictions.read(path)
        assert error.value.file == str(path)


@pytest.mark.parametrize(("labelled", "predicted"), [("130", "0130"), ("0130", "130")])
def test_lost_leading_zeros_are_explained(tmp_path: Path, labelled: str, predicted: str) -> None:
    """If ids lost leading zeros, the error names both files and explains the difference."""
    write_labels(tmp_path, "valid", "acl", {labelled: 1.0})
    Predictions((predicted,), Findings(["acl"]), np.array([[0.5]])).write(tmp_path / "p.csv")
    with pytest.raises(MrkneeError, match="have no prediction") as error:
        Predictions.read(tmp_path / "p.csv").labels(tmp_path, "valid")
    assert error.value.file == str(tmp_path / "valid-acl.csv")
    found = error.value.found or ""
    assert f"{labelled!r} resembles {predicted!r}" in found
    assert "leading zeros" in found
    assert str(tmp_path / "p.csv") in found


def test_tables_with_different_leading_zeros_are_explained() -> None:
    """If ids of two tables differ by leading zeros, the error explains the difference."""
    tables = [Predictions((i,), Findings(["acl"]), np.array([[0.5]])) for i in ("0130", "130")]
    with pytest.raises(MrkneeError, match="different exams") as error:
        align(["a", "b"], tables)
    assert "leading zeros" in (error.value.found or "")


def test_accents_in_ids_are_joined(tmp_path: Path) -> None:
    """A decomposed id in the table matches the composed one in the labels."""
    write_labels(tmp_path, "valid", "acl", {"M\u00fcller": 1.0})
    (tmp_path / "p.csv").write_text("exam,acl\nMu\u0308ller,0.5\n", encoding="utf-8")
    assert Predictions.read(tmp_path / "p.csv").labels(tmp_path, "valid").tolist() == [[1.0]]


def test_remarks_are_written_next_to_the_table(tmp_path: Path) -> None:
    """Remarks are written next to the table; those of an earlier run are removed."""
    remark = Remark("all-zero", "axial", "each of its 9 pixels is 0")
    odd = replace(TABLE, remarks={"0003": (remark, Remark("other-axes", None, "a, b"))})
    path = tmp_path / "p.csv"
    assert odd.write_remarks(str(path)) == tmp_path / "p-remarks.csv"
    assert (tmp_path / "p-remarks.csv").read_text() == (
        "exam,series,code,remark\n0003,axial,all-zero,each of its 9 pixels is 0\n"
        '0003,,other-axes,"a, b"\n'
    )
    assert TABLE.write_remarks(path) is None
    assert not (tmp_path / "p-remarks.csv").exists()
    (tmp_path / "p-remarks.csv").write_text("exam,plane,code,remark\n")  # of earlier versions
    assert TABLE.write_remarks(path) is None
    assert not (tmp_path / "p-remarks.csv").exists()
    (tmp_path / "p-remarks.csv").write_text("my remarks\n")
    assert TABLE.write_remarks(path) is None
    assert (tmp_path / "p-remarks.csv").exists()
