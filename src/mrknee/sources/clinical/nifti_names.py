"""Grouping of NIfTI files into exams, and their planes, by file names and JSON sidecars.

docs/reference/import-rules.md states the rules; change both together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from mrknee.errors import MrkneeError
from mrknee.exams import Plane
from mrknee.sources.clinical.header import Image, blank
from mrknee.sources.clinical.knees import split_by_knee
from mrknee.sources.clinical.locate import Location, Opener
from mrknee.sources.clinical.nifti import LABELS, as_series, read_grid
from mrknee.sources.clinical.protocol import candidates
from mrknee.sources.clinical.refusals import is_unsuitable_name
from mrknee.sources.clinical.series import Series
from mrknee.sources.clinical.study import Study
from mrknee.sources.clinical.words import normalised, vocabulary, words_of
from mrknee.untrusted import parse_json

SIDECAR_BYTES = 4_000_000
"""Maximum size of a JSON sidecar; dcm2niix writes some kilobytes."""
PLANES_NAMED: dict[str, Plane] = {
    **dict.fromkeys(
        vocabulary(
            "axial ax axi tra trans transverse transversal transversale axiale axiaal axiales"
            " transversaal aksiyel aksiyal aksijalno"
        ),
        Plane.AXIAL,
    ),
    **dict.fromkeys(
        vocabulary("coronal cor kor koronar koronal coronale coronaal coronales frontal koronalno"),
        Plane.CORONAL,
    ),
    **dict.fromkeys(
        vocabulary("sagittal sag sagittale sagital sagitale sagittaal sagitales sajital sagitalno"),
        Plane.SAGITTAL,
    ),
}
# Words that describe the acquisition of a volume, not the patient or exam.
SEQUENCE_WORDS = vocabulary(
    "pd pdw dp t1 t1w t2 t2w t2star proton density tse fse frfse se gre ffe flash dess medic merge"
    " mffe spgr vibe space cube vista fiesta ciss fs fatsat fat sat sup spair spir stir tirm we"
    " wats proset water dixon mdixon ideal flex ir opp in out phase blade propeller mvxd 2d 3d iso"
    " hr highres lowres sense grappa asset arc cs p2 p3 nd dis2d dis3d norm acq wip map mpr"
)
MASK = re.compile(
    r"(?:[a-z]*seg(?:m|s|mented|mentation|mentations)?|masks?|maske|masken|masque|mascara"
    r"|labels?|labelmap|lbl|rois?|annot|annotations?|groundtruth|gt|pred|prediction)\d*"
)
# dcm2niix's default name: %f_%p_%t_%s, folder, protocol, time of the study and number of the
# series; then suffixes for the parts of a series.
DCM2NIIX = re.compile(
    r"(?P<rest>.*)_(?P<time>\d{4,14})_(?P<series>\d{1,5})"
    r"(?P<parts>(?:_(?:e\d+|ph|phmag|real|imaginary|i\d+|t\d+|c\w+|eq(?:_\d+)?|tilt(?:_\d+)?"
    r"|roi\d+|adc|moco|fieldmaphz))*[a-z]?(?:_crop_\d+)?)"
)
NOT_MAGNITUDE = vocabulary("ph phmag real imaginary fieldmaphz")
BIDS = re.compile(r"(?<![a-z0-9])(?:sub|ses)-[a-z0-9]+")
"""Entities of a BIDS name that identify the exam; the other entities (acq-, run-, echo-, part-,
desc-, ...) and the suffix describe the acquisition."""
HEMI = re.compile(r"(?<![a-z0-9])hemi-([lr])(?![a-z0-9])")
SIZE = re.compile(r"\d+mm|\d+x\d+(?:x\d+)?")

OTHER_SIDECAR = "the JSON file next to it names another plane and was ignored"


@dataclass(frozen=True)
class _NamedFile:
    """Properties of a file by its name and its sidecar.

    Attributes:
        location: location of the file.
        exam: key that is equal for the files of one exam.
        plane: plane; None if only the geometry can determine it.
        mask: whether the file is named as a mask.
        image: header with sequence, sides and times.
        notes: irregularities, one sentence each.
    """

    location: Location
    exam: str
    plane: Plane | None
    mask: bool
    image: Image
    notes: tuple[str, ...] = ()


def nifti_studies(
    locations: Iterable[Location], root: Path = Path("/"), *, any_body_part: bool = False
) -> tuple[list[Study], list[Location]]:
    """Groups NIfTI files into studies; also returns the files whose names state no plane.

    Args:
        locations: the files.
        root: the source, to which the paths that distinguish exams are relative.
        any_body_part: ignore the body part in sidecars.
    """
    exams: dict[str, list[_NamedFile]] = {}
    nameless: list[Location] = []
    with Opener() as opener:
        for location in locations:
            named = _parse_name(location, root, _sidecar(opener, location))
            if named is None:
                nameless.append(location)
            else:
                exams.setdefault(named.exam, []).append(named)
    for key, group in exams.items():
        side = _paired_side(key, exams)
        if side:
            exams[key] = [
                replace(one, image=replace(one.image, study_words=(*one.image.study_words, side)))
                for one in group
            ]
    studies = [
        study
        for key, group in exams.items()
        for study in _studies(key, group, any_body_part=any_body_part)
    ]
    return studies, nameless


def _paired_side(key: str, exams: Mapping[str, object]) -> str:
    """Returns the side of a lone L or R in an exam's key, if an exam with the other one exists."""
    folder, _, name = key.rpartition("/")
    words = name.split()
    for letter, other, side in (("l", "r", "LEFT"), ("r", "l", "RIGHT")):
        swapped = " ".join(other if word == letter else word for word in words)
        if words.count(letter) == 1 and f"{folder}/{swapped}" in exams:
            return side
    return ""


