"""Tables of RSNA's data set of 2026, and label tables of others."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from mrknee.errors import DataError
from mrknee.exams import RSNA_2026_FINDINGS, Plane
from mrknee.sources.rsna2026.tables import (
    SeriesRow,
    average,
    read_label_table,
    read_series_table,
    read_test,
    read_train,
)
from tests.sources.rsna2026.competition import TITLES

HEADER = ",".join(["StudyInstanceUID", "Report", *TITLES])
BLANK = "," * len(TITLES)


def write(folder: Path, text: str) -> Path:
    """A table."""
    file = folder / "table.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_train_has_more_lines_than_studies(tmp_path: Path) -> None:
    """Reports of several lines, with commas and quotes, are one field; labels are all or none."""
    labels = ",".join("1" if title == "ACL" else "0.0" for title in TITLES)
    text = f'{HEADER}\n1.2,"Knee,\n""left""\nACL: torn",{labels}\n1.3,"Right and left"{BLANK}\n'
    found = read_train(write(tmp_path, text + f"1.4,{BLANK}\n"))
    assert list(found) == ["1.2", "1.3", "1.4"]
    assert found["1.2"].labels == {name: float(name == "acl") for name in RSNA_2026_FINDINGS}
    assert found["1.3"].labels == {}
    assert [found[uid].side for uid in found] == ["left", None, None]
    assert found["1.4"].report is None


def test_equal_reports_have_equal_digests(tmp_path: Path) -> None:
    """Spaces, line breaks and case make no difference."""
    rows = f'1,"Normal\nknee."{BLANK}\n2,normal  KNEE. {BLANK}\n3,Normal{BLANK}\n'
    found = read_train(write(tmp_path, f"{HEADER}\n{rows}"))
    assert found["1"].report == found["2"].report != found["3"].report


def test_documented_columns_may_be_missing_and_others_present(tmp_path: Path) -> None:
    """PatientSex is documented and absent; a file with it, or without reports, is read."""
    labels = ",".join(TITLES)
    text = f"StudyInstanceUID,PatientSex,{labels}\n1.2,F{BLANK}\n"
    assert read_train(write(tmp_path, text))["1.2"].labels == {}
    with pytest.raises(DataError) as caught:
        read_train(write(tmp_path, "StudyInstanceUID,ACL\n1.2,1\n"))
    assert caught.value.code == "table"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Study,Report\n1.2,x\n",
        f"{HEADER}\n1.2,x{BLANK}\n1.2,y{BLANK}\n",  # twice
        f"{HEADER}\n../1.2,x{BLANK}\n",
        f"{HEADER}\n=1.2,x{BLANK}\n",
        f"{HEADER}\n1.2,x{BLANK},\n",  # a field too many
        f"{HEADER}\n1.2,x,0.5{BLANK[1:]}\n",  # an expert's label of 0.5
        f'{HEADER}\n1.2,"x{BLANK}\n',  # an open quote
    ],
)
def test_an_invalid_table_is_refused(text: str, tmp_path: Path) -> None:
    """One error that names the file; it never quotes a report."""
    with pytest.raises(DataError) as caught:
        read_train(write(tmp_path, text))
    assert caught.value.code == "table"
    assert caught.value.file == str(tmp_path / "table.csv")


@pytest.mark.parametrize("read", [read_train, read_test, read_series_table, read_label_table])
def test_a_table_without_a_header_is_not_quoted(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    """Its first line may be a report, with a name."""
    text = '1.2.3,"Maria Lopez, 54 y: rotura del LCA",1\n1.2.4,"normal",0\n'
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, text))
    assert "Lopez" not in str(caught.value)
    assert "1.2.3" not in str(caught.value)


def test_a_report_may_be_longer_than_csv_allows(tmp_path: Path) -> None:
    """Python's csv module has a limit of 131,072 characters, which is changed for the reading."""
    report = "word " * 40_000
    text = f"{HEADER}\n1.2,{report}{BLANK}\n"
    assert read_train(write(tmp_path, text))["1.2"].report is not None


