from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, read_labels, write_labels, write_stack
from mrknee.exams.checkup import Checkup, check
from tests.conftest import write_toy_dataset


def relabel(root: Path, split: str, finding: str, **labels: float) -> None:
    """Changes the labels of some exams (`_0000=1.0`) and keeps the others."""
    before = read_labels(root / f"{split}-{finding}.csv")
    changed = {name.removeprefix("_"): value for name, value in labels.items()}
    write_labels(root, split, finding, before | changed)


def sound(root: Path) -> Path:
    """A toy data set without any fault: whatever is torn is abnormal."""
    write_toy_dataset(root, 12, 6)
    for split in ("train", "valid"):
        torn = [read_labels(root / f"{split}-{name}.csv") for name in ("acl", "meniscus")]
        for exam_id in torn[0]:
            if torn[0][exam_id] or torn[1][exam_id]:
                relabel(root, split, "abnormal", **{f"_{exam_id}": 1.0})
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A sound data set of 12 and 6 exams."""
    return sound(tmp_path / "data")


def kinds(checkup: Checkup) -> list[tuple[str, str]]:
    """Code and severity of each problem."""
    return [(problem.code, problem.severity) for problem in checkup.problems]


def test_a_sound_data_set_has_no_problem(data: Path) -> None:
    """Nothing is reported, and the facts are the files'."""
    checkup = check(data)
    assert checkup.problems == ()
    assert list(checkup.splits) == ["train", "valid"]
    assert [facts.exams for facts in checkup.splits.values()] == [12, 6]
    for split, facts in checkup.splits.items():
        assert list(facts.labels) == ["abnormal", "acl", "meniscus"]
        for finding, count in facts.labels.items():
            labels = list(read_labels(data / f"{split}-{finding}.csv").values())
            assert (count.positive, count.negative) == (sum(labels), len(labels) - sum(labels))
            assert count.prevalence == pytest.approx(np.mean(labels))
        for plane in PLANES:
            lengths = [len(np.load(f)) for f in (data / split / plane).glob("*.npy")]
            found = facts.slices[plane]
            assert (found.fewest, found.most) == (min(lengths), max(lengths))
            assert found.median == np.median(lengths)
            assert found.stacks == len(lengths)


def truncate(root: Path) -> None:
    """One stack loses its end."""
    path = root / "train" / "axial" / "0003.npy"
    path.write_bytes(path.read_bytes()[:150])


def flatten(root: Path) -> None:
    """One stack has two axes."""
    np.save(root / "valid" / "coronal" / "0013.npy", np.zeros((4, 4), dtype=np.uint8))


def remove_plane(root: Path) -> None:
    """One exam lacks a plane."""
    (root / "train" / "sagittal" / "0005.npy").unlink()


def add_unknown_id(root: Path) -> None:
    """A label names an exam as no file does."""
    with (root / "train-acl.csv").open("a") as file:
        file.write("7,1\n")


def repeat_id(root: Path) -> None:
    """An exam has two labels."""
    with (root / "train-acl.csv").open("a") as file:
        file.write("0007,1\n")


def add_bad_label(root: Path) -> None:
    """A label is 2."""
    text = (root / "valid-meniscus.csv").read_text()
    (root / "valid-meniscus.csv").write_text(text.replace("0013,0", "0013,2"))


def add_bad_name(root: Path) -> None:
    """A label file's finding has a name that can't be a column's."""
    (root / "train-ACL tear.csv").write_text("0000,1\n0001,0\n")


def copy_to_valid(root: Path) -> None:
    """A training exam is in valid too."""
    for plane in PLANES:
        write_stack(root / "valid", plane, "0002", np.load(root / "train" / plane / "0002.npy"))


def contradict(root: Path) -> None:
    """An exam's ACL is torn and it is not abnormal."""
    relabel(root, "train", "abnormal", _0006=0.0)
    relabel(root, "train", "acl", _0006=1.0)
    relabel(root, "train", "meniscus", _0006=0.0)


def make_all_positive(root: Path) -> None:
    """One class only in train."""
    ids = read_labels(root / "train-abnormal.csv")
    write_labels(root, "train", "abnormal", dict.fromkeys(ids, 1.0))


def make_valid_negative(root: Path) -> None:
    """One class only in valid."""
    ids = read_labels(root / "valid-acl.csv")
    write_labels(root, "valid", "acl", dict.fromkeys(ids, 0.0))


def remove_a_label_file(root: Path) -> None:
    """Valid lacks a finding that train has."""
    (root / "valid-acl.csv").unlink()


def remove_train_labels(root: Path) -> None:
    """Train has no label at all."""
    for file in root.glob("train-*.csv"):
        file.unlink()


