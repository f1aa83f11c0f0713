"""Guards of limits and charges: see tests/guards.py."""

from tests.guarding import Guard

SQL = "apps/usage/migrations/0003_allowances.py"
SETTLE = "apps/usage/migrations/0004_settle_by_arrays.py"

MONEY = (
    Guard("allowance: no room", SQL, "IF room < wanted THEN", "IF false THEN", "tests/test_allowances.py -k refusal"),
    Guard(
        "allowance: the row is held", SQL, "a.scope = 'tenant' FOR UPDATE;", "a.scope = 'tenant';", "tests/test_allowances.py -k unit_more"
    ),
    Guard(
        "settle: a closed reservation pays nothing",
        SETTLE,
        " AND r.closed_at IS NULL FOR UPDATE",
        " FOR UPDATE",
        "tests/test_allowances.py -k closed",
    ),
    Guard(
        "settle: a closed one of several pays nothing",
        SETTLE,
        " AND closed_at IS NULL ORDER BY id",
        " ORDER BY id",
        "tests/test_settling.py -k closed",
    ),
    Guard("settle: another tenant's", SETTLE, "AND r.tenant_id = tenants[1] ", "", "tests/test_allowances.py -k another_tenants"),
    Guard("settle: another tenant's of several", SETTLE, " AND held.tenant_id = tenant)", ")", "tests/test_settling.py -k strangers"),
    Guard(
        "settle: the month of the reservation",
        SETTLE,
        "SELECT r.period INTO month",
        "SELECT this_month INTO month",
        "tests/test_allowances.py -k lies_in",
    ),
    Guard(
        "settle: the months of several reservations",
        SETTLE,
        "WHEN hold IS NULL THEN",
        "WHEN hold IS NULL OR held.id IS NOT NULL THEN",
        "tests/test_settling.py -k stands_in",
    ),
    Guard(
        "settle: nothing is charged while a limit is made",
        SETTLE,
        "a.subject = '' FOR UPDATE;",
        "a.subject = '';",
        "tests/test_allowances.py -k never_miss",
    ),
    Guard(
        "settle: nothing of several is charged while a limit is made",
        SETTLE,
        "        ORDER BY a.tenant_id, a.period FOR UPDATE;",
        "        ORDER BY a.tenant_id, a.period;",
        "tests/test_settling.py -k misses_no_unit",
    ),
    Guard(
        "settle: what is not new is not paid for",
        SETTLE,
        "IF cardinality(added) < cardinality(sources) THEN",
        "IF false THEN",
        "tests/test_settling.py -k charged_before",
    ),
    Guard(
        "settle: a source that comes twice is paid for once",
        SETTLE,
        "SELECT DISTINCT ON (line.source) charge",
        "SELECT charge",
        "tests/test_settling.py -k comes_twice",
    ),
    Guard(
        "settle: while a month is begun",
        SETTLE,
        "IF array_position(holds, NULL) IS NOT NULL THEN",
        "IF false THEN",
        "tests/test_settling.py -k who_begins",
    ),
    Guard(
        "settle: names are escaped",
        "apps/usage/settling.py",
        ' if "\\\\" not in text else list(values)',
        "",
        "tests/test_settling.py -k names",
    ),
    Guard("allowance: a month that is over", SQL, "OR of_month.is_over THEN", "THEN", "tests/test_allowances.py -k is_over"),
    Guard(
        "block: no call outlives the lease",
        "apps/usage/blocks.py",
        " and time.monotonic() + seconds <= block.ends",
        "",
        "tests/test_allowances.py -k outlives",
    ),
    Guard(
        "slice: written only when it is paid",
        "apps/jobs/slices.py",
        "            raise NotPaid\n",
        "            pass\n",
        "tests/test_batch_limits.py -k reservation_is_gone",
    ),
    Guard(
        "slice: the dead worker's reservation",
        "apps/jobs/paying.py",
        "        reservations.release_slice(claim.id)  # of a worker that is gone\n",
        "",
        "tests/test_batch_limits.py -k dies",
    ),
    Guard(
        "job: what was kept is given back",
        "apps/jobs/stages.py",
        "    reservations.release_job(job.pk)\n",
        "",
        "tests/test_batch_limits.py",
    ),
)
