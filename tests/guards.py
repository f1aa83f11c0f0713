"""Take each guard out of a copy of the code and see that its test fails: python -m tests.guards [NAME ...]

A test that passes without its guard protects nothing. Each guard is one exact piece of text and what stands there when
it is gone; a text that is no longer in its file is an error, so this list cannot go stale unseen.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("maas", "apps", "workers", "tests", "frontend", "models", "docs", "README.md", "pyproject.toml", "manage.py")


SQL = "apps/usage/migrations/0003_allowances.py"


@dataclass(frozen=True)
class Guard:
    """What stands in `file`, what is there without the guard, and the tests of which at least one has to fail then."""

    name: str
    file: str
    text: str
    without: str
    tests: str


GUARDS = (
    Guard(
        "revocation",
        "apps/accounts/keys.py",
        'if key.status != "active":\n        raise errors.Unauthenticated',
        "if False:\n        raise errors.Unauthenticated",
        "tests/test_keys.py -k revoked",
    ),
    Guard(
        "rotation: the old secret ends",
        "apps/accounts/keys.py",
        "if is_old and not key.rotating_until:",
        "if False:",
        "tests/test_key_limits.py -k grace",
    ),
    Guard(
        "rotation: two secrets are valid",
        "apps/accounts/keys.py",
        "old_hash=key.hash, old_expires_at=until",
        "old_expires_at=until",
        "tests/test_key_limits.py -k grace",
    ),
    Guard("a key's addresses", "apps/accounts/keys.py", "    _check_address(key, address)\n", "", "tests/test_key_limits.py -k networks"),
    Guard(
        "a key's models",
        "apps/catalog/services.py",
        'if allowed and parts["name"] not in allowed:',
        "if False:",
        "tests/test_key_limits.py -k models",
    ),
    Guard(
        "no key gives more than it has",
        "apps/accounts/keys.py",
        "\n    check_grant(tenant.id, wanted)\n    secret",
        "\n    secret",
        "tests/test_key_limits.py -k gives",
    ),
    Guard(
        "idempotency under concurrency",
        "apps/idempotency/api.py",
        "        if key is None:",
        "        if True:",
        "tests/test_idempotency.py -k fifty",
    ),
    Guard(
        "idempotency: the fence of an attempt",
        "apps/idempotency/services.py",
        "pk=claim.id, fence=claim.fence, status=None)\n        if not",
        "pk=claim.id)\n        if not",
        "tests/test_idempotency.py -k slow",
    ),
    Guard(
        "idempotency: one transaction",
        "apps/idempotency/api.py",
        "        with as_tenant(claim.tenant_id):\n            response = post()",
        "        if True:\n            response = post()",
        "tests/test_idempotency.py -k undone",
    ),
    Guard(
        "a refused call is counted nowhere",
        "maas/limits.py",
        "  if answer[1] == 1 then after = before end\n",
        "",
        "tests/test_rate_limits.py -k below_its_tenants",
    ),
    Guard(
        "a limit that is used up refuses",
        "maas/limits.py",
        "if wait > 0 then answer[1] = 1 end",
        "",
        "tests/test_rate_limits.py -k exactly_50",
    ),
    Guard(
        "the number of jobs under concurrency",
        "apps/jobs/services.py",
        "    Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)\n    if Job",
        "    if Job",
        "tests/test_rate_limits.py -k of_20_batches",
    ),
    Guard(
        "no key gives more than its own limits",
        "apps/accounts/restrictions.py",
        "if (wanted.limits.get(name) or most + 1) > most:",
        "if False:",
        "tests/test_rate_limits.py -k its_own_limits",
    ),
    Guard(
        "a malformed prediction is a request",
        "apps/billing/throttling.py",
        "            if meter and not meter.is_counted:",
        "            if False:",
        "tests/test_rate_limits.py -k malformed",
    ),
    Guard(
        "limits without Redis",
        "maas/limits.py",
        "    most = min(limit.most, max(limit.most // LOCAL_SHARE, LOCAL_LEAST))",
        "    most = limit.most",
        "tests/test_rate_limits.py -k without_redis",
    ),
    Guard(
        "audit: an edited entry",
        "apps/audit/verifying.py",
        "if previous is not None and link(previous, row.seq, row.body) != row.hash:",
        "if False:",
        "tests/test_audit_tampering.py",
    ),
    Guard(
        "audit: a deleted entry", "apps/audit/verifying.py", "elif row.seq != self.seq + 1:", "elif False:", "tests/test_audit_tampering.py"
    ),
    Guard(
        "audit: the beginning is gone",
        "apps/audit/verifying.py",
        "if self.first and self.first.seq and not self.is_begun:",
        "if False:",
        "tests/test_audit_tampering.py",
    ),
    Guard(
        "audit: cut off at the end",
        "apps/audit/verifying.py",
        "elif row.head_seq > self.seq:",
        "elif False:",
        "tests/test_audit_tampering.py",
    ),
    Guard(
        "audit: cut off with its head, told by an anchor",
        "apps/audit/verifying.py",
        "if last and last.seq > self.seq:",
        "if False:",
        "tests/test_audit_tampering.py",
    ),
    Guard(
        "audit: rewritten as a whole, told by an anchor",
        "apps/audit/verifying.py",
        "            self.is_rewritten = True\n            yield (",
        "            self.is_rewritten = True\n            str(",
        "tests/test_audit_tampering.py",
    ),
    Guard(
        "audit: the chain is made by the database",
        "apps/audit/migrations/0001_initial.py",
        "int8send(chain.seq + 1)",
        "int8send(chain.seq)",
        "tests/test_audit_chain.py",
    ),
    Guard(
        "webhooks: private addresses, at creation and at delivery",
        "maas/destinations.py",
        '        _check_address(ipaddress.ip_address(text.partition("%")[0]), scheme, port)\n',
        "        pass\n",
        "tests/test_destinations.py",
    ),
    Guard(
        "webhooks: rebinding, checked at delivery",
        "maas/outgoing.py",
        "        destination = check_url(url, resolve=resolve)",
        "        destination = Destination('https', 'x', 443, '/', tuple(resolve('x', 443)))",
        "tests/test_outgoing.py -k turns_private",
    ),
    Guard(
        "webhooks: rebinding, no second look-up",
        "maas/outgoing.py",
        "return _connect(self.pinned, self.port, self.deadline)",
        "return socket.create_connection((self.host, self.port), 5)",
        "tests/test_outgoing.py -k look",
    ),
    Guard(
        "webhooks: redirects",
        "apps/webhooks/delivering.py",
        "if 200 <= answer.status < 300:",
        "if 200 <= answer.status < 400:",
        "tests/test_webhooks.py -k 2xx",
    ),
    Guard(
        "webhooks: a captured request grows old",
        "apps/webhooks/delivering.py",
        "timestamp=int(time.time())",
        "timestamp=int(message.created_at.timestamp())",
        "tests/test_webhooks.py -k replay",
    ),
    Guard(
        "webhooks: a repeat keeps its id",
        "apps/webhooks/delivering.py",
        "message_id=ids.encode(ids.EVENT, message.id)",
        "message_id=ids.encode(ids.EVENT, ids.uuid7())",
        "tests/test_webhooks.py -k replay",
    ),
    Guard(
        "webhooks: two secrets sign during a rotation",
        "apps/webhooks/signing.py",
        "for secret in secrets]",
        "for secret in secrets[:1]]",
        "tests/test_webhooks.py -k rotation",
    ),
    Guard(
        "webhooks: the outbox is part of the transaction",
        "apps/webhooks/apps.py",
        "subscribe(Event, record)",
        "subscribe(Event, print)",
        "tests/test_webhooks.py -k arrives",
    ),
    Guard(
        "an invitation works once",
        "apps/accounts/invitations.py",
        "hash=found.hash, accepted_at=None, withdrawn_at=None",
        "hash=found.hash",
        "tests/test_team.py -k race",
    ),
    Guard(
        "an invitation is for one person",
        "apps/accounts/invitations.py",
        "if user.email.lower() != found.email:",
        "if False:",
        "tests/test_team.py -k another",
    ),
    Guard(
        "roles in the services",
        "maas/actors.py",
        '    if actor.kind == "system" or (',
        "    return\n    if (",
        "tests/test_team.py -k role",
    ),
    Guard(
        "row-level security",
        "maas/rls.py",
        "ALTER TABLE {table} FORCE ROW LEVEL SECURITY;",
        "",
        "tests/test_isolation.py -k forces",
    ),
    Guard(
        "the services' filters",
        "apps/files/services.py",
        "tenant=tenant, stored_at__isnull",
        "stored_at__isnull",
        "tests/test_isolation_routes.py -k alone",
    ),
    Guard(
        "a suspended organisation's keys",
        "apps/accounts/keys.py",
        "    if caller.tenant.suspended_at:",
        "    if False:",
        "tests/test_suspension.py -k every_call",
    ),
    Guard(
        "a suspended organisation's sessions",
        "apps/accounts/authentication.py",
        'actor.barred == "organisation_suspended"):',
        "False):",
        "tests/test_suspension.py -k members_session",
    ),
    Guard(
        "a suspended organisation's pages",
        "apps/dashboard/page.py",
        "    code = current_actor().barred\n",
        '    code = ""\n',
        "tests/test_suspension.py -k refused_with_the_reason",
    ),
    Guard(
        "a suspended organisation's services",
        "apps/accounts/roles.py",
        "permissions=may & SUSPENDED if suspended else may",
        "permissions=may",
        "tests/test_suspension.py -k no_service",
    ),
    Guard(
        "a suspended organisation's invitations",
        "apps/accounts/invitations.py",
        "    if invitation.tenant.suspended_at:",
        "    if False:",
        "tests/test_suspension.py -k nobody_joins",
    ),
    Guard(
        "suspending is the operator's",
        "apps/accounts/suspension.py",
        "    require(tenant.id, Permission.OPERATE)\n",
        "",
        "tests/test_suspension.py -k owner_cannot",
    ),
    Guard(
        "the admin: staff alone",
        "apps/accounts/operator_site.py",
        "    if not user.is_staff:",
        "    if False:",
        "tests/test_operator.py -k is_no_operator",
    ),
    Guard(
        "the admin: a second factor",
        "apps/accounts/operators.py",
        "user.is_staff and has_second_factor(user)",
        "user.is_staff",
        "tests/test_operator.py -k without_a_second_factor",
    ),
    Guard(
        "the admin: a second factor in this session",
        "apps/accounts/operator_site.py",
        "    if not proved_second_factor(request):",
        "    if False:",
        "tests/test_operator.py -k gave_no_second_factor",
    ),
    Guard(
        "the admin: everybody else",
        "apps/accounts/operator_site.py",
        "            return turn_away(request) or _operate",
        "            return _operate",
        "tests/test_isolation_routes.py -k closed_to_members",
    ),
    Guard(
        "the admin: all tenants, for one page",
        "apps/accounts/operator_site.py",
        ", as_system(SystemUse.OPERATE):",
        ":",
        "tests/test_operator.py -k found_by_slug",
    ),
    Guard(
        "the admin: drawn inside",
        "apps/accounts/operator_site.py",
        "            response.render()\n",
        "            pass\n",
        "tests/test_operator.py -k without_a_password",
    ),
    Guard(
        "the admin: nothing by hand",
        "apps/accounts/operator_site.py",
        "    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:\n        return False",
        "    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:\n        return True",
        "tests/test_operator.py -k by_hand",
    ),
    Guard(
        "who is an operator",
        "apps/accounts/admin.py",
        "        return bool(request.user.is_superuser)",
        "        return bool(1)",
        "tests/test_operator.py -k only_superusers",
    ),
    Guard(
        "an operator's rights end at one organisation",
        "apps/accounts/operators.py",
        "tenant_id=tenant.id if tenant else None, permissions=frozenset(may),",
        "tenant_id=tenant.id if tenant else None, permissions=frozenset(Permission),",
        "tests/test_operator.py -k operators_deeds",
    ),
    Guard(
        "looking: a fresh second factor",
        "apps/accounts/operator_deeds.py",
        "    if deed.fresh and not proved_lately(request):",
        "    if False:",
        "tests/test_impersonation.py -k minutes_old",
    ),
    Guard(
        "looking: of an operator",
        "apps/accounts/impersonation.py",
        "    if not is_operator(user) or not session_key:",
        "    if False:",
        "tests/test_impersonation.py -k by_the_service",
    ),
    Guard(
        "looking: by permission",
        "apps/accounts/impersonation.py",
        "    require(tenant.id, Permission.OPERATE)\n",
        "",
        "tests/test_impersonation.py -k by_the_service",
    ),
    Guard(
        "looking: the rights of this moment",
        "apps/accounts/impersonation.py",
        "    if visit and is_operator(request.user) and",
        "    if visit and",
        "tests/test_impersonation.py -k rights_are_gone",
    ),
    Guard(
        "looking: one's own visit",
        "apps/accounts/impersonation.py",
        '"user_id": request.user.pk, ',
        "",
        "tests/test_impersonation.py -k copied_session",
    ),
    Guard(
        "looking: this session's visit",
        "apps/accounts/impersonation.py",
        ', "session": _digest(request.session.session_key or "")}',
        "}",
        "tests/test_impersonation.py -k another_session",
    ),
    Guard(
        "looking: not once it ended",
        "apps/accounts/impersonation.py",
        "filter(pk=visit_id, tenant_id=tenant_id, ended_at=None, **mine)",
        "filter(pk=visit_id, tenant_id=tenant_id, **mine)",
        "tests/test_impersonation.py -k put_back",
    ),
    Guard(
        "looking: an hour",
        "apps/accounts/impersonation.py",
        " and timezone.now() < until(visit):",
        ":",
        "tests/test_impersonation.py -k after_an_hour",
    ),
    Guard(
        "looking: nothing but reading",
        "apps/accounts/middleware.py",
        "                impersonation.check_method(request)\n",
        "                pass\n",
        "tests/test_impersonation.py -k whatever_is_sent",
    ),
    Guard(
        "looking: no service either",
        "maas/actors.py",
        "actor.tenant_id == tenant_id and permission in actor.permissions",
        'actor.tenant_id == tenant_id and (permission in actor.permissions or actor.barred == "looking")',
        "tests/test_impersonation.py -k no_service",
    ),
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
        " or time.monotonic() + seconds > block.ends",
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


def main(names: list[str]) -> int:
    """Run all, or those whose name holds one of the words; the number of guards whose loss no test tells."""
    chosen = [guard for guard in GUARDS if not names or any(name in guard.name for name in names)]
    useless = [guard.name for guard in chosen if not _is_caught(guard)]
    print(f"{len(chosen) - len(useless)} of {len(chosen)} guards are told by a test when they are taken out.")
    return len(useless)


def _is_caught(guard: Guard) -> bool:
    """Whether a test fails without the guard, and passes with it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        _copy(copy)
        before = _run(copy, guard.tests)
        _take_out(copy / guard.file, guard)
        after = _run(copy, guard.tests)
    good = before == 0 and after == 1  # pytest: all passed, some failed
    seconds = time.monotonic() - began
    print(f"{'caught    ' if good else 'NOT CAUGHT'} {guard.name} (with it {before}, without it {after}; {seconds:.0f} s)", flush=True)
    return good


def _copy(copy: Path) -> None:
    for part in PARTS:
        source = ROOT / part
        if part == "models":
            (copy / part).symlink_to(source)
        elif source.is_dir():
            shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy / part)


def _take_out(file: Path, guard: Guard) -> None:
    text = file.read_text()
    if guard.text not in text:
        raise SystemExit(f"{guard.name}: {guard.file} no longer holds {guard.text!r}; bring tests/guards.py up to date.")
    file.write_text(text.replace(guard.text, guard.without))


def _run(copy: Path, tests: str) -> int:
    """pytest's exit status: 0 all passed, 1 some failed, more when it could not run."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", *tests.split()]
    env = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
