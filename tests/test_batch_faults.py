"""Batches through kills, drains, crashes of the stores, repeated messages and lost claims: every line once, in order, charged to the unit.

The full size is `python -m bench.batch_faults`.
"""

from collections.abc import Iterator

import pytest

from tests import batch_whole
from tests.batch_faults import Round, run
from tests.batch_parts import Part, batch_parts


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, Part]]:
    with batch_parts() as parts:
        yield parts


def test_ten_faults_lose_repeat_and_overcharge_no_line(running) -> None:
    (report,) = run(running, faults=10, seed=0)
    assert not report.wrong, "\n".join(report.wrong)
    assert report.faults.total() == 10 and report.answered > 0


def test_a_worker_that_wakes_up_after_its_slice_was_taken_writes_nothing(running) -> None:
    mine = Round(running, 100)
    for _ in range(3):
        mine.harm("stall")
    report = mine.end()
    assert not report.wrong, "\n".join(report.wrong)
    assert report.taken >= 2, report


def test_the_checks_tell_a_line_that_is_missing_and_one_that_is_there_twice(running) -> None:
    """What finds nothing wrong must be able to."""
    mine = Round(running, 300)
    batch = mine.begin()
    assert mine.end().wrong == []
    first = next(iter(batch.lines))
    for lines in ({"another": 1, **batch.lines}, {k: n for k, n in batch.lines.items() if k != first}, {**batch.lines, first: 9}):
        assert batch_whole.what_is_wrong(batch_whole.Batch(batch.job, lines)), lines
