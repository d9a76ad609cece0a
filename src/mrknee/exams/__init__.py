"""WHAT WE HAVE: one knee, and folders of knees. numpy only.

- `exam`: Plane, Findings, Exam: checked when made, frozen after.
- `stackfile`: one .npy file, read without trusting it.
- `folder`: MRNet's layout, read and written; labels joined by id.
- `splits`: the inner split of the training exams.
"""

from mrknee.exams.exam import MRNET_FINDINGS, PLANES, Exam, Exams, Findings, Plane, Stack
from mrknee.exams.folder import ExamFolder, label_files, read_labels, write_labels
from mrknee.exams.splits import inner_split
from mrknee.exams.stackfile import read_stack, write_stack

__all__ = [
    "MRNET_FINDINGS",
    "PLANES",
    "Exam",
    "ExamFolder",
    "Exams",
    "Findings",
    "Plane",
    "Stack",
    "inner_split",
    "label_files",
    "read_labels",
    "read_stack",
    "write_labels",
    "write_stack",
]
