from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from mrknee.models.pooling import (
    POOLINGS,
    AttentionPooling,
    MaxPooling,
    MeanPooling,
    crop_weights,
    pool_exams,
)
from mrknee.models.settings import SlicePooling

KINDS: tuple[SlicePooling, ...] = ("max", "mean", "attention")
LENGTHS = [3, 0, 1, 5]


@pytest.fixture
def features() -> Tensor:
    """Features of nine slices with ties: integers from -2 to 2."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(-2, 3, (9, 6), generator=generator).float().requires_grad_()


def test_maximum_equals_the_references() -> None:
    """Maximum pooling of each exam is torch.max over its own slices."""
    features = torch.tensor([[1.0, -2.0], [0.0, -1.0], [7.0, 7.0]])
    pooled, _ = pool_exams(MaxPooling(2), features, [2, 1])
    assert torch.equal(pooled, torch.tensor([[1.0, -1.0], [7.0, 7.0]]))


def test_a_ties_gradient_goes_to_the_first_slice(features: Tensor) -> None:
    """If slices tie, the first gets all of the gradient, as with torch.max."""
    pooled, _ = pool_exams(MaxPooling(6), features, LENGTHS)
    (gradient,) = torch.autograd.grad(pooled.square().sum(), features)
    plain = [torch.max(features[a:b], 0)[0].square().sum() for a, b in ((0, 3), (3, 4), (4, 9))]
    (expected,) = torch.autograd.grad(torch.stack(plain).sum(), features)
    assert torch.equal(gradient, expected)
    values, counts = torch.unique(features.detach()[4:9, 0], return_counts=True)
    assert counts[values.argmax()] > 1, "the example has no tie"
    assert (gradient[4:9, 0] != 0).sum() <= 1


def test_mean_is_the_mean_of_the_exams_own_slices(features: Tensor) -> None:
    """Mean pooling of each exam is the mean over its own slices."""
    pooled, _ = pool_exams(MeanPooling(6), features, LENGTHS)
    torch.testing.assert_close(pooled[3], features[4:9].mean(0))


def test_attention_equals_the_paper() -> None:
    """Attention is softmax(w tanh(V h)) over the exam's slices (Ilse et al. 2018, eq. 7 and 8)."""
    torch.manual_seed(0)
    pooling = AttentionPooling(6)
    features = torch.randn(4, 6)
    inner, _, outer = pooling.scorer
    assert isinstance(inner, nn.Linear)
    assert isinstance(outer, nn.Linear)
    scores = torch.stack([outer.weight[0] @ torch.tanh(inner.weight @ h) for h in features])
    shares = scores.exp() / scores.exp().sum()
    pooled = pooling(features)
    torch.testing.assert_close(pooled.weights, shares[:, None].expand(4, 6))
    torch.testing.assert_close(pooled.vector, shares @ features)


@pytest.mark.parametrize("slices", [1, 2, 61])
def test_attention_sums_to_one_within_the_exam(slices: int) -> None:
    """Attention weights are never negative and add up to 1 for any number of slices."""
    torch.manual_seed(slices)
    shares = AttentionPooling(8)(100 * torch.randn(slices, 8)).weights[:, 0]
    assert shares.shape == (slices,)
    assert bool((shares >= 0).all())
    assert float(shares.sum().detach()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize("slices", [1, 2, 9])
def test_the_vector_is_the_weighted_sum_of_the_slices(
    kind: SlicePooling, slices: int, features: Tensor
) -> None:
    """For every pooling, the weighted sum of the slices is the pooled vector."""
    torch.manual_seed(0)
    pooled = POOLINGS[kind](6)(features[:slices])
    assert pooled.weights.shape == (slices, 6)
    torch.testing.assert_close(pooled.vector, (pooled.weights * features[:slices]).sum(0))


@pytest.mark.parametrize("kind", KINDS)
def test_an_exam_without_slices_is_zero_without_gradient(
    kind: SlicePooling, features: Tensor
) -> None:
    """An exam of length 0 is pooled to zeros, and every gradient is finite."""
    pooling = POOLINGS[kind](6)
    pooled, _ = pool_exams(pooling, features, LENGTHS)
    assert torch.equal(pooled[1], torch.zeros(6))
    (from_empty,) = torch.autograd.grad(pooled[1].sum(), features, retain_graph=True)
    assert not from_empty.any()
    (from_all,) = torch.autograd.grad(pooled.sum(), features)
    assert bool(from_all.isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_have_no_effect(kind: SlicePooling, features: Tensor) -> None:
    """An exam is pooled to the same bits alone and next to an exam full of NaN."""
    pooling = POOLINGS[kind](6)
    spoilt = features.detach().clone()
    spoilt[4:9] = float("nan")
    beside, _ = pool_exams(pooling, spoilt, LENGTHS)
    assert torch.equal(beside[0], pool_exams(pooling, spoilt[:3], [3])[0][0])
    assert bool(beside[3].isnan().all()), "NaN must show in the exam that has it"


def test_lengths_that_dont_add_up_are_refused(features: Tensor) -> None:
    """Slices that belong to no exam are an error."""
    with pytest.raises(ValueError, match="add up to 8, but there are 9"):
        pool_exams(MaxPooling(6), features, [3, 5])


def test_crops_are_concentric_and_average() -> None:
    """Crop d of D has d / D of the sides; its weights are equal and add up to 1."""
    weights = crop_weights(3, 6, 7)
    assert [(int((one > 0).any(1).sum()), int((one > 0).any(0).sum())) for one in weights] == [
        (2, 3), (4, 5), (6, 7)
    ]  # fmt: skip
    torch.testing.assert_close(weights.sum(dim=(1, 2)), torch.ones(3))
    for inner, outer in itertools.pairwise(weights):
        assert bool((outer[inner > 0] > 0).all())
    assert weights[0].nonzero()[0].tolist() == [2, 2]
    assert torch.equal(crop_weights(4, 1, 1), torch.ones(4, 1, 1))
