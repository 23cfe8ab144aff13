import random

from hypothesis import given
from hypothesis import strategies as st

from tortie.datastore.backoff import Backoff


@given(st.integers())
def test_waits_double_up_to_the_longest_and_vary_by_at_most_half(seed: int) -> None:
    backoff = Backoff(0.1, 1.0, random.Random(seed))
    for full in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        assert full / 2 <= backoff.next() <= full


def test_reset_starts_over() -> None:
    backoff = Backoff(0.1, 1.0)
    for _ in range(5):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 0.1
