"""WHAT WE HAVE: one knee, and folders of knees. numpy only.

- `series`: Plane, Series: which series an exam may have; `series.csv`.
- `findings`: Findings: their names and order; `findings.csv`.
- `declaration`: the form of `series.csv`, `findings.csv` and `groups.csv`.
- `exam`: Exam: checked when made, frozen after.
- `remark`, `plausibility`: what is odd about an exam that can be read.
- `axes`: the order of a stack's axes, recognised from shapes.
- `greyscale`: grey values of any kind as bytes.
- `listing`: which files of a folder are stacks, which are not read, which folder was meant.
- `ids`: how ids differ that name the same exam for a person.
- `stackfile`: one .npy file, read without trusting it.
- `labels`: label files, read, joined by id, and written.
- `folder`: a folder of exams in MRNet's layout.
- `groups`: exams of one patient, scanner or report; `groups.csv`.
- `splits`: the inner split of the training exams.
"""

from mrknee.exams.exam import Exam, Exams, Stack, as_exams
from mrknee.exams.findings import (
    MRNET_FINDINGS,
    Findings,
    in_order,
    read_findings,
    write_findings,
)
from mrknee.exams.folder import Dataset, open_dataset, read_exam, split_of
from mrknee.exams.groups import read_groups
from mrknee.exams.labels import cut_labels, has_soft, label_files, read_labels, write_labels
from mrknee.exams.plausibility import Inspected, StackSizes, remarks_of
from mrknee.exams.remark import Remark
from mrknee.exams.series import (
    MRNET_SERIES,
    PLANES,
    Plane,
    Series,
    SeriesList,
    by_series,
    plane_named,
    read_series,
    read_series_file,
    write_series,
)
from mrknee.exams.splits import inner_split
from mrknee.exams.stackfile import read_stack, write_stack

__all__ = [
    "MRNET_FINDINGS",
    "MRNET_SERIES",
    "PLANES",
    "Dataset",
    "Exam",
    "Exams",
    "Findings",
    "Inspected",
    "Plane",
    "Remark",
    "Series",
    "SeriesList",
    "Stack",
    "StackSizes",
    "as_exams",
    "by_series",
    "cut_labels",
    "has_soft",
    "in_order",
    "inner_split",
    "label_files",
    "open_dataset",
    "plane_named",
    "read_exam",
    "read_findings",
    "read_groups",
    "read_labels",
    "read_series",
    "read_series_file",
    "read_stack",
    "remarks_of",
    "split_of",
    "write_findings",
    "write_labels",
    "write_series",
    "write_stack",
]
