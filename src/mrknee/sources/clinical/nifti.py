"""NIfTI files: orientation in the patient, and grey values.

NIfTI stores orientation and pixel size but no protocol; nifti_names.py takes the protocol from the
file's name and its JSON sidecar.
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
"""Maximum bytes of header and extensions, before the voxels."""
THICKEST = 0.5
"""Minimum voxel size along the slice axis, as a share of the largest: slices run along the longest
edge of a voxel, unless voxels are nearly isotropic."""
FEW_VALUES = 32
"""Maximum number of different integers in a label image; an image has hundreds."""
SAMPLE = 1_000_000
"""Number of voxels that are sampled first to count values."""
SAME_DEGREES, SAME_MM = 1.0, 1.0
"""sform and qform agree if they differ by less than this."""
CONTRADICTION_DEGREES = 30.0
"""If sform and qform differ by more than this, left and right are ambiguous."""
HEADER_BYTES = 1 << 16
"""Bytes of a compressed file that are read for the header."""


def is_nifti(location: Location) -> bool:
    """Returns whether a file's name ends like NIfTI's."""
    return location.name.name.lower().endswith(ENDINGS)


@dataclass(frozen=True)
class Grid:
    """Voxel grid of a volume in DICOM's patient coordinates.

    Attributes:
        shape: number of voxels along i, j and k.
        steps: vectors between neighbouring voxels along i, j and k (rows of a 3 x 3 array), mm.
        origin: centre of the first voxel, mm.
        notes: irregularities, one sentence each.
    """

    shape: tuple[int, ...]
    steps: np.ndarray
    origin: np.ndarray
    notes: tuple[str, ...]

    @property
    def sizes(self) -> np.ndarray:
        """Edges of a voxel along i, j and k, mm."""
        return np.asarray(np.linalg.norm(self.steps, axis=1))

    @property
    def axes(self) -> Axes:
        """Directions of i, j and k."""
        axes: Axes = self.steps / self.sizes[:, None]
        return axes

    def slices_first(self, plane: Plane | None) -> list[int]:
        """Returns the order of i, j and k with the slice axis first.

        Args:
            plane: the slice axis is the one closest to this plane's normal; None uses k, along
                which converters store a scanner's slices.

        Raises:
            MrkneeError: the voxels are much thinner along this axis than along another one, so
                that these aren't the acquired slices.
        """
        first = 2 if plane is None else int(np.argmax(np.abs(self.axes @ SHOWN[plane][0])))
        if self.sizes[first] < THICKEST * self.sizes.max():
            if plane is None:
                raise DataError("its slices aren't along its third axis", code="nifti")
            raise DataError(
                f"it is named {plane}, but its slices are in another plane",
                code="plane-name",
            )
        return [first, *(axis for axis in range(3) if axis != first)]


def read_grid(location: Location) -> Grid:
    """Reads the grid of a volume from its header.

    Raises:
        MrkneeError: see `read_nifti`.
    """
    with Opener() as opener, opener.open(location) as file:
        packed = file.read(HEADER_BYTES)
    with untrusted("NIfTI"):
        return _grid(_header(_Unpacked(packed)))


def as_series(grid: Grid, plane: Plane | None, image: Image) -> Series:
    """Describes a volume as a series, for the rule that chooses between series.

    Args:
        grid: grid of the volume.
        plane: plane of its slices; None uses slices along the third axis.
        image: header of the volume, copied to each slice with the slice's position.
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
        location: location of the file.
        plane: the slice axis is the one closest to this plane's normal.

    Raises:
        MrkneeError: the file can't be read, isn't one volume, holds labels, or has no orientation
            or two contradictory ones.
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
                "a NIfTI file is truncated",
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
            raise DataError("a NIfTI file holds non-finite values", code="nifti")
        grid = _grid(header)
        order = grid.slices_first(plane)
        if _is_labels(stored):
            raise DataError(LABELS, code="mask")
        middle = grid.origin + (np.array(shape) - 1) / 2 @ grid.steps
        pixel_mm = (float(grid.sizes[order[1]]), float(grid.sizes[order[2]]))
        return Volume(values.transpose(order), grid.axes[order], pixel_mm, middle)


LABELS = "a mask or a label image, not an image"


def _is_labels(stored: np.ndarray) -> bool:
    """Returns whether a volume holds only a few different integers."""
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
    """Returns the shape of a single volume of numbers; refuses anything else before allocation."""
    shape = tuple(int(size) for size in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
        raise DataError(
            "a NIfTI file is not a single volume",
            code="nifti",
            expected=f"three dimensions, at most {MAX_VOXELS:,} voxels",
            found=" x ".join(map(str, shape)) or "none",
        )
    if header.get_data_dtype().kind not in "uif":
        raise DataError(
            "a NIfTI file holds something other than grey values",
            code="nifti",
            expected="integers or floating-point numbers",
            found=str(header.get_data_dtype()),
        )
    if not 0 <= header.get_data_offset() <= MAX_HEADER:
        raise DataError("the voxels of a NIfTI file have an impossible offset", code="nifti")
    return shape


def _grid(header: Nifti1Header) -> Grid:
    shape = _shape(header)
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        raise DataError("a NIfTI file doesn't state its orientation", code="nifti")
    affine = np.asarray(header.get_best_affine(), dtype=float)
    to_dicom = np.diag([-1.0, -1.0, 1.0])  # NIfTI's x is right, y front
    steps = (to_dicom @ affine[:3, :3]).T
    sizes = np.linalg.norm(steps, axis=1)
    if not np.isfinite(affine).all() or not ((sizes > 0.05) & (sizes < 50.0)).all():
        raise DataError("a NIfTI file doesn't state its voxel size", code="nifti")
    return Grid(shape, steps, to_dicom @ affine[:3, 3], _disagreement(header))


def _disagreement(header: Nifti1Header) -> tuple[str, ...]:
    """Returns notes on differences between sform and qform.

    Raises:
        MrkneeError: sform and qform contradict each other.
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
        raise DataError("its sform and qform contradict each other", code="nifti")
    middle = np.array([(n - 1) / 2 for n in _shape(header)] + [1.0])
    apart = float(np.linalg.norm((sform - qform) @ middle))
    if angle > SAME_DEGREES or apart > SAME_MM:
        return (
            f"its sform and qform differ by {angle:.0f} degrees and {apart:.0f} mm;"
            " its sform is used",
        )
    return ()


class _Unpacked:
    """The first bytes of a file, unpacked only as far as requested."""

    def __init__(self, packed: bytes) -> None:
        self._bytes = bytearray()
        self._left = packed
        self._unpacker = zlib.decompressobj(31) if packed[:2] == b"\x1f\x8b" else None
        if self._unpacker is None:
            self._bytes, self._left = bytearray(packed), b""

    def upto(self, count: int) -> bytes:
        """Returns the first `count` bytes, or fewer if the file is shorter."""
        while self._unpacker is not None and len(self._bytes) < count and self._left:
            self._bytes += self._unpacker.decompress(self._left, count - len(self._bytes))
            self._left = self._unpacker.unconsumed_tail
        return bytes(self._bytes[:count])
