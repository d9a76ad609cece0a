"""Writing of one series as DICOM files with the elements that the real data set keeps."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt16
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    MRImageStorage,
)

from mrknee.sources.phantom.rsna.protocols import PlannedSeries
from mrknee.sources.phantom.rsna.sites import Scanner
from mrknee.sources.phantom.scanner import Acquisition, slice_grid

Syntax = Literal["explicit", "implicit", "jpeg", "jpeg2000"]
SYNTAXES: Mapping[Syntax, UID] = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "jpeg": JPEGLosslessSV1,
    "jpeg2000": JPEG2000Lossless,
}
UID_ROOT = "1.2.826.0.1.3680043.8.498."
"""Prefix of UIDs: pydicom's root."""

_ABBREVIATIONS = {"axial": "ax", "coronal": "cor", "sagittal": "sag"}
_PHILIPS = {"T1": "T1W", "PD": "PDW", "T2": "T2W", "GRE": "T2_FFE"}


@dataclass(frozen=True)
class Header:
    """What the files of a study have in common.

    Attributes:
        study, patient, frame: StudyInstanceUID, PatientID and FrameOfReferenceUID.
        sex: PatientSex.
        body_part: BodyPartExamined.
        laterality: Laterality; "" if the tag is missing.
        scanner: the scanner.
        mhz: imaging frequency of the study.
        rotation, origin: the patient's axes and position in the scanner, mm: a point `p` of the
            phantom is at `rotation @ p + origin`.
    """

    study: str
    patient: str
    frame: str
    sex: str
    body_part: str
    laterality: str
    scanner: Scanner
    mhz: float
    rotation: Float[np.ndarray, "3 3"]
    origin: Float[np.ndarray, " 3"]


def draw_uid(rng: np.random.Generator) -> str:
    """Draws a UID."""
    return UID_ROOT + str(int.from_bytes(rng.bytes(12), "big"))


def write_series(
    folder: Path,
    header: Header,
    series: PlannedSeries,
    uid: str,
    number: int,
    description: str,
    pixels: UInt16[np.ndarray, "slices rows cols"],
    rng: np.random.Generator,
    *,
    options_state_suppression: bool = True,
    syntax: Syntax = "explicit",
) -> list[Path]:
    """Writes one series, a file per slice, named by random UIDs.

    Args:
        folder: the series' folder; it is created.
        header: of the study.
        series: what was acquired.
        uid: SeriesInstanceUID.
        number: SeriesNumber.
        description: SeriesDescription.
        pixels: grey values; slices in the order of the phantom (from the patient's right, front or
            head).
        rng: stream of the instances' UIDs.
        options_state_suppression: whether ScanOptions state a fat suppression.
        syntax: transfer syntax.

    Returns:
        The files, in the order of the slices.
    """
    dataset = _series_dataset(header, series, uid, number, description, options_state_suppression)
    _describe_pixels(dataset, series, pixels)
    corners, row_direction, column_direction = positions(series.acquisition, series.edge, header)
    dataset.ImageOrientationPatient = _rounded([*row_direction, *column_direction])
    normal = np.cross(row_direction, column_direction)
    folder.mkdir(parents=True)
    files: list[Path] = []
    for index, image in enumerate(pixels):
        instance = draw_uid(rng)
        dataset.SOPInstanceUID = instance
        dataset.InstanceNumber = len(pixels) - index if series.reversed else index + 1
        dataset.ImagePositionPatient = _rounded(corners[index])
        dataset.SliceLocation = f"{float(corners[index] @ normal):.5f}"
        dataset.PixelData = image.astype("<u2").tobytes()
        dataset["PixelData"].VR = "OW"
        files.append(folder / f"{instance}.dcm")
        _write(dataset, files[-1], syntax)
    return files


