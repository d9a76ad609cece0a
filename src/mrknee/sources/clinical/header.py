"""Headers of DICOM files: one `Image` per image or frame.

An ordinary MR file holds one image. An enhanced multi-frame file (PS3.3 A.36) holds a series; the
attributes that differ between frames are in a sequence with one item per frame.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import (
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MediaStorageDirectoryStorage,
    MRImageStorage,
)

from mrknee.errors import DataError
from mrknee.sources.clinical.dicomfile import (
    Elements,
    first_item,
    integer,
    items,
    number,
    numbers,
    parse,
    text,
    texts,
    untrusted,
)
from mrknee.sources.clinical.geometry import Axes
from mrknee.sources.clinical.locate import Location
from mrknee.sources.clinical.mosaic import MOSAIC_TAGS, is_mosaic
from mrknee.sources.clinical.quickfile import PixelPlace, QuickDataset, read_quickly

MAX_SIDE = 4096
"""Maximum of rows and columns. MR images have up to 1024."""
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
"""GE's private element for the complex component: 0 magnitude, 1 phase, 2 real, 3 imaginary.
ImageType of GE images doesn't contain it."""
GE_COMPONENTS = {1: "PHASE", 2: "REAL", 3: "IMAGINARY"}
_ELEMENTS: tuple[str | tuple[int, int], ...] = (
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
    *("BitsAllocated", "HighBit", "PixelRepresentation", "0x00280120", "0x00280121"),
    *("BitsStored", "RescaleSlope", "RescaleIntercept", "BurnedInAnnotation"),
    *("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "MagneticFieldStrength"),
    *("ImagingFrequency", "SharedFunctionalGroupsSequence"),
    "PerFrameFunctionalGroupsSequence",
    *MOSAIC_TAGS,
)
TAGS = tuple(Tag(element) for element in _ELEMENTS)
"""Elements to read of a header."""
_WANTED = frozenset(map(int, TAGS))


PADDING = (0x00280120, 0x00280121)
"""PixelPaddingValue and PixelPaddingRangeLimit."""


@dataclass(frozen=True)
class PlainPixels:
    """Uncompressed unsigned values of 16 bits, of which the lower ones are used, without padding.

    Attributes:
        place: place of the values in the file.
        bits: number of bits used.
    """

    place: PixelPlace
    bits: int


@dataclass(frozen=True)
class Image:
    """The header of one image or frame. Missing attributes are None, "" or ().

    Attributes:
        location, frame: file, and index of the frame in the file.
        study, series, instance, patient, accession: identifiers. They are written nowhere but to
            the map that a user may ask for.
        person: PatientName, PatientBirthDate (PatientAge if missing), PatientSex; never written.
        study_date: distinguishes examinations; never written.
        frame_of_reference: only positions with the same frame of reference can be compared.
        number, acquisition, temporal, echo: the scanner's numbering within the series.
        series_number: the scanner's numbering of the series within the study.
        sop_class, modality, kind: SOPClassUID, Modality, ImageType.
        derivation: description of how a derived image was computed, upper case.
        sources: number of source images that a derived image lists.
        lossy: whether the pixels were ever compressed with loss.
        deidentified: whether the header states that the patient's identity was removed.
        component: PHASE, REAL or IMAGINARY; "" for magnitude or if not stated.
        names: SeriesDescription and ProtocolName, upper case, "" if missing.
        study_words: descriptions of the examination, upper case.
        coil: name of the receive coil, upper case.
        body_part: BodyPartExamined, upper case.
        lateralities: all values that code a side.
        technique: ScanningSequence, or its equivalent in an enhanced file.
        options: ScanOptions, or the equivalents in an enhanced file.
        te_ms, tr_ms, ti_ms: echo, repetition and inversion time, ms.
        position: centre of the first pixel in patient coordinates, mm.
        orientation: six numbers: direction along the rows, direction down the columns.
        pixel_mm: distance between rows, distance between columns, mm.
        rows, cols, samples, bits: shape and depth of the pixels.
        frames: number of frames in the file.
        inverted: whether 0 is white (MONOCHROME1).
        rescale: slope and intercept.
        burned_in: whether annotations are burned into the pixels.
        syntax: transfer syntax of the file.
        mosaic: whether the header states that the image holds several slices.
        pixels: where the values of an ordinary uncompressed image are; None for any other image.
        scanner: manufacturer, model, serial number, field strength (T) and frequency (MHz), "" if
            not stated. They distinguish scanners and are never written.
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
    pixels: PlainPixels | None = None
    scanner: tuple[str, str, str, str, str] = ("", "", "", "", "")

    @property
    def words(self) -> tuple[str, ...]:
        """All descriptions except the coil's name, which doesn't indicate a side."""
        return (*(name for name in self.names if name), *self.study_words)

    @property
    def axes(self) -> Axes | None:
        """Directions of the slices (right-hand rule), down the rows, and along the columns."""
        if len(self.orientation) != 6 or len(self.position) != 3:
            return None
        along, down = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        lengths = np.linalg.norm(along), np.linalg.norm(down)
        # orthogonal unit vectors, within the rounding of headers
        if not np.allclose(lengths, 1.0, atol=0.02) or abs(along @ down) > 0.02:
            return None
        along, down = along / lengths[0], down / lengths[1]
        normal = np.cross(along, down)
        return np.stack([normal / np.linalg.norm(normal), down, along])


def read_header(file: io.BufferedIOBase, location: Location) -> list[Image]:
    """Reads the headers of one DICOM file; empty if it holds no image (a report, a DICOMDIR).

    Args:
        file: seekable file at its start.
        location: location of the file, kept in the headers.

    Raises:
        MrkneeError: the file can't be read. The message quotes nothing from the file.
    """
    quick = read_quickly(file, _WANTED)
    if quick is not None:
        return _images(quick, location)
    with untrusted():
        return _images(parse(file, TAGS), location)


def _images(dataset: FileDataset | QuickDataset, location: Location) -> list[Image]:
    rows, cols = integer(dataset, "Rows") or 0, integer(dataset, "Columns") or 0
    kind = text(dataset, "SOPClassUID") or text(dataset.file_meta, "MediaStorageSOPClassUID")
    if any(uid.startswith(kind) for uid in MR_IMAGES) and not (rows and cols):
        raise DataError(
            "a DICOM file is truncated in its header",
            code="dicom",
            advice="copy or export the file again",
        )
    if kind == MediaStorageDirectoryStorage or not rows or not cols:
        return []
    frames = integer(dataset, "NumberOfFrames") or 1
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
        # several frames without individual positions (a video) are not a stack
        return [image if frames == 1 else replace(image, position=())]
    if len(per_frame) != frames:
        raise DataError(
            "the header of a multi-frame file contradicts itself",
            code="dicom",
            expected=f"one item of functional groups for each of its {frames} frames",
            found=f"{len(per_frame)} items",
        )
    return [
        _image(dataset, _Groups(dataset, shared, groups), location, frame, frames)
        for frame, groups in enumerate(per_frame)
    ]


class _Groups:
    """Looks up functional groups of a frame: per-frame, else shared, else the dataset itself."""

    def __init__(self, dataset: Elements, shared: Dataset, own: Dataset) -> None:
        self._dataset, self._shared, self._own = dataset, shared, own

    def __call__(self, sequence: str) -> Elements:
        if not self._own and not self._shared:
            return self._dataset
        return (
            first_item(self._own, sequence) or first_item(self._shared, sequence) or self._dataset
        )


def _image(
    dataset: FileDataset | QuickDataset, group: _Groups, location: Location, frame: int, frames: int
) -> Image:
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
        number=integer(content, "InStackPositionNumber") or integer(dataset, "InstanceNumber") or 0,
        acquisition=integer(content, "FrameAcquisitionNumber")
        or integer(dataset, "AcquisitionNumber"),
        temporal=integer(content, "TemporalPositionIndex")
        or integer(dataset, "TemporalPositionIdentifier"),
        echo=integer(dataset, "EchoNumbers"),
        series_number=integer(dataset, "SeriesNumber") or 0,
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
        technique=texts(dataset, "ScanningSequence")
        or (
            *texts(dataset, "EchoPulseSequence"),
            *(["IR"] if text(modifier, "InversionRecovery") == "YES" else []),
        ),
        options=texts(dataset, "ScanOptions")
        + texts(modifier, "SpectrallySelectedSuppression")
        + tuple(f"{value} EXCITED" for value in texts(modifier, "SpectrallySelectedExcitation")),
        te_ms=number(echo, "EffectiveEchoTime") or number(dataset, "EchoTime"),
        tr_ms=number(timing, "RepetitionTime"),
        ti_ms=number(modifier, "InversionTimes") or number(dataset, "InversionTime"),
        position=numbers(group("PlanePositionSequence"), "ImagePositionPatient"),
        orientation=numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient"),
        pixel_mm=numbers(group("PixelMeasuresSequence"), "PixelSpacing"),
        rows=integer(dataset, "Rows") or 0,
        cols=integer(dataset, "Columns") or 0,
        frames=frames,
        samples=integer(dataset, "SamplesPerPixel") or 1,
        inverted=text(dataset, "PhotometricInterpretation") == "MONOCHROME1",
        bits=integer(dataset, "BitsStored") or 16,
        rescale=_rescale(rescale),
        burned_in=text(dataset, "BurnedInAnnotation") == "YES",
        syntax=text(dataset.file_meta, "TransferSyntaxUID"),
        mosaic=is_mosaic(dataset),
        pixels=_plain_pixels(dataset) if isinstance(dataset, QuickDataset) else None,
        scanner=_scanner(dataset),
    )


def _plain_pixels(dataset: QuickDataset) -> PlainPixels | None:
    """Returns where the values of an image are, unless anything about them is unusual."""
    place, bits = dataset.pixels, integer(dataset, "BitsStored")
    usual = (
        place is not None
        and bits is not None
        and integer(dataset, "BitsAllocated") == 16
        and integer(dataset, "HighBit") == bits - 1
        and integer(dataset, "PixelRepresentation") == 0
        and integer(dataset, "SamplesPerPixel") == 1
        and integer(dataset, "NumberOfFrames") in (None, 1)
        and text(dataset, "PhotometricInterpretation") == "MONOCHROME2"
        and not any(tag in dataset for tag in PADDING)
    )
    if not usual or place is None or bits is None:
        return None
    count = (integer(dataset, "Rows") or 0) * (integer(dataset, "Columns") or 0)
    return PlainPixels(place, bits) if place.length == 2 * count else None


def _scanner(dataset: Elements) -> tuple[str, str, str, str, str]:
    field, frequency = number(dataset, "MagneticFieldStrength"), number(dataset, "ImagingFrequency")
    return (
        text(dataset, "Manufacturer"),
        text(dataset, "ManufacturerModelName"),
        text(dataset, "DeviceSerialNumber"),
        "" if field is None else f"{field:.1f}",
        # the frequency is adjusted before each series; its first two decimals are the magnet's
        "" if frequency is None else f"{frequency:.2f}",
    )


def _derivation(dataset: Elements) -> str:
    meanings = [text(code, "CodeMeaning") for code in items(dataset, "DerivationCodeSequence")]
    return " ".join(word for word in (text(dataset, "DerivationDescription"), *meanings) if word)


def _lossy(dataset: Elements) -> bool:
    if text(dataset, "LossyImageCompression") == "01":
        return True
    details = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
    return any(text(dataset, keyword) for keyword in details)


def _component(dataset: Elements, frame_type: Elements) -> str:
    component = text(frame_type, "ComplexImageComponent") or text(dataset, "ComplexImageComponent")
    if component:
        return component if component in GE_COMPONENTS.values() else ""
    if not str(_private(dataset, GE_CREATOR)).startswith("GEMS"):
        return ""
    value = _private(dataset, GE_COMPONENT)
    if isinstance(value, bytes):  # implicit VR, or an unknown private creator
        value = int.from_bytes(value[:2], "little")
    return GE_COMPONENTS.get(value, "") if isinstance(value, int) else ""


def _private(dataset: Elements, tag: tuple[int, int]) -> object:
    value: object = dataset[tag].value if tag in dataset else None
    return value[0] if isinstance(value, (MultiValue, list)) and value else value


def _lateralities(dataset: Elements, anatomy: Elements, region: Elements) -> tuple[str, ...]:
    modifier = first_item(region, "AnatomicRegionModifierSequence") or Dataset()
    found = (
        text(anatomy, "FrameLaterality"),
        text(dataset, "ImageLaterality"),
        text(dataset, "Laterality"),
        text(modifier, "CodeMeaning"),
    )
    return tuple(value for value in found if value)


def _rescale(dataset: Elements) -> tuple[float, float]:
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    return (slope or 1.0, intercept or 0.0)


def blank(location: Location) -> Image:
    """Returns an empty header for a file that has none; every attribute is missing."""
    dataset = FileDataset(io.BytesIO(), {}, file_meta=FileMetaDataset())
    return _image(dataset, _Groups(dataset, Dataset(), Dataset()), location, 0, 1)
