"""`mrknee import --series`: the best series of a study for each declared one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import generate_uid

from mrknee.cli import main
from mrknee.errors import DataError, MrkneeError, OutputError
from mrknee.exams import (
    MRNET_SERIES,
    Dataset,
    Exam,
    Series,
    SeriesList,
    read_series,
    write_series,
)
from mrknee.sources.clinical.importing import import_exams
from tests.sources.clinical.hospital import (
    PROTOCOL,
    ROOT,
    declared_knee,
    export_declared,
    export_series,
    export_study,
)
from tests.sources.six import SIX


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One study of six series."""
    return export_declared(tmp_path_factory.mktemp("export"), SIX)


def imported(source: Path, out: Path, series: SeriesList, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    """The record of the one exam of a source."""
    (exam,) = import_exams(source, out, series=series, workers=1, **options).exams.values()
    return dict(exam)


def rows_of(exam: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The record's row of the series chosen for each declared one."""
    rows = {row["name"]: row for row in exam["candidates"]}
    return {name: rows[plane["series"]] for name, plane in exam["planes"].items()}


def test_six_declared_series_become_an_exam(six: Path, tmp_path: Path) -> None:
    """Each series has its declared plane and contrast, and the folder declares the series."""
    out = tmp_path / "out"
    exam = imported(six, out, SIX)
    assert (exam["imported"], exam["missing"], exam["warnings"]) == (True, [], [])
    assert tuple(exam["planes"]) == SIX.names
    for name, row in rows_of(exam).items():
        declared = SIX.named(name)
        assert declared is not None
        properties = (row["plane"], row["weighting"], row["fat_saturated"])
        assert properties == (declared.plane, declared.weighting, declared.fat_suppressed)
        assert row["te_ms"] == declared_knee(SIX)[name][0].te
        assert row["reason"] == f"the closest to what {name} declares"
    assert read_series(out) == SIX
    (read,) = Dataset(out)
    assert read.series == SIX
    slices = {name: len(stack) for name, (_, stack) in declared_knee(SIX).items()}
    assert {name: len(stack) for name, stack in read.stacks.items()} == slices


def test_an_exam_from_dicom_has_the_declared_series(six: Path, tmp_path: Path) -> None:
    """`Exam.from_dicom(series=...)` gives the stacks that an import writes."""
    imported(six, tmp_path / "out", SIX)
    (read,) = Dataset(tmp_path / "out")
    exam = Exam.from_dicom(six, series=SIX)
    assert exam.series == SIX
    assert tuple(exam.stacks) == SIX.names
    for name, stack in exam.stacks.items():
        assert np.array_equal(stack, read.stacks[name])


def test_a_study_that_lacks_a_declared_series_is_refused_or_lacks_it(tmp_path: Path) -> None:
    """The axial PD series isn't used for T2; the reason is in the record and in the error."""
    source = export_declared(tmp_path / "in", SIX, without=["ax_t2", "cor_t1", "cor_pd_fs"])
    refused = imported(source, tmp_path / "refused", SIX)
    reason = (
        "no series for cor_pd_fs, cor_t1, ax_t2 (cor_pd_fs: no coronal series that can be used; "
        "cor_t1: no coronal series that can be used; ax_t2: no axial series is T2 without fat "
        "suppression: s3 is PD with fat suppression)"
    )
    assert (refused["imported"], refused["reason"], refused["planes"]) == (False, reason, {})
    assert refused["missing"] == ["cor_pd_fs", "cor_t1", "ax_t2"]
    with pytest.raises(DataError) as caught:
        Exam.from_dicom(source, series=SIX)
    assert (caught.value.code, caught.value.found) == ("study-refused", reason)
    taken = imported(source, tmp_path / "taken", SIX, allow_missing_plane=True)
    assert taken["imported"]
    assert taken["missing"] == ["cor_pd_fs", "cor_t1", "ax_t2"]
    assert taken["warnings"][-1] == (
        "ax_t2: missing: no axial series is T2 without fat suppression: "
        "s3 is PD with fat suppression"
    )
    (exam,) = Dataset(tmp_path / "taken", allow_missing_plane=True)
    assert tuple(exam.stacks) == ("sag_pd_fs", "sag_pd", "ax_pd_fs")


def test_the_last_repeat_is_used_and_an_earlier_one_replaces_it(tmp_path: Path) -> None:
    """The last repeat is used; if it can't be read, the earlier one is used and reported."""
    source = export_declared(tmp_path / "in", SIX)
    scan, stack = declared_knee(SIX)["cor_t1"]
    files = export_series(source, replace(scan, number=20), stack // 2)
    exam = imported(source, tmp_path / "whole", SIX)
    assert exam["planes"]["cor_t1"]["series"] == "s7"
    first = next(row for row in exam["candidates"] if row["name"] == "s4")
    assert first["status"] == "not chosen"
    assert first["reason"].startswith("s7 is closer to what cor_t1 declares by its series number")
    files[2].write_bytes(files[2].read_bytes()[:-500])
    exam = imported(source, tmp_path / "cut", SIX)
    assert exam["planes"]["cor_t1"]["series"] == "s4"
    (lack,) = exam["incomplete"]
    assert lack.startswith("cor_t1: s7 can't be used and was replaced by s4: ")


def test_a_series_of_unknown_contrast_is_used_only_for_any_contrast(tmp_path: Path) -> None:
    """A series of unknown weighting is used only for a declaration without weighting."""
    source = export_declared(tmp_path / "in", SIX, without=["cor_t1"])
    scan, stack = declared_knee(SIX)["cor_t1"]
    silent = {"EchoTime": None, "RepetitionTime": None, "ScanningSequence": None}
    export_series(source, replace(scan, name="COR", elements=silent), stack)
    exam = imported(source, tmp_path / "six", SIX)
    assert exam["missing"] == ["cor_t1"]
    assert "s4 is unknown without fat suppression" in exam["reason"]
    (row,) = (row for row in exam["candidates"] if row["name"] == "s4")
    assert row["reason"] == (
        "no coronal series is declared that is unknown without fat suppression"
    )
    any_coronal = SeriesList([*(one for one in SIX if one.name != "cor_t1"), Series("c", "cor")])
    exam = imported(source, tmp_path / "any", any_coronal)
    assert exam["planes"]["c"]["series"] == "s4"


def test_one_series_is_used_for_one_declared_series(six: Path, tmp_path: Path) -> None:
    """The more specific declaration gets a series; the other gets the next one, or none."""
    series = SeriesList([Series("sag", "sagittal"), Series("fs", "sagittal", None, True)])
    exam = imported(six, tmp_path / "two", series)
    assert rows_of(exam)["fs"]["fat_saturated"]
    assert not rows_of(exam)["sag"]["fat_saturated"]
    series = SeriesList([*series, Series("third", "sagittal", "PD")])
    exam = imported(six, tmp_path / "three", series, allow_missing_plane=True)
    assert exam["missing"] == ["sag"]
    assert exam["warnings"] == [
        "sag: missing: s1 is used for fs, s2 is used for third",
    ]


def test_one_declared_series_is_enough(six: Path, tmp_path: Path) -> None:
    """With a single declared series, the other planes are neither required nor read."""
    series = SeriesList([Series("t2", "axial", "T2", False)])
    exam = imported(six, tmp_path / "out", series)
    assert exam["imported"]
    assert list(exam["planes"]) == ["t2"]
    reasons = {row["plane"]: row["reason"] for row in exam["candidates"]}
    assert reasons["sagittal"] == "no sagittal series is declared"
    (read,) = Dataset(tmp_path / "out")
    assert list(read.stacks) == ["t2"]
    assert sorted(file.parent.name for file in tmp_path.rglob("*.npy")) == ["t2"]


def test_a_choice_is_for_a_declared_series(six: Path, tmp_path: Path) -> None:
    """A requested series is used for its declared series only, with a note on its contrast."""
    uid = generate_uid(ROOT, [f"study {declared_knee(SIX)['sag_pd_fs'][0].number}"])
    exam = imported(six, tmp_path / "out", SIX, choose=[f"sag_pd={uid}"], allow_missing_plane=True)
    assert (
        exam["planes"]["sag_pd"] | {"chosen_by": "you", "series": "s1"} == exam["planes"]["sag_pd"]
    )
    assert exam["missing"] == ["sag_pd_fs"]
    assert exam["warnings"] == [
        "sag_pd: PD with fat suppression, while PD without fat suppression is declared",
        "sag_pd_fs: missing: s1 is used for sag_pd",
    ]
    with pytest.raises(MrkneeError, match="series=SeriesInstanceUID") as caught:
        import_exams(six, tmp_path / "none", series=SIX, choose=[f"sagittal={uid}"])
    assert caught.value.code == "choice"


def test_an_import_of_another_declaration_is_refused(six: Path, tmp_path: Path) -> None:
    """An import with other series is refused; the same series complete what is missing."""
    out = tmp_path / "out"
    imported(six, out, SIX)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    for other in (SeriesList(SIX[:5]), SeriesList(reversed(SIX)), MRNET_SERIES):
        with pytest.raises(OutputError) as caught:
            import_exams(six, out, series=other)
        assert caught.value.code == "other-import"
    assert before == {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    (out / "cor_t1" / "0000.npy").unlink()
    (out / "series.csv").unlink()
    imported(six, out, SIX)
    assert before == {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}


@pytest.mark.parametrize("text", ["name,plane\nknee,sagittal\n", "broken"])
def test_a_list_next_to_the_folder_does_not_apply(tmp_path: Path, text: str) -> None:
    """With a `series.csv` next to OUT, OUT gets its own one."""
    export_study(tmp_path / "in")
    (tmp_path / "series.csv").write_text(text)
    exam = imported(tmp_path / "in", tmp_path / "out", MRNET_SERIES)
    (read,) = Dataset(tmp_path / "out")
    assert exam["imported"]
    assert read.series == MRNET_SERIES


def test_mrnets_import_is_as_before(tmp_path: Path) -> None:
    """Without a declaration there is no `series.csv`, and records are keyed by plane."""
    export_study(tmp_path / "in")
    exam = imported(tmp_path / "in", tmp_path / "out", MRNET_SERIES)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "axial",
        "coronal",
        "import.json",
        "sagittal",
    ]
    assert list(exam["planes"]) == ["axial", "coronal", "sagittal"]
    assert {row["reason"] for row in exam["candidates"]} == {"the closest to MRNet's protocol"}
    export_study(tmp_path / "two", scans=PROTOCOL[:2])
    exam = imported(tmp_path / "two", tmp_path / "lacks", MRNET_SERIES, allow_missing_plane=True)
    assert (exam["missing"], exam["warnings"]) == (["axial"], [])


def test_the_command_imports_and_checks_six_series(
    six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`mrknee import --series`, then `mrknee check` of what it wrote, end with status 0."""
    (tmp_path / "declared").mkdir()
    file = write_series(tmp_path / "declared", SIX)
    out = tmp_path / "out"
    assert main(["import", str(six), str(out), "--series", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "slices: sag_pd_fs " in printed
    assert json.loads((out / "import.json").read_text())["finished"]
    assert main(["check", str(out)]) == 0
    missing = ["import", str(six), str(tmp_path / "no"), "--series", str(tmp_path / "none.csv")]
    assert main(missing) == 1
    assert "none.csv" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
