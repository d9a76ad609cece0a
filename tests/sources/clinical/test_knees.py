"""Grouping of images by knee: studies, patients, sides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mrknee.exams import MRNET_SERIES, PLANES, Plane
from mrknee.sources.clinical.header import Image
from mrknee.sources.clinical.knees import (
    DATES,
    ELSEWHERE,
    EXAMINATIONS,
    MIXED,
    REVERSED,
    TWO_FRAMES,
    studies_of,
)
from mrknee.sources.clinical.locate import Location
from mrknee.sources.clinical.protocol import ranked
from mrknee.sources.clinical.study import PLACE, Study
from tests.sources.clinical.headers import images

TIMES = {Plane.SAGITTAL: (60.0, 3500.0), Plane.CORONAL: (12.0, 600.0), Plane.AXIAL: (30.0, 3000.0)}


def exam(name: str = "", x_mm: float = 0.0, **header: Any) -> list[Image]:  # noqa: ANN401
    """Three planes of one knee."""
    found = []
    for number, plane in enumerate(PLANES):
        te, tr = TIMES[plane]
        given = {"names": (f"{plane} {name}", ""), "te_ms": te, "tr_ms": tr, **header}
        series = f"{name} {plane} {x_mm} {header.get('series_number', '')}"
        found += images(
            plane, centre=(x_mm, 0.0, 0.0), **{"series": series, "series_number": number, **given}
        )
    return found


def usable(study: Study) -> list[str]:
    """The planes of a study's series that aren't refused."""
    return sorted(str(one.plane) for one in study.candidates if one.refusal is None)


EVERY = sorted(map(str, PLANES))


@pytest.mark.parametrize(
    "second",
    [
        {"patient": "P2"},
        {"patient": "", "person": ("ROE^RICHARD", "", "")},
        {"person": ("", "19700101", "")},
        {"person": ("", "", "M")},
        {"patient": "", "person": ("", "030Y", "")},
    ],
)
def test_two_patients_are_never_one_study(second: dict[str, Any]) -> None:
    """One StudyInstanceUID on images of two patients gives two studies, each with a note."""
    first: dict[str, Any] = {"patient": "P1", "person": ("DOE^JANE", "19600101", "F")}
    if "030Y" in second.get("person", ()):  # ages, where there are no birth dates
        first = {"patient": "", "person": ("", "060Y", "")}
    found = exam(**first)[:40] + exam(**{**first, **second})[40:]
    studies = studies_of(found)
    assert sorted(len(usable(study)) for study in studies) == [1, 2]
    assert all(study.notes == (MIXED,) for study in studies)
    assert len({study.key for study in studies}) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"patient": "p1 "},
        {"patient": ""},
        {"person": ("DOE^JANE^^", "19600101", "F")},
        {"person": ("Doe, Jane", "", "")},
        {"person": ("SMITH^JANE", "19600101", "F")},  # id and birth date agree: a new name
        {"person": ("", "", "")},
    ],
)
def test_one_patient_written_in_several_ways_is_one(other: dict[str, Any]) -> None:
    """Missing or differently spelt values don't make another patient."""
    first: dict[str, Any] = {"person": ("DOE^JANE", "19600101", "F")}
    (study,) = studies_of(exam(**first)[:40] + exam(**{**first, **other})[40:])
    assert usable(study) == EVERY
    assert study.notes == ()


def test_one_study_uid_for_a_complete_data_set() -> None:
    """Every patient becomes a study, and images without an id become another one."""
    found = [one for k in range(30) for one in exam(patient=f"P{k}", series_number=k)]
    found += images(patient="", series="nobody's")
    studies = studies_of(found)
    assert len(studies) == 31
    assert [usable(study) for study in studies[:-1]] == [EVERY] * 30


def test_several_study_dates_are_noted() -> None:
    """Two examination dates of one patient under one UID give a note."""
    found = [replace(image, study_date="20200101") for image in exam()]
    found[:20] = [replace(image, study_date="20210101") for image in found[:20]]
    (study,) = studies_of(found)
    assert study.notes == (DATES,)


