"""DICOM exports for tests: phantom scans with planted identifiers of a patient."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLossless,
    JPEGLosslessSV1,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from mrknee.exams import PLANES, Plane, SeriesList
from mrknee.sources.clinical.geometry import SHOWN
from mrknee.sources.phantom import Truth, render_exam

ROOT = "1.2.826.0.1.3680043.8.498.4711."
"""Prefix of every UID."""

PLANTED = {
    "PatientName": "Plantagenet^Petronella",
    "PatientID": "PLANT-0815",
    "PatientBirthDate": "19610203",
    "PatientAddress": "Plantage 7",
    "AccessionNumber": "ACC-PLANT",
    "StudyDate": "20190817",
    "SeriesDate": "20190817",
    "InstitutionName": "Plantation Hospital",
    "ReferringPhysicianName": "Plantard^Pierre",
    "StationName": "PLANTMR1",
    "OperatorsName": "Plantin^Paul",
}
SECRETS = ("plant", "petronella", "0815", "19610203", "20190817", "4711")
"""Parts of the planted identifiers in lower case; 4711 is in every UID."""


@lru_cache(maxsize=1)
def knee() -> dict[Plane, UInt8[np.ndarray, "slices rows cols"]]:
    """A phantom's stacks of 11 slices, enlarged from 128 x 128 to 256 x 256."""
    exam = render_exam(5, Truth(abnormal=True, acl=True, meniscus=False), size=128)
    stacks = {}
    for plane in PLANES:
        whole = exam.stacks[plane]
        middle = len(whole) // 2
        stacks[plane] = whole[middle - 5 : middle + 6].repeat(2, axis=1).repeat(2, axis=2)
    return stacks


@lru_cache(maxsize=2)
def declared_knee(series: SeriesList) -> dict[str, tuple[Scan, np.ndarray]]:
    """A phantom's declared series of 10 slices or more, each with its scan parameters."""
    exam = render_exam(
        5, Truth(abnormal=True, acl=True, meniscus=False), size=96, slice_factor=0.6, series=series
    )
    found = {}
    for number, one in enumerate(series, start=2):
        acquisition = exam.protocol.series[one.name]
        saturated = acquisition.fat_left < 1
        scan = Scan(
            one.plane,
            number,
            f"{one.plane} {'FS' if saturated else ''}",
            round(acquisition.echo_ms, 1),
            round(acquisition.repetition_ms, 1),
            {"ScanningSequence": "GR" if acquisition.flip_degrees else "SE"},
            pixel=acquisition.field_of_view / 96,
            spacing=acquisition.spacing,
        )
        whole, count = exam.stacks[one.name], 8 + number
        start = (len(whole) - count) // 2
        found[one.name] = scan, whole[start : start + count].astype(np.uint16) * 16
    return found


def export_declared(
    folder: Path,
    series: SeriesList,
    study: str = "study",
    *,
    without: Sequence[str] = (),
) -> Path:
    """Writes a study of the declared series except `without`."""
    for name, (scan, stack) in declared_knee(series).items():
        if name not in without:
            export_series(folder, scan, stack, study=study)
    return folder


@dataclass(frozen=True)
class Scan:
    """Geometry and header elements of a scan.

    Attributes:
        plane: nearest plane.
        number: SeriesNumber.
        name: SeriesDescription.
        te, tr: echo and repetition time, ms.
        elements: further elements by keyword, which replace default ones; None removes one.
        turned: which of the three axes (slices, rows, columns) are reversed.
        transposed: whether rows and columns are exchanged.
        tilt: rotation about the columns' direction, degrees.
        centre: centre of the stack in patient coordinates, mm.
        pixel, spacing: size of a pixel and distance between slices, mm.
    """

    plane: Plane
    number: int = 1
    name: str = "PD FS"
    te: float | None = 30.0
    tr: float | None = 2500.0
    elements: dict[str, Any] = field(default_factory=dict)
    turned: tuple[bool, bool, bool] = (False, False, False)
    transposed: bool = False
    tilt: float = 0.0
    centre: tuple[float, float, float] = (-80.0, 12.0, 7.0)
    pixel: float = 0.625
    spacing: float = 4.0

    @property
    def axes(self) -> np.ndarray:
        """Directions of the acquired slices, rows and columns."""
        axes = SHOWN[self.plane].copy()
        angle = np.radians(self.tilt)
        slices, rows, cols = axes
        axes = np.stack(
            [
                np.cos(angle) * slices + np.sin(angle) * rows,
                np.cos(angle) * rows - np.sin(angle) * slices,
                cols,
            ]
        )
        return axes * np.where(self.turned, -1.0, 1.0)[:, None]


