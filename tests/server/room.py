"""Data sets for tests of the reading room's service."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mrknee.exams import PLANES, Dataset, write_labels, write_sides, write_stack
from mrknee.exams.lesions import mask_file
from mrknee.exams.sides import ExamSide
from tests.export.test_onnx import FINDINGS
from tests.server.client import random_exam


def write_room(root: Path) -> Path:
    """Writes a data set of two splits: three exams in valid and two in train.

    Exam 0001 has a mask of an ACL tear in all series, exam 0003 lacks the coronal series, and the
    id of one exam of train needs escaping in addresses.
    """
    ids = {"valid": ["0001", "0002", "0003"], "train": ["0004", "Knie <5> 100%"]}
    for split, names in ids.items():
        for number, exam_id in enumerate(names):
            exam = random_exam(10 * len(split) + number, (3, 4, 5))
            for plane, stack in exam.stacks.items():
                if (exam_id, plane) != ("0003", "coronal"):
                    write_stack(root / split, plane, exam_id, stack)
        for position, finding in enumerate(FINDINGS):
            labels = {name: float((k >> position) % 2 == 0) for k, name in enumerate(names)}
            if finding == "meniscus":
                labels[names[0]] = np.nan
            write_labels(root, split, finding, labels)
    exams = Dataset.of_split(root, "valid", allow_missing_plane=True)
    for plane in PLANES:
        mask = np.zeros_like(exams["0001"].stacks[plane])
        mask[1, 10:20, 5:9] = 1
        path = mask_file(exams, "acl", plane, "0001")
        write_stack(path.parents[1], plane, "0001", mask)
    write_sides(root, {"0001": ExamSide("right", True), "0002": ExamSide(None, False)})
    return root
