"""A DICOM file's header: what each of its images says of itself.

An ordinary MR file holds one image; an enhanced multi-frame file (PS3.3 A.36) holds a whole
series, with what differs from frame to frame in a sequence with an item a frame.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import (
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MediaStorageDirectoryStorage,
    MRImageStorage,
)

from mrknee.errors import MrkneeError
from mrknee.sources.clinical.dicomfile import (
    first_item,
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
DESCRIPTIONS = (
    *NAMES,
    "StudyDescription",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
    "ReceiveCoilName",
)
TAGS: tuple[str | tuple[int, int], ...] = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType"),
    *("StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber"),
    *("AcquisitionNumber", "TemporalPositionIdentifier", "EchoNumbers", "PatientID"),
    *("AccessionNumber", *DESCRIPTIONS, "BodyPartExamined", "Laterality", "ImageLaterality"),
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
        number, acquisition, temporal, echo: its place in the series, by the scanner's counting.
        series_number: the series' place in the study.
        sop_class, modality, kind: what sort of image (kind is ImageType).
        names: what the series is called, upper case.
        words: everything that describes it in words, its names too, upper case.
        body_part, laterality: what was imaged.
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
    number: int
    acquisition: int | None
    temporal: int | None
    echo: int | None
    series_number: int
    sop_class: str
    modality: str
    kind: tuple[str, ...]
    names: tuple[str, ...]
    words: tuple[str, ...]
    body_part: str
    laterality: str
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
        raise MrkneeError(
            "a DICOM file is cut off in its header", advice="copy or export the file again"
        )
    if kind == MediaStorageDirectoryStorage or not rows or not cols:
        return []
    frames = whole(dataset, "NumberOfFrames") or 1
    if max(rows, cols) > MAX_SIDE or not 1 <= frames <= MAX_FRAMES:
        raise MrkneeError(
            "an image has impossible sizes",
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
        raise MrkneeError(
            "a multi-frame file contradicts itself",
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
        return (
            first_item(self._own, sequence) or first_item(self._shared, sequence) or self._dataset
        )


def _image(dataset: Dataset, group: _Groups, location: Location, frame: int, frames: int) -> Image:
    content, anatomy = group("FrameContentSequence"), group("FrameAnatomySequence")
    echo, timing = group("MREchoSequence"), group("MRTimingAndRelatedParametersSequence")
    modifier, rescale = group("MRModifierSequence"), group("PixelValueTransformationSequence")
    region = first_item(anatomy, "AnatomicRegionSequence") or Dataset()
    words = [text(dataset, keyword) for keyword in DESCRIPTIONS]
    return Image(
        location=location,
        frame=frame,
        study=text(dataset, "StudyInstanceUID"),
        series=text(dataset, "SeriesInstanceUID"),
        instance=text(dataset, "SOPInstanceUID"),
        patient=str(dataset.get("PatientID") or ""),
        accession=str(dataset.get("AccessionNumber") or ""),
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
        names=tuple(text(dataset, keyword) for keyword in NAMES),
        words=tuple(word for word in [*words, text(region, "CodeMeaning")] if word),
        body_part=text(dataset, "BodyPartExamined"),
        laterality=text(anatomy, "FrameLaterality")
        or text(dataset, "ImageLaterality")
        or text(dataset, "Laterality"),
        technique=texts(dataset, "ScanningSequence") or texts(dataset, "EchoPulseSequence"),
        options=texts(dataset, "ScanOptions")
        + texts(modifier, "SpectrallySelectedSuppression")
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


def _rescale(dataset: Dataset) -> tuple[float, float]:
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    return (slope or 1.0, intercept or 0.0)
