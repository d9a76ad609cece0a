"""`mrknee rsna`: RSNA's data set of 2026 becomes a data set with splits, labels, groups, sides."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1

from mrknee.cli import main
from mrknee.errors import DataError, OutputError, SettingsError
from mrknee.exams import (
    RSNA_2026_FINDINGS,
    USUAL_SERIES,
    Dataset,
    ExamSide,
    open_dataset,
    read_findings,
    read_groups,
    read_labels,
    read_series,
    read_sides,
)
from mrknee.sources.rsna2026.importing import import_rsna
from tests.sources.clinical.hospital import Scan
from tests.sources.rsna2026.competition import (
    LEFT,
    MIDDLE,
    RIGHT,
    SCANS,
    TITLES,
    Study,
    scan_of,
    write_competition,
    write_images,
)

SIX = [scan_of(name) for name in SCANS]
LABELS = dict.fromkeys(TITLES, 0) | {"ACL": 1, "Baker's": 1}


def two_knees() -> list[Scan]:
    """Sagittal and axial series of both knees, by the header; the right knee has one more."""
    return [
        scan_of("sagittal_fs", 1, Laterality="L", centre=LEFT),
        scan_of("axial_fs", 2, Laterality="L", centre=LEFT),
        scan_of("sagittal_fs", 3, Laterality="R", centre=RIGHT),
        scan_of("axial_fs", 4, Laterality="R", centre=RIGHT),
        scan_of("coronal_fs", 5, Laterality="R", centre=RIGHT),
    ]


def one(name: str = "sagittal_fs", **elements: Any) -> list[Scan]:  # noqa: ANN401
    """One series."""
    return [scan_of(name, **elements)]


STUDIES = {
    study.name: study
    for study in (
        Study("left", SIX, report='Knee.\nACL intact, said "a reader".\n'),
        # the tag is used, although the position says left
        Study(
            "right",
            [replace(s, elements={**s.elements, "Laterality": "R"}) for s in SIX],
            mirrored=True,
            report="another",
        ),
        Study("expert", one(BodyPartExamined="LIVER"), labels=LABELS, report="shared"),
        Study("words", one(SeriesDescription="right knee", centre=MIDDLE), report=" shared\n"),
        Study("geometry", one(centre=(-30.0, 0, 0)), report="a report"),
        Study("unknown", one(centre=MIDDLE), report="one more"),
        Study("both", two_knees(), report="ligaments"),
        Study("named", two_knees(), report="MRI of the left knee."),
        Study("gone", one()),
        Study("repeat", [*one(), scan_of("sagittal_fs", 9)]),
        Study(
            "table",
            [
                scan_of("sagittal_fs", 1, ScanOptions=None),  # the header is silent
                scan_of("sagittal_fs", 4, ScanOptions="PFP", SeriesDescription="SAG IDEAL"),
                scan_of("sagittal_fs", 5, SeriesDescription="SAG PD w/o FS", ScanOptions=None),
                scan_of("coronal_fs", 2),  # stated by the header, not by the table
                scan_of("axial_fs", 3),
            ],
            flags={1: "1", 2: "0", 4: "1", 5: "1"},
            planes={3: "Coronal"},
        ),
        Study("test", one("axial_fs"), test=True),
        Study("test both", two_knees(), test=True),
        Study("test jpeg", one(), test=True, syntax=JPEGLosslessSV1),
        Study("test jpeg 2000", one(), test=True, syntax=JPEG2000Lossless),
    )
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the competition."""
    root = write_competition(tmp_path_factory.mktemp("rsna"), STUDIES.values())
    gone = root / "train_series" / STUDIES["gone"].uid
    for file in gone.rglob("*.dcm"):
        file.unlink()
    for folder in sorted(gone.rglob("*"), reverse=True):
        folder.rmdir()
    gone.rmdir()
    repeat = STUDIES["repeat"]
    last = root / "train_series" / repeat.uid / repeat.series(repeat.scans[1])
    corrupt = sorted(last.iterdir())[4]
    corrupt.write_bytes(corrupt.read_bytes()[:-2000])
    return root