@pytest.mark.parametrize(
    ("right", "left", "origin"),
    [
        ({"lateralities": ("R",)}, {"lateralities": ("L",)}, "each of its series"),
        ({"name": "RT KNEE"}, {"name": "LT KNEE"}, "each of its series"),
        ({"name": "genou droit"}, {"name": "genou gauche"}, "each of its series"),
        ({"x_mm": -100.0}, {"x_mm": 100.0}, PLACE),
        ({"x_mm": 20.0}, {"x_mm": 190.0}, PLACE),  # the patient lies off-centre
        ({"x_mm": -100.0, "name": "R KNEE"}, {"x_mm": 100.0, "name": "L KNEE"}, "each of its"),
        # the study's own description names one of the two, as the first order did
        (
            {"lateralities": ("R",), "study_words": ("MRI KNEE LEFT",)},
            {"lateralities": ("L",), "study_words": ("MRI KNEE LEFT",)},
            "each of its series",
        ),
    ],
)
def test_both_knees_become_two_studies(
    right: dict[str, Any], left: dict[str, Any], origin: str
) -> None:
    """Header, descriptions or position assign every series to one of the two knees."""
    found = exam(**{"series_number": 1, **right}) + exam(**{"series_number": 2, **left})
    one, other = studies_of(found)
    assert (one.side, other.side) == ("left", "right")
    assert usable(one) == usable(other) == EVERY
    assert origin in one.side_from
    assert one.notes == other.notes == ()


def test_a_series_without_a_side_is_assigned_by_position() -> None:
    """If only some series name their side, the positions in one frame assign the others."""
    right, left = exam("R KNEE", -20.0), exam("L KNEE", 160.0)
    for knee in (right, left):
        knee[:20] = [replace(image, names=("AX", "")) for image in knee[:20]]
    one, other = studies_of(right + left)
    assert usable(one) == usable(other) == EVERY


def test_a_series_of_neither_knee_is_refused_with_the_reason() -> None:
    """A series without a side in another frame of reference is in neither exam."""
    found = exam("R KNEE", -20.0) + exam("L KNEE", 160.0)
    found += images(series="wide", names=("WIDE", ""), frame_of_reference="another", te_ms=9.0)
    for study in studies_of(found):
        assert usable(study) == EVERY
        (wide,) = (one for one in study.candidates if one.series.first.series == "wide")
        assert wide.refusal == "it isn't stated which of the two knees it shows"


def test_sides_that_contradict_the_positions_of_both_knees_are_unknown() -> None:
    """If descriptions and positions disagree, two knees are two exams with unknown sides."""
    for found in (
        exam("R KNEE", 100.0) + exam("L KNEE", -100.0),
        exam("R KNEE", 100.0) + exam("R KNEE", -100.0, series_number=9),
    ):
        studies = studies_of(found)
        assert [usable(study) for study in studies] == [EVERY] * 2
        assert None in [study.side for study in studies]
        assert any(REVERSED in study.notes for study in studies)


@pytest.mark.parametrize(
    ("header", "side", "origin"),
    [
        ({"lateralities": ("L",)}, "left", "the header"),
        ({"name": "R KNEE"}, "right", "a description"),
        ({"study_words": ("MR KNEE LEFT",)}, "left", "a description"),
        ({"x_mm": -90.0}, "right", PLACE),
        ({"x_mm": 30.0}, None, "not stated"),
        ({"coil": "FLEX L KNEE"}, None, "not stated"),
        ({"lateralities": ("L",), "name": "L KNEE", "x_mm": 90.0}, "left", "the header"),
    ],
)
def test_the_side_of_one_knee(header: dict[str, Any], side: str | None, origin: str) -> None:
    """The side comes from the header, descriptions or position, but not from the coil."""
    (study,) = studies_of(exam(**header))
    assert (study.side, study.side_from, study.notes) == (side, origin, ())