PROTOCOL = (
    Scan(Plane.SAGITTAL, 2, "SAG T2 FS", 60.0, 4000.0, {"ScanOptions": "FS"}),
    Scan(Plane.CORONAL, 3, "COR T1", 12.0, 600.0),
    Scan(Plane.AXIAL, 4, "AX PD FS", 30.0, 3000.0, {"ScanOptions": "FS"}),
)
"""MRNet's protocol."""


def acquire(stack: np.ndarray, scan: Scan) -> list[tuple[np.ndarray, np.ndarray]]:
    """A stack's acquired slices: (pixels, position of the first pixel)."""
    acquired = np.flip(stack, tuple(np.flatnonzero(scan.turned)))
    axes = scan.axes
    if scan.transposed:
        acquired, axes = acquired.transpose(0, 2, 1), axes[[0, 2, 1]]
    count, rows, cols = acquired.shape
    steps = np.array([scan.spacing, scan.pixel, scan.pixel])
    slices = []
    for index in range(count):
        place = np.array([index - (count - 1) / 2, -(rows - 1) / 2, -(cols - 1) / 2])
        slices.append((acquired[index], np.array(scan.centre) + (place * steps) @ axes))
    return slices


def orientation(scan: Scan) -> list[float]:
    """ImageOrientationPatient: along a row, down a column."""
    axes = scan.axes[[0, 2, 1]] if scan.transposed else scan.axes
    return [*axes[2], *axes[1]]


def rounded(values: Sequence[float]) -> list[str]:
    """Numbers as decimal strings."""
    return [f"{value:.6f}" for value in values]


def datasets(
    stack: np.ndarray, scan: Scan, study: str = "study", series: str | None = None
) -> list[Dataset]:
    """One uncompressed dataset per slice; `study` and `series` seed the UIDs."""
    series = series or f"{study} {scan.number}"
    found = []
    for index, (pixels, position) in enumerate(acquire(stack, scan)):
        dataset = _common(scan, study, series)
        dataset.SOPInstanceUID = generate_uid(ROOT, [f"{series} {scan.plane} {index} {scan.te}"])
        dataset.InstanceNumber = index + 1
        dataset.ImagePositionPatient = rounded(list(position))
        dataset.ImageOrientationPatient = rounded(orientation(scan))
        dataset.PixelSpacing = rounded([scan.pixel, scan.pixel])
        dataset.SliceThickness = "3.0"
        set_pixels(dataset, pixels)
        _apply(dataset, scan)
        found.append(dataset)
    return found


def _common(scan: Scan, study: str, series: str) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = MRImageStorage
    for keyword, value in PLANTED.items():
        setattr(dataset, keyword, value)
    dataset.StudyInstanceUID = generate_uid(ROOT, [study])
    dataset.SeriesInstanceUID = generate_uid(ROOT, [series])
    dataset.StudyDescription = "MRI KNEE Plantagenet"
    dataset.Modality = "MR"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    dataset.SeriesNumber = scan.number
    dataset.SeriesDescription = scan.name
    dataset.BodyPartExamined = "KNEE"
    dataset.ScanningSequence = "SE"
    dataset.EchoTime, dataset.RepetitionTime = scan.te, scan.tr
    return dataset


def _apply(dataset: Dataset, scan: Scan) -> None:
    for keyword, value in scan.elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)


def set_pixels(dataset: Dataset, pixels: np.ndarray, bits: int | None = None) -> None:
    """Sets the pixels of a dataset and the elements that describe them."""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    size = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored = size, bits or size
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW" if size > 8 else "OB"


