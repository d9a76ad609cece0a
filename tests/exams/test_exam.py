from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest

from mrknee.errors import DataError, MrkneeError
from mrknee.exams import PLANES, Exam, Plane, as_exams, plane_named, write_stack

STACK = np.zeros((2, 3, 4), dtype=np.uint8)


def test_an_exam_orders_its_planes() -> None:
    """Planes come in the order axial, coronal, sagittal, whatever order they were given in."""
    exam = Exam("0001", {Plane.SAGITTAL: STACK, Plane.AXIAL: STACK, Plane.CORONAL: STACK})
    assert tuple(exam.stacks) == PLANES


@pytest.mark.parametrize(
    ("name", "plane"),
    [
        ("Sagittal", Plane.SAGITTAL),
        ("SAG", Plane.SAGITTAL),
        ("cor", Plane.CORONAL),
        (" Coronal ", Plane.CORONAL),
        ("ax", Plane.AXIAL),
        ("tra", Plane.AXIAL),
        ("Transversal", Plane.AXIAL),
        ("transverse", Plane.AXIAL),
    ],
)
def test_planes_may_be_named_with_synonyms_in_any_case(name: str, plane: Plane) -> None:
    """The usual synonyms of planes are accepted in any case."""
    assert plane_named(name) == plane
    assert list(Exam("1", {name: STACK}).stacks) == [plane]


@pytest.mark.parametrize("names", [["sagital"], ["axial", "oblique"], ["axial", "Axial"], ["0"]])
def test_an_unknown_series_is_refused_with_the_names(names: list[str]) -> None:
    """An unknown name, or two names of one series, are an error that lists the valid names."""
    with pytest.raises(
        MrkneeError, match=r"(the name of a series is unknown|a series is named twice)"
    ) as error:
        Exam("7", dict.fromkeys(names, STACK))
    assert error.value.exam == "7"
    assert "axial, coronal, sagittal" in (error.value.expected or "")
    assert repr(names[0]) in (error.value.found or "")


def test_a_stack_is_written_to_its_series_folder(tmp_path: Path) -> None:
    """Writing accepts and refuses the same names of series as `Exam`."""
    assert write_stack(str(tmp_path), "Sag", "1", STACK) == tmp_path / "sagittal" / "1.npy"
    with pytest.raises(MrkneeError, match="name of a series is unknown"):
        write_stack(tmp_path, "sagital", "1", STACK)


def test_findings_may_be_named_in_any_case() -> None:
    """Labels have lower-case names in the given order; a repeated finding is refused."""
    labels = {"meniscus": 0.0, "ACL": 1.0}
    assert list(Exam("1", {Plane.AXIAL: STACK}, labels).labels) == ["meniscus", "acl"]
    with pytest.raises(MrkneeError, match="twice"):
        Exam("1", {Plane.AXIAL: STACK}, {"ACL": 1.0, "acl": 0.0})
    with pytest.raises(MrkneeError, match="name can't be used"):
        Exam("1", {Plane.AXIAL: STACK}, {"acl tear": 1.0})


def test_exams_are_a_sequence_an_iterator_or_one_exam() -> None:
    """Anything else is refused with its type."""
    exam = Exam("1", {Plane.AXIAL: STACK})
    for row in ([exam], exam, (exam,), iter([exam])):
        found = as_exams(row)
        assert (len(found), found[0]) == (1, exam)
    for wrong in ("folder", Path("folder"), {"axial": STACK}, STACK):
        with pytest.raises(MrkneeError, match="not a sequence of exams") as error:
            as_exams(wrong)
        assert error.value.found == type(wrong).__name__
    with pytest.raises(MrkneeError, match="no exams to read"):
        as_exams([])


def test_an_exam_is_frozen() -> None:
    """Neither an exam's fields nor its mappings can be changed."""
    exam = Exam("0001", {Plane.AXIAL: STACK}, {"acl": 1.0})
    with pytest.raises(AttributeError):
        exam.id = "0002"  # type: ignore[misc]
    with pytest.raises(TypeError):
        exam.labels["acl"] = 0.0  # type: ignore[index]


def test_an_exam_without_series_is_refused() -> None:
    """At least one series is needed."""
    with pytest.raises(MrkneeError, match="no series"):
        Exam("0001", {})


def test_an_empty_stack_is_refused() -> None:
    """A stack needs at least one slice."""
    with pytest.raises(MrkneeError, match="0001"):
        Exam("0001", {Plane.AXIAL: STACK[:0]})


def test_a_label_is_zero_one_or_nan() -> None:
    """NaN means unknown; 2 is refused."""
    assert np.isnan(Exam("1", {Plane.AXIAL: STACK}, {"acl": float("nan")}).labels["acl"])
    with pytest.raises(MrkneeError, match="acl"):
        Exam("1", {Plane.AXIAL: STACK}, {"acl": 2.0})


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Types are not checked by the tests, as for users."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("label", ["1", None, [1]])
def test_a_label_that_is_no_number_is_refused(label: Any) -> None:  # noqa: ANN401
    """The error is that of other invalid labels."""
    with pytest.raises(DataError) as error:
        Exam("1", {Plane.AXIAL: STACK}, {"acl": label})
    assert error.value.code == "label-value"


@pytest.mark.usefixtures("unchecked")
def test_an_id_that_is_not_text_is_refused() -> None:
    """Tables could not be written."""
    with pytest.raises(DataError) as error:
        Exam(7, {Plane.AXIAL: STACK})  # type: ignore[arg-type]
    assert error.value.code == "exam-id"


def test_an_error_can_be_pickled() -> None:
    """An error raised in a worker process keeps its message and its attributes."""
    error = DataError("a", code="c", file="f", exam="e", expected="x", found="y", advice="z")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert str(copy) == str(error)
    assert type(copy) is DataError
    assert (copy.code, copy.file, copy.exam, copy.expected, copy.found, copy.advice) == (
        "c",
        "f",
        "e",
        "x",
        "y",
        "z",
    )
