"""Exams and data sets: types, reading, writing and splitting. Depends on numpy only.

Start with `exam` (one exam) and `folder` (a data set). All modules:

- `series`: Plane, Series and SeriesList: the series that an exam may have; `series.csv`.
- `findings`: Findings: names and order of the findings; `findings.csv`.
- `declaration`: reading of small CSV tables: `series.csv`, `findings.csv`, `groups.csv`,
  `sides.csv`.
- `exam`: Exam: validated on creation, immutable.
- `remark`, `plausibility`: remarks on exams that are readable but implausible.
- `axes`: detection of the order of a stack's axes from shapes.
- `greyscale`: conversion of grey values of any type to uint8.
- `listing`: listing of a folder's stacks and unread files; suggestions for wrong paths.
- `ids`: validation of exam ids and detection of ids that differ in form only.
- `stackfile`: reading and writing of one `.npy` file.
- `labels`: label files: reading, joining by id, writing.
- `folder`: Dataset: a folder of exams in MRNet's layout.
- `lesions`: masks of lesions.
- `groups`: exams of one patient, scanner or report; `groups.csv`.
- `sides`: which knee an exam shows, and whether it was mirrored; `sides.csv`.
- `splits`: the inner split and the folds of the training exams.
"""

from mrknee.exams.exam import Exam, Exams, Stack, as_exams
from mrknee.exams.findings import (
    MRNET_FINDINGS,
    RSNA_2026_FINDINGS,
    Findings,
    in_order,
    read_findings,
    write_findings,
)
from mrknee.exams.folder import Dataset, open_dataset, read_exam, split_of
from mrknee.exams.groups import read_groups, write_groups
from mrknee.exams.labels import cut_labels, has_soft, label_files, read_labels, write_labels
from mrknee.exams.plausibility import Inspected, StackSizes, remarks_of
from mrknee.exams.remark import Remark
from mrknee.exams.series import (
    MRNET_SERIES,
    PLANES,
    USUAL_SERIES,
    Plane,
    Series,
    SeriesList,
    by_series,
    plane_named,
    read_series,
    read_series_file,
    write_series,
)
from mrknee.exams.sides import ExamSide, has_canonical_sides, read_sides, write_sides
from mrknee.exams.splits import assign_folds, inner_split
from mrknee.exams.stackfile import read_stack, write_stack

__all__ = [
    "MRNET_FINDINGS",
    "MRNET_SERIES",
    "PLANES",
    "RSNA_2026_FINDINGS",
    "USUAL_SERIES",
    "Dataset",
    "Exam",
    "ExamSide",
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
    "assign_folds",
    "by_series",
    "cut_labels",
    "has_canonical_sides",
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
    "read_sides",
    "read_stack",
    "remarks_of",
    "split_of",
    "write_findings",
    "write_groups",
    "write_labels",
    "write_series",
    "write_sides",
    "write_stack",
]
