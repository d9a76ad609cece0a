from __future__ import annotations

import math

import pytest

from mrknee.errors import MrkneeError
from mrknee.ranges import SEED, THREADS, Range


@pytest.mark.parametrize(
    ("allowed", "inside", "outside", "text"),
    [
        (Range(1, 3, whole=True), (1, 2, 3), (0, 4, 2.0, True, "2"), "a whole number from 1 to 3"),
        (Range(0, 1), (0, 0.5, 1), (-0.1, 1.1, math.nan, math.inf, False), "a number from 0 to 1"),
        (Range(0, 1, above=True), (1e-9, 1), (0, 0.0), "a number above 0 up to 1"),
        (Range(0, 1, below=True), (0, 0.999), (1, 1.0), "a number from 0 to below 1"),
    ],
)
def test_a_range_knows_its_ends_and_its_kind(
    allowed: Range, inside: tuple[object, ...], outside: tuple[object, ...], text: str
) -> None:
    """NaN, infinities, booleans and text are in none, and the text says which ends belong to it."""
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in outside)
    assert str(allowed) == text


@pytest.mark.parametrize("value", [-1, 2**32, 18446744073709551616, 10**400, 1.5])
def test_a_seed_has_32_bits(value: object) -> None:
    """What the libraries below refuse, each in its own way, is one error here."""
    with pytest.raises(MrkneeError, match="the seed can't be used") as caught:
        SEED.check("the seed", value)
    assert caught.value.expected == "a whole number from 0 to 4,294,967,295"


def test_threads_are_bounded() -> None:
    """A thread takes memory before it computes, so a slip must not start 100,000 of them."""
    THREADS.check("the number of threads", 1)
    for value in (0, 100_000):
        with pytest.raises(MrkneeError, match="threads"):
            THREADS.check("the number of threads", value)
