"""WHAT WE HAVE: one knee, and folders of knees. numpy only.

- `exam`: Plane, Findings, Exam: checked when made, frozen after.
- `remark`, `plausibility`: what is odd about an exam that can be read.
- `axes`: the order of a stack's axes, recognised from shapes.
- `greyscale`: grey values of any kind as bytes.
- `listing`: which files of a folder are stacks, which are not read, which folder was meant.
- `ids`: how ids differ that name the same exam for a person.
- `stackfile`: one .npy file, read without trusting it.
- `folder`: MRNet's layout, read and written; labels joined by id.
- `splits`: the inner split of the training exams.
"""

from mrknee.exams.exam import (
    MRNET_FINDINGS,
    PLANES,
    Exam,
    Exams,
    Findings,
    Plane,
    Stack,
    as_exams,
    by_plane,
    plane_named,
)
from mrknee.exams.folder import (
    Dataset,
    label_files,
    open_dataset,
    read_exam,
    read_labels,
    split_of,
    write_labels,
)
from mrknee.exams.plausibility import Inspected, StackSizes, remarks_of
from mrknee.exams.remark import Remark
from mrknee.exams.splits import inner_split
from mrknee.exams.stackfile import read_stack, write_stack

__all__ = [
    "MRNET_FINDINGS",
    "PLANES",
    "Dataset",
    "Exam",
    "Exams",
    "Findings",
    "Inspected",
    "Plane",
    "Remark",
    "Stack",
    "StackSizes",
    "as_exams",
    "by_plane",
    "inner_split",
    "label_files",
    "open_dataset",
    "plane_named",
    "read_exam",
    "read_labels",
    "read_stack",
    "remarks_of",
    "split_of",
    "write_labels",
    "write_stack",
]
