"""Grouping of NIfTI files into exams by converters' names and JSON sidecars."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrknee.exams import PLANES, Plane
from mrknee.sources.clinical.importing import import_exams, in_id_order
from mrknee.sources.clinical.locate import Location
from mrknee.sources.clinical.nifti_names import nifti_studies
from mrknee.sources.clinical.scanning import scan_source
from mrknee.sources.clinical.study import Study
from tests.sources.clinical.hospital import Scan, knee
from tests.sources.clinical.test_nifti import write_nifti

STACKS = {plane: stack[:, ::8, ::8].astype(np.int16) * 4 for plane, stack in knee().items()}
MIDDLE = (0.0, 0.0, 0.0)


def volume(
    folder: Path,
    name: str,
    plane: Plane,
    sidecar: dict[str, Any] | None = None,
    *,
    labels: bool = False,
) -> Path:
    """Writes one volume of a plane and its JSON sidecar."""
    stack = (STACKS[plane] > 300).astype(np.uint8) if labels else STACKS[plane]
    path = write_nifti(folder / f"{name}.nii.gz", Scan(plane, centre=MIDDLE, pixel=1.0), stack)
    if sidecar is not None:
        (folder / f"{name}.json").write_text(json.dumps({"Modality": "MR", **sidecar}))
    return path


def studies(folder: Path) -> list[Study]:
    """Every study of a folder."""
    found, nameless = nifti_studies(Location(path) for path in sorted(folder.rglob("*.nii*")))
    assert nameless == []
    return found


NAMES = [
    # each: sagittal, coronal, axial
    (
        "knee_pd_tse_fs_sag_20200102030405_4",
        "knee_t1_tse_cor_20200102030405_5",
        "knee_pd_tse_fs_tra_20200102030405_6",
    ),
    ("P1_Sag_T2_FS_2020_4", "P1_Cor_T1_2020_5a", "P1_Ax_PD_2020_6_e1"),
    ("knee_sag", "knee_cor", "knee_ax"),
    ("P1-Sag-T2", "P1-Cor-T1", "P1-Ax-PD"),
    ("sub-01_acq-sag_T2w", "sub-01_acq-cor_T1w", "sub-01_acq-ax_PDw"),
    ("sagittal/0001", "coronal/0001", "axial/0001"),
    ("P1_sagittale", "P1_koronar", "P1_transversale"),
    ("P1_sag_3mm", "P1_cor_512x512", "P1_ax_4mm"),
    (
        "sub-01_ses-1_acq-sag_run-2_T2w",
        "sub-01_ses-1_acq-cor_T1w",
        "sub-01_ses-1_acq-ax_run-01_PDw",
    ),
    ("sub-01_acq-sag_rec-norm_T2w", "sub-01_acq-cor_desc-preproc_T1w", "sub-01_acq-ax_echo-1_PDw"),
]


@pytest.mark.parametrize("names", NAMES, ids=[names[0] for names in NAMES])
def test_files_of_one_exam(tmp_path: Path, names: tuple[str, str, str]) -> None:
    """Files that differ by plane, sequence and series number only are one exam."""
    order = (Plane.SAGITTAL, Plane.CORONAL, Plane.AXIAL)
    for name, plane in zip(names, order, strict=True):
        volume(tmp_path / "in" / Path(name).parent, Path(name).name, plane)
        other = name.replace("P1", "P2").replace("sub-01", "sub-02").replace("0001", "0002")
        other = other.replace("knee_", "other_")
        volume(tmp_path / "in" / Path(other).parent, Path(other).name, plane)
    found = studies(tmp_path / "in")
    assert len(found) == 2
    for study in found:
        planes = {one.plane for one in study.candidates if one.refusal is None}
        assert planes == set(PLANES)


def test_two_times_of_one_folder_are_two_exams(tmp_path: Path) -> None:
    """The study's time in dcm2niix's names separates examinations."""
    for time in ("20200102030405", "20210102030405"):
        volume(tmp_path, f"knee_t1_cor_{time}_5", Plane.CORONAL)
    assert len(studies(tmp_path)) == 2


def test_the_json_says_what_the_series_is(tmp_path: Path) -> None:
    """Weighting, times, fat saturation, sides and kind come from dcm2niix's sidecar."""
    facts = {
        "SeriesDescription": "A_SAG",
        "ProtocolName": "A_SAG",
        "ProcedureStepDescription": "MR KNEE LEFT",
        "BodyPartExamined": "KNEE",
        "SeriesNumber": 4,
        "EchoTime": 0.07,
        "RepetitionTime": 3.5,
        "ScanningSequence": "SE",
        "ScanOptions": "PFP_FS",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
        "ConversionSoftware": "dcm2niix",
    }
    volume(tmp_path, "x_A_SAG_2020_4", Plane.SAGITTAL, facts)
    (study,) = studies(tmp_path)
    (one,) = study.candidates
    assert (one.plane, one.weighting, one.fat_saturated) == (Plane.SAGITTAL, "T2", True)
    assert (one.series.first.te_ms, one.series.first.tr_ms) == (70.0, 3500.0)
    assert study.side == "left"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "derived"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase"),
        ({"SeriesDescription": "localizer"}, "a localiser"),
        ({"BodyPartExamined": "ANKLE"}, "another body part"),
    ],
)
def test_the_json_refuses_what_a_header_would(
    tmp_path: Path, facts: dict[str, Any], reason: str
) -> None:
    """A converted localiser, map or other body part is refused like the DICOM series."""
    volume(tmp_path, "x_pd_sag_2020_4", Plane.SAGITTAL, facts)
    (study,) = studies(tmp_path)
    assert reason in str(study.candidates[0].refusal)


