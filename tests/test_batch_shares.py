"""Organisations share the batch workers by the weights of their plans, and a small batch does not wait for a large one.

The full size is `python -m bench.batch_shares`.
"""

from collections import Counter

from tests.batch_shares import TENANTS, measure_shares, measure_wait


def test_when_half_of_all_lines_are_done_each_organisation_has_its_share() -> None:
    shares = measure_shares(batches=3, lines=64, inputs=4)
    assert Counter(share.weight for share in shares) == {1: 4, 2: 3, 4: 3} and len(shares) == len(TENANTS)
    assert all(share.is_fair for share in shares), shares


def test_ten_lines_wait_for_two_slices_of_a_large_batch_at_most() -> None:
    for wait in measure_wait(waiting=5_000, inputs=32, times=2):
        assert wait.slices <= wait.most, wait
