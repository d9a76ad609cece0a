from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mrknee.checks.check import check
from mrknee.checks.problem import KINDS
from mrknee.checks.table import table
from mrknee.errors import MrkneeError
from mrknee.exams import (
    MRNET_SERIES,
    PLANES,
    SeriesList,
    read_labels,
    write_labels,
    write_series,
    write_stack,
)
from tests.checks.conftest import LABELS, add_exam, stacks_of

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "checks.md"


def relabel(root: Path, split: str, finding: str, **labels: float) -> None:
    """Changes the labels of some exams (`_0000=1.0`) and keeps the others."""
    before = read_labels(root / f"{split}-{finding}.csv")
    changed = {name.removeprefix("_"): value for name, value in labels.items()}
    write_labels(root, split, finding, before | changed)


def append(root: Path, file: str, text: str) -> None:
    """Appends text to a file."""
    with (root / file).open("a") as stream:
        stream.write(text)


def store(root: Path, file: str, array: np.ndarray) -> None:
    """Replaces a stack by another array."""
    np.save(root / file, array)


def rewrite(root: Path, file: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Changes a stack's values."""
    np.save(root / file, change(np.load(root / file)))


def remove_train(root: Path) -> None:
    """The folder of the training exams has another name."""
    (root / "train").rename(root / "training")
    for file in root.glob("train-*.csv"):
        file.rename(root / file.name.replace("train-", "training-"))


def remove_valid(root: Path) -> None:
    """There is no split valid, and no labels for it."""
    (root / "valid").rename(root.parent / "elsewhere")
    for file in root.glob("valid-*.csv"):
        file.unlink()


def empty_valid(root: Path) -> None:
    """Valid's folders are empty."""
    for file in (root / "valid").glob("*/*.npy"):
        file.unlink()


def remove_plane(root: Path) -> None:
    """One exam lacks a plane."""
    (root / "train" / "sagittal" / "0005.npy").unlink()


def leave_a_note(root: Path) -> None:
    """A file that is not a stack is in the folder of a plane."""
    (root / "train" / "axial" / "0003.txt").write_text("motion")


def declare_other_series(root: Path) -> None:
    """One split declares its series in a different order."""
    write_series(root / "valid", SeriesList(reversed(MRNET_SERIES)))


def add_undeclared(root: Path) -> None:
    """A label file of valid belongs to an undeclared finding."""
    (root / "findings.csv").write_text("name\nmeniscus\nabnormal\nacl\n")
    (root / "valid-cyst.csv").write_text("0010,1\n0011,0\n0012,0\n0013,1\n")


def group(root: Path, *ids: str) -> None:
    """Declares exams as one patient's."""
    (root / "groups.csv").write_text("exam,group\n" + "".join(f"{i},Miller\n" for i in ids))


def share_id(root: Path) -> None:
    """A validation exam gets a training exam's id."""
    for plane in PLANES:
        (root / "valid" / plane / "0012.npy").rename(root / "valid" / plane / "0003.npy")
    for file in root.glob("valid-*.csv"):
        file.write_text(file.read_text().replace("0012", "0003"))


def name_a_formula(root: Path) -> None:
    """A validation exam's files are named like a spreadsheet's formula."""
    for plane in PLANES:
        (root / "valid" / plane / "0012.npy").rename(root / "valid" / plane / "=A1.npy")
    for file in root.glob("valid-*.csv"):
        file.write_text(file.read_text().replace("0012", "=A1"))


def overwrite(root: Path) -> None:
    """A stack's file has other contents."""
    (root / "train" / "axial" / "0003.npy").write_bytes(b"no stack")


def truncate(root: Path) -> None:
    """A stack's file is truncated."""
    path = root / "train" / "axial" / "0003.npy"
    path.write_bytes(path.read_bytes()[:-1])


def pickle_objects(root: Path) -> None:
    """A stack is an array of Python objects."""
    array = np.array([[[1, None]]], dtype=object)
    np.save(root / "train" / "axial" / "0003.npy", array, allow_pickle=True)


def add_nan(root: Path) -> None:
    """One value of a floating stack is not a number."""
    stack = np.load(root / "train" / "axial" / "0003.npy").astype(np.float32)
    stack[0, 0, 0] = np.nan
    store(root, "train/axial/0003.npy", stack)


def blacken_slices(root: Path) -> None:
    """Two slices in the middle of a stack are lost."""
    path = root / "train" / "axial" / "0003.npy"
    stack = np.load(path)
    stack[[7, 9]] = 0
    np.save(path, stack)


def repeat_slices(stack: np.ndarray) -> np.ndarray:
    """Repeats each slice seven times."""
    return np.repeat(stack, 7, axis=0)


def turn_axes(root: Path) -> None:
    """All stacks of both splits were saved as (rows, cols, slices)."""
    for file in root.glob("*/*/*.npy"):
        np.save(file, np.moveaxis(np.load(file), 0, 2))


def heat_pixel(root: Path) -> None:
    """A stack of 16 bits has one hot pixel."""
    stack = np.load(root / STACK).astype(np.int16) * 4
    stack[5, 30, 30] = 32767
    store(root, STACK, stack)


def add_upper_case(root: Path) -> None:
    """The stack exists twice, once with a suffix in upper case."""
    store(root, STACK, np.load(root / STACK))
    (root / STACK).with_suffix(".NPY").write_bytes((root / STACK).read_bytes())


def swap_planes(root: Path) -> None:
    """The coronal and the sagittal stack of an exam are swapped."""
    first, second = (root / "train" / plane / "0006.npy" for plane in ("coronal", "sagittal"))
    one, two = np.load(first), np.load(second)
    np.save(first, two)
    np.save(second, one)


def copy_plane(root: Path) -> None:
    """An exam's axial stack is also its coronal stack."""
    store(root, "valid/coronal/0011.npy", np.load(root / "valid" / "axial" / "0011.npy"))


def copy_exam(root: Path, split: str) -> None:
    """A training exam exists again under another id."""
    add_exam(root, split, "0099", stacks_of(root, "train", "0002"))


def alter_exam(root: Path, split: str) -> None:
    """A training exam exists again, mirrored, cropped and brightened."""
    altered = {}
    for plane, stack in stacks_of(root, "train", "0002").items():
        mirrored = stack[::-1] if plane == "sagittal" else stack[:, :, ::-1]
        altered[plane] = (mirrored[:, 2:58, 5:61] * 0.9 + 20).astype(np.uint8)
    for finding in ("abnormal", "acl", "meniscus"):
        assert read_labels(root / f"train-{finding}.csv")
    add_exam(root, split, "0099", altered)


def remove_labels(root: Path, split: str) -> None:
    """A split has no labels."""
    for file in root.glob(f"{split}-*.csv"):
        file.unlink()


def name_badly(root: Path) -> None:
    """The finding of a label file has an invalid name."""
    (root / "train-ACL tear.csv").write_text("0000,1\n0001,0\n")


def spoil_value(root: Path) -> None:
    """A label is 2."""
    text = (root / "valid-meniscus.csv").read_text()
    assert "0013,0" in text
    (root / "valid-meniscus.csv").write_text(text.replace("0013,0", "0013,2"))


def drop_line(root: Path) -> None:
    """A label file lacks an exam."""
    text = (root / "train-acl.csv").read_text()
    (root / "train-acl.csv").write_text(text.replace("0004,0\n", ""))


def set_all(root: Path, split: str, finding: str, label: float) -> None:
    """All labels are of one class."""
    ids = read_labels(root / f"{split}-{finding}.csv")
    write_labels(root, split, finding, dict.fromkeys(ids, label))


def contradict(root: Path) -> None:
    """An exam has an ACL tear but is not abnormal."""
    relabel(root, "train", "abnormal", _0006=0.0)
    relabel(root, "train", "acl", _0006=1.0)


def shift_prevalence(root: Path) -> None:
    """1 of 10 training exams and 19 of 20 validation exams have a cyst."""
    for number in range(14, 30):
        rng = np.random.default_rng(number)
        stacks = {p.value: rng.integers(0, 255, (20, 64, 64)).astype(np.uint8) for p in PLANES}
        add_exam(root, "valid", f"{number:04d}", stacks, LABELS[number % 4])
    write_labels(root, "train", "cyst", {f"{i:04d}": float(i == 0) for i in range(10)})
    write_labels(root, "valid", "cyst", {f"{i:04d}": float(i != 10) for i in range(10, 30)})


@dataclass(frozen=True)
class Fault:
    """The damage to a valid data set, and the location of the expected problem."""

    damage: Callable[[Path], None]
    file: str
    exam: str | None = None
    also: tuple[str, ...] = ()


STACK = "train/axial/0003.npy"
FAULTS = {
    "no-train": Fault(remove_train, "train/"),
    "no-valid": Fault(remove_valid, "valid/"),
    "no-exams": Fault(empty_valid, "valid/"),
    "missing-plane": Fault(remove_plane, "train/sagittal/0005.npy", "0005"),
    "extra-file": Fault(leave_a_note, "train/axial/0003.txt"),
    "series-differ": Fault(declare_other_series, "valid/"),
    "group-across": Fault(lambda root: group(root, "0003", "0012"), "valid/*/0012.npy", "0012"),
    "group-unknown": Fault(lambda root: group(root, "0003", "12"), "groups.csv", "12"),
    "mixed-sides": Fault(
        lambda root: append(
            root, "sides.csv", "exam,side,mirrored\n0000,right,1\n0001,right,0\n0002,left,0\n"
        ),
        "sides.csv",
    ),
    "declaration": Fault(
        lambda root: append(root, "findings.csv", "name;title\nacl;ACL\n"), "findings.csv"
    ),
    "undeclared-finding": Fault(add_undeclared, "valid-cyst.csv", also=("findings-differ",)),
    "unlabelled-finding": Fault(
        lambda root: append(root, "findings.csv", "name\ncyst\nmeniscus\nacl\nabnormal\n"),
        "train-cyst.csv",
    ),
    "id-twice": Fault(share_id, "valid/*/0003.npy", "0003"),
    "exam-id": Fault(name_a_formula, "valid/*/=A1.npy", "=A1"),
    "not-npy": Fault(overwrite, STACK, "0003"),
    "truncated": Fault(truncate, STACK, "0003"),
    "pickled": Fault(pickle_objects, STACK, "0003"),
    "wrong-type": Fault(
        lambda root: store(root, STACK, np.ones((2, 4, 4), complex)), STACK, "0003"
    ),
    "wrong-rank": Fault(lambda root: rewrite(root, STACK, lambda s: s[:, None]), STACK, "0003"),
    "not-finite": Fault(add_nan, STACK, "0003"),
    "all-zero": Fault(lambda root: rewrite(root, STACK, np.zeros_like), STACK, "0003"),
    "constant": Fault(lambda root: rewrite(root, STACK, np.ones_like), STACK, "0003"),
    "not-bytes": Fault(lambda root: rewrite(root, STACK, lambda s: s.astype("f4")), STACK, "0003"),
    "stack-twice": Fault(add_upper_case, STACK, "0003"),
    "outliers": Fault(heat_pixel, STACK, "0003", ("not-bytes",)),
    "other-axes": Fault(turn_axes, "."),
    "one-slice": Fault(
        lambda root: rewrite(root, STACK, lambda s: s[9:10]), STACK, "0003", ("odd-slices",)
    ),
    "equal-slices": Fault(
        lambda root: rewrite(root, STACK, lambda s: s[9:10].repeat(len(s), axis=0)), STACK, "0003"
    ),
    "low-contrast": Fault(lambda root: rewrite(root, STACK, lambda s: s // 20), STACK, "0003"),
    "odd-size": Fault(lambda root: rewrite(root, STACK, lambda s: s[:, 2:]), STACK, "0003"),
    "odd-slices": Fault(lambda root: rewrite(root, STACK, repeat_slices), STACK, "0003"),
    "empty-slices": Fault(blacken_slices, STACK, "0003"),
    "copy-planes": Fault(copy_plane, "valid/coronal/0011.npy", "0011", ("other-plane",)),
    "copy-across": Fault(lambda root: copy_exam(root, "valid"), "valid/*/0099.npy", "0099"),
    "copy": Fault(lambda root: copy_exam(root, "train"), "train/*/0099.npy", "0099"),
    "alike-across": Fault(
        lambda root: alter_exam(root, "valid"), "valid/*/0099.npy", "0099", ("odd-size",) * 3
    ),
    "alike": Fault(
        lambda root: alter_exam(root, "train"), "train/*/0099.npy", "0099", ("odd-size",) * 3
    ),
    "no-labels": Fault(lambda root: remove_labels(root, "train"), "train-<finding>.csv"),
    "no-valid-labels": Fault(lambda root: remove_labels(root, "valid"), "valid-<finding>.csv"),
    "label-name": Fault(name_badly, "train-ACL tear.csv"),
    "label-format": Fault(lambda root: append(root, "train-acl.csv", "0,0,0\n"), "train-acl.csv"),
    "label-value": Fault(spoil_value, "valid-meniscus.csv", "0013"),
    "soft-label": Fault(lambda root: relabel(root, "train", "acl", _0000=0.2), "train-acl.csv"),
    "label-twice": Fault(
        lambda root: append(root, "train-acl.csv", "0007,1\n"), "train-acl.csv", "0007"
    ),
    "label-unknown": Fault(
        lambda root: append(root, "train-acl.csv", "7,1\n"), "train-acl.csv", "7"
    ),
    "label-missing": Fault(drop_line, "train-acl.csv"),
    "not-learnable": Fault(
        lambda root: set_all(root, "train", "meniscus", 0.0), "train-meniscus.csv"
    ),
    "no-auc": Fault(lambda root: set_all(root, "valid", "acl", 0.0), "valid-acl.csv"),
    "findings-differ": Fault(lambda root: (root / "valid-acl.csv").unlink(), "valid-acl.csv"),
    "contradiction": Fault(contradict, "train-acl.csv", "0006"),
    "prevalence": Fault(shift_prevalence, "valid-cyst.csv"),
}
"""Code -> a damage that causes this problem, and no others except those in `also`."""


def codes(root: Path) -> list[str]:
    """Returns the codes of a data set's problems, sorted."""
    return sorted(problem.code for problem in check(root).problems)


def test_a_clean_phantom_has_no_problem(knees: Path) -> None:
    """Nothing is reported, and the facts agree with the files."""
    checkup = check(knees)
    assert checkup.problems == ()
    assert checkup.pairs == ()
    assert checkup.planes_compared
    assert [facts.exams for facts in checkup.splits.values()] == [10, 4]
    for split, facts in checkup.splits.items():
        assert list(facts.labels) == ["abnormal", "acl", "meniscus"]
        for finding, count in facts.labels.items():
            labels = list(read_labels(knees / f"{split}-{finding}.csv").values())
            assert (count.positive, count.negative) == (sum(labels), len(labels) - sum(labels))
            share = count.prevalence
            assert 0 <= share.low < share.value == np.mean(labels) < share.high <= 1
        for plane in PLANES:
            lengths = [len(np.load(f)) for f in (knees / split / plane).glob("*.npy")]
            n = facts.slices[plane]
            assert (n.stacks, n.fewest, n.most) == (len(lengths), min(lengths), max(lengths))
            assert [n.lower, n.median, n.upper] == np.quantile(lengths, [0.25, 0.5, 0.75]).tolist()


@pytest.mark.parametrize("code", FAULTS)
def test_each_fault_is_one_problem(knees: Path, code: str) -> None:
    """One fault gives one problem with its code, severity, file, exam and advice."""
    fault = FAULTS[code]
    fault.damage(knees)
    checkup = check(knees)
    assert sorted(p.code for p in checkup.problems) == sorted((code, *fault.also))
    (problem,) = (p for p in checkup.problems if p.code == code)
    assert (problem.file, problem.exam) == (fault.file, fault.exam)
    assert problem.severity == KINDS[code].severity
    assert problem.text
    assert problem.advice
    assert (problem in checkup.errors) == (KINDS[code].severity == "error")


def test_every_code_has_a_test() -> None:
    """Every code has a fault above, except two that have separate tests."""
    assert set(KINDS) == {*FAULTS, "other-plane", "unreadable"}


def test_a_swap_of_planes_is_two_problems(knees: Path) -> None:
    """Both stacks are reported, each with the plane that it looks like."""
    swap_planes(knees)
    problems = {p.file: p for p in check(knees).problems}
    assert {p.code for p in problems.values()} == {"other-plane"}
    assert sorted(problems) == ["train/coronal/0006.npy", "train/sagittal/0006.npy"]
    assert "looks sagittal" in problems["train/coronal/0006.npy"].text


def test_a_check_continues_after_a_fault(knees: Path) -> None:
    """All faults of a data set are reported at once."""
    for damage in (truncate, remove_plane, spoil_value, leave_a_note, contradict, share_id):
        damage(knees)
    assert codes(knees) == sorted(
        ["truncated", "missing-plane", "label-value", "extra-file", "contradiction", "id-twice"]
    )


def test_a_pickle_is_never_opened(knees: Path) -> None:
    """A file that would run code when unpickled is reported, and its code doesn't run."""
    mark = knees / "run"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (mark,)

    np.save(knees / STACK, np.array([[[Payload()]]], dtype=object), allow_pickle=True)
    (knees / "train" / "coronal" / "0003.npy").write_bytes(pickle.dumps(Payload()))
    assert codes(knees) == ["not-npy", "pickled"]
    assert not mark.exists()


def test_unknown_labels_are_excluded_from_the_prevalence(knees: Path) -> None:
    """An empty label is neither positive nor negative, and not a missing line."""
    relabel(knees, "train", "acl", _0000=np.nan, _0001=np.nan)
    checkup = check(knees)
    count = checkup.splits["train"].labels["acl"]
    assert checkup.problems == ()
    assert count.unknown == 2
    assert count.prevalence.n == 8


def test_the_json_is_complete_and_has_no_absolute_path(knees: Path) -> None:
    """The JSON has facts, pairs and problems, and doesn't depend on the data set's location."""
    for damage in (truncate, contradict):
        damage(knees)
    copy_exam(knees, "valid")
    text = check(knees).to_json()
    content = json.loads(text)
    assert (content["data"], content["errors"], content["warnings"]) == ("data", 2, 1)
    acl = content["splits"]["train"]["labels"]["acl"]
    assert acl["prevalence_ci"][0] < acl["prevalence"] < acl["prevalence_ci"][1]
    assert content["splits"]["valid"]["slices"]["axial"]["stacks"] == 5
    assert content["pairs"] == [
        {
            "first": "train/0002",
            "second": "valid/0099",
            "distance": 0.0,
            "series": {"axial": 0.0, "coronal": 0.0, "sagittal": 0.0},
            "copy": True,
        }
    ]
    reported = {problem["code"]: problem for problem in content["problems"]}
    assert set(reported) == {"truncated", "contradiction", "copy-across"}
    assert set(reported["truncated"]) == {"code", "severity", "text", "file", "exam", "advice"}
    assert str(knees.parent) not in text
    assert check(knees).to_json() == text


def test_the_table_is_short_and_has_advice(knees: Path) -> None:
    """Ten equal problems become five lines, a line that counts the others, and the advice once."""
    for file in (knees / "train" / "axial").glob("*.npy"):
        file.unlink()
    lines = table(check(knees)).splitlines()
    assert "10 errors" in lines
    assert sum("the exam lacks the series axial" in line for line in lines) == 5
    assert any("and 5 more" in line for line in lines)
    assert sum("--allow-missing-plane" in line for line in lines) == 1
    assert any("0.700 (0.397 to 0.892)" in line for line in lines)  # Wilson's interval of 7 in 10
    assert any("no stack's plane was judged" in line for line in lines)


def test_other_splits_need_no_labels(knees: Path) -> None:
    """A third split is checked too, and may have no labels."""
    rng = np.random.default_rng(0)
    for plane in PLANES:
        stack = rng.integers(0, 255, (20, 64, 64)).astype(np.uint8)
        write_stack(knees / "test", plane, "0099", stack)
    checkup = check(knees)
    assert checkup.problems == ()
    assert checkup.splits["test"].exams == 1
    assert "(no labels)" in table(checkup)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4), (1, 300, 20)])
def test_stacks_of_any_size_are_checked(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """One pixel, fewer pixels than cells, and sides that aren't multiples of 32 are accepted."""
    rng = np.random.default_rng(0)
    for split in ("train", "valid"):
        for number in range(2):
            for plane in PLANES:
                stack = rng.integers(1, 255, shape).astype(np.uint8)
                write_stack(tmp_path / split, plane, f"{split}{number}", stack)
    expected = {"no-labels", "no-valid-labels"} | ({"constant"} if shape == (1, 1, 1) else set())
    expected |= {"one-slice"} if shape[0] == 1 else set()
    assert set(codes(tmp_path)) == expected


def test_a_folder_that_is_not_a_data_set_is_an_error(tmp_path: Path) -> None:
    """The error for a missing folder, or one without splits, names the folder."""
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(MrkneeError, match="not a data set") as error:
            check(folder)
        assert error.value.file == str(folder)


def test_the_docs_have_the_same_table() -> None:
    """docs/reference/checks.md lists every code with severity, meaning and advice, and no other."""
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    expected = [
        f"| `{code}` | {kind.severity} | {kind.means} | {kind.advice} |"
        for code, kind in KINDS.items()
    ]
    assert rows == expected
