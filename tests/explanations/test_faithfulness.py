"""Deletion of slices and random weights, on toy networks with known results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mrknee.exams import PLANES, Exam, Plane
from mrknee.explanations.faithfulness import deletion, likeness, with_random_weights, without
from tests.explanations.test_explanation import (
    FINDINGS,
    logits_of,
    make_exam,
    make_predictor,
)

EXAM = make_exam([(8, 48, 48)] * 3)


def test_deletion_is_the_logit_without_those_slices(tmp_path: Path) -> None:
    """The logit falls to that of an exam without the slices; each plane keeps its coldest slice."""
    predictor = make_predictor(tmp_path, pooling="mean", shared=True)
    made = predictor.explain(EXAM)
    scores = {plane: made.slice_scores(plane)[1] for plane in PLANES}
    free = {(p, i) for p in PLANES for i in range(8) if i != scores[p].argmin()}
    hottest = sorted(free, key=lambda one: scores[one[0]][one[1]])[-3:]  # 12 % of 24, rounded up
    stacks = {p: EXAM.stacks[p][[i for i in range(8) if (p, i) not in hottest]] for p in PLANES}
    expected = logits_of(predictor, EXAM) - logits_of(predictor, Exam("fewer", stacks))
    found = deletion(predictor, EXAM, made, "acl", share=0.12, sets=3, seed=0)
    assert found.hottest == pytest.approx(expected[1], abs=1e-5)


def test_the_hottest_slices_matter_more_than_random_ones(tmp_path: Path) -> None:
    """Additive maps pass; the same maps with inverted signs fail."""
    predictor = make_predictor(tmp_path, pooling="mean", shared=True)
    made = predictor.explain(EXAM)
    with torch.no_grad():
        predictor.network.head.weight.neg_()
    turned = predictor.explain(EXAM)
    with torch.no_grad():
        predictor.network.head.weight.neg_()
    for finding in FINDINGS:
        true = deletion(predictor, EXAM, made, finding, share=0.2, sets=5, seed=0)
        false = deletion(predictor, EXAM, turned, finding, share=0.2, sets=5, seed=0)
        assert true.hottest > true.random
        assert false.hottest < false.random


def test_deleting_all_deletable_slices_leaves_no_random_choice(tmp_path: Path) -> None:
    """If all slices except each plane's coldest are deleted, hottest and random sets are equal."""
    predictor = make_predictor(tmp_path, shared=True)
    found = deletion(predictor, EXAM, predictor.explain(EXAM), "acl", share=1.0, sets=4, seed=0)
    assert found.hottest == pytest.approx(found.random, abs=1e-5)
    kept = without(EXAM, {(Plane.AXIAL, 0), (Plane.AXIAL, 7)})
    np.testing.assert_array_equal(kept.stacks[Plane.AXIAL], EXAM.stacks[Plane.AXIAL][1:7])
    np.testing.assert_array_equal(kept.stacks[Plane.CORONAL], EXAM.stacks[Plane.CORONAL])


@pytest.mark.parametrize("encoders", [False, True])
def test_random_weights_change_signed_maps(tmp_path: Path, encoders: bool) -> None:
    """The model is unchanged; maps of random weights differ from its own.

    With a random head only, absolute maps remain more similar than signed ones: every head
    weights strong features strongly.
    """
    predictor = make_predictor(tmp_path, shared=True)
    made = predictor.explain(EXAM)
    state = torch.get_rng_state()
    others = [with_random_weights(predictor, seed, encoders=encoders) for seed in range(6)]
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(
        predictor.explain(EXAM).native[Plane.AXIAL], made.native[Plane.AXIAL]
    )
    for finding in FINDINGS:
        assert likeness(made, made, finding) == pytest.approx((1, 1))
        alike = np.array([likeness(made, one.explain(EXAM), finding) for one in others])
        assert abs(alike[:, 0].mean()) < 0.5
        if not encoders:
            assert alike[:, 1].mean() > abs(alike[:, 0].mean())
    first, second = others[0].network, predictor.network
    same = [torch.equal(a, b) for a, b in zip(first.encoders.parameters(), second.encoders.parameters(), strict=True)]  # fmt: skip # noqa: E501
    assert all(same) != encoders
