"""Guards of batches under faults, of their shares and of their sizes: see tests/guards.py."""

from tests.guarding import Guard

WORKER, FAULTY = "tests/test_batch_worker.py -k ", "tests/test_batch_faults.py -k "
SIZES, SHARES = "tests/test_batch_sizes.py -k ", "tests/test_batch_shares.py -k "
SLICES, TURNS = "apps/jobs/slices.py", "workers/batch/turns.py"
RUNNING, VALIDATION = "workers/batch/running.py", "workers/batch/validation.py"

FAULTS = (
    Guard("faults: a lost claim writes nothing", SLICES, "pk=claim.id, fence=claim.fence, state=SliceState.OPEN)", "pk=claim.id)",
          WORKER + "lost_its_claim"),
    Guard("faults: a part is named after its claim", "apps/jobs/parts.py", "{number}.{fence}", "{number}", FAULTY + "wakes_up"),
    Guard("faults: a database that comes back is waited for", RUNNING, " _give_back(claim, counts=not",
          " slices.give_back(claim, counts=not", WORKER + "there_again"),
    Guard("shares: turns are weighed", SLICES, "taken.work::float / coalesce(weights.weight, %(least)s)", "taken.work::float",
          SHARES + "half"),
    Guard("shares: a clock that runs ahead takes nothing from who waits", SLICES, "CASE WHEN was_here THEN 0 ELSE clock.time END",
          "clock.time", SHARES + "half"),
    Guard("shares: a new batch is checked between slices", TURNS, "        run_errands()\n", "        pass\n", SHARES + "ten_lines"),
    Guard("sizes: a check reads a line at a time", VALIDATION, "check.read(body, lease)",
          'check.read(__import__("io").BytesIO(body.read()), lease)', SIZES + "checked"),
)  # fmt: skip
