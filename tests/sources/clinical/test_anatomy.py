"""Sides and body parts in headers and descriptions."""

from __future__ import annotations

import pytest

from mrknee.sources.clinical.anatomy import (
    coded_sides,
    described_sides,
    names_knee,
    placed_side,
)
from mrknee.sources.clinical.knees import split_by_knee
from tests.sources.clinical.headers import candidate


@pytest.mark.parametrize(
    ("text", "side"),
    [
        # English
        ("MRI RIGHT KNEE W/O", "right"),
        ("L KNEE", "left"),
        ("R. KNEE", "right"),
        ("KNEE (L)", "left"),
        ("KNEE-R", "right"),
        ("LTKNEE SAG", "left"),
        ("KNEE_RT", "right"),
        ("T2 3D KNEE", None),
        ("SAG 3-D KNEE", None),
        ("KNEE RE-SCAN", None),
        ("KNEE RE SCAN", None),
        ("KNEE R/O TEAR", None),
        ("2D L", None),
        ("PHASE R-L KNEE", None),
        ("SAG T2 BRIGHT", None),
        ("left and right knee", None),
        ("R AND L KNEE", None),
        ("RT & LT KNEE", None),
        ("L/R KNEE", None),
        # German and Dutch
        ("Knie links", "left"),
        ("Knie re", "right"),
        ("Kniegelenk li.", "left"),
        ("MRT rechtes Knie", "right"),
        ("MRT der Knie", None),
        ("MRI linkerknie", "left"),
        # French
        ("Genou droit", "right"),
        ("IRM GENOU G", "left"),
        ("GENOU 3 D", None),
        # Spanish: SIN is "without", DER is short for the right
        ("RM RODILLA SIN CONTRASTE", None),
        ("RM RODILLA DER SIN CONTRASTE", "right"),
        ("RODILLA IZQ", "left"),
        # Italian: SIN is the left
        ("RM GINOCCHIO D", "right"),
        ("GINOCCHIO SIN", "left"),
        ("ginocchio sx", "left"),
        # Portuguese: E is "and"
        ("JOELHO ESQ", "left"),
        ("RM JOELHO DIREITO", "right"),
        ("JOELHO E TORNOZELO", None),
        ("JOELHO E", "left"),
        # others
        ("kne venstre", "left"),
        ("knä hö", "right"),
        ("левое колено", "left"),
        ("右膝", "right"),
        ("SOL DİZ MR", "left"),
        ("Sağ diz", "right"),
        ("SAG DIZ", None),  # sagittal, or right without its accent
        ("SOL OMUZ", None),
        ("MR lijevog koljena", "left"),
        ("KOLJENO DESNO", "right"),
        ("ΓΟΝΑΤΟ ΔΕΞΙ", "right"),
        ("Αριστερό γόνατο", "left"),
        ("ляво коляно", "left"),
        ("jobb térd", "right"),
        ("genunchi stâng", "left"),
        ("RM GINOCCHIO SN", "left"),
    ],
)
def test_sides_in_words(text: str, side: str | None) -> None:
    """A side is a word of several languages, or a syllable next to a word for the knee."""
    assert described_sides([text]) == ({side} if side else set())


def test_a_text_that_names_both_sides_is_ignored() -> None:
    """A text that names both knees doesn't contradict one that names one knee."""
    assert described_sides(["BOTH KNEES, LEFT AND RIGHT", "SAG PD R KNEE"]) == {"right"}
    assert described_sides(["LEFT", "RIGHT"]) == {"left", "right"}


def test_codes_and_places() -> None:
    """Laterality has two values; a position near the scanner's centre gives no side."""
    assert [sorted(coded_sides([code])) for code in ("R", "L", "B", "")] == [
        ["right"],
        ["left"],
        [],
        [],
    ]
    assert [placed_side(x) for x in (-60.0, 60.0, 30.0)] == ["right", "left", None]


KNEES = (
    "MRI KNEE LEFT",
    "MR Knie",
    "IRM genou",
    "RM RODILLA",
    "RM ginocchio",
    "RM joelho",
    "MR knæ",
)


@pytest.mark.parametrize("description", KNEES)
@pytest.mark.parametrize(
    "part",
    [
        "LOWER_EXTREMITY",
        "LOWER EXT",
        "LEGS",
        "LEG",
        "LOWER LEG",
        "UNDEFINED",
        "EXTREMITY",
        "",
        "TIBIA",
    ],
)
def test_a_vague_body_part_gives_way_to_a_description(part: str, description: str) -> None:
    """A vague body part, or one next to the knee, is accepted if a description names the knee."""
    assert candidate(body_part=part, study_words=(description,)).refusal is None


@pytest.mark.parametrize(
    "part", ["ANKLE", "HIP", "SHOULDER", "UPPER_EXTREMITY", "HEAD", "LSPINE", "C SPINE", "PELVIS"]
)
def test_a_clearly_other_part_is_refused(part: str) -> None:
    """Another body part in BodyPartExamined is refused, whatever the description."""
    refusal = candidate(body_part=part, study_words=("MRI KNEE LEFT",)).refusal
    assert refusal == "the header names another body part than the knee"


@pytest.mark.parametrize(
    ("part", "words", "name", "refused"),
    [
        ("LEG", ("MRI",), "SAG PD", False),  # vague, and nothing contradicts
        ("LOWER LEG", ("MRI",), "SAG PD", True),
        ("FEMUR", ("MRI",), "SAG PD", True),
        ("ZZZ", ("MRI",), "SAG PD", True),  # an unknown value, and no knee
        ("ZZZ", ("MRI KNEE",), "SAG PD", False),
        ("EXTREMITY", ("MR ANKLE",), "SAG PD", True),
        ("EXTREMITY", ("MRI KNEE AND ANKLE",), "SAG PD", False),
        ("EXTREMITY", ("MRI KNEE AND ANKLE",), "ANKLE SAG PD", True),
    ],
)
def test_body_parts_without_a_clear_answer(
    part: str, words: tuple[str, ...], name: str, refused: bool
) -> None:
    """Descriptions decide if BodyPartExamined doesn't; a knee coil alone is not enough."""
    found = candidate(body_part=part, study_words=words, names=(name, ""), coil="KNEE15")
    assert (found.refusal is not None) is refused


def test_a_coil_names_the_knee_but_no_side() -> None:
    """Without any description, a knee coil indicates a knee, but not its side."""
    found = candidate(body_part="", study_words=(), names=("SAG", ""), coil="FLEX L KNEE")
    assert names_knee(found.series.first)
    (study,) = split_by_knee("study", [found])
    assert study.side is None
