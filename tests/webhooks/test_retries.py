"""The pauses between attempts: doubling, capped, and drawn at random, so that not all endpoints come back at once."""

from random import Random
from statistics import quantiles

import pytest

from app.webhooks.deliverer import RetryPolicy


@pytest.mark.parametrize(
    ("failures", "longest"), [(0, 1.0), (1, 2.0), (5, 32.0), (11, 2048.0), (12, 3600.0), (10_000, 3600.0)]
)
def test_a_pause_lies_anywhere_in_the_upper_half_of_one_that_doubles_up_to_an_hour(
    failures: int, longest: float
) -> None:
    random = Random(1)
    pauses = [RetryPolicy().pause(failures, random) for _ in range(1000)]
    assert longest / 2 <= min(pauses)
    assert max(pauses) <= longest
    assert [each / longest for each in quantiles(pauses, n=4)] == pytest.approx([0.625, 0.75, 0.875], abs=0.03)
