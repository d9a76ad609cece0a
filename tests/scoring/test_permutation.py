"""The permutation test against enumeration with scikit-learn, scipy's own test, and by its size."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import permutation_test, rankdata
from sklearn.metrics import roc_auc_score

from mrknee.errors import MrkneeError
from mrknee.scoring import permutation
from mrknee.scoring.permutation import EXACT, NORMAL, exchange_p, exchange_weights


def draw(
    seed: int, positives: int, negatives: int, decimals: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and two models' scores, the second's a little better."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([1.0, 0.0], [positives, negatives]))
    scores = rng.normal(size=(2, len(labels))) + np.array([[0.8], [1.6]]) * labels
    return labels, *scores.round(decimals)


SMALL = [(3, 4), (4, 4), (1, 6), (2, 5), (1, 1)]


@pytest.mark.parametrize(("positives", "negatives"), SMALL)
@pytest.mark.parametrize("decimals", [0, 15])
def test_exact_p_is_that_of_all_exchanges(positives: int, negatives: int, decimals: int) -> None:
    """The p is the share of all exchanges of ranks that give as large a difference or larger."""
    labels, first, second = draw(positives, positives, negatives, decimals)
    ranks = np.stack([rankdata(first), rankdata(second)])
    observed = roc_auc_score(labels, second) - roc_auc_score(labels, first)
    extreme = 0
    for exchanged in product([False, True], repeat=len(labels)):
        one = np.where(exchanged, ranks[1], ranks[0])
        two = np.where(exchanged, ranks[0], ranks[1])
        difference = roc_auc_score(labels, two) - roc_auc_score(labels, one)
        extreme += abs(difference) >= abs(observed) - 1e-12
    p, how = exchange_p(exchange_weights(labels, first, second))
    assert p == pytest.approx(extreme / 2 ** len(labels), abs=1e-12)
    assert how == EXACT


def test_exact_p_is_scipys() -> None:
    """The permutation test in scipy, exchanging ranks within exams, gives the same p."""
    labels, first, second = draw(0, 4, 4)

    def difference(one: np.ndarray, two: np.ndarray) -> float:
        return float(roc_auc_score(labels, two) - roc_auc_score(labels, one))

    theirs = permutation_test(
        (rankdata(first), rankdata(second)),
        difference,
        permutation_type="samples",
        vectorized=False,
        n_resamples=2**8,
        alternative="two-sided",
    )
    # scipy doubles the smaller tail; the distribution is symmetric, so that is the same.
    assert exchange_p(exchange_weights(labels, first, second))[0] == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("decimals", [0, 1, 15])
def test_weights_add_up_to_the_difference(decimals: int) -> None:
    """Their sum, in units of a pair's quarter, is the difference of scikit-learn's AUCs."""
    labels, first, second = draw(1, 33, 57, decimals)
    unknown = np.append(labels, [np.nan, np.nan])
    weights = exchange_weights(unknown, np.append(first, [9, 0]), np.append(second, [0, 9]))
    expected = roc_auc_score(labels, second) - roc_auc_score(labels, first)
    assert weights.sum() / (4 * 33 * 57) == pytest.approx(expected, abs=1e-12)
    assert (weights[-2:] == 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_random_exchanges_agree_with_all(seed: int) -> None:
    """Random exchanges give the exact p within their own error of four standard errors."""
    weights = exchange_weights(*draw(seed, 40, 60))
    exact, how = exchange_p(weights)
    assert how == EXACT
    # The same weights as fractions, which can't be counted out.
    found, how = exchange_p(weights / (4 * 40 * 60), seed=seed)
    assert how == "10000 random exchanges"
    assert abs(found - exact) <= 4 * np.sqrt(exact * (1 - exact) / 10_000) + 1e-4


def test_normal_approximation_agrees_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """With thousands of exams the normal p is the exact one to three digits after the point."""
    weights = np.random.default_rng(0).integers(-60, 61, size=4000)
    for drift in (0, 150):
        moved = weights.copy()
        moved[:drift] = np.abs(moved[:drift])
        monkeypatch.setattr(permutation, "EXACT_STEPS", 10**9)
        exact, how = exchange_p(moved)
        assert how == EXACT
        monkeypatch.setattr(permutation, "EXACT_STEPS", 0)
        normal, how = exchange_p(moved)
        assert how == NORMAL
        assert normal == pytest.approx(exact, abs=5e-4)


def test_random_p_is_never_zero() -> None:
    """The data themselves count as one exchange: the smallest p is 1 / (1 + replicates)."""
    weights = np.full(60, 1 / 60)
    assert exchange_p(weights, replicates=99)[0] == 0.01


def test_memory_portions_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random exchanges made in portions are as many as those made at once."""
    weights = exchange_weights(*draw(2, 20, 30)) / 2400
    whole = exchange_p(weights, replicates=5000)[0]
    monkeypatch.setattr("mrknee.scoring.resampling._CELLS_AT_ONCE", 50 * 7)
    parts = exchange_p(weights, replicates=5000)[0]
    assert parts == pytest.approx(whole, abs=0.03)
    assert (parts * 5001) == pytest.approx(round(parts * 5001), abs=1e-6)


def test_identical_and_perfect_models_have_p_one() -> None:
    """Where no exchange changes the difference, p is 1: copies, and two models without a fault."""
    labels, first, _ = draw(3, 20, 30)
    assert exchange_p(exchange_weights(labels, first, np.exp(first))) == (1.0, EXACT)
    rng = np.random.default_rng(0)
    perfect = [labels + rng.random(50) / 2 for _ in range(2)]
    assert exchange_p(exchange_weights(labels, *perfect)) == (1.0, EXACT)


def test_perfect_against_opposite_is_the_smallest_p() -> None:
    """A perfect model against its opposite, which DeLong can't test, has p 2 / 2^exams."""
    labels = np.repeat([1.0, 0.0], [5, 5])
    p, _ = exchange_p(exchange_weights(labels, 1 - labels, labels))
    assert p == pytest.approx(2 / 2**10)


def test_only_ranks_matter_and_the_order_of_models_does_not() -> None:
    """An increasing change of a model's scores changes no weight; exchanged models turn signs."""
    labels, first, second = draw(4, 15, 25)
    weights = exchange_weights(labels, first, second)
    assert (exchange_weights(labels, np.exp(first), 3 * second - 7) == weights).all()
    assert (exchange_weights(labels, second, first) == -weights).all()


def test_size_of_the_test() -> None:
    """Of two equally good models about one in twenty samples has p < 0.05, few exams or not."""
    rng = np.random.default_rng(5)
    for positives, negatives in [(5, 30), (25, 95)]:
        labels = np.repeat([1.0, 0.0], [positives, negatives])
        small = 0
        for _ in range(400):
            shared = rng.normal(size=len(labels))
            first, second = (
                1.5 * labels + 0.8 * shared + 0.6 * rng.normal(size=len(labels)) for _ in range(2)
            )
            small += exchange_p(exchange_weights(labels, first, second))[0] < 0.05
        # 400 samples: a standard error of 0.011.
        assert 0.02 <= small / 400 <= 0.083


def test_nan_score_is_refused() -> None:
    """A NaN is an error."""
    with pytest.raises(MrkneeError, match="a score is NaN"):
        exchange_weights(np.array([0.0, 1.0]), np.array([0.1, 0.2]), np.array([0.1, np.nan]))