def test_names_of_the_protocol_and_number_are_taken_out_of_the_file_name(tmp_path: Path) -> None:
    """Words that the JSON states about the series are removed from the exam's name."""
    for number, plane in enumerate(PLANES, start=3):
        name = f"Weird {plane.value} Thing"
        facts = {"SeriesDescription": name, "ProtocolName": name, "SeriesNumber": number}
        volume(tmp_path, f"{number:02d}_{name.replace(' ', '_')}_P7", plane, facts)
    (study,) = studies(tmp_path)
    assert {one.plane for one in study.candidates} == set(PLANES)


def test_the_study_uid_of_the_json_comes_first(tmp_path: Path) -> None:
    """Sidecars with identifiers group files by study and patient, whatever their names."""
    for index, plane in enumerate(PLANES):
        volume(tmp_path, f"{index}_{plane}", plane, {"StudyInstanceUID": "1.2", "PatientID": "A"})
    volume(tmp_path, "9_sag", Plane.SAGITTAL, {"StudyInstanceUID": "1.2", "PatientID": "B"})
    assert sorted(len(study.candidates) for study in studies(tmp_path)) == [1, 3]


def test_a_plane_that_is_not_named_is_taken_from_the_slices(tmp_path: Path) -> None:
    """Files of dcm2niix need no plane's name, since slices are along their third axis."""
    for number, plane in enumerate(PLANES):
        volume(tmp_path, f"knee_pd_tse_fs_2020_{number}", plane)
    (study,) = studies(tmp_path)
    assert {one.plane for one in study.candidates if one.refusal is None} == set(PLANES)


def test_the_best_of_several_series_of_a_plane_is_taken(tmp_path: Path) -> None:
    """Files of one exam and plane are ranked like DICOM series; phase images are refused."""
    for number, (name, plane) in enumerate(
        [
            *(("pd_cor", Plane.CORONAL), ("t1_cor", Plane.CORONAL), ("t2_fs_sag", Plane.SAGITTAL)),
            *(("pd_fs_tra", Plane.AXIAL), ("t2_fs_tra", Plane.AXIAL)),
        ]
    ):
        volume(tmp_path / "in", f"knee_{name}_2020_{number}", plane)
    volume(tmp_path / "in", "knee_t1_cor_2020_9_ph", Plane.CORONAL)
    exam = import_exams(tmp_path / "in", tmp_path / "out").exams["0000"]
    assert exam["imported"]
    rows = {row["name"]: row for row in exam["candidates"]}
    chosen = {plane: rows[about["series"]]["weighting"] for plane, about in exam["planes"].items()}
    assert chosen == {"sagittal": "T2", "coronal": "T1", "axial": "PD"}
    assert exam["warnings"] == []


