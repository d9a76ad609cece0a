from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian

from mrknee.cli import main
from mrknee.errors import MrkneeError
from mrknee.exams import RSNA_2026_FINDINGS
from mrknee.sources.clinical.importing import import_exams
from mrknee.sources.clinical.protocol import candidates
from mrknee.sources.clinical.scanning import scan_source
from mrknee.sources.clinical.series import sort_into_series
from mrknee.sources.phantom.rsna.cohort import sites_of, write_rsna_cohort
from mrknee.sources.phantom.rsna.dicom import SYNTAXES, Syntax, write_series
from mrknee.sources.phantom.rsna.study import draw_study, write_study

pytestmark = pytest.mark.slow

TRAIN, TEST, SEED, SIZE, FACTOR = 4, 2, 2, 48, 0.25
ID = "StudyInstanceUID"
LABELS = [
    *("ACL", "MCL", "Medial Meniscus", "Lateral Meniscus", "Medial OA", "Lateral OA", "PF OA"),
    *("Effusion", "Synovitis", "Baker's", "Contusion", "Fracture"),
]


def write(out: Path, **changes: float) -> None:
    """Writes a small data set with one worker."""
    arguments: dict[str, Any] = {
        "train": TRAIN,
        "test": TEST,
        "seed": SEED,
        "size": SIZE,
        "slice_factor": FACTOR,
        "workers": 1,
    }
    write_rsna_cohort(out, **{**arguments, **changes})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small data set; read-only."""
    root = tmp_path_factory.mktemp("rsna") / "set"
    write(root)
    return root


def table(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def contents(root: Path) -> dict[str, bytes]:
    """All files with their bytes."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def series_of(cohort: Path, split: str) -> list[tuple[dict[str, str], list[Dataset]]]:
    """Rows of the table of series, each with the headers of its files."""
    return [
        (
            row,
            [
                dcmread(file)
                for file in sorted(
                    (cohort / f"{split}_series" / row[ID] / row["SeriesInstanceUID"]).iterdir()
                )
            ],
        )
        for row in table(cohort / f"{split}_series.csv")
    ]


# --- tables


def test_tables_have_the_columns_of_the_real_ones(cohort: Path) -> None:
    """Columns, order and spelling; test.csv has ids only; the submission has 12 columns."""
    assert list(RSNA_2026_FINDINGS.values()) == LABELS
    for name, columns in (
        ("train.csv", [ID, "Report", *LABELS]),
        ("test.csv", [ID]),
        ("sample_submission.csv", [ID, *LABELS]),
        *(
            (
                f"{split}_series.csv",
                [
                    *(ID, "SeriesInstanceUID", "Fluid_Sensitive", "Fat_Suppression"),
                    "Anatomical_Plane",
                ],
            )
            for split in ("train", "test")
        ),
    ):
        with (cohort / name).open(newline="", encoding="utf-8") as file:
            assert next(csv.reader(file)) == columns
    assert len(table(cohort / "train.csv")) == TRAIN
    tests = [row[ID] for row in table(cohort / "test.csv")]
    assert len(tests) == TEST
    assert [row[ID] for row in table(cohort / "sample_submission.csv")] == tests


def test_only_some_training_studies_have_labels(cohort: Path) -> None:
    """One study in ten has all twelve labels, which are the truth; the others have none."""
    truth = {row[ID]: row for row in table(cohort / "truth" / "labels.csv")}
    assert len(truth) == TRAIN + TEST
    labelled = 0
    for row in table(cohort / "train.csv"):
        values = [row[label] for label in LABELS]
        assert row["Report"].count("\n") > 5
        if any(values):
            labelled += 1
            assert values == [truth[row[ID]][label] for label in LABELS]
            assert set(values) <= {"0", "1"}
    assert labelled == 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_folders_hold_what_the_table_of_series_lists(cohort: Path, split: str) -> None:
    """Every listed series has a folder and no other; its plane is that of its orientation."""
    listed = {(row[ID], row["SeriesInstanceUID"]) for row, _ in series_of(cohort, split)}
    folders = (cohort / f"{split}_series").glob("*/*")
    assert {(folder.parent.name, folder.name) for folder in folders} == listed
    for row, files in series_of(cohort, split):
        along, down = np.reshape([float(v) for v in files[0].ImageOrientationPatient], (2, 3))
        axis = int(np.abs(np.cross(along, down)).argmax())
        assert row["Anatomical_Plane"] == ("Sagittal", "Coronal", "Axial")[axis]


def test_label_tables_are_as_competitors_share_them(cohort: Path) -> None:
    """Probabilities with titles; rules with other names, and the experts' labels where known."""
    first, second = (
        {row[ID]: row for row in table(cohort / "label_tables" / f"{name}.csv")}
        for name in ("language_model", "rules")
    )
    training = table(cohort / "train.csv")
    assert set(first) == set(second) == {row[ID] for row in training}
    for row in training:
        assert all(0.0 <= float(first[row[ID]][label]) <= 1.0 for label in LABELS)
        assert all(second[row[ID]][name] in ("0", "1", "") for name in RSNA_2026_FINDINGS)
        if row["ACL"]:
            assert [second[row[ID]][name] for name in RSNA_2026_FINDINGS] == [
                row[label] for label in LABELS
            ]


