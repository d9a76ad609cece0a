"""`mrknee import`: exports become exams, without anything that identifies patients."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, generate_uid

from mrknee.errors import MrkneeError
from mrknee.exams import MRNET_SERIES, PLANES, Dataset, Plane
from mrknee.sources.clinical import importing, writing
from mrknee.sources.clinical.importing import import_exams
from mrknee.sources.clinical.scanning import scan_source
from mrknee.sources.clinical.study import Study, read_study
from tests.processes import run_mrknee
from tests.sources.clinical.expectation import framed, near
from tests.sources.clinical.hospital import (
    PLANTED,
    PROTOCOL,
    ROOT,
    SECRETS,
    Scan,
    datasets,
    enhanced,
    export_series,
    export_study,
    knee,
    screenshot,
    write,
)

pytestmark = pytest.mark.slow

SAGITTAL = PROTOCOL[0]


def run(*words: object) -> CompletedProcess[str]:
    """Runs the command in a separate process."""
    return run_mrknee("import", *words)


def record(out: Path) -> dict[str, Any]:
    """The content of import.json."""
    content: dict[str, Any] = json.loads((out / "import.json").read_text())
    return content


def zip_of(folder: Path, path: Path) -> Path:
    """A folder's files in a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One study of MRNet's protocol, with a localiser and a screenshot."""
    folder = export_study(tmp_path_factory.mktemp("export"))
    for plane in PLANES:
        scan = Scan(plane, 1, "localizer", elements={"SeriesInstanceUID": ROOT + "99"})
        export_series(folder, scan, knee()[plane][4:7])
    screenshot(folder)
    (folder / "README.txt").write_text("exported by a scanner")
    return folder


@pytest.mark.parametrize("kind", ["folder", "zip", "DICOMDIR"])
def test_a_study_becomes_an_exam(source: Path, tmp_path: Path, kind: str) -> None:
    """A folder, zip or DICOMDIR gives three framed planes and a record of all candidates."""
    given = source
    if kind == "zip":
        given = zip_of(source, tmp_path / "export.zip")
    elif kind == "DICOMDIR":
        given = source / "DICOMDIR"
        given.touch()
    imported = import_exams(given, tmp_path / "out")
    assert imported.complete
    (exam,) = Dataset(tmp_path / "out")
    content = record(tmp_path / "out")
    assert content["finished"]
    assert content["exams"]["0000"]["side"] == "right"
    for plane in PLANES:
        about = content["exams"]["0000"]["planes"][plane]
        assert near(exam.stacks[plane], framed(knee()[plane], about["joint"]))
    status = [(row["status"], row["plane"]) for row in content["exams"]["0000"]["candidates"]]
    assert sorted(status) == sorted(
        [("chosen", plane) for plane in PLANES]
        + [("refused", plane) for plane in (*PLANES, Plane.AXIAL)]
    )
    assert content["files"]["dicom"] == 43
    assert content["exams"]["0000"]["warnings"] == []


def test_however_it_was_acquired_and_stored_the_exam_is_the_same(tmp_path: Path) -> None:
    """Flipped axes, other transfer syntaxes and one file per series give the same stacks."""
    export_study(tmp_path / "plain")
    sagittal, coronal, axial = PROTOCOL
    odd = tmp_path / "odd"
    export_series(odd, replace(sagittal, turned=(True, False, True)), syntax=ExplicitVRBigEndian)
    export_series(odd, replace(coronal, turned=(True, True, False)), syntax=JPEG2000Lossless)
    turned = replace(axial, transposed=True, turned=(True, False, False))
    write(enhanced(knee()[Plane.AXIAL].astype(np.uint16) * 16, turned), odd / "all")
    import_exams(tmp_path / "plain", tmp_path / "a")
    import_exams(odd, tmp_path / "b")
    (one,), (other,) = Dataset(tmp_path / "a"), Dataset(tmp_path / "b")
    for plane in PLANES:
        np.testing.assert_array_equal(one.stacks[plane], other.stacks[plane])


def test_a_left_knee_is_recorded_and_not_mirrored(tmp_path: Path) -> None:
    """The side of a left knee is recorded; its pixels are not mirrored."""
    left = [replace(scan, centre=(80.0, 0.0, 0.0)) for scan in PROTOCOL]
    export_study(tmp_path / "left", scans=left)
    export_study(tmp_path / "right")
    import_exams(tmp_path / "left", tmp_path / "l")
    import_exams(tmp_path / "right", tmp_path / "r")
    assert record(tmp_path / "l")["exams"]["0000"]["side"] == "left"
    (one,), (other,) = Dataset(tmp_path / "l"), Dataset(tmp_path / "r")
    np.testing.assert_array_equal(one.stacks[Plane.AXIAL], other.stacks[Plane.AXIAL])


def test_both_knees_in_one_study_become_two_exams(tmp_path: Path) -> None:
    """No exam contains planes of both knees."""
    for side, code in (("LEFT", "L"), ("RIGHT", "R")):
        for scan in PROTOCOL:
            number = scan.number + (10 if side == "LEFT" else 0)
            elements = {**scan.elements, "Laterality": code}
            export_series(tmp_path / "in", replace(scan, number=number, elements=elements))
    imported = import_exams(tmp_path / "in", tmp_path / "out")
    assert imported.complete
    assert {exam["side"] for exam in imported.exams.values()} == {"left", "right"}
    for exam in imported.exams.values():
        refused = [row["reason"] for row in exam["candidates"] if row["status"] == "refused"]
        assert refused == ["the other knee"] * 3


def test_a_series_of_the_other_knee_cant_be_requested(tmp_path: Path) -> None:
    """`--choose` changes the exam of the knee that the series shows, and not the other one."""
    series = {}
    for side, code, x_mm in (("left", "L", 80.0), ("right", "R", -80.0)):
        for scan in PROTOCOL:
            number = scan.number + (10 if side == "left" else 0)
            elements = {**scan.elements, "Laterality": code}
            centre = (x_mm, *scan.centre[1:])
            placed = replace(scan, number=number, elements=elements, centre=centre)
            export_series(tmp_path / "in", placed)
            series[side, scan.plane] = str(generate_uid(ROOT, [f"study {number}"]))
    asked = series["left", Plane.SAGITTAL]
    imported = import_exams(tmp_path / "in", tmp_path / "out", choose=[f"sagittal={asked}"])
    by_side = {exam["side"]: exam["planes"]["sagittal"] for exam in imported.exams.values()}
    assert by_side["left"]["chosen_by"] == "you"
    assert by_side["right"]["chosen_by"] == "the rule"
    assert by_side["left"]["series"] != by_side["right"]["series"]


def test_a_batch_continues_after_a_refused_study(tmp_path: Path) -> None:
    """A brain, an incomplete study and a good one give one exam, two reasons and status 1."""
    brain = [replace(scan, elements={"BodyPartExamined": "BRAIN"}) for scan in PROTOCOL]
    export_study(tmp_path / "in", "brain", brain)
    export_study(tmp_path / "in", "sagittal only", PROTOCOL[:1])
    export_study(tmp_path / "in", "good")
    done = run(tmp_path / "in", tmp_path / "out")
    assert done.returncode == 1, done.stderr
    assert "wrote 1 of 3 exams" in done.stdout
    exams = record(tmp_path / "out")["exams"].values()
    reasons = sorted(exam["reason"] or "" for exam in exams)
    assert reasons[0] == ""
    assert reasons[1] == "no series for the planes axial, coronal"
    assert "another body part" in reasons[2]
    assert len(list((tmp_path / "out").rglob("*.npy"))) == 3


def test_another_body_part_is_accepted_on_request(tmp_path: Path) -> None:
    """--any-body-part accepts a knee tagged LIVER with a note, but not one described so."""
    liver = {"BodyPartExamined": "LIVER"}
    export_study(tmp_path / "in", "tagged", [replace(s, elements=liver) for s in PROTOCOL])
    described = {**liver, "StudyDescription": "MRI ABDOMEN"}
    export_study(tmp_path / "in", "described", [replace(s, elements=described) for s in PROTOCOL])
    imported = import_exams(tmp_path / "in", tmp_path / "strict")
    assert not any(exam["imported"] for exam in imported.exams.values())
    done = run(tmp_path / "in", tmp_path / "out", "--any-body-part")
    assert done.returncode == 1, done.stderr
    exams = record(tmp_path / "out")["exams"].values()
    (tagged,) = (exam for exam in exams if exam["imported"])
    assert tagged["warnings"][:3] == [
        f"{plane}: the header names another body part than the knee" for plane in PLANES
    ]
    (other,) = (exam for exam in exams if not exam["imported"])
    assert "its description names another body part" in other["reason"]
    with pytest.raises(MrkneeError, match="with other options"):
        import_exams(tmp_path / "in", tmp_path / "out")


def test_missing_planes_are_accepted_on_request(tmp_path: Path) -> None:
    """--allow-missing-plane imports the present planes, and the record lists the missing ones."""
    export_series(tmp_path / "in", SAGITTAL)
    done = run(tmp_path / "in", tmp_path / "out", "--allow-missing-plane")
    assert done.returncode == 0, done.stderr
    assert record(tmp_path / "out")["exams"]["0000"]["missing"] == ["axial", "coronal"]
    (exam,) = Dataset(tmp_path / "out", allow_missing_plane=True)
    assert list(exam.stacks) == [Plane.SAGITTAL]


def test_a_choice_overrides_the_rule(tmp_path: Path) -> None:
    """--choose uses a series that the rule refuses; the map contains its UID."""
    derived = replace(SAGITTAL, number=9, elements={"ImageType": ["DERIVED", "SECONDARY"]})
    export_study(tmp_path / "in")
    export_series(tmp_path / "in", derived, (255 - knee()[Plane.SAGITTAL]).astype(np.uint16))
    import_exams(tmp_path / "in", tmp_path / "rule", keep_map=tmp_path / "map.json")
    rows = record(tmp_path / "rule")["exams"]["0000"]["candidates"]
    (name,) = (row["name"] for row in rows if row["status"] == "refused")
    uid = json.loads((tmp_path / "map.json").read_text())["0000"]["series"][name]
    done = run(tmp_path / "in", tmp_path / "chosen", "--choose", f"sagittal={uid}")
    assert done.returncode == 0, done.stderr
    exam = record(tmp_path / "chosen")["exams"]["0000"]
    assert exam["planes"]["sagittal"]["chosen_by"] == "you"
    assert exam["planes"]["sagittal"]["series"] == name
    (stack,) = Dataset(tmp_path / "chosen")
    joint = exam["planes"]["sagittal"]["joint"]
    assert near(stack.stacks[Plane.SAGITTAL], framed(255 - knee()[Plane.SAGITTAL], joint))


@pytest.mark.parametrize("choice", ["sagittal", "sagittal=", "front=1.2", "sagittal=1.2.3"])
def test_an_impossible_choice_is_refused(source: Path, tmp_path: Path, choice: str) -> None:
    """A choice without a plane or a series of the source is refused before anything is written."""
    with pytest.raises(MrkneeError, match=r"choice|chosen"):
        import_exams(source, tmp_path / "out", choose=[choice])
    assert not (tmp_path / "out").exists()


def test_the_next_best_series_replaces_a_damaged_one(tmp_path: Path) -> None:
    """If the chosen series can't be decoded, the next one is used and the damage is reported."""
    export_study(tmp_path / "in")
    files = export_series(tmp_path / "in", replace(SAGITTAL, number=8))
    content = files[3].read_bytes()
    files[3].write_bytes(content[:-1000])
    imported = import_exams(tmp_path / "in", tmp_path / "out")
    exam = imported.exams["0000"]
    assert exam["imported"]
    reasons = {row["reason"] for row in exam["candidates"] if row["status"] == "refused"}
    assert len(reasons) == 1
    assert "truncated" in reasons.pop()


