"""Guards of limits and charges: see tests/guards.py."""

from tests.guarding import Guard

SQL = "apps/usage/migrations/0003_allowances.py"

MONEY = (
    Guard("allowance: no room", SQL, "IF room < wanted THEN", "IF false THEN", "tests/test_allowances.py -k refusal"),
    Guard(
        "allowance: the row is held", SQL, "a.scope = 'tenant' FOR UPDATE;", "a.scope = 'tenant';", "tests/test_allowances.py -k unit_more"
    ),
    Guard("allowance: a closed reservation pays nothing", SQL, "AND r.closed_at IS NULL\n", "\n", "tests/test_allowances.py -k closed"),
    Guard("allowance: another tenant's", SQL, "AND r.tenant_id = x.tenant_id ", "", "tests/test_allowances.py -k another_tenants"),
    Guard(
        "allowance: the month of the reservation",
        SQL,
        "coalesce(r.period, this_month)",
        "this_month",
        "tests/test_allowances.py -k lies_in",
    ),
    Guard("allowance: a month that is over", SQL, "OR of_month.is_over THEN", "THEN", "tests/test_allowances.py -k is_over"),
    Guard(
        "allowance: nothing is charged while a limit is made",
        SQL,
        "        ORDER BY a.tenant_id, a.period FOR UPDATE;\n    UPDATE usage_allowance a",
        "        ORDER BY a.tenant_id, a.period;\n    UPDATE usage_allowance a",
        "tests/test_allowances.py -k never_miss",
    ),
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
