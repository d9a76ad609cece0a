from __future__ import annotations

import math

import pytest

from mrknee.errors import SettingsError
from mrknee.ranges import SEED, THREADS, Range


def test_range_contains_integers_between_its_ends() -> None:
    """Both ends are included; fractions, NaN, booleans and text are not."""
    small = Range(1, 3)
    assert all(value in small for value in (1, 2, 3))
    assert not any(value in small for value in (0, 4, 2.0, math.nan, True, "2"))
    assert str(small) == "a whole number from 1 to 3"


@pytest.mark.parametrize("value", [-1, 2**32, 18446744073709551616, 10**400, 1.5])
def test_seed_must_have_32_bits(value: object) -> None:
    """Seeds that torch or numpy would refuse are one error."""
    with pytest.raises(SettingsError, match="the seed can't be used") as caught:
        SEED.check("the seed", value)
    assert caught.value.expected == "a whole number from 0 to 4,294,967,295"


def test_threads_are_bounded() -> None:
    """Each thread takes memory, so a typing error must not start 100,000 of them."""
    THREADS.check("the number of threads", 1)
    for value in (0, 100_000):
        with pytest.raises(SettingsError, match="threads"):
            THREADS.check("the number of threads", value)
