"""The sham data set: permuted training labels beside the true ones."""

from __future__ import annotations

from pathlib import Path

from permuted_labels import copy_with_permuted_labels

from mrknee.exams import open_dataset, read_labels
from tests.conftest import write_toy_dataset


def test_labels_are_permuted_together(tmp_path: Path) -> None:
    """Each exam has the labels of one other exam; the true labels, stacks and valid are kept."""
    data = write_toy_dataset(tmp_path / "data", 12, 4, pixels=8, slices=(1, 2))
    out = tmp_path / "out"
    written = copy_with_permuted_labels(data, out, seed=1)
    assert [file.name for file in written] == [
        f"train-permuted_{finding}.csv" for finding in ("abnormal", "acl", "meniscus")
    ]
    exams = open_dataset(out, "train")
    assert exams.findings is not None
    true, permuted = exams.labels[:, :3], exams.labels[:, 3:]
    assert exams.findings[3:] == ("permuted_abnormal", "permuted_acl", "permuted_meniscus")
    assert sorted(map(tuple, true)) == sorted(map(tuple, permuted))
    assert (true != permuted).any()
    assert open_dataset(out, "valid").findings == ("abnormal", "acl", "meniscus")
    assert read_labels(out / "train-acl.csv") == read_labels(data / "train-acl.csv")
    first = data / "train" / "axial" / "0000.npy"
    assert (out / "train" / "axial" / "0000.npy").read_bytes() == first.read_bytes()