@pytest.mark.parametrize("word", ["seg", "mask", "label", "labels", "Segmentation", "roi1"])
def test_masks_next_to_images_are_refused(tmp_path: Path, word: str) -> None:
    """A file named as a mask belongs to its exam and is refused in it with the reason."""
    for plane in PLANES:
        volume(tmp_path / "in", f"knee_{plane}", plane)
        volume(tmp_path / "in", f"knee_{plane}_{word}", plane, labels=True)
    imported = import_exams(tmp_path / "in", tmp_path / "out")
    assert imported.complete
    (exam,) = imported.exams.values()
    refused = [row["reason"] for row in exam["candidates"] if row["status"] == "refused"]
    assert refused == ["a mask or a label image, not an image"] * 3


def test_a_mask_by_its_values_alone_is_refused(tmp_path: Path) -> None:
    """A mask without a mask's name is recognised by its values."""
    for plane in PLANES:
        volume(tmp_path / "in", f"knee_{plane}", plane, labels=plane is Plane.AXIAL)
    (exam,) = import_exams(tmp_path / "in", tmp_path / "out").exams.values()
    assert not exam["imported"]
    assert "a mask or a label image" in exam["reason"]


def test_sidecars_in_a_zip_and_broken_ones(tmp_path: Path) -> None:
    """A sidecar in a zip is used; one that can't be read is ignored."""
    facts = {"SeriesDescription": "T2 SAG", "EchoTime": 0.08, "RepetitionTime": 4.0}
    path = volume(tmp_path, "knee_x_2020_4", Plane.SAGITTAL, facts)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(path, "a/b.nii.gz")
        archive.write(path.with_name("knee_x_2020_4.json"), "a/b.json")
    ((study,), _) = nifti_studies([Location(tmp_path / "in.zip", "a/b.nii.gz")])
    assert study.candidates[0].series.first.te_ms == 80.0
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "in.zip", "sent/in.zip")
    inside = Location(tmp_path / "outer.zip", "sent/in.zip", "a/b.nii.gz")
    ((study,), _) = nifti_studies([inside])
    assert study.candidates[0].series.first.te_ms == 80.0
    path.with_name("knee_x_2020_4.json").write_text("{broken")
    (study,) = studies(tmp_path)
    assert study.candidates[0].series.first.te_ms is None