# --- DICOM files


def test_files_have_the_elements_of_the_real_ones(cohort: Path) -> None:
    """Positions, spacing and times are there; nothing of institution, station, date or age."""
    for row, files in series_of(cohort, "train"):
        names = {path.stem for path in _folder(cohort, "train", row).iterdir()}
        assert names == {str(file.SOPInstanceUID) for file in files}
        for file in files:
            assert row[ID] == file.StudyInstanceUID
            assert row["SeriesInstanceUID"] == file.SeriesInstanceUID
            for name in ("ImagePositionPatient", "PixelSpacing", "InstanceNumber", "EchoTime"):
                assert name in file
            for name in ("InstitutionName", "StationName", "ProtocolName", "StudyDate"):
                assert name not in file
            for name in ("PatientName", "PatientBirthDate", "PatientAge", "AccessionNumber"):
                assert name not in file
            assert file.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
            assert file.PhotometricInterpretation == "MONOCHROME2"
            assert file.BitsAllocated == 16
        numbers = sorted(int(file.InstanceNumber) for file in files)
        assert numbers == list(range(1, len(files) + 1))
        assert 690 <= max(int(file.pixel_array.max()) for file in files) <= 8736


def _folder(cohort: Path, split: str, row: dict[str, str]) -> Path:
    return cohort / f"{split}_series" / row[ID] / row["SeriesInstanceUID"]


def test_series_are_read_as_they_were_planned(cohort: Path) -> None:
    """Mrknee's reader finds plane and weighting of every series, and fat suppression if stated."""
    sites = sites_of(SEED)
    for index in range(TRAIN):
        study = draw_study(
            SEED, "train", index, sites, enriched=False, size=SIZE, slice_factor=FACTOR
        )
        scan = scan_source(cohort / "train_series" / study.uid, 1)
        found = {one.series.first.series: one for one in candidates(sort_into_series(scan.images))}
        for series in study.series:
            one, planned = found[series.uid], series.planned
            assert one.plane == planned.plane
            assert one.weighting == (
                "gradient echo" if planned.weighting == "GRE" else planned.weighting
            )
            assert len(one.series.images) == planned.acquisition.slices
            if series.stated:
                assert bool(one.fat_saturated) == planned.fat_suppressed


def test_a_lesion_is_at_one_place_in_all_series(tmp_path: Path) -> None:
    """The centre of a contusion's mask in patient coordinates agrees among planes within 6 mm."""
    sites = sites_of(SEED)
    study = next(
        study
        for study in (
            draw_study(SEED, "train", i, sites, enriched=False, size=64, slice_factor=1.0)
            for i in range(500)
        )
        if "bakers" in study.present
        and not any(s.planned.three_d or s.corrupt for s in study.series)
    )
    masks = write_study(study, 64, tmp_path)
    centres = []
    for series, one in masks.items():
        mask = one["bakers"]
        files = [dcmread(file) for file in (tmp_path / series).iterdir()]
        number = {int(file.InstanceNumber): file for file in files}
        planned = next(s.planned for s in study.series if s.uid == series)
        order = range(len(files), 0, -1) if planned.reversed else range(1, len(files) + 1)
        slices, rows, cols = (axis.mean() for axis in np.nonzero(mask))
        first = number[order[round(slices)]]
        along, down = np.reshape([float(v) for v in first.ImageOrientationPatient], (2, 3))
        spacing = float(first.PixelSpacing[0])
        corner = np.array([float(v) for v in first.ImagePositionPatient])
        centres.append(corner + spacing * (cols * along + rows * down))
    assert len(centres) >= 3
    assert np.abs(np.array(centres) - np.mean(centres, axis=0)).max() < 6.0


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_transfer_syntax_holds_the_same_pixels(tmp_path: Path, syntax: Syntax) -> None:
    """Implicit little endian, JPEG Lossless and JPEG 2000 are read as what was written."""
    study = draw_study(1, "test", 0, sites_of(1), enriched=True, size=64, slice_factor=0.3)
    series = study.series[0]
    edge, count = series.planned.edge, series.planned.acquisition.slices
    pixels = np.random.default_rng(0).integers(0, 4000, (count, edge, edge)).astype(np.uint16)
    files = write_series(
        tmp_path / "series",
        study.header,
        series.planned,
        series.uid,
        1,
        "PD",
        pixels,
        np.random.default_rng(1),
        syntax=syntax,
    )
    for file, image in zip(files, pixels, strict=True):
        dataset = dcmread(file)
        assert dataset.file_meta.TransferSyntaxUID == SYNTAXES[syntax]
        assert np.array_equal(dataset.pixel_array, image)