def _studies(key: str, group: Sequence[_NamedFile], *, any_body_part: bool) -> list[Study]:
    stacks, refusals = [], []
    for one in group:
        try:
            stack = as_series(read_grid(one.location), one.plane, one.image)
            stack = replace(stack, notes=(*stack.notes, *one.notes))
            refusal = LABELS if one.mask else None
        except MrkneeError as error:
            stack, refusal = Series((one.image,), None), error.what
        stacks.append(stack)
        refusals.append(refusal)
    found = candidates(stacks, any_body_part=any_body_part)
    return split_by_knee(
        key,
        [
            one
            if refusal is None
            else replace(one, plane=named.plane or one.plane, refusal=refusal)
            for one, refusal, named in zip(found, refusals, group, strict=True)
        ],
    )


def _sidecar(opener: Opener, location: Location) -> Mapping[str, Any]:
    """Reads the JSON file next to a volume; empty if it is missing or broken."""
    name = location.name.name
    stem = name[: name.lower().rindex(".nii")]
    if location.member is None:
        sidecar = Location(location.path.with_name(f"{stem}.json"))
        if not sidecar.path.is_file():
            return {}
    elif location.inner is None:
        folder = location.member[: len(location.member) - len(name)]
        sidecar = Location(location.path, f"{folder}{stem}.json")
    else:
        folder = location.inner[: len(location.inner) - len(name)]
        sidecar = Location(location.path, location.member, f"{folder}{stem}.json")
    try:
        with opener.open(sidecar) as file:
            content = parse_json(file.read(SIDECAR_BYTES), None, "JSON next to a NIfTI file")
    except (MrkneeError, KeyError):  # KeyError: the zip has no such member
        return {}
    return content if isinstance(content, dict) else {}


