"""The ledger: once per source, append-only, added up right."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.db.utils import ProgrammingError
from django.utils import timezone

from apps.usage import services
from apps.usage.models import UsageRecord
from maas import ids
from maas.tenancy import as_tenant
from tests.cast import client_for


def line(source: str | None = None, **fields) -> services.UsageLine:
    facts = {"kind": "prediction", "model": "m", "version": 1, "unit": "token", "quantity": 400, "units": 2}
    return services.UsageLine(source=source or ids.uuid7().hex, **{**facts, **fields})


def total(tenant) -> dict[str, int]:
    return services.totals(tenant, timezone.now() - timedelta(days=1), timezone.now() + timedelta(days=1))


@pytest.mark.parametrize(("quantities", "units"), [([0], 0), ([1], 1), ([384], 1), ([385], 2), ([1, 1, 385], 4), ([], 0)])
def test_every_input_is_rounded_up_on_its_own(quantities, units) -> None:
    assert services.units_for({"unit": "token", "per": 384, "units": 1}, quantities) == units


def test_a_source_is_charged_once(cast) -> None:
    charge = line()
    assert services.settle_calls([(cast.tenant.id, charge)]) == {charge.source}
    assert services.settle_calls([(cast.tenant.id, charge)]) == set()
    assert total(cast.tenant) == {"requests": 1, "units": 2}


def test_usage_and_void_compete_and_one_wins(cast) -> None:
    """Fifty calls, each charged and given up at the same moment: never both."""

    def race(charge: services.UsageLine) -> tuple[bool, bool]:
        void = line(charge.source, kind="void", quantity=0, units=0, requests=0)
        with ThreadPoolExecutor(2) as pool:
            charged = pool.submit(closing(lambda: bool(services.settle_calls([(cast.tenant.id, charge)]))))
            voided = pool.submit(closing(lambda: services.void_call(cast.tenant, void)))
            return charged.result(), voided.result()

    outcomes = [race(line()) for _ in range(50)]
    assert all(charged != voided for charged, voided in outcomes)
    assert total(cast.tenant)["requests"] == sum(charged for charged, _ in outcomes)


def closing(work):
    def run():
        try:
            return work()
        finally:
            connection.close()

    return run


def test_a_charge_can_be_taken_back_once(cast) -> None:
    charge = line()
    services.settle_calls([(cast.tenant.id, charge)])
    services.reverse_call(cast.tenant, charge.source)
    services.reverse_call(cast.tenant, charge.source)
    assert total(cast.tenant) == {"requests": 0, "units": 0}


@pytest.mark.parametrize("statement", ["UPDATE usage_usagerecord SET units = 0", "DELETE FROM usage_usagerecord"])
def test_the_ledger_is_append_only(cast, statement) -> None:
    services.settle_calls([(cast.tenant.id, line())])
    with pytest.raises(ProgrammingError, match="permission denied"), as_tenant(cast.tenant.id), connection.cursor() as cursor:
        cursor.execute(statement)


def test_the_roll_up_equals_the_ledger_and_can_run_again(cast) -> None:
    services.settle_calls([(cast.tenant.id, line(units=n, model=f"m{n % 2}")) for n in range(10)])
    services.roll_up()
    first = services.daily_series(cast.tenant)
    services.roll_up()
    assert services.daily_series(cast.tenant) == first
    assert sum(row["units"] for row in first) == total(cast.tenant)["units"] == 45


def test_the_report_groups_and_keeps_tenants_apart(cast) -> None:
    services.settle_calls([(cast.tenant.id, line(key_id=cast.key.row.id)), (cast.other.id, line())])
    rows = client_for(cast.key).get("/v1/usage?group_by=model,key").json()["data"]
    assert rows == [{"model": "m", "key": f"key_{cast.key.row.id.hex}", "unit": "token", "requests": 1, "quantity": 400, "units": 2}]


def test_the_report_comes_as_csv(cast) -> None:
    services.settle_calls([(cast.tenant.id, line())])
    answer = client_for(cast.key).get("/v1/usage?group_by=model", HTTP_ACCEPT="text/csv")
    assert answer["Content-Type"].startswith("text/csv")
    assert answer.content.decode() == "model,unit,requests,quantity,units\nm,token,1,400,2\n"


def test_days_are_utc(cast) -> None:
    services.settle_calls([(cast.tenant.id, line())])
    row = client_for(cast.key).get("/v1/usage").json()["data"][0]
    assert row["day"] == datetime.now(UTC).date().isoformat()


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("group_by=colour", "group_by"), ("start=yesterday", "start"), ("end=99999999999999999999", "end"),
        ("start=2026-01-02&end=2026-01-01", "end"), ("start=2020-01-01&end=2026-01-01", "start"), ("start=%00", "start"),
    ],
)  # fmt: skip
def test_bad_reports_name_the_field(cast, query, param) -> None:
    answer = client_for(cast.key).get(f"/v1/usage?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_records_of_a_void_are_not_counted_as_requests(cast) -> None:
    services.void_call(cast.tenant, line(kind="void", quantity=0, units=0, requests=0))
    assert total(cast.tenant) == {"requests": 0, "units": 0}
    with as_tenant(cast.tenant.id):
        assert UsageRecord.objects.count() == 1