def test_a_corrupt_series_has_truncated_files(tmp_path: Path) -> None:
    """Some files of a corrupt series can't be decoded; the study's other series can."""
    sites = sites_of(SEED)
    study = next(
        study
        for study in (
            draw_study(SEED, "train", i, sites, enriched=False, size=32, slice_factor=0.2)
            for i in range(1000)
        )
        if any(series.corrupt for series in study.series)
    )
    write_study(study, 32, tmp_path)
    for series in study.series:
        broken = 0
        for file in (tmp_path / series.uid).iterdir():
            try:
                decoded = dcmread(file).pixel_array
                assert decoded.ndim == 2
            except (ValueError, AttributeError, EOFError):
                broken += 1
        assert (broken > 0) == series.corrupt


# --- truth


def test_masks_lie_in_the_series_grid(cohort: Path) -> None:
    """Present findings have a mask in each series, of its shape; absent findings have none."""
    truth = {row[ID]: row for row in table(cohort / "truth" / "labels.csv")}
    for split in ("train", "test"):
        for row, files in series_of(cohort, split):
            uid = row["SeriesInstanceUID"]
            with np.load(cohort / "truth" / "masks" / f"{row[ID]}.npz") as masks:
                own = {name.split("/")[1]: masks[name] for name in masks if name.startswith(uid)}
            assert set(own) == {
                name for name, title in RSNA_2026_FINDINGS.items() if truth[row[ID]][title] == "1"
            }
            for mask in own.values():
                assert mask.dtype == np.uint8
                assert mask.shape == (len(files), files[0].Rows, files[0].Columns)
                assert mask.max() <= 1


def test_every_present_finding_is_marked_somewhere(cohort: Path) -> None:
    """In each study, each present finding has a mask that is not empty in one series or more."""
    for file in (cohort / "truth" / "masks").iterdir():
        with np.load(file) as masks:
            largest: dict[str, int] = {}
            for name in masks:
                finding = name.split("/")[1]
                largest[finding] = max(largest.get(finding, 0), int(masks[name].sum()))
        assert all(largest.values())


def test_the_truth_names_every_study(cohort: Path) -> None:
    """Site, language, side and lesions are recorded for every study."""
    rows = table(cohort / "truth" / "studies.csv")
    lesions = json.loads((cohort / "truth" / "lesions.json").read_text())
    assert [row["split"] for row in rows] == ["train"] * TRAIN + ["test"] * TEST
    assert {row[ID] for row in rows} == set(lesions)
    assert {row["side"] for row in rows} <= {"left", "right"}


# --- writing


def test_an_interrupted_run_is_resumed_with_the_same_bytes(cohort: Path, tmp_path: Path) -> None:
    """Lost, partial and emptied studies and missing tables are written again, identically."""
    copy = tmp_path / "copy"
    shutil.copytree(cohort, copy)
    first, second, third, fourth = sorted((copy / "train_series").iterdir())
    shutil.rmtree(first)
    second.rename(second.with_name(f".partial-{second.name}"))
    next(third.glob("*/*.dcm")).write_bytes(b"")
    (copy / "truth" / "masks" / f"{fourth.name}.npz").write_bytes(b"")
    (copy / "train.csv").unlink()
    write(copy)
    assert contents(copy) == contents(cohort)


def test_another_set_is_refused(cohort: Path) -> None:
    """A folder with other parameters is refused and left unchanged."""
    before = contents(cohort)
    with pytest.raises(MrkneeError) as caught:
        write(cohort, seed=SEED + 1)
    assert caught.value.code == "other-phantom"
    assert contents(cohort) == before


@pytest.mark.parametrize(
    "wrong", [{"train": 0, "test": 0}, {"test": -1}, {"size": 8}, {"slice_factor": 0.1}]
)
def test_invalid_arguments_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """No studies, tiny images and invalid factors raise before anything is written."""
    with pytest.raises(MrkneeError):
        write(tmp_path / "set", **wrong)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("--layout rsna2026 --train 1", "--test"),
        ("--train 1", "--valid"),
        ("--layout rsna2026 --train 1 --test 1 --valid 1", "--valid"),
        ("--layout rsna2026 --train 1 --test 1 --fov-factor 0.8", "--fov-factor"),
        ("--train 1 --valid 1 --test 1", "--test"),
    ],
)
def test_options_of_the_other_layout_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, found: str
) -> None:
    """Each layout requires its own options and refuses the other's; nothing is written."""
    assert main(["phantom", str(tmp_path / "set"), *words.split()]) == 1
    assert found in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_the_command_line_writes_a_set_that_imports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`mrknee phantom --layout rsna2026` writes studies that `mrknee import`'s reader accepts."""
    out = tmp_path / "set"
    words = "--layout rsna2026 --train 1 --test 0 --size 64 --slice-factor 0.5 --seed 5"
    assert main(["phantom", str(out), *words.split()]) == 0
    assert "1 training and 0 test studies" in capsys.readouterr().out
    imported = import_exams(out / "train_series", tmp_path / "exams", any_body_part=True)
    assert len(imported.exams) == 1
