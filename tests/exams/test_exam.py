from __future__ import annotations

import pickle

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, Exam, Findings, Plane

STACK = np.zeros((2, 3, 4), dtype=np.uint8)


def test_findings_come_in_mrnets_order_then_by_name() -> None:
    """abnormal, acl, meniscus come first, in that order; the rest follow by name."""
    names = Findings(["zz", "meniscus", "cyst", "abnormal", "acl"])
    assert names == ("abnormal", "acl", "meniscus", "cyst", "zz")


def test_findings_may_be_one_or_twelve() -> None:
    """Any number of findings from one works."""
    assert Findings(["acl"]) == ("acl",)
    assert len(Findings([f"finding{i:02d}" for i in range(12)])) == 12


@pytest.mark.parametrize("names", [[], ["acl", "acl"], ["ACL"], ["a,b"], ["a/b"], [""]])
def test_unusable_findings_are_refused(names: list[str]) -> None:
    """No name, a repeated name or a name that can't be a file's is refused."""
    with pytest.raises(MrkneeError):
        Findings(names)


@pytest.mark.parametrize("name", ["exam", "mean"])
def test_names_that_are_taken_are_refused(name: str) -> None:
    """A finding can't be called as the column of ids or as the mean is."""
    with pytest.raises(MrkneeError, match="can't have this name"):
        Findings(["acl", name])


def test_an_exam_orders_its_planes() -> None:
    """Planes come in the order axial, coronal, sagittal, whatever order they were given in."""
    exam = Exam("0001", {Plane.SAGITTAL: STACK, Plane.AXIAL: STACK, Plane.CORONAL: STACK})
    assert tuple(exam.stacks) == PLANES


def test_an_exam_is_frozen() -> None:
    """Neither an exam's fields nor its mappings can be changed."""
    exam = Exam("0001", {Plane.AXIAL: STACK}, {"acl": 1.0})
    with pytest.raises(AttributeError):
        exam.id = "0002"  # type: ignore[misc]
    with pytest.raises(TypeError):
        exam.labels["acl"] = 0.0  # type: ignore[index]


def test_an_exam_without_planes_is_refused() -> None:
    """At least one plane is needed."""
    with pytest.raises(MrkneeError, match="no plane"):
        Exam("0001", {})


def test_an_empty_stack_is_refused() -> None:
    """Zero slices are no stack."""
    with pytest.raises(MrkneeError, match="0001"):
        Exam("0001", {Plane.AXIAL: STACK[:0]})


def test_a_label_is_zero_one_or_nan() -> None:
    """NaN means not known; 2 is no label."""
    assert np.isnan(Exam("1", {Plane.AXIAL: STACK}, {"acl": float("nan")}).labels["acl"])
    with pytest.raises(MrkneeError, match="acl"):
        Exam("1", {Plane.AXIAL: STACK}, {"acl": 2.0})


def test_an_error_survives_a_process_border() -> None:
    """An error raised in a worker keeps its message and its parts."""
    error = MrkneeError("a", file="f", exam="e", expected="x", found="y", advice="z")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert str(copy) == str(error)
    assert (copy.file, copy.exam, copy.expected, copy.found, copy.advice) == (
        "f",
        "e",
        "x",
        "y",
        "z",
    )