def positions(
    acquisition: Acquisition, edge: int, header: Header
) -> tuple[Float[np.ndarray, "slices 3"], Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
    """Returns where each slice's first pixel lies, and the directions along rows and columns.

    All in DICOM's patient coordinates, mm.
    """
    lines, (through, rows, columns) = slice_grid(acquisition, edge)
    corners = np.zeros((acquisition.slices, 3))
    # axes of the volume are z, y, x
    corners[:, 2 - through] = lines[through]
    corners[:, 2 - rows], corners[:, 2 - columns] = lines[rows][0], lines[columns][0]
    along, down = np.zeros(3), np.zeros(3)
    along[2 - columns] = np.sign(lines[columns][-1] - lines[columns][0])
    down[2 - rows] = np.sign(lines[rows][-1] - lines[rows][0])
    rotation = header.rotation
    return corners @ rotation.T + header.origin, rotation @ along, rotation @ down


def describe(series: PlannedSeries, naming: int, *, suppression: str | None = None) -> str:
    """Returns a SeriesDescription in one of four styles.

    Args:
        series: the series.
        naming: index of the style.
        suppression: word for fat suppression if not the style's own.
    """
    plane, weighting = _ABBREVIATIONS[series.plane], series.weighting
    fat = series.fat_suppressed
    words: list[str]
    match naming:
        case 0:
            kind = "t2_me2d" if weighting == "GRE" else f"{weighting.lower()}_tse"
            words = [kind, *([suppression or "fs"] if fat else []), plane]
            return "_".join(["3d", *words] if series.three_d else words)
        case 1:
            kind = "GRE" if weighting == "GRE" else f"{weighting}"
            words = [plane.capitalize(), kind, *([suppression or "FS"] if fat else [])]
            return " ".join(["CUBE", *words] if series.three_d else words)
        case 2:
            words = [_PHILIPS[weighting], *([suppression or "SPAIR"] if fat else []), plane.upper()]
            return "_".join(["3D", *words] if series.three_d else words)
        case _:
            kind = "T2* GRE" if weighting == "GRE" else weighting
            words = [plane.upper(), kind, *([suppression or "FATSAT"] if fat else [])]
            return " ".join(["3D", *words] if series.three_d else words)


def _series_dataset(
    header: Header,
    series: PlannedSeries,
    uid: str,
    number: int,
    description: str,
    options_state_suppression: bool,
) -> Dataset:
    acquisition, scanner = series.acquisition, header.scanner
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = _image_type(scanner)
    dataset.SOPClassUID = MRImageStorage
    dataset.Modality = "MR"
    dataset.Manufacturer = scanner.manufacturer
    dataset.SeriesDescription = description
    dataset.ManufacturerModelName = scanner.model
    dataset.PatientID = header.patient
    dataset.PatientSex = header.sex
    dataset.BodyPartExamined = header.body_part
    gradient = acquisition.flip_degrees is not None
    dataset.ScanningSequence = "GR" if gradient else "SE"
    dataset.SequenceVariant = "SP" if gradient else "SK"
    dataset.ScanOptions = _scan_options(
        scanner, series.fat_suppressed and options_state_suppression
    )
    dataset.MRAcquisitionType = "3D" if series.three_d else "2D"
    dataset.SliceThickness = f"{acquisition.thickness:.4f}"
    dataset.RepetitionTime = f"{acquisition.repetition_ms:.2f}"
    dataset.EchoTime = f"{acquisition.echo_ms:.2f}"
    dataset.NumberOfAverages = "1"
    dataset.ImagingFrequency = f"{header.mhz:.6f}"
    dataset.ImagedNucleus = "1H"
    dataset.EchoNumbers = "1"
    dataset.MagneticFieldStrength = f"{scanner.tesla:g}"
    dataset.SpacingBetweenSlices = f"{acquisition.spacing:.4f}"
    dataset.EchoTrainLength = "1" if gradient else "9"
    dataset.PercentSampling = "100"
    dataset.PercentPhaseFieldOfView = "100"
    dataset.AcquisitionMatrix = [acquisition.matrix[0], 0, 0, acquisition.matrix[1]]
    dataset.InPlanePhaseEncodingDirection = "COL"
    dataset.FlipAngle = f"{acquisition.flip_degrees or 150.0:.1f}"
    dataset.PatientPosition = "FFS"
    dataset.StudyInstanceUID = header.study
    dataset.SeriesInstanceUID = uid
    dataset.SeriesNumber = number
    dataset.AcquisitionNumber = 1
    dataset.FrameOfReferenceUID = header.frame
    if header.laterality:
        dataset.Laterality = header.laterality
    dataset.PatientIdentityRemoved = "YES"
    return dataset


def _describe_pixels(
    dataset: Dataset, series: PlannedSeries, pixels: UInt16[np.ndarray, "slices rows cols"]
) -> None:
    peak = int(pixels.max())
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[1:]
    pixel = series.acquisition.field_of_view / series.edge
    dataset.PixelSpacing = _rounded([pixel, pixel])
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12 if peak < 4096 else 16
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    dataset.WindowCenter = f"{peak / 3:.0f}"
    dataset.WindowWidth = f"{2 * peak / 3:.0f}"


def _image_type(scanner: Scanner) -> list[str]:
    match scanner.manufacturer[0]:
        case "S":
            return ["ORIGINAL", "PRIMARY", "M", "ND"]
        case "P":
            return ["ORIGINAL", "PRIMARY", "M_SE", "M", "SE"]
        case _:
            return ["ORIGINAL", "PRIMARY", "OTHER"]


def _scan_options(scanner: Scanner, suppressed: bool) -> list[str]:
    usual = {"G": ["FAST_GEMS", "NPW"], "S": ["PFP"]}.get(scanner.manufacturer[0], [])
    return [*usual, *(["FS"] if suppressed else [])]


def _rounded(values: Float[np.ndarray, " n"] | list[float]) -> list[str]:
    return [f"{float(value):.6f}" for value in values]


def _write(dataset: Dataset, file: Path, syntax: Syntax) -> None:
    """Writes one file in a transfer syntax."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    plain = "explicit" if syntax in ("jpeg", "jpeg2000") else syntax
    meta.TransferSyntaxUID = SYNTAXES[plain]
    whole = FileDataset(io.BytesIO(), dataset, b"\0" * 128, meta)
    if syntax == "jpeg":
        _write_jpeg(whole, file)
        return
    if syntax == "jpeg2000":
        whole.compress(JPEG2000Lossless, generate_instance_uid=False)
    dcmwrite(
        file, whole, implicit_vr=syntax == "implicit", little_endian=True, enforce_file_format=True
    )


def _write_jpeg(whole: FileDataset, file: Path) -> None:
    """Writes a file in JPEG Lossless, which only gdcm encodes."""
    import gdcm

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "plain.dcm")
        dcmwrite(plain, whole, enforce_file_format=True)
        reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
        reader.SetFileName(str(plain))
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        read = reader.Read()
        change.SetInput(reader.GetImage())
        changed = read and change.Change()
        writer.SetFileName(str(file))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        if not (changed and writer.Write()):
            raise OSError(f"gdcm couldn't write {file}")
