from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import hypergeom

from mrknee.checks.check import check
from mrknee.checks.facts import LabelCount
from mrknee.checks.labels import CHANCE, compare_labels
from mrknee.checks.layout import check_layout, listings_of, split_names
from mrknee.exams import MRNET_SERIES
from mrknee.metrics.proportions import wilson
from mrknee.sources.phantom.cohort import FREQUENCIES, KINDS


def mrnet(split: str) -> dict[str, LabelCount]:
    """Returns the label counts of MRNet."""
    counts = {}
    for finding in ("abnormal", "acl", "meniscus"):
        n = [c for c, kind in zip(FREQUENCIES[split], KINDS, strict=True) if getattr(kind, finding)]
        counts[finding] = LabelCount(sum(n), sum(FREQUENCIES[split]) - sum(n), 0)
    return counts


def test_mrnets_acl_prevalences_differ() -> None:
    """18 and 45 % ACL tears are reported; abnormal (81 and 79 %) and meniscus are not."""
    (problem,) = compare_labels(mrnet("train"), mrnet("valid"))
    assert (problem.code, problem.file) == ("prevalence", "valid-acl.csv")
    assert "18% (16% to 21%) of train, 45% (36% to 54%) of valid" in problem.text


def test_a_random_split_is_seldom_reported() -> None:
    """At most 5 % of randomly split data sets of three findings get a warning.

    400 splits are drawn; the confidence interval of the share must include at most 5 %.
    """
    rng = np.random.default_rng(0)
    warned = 0
    for _ in range(400):
        train, valid = {}, {}
        for finding, positive in (("abnormal", 1000), ("acl", 250), ("meniscus", 450)):
            here = int(hypergeom(1250, positive, 120).rvs(random_state=rng))
            valid[finding] = LabelCount(here, 120 - here, 0)
            train[finding] = LabelCount(positive - here, 1130 - positive + here, 0)
        warned += any(compare_labels(train, valid))
    assert warned > 0
    assert wilson(warned, 400).low <= CHANCE


def test_nothing_is_compared_if_a_split_has_no_labels() -> None:
    """Missing labels are reported elsewhere."""
    assert list(compare_labels({}, mrnet("valid"))) == []
    assert list(compare_labels(mrnet("train"), {})) == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("id,label\n0000,1\n", "label-value"),
        ("0000\n", "label-format"),
        ("0000;1\n", "label-format"),
        ("0000,yes\n", "label-value"),
        ("0000,1\n0000,1\n", "label-twice"),
        ("0,1\n", "label-unknown"),
    ],
)
def test_each_fault_of_a_label_file_has_its_code(knees: Path, text: str, code: str) -> None:
    """Headers, missing labels, other separators, words and invalid ids have different codes."""
    (knees / "train-acl.csv").write_text(text)
    assert [problem.code for problem in check(knees).problems] == [code]


def test_a_label_file_that_is_not_text_is_one_problem(knees: Path) -> None:
    """Bytes that aren't UTF-8 are reported as the code `label-format`."""
    (knees / "train-acl.csv").write_bytes(b"\xff\xfe0\x000")
    (problem,) = check(knees).problems
    assert (problem.code, problem.file) == ("label-format", "train-acl.csv")


def test_other_files_next_to_the_splits_are_permitted(knees: Path) -> None:
    """Hidden files, text files and folders aren't reported; misplaced tables and stacks are."""
    (knees / "README.txt").write_text("knees")
    (knees / "phantom.json").write_text("{}")
    (knees / "notes").mkdir()
    (knees / "train" / ".DS_Store").write_text("")
    (knees / "train" / "axial" / "._0000.npy").write_text("")
    (knees / "trian-acl.csv").write_text("0000,1\n")
    (knees / "0000.npy").write_text("")
    (knees / "train" / "Axial").mkdir()
    (knees / "train" / "sides.csv").write_text("")  # as import writes it
    (knees / "train" / "import.json").write_text("{}")
    listings, unlisted = listings_of(knees, split_names(knees), MRNET_SERIES)
    assert unlisted == []
    places, problems = check_layout(knees, listings, MRNET_SERIES)
    assert len(places) == 14 * 3
    assert {p.code for p in problems} == {"extra-file"}
    assert [p.file for p in problems] == [
        "0000.npy",
        "trian-acl.csv",
        "train/Axial",
        "train/sides.csv",
    ]
    assert problems[-1].text.endswith("move it next to the splits")
