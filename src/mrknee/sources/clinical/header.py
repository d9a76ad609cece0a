"""A DICOM file's header: what each of its images says of itself.

An ordinary MR file holds one image; an enhanced multi-frame file (PS3.3 A.36) holds a whole
series, with what differs from frame to frame in a sequence with an item a frame.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import (
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MediaStorageDirectoryStorage,
    MRImageStorage,
)

from mrknee.errors import DataError
from mrknee.sources.clinical.dicomfile import (
    first_item,
    items,
    number,
    numbers,
    parse,
    text,
    texts,
    untrusted,
    whole,
)
from mrknee.sources.clinical.geometry import Axes
from mrknee.sources.clinical.locate import Location
from mrknee.sources.clinical.mosaic import MOSAIC_TAGS, says_mosaic

MAX_SIDE = 4096
"""Rows or columns. MR images have up to 1024."""
MAX_FRAMES = 20_000

MR_IMAGES = {
    MRImageStorage,
    EnhancedMRImageStorage,
    EnhancedMRColorImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
}

NAMES = ("SeriesDescription", "ProtocolName")
STUDY_NAMES = (
    "StudyDescription",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
)
PERSON = ("PatientName", "PatientBirthDate", "PatientSex")
GE_CREATOR, GE_COMPONENT = (0x0043, 0x0010), (0x0043, 0x102F)
"""GE's private element that says what its images are of: 0 magnitude, 1 phase, 2 real, 3
imaginary. Their ImageType doesn't say it."""
GE_COMPONENTS = {1: "PHASE", 2: "REAL", 3: "IMAGINARY"}
TAGS: tuple[str | tuple[int, int], ...] = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType"),
    *("StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber"),
    *("AcquisitionNumber", "TemporalPositionIdentifier", "EchoNumbers", "PatientID"),
    *(*PERSON, "PatientAge", "StudyDate", "FrameOfReferenceUID"),
    *("AccessionNumber", *NAMES, *STUDY_NAMES, "ReceiveCoilName", "BodyPartExamined"),
    *("Laterality", "ImageLaterality", "AnatomicRegionSequence"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
    *("DerivationDescription", "DerivationCodeSequence", "SourceImageSequence"),
    *("PatientIdentityRemoved", "ComplexImageComponent", "0x00430010", "0x0043102F"),
    *("ScanningSequence", "ScanOptions", "EchoPulseSequence", "EchoTime", "RepetitionTime"),
    *("InversionTime", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsStored", "RescaleSlope", "RescaleIntercept", "BurnedInAnnotation"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *MOSAIC_TAGS,
)


@dataclass(frozen=True)
class Image:
    """One image of a file, and what its header says; what it doesn't say is None, "" or ().

    Attributes:
        location, frame: where it is.
        study, series, instance, patient, accession: identifiers; they never leave the program
            but for the map a user asks for.
        person: PatientName, PatientBirthDate (without one, PatientAge), PatientSex; they never
            leave the program.
        study_date: to tell examinations apart; it never leaves the program.
        frame_of_reference: positions of images that share it can be compared.
        number, acquisition, temporal, echo: its place in the series, by the scanner's counting.
        series_number: the series' place in the study.
        sop_class, modality, kind: what sort of image (kind is ImageType).
        derivation: what a derived image says of how it was derived, upper case.
        sources: from how many images it says it was made.
        lossy, deidentified: its pixels were once compressed with loss; its header says that
            the patient's identity was removed.
        component: PHASE, REAL or IMAGINARY where the header says that it isn't the magnitude.
        names: SeriesDescription and ProtocolName, upper case, empty where there is none.
        study_words: what describes the examination in words, upper case.
        coil: the receive coil's name, upper case.
        body_part: what was imaged.
        lateralities: every value that codes a side.
        technique: ScanningSequence, or what an enhanced file says in its place.
        options: ScanOptions, or likewise.
        te_ms, tr_ms, ti_ms: echo, repetition and inversion time.
        position: of the first pixel's centre in the patient, mm.
        orientation: six numbers: along the rows, down the columns.
        pixel_mm: distance of rows, of columns.
        rows, cols, frames, samples, bits: of the pixels; frames of the whole file.
        inverted: white is 0 (MONOCHROME1).
        rescale: slope and intercept.
        burned_in: the image itself shows annotations.
        syntax: how the file is stored (its transfer syntax).
        mosaic: the header says that it holds several slices.
    """

    location: Location
    frame: int
    study: str
    series: str
    instance: str
    patient: str
    accession: str
    person: tuple[str, str, str]
    study_date: str
    frame_of_reference: str
    number: int
    acquisition: int | None
    temporal: int | None
    echo: int | None
    series_number: int
    sop_class: str
    modality: str
    kind: tuple[str, ...]
    derivation: str
    sources: int
    lossy: bool
    deidentified: bool
    component: str
    names: tuple[str, ...]
    study_words: tuple[str, ...]
    coil: str
    body_part: str
    lateralities: tuple[str, ...]
    technique: tuple[str, ...]
    options: tuple[str, ...]
    te_ms: float | None
    tr_ms: float | None
    ti_ms: float | None
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_mm: tuple[float, ...]
    rows: int
    cols: int
    frames: int
    samples: int
    inverted: bool
    bits: int
    rescale: tuple[float, float]
    burned_in: bool
    syntax: str
    mosaic: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """Everything that describes it in words, but the coil, which says nothing of a side."""
        return (*(name for name in self.names if name), *self.study_words)

    @property
    def axes(self) -> Axes | None:
        """Where slices (by the right-hand rule), rows' order and columns' order point."""
        if len(self.orientation) != 6 or len(self.position) != 3:
            return None
        along, down = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        lengths = np.linalg.norm(along), np.linalg.norm(down)
        # unit vectors at right angles, to the few digits that headers give
        if not np.allclose(lengths, 1.0, atol=0.02) or abs(along @ down) > 0.02:
            return None
        along, down = along / lengths[0], down / lengths[1]
        normal = np.cross(along, down)
        return np.stack([normal / np.linalg.norm(normal), down, along])


def read_header(file: io.BufferedIOBase, location: Location) -> list[Image]:
    """The images of one DICOM file; none where it holds no image (a report, a DICOMDIR).

    Args:
        file: seekable, at its start.
        location: where it is, kept in the images.

    Raises:
        MrkneeError: it can't be read; nothing of it is quoted.
    """
    with untrusted():
        dataset = parse(file, TAGS)
        return _images(dataset, location)


def _images(dataset: FileDataset, location: Location) -> list[Image]:
    rows, cols = whole(dataset, "Rows") or 0, whole(dataset, "Columns") or 0
    kind = text(dataset, "SOPClassUID") or text(dataset.file_meta, "MediaStorageSOPClassUID")
    if (not kind or kind in MR_IMAGES) and not (rows and cols):
        raise DataError(
            "a DICOM file is cut off in its header",
            code="dicom",
            advice="copy or export the file again",
        )
    if kind == MediaStorageDirectoryStorage or not rows or not cols:
        return []
    frames = whole(dataset, "NumberOfFrames") or 1
    if max(rows, cols) > MAX_SIDE or not 1 <= frames <= MAX_FRAMES:
        raise DataError(
            "an image has impossible sizes",
            code="dicom",
            expected=f"up to {MAX_SIDE} rows and columns, up to {MAX_FRAMES:,} frames",
            found=f"{rows} rows, {cols} columns, {frames} frames",
        )
    shared = first_item(dataset, "SharedFunctionalGroupsSequence") or Dataset()
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        image = _image(dataset, _Groups(dataset, shared, Dataset()), location, 0, frames)
        # several frames of which nothing says where each lies (a video) are no stack
        return [image if frames == 1 else replace(image, position=())]
    if len(per_frame) != frames:
        raise DataError(
            "a multi-frame file contradicts itself",
            code="dicom",
            expected=f"what is said of each of its {frames} frames",
            found=f"{len(per_frame)} items",
        )
    return [
        _image(dataset, _Groups(dataset, shared, groups), location, frame, frames)
        for frame, groups in enumerate(per_frame)
    ]


class _Groups:
    """A frame's functional groups: its own, else those shared by all, else the file itself."""

    def __init__(self, dataset: Dataset, shared: Dataset, own: Dataset) -> None:
        self._dataset, self._shared, self._own = dataset, shared, own

    def __call__(self, sequence: str) -> Dataset:
        if not self._own and not self._shared:
            return self._dataset
        return (
            first_item(self._own, sequence) or first_item(self._shared, sequence) or self._dataset
        )


def _image(dataset: Dataset, group: _Groups, location: Location, frame: int, frames: int) -> Image:
    content, anatomy = group("FrameContentSequence"), group("FrameAnatomySequence")
    echo, timing = group("MREchoSequence"), group("MRTimingAndRelatedParametersSequence")
    modifier, rescale = group("MRModifierSequence"), group("PixelValueTransformationSequence")
    region = first_item(anatomy, "AnatomicRegionSequence") or Dataset()
    words = [text(dataset, keyword) for keyword in STUDY_NAMES]
    person = [str(dataset.get(keyword) or "") for keyword in PERSON]
    person[1] = person[1] or str(dataset.get("PatientAge") or "")
    return Image(
        location=location,
        frame=frame,
        study=text(dataset, "StudyInstanceUID"),
        series=text(dataset, "SeriesInstanceUID"),
        instance=text(dataset, "SOPInstanceUID"),
        patient=str(dataset.get("PatientID") or ""),
        accession=str(dataset.get("AccessionNumber") or ""),
        person=(person[0], person[1], person[2]),
        study_date=text(dataset, "StudyDate"),
        frame_of_reference=text(dataset, "FrameOfReferenceUID"),
        number=whole(content, "InStackPositionNumber") or whole(dataset, "InstanceNumber") or 0,
        acquisition=whole(content, "FrameAcquisitionNumber") or whole(dataset, "AcquisitionNumber"),
        temporal=whole(content, "TemporalPositionIndex")
        or whole(dataset, "TemporalPositionIdentifier"),
        echo=whole(dataset, "EchoNumbers"),
        series_number=whole(dataset, "SeriesNumber") or 0,
        sop_class=text(dataset, "SOPClassUID")
        or text(dataset.file_meta, "MediaStorageSOPClassUID"),
        modality=text(dataset, "Modality"),
        kind=texts(group("MRImageFrameTypeSequence"), "FrameType") or texts(dataset, "ImageType"),
        derivation=_derivation(dataset),
        sources=len(items(dataset, "SourceImageSequence")),
        lossy=_lossy(dataset),
        deidentified=text(dataset, "PatientIdentityRemoved") == "YES",
        component=_component(dataset, group("MRImageFrameTypeSequence")),
        names=tuple(text(dataset, keyword) for keyword in NAMES),
        study_words=tuple(word for word in [*words, text(region, "CodeMeaning")] if word),
        coil=text(dataset, "ReceiveCoilName"),
        body_part=text(dataset, "BodyPartExamined"),
        lateralities=_lateralities(dataset, anatomy, region),
        technique=texts(dataset, "ScanningSequence") or texts(dataset, "EchoPulseSequence"),
        options=texts(dataset, "ScanOptions")
        + texts(modifier, "SpectrallySelectedSuppression")
        + tuple(f"{value} EXCITED" for value in texts(modifier, "SpectrallySelectedExcitation"))
        + (("IR",) if text(modifier, "InversionRecovery") == "YES" else ()),
        te_ms=number(echo, "EffectiveEchoTime") or number(dataset, "EchoTime"),
        tr_ms=number(timing, "RepetitionTime"),
        ti_ms=number(dataset, "InversionTime"),
        position=numbers(group("PlanePositionSequence"), "ImagePositionPatient"),
        orientation=numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient"),
        pixel_mm=numbers(group("PixelMeasuresSequence"), "PixelSpacing"),
        rows=whole(dataset, "Rows") or 0,
        cols=whole(dataset, "Columns") or 0,
        frames=frames,
        samples=whole(dataset, "SamplesPerPixel") or 1,
        inverted=text(dataset, "PhotometricInterpretation") == "MONOCHROME1",
        bits=whole(dataset, "BitsStored") or 16,
        rescale=_rescale(rescale),
        burned_in=text(dataset, "BurnedInAnnotation") == "YES",
        syntax=text(dataset.file_meta, "TransferSyntaxUID"),
        mosaic=says_mosaic(dataset),
    )


def _derivation(dataset: Dataset) -> str:
    meanings = [text(code, "CodeMeaning") for code in items(dataset, "DerivationCodeSequence")]
    return " ".join(word for word in (text(dataset, "DerivationDescription"), *meanings) if word)


def _lossy(dataset: Dataset) -> bool:
    said = text(dataset, "LossyImageCompression") == "01"
    how = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
    return said or any(text(dataset, keyword) for keyword in how)


def _component(dataset: Dataset, frame_type: Dataset) -> str:
    said = text(frame_type, "ComplexImageComponent") or text(dataset, "ComplexImageComponent")
    if said:
        return said if said in GE_COMPONENTS.values() else ""
    if not str(_private(dataset, GE_CREATOR)).startswith("GEMS"):
        return ""
    value = _private(dataset, GE_COMPONENT)
    if isinstance(value, bytes):  # an implicit file, or an unknown creator
        value = int.from_bytes(value[:2], "little")
    return GE_COMPONENTS.get(value, "") if isinstance(value, int) else ""


def _private(dataset: Dataset, tag: tuple[int, int]) -> object:
    value: object = dataset[tag].value if tag in dataset else None
    return value[0] if isinstance(value, (MultiValue, list)) and value else value


def _lateralities(dataset: Dataset, anatomy: Dataset, region: Dataset) -> tuple[str, ...]:
    modifier = first_item(region, "AnatomicRegionModifierSequence") or Dataset()
    found = (
        text(anatomy, "FrameLaterality"),
        text(dataset, "ImageLaterality"),
        text(dataset, "Laterality"),
        text(modifier, "CodeMeaning"),
    )
    return tuple(value for value in found if value)


def _rescale(dataset: Dataset) -> tuple[float, float]:
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    return (slope or 1.0, intercept or 0.0)


def blank(location: Location) -> Image:
    """An image of a file without a header: nothing is known of it."""
    dataset = FileDataset(io.BytesIO(), {}, file_meta=FileMetaDataset())
    return _image(dataset, _Groups(dataset, Dataset(), Dataset()), location, 0, 1)