@pytest.fixture(scope="module")
def label_tables(source: Path) -> list[Path]:
    """Two tables of labels; the first contains the experts' labels too."""
    uids = [study.uid for study in STUDIES.values() if not study.test]
    one, two = source / "one.csv", source / "two.csv"
    with one.open("w", newline="") as file:
        rows = [[uid, "0.25", "1", "note"] for uid in uids]
        csv.writer(file).writerows([["StudyInstanceUID", "acl", "Baker_cyst", "comment"], *rows])
    with two.open("w", newline="") as file:
        rows = [[STUDIES["left"].uid, "0.75", ""], ["1.2.3", "1", "1"]]
        csv.writer(file).writerows([["study_id", "ACL", "BAKERS"], *rows])
    return [one, two]


@pytest.fixture(scope="module")
def out(source: Path, label_tables: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The imported data set."""
    folder = tmp_path_factory.mktemp("out")
    import_rsna(source, folder, labels=label_tables, size=96, workers=1)
    return folder


def record(out: Path, name: str) -> dict[str, Any]:
    """The record of a study."""
    exams = json.loads((out / "import.json").read_text())["exams"]
    return dict(exams[STUDIES[name].uid])


def stacks(out: Path, name: str) -> dict[str, np.ndarray]:
    """The stacks of a study."""
    split = record(out, name)["split"]
    files = (out / "data" / split).glob(f"*/{STUDIES[name].uid}.npy")
    return {file.parent.name: np.load(file) for file in files}


def labels_of(out: Path, split: str, finding: str) -> Mapping[str, float]:
    """Study's name -> label."""
    names = {study.uid: name for name, study in STUDIES.items()}
    read = read_labels(out / "data" / f"{split}-{finding}.csv", soft=True)
    return {names[uid]: label for uid, label in read.items()}


def test_the_folder_is_a_data_set(out: Path) -> None:
    """Exams, labels, series, findings and groups are read by `Dataset`; ids are study UIDs."""
    train = Dataset.of_split(out / "data", "train", allow_missing_plane=True, soft_labels=True)
    used = ["left", "right", "words", "geometry", "unknown", "named", "repeat", "table"]
    assert set(train.ids) == {STUDIES[name].uid for name in used}
    assert train.findings == ("acl", "bakers")
    assert dict(train.titles) == {"acl": "ACL", "bakers": "Baker's"}
    assert train.series == USUAL_SERIES == read_series(out / "data")
    assert read_findings(out / "data") == RSNA_2026_FINDINGS
    valid = Dataset.of_split(out / "data", "valid", allow_missing_plane=True)
    assert valid.ids == (STUDIES["expert"].uid,)
    assert valid.findings == tuple(RSNA_2026_FINDINGS)
    assert valid.labels.tolist() == [[LABELS[title] for title in TITLES]]
    test = Dataset(out / "data" / "test", allow_missing_plane=True)
    assert len(test) == 4
    assert train[STUDIES["left"].uid].stacks["sagittal_fs"].shape == (11, 96, 96)


def test_label_tables_are_averaged_and_experts_labels_stay_in_valid(out: Path) -> None:
    """Means of known labels; the expert-labelled study isn't in train, though a table has it."""
    acl, bakers = labels_of(out, "train", "acl"), labels_of(out, "train", "bakers")
    assert (acl["left"], bakers["left"]) == (0.5, 1.0)
    assert (acl["right"], bakers["right"]) == (0.25, 1.0)
    assert "expert" not in acl
    assert labels_of(out, "valid", "acl") == {"expert": 1.0}
    assert not (out / "data" / "train-mcl.csv").exists()


def test_the_six_series_are_chosen_by_contrast(out: Path) -> None:
    """Each of six series with a dummy description is used for what its header shows."""
    exam = record(out, "left")
    rows = {row["name"]: row for row in exam["candidates"]}
    assert tuple(exam["planes"]) == tuple(SCANS)
    for name, plane in exam["planes"].items():
        row = rows[plane["series"]]
        assert row["te_ms"] == SCANS[name].te
        assert row["fat_saturated"] == name.endswith("_fs")
        assert plane["pixel_mm"] == pytest.approx(140 / 96, abs=1e-3)


def test_slices_are_in_the_order_of_their_positions(out: Path) -> None:
    """File names are random UIDs; the stack is the phantom's, in its order."""
    stack = stacks(out, "left")["sagittal_fs"].astype(float)
    near = [np.abs(a - b).mean() for a, b in pairwise(stack)]
    far = [np.abs(stack[i] - stack[(i * 4 + 5) % 11]).mean() for i in range(11)]
    assert np.mean(near) < np.mean([value for value in far if value])


def test_a_right_knee_is_mirrored_to_its_left_twin(out: Path) -> None:
    """The mirrored images of a right knee equal those of the left knee, series by series."""
    left, right = stacks(out, "left"), stacks(out, "right")
    assert left.keys() == right.keys() == SCANS.keys()
    for name, stack in left.items():
        assert np.array_equal(stack, right[name])


@pytest.mark.parametrize(
    ("name", "side", "origin"),
    [
        ("left", "left", "its position in the scanner"),
        ("right", "right", "the header"),
        ("words", "right", "a description"),
        ("geometry", "right", "its position in the scanner"),
        ("unknown", None, "not stated"),
        ("named", "left", "each of its series states its side"),
    ],
)
def test_the_side_is_stated_by_header_words_or_position(
    out: Path, name: str, side: str | None, origin: str
) -> None:
    """Header before words before position, which counts beyond 20 mm; unknown isn't mirrored."""
    exam = record(out, name)
    assert (exam["side"], exam["side_from"]) == (side, origin)
    sides = read_sides(out / "data")
    assert sides is not None
    assert sides[STUDIES[name].uid] == ExamSide(side, side == "right")  # type: ignore[arg-type]


def test_a_contradiction_is_noted(out: Path) -> None:
    """The header says right, the position left: the header is used, and it is noted."""
    (note,) = [text for text in record(out, "right")["warnings"] if "side" in text]
    assert note == (
        "the side is that of the header: the header says right; "
        "its position in the scanner says left"
    )


def test_a_study_of_two_knees_is_used_if_it_is_known_which_is_labelled(out: Path) -> None:
    """Refused in train, unless the report names one side; in test, the fuller knee is used."""
    assert not record(out, "both")["imported"]
    assert "two knees" in record(out, "both")["reason"]
    assert set(stacks(out, "both")) == set()
    assert set(stacks(out, "named")) == {"sagittal_fs", "axial_fs"}
    assert record(out, "test both")["side"] == "right"
    assert set(stacks(out, "test both")) == {"sagittal_fs", "axial_fs", "coronal_fs"}
    assert record(out, "test both")["knees"] == 2


def test_a_corrupt_series_is_replaced_by_the_next_best(out: Path) -> None:
    """The last repeat is truncated: the first is used, and the exam is marked as incomplete."""
    exam = record(out, "repeat")
    assert exam["planes"]["sagittal_fs"]["series"] == "s1"
    assert exam["unreadable_series"] == 1
    assert "replaced by s1" in exam["incomplete"][0]


def test_the_table_of_series_is_used_where_the_header_is_silent(out: Path) -> None:
    """Otherwise the header is used, and each disagreement is recorded."""
    exam = record(out, "table")
    chosen = {name: plane["series"] for name, plane in exam["planes"].items()}
    expected = {"sagittal_fs": "s4", "coronal_fs": "s2", "axial_fs": "s3", "sagittal_nofs": "s5"}
    assert chosen == expected
    assert exam["disagreements"] == ["s2: fat suppression", "s3: plane", "s5: fat suppression"]


def test_the_body_part_is_ignored_and_recorded(out: Path) -> None:
    """A knee whose header says liver is imported."""
    exam = record(out, "expert")
    assert exam["imported"]
    assert exam["other_body_part"] == ["s1"]


def test_compressed_files_give_the_same_pixels(out: Path) -> None:
    """JPEG lossless and JPEG 2000, which the description of the data set allows."""
    expected = stacks(out, "geometry")["sagittal_fs"]
    for name in ("test jpeg", "test jpeg 2000"):
        found = stacks(out, name)["sagittal_fs"]
        assert np.array_equal(found, expected[::-1])  # a left knee, not mirrored


def test_groups_join_studies_of_a_report(out: Path) -> None:
    """Equal reports, apart from spaces, are one group; names of groups are numbers."""
    groups = read_groups(out / "data")
    assert groups is not None
    assert groups[STUDIES["expert"].uid] == groups[STUDIES["words"].uid]
    assert groups[STUDIES["left"].uid] != groups[STUDIES["right"].uid]
    assert all(group.startswith("group ") for group in groups.values())
    assert not groups.keys() & {study.uid for study in STUDIES.values() if study.test}


def test_scanners_are_groups(tmp_path: Path) -> None:
    """A rounded frequency distinguishes scanners of one model; a shared report joins scanners."""
    frequencies = {"a": 123.251, "b": 123.2493, "c": 123.31, "d": 63.87, "e": 63.92}
    studies = [
        Study(
            name,
            one(ManufacturerModelName="Model", MagneticFieldStrength=3, ImagingFrequency=value),
            report="shared" if name in "de" else name,
        )
        for name, value in frequencies.items()
    ]
    source = write_competition(tmp_path / "in", studies)
    import_rsna(source, tmp_path / "out", only="train", size=64, workers=1)
    groups = read_groups(tmp_path / "out" / "data")
    assert groups is not None
    names = [groups[study.uid] for study in studies]
    assert names == ["group 1", "group 1", "group 2", "group 3", "group 3"]


def test_no_report_and_no_identifier_is_written(out: Path) -> None:
    """Only study UIDs are in the output: no report, series UID, name or path of the source."""
    uids = {study.series(scan) for study in STUDIES.values() for scan in study.scans}
    planted = {"intact", "a reader", "shared", "ligaments", "plantagenet", "petronella", "19610203"}
    for file in out.rglob("*"):
        if file.is_file() and file.suffix != ".npy":
            text = file.read_text().lower()
            assert not [word for word in {*planted, *uids} if word in text]


def test_the_summary_names_what_was_left_out(
    source: Path, label_tables: list[Path], out: Path
) -> None:
    """Reasons, sides, groups, labels and unused columns are printed; nothing was read again."""
    again = import_rsna(source, out, labels=label_tables, size=96, workers=1)
    assert again.read == 0
    assert again.complete
    text = again.summary()
    for part in (
        "left out: 1 study of train: its folder is missing",
        "left out: 1 study of train: it shows two knees",
        "sides: left ",
        "mirrored to left",
        "1 series of 1 study: BodyPartExamined",
        "3 series of 1 study: header and table of series disagree",
        "1 series of 1 study: can't be read",
        "2 studies: several knees or examinations",
        "experts' labels: 1 study, split valid",
        "one.csv: columns not used: comment",
        "one.csv: 1 studies have experts' labels",
        "two.csv: 1 of 2 studies aren't in train.csv",
        "read 0 studies",
        "15 were imported before",
    ):
        assert part in text


def test_an_interrupted_import_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies that were written are kept; a changed one and an unfinished one are read again."""
    import mrknee.sources.rsna2026.study as module
    from mrknee.sources.clinical.study import read_study as read

    studies = [Study(name, one(), test=True) for name in "abc"]
    source = write_competition(tmp_path / "in", studies)
    calls: list[str] = []

    def stopped(*args: Any, **options: Any) -> object:  # noqa: ANN401
        calls.append("read")
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(*args, **options)

    monkeypatch.setattr(module, "read_study", stopped)
    with pytest.raises(KeyboardInterrupt):
        import_rsna(source, tmp_path / "out", only="test", size=64, workers=1)
    resumed = import_rsna(source, tmp_path / "out", only="test", size=64, workers=1)
    assert (resumed.read, len(calls)) == (1, 4)
    changed = next((source / "test_series" / studies[0].uid).rglob("*.dcm"))
    os.utime(changed, ns=(1, 1))
    assert import_rsna(source, tmp_path / "out", only="test", size=64, workers=1).read == 1


def test_parts_can_be_imported_one_after_the_other(tmp_path: Path) -> None:
    """An import of the test studies keeps what was imported of the others, and the reverse."""
    studies = [Study("a", one(), report="a"), Study("b", one(), test=True)]
    source = write_competition(tmp_path / "in", studies)
    import_rsna(source, tmp_path / "out", only="train", size=64, workers=1)
    both = import_rsna(source, tmp_path / "out", only="test", size=64, workers=1)
    assert {exam["split"] for exam in both.exams.values()} == {"train", "test"}
    sides = read_sides(tmp_path / "out" / "data")
    assert sides is not None
    assert len(sides) == 2
    assert read_groups(tmp_path / "out" / "data") == {studies[0].uid: "group 1"}


def test_labels_are_kept_without_tables(tmp_path: Path) -> None:
    """The same call without tables keeps the labels of the studies that are still imported."""
    studies = [Study(name, one(), report=name) for name in "ab"]
    source = write_competition(tmp_path / "in", studies)
    table = tmp_path / "labels.csv"
    lines = [f"{study.uid},0.25" for study in studies]
    table.write_text("\n".join(["StudyInstanceUID,ACL", *lines]))
    out = tmp_path / "out"
    import_rsna(source, out, labels=[table], only="train", size=64, workers=1)
    for file in (source / "train_series" / studies[0].uid).rglob("*.dcm"):
        file.write_bytes(b"damaged")
    again = import_rsna(source, out, only="train", size=64, workers=1)
    assert (out / "data" / "train-acl.csv").read_text() == f"{studies[1].uid},0.25\n"
    assert "labels of train: none" not in again.summary()
    assert len(open_dataset(out / "data", "train", allow_missing_plane=True, soft_labels=True)) == 1


def test_a_study_that_gets_experts_labels_cant_stay_in_train(tmp_path: Path) -> None:
    """The import into the folder where it is in train is refused, and nothing is changed."""
    study = Study("a", one())
    source = write_competition(tmp_path / "in", [study])
    import_rsna(source, tmp_path / "out", only="train", size=64, workers=1)
    write_competition(source, [replace(study, labels=LABELS)], images=False)
    before = (tmp_path / "out" / "import.json").read_text()
    with pytest.raises(OutputError) as caught:
        import_rsna(source, tmp_path / "out", only="train", size=64, workers=1)
    assert caught.value.code == "other-import"
    assert (tmp_path / "out" / "import.json").read_text() == before
    with pytest.raises(OutputError):  # another size
        import_rsna(source, tmp_path / "out", only="train", size=96, workers=1)


def test_folders_and_numbers_that_cant_be_used_are_refused(tmp_path: Path) -> None:
    """A missing table, a missing folder of studies, a study in both parts, a crop of 10 mm."""
    with pytest.raises(DataError, match="missing"):
        import_rsna(tmp_path, tmp_path / "out", workers=1)
    study = Study("a", one())
    source = write_competition(tmp_path / "in", [study], images=False)
    with pytest.raises(SettingsError, match="crop"):
        import_rsna(source, tmp_path / "out", crop_mm=10.0, workers=1)
    (source / "test_series").rmdir()
    with pytest.raises(DataError) as caught:
        import_rsna(source, tmp_path / "out", workers=1)
    assert caught.value.code == "no-source"
    write_competition(source, [study, replace(study, test=True)], images=False)
    with pytest.raises(DataError) as caught:
        import_rsna(source, tmp_path / "out", workers=1)
    assert (caught.value.code, caught.value.exam) == ("table", study.uid)
    assert not (tmp_path / "out").exists()


def test_the_command_fails_if_a_test_study_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its prediction would be missing from a submission; status 1, and the reason is printed."""
    source = write_competition(tmp_path / "in", [Study("a", one(), test=True)])
    arguments = ["rsna", str(source), str(tmp_path / "out"), "--only", "test", "--size", "64"]
    assert main(arguments) == 0
    assert "studies per second" in capsys.readouterr().out
    lacking = Study("b", one(), test=True)
    write_competition(source, [Study("a", one(), test=True), lacking], images=False)
    assert main(arguments) == 1
    assert "left out: 1 study of test: its folder is missing" in capsys.readouterr().out
    write_images(source, lacking)
    assert main(arguments) == 0