def remove_valid(root: Path) -> None:
    """There is no split valid."""
    (root / "valid").rename(root.parent / "elsewhere")


def empty_valid(root: Path) -> None:
    """Valid's folders are empty."""
    for file in (root / "valid").glob("*/*.npy"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "code", "severity", "file", "exam"),
    [
        (truncate, "stack", "error", "train/axial/0003.npy", "0003"),
        (flatten, "stack", "error", "valid/coronal/0013.npy", "0013"),
        (remove_plane, "missing-plane", "error", "train/sagittal/0005.npy", "0005"),
        (add_unknown_id, "labels", "error", "train-acl.csv", "7"),
        (repeat_id, "labels", "error", "train-acl.csv", "0007"),
        (add_bad_label, "labels", "error", "valid-meniscus.csv", "0013"),
        (add_bad_name, "labels", "error", "train-ACL tear.csv", None),
        (copy_to_valid, "two-splits", "error", "valid/", "0002"),
        (contradict, "contradiction", "warning", "train-acl.csv", "0006"),
        (make_all_positive, "one-class", "error", "train-abnormal.csv", None),
        (make_valid_negative, "one-class", "warning", "valid-acl.csv", None),
        (remove_a_label_file, "findings-differ", "error", "valid-acl.csv", None),
        (remove_train_labels, "no-labels", "error", "train-<finding>.csv", None),
        (remove_valid, "no-split", "warning", "valid/", None),
        (empty_valid, "no-exams", "error", "valid", None),
    ],
)
def test_each_fault_is_found_once_and_alone(
    data: Path,
    damage: Callable[[Path], None],
    code: str,
    severity: str,
    file: str | None,
    exam: str | None,
) -> None:
    """One fault gives one problem: its kind, how bad it is, where, and which exam."""
    damage(data)
    checkup = check(data)
    assert kinds(checkup) == [(code, severity)]
    (problem,) = checkup.problems
    assert (problem.file, problem.exam) == (file, exam)
    assert len(checkup.errors) == (severity == "error")
    assert len(checkup.warnings) == (severity == "warning")


def test_it_goes_on_after_a_fault(data: Path) -> None:
    """All faults of a data set are told at once, not the first only."""
    for damage in (truncate, flatten, remove_plane, add_unknown_id, add_bad_label, copy_to_valid):
        damage(data)
    found = sorted(code for code, _ in kinds(check(data)))
    assert found == ["labels"] * 2 + ["missing-plane", "stack", "stack", "two-splits"]


def test_unknown_labels_are_counted_and_left_out_of_the_prevalence(data: Path) -> None:
    """An empty label is neither positive nor negative."""
    relabel(data, "train", "acl", _0000=np.nan, _0001=np.nan)
    count = check(data).splits["train"].labels["acl"]
    assert count.unknown == 2
    assert count.positive + count.negative == 10
    assert count.prevalence == count.positive / 10


def test_the_json_has_everything_and_no_path_above_the_data(data: Path) -> None:
    """Facts and problems can be read by a program, and don't change when the data moves."""
    for damage in (truncate, contradict):
        damage(data)
    text = check(data).to_json()
    content = json.loads(text)
    assert (content["data"], content["errors"], content["warnings"]) == ("data", 1, 1)
    assert content["splits"]["train"]["labels"]["acl"]["prevalence"] > 0
    assert content["splits"]["valid"]["exams"] == 6
    assert {p["code"] for p in content["problems"]} == {"stack", "contradiction"}
    assert str(data.parent) not in text


def test_the_table_says_what_to_do_and_is_short(data: Path) -> None:
    """Twelve exams with one fault become five lines, one that counts the rest, and the advice."""
    for file in (data / "train" / "axial").glob("*.npy"):
        file.unlink()
    table = check(data).table()
    assert "12 errors" in table
    assert table.count("the exam lacks the axial plane") == 5
    assert "and 7 more" in table
    assert "--allow-missing-plane" in table
    assert "0.5" in table  # a prevalence


def test_other_splits_need_no_labels(data: Path) -> None:
    """A third split is looked at too, and may be without labels."""
    for plane in PLANES:
        write_stack(data / "test", plane, "0099", np.ones((2, 3, 4), dtype=np.uint8))
    checkup = check(data)
    assert checkup.problems == ()
    assert checkup.splits["test"].exams == 1
    assert "(no labels)" in checkup.table()


def test_no_data_set_is_an_error(tmp_path: Path) -> None:
    """A folder that isn't there, or has no split, is refused by name."""
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(MrkneeError, match="no data set") as error:
            check(folder)
        assert error.value.file == str(folder)