def _parse_name(location: Location, root: Path, sidecar: Mapping[str, Any]) -> _NamedFile | None:
    """Returns a file's properties by its name and sidecar; None if its plane is not stated."""
    name = location.name
    stem = normalised(name.name[: name.name.lower().rindex(".nii")])
    automatic = DCM2NIIX.fullmatch(stem)
    parts = words_of([automatic["parts"].replace("_", " ")]) if automatic else []
    described = automatic["rest"] if automatic else stem
    subject = BIDS.findall(described)
    words = words_of([HEMI.sub(_side, BIDS.sub(" ", described))])
    is_bids = described.startswith("sub-")
    protocol = words_of([_text(sidecar, "SeriesDescription"), _text(sidecar, "ProtocolName")])
    plane = _plane(words, name.parent, protocol)
    if plane is None and not automatic and not protocol:
        return None
    mask = any(MASK.fullmatch(word) for word in words)
    series = _number(sidecar, "SeriesNumber")
    own = [
        word
        for word in ([] if is_bids else words)
        if word not in PLANES_NAMED
        and not SIZE.fullmatch(word)
        and not MASK.fullmatch(word)
        and word not in SEQUENCE_WORDS
        and word not in protocol
        and not is_unsuitable_name(word)
        and not (series is not None and word.isdigit() and int(word) == int(series))
    ]
    time = automatic["time"] if automatic else ""
    folder = location.below(root).parent
    by_folder = plane is not None and PLANES_NAMED.get(normalised(name.parent.name)) == plane
    if by_folder and not set(words) & set(PLANES_NAMED):
        folder = folder.parent
    exam = "/".join([str(folder), " ".join([*subject, *own, *([time] if time else [])])])
    if _text(sidecar, "StudyInstanceUID"):
        people = [_text(sidecar, key) for key in ("StudyInstanceUID", "PatientID", "PatientName")]
        exam = repr(people)
    in_sidecar = {PLANES_NAMED[word] for word in protocol if word in PLANES_NAMED}
    other = plane is not None and bool(in_sidecar) and plane not in in_sidecar
    image = _image(
        location, {} if other else sidecar, [word for word in words if word not in own], own
    )
    if NOT_MAGNITUDE & set(parts):
        image = replace(image, component="PHASE")
    return _NamedFile(location, exam, plane, mask, image, (OTHER_SIDECAR,) if other else ())


def _side(hemi: re.Match[str]) -> str:
    return " left " if hemi[1] == "l" else " right "


def _plane(words: Sequence[str], folder: PurePosixPath, protocol: Sequence[str]) -> Plane | None:
    """Returns the only plane named by the file, else by its folder, else by its sidecar."""
    for source in (words, [normalised(folder.name)], protocol):
        named = {PLANES_NAMED[word] for word in source if word in PLANES_NAMED}
        if named:
            return named.pop() if len(named) == 1 else None
    return None


def _image(
    location: Location, sidecar: Mapping[str, Any], words: Sequence[str], own: Sequence[str]
) -> Image:
    """Returns what is known of a volume's sequence, in the form of a DICOM header."""
    name = _text(sidecar, "SeriesDescription") or " ".join(words).upper()
    study = (_text(sidecar, key) for key in ("StudyDescription", "ProcedureStepDescription"))
    sides = (_text(sidecar, key) for key in ("ImageLaterality", "Laterality"))
    times = (_number(sidecar, key) for key in ("EchoTime", "RepetitionTime", "InversionTime"))
    te_ms, tr_ms, ti_ms = (None if time is None else 1000 * time for time in times)  # from seconds
    return replace(
        blank(location),
        series_number=int(_number(sidecar, "SeriesNumber") or 0),
        echo=None,
        modality=_text(sidecar, "Modality"),
        kind=_texts(sidecar, "ImageType"),
        names=(name, _text(sidecar, "ProtocolName")),
        study_words=tuple(filter(None, [*study, " ".join(own).upper()])),
        coil=_text(sidecar, "ReceiveCoilName"),
        body_part=_text(sidecar, "BodyPartExamined") or _text(sidecar, "BodyPart"),
        lateralities=tuple(filter(None, sides)),
        technique=_texts(sidecar, "ScanningSequence"),
        options=_texts(sidecar, "ScanOptions"),
        te_ms=te_ms,
        tr_ms=tr_ms,
        ti_ms=ti_ms,
    )


def _texts(sidecar: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = sidecar.get(key)
    parts = (
        value if isinstance(value, list) else re.split(r"\\|(?<=[A-Z])_(?=[A-Z])", str(value or ""))
    )
    return tuple(str(part).strip().upper() for part in parts if str(part).strip())


def _text(sidecar: Mapping[str, Any], key: str) -> str:
    value = sidecar.get(key)
    return value.strip().upper() if isinstance(value, str) else ""


def _number(sidecar: Mapping[str, Any], key: str) -> float | None:
    value = sidecar.get(key)
    return float(value) if isinstance(value, (int, float)) and abs(value) < 1e6 else None