def test_files_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    """A broken DICOM file is counted and makes the import incomplete; the exam is imported."""
    export_study(tmp_path / "in")
    (tmp_path / "in" / "broken").write_bytes(bytes(128) + b"DICM" + b"\xff" * 300)
    imported = import_exams(tmp_path / "in", tmp_path / "out")
    assert imported.exams["0000"]["imported"]
    assert not imported.complete
    assert record(tmp_path / "out")["files"]["unreadable"] == 1


def test_a_source_without_images_is_an_error(tmp_path: Path) -> None:
    """A source without images is reported, and nothing is written."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("nothing here")
    with pytest.raises(MrkneeError, match="holds no image"):
        import_exams(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_import_completes_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an interruption the same call reads only missing exams and gives the same result."""
    for study in ("one", "two", "three"):
        export_study(tmp_path / "in", study)
    import_exams(tmp_path / "in", tmp_path / "whole", workers=1)
    read = read_study
    count = 0

    def interrupted(*words: Any, **options: Any) -> object:  # noqa: ANN401
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return read(*words, **options)

    monkeypatch.setattr(importing, "read_study", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_exams(tmp_path / "in", tmp_path / "out", workers=1)
    assert not record(tmp_path / "out")["finished"]
    import_exams(tmp_path / "in", tmp_path / "out", workers=1)
    assert count == 4
    assert _contents(tmp_path / "out") == _contents(tmp_path / "whole")
    (tmp_path / "out" / "axial" / "0001.npy").unlink()
    import_exams(tmp_path / "in", tmp_path / "out", workers=1)
    assert count == 5
    assert _contents(tmp_path / "out") == _contents(tmp_path / "whole")


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_all_cores_write_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies read in several processes give the same bytes."""
    monkeypatch.setattr(writing, "FEW_EXAMS", 1)
    for study in ("one", "two"):
        export_study(tmp_path / "in", study)
    import_exams(tmp_path / "in", tmp_path / "one", workers=1)
    import_exams(tmp_path / "in", tmp_path / "two", workers=2)
    assert _contents(tmp_path / "one") == _contents(tmp_path / "two")


def test_a_folder_of_something_else_is_refused(source: Path, tmp_path: Path) -> None:
    """An output folder that isn't empty or of the same source is refused and left unchanged."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(MrkneeError, match="not empty"):
        import_exams(source, tmp_path / "full")
    export_study(tmp_path / "in", "another")
    import_exams(source, tmp_path / "out")
    before = _contents(tmp_path / "out")
    with pytest.raises(MrkneeError, match="another source"):
        import_exams(tmp_path / "in", tmp_path / "out")
    assert _contents(tmp_path / "out") == before


def test_the_map_is_for_its_owner_only_and_not_in_the_output(source: Path, tmp_path: Path) -> None:
    """The map has mode 0600, holds identifiers per exam, and can't be in the output folder."""
    import_exams(source, tmp_path / "out", keep_map=tmp_path / "map.json")
    assert (tmp_path / "map.json").stat().st_mode & 0o777 == 0o600
    content = json.loads((tmp_path / "map.json").read_text())["0000"]
    assert content["PatientID"] == PLANTED["PatientID"]
    assert content["StudyInstanceUID"] == generate_uid(ROOT, ["study"])
    with pytest.raises(MrkneeError, match="map of identifiers"):
        import_exams(source, tmp_path / "new", keep_map=tmp_path / "new" / "map.json")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for other in (tmp_path / "none" / ".." / "out", tmp_path / "link"):
        with pytest.raises(MrkneeError, match="map of identifiers"):
            import_exams(source, tmp_path / "out", keep_map=other / "map.json")


def test_nothing_of_the_patient_comes_out(tmp_path: Path) -> None:
    """Planted names, dates, ids, UIDs and paths occur in no output, log or error."""
    folder = tmp_path / "Plantagenet_Petronella_19610203"
    export_study(folder, "good")
    export_study(
        folder, "brain", [replace(s, elements={"BodyPartExamined": "HEAD"}) for s in PROTOCOL]
    )
    damaged = export_series(folder, replace(SAGITTAL, number=8), study="damaged")
    damaged[0].write_bytes(damaged[0].read_bytes()[:-50])
    odd = datasets(knee()[Plane.AXIAL][:2], Scan(Plane.AXIAL, 5, "Plantagenet AX PD"), "odd")
    for index, dataset in enumerate(odd):
        path = write(dataset, folder / "odd" / f"Plantagenet{index}.dcm")
        # values that pydicom warns of, and quotes while it does
        path.write_bytes(path.read_bytes().replace(b"19610203", b"Plantage"))
    (folder / "Plantagenet.dcm").write_bytes(bytes(128) + b"DICM" + b"Plantagenet" * 90)
    (folder / "Plantagenet.zip").write_bytes(b"PK Plantagenet")
    (folder / "Plantagenet_sag.nii.gz").write_bytes(b"\x1f\x8bPlantagenet")
    runs = [
        run(folder, tmp_path / "out"),
        run(folder, tmp_path / "out"),
        run(folder, tmp_path / "missing", "--allow-missing-plane"),
        run(folder / "not there", tmp_path / "none"),
        run(folder / "Plantagenet.zip", tmp_path / "none"),
        run(folder / "Plantagenet.dcm", tmp_path / "none"),
        run(folder, tmp_path / "none", "--choose", f"axial={ROOT}1"),
    ]
    assert [done.returncode for done in runs] == [1] * 7
    assert "wrote 1 of 5 exams" in runs[0].stdout
    texts = [done.stdout + done.stderr for done in runs]
    for file in [*(tmp_path / "out").rglob("*"), *(tmp_path / "missing").rglob("*")]:
        texts.append(file.name)
        if file.is_file():
            texts.append(file.read_bytes().decode("latin-1"))
    assert not any("Traceback" in text for text in texts)
    for text in texts:
        assert not [secret for secret in SECRETS if secret in text.lower()]


def test_a_missing_permission_is_reported_without_a_path(tmp_path: Path) -> None:
    """A file that can't be opened is counted like a broken one."""
    export_study(tmp_path / "in")
    locked = tmp_path / "in" / "locked"
    locked.write_bytes(b"x")
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("root may read everything")
    imported = import_exams(tmp_path / "in", tmp_path / "out")
    assert list(imported.unreadable) == ["a file can't be opened"]


class _CrashingStudy(Study):
    """A study that ends the process that reads it, like a crashing decoder."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os._exit, (1,))


def test_a_study_that_crashes_its_process_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash of the reading process affects one study, not the batch."""
    monkeypatch.setattr(writing, "FEW_EXAMS", 1)
    export_study(tmp_path / "in")
    scan = scan_source(tmp_path / "in", 1)
    (good,) = importing.in_id_order(scan)
    studies = {"0000": _CrashingStudy("x", None, ""), "0001": good}
    options = importing._Options(MRNET_SERIES, {}, allow_missing_plane=False)
    tasks = [
        importing._Task(
            writing.Target(exam_id, tmp_path / "out", tmp_path / "out" / importing.UNFINISHED),
            study,
            options,
            source_digest="",
            left_out=0,
        )
        for exam_id, study in studies.items()
    ]
    records = dict(
        writing.write_exams(tasks, importing._write_exam, importing._with_digest, 2, isolated=False)
    )
    assert records["0001"]["imported"]
    assert not records["0000"]["imported"]
    assert "crashed the program" in records["0000"]["reason"]
