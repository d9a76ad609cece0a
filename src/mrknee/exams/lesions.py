"""Masks of lesions: `DATA/lesions/SPLIT/FINDING/SERIES/ID.npy`, as `mrknee phantom` writes them.

A mask has the shape and the order of axes of its stack, and is above 0 in the lesion.
"""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Bool
from numpy import ndarray

from mrknee.errors import DataError
from mrknee.exams.axes import Shape
from mrknee.exams.folder import Dataset
from mrknee.exams.stackfile import read_stack

LESIONS_FOLDER = "lesions"


def masks_folder(exams: Dataset) -> Path:
    """Returns the folder that contains one folder of masks per finding; it may not exist."""
    return exams.root / LESIONS_FOLDER / (exams.split or exams.folder.name)


def mask_file(exams: Dataset, finding: str, series: str, exam_id: str) -> Path:
    """Returns the file of a mask; it may not exist."""
    return masks_folder(exams) / finding / series / f"{exam_id}.npy"


def read_mask(
    exams: Dataset, finding: str, series: str, exam_id: str, shape: Shape
) -> Bool[ndarray, "slices rows cols"]:
    """Reads the mask of a finding in one series of an exam.

    Args:
        exams: the data set.
        finding: the finding.
        series: the series.
        exam_id: the exam.
        shape: shape of the exam's stack of the series.

    Raises:
        DataError: the mask can't be read, or its shape differs from that of its stack.
    """
    file = mask_file(exams, finding, series, exam_id)
    mask = read_stack(file, exam_id, axes=exams.axes) > 0
    if mask.shape != shape:
        raise DataError(
            "a lesion's mask doesn't fit its stack",
            code="shapes",
            file=file,
            exam=exam_id,
            expected=f"{shape} (slices, rows, cols), as the stack",
            found=str(mask.shape),
        )
    return mask