def test_series_state_plane_and_fat_suppression(tmp_path: Path) -> None:
    """The flag for fat suppression is used, not the one for fluid; unknown values state nothing."""
    text = (
        "StudyInstanceUID,SeriesInstanceUID,Fluid_Sensitive,Fat_Suppression,Anatomical_Plane\n"
        "1,1.1a,1,0,Sagittal\n1,1.2,0,1,AXIAL\n2,2.1,1,,Oblique\n"
    )
    found = read_series_table(write(tmp_path, text))
    assert found["1"]["1.1A"] == SeriesRow(Plane.SAGITTAL, False)
    assert found["1"]["1.2"] == SeriesRow(Plane.AXIAL, True)
    assert found["2"]["2.1"] == SeriesRow(None, None)
    assert read_series_table(write(tmp_path, "StudyInstanceUID,SeriesInstanceUID\n1,2\n"))


def test_the_order_of_test_is_kept(tmp_path: Path) -> None:
    """Studies in the order of the file."""
    assert read_test(write(tmp_path, "StudyInstanceUID\n9\n1\n5\n")) == ["9", "1", "5"]


@pytest.mark.parametrize(
    ("column", "finding"),
    [
        ("ACL", "acl"),
        ("acl_tear", "acl"),
        ("Medial Meniscus", "medial_meniscus"),
        ("medial-meniscus", "medial_meniscus"),
        ("MedialMeniscus", "medial_meniscus"),
        ("Baker's", "bakers"),
        ("bakers_cyst", "bakers"),
        ("PF OA", "pf_oa"),
        ("patellofemoral_OA", "pf_oa"),
        ("bone bruise", "contusion"),
    ],
)
@pytest.mark.parametrize("key", ["StudyInstanceUID", "study_id", "id"])
def test_findings_are_recognised_in_any_spelling(
    column: str, finding: str, key: str, tmp_path: Path
) -> None:
    """Case, spaces, underscores and apostrophes make no difference; other columns are listed."""
    table = read_label_table(write(tmp_path, f"note,{key},{column}\nx,1.2,0.3\ny,1.3,\n"))
    assert table.labels == {finding: {"1.2": 0.3}}
    assert table.studies == ("1.2", "1.3")
    assert table.unused == ("note",)


@pytest.mark.parametrize(
    "text",
    [
        "id,note\n1,2\n",  # no finding
        "ACL,MCL\n1,0\n",  # no id
        "id,ACL,acl_tear\n1,0,1\n",  # two columns of a finding
        "id,ACL,Synovitits\n1,0,1\n",  # misspelt
        "id,ACL\n1,0\n1,0\n",  # a study twice
        "id,ACL\n1,2\n",
        "id,ACL\n1,-1\n",
        "id,ACL\n1,yes\n",
        "id,ACL\n1,inf\n",
    ],
)
def test_an_invalid_label_table_is_refused(text: str, tmp_path: Path) -> None:
    """A column that would be ignored by mistake, or an invalid label, is an error."""
    with pytest.raises(DataError) as caught:
        read_label_table(write(tmp_path, text))
    assert caught.value.code == "table"


def test_probabilities_are_averaged(tmp_path: Path) -> None:
    """Unknown labels and missing studies or columns don't change the mean of the others."""
    one = read_label_table(write(tmp_path, "id,ACL,MCL\n1,0.2,1\n2,nan,0\n"))
    two = read_label_table(write(tmp_path, "id,ACL\n1,0.4\n2,1\n3,0\n"))
    means = average([one, two])
    assert means["acl"] == {"1": pytest.approx(0.3), "2": 1.0, "3": 0.0}
    assert means["mcl"] == {"1": 1.0, "2": 0.0}
    assert means["fracture"] == {}
    assert not any(math.isnan(label) for labels in means.values() for label in labels.values())