@pytest.mark.parametrize(
    ("header", "note_part"),
    [
        ({"lateralities": ("L",), "name": "R KNEE"}, "the header says left; a series' desc"),
        ({"lateralities": ("L",), "study_words": ("KNEE RIGHT",)}, "the study's description says"),
        ({"lateralities": ("L",), "x_mm": -90.0}, f"{PLACE} says right"),
        ({"name": "L KNEE", "x_mm": -90.0}, f"{PLACE} says right"),
        ({"lateralities": ("L", "R")}, "the header says left and right"),
        ({"name": "L KNEE", "study_words": ("KNEE RIGHT",)}, "the study's description says right"),
    ],
)
def test_a_contradicted_side_is_unknown(header: dict[str, Any], note_part: str) -> None:
    """If header, descriptions and position disagree, the side is unknown, with a note."""
    (study,) = studies_of(exam(**header))
    assert study.side is None
    assert usable(study) == EVERY
    (note,) = study.notes
    assert note_part in note


def test_the_position_of_a_wide_field_is_ignored() -> None:
    """A series wide enough for two legs gets no side from its position."""
    wide = images(Plane.CORONAL, pixel=1.3, centre=(60.0, 0.0, 0.0), names=("COR", ""))
    (study,) = studies_of(wide)
    assert study.side is None


def framed(frame: str, **header: Any) -> list[Image]:  # noqa: ANN401
    """Three planes in one frame of reference."""
    number = {"1.1": 0, "1.2": 10}[frame]
    found = exam(frame, **{"names": ("", ""), **header})
    return [
        replace(image, frame_of_reference=frame, series_number=image.series_number + number)
        for image in found
    ]


@pytest.mark.parametrize(
    ("first", "second", "sides"),
    [
        ({}, {}, [None, None]),
        ({"lateralities": ("R",)}, {}, [None, "right"]),
        ({"study_words": ("KNEE RIGHT",)}, {"study_words": ("KNEE RIGHT",)}, [None, None]),
    ],
)
def test_frames_that_hold_all_planes_are_never_mixed(
    first: dict[str, Any], second: dict[str, Any], sides: list[str | None]
) -> None:
    """Two frames of reference with all planes become one exam each."""
    studies = studies_of(framed("1.1", **first) + framed("1.2", **second))
    assert [usable(study) for study in studies] == [EVERY, EVERY]
    assert sorted((study.side for study in studies), key=str) == sides
    assert all(TWO_FRAMES in study.notes for study in studies)
    for study in studies:
        used = {one.series.first.frame_of_reference for one in study.candidates if not one.refusal}
        assert len(used) == 1
    assert len({study.key for study in studies}) == 2


def test_a_part_of_another_frame_is_used_only_with_a_stated_side() -> None:
    """If one frame has all planes, series of another frame are used if their side is stated."""
    repeat = [image for image in framed("1.2") if image.series_number == 12]
    (study,) = studies_of(framed("1.1") + repeat)
    assert usable(study) == EVERY
    assert [one.refusal for one in study.candidates if one.refusal] == [ELSEWHERE]
    header = {"lateralities": ("R",)}
    named = [image for image in framed("1.2", **header) if image.series_number == 12]
    (study,) = studies_of(framed("1.1", **header) + named)
    assert len(usable(study)) == 4
    # planes that are distributed over several frames are used
    (study,) = studies_of([i for i in framed("1.1") if i.series_number != 2] + repeat)
    assert usable(study) == EVERY


def test_two_examinations_of_one_patient_are_never_mixed() -> None:
    """Dates with their own accession numbers are separate exams; several dates alone are noted."""
    first = exam(accession="A1", study_date="20200101")
    second = exam("later", accession="A2", study_date="20210101")
    studies = studies_of(first + second)
    assert [usable(study) for study in studies] == [EVERY, EVERY]
    assert all(EXAMINATIONS in study.notes for study in studies)
    assert len({study.key for study in studies}) == 2
    (study,) = studies_of(first + exam("later", accession="A1", study_date="20200102"))
    assert study.notes == (DATES,)


def test_of_equal_series_those_of_one_folder_are_taken() -> None:
    """Of two equal sets of series, an exam uses planes of one set only."""
    found = [
        replace(image, location=Location(Path(folder, str(index))), series=f"{key} {image.series}")
        for folder, keys in (("a", "312"), ("b", "123"))
        for index, image in enumerate(exam())
        for key in (keys[image.series_number],)
    ]
    (study,) = studies_of(found)
    firsts = [ranked(study.candidates, one)[0].series.first for one in MRNET_SERIES]
    assert {first.location.path.parent for first in firsts} == {Path("a")}
