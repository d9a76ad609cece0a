"""NIfTI files named by their plane: which they are, and their grey values.

NIfTI keeps orientation and pixel size but nothing of the protocol, so the file's name must say
which plane it stands for: `knee_sag.nii.gz`, `sagittal.nii`, or `sagittal/0001.nii.gz`. Files
whose names differ only by the plane are one exam.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from mrknee.errors import MrkneeError
from mrknee.exams import Plane
from mrknee.sources.clinical.anatomy import words_of
from mrknee.sources.clinical.dicomfile import untrusted
from mrknee.sources.clinical.geometry import SHOWN, Volume
from mrknee.sources.clinical.locate import Location, Opener
from mrknee.sources.clinical.pixels import MAX_VOXELS

ENDINGS = (".nii", ".nii.gz")
MAX_HEADER = 1024**2
"""Header and extensions; the voxels begin behind them."""
THICKEST = 0.5
"""Slices are the thickest way of a voxel, unless it is nearly a cube: then any plane will do."""
NAMES: dict[str, Plane] = {
    **dict.fromkeys(("axial", "ax", "axi", "tra", "transverse", "transversal"), Plane.AXIAL),
    **dict.fromkeys(("coronal", "cor"), Plane.CORONAL),
    **dict.fromkeys(("sagittal", "sag"), Plane.SAGITTAL),
}


def is_nifti(location: Location) -> bool:
    """Whether a file's name ends like NIfTI's."""
    return location.name.name.lower().endswith(ENDINGS)


def plane_and_exam(name: PurePosixPath) -> tuple[Plane | None, str]:
    """The plane that a file's name, or its folder's, says; and the rest, which names the exam."""
    stem = name.name[: name.name.lower().rindex(".nii")]
    words = words_of([stem.replace("_", " ")])
    named = {NAMES[word] for word in words if word in NAMES}
    if len(named) == 1:
        rest = " ".join(word for word in words if word not in NAMES)
        return named.pop(), f"{name.parent}/{rest}"
    folder = NAMES.get(name.parent.name.lower())
    if not named and folder is not None:
        return folder, f"{name.parent.parent}/{stem}"
    return None, str(name)


def read_nifti(location: Location, plane: Plane) -> Volume:
    """Reads a volume as slices of a plane.

    Args:
        location: where the file is.
        plane: its slices run along the axis that is closest to this plane's normal.

    Raises:
        MrkneeError: it can't be read, isn't one volume, or doesn't say how it lies in the patient.
    """
    with Opener() as opener:
        packed = opener.read(location)
    with untrusted("NIfTI"):
        stream = _Unpacked(packed)
        start = stream.upto(4)
        kinds: dict[int, Any] = {348: Nifti1Header, 540: Nifti2Header}
        sizes = [size for end in "<>" for size in struct.unpack(f"{end}i", start) if size in kinds]
        if not sizes:
            raise MrkneeError("a NIfTI file can't be read", expected="NIfTI's header")
        header: Nifti1Header = kinds[sizes[0]](stream.upto(sizes[0]), check=False)
        shape, kind, offset = _shape(header), header.get_data_dtype(), header.get_data_offset()
        length = math.prod(shape) * kind.itemsize
        data = stream.upto(int(offset) + length)
        if len(data) < offset + length:
            raise MrkneeError(
                "a NIfTI file is cut off",
                expected=f"{length:,} bytes of voxels",
                found=f"{max(0, len(data) - int(offset)):,}",
            )
        stored = np.frombuffer(data, kind, math.prod(shape), int(offset)).reshape(shape, order="F")
        slope, intercept = header.get_slope_inter()
        values = stored.astype(np.float32)
        if slope is not None:
            values = (stored * float(slope) + float(intercept or 0.0)).astype(np.float32)
        if not np.isfinite(values).all():
            raise MrkneeError("a NIfTI file holds values that are no numbers")
        return _as_slices(values, header, plane)


def _shape(header: Nifti1Header) -> tuple[int, ...]:
    """The three sizes of a volume; everything else is refused before anything is allocated."""
    shape = tuple(int(size) for size in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
        raise MrkneeError(
            "a NIfTI file is no single volume",
            expected=f"three dimensions of up to {MAX_VOXELS:,} voxels",
            found=" x ".join(map(str, shape)) or "none",
        )
    if header.get_data_dtype().kind not in "uif":
        raise MrkneeError(
            "a NIfTI file holds something other than grey values",
            expected="whole or real numbers",
            found=str(header.get_data_dtype()),
        )
    if not 0 <= header.get_data_offset() <= MAX_HEADER:
        raise MrkneeError("a NIfTI file's voxels begin at an impossible place")
    return shape


def _as_slices(values: np.ndarray, header: Nifti1Header, plane: Plane) -> Volume:
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        raise MrkneeError("a NIfTI file doesn't say how it lies in the patient")
    affine = np.asarray(header.get_best_affine(), dtype=float)
    steps = (np.diag([-1.0, -1.0, 1.0]) @ affine[:3, :3]).T  # NIfTI's x is right, y front
    sizes = np.linalg.norm(steps, axis=1)
    if not np.isfinite(steps).all() or not ((sizes > 0.05) & (sizes < 50.0)).all():
        raise MrkneeError("a NIfTI file doesn't say how large a voxel is")
    axes = steps / sizes[:, None]
    first = int(np.argmax(np.abs(axes @ SHOWN[plane][0])))
    if sizes[first] < THICKEST * sizes.max():
        raise MrkneeError(f"it is named by the {plane} plane, but its slices lie in another")
    order = [first, *(axis for axis in range(3) if axis != first)]
    pixel_mm = (float(sizes[order[1]]), float(sizes[order[2]]))
    middle = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine @ [*((n - 1) / 2 for n in values.shape), 1.0]
    return Volume(values.transpose(order), axes[order], pixel_mm, middle[:3])


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