def test_ids_do_not_depend_on_the_place_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exams have the same ids from another folder, by a relative path, and from a zip."""
    for number in range(5):
        for plane in PLANES:
            volume(tmp_path / "one" / "data" / f"P{number}", f"knee_{plane}", plane)
    shutil.copytree(tmp_path / "one" / "data", tmp_path / "other" / "place")
    shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path / "one" / "data")
    monkeypatch.chdir(tmp_path / "one")
    orders = []
    for source in (
        tmp_path / "one" / "data",
        tmp_path / "other" / "place",
        Path("data"),
        tmp_path / "zipped.zip",
    ):
        studies = in_id_order(scan_source(source, 1))
        orders.append([one.candidates[0].series.first.location.name.parent.name for one in studies])
    assert orders[0] == orders[1] == orders[2] == orders[3]
    assert orders[0] != sorted(orders[0])


def test_files_without_a_plane_are_listed_in_the_map(tmp_path: Path) -> None:
    """Each is counted once, as left out, and named with the reason."""
    for plane in PLANES:
        volume(tmp_path / "in", f"knee_{plane}", plane)
    volume(tmp_path / "in", "scan1", Plane.AXIAL)
    found = import_exams(tmp_path / "in", tmp_path / "out", keep_map=tmp_path / "map.json")
    (reason,) = found.unreadable
    left = json.loads((tmp_path / "map.json").read_text())["left out"]
    assert left == {str(tmp_path / "in" / "scan1.nii.gz"): reason}
    counts = json.loads((tmp_path / "out" / "import.json").read_text())["files"]
    assert (counts["nifti"], counts["unreadable"]) == (3, 1)


def test_knees_of_both_sides_are_two_exams(tmp_path: Path) -> None:
    """Left and right in names, or in sidecars of one study, are separate exams."""
    for plane in PLANES:
        for side in ("left", "right"):
            volume(tmp_path / "names", f"{side}_knee_{plane}", plane)
            facts = {"StudyInstanceUID": "1.2", "SeriesDescription": f"{plane} {side} knee"}
            volume(tmp_path / "json", f"{plane}_{side}", plane, facts)
    for folder in ("names", "json"):
        found = studies(tmp_path / folder)
        assert sorted(str(study.side) for study in found) == ["left", "right"]


def test_a_file_without_a_plane_in_its_name_belongs_to_the_others(tmp_path: Path) -> None:
    """A converter's file without a plane's name belongs to the exam of the other files."""
    names = ("x_knee_t2_fs_2020_4", "x_knee_cor_t1_2020_5", "x_knee_ax_pd_2020_6")
    order = (Plane.SAGITTAL, Plane.CORONAL, Plane.AXIAL)
    for name, plane in zip(names, order, strict=True):
        volume(tmp_path, name, plane)
    (study,) = studies(tmp_path)
    assert {one.plane for one in study.candidates if one.refusal is None} == set(PLANES)


def test_derived_files_of_bids_are_refused_in_their_exam(tmp_path: Path) -> None:
    """Masks, maps and phase images with BIDS names don't become separate exams."""
    volume(tmp_path, "sub-01_acq-sag_T2w", Plane.SAGITTAL)
    volume(tmp_path, "sub-01_acq-sag_label-femur_desc-manual_mask", Plane.SAGITTAL, labels=True)
    volume(tmp_path, "sub-01_acq-sag_T2map", Plane.SAGITTAL)
    volume(tmp_path, "sub-01_acq-sag_part-phase_GRE", Plane.SAGITTAL)
    (study,) = studies(tmp_path)
    assert sum(one.refusal is None for one in study.candidates) == 1


def test_both_knees_of_a_bids_subject_are_two_exams(tmp_path: Path) -> None:
    """Sides in BIDS names, as hemi- or as a word, separate knees."""
    for plane in PLANES:
        volume(tmp_path, f"sub-01_acq-{plane}_hemi-L_T2w", plane)
        volume(tmp_path, f"sub-01_acq-{plane}_hemi-R_T2w", plane)
    assert sorted(str(study.side) for study in studies(tmp_path)) == ["left", "right"]


def test_a_letter_is_a_side_only_if_the_other_one_exists(tmp_path: Path) -> None:
    """Names that differ by L and R are of two knees; an R alone may mean a repeat."""
    for plane in PLANES:
        for name in ("k1_L", "k1_R", "k2_R"):
            volume(tmp_path, f"{name}_{plane}", plane)
    assert sorted(str(study.side) for study in studies(tmp_path)) == ["None", "left", "right"]


def test_a_sidecar_of_another_plane_is_ignored(tmp_path: Path) -> None:
    """A JSON file that names another plane than the volume is ignored, with a note."""
    volume(tmp_path, "k_sag", Plane.SAGITTAL, {"SeriesDescription": "COR T1", "EchoTime": 0.012})
    (study,) = studies(tmp_path)
    (one,) = study.candidates
    assert one.series.first.te_ms is None
    assert one.series.notes == ("the JSON file next to it names another plane and was ignored",)
