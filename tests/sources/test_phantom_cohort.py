from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import MRNET_SERIES, PLANES, Dataset, SeriesList, read_series
from mrknee.sources.phantom.cohort import FREQUENCIES, KINDS, draw_truths, write_cohort
from tests.sources.six import SIX

TRAIN, VALID, SEED, SIZE, FACTOR = 5, 2, 3, 32, 0.2


def write(out: Path, *, seed: int = SEED, workers: int | None = 1) -> None:
    """Writes a small data set."""
    write_cohort(
        out, train=TRAIN, valid=VALID, seed=seed, size=SIZE, slice_factor=FACTOR, workers=workers
    )


def contents(root: Path) -> dict[str, bytes]:
    """All files with their bytes."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small data set, written by one worker."""
    root = tmp_path_factory.mktemp("phantom") / "set"
    write(root)
    return root


@pytest.mark.parametrize(("split", "count"), [("train", 1130), ("valid", 120)])
def test_full_size_has_mrnets_counts(split: str, count: int) -> None:
    """With as many exams as MRNet, the counts per combination of labels are MRNet's."""
    counted = Counter(draw_truths(split, count, seed=0))
    assert tuple(counted[kind] for kind in KINDS) == FREQUENCIES[split]


@pytest.mark.parametrize("count", [1, 7, 10, 50, 333])
def test_small_sets_keep_the_mix(count: int) -> None:
    """The count per combination is within 1 of its share, and the counts add up."""
    counted = Counter(draw_truths("train", count, seed=5))
    share = np.array(FREQUENCIES["train"]) / 1130 * count
    assert sum(counted.values()) == count
    assert np.abs(np.array([counted[kind] for kind in KINDS]) - share).max() < 1


def test_the_seed_shuffles_the_truths() -> None:
    """The same seed gives the same order, another seed another."""
    assert draw_truths("train", 60, 1) == draw_truths("train", 60, 1)
    assert draw_truths("train", 60, 1) != draw_truths("train", 60, 2)


def test_the_set_reads_as_an_mrnet_folder(cohort: Path) -> None:
    """Both splits open; valid's ids continue after train's; the findings are MRNet's."""
    train, valid = (Dataset.of_split(cohort, split) for split in ("train", "valid"))
    assert list(train.ids) == ["0000", "0001", "0002", "0003", "0004"]
    assert list(valid.ids) == ["0005", "0006"]
    assert train.findings is not None
    assert tuple(train.findings) == ("abnormal", "acl", "meniscus")
    for exam in train:
        for plane in PLANES:
            assert exam.stacks[plane].shape[1:] == (SIZE, SIZE)


def test_labels_are_headerless_and_consistent(cohort: Path) -> None:
    """Label files hold `0000,1` lines; a tear is always abnormal; they match phantom.json."""
    recorded = json.loads((cohort / "phantom.json").read_text())["exams"]
    for split in ("train", "valid"):
        labels = {
            finding: dict(
                line.split(",") for line in (cohort / f"{split}-{finding}.csv").read_text().split()
            )
            for finding in ("abnormal", "acl", "meniscus")
        }
        for exam, abnormal in labels["abnormal"].items():
            assert abnormal == str(int(recorded[exam]["abnormal"]))
            assert labels["acl"][exam] == str(int(recorded[exam]["acl"]))
            assert labels["meniscus"][exam] == str(int(recorded[exam]["meniscus"]))
            assert "1" not in (labels["acl"][exam], labels["meniscus"][exam]) or abnormal == "1"


def test_masks_are_written_for_positive_exams_only(cohort: Path) -> None:
    """lesions/<split>/<finding>/<plane>/ holds exactly the positive exams, in the stacks' grid."""
    recorded = json.loads((cohort / "phantom.json").read_text())["exams"]
    for finding in ("abnormal", "acl", "meniscus"):
        for plane in PLANES:
            for split in ("train", "valid"):
                found = {p.stem for p in (cohort / "lesions" / split / finding / plane).glob("*")}
                wanted = {i for i, e in recorded.items() if e[finding] and e["split"] == split}
                assert found == wanted
                for exam in found:
                    mask = np.load(cohort / "lesions" / split / finding / plane / f"{exam}.npy")
                    stack = np.load(cohort / split / plane / f"{exam}.npy")
                    assert mask.shape == stack.shape
                    assert mask.any()


