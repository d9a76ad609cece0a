"""NIfTI files: how they lie in the patient, and their grey values.

NIfTI keeps orientation and pixel size but nothing of the protocol; nifti_names.py takes that from
the file's name and the JSON file beside it.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from mrknee.errors import DataError
from mrknee.exams import Plane
from mrknee.sources.clinical.dicomfile import untrusted
from mrknee.sources.clinical.geometry import SHOWN, Axes, Volume
from mrknee.sources.clinical.header import Image
from mrknee.sources.clinical.locate import Location, Opener
from mrknee.sources.clinical.pixels import MAX_VOXELS
from mrknee.sources.clinical.series import Series

ENDINGS = (".nii", ".nii.gz")
MAX_HEADER = 1024**2
"""Header and extensions; the voxels begin behind them."""
THICKEST = 0.5
"""Slices are the thickest way of a voxel, unless it is nearly a cube: then any plane will do."""
FEW_VALUES = 32
"""Whole numbers of so few different values are labels; an image has hundreds."""
SAMPLE = 1_000_000
"""Voxels that are looked at first to count values."""
SAME_DEGREES, SAME_MM = 1.0, 1.0
"""sform and qform say the same if they differ by less than this."""
CONTRADICTION_DEGREES = 30.0
"""If they differ by more than this, what is left and right is a guess."""
HEADER_BYTES = 1 << 16
"""Of a packed file, for the header alone."""


def is_nifti(location: Location) -> bool:
    """Whether a file's name ends like NIfTI's."""
    return location.name.name.lower().endswith(ENDINGS)


@dataclass(frozen=True)
class Grid:
    """How a volume's voxels lie in the patient.

    Attributes:
        shape: voxels along i, j and k.
        steps: from voxel to voxel along i, j and k, in DICOM's patient coordinates, mm.
        origin: of the first voxel's centre.
        notes: what is odd about it, one sentence each.
    """

    shape: tuple[int, ...]
    steps: np.ndarray
    origin: np.ndarray
    notes: tuple[str, ...]

    @property
    def sizes(self) -> np.ndarray:
        """The three edges of a voxel, mm."""
        return np.asarray(np.linalg.norm(self.steps, axis=1))

    @property
    def axes(self) -> Axes:
        """Where i, j and k point."""
        axes: Axes = self.steps / self.sizes[:, None]
        return axes

    def slices_first(self, plane: Plane | None) -> list[int]:
        """The order of i, j and k in which slices come first.

        Args:
            plane: slices are those whose normal is closest to its normal; None takes k, along
                which converters keep a scanner's slices.

        Raises:
            MrkneeError: the voxels are much thinner along this axis than along another one, so
                that its slices are no slices of a scanner.
        """
        first = 2 if plane is None else int(np.argmax(np.abs(self.axes @ SHOWN[plane][0])))
        if self.sizes[first] < THICKEST * self.sizes.max():
            if plane is None:
                raise DataError("its slices don't lie along its third axis", code="nifti")
            raise DataError(
                f"it is named by the {plane} plane, but its slices lie in another",
                code="plane-name",
            )
        return [first, *(axis for axis in range(3) if axis != first)]


def read_grid(location: Location) -> Grid:
    """Reads how a volume lies, from its header alone.

    Raises:
        MrkneeError: as `read_nifti`.
    """
    with Opener() as opener, opener.open(location) as file:
        packed = file.read(HEADER_BYTES)
    with untrusted("NIfTI"):
        return _grid(_header(_Unpacked(packed)))


def as_series(grid: Grid, plane: Plane | None, image: Image) -> Series:
    """A volume as a series, for the rule that chooses between series.

    Args:
        grid: how it lies.
        plane: which its slices are of; None takes those along its third axis.
        image: what is known of the volume otherwise; the slices get its place.
    """
    first, rows, cols = grid.slices_first(plane)
    count = grid.shape[first]
    images = tuple(
        replace(
            image,
            frame=index,
            position=tuple(float(value) for value in grid.origin + index * grid.steps[first]),
            pixel_mm=(float(grid.sizes[rows]), float(grid.sizes[cols])),
            rows=grid.shape[rows],
            cols=grid.shape[cols],
            frames=count,
        )
        for index in range(count)
    )
    return Series(images, grid.axes[[first, rows, cols]], notes=grid.notes)


def read_nifti(location: Location, plane: Plane) -> Volume:
    """Reads a volume as slices of a plane.

    Args:
        location: where the file is.
        plane: its slices run along the axis that is closest to this plane's normal.

    Raises:
        MrkneeError: it can't be read, isn't one volume, holds labels, or doesn't say how it lies
            in the patient, or says it in two ways that contradict each other.
    """
    with Opener() as opener:
        packed = opener.read(location)
    with untrusted("NIfTI"):
        stream = _Unpacked(packed)
        header = _header(stream)
        shape, kind, offset = _shape(header), header.get_data_dtype(), header.get_data_offset()
        length = math.prod(shape) * kind.itemsize
        data = stream.upto(int(offset) + length)
        if len(data) < offset + length:
            raise DataError(
                "a NIfTI file is cut off",
                code="nifti",
                expected=f"{length:,} bytes of voxels",
                found=f"{max(0, len(data) - int(offset)):,}",
            )
        stored = np.frombuffer(data, kind, math.prod(shape), int(offset)).reshape(shape, order="F")
        slope, intercept = header.get_slope_inter()
        values = stored.astype(np.float32)
        if slope is not None:
            values = (stored * float(slope) + float(intercept or 0.0)).astype(np.float32)
        if not np.isfinite(values).all():
            raise DataError("a NIfTI file holds values that are no numbers", code="nifti")
        grid = _grid(header)
        order = grid.slices_first(plane)
        if _is_labels(stored):
            raise DataError(LABELS, code="mask")
        middle = grid.origin + (np.array(shape) - 1) / 2 @ grid.steps
        pixel_mm = (float(grid.sizes[order[1]]), float(grid.sizes[order[2]]))
        return Volume(values.transpose(order), grid.axes[order], pixel_mm, middle)


LABELS = "a mask or a label image, not an image"


def _is_labels(stored: np.ndarray) -> bool:
    """Whether a volume holds a few whole numbers only."""
    flat = stored.reshape(-1, order="F")
    sample = flat[:: max(1, flat.size // SAMPLE)]
    if len(np.unique(sample)) > FEW_VALUES:
        return False
    found = np.unique(flat)
    return bool(1 < len(found) <= FEW_VALUES and (found == np.rint(found)).all())


def _header(stream: _Unpacked) -> Nifti1Header:
    start = stream.upto(4)
    kinds: dict[int, Any] = {348: Nifti1Header, 540: Nifti2Header}
    sizes = [size for end in "<>" for size in struct.unpack(f"{end}i", start) if size in kinds]
    if not sizes:
        raise DataError("a NIfTI file can't be read", code="nifti", expected="NIfTI's header")
    header: Nifti1Header = kinds[sizes[0]](stream.upto(sizes[0]), check=False)
    return header


def _shape(header: Nifti1Header) -> tuple[int, ...]:
    """The three sizes of a volume; everything else is refused before anything is allocated."""
    shape = tuple(int(size) for size in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
        raise DataError(
            "a NIfTI file is no single volume",
            code="nifti",
            expected=f"three dimensions of up to {MAX_VOXELS:,} voxels",
            found=" x ".join(map(str, shape)) or "none",
        )
    if header.get_data_dtype().kind not in "uif":
        raise DataError(
            "a NIfTI file holds something other than grey values",
            code="nifti",
            expected="whole or real numbers",
            found=str(header.get_data_dtype()),
        )
    if not 0 <= header.get_data_offset() <= MAX_HEADER:
        raise DataError("a NIfTI file's voxels begin at an impossible place", code="nifti")
    return shape


def _grid(header: Nifti1Header) -> Grid:
    shape = _shape(header)
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        raise DataError("a NIfTI file doesn't say how it lies in the patient", code="nifti")
    affine = np.asarray(header.get_best_affine(), dtype=float)
    to_dicom = np.diag([-1.0, -1.0, 1.0])  # NIfTI's x is right, y front
    steps = (to_dicom @ affine[:3, :3]).T
    sizes = np.linalg.norm(steps, axis=1)
    if not np.isfinite(affine).all() or not ((sizes > 0.05) & (sizes < 50.0)).all():
        raise DataError("a NIfTI file doesn't say how large a voxel is", code="nifti")
    return Grid(shape, steps, to_dicom @ affine[:3, 3], _disagreement(header))


def _disagreement(header: Nifti1Header) -> tuple[str, ...]:
    """What is to be noted where a file says in two ways how it lies, sform and qform.

    Raises:
        MrkneeError: they contradict each other.
    """
    if not int(header["sform_code"]) or not int(header["qform_code"]):
        return ()
    try:
        sform, qform = header.get_sform(), header.get_qform()
    except HeaderDataError:
        return ("its qform can't be read; its sform is used",)
    one, other = sform[:3, :3], qform[:3, :3]
    sizes = np.linalg.norm(one, axis=0), np.linalg.norm(other, axis=0)
    if not np.isfinite(qform).all() or not (sizes[0].all() and sizes[1].all()):
        return ("its qform can't be read; its sform is used",)
    cosines = ((one / sizes[0]) * (other / sizes[1])).sum(axis=0)
    angle = float(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))).max())
    if angle > CONTRADICTION_DEGREES or not np.allclose(*sizes, rtol=0.1):
        raise DataError("its sform and qform contradict each other about how it lies", code="nifti")
    middle = np.array([(n - 1) / 2 for n in _shape(header)] + [1.0])
    apart = float(np.linalg.norm((sform - qform) @ middle))
    if angle > SAME_DEGREES or apart > SAME_MM:
        return (
            f"its sform and qform differ by {angle:.0f} degrees and {apart:.0f} mm;"
            " its sform is used",
        )
    return ()


class _Unpacked:
    """A file's first bytes, unpacked only as far as they are asked for."""

    def __init__(self, packed: bytes) -> None:
        self._bytes = bytearray()
        self._left = packed
        self._unpacker = zlib.decompressobj(31) if packed[:2] == b"\x1f\x8b" else None
        if self._unpacker is None:
            self._bytes, self._left = bytearray(packed), b""

    def upto(self, count: int) -> bytes:
        """The first `count` bytes, or all there are."""
        while self._unpacker is not None and len(self._bytes) < count and self._left:
            self._bytes += self._unpacker.decompress(self._left, count - len(self._bytes))
            self._left = self._unpacker.unconsumed_tail
        return bytes(self._bytes[:count])