def enhanced(stack: np.ndarray, scan: Scan, study: str = "study") -> Dataset:
    """A series as one enhanced multi-frame file with its frames in shuffled order."""
    slices = acquire(stack, scan)
    order = np.random.default_rng(1).permutation(len(slices))
    dataset = _common(scan, study, f"{study} {scan.number}")
    dataset.SOPClassUID = EnhancedMRImageStorage
    dataset.SOPInstanceUID = generate_uid(ROOT, [f"{study} {scan.number} enhanced"])
    del dataset.EchoTime, dataset.RepetitionTime, dataset.ScanningSequence
    dataset.EchoPulseSequence = "SPIN"
    shared = Dataset()
    shared.PixelMeasuresSequence = Items([item(PixelSpacing=rounded([scan.pixel, scan.pixel]))])
    shared.PlaneOrientationSequence = Items(
        [item(ImageOrientationPatient=rounded(orientation(scan)))]
    )
    shared.MREchoSequence = Items([item(EffectiveEchoTime=scan.te)])
    shared.MRTimingAndRelatedParametersSequence = Items([item(RepetitionTime=scan.tr)])
    shared.FrameAnatomySequence = Items([item(FrameLaterality="R")])
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    frames = []
    for index in order:
        frame = Dataset()
        frame.PlanePositionSequence = Items(
            [item(ImagePositionPatient=rounded(list(slices[index][1])))]
        )
        frame.FrameContentSequence = Items([item(InStackPositionNumber=int(index) + 1)])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Items(frames)
    pixels = np.stack([slices[index][0] for index in order])
    set_pixels(dataset, pixels)
    dataset.NumberOfFrames = len(pixels)
    _apply(dataset, scan)
    return dataset


def item(**elements: object) -> Dataset:
    """A sequence's item."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def write(dataset: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> Path:
    """Writes a dataset in a transfer syntax."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        path.write_bytes(_by_gdcm(dataset, syntax))
        return path
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    compressed = UID(syntax).is_compressed and syntax != "1.2.840.10008.1.2.1.99"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if compressed else syntax
    file = FileDataset(io.BytesIO(), dataset, b"\0" * 128, meta)
    if syntax == ExplicitVRBigEndian:
        values = np.frombuffer(file.PixelData, f"<u{file.BitsAllocated // 8}")
        file.PixelData = values.astype(values.dtype.newbyteorder(">")).tobytes()
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    if compressed:
        file.compress(syntax, generate_instance_uid=False)
    dcmwrite(path, file, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return path


def _by_gdcm(dataset: Dataset, syntax: UID) -> bytes:
    """JPEG lossless, which only gdcm writes."""
    import tempfile

    import gdcm

    with tempfile.TemporaryDirectory() as folder:
        plain = write(dataset, Path(folder, "plain"))
        reader = gdcm.ImageReader()
        reader.SetFileName(str(plain))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        kinds = {JPEGLosslessSV1: "JPEGLosslessProcess14_1", JPEGLossless: "JPEGLosslessProcess14"}
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, kinds[syntax])))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(Path(folder, "packed")))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return Path(folder, "packed").read_bytes()


def export_series(
    folder: Path,
    scan: Scan,
    stack: np.ndarray | None = None,
    *,
    study: str = "study",
    syntax: UID = ExplicitVRLittleEndian,
) -> list[Path]:
    """Writes one series as files with shuffled names."""
    pixels = knee()[scan.plane].astype(np.uint16) * 16 if stack is None else stack
    found = datasets(pixels, scan, study)
    names = np.random.default_rng(scan.number).permutation(1000)
    target = folder / "Plantagenet_Petronella" / f"{study} {scan.number} {scan.plane}"
    return [
        write(dataset, target / f"IM{names[index]:04d}", syntax)
        for index, dataset in enumerate(found)
    ]


def export_study(folder: Path, study: str = "study", scans: Sequence[Scan] = PROTOCOL) -> Path:
    """Writes a study."""
    for scan in scans:
        export_series(folder, scan, study=study)
    return folder


def screenshot(folder: Path, study: str = "study") -> Path:
    """Writes a secondary capture into a study."""
    dataset = datasets(knee()[Plane.AXIAL][:1], Scan(Plane.AXIAL, 99, "screen"), study)[0]
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    return write(dataset, folder / "screenshot")
