"""Prediction of findings from metadata alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mrknee.checks.check import check
from mrknee.checks.layout import Place
from mrknee.checks.metadata import FEWEST, MetadataAuc, score_metadata
from mrknee.checks.stacks import summarise_stacks
from mrknee.checks.table import table
from mrknee.exams import PLANES, ExamSide, open_dataset, write_labels, write_sides, write_stack

SCANNERS, PER_SCANNER = 16, 8


@pytest.fixture
def scanned(tmp_path: Path) -> Path:
    """Exams of 16 scanners with grey values and prevalences of their own; no knee in any.

    `site` is present in the exams of every second scanner, `side` in right knees, `chance` in
    random exams, and `rare` in fewer than are needed.
    """
    rng = np.random.default_rng(0)
    labels: dict[str, dict[str, float]] = {n: {} for n in ("site", "side", "chance", "rare")}
    sides, groups = {}, ["exam,group"]
    for number in range(SCANNERS * PER_SCANNER):
        exam_id, scanner = f"{number:04d}", number % SCANNERS
        for plane in PLANES:
            level = 30 + 37 * scanner % 97  # no straight line separates the scanners' levels
            stack = rng.integers(level, level + 60, (3, 32, 32)).astype(np.uint8)
            write_stack(tmp_path / "data" / "train", plane, exam_id, stack)
        right = bool(rng.integers(2))
        sides[exam_id] = ExamSide("right" if right else "left", right)
        groups.append(f"{exam_id},scanner {scanner}")
        labels["site"][exam_id] = float(scanner % 2)
        labels["side"][exam_id] = float(right)
        labels["chance"][exam_id] = float(rng.integers(2))
        labels["rare"][exam_id] = float(number < FEWEST - 1)
    for name, of_exams in labels.items():
        write_labels(tmp_path / "data", "train", name, of_exams)
    write_sides(tmp_path / "data", sides)
    (tmp_path / "data" / "groups.csv").write_text("\n".join(groups) + "\n")
    return tmp_path / "data"


def scores(data: Path) -> dict[str, MetadataAuc]:
    """Returns the AUCs without the other checks."""
    ids = open_dataset(data, "train", labels=False).ids
    places = [Place("train", exam_id, plane) for exam_id in ids for plane in PLANES]
    return score_metadata(data, ids, summarise_stacks(data, places)[0])


def test_scanners_predict_with_random_folds_only(scanned: Path) -> None:
    """Groups give a finding away unless they are kept together; sides do in both cases."""
    found = scores(scanned)
    assert set(found) == {"site", "side", "chance"}
    site, side, chance = (found[name] for name in ("site", "side", "chance"))
    assert site.grouped is not None
    assert side.grouped is not None
    assert site.random.low > 0.5
    assert site.grouped.low < 0.5
    assert side.random.low > 0.5
    assert side.grouped.low > 0.5  # a side is as telling in other groups
    assert chance.random.low < 0.5


def test_without_groups_only_random_folds_are_scored(scanned: Path) -> None:
    """The table and the JSON have the AUCs, and no AUC of grouped folds."""
    (scanned / "groups.csv").unlink()
    checkup = check(scanned)
    assert all(one.grouped is None for one in checkup.metadata.values())
    (row,) = [line for line in table(checkup).splitlines() if line.startswith("side ")]
    assert row.endswith("-")
    content = json.loads(checkup.to_json())["metadata"]
    assert content["side"]["grouped"] is None
    assert content["side"]["random"]["value"] == checkup.metadata["side"].random.value


def test_grouped_folds_of_one_class_are_not_scored(scanned: Path) -> None:
    """If all exams with a finding are of one group, the others can't teach it."""
    lines = [f"{n:04d},{'a' if n % 2 else n}" for n in range(SCANNERS * PER_SCANNER)]
    (scanned / "groups.csv").write_text("\n".join(["exam,group", *lines]) + "\n")
    assert scores(scanned)["site"].grouped is None


def test_few_exams_are_not_scored(knees: Path) -> None:
    """With fewer than ten exams of each class there is nothing in the table."""
    checkup = check(knees)
    assert checkup.metadata == {}
    assert "metadata" not in table(checkup)