@pytest.mark.slow
def test_workers_do_not_change_a_byte(cohort: Path, tmp_path: Path) -> None:
    """Two workers write the same files as one."""
    write(tmp_path / "two", workers=2)
    assert contents(tmp_path / "two") == contents(cohort)


def test_a_resumed_run_writes_only_missing_exams(cohort: Path, tmp_path: Path) -> None:
    """Complete exams are not rewritten; missing files are written again with the same bytes."""
    shutil.copytree(cohort, tmp_path / "set")
    lost = tmp_path / "set" / "train" / "sagittal" / "0002.npy"
    lost.unlink()
    (tmp_path / "set" / "train-acl.csv").unlink()
    kept = tmp_path / "set" / "train" / "axial" / "0001.npy"
    stamp = kept.stat().st_mtime_ns
    write(tmp_path / "set")
    assert contents(tmp_path / "set") == contents(cohort)
    assert kept.stat().st_mtime_ns == stamp


def test_other_parameters_are_refused(cohort: Path) -> None:
    """A folder with a set of another seed is refused with both parameters and left unchanged."""
    before = contents(cohort)
    with pytest.raises(MrkneeError, match="other parameters") as error:
        write(cohort, seed=SEED + 1)
    assert error.value.expected is not None
    assert f"seed {SEED + 1}" in error.value.expected
    assert error.value.found is not None
    assert f"seed {SEED}," in error.value.found
    with pytest.raises(MrkneeError, match="other parameters") as error:
        write_cohort(
            cohort,
            train=TRAIN,
            valid=VALID,
            seed=SEED,
            size=SIZE,
            slice_factor=FACTOR,
            fov_factor=0.8,
        )
    assert "fov_factor 0.8" in str(error.value.expected)
    assert contents(cohort) == before


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    """A folder with other content is refused with the names of its files."""
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(MrkneeError, match="not empty") as error:
        write(tmp_path)
    assert error.value.file == str(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_refused_as_folder(tmp_path: Path) -> None:
    """An output path that is a file is refused."""
    (tmp_path / "out").write_text("")
    with pytest.raises(MrkneeError, match="can't be written"):
        write(tmp_path / "out")


@pytest.mark.parametrize(
    "wrong",
    [
        {"train": 0, "valid": 0},
        {"train": -1, "valid": 3},
        {"size": 8},
        {"slice_factor": 0.0},
        {"slice_factor": 2.0},
        {"fov_factor": 0.6},
        {"fov_factor": 1.1},
    ],
)
def test_invalid_arguments_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """Zero exams, tiny images and invalid factors raise before anything is written."""
    arguments: dict[str, Any] = {"train": 1, "valid": 1, "seed": 0, **wrong}
    with pytest.raises(MrkneeError):
        write_cohort(tmp_path / "set", **arguments)
    assert not (tmp_path / "set").exists()


def test_declared_series_are_written_and_read_again(tmp_path: Path) -> None:
    """`series.csv`, a folder per series, masks per series; the folder is read as declared."""
    out = tmp_path / "six"
    given: dict[str, Any] = {"train": 1, "valid": 1, "seed": 1, "size": 32, "slice_factor": 0.2}
    write_cohort(out, **given, series=SIX, workers=1)
    assert read_series(out) == SIX
    (exam,) = Dataset.of_split(out, "valid")
    assert tuple(exam.stacks) == SIX.names
    for file in (out / "lesions").rglob("*.npy"):
        stack = out / file.relative_to(out / "lesions").parts[0] / file.parent.name / file.name
        assert np.load(file).shape == np.load(stack).shape
    assert "series" in json.loads((out / "phantom.json").read_text())
    for other in (SeriesList(SIX[:3]), MRNET_SERIES):
        with pytest.raises(MrkneeError) as caught:
            write_cohort(out, **given, series=other, workers=1)
        assert caught.value.code == "other-phantom"
        assert "sag_pd_fs sag_pd cor_pd_fs cor_t1 ax_pd_fs ax_t2" in str(caught.value.found)


def test_mrnets_series_are_not_declared(cohort: Path) -> None:
    """A data set of MRNet's three series has no `series.csv`, and its parameters omit them."""
    assert not (cohort / "series.csv").exists()
    assert "series" not in json.loads((cohort / "phantom.json").read_text())
