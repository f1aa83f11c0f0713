"""A receiver and a worker that are killed at random: every event arrives at least once, with the same id on every repeat.

`python -m bench.webhook_faults` runs the long form.
"""

from tests.webhook_faults import drain, run


def test_every_event_arrives_although_receiver_and_worker_are_killed(cast) -> None:
    drain()
    report = run(cast.tenant, events=120, receiver_kills=4, worker_kills=2, seed=1)
    assert (report.events, report.receiver_kills, report.worker_kills) == (120, 4, 2)
    print(report)
