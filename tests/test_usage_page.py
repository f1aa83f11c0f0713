"""The usage page: how near the limits are, what was used at which price, in each of its states."""

import pytest

from apps.billing import budgets, credits
from apps.billing.plans import plan_of
from apps.dashboard import money
from apps.files import services as files
from tests.cast import Cast, browser_for
from tests.money import on_plan, use
from tests.test_billing_pages import plain

DOLLAR = 1_000_000


def read(cast: Cast, address: str = "/usage") -> str:
    answer = browser_for(cast.owner).get(address)
    assert answer.status_code == 200
    return plain(answer)


def test_nothing_yet_shows_the_limits_and_where_to_begin(cast: Cast) -> None:
    on_plan(cast.tenant, "free")
    text = read(cast)
    assert "No calls in" in text and "Try a model" in text and "0 of 10,000" in text


def test_meters_show_units_budget_credit_rate_and_files(cast: Cast) -> None:
    on_plan(cast.tenant, "team")
    budgets.set_budget(cast.tenant, scope="tenant", amount=100 * DOLLAR)
    credits.grant_credit(cast.tenant, amount=2 * DOLLAR, reason="welcome")
    files.create_file(cast.tenant, filename="a.jsonl", purpose="batch", chunks=[b"x" * 4100])
    use(cast.tenant, 258_297)
    text = read(cast)
    assert "250,000 of 250,000" in text and "8,297 more at $0.30 per 1,000" in text
    assert "$2.4891 of $100" in text and "calls stop at $100" in text
    assert "of 1,200 requests a minute" in text and "4.1 KB of 50 GB" in text and "Credit used" in text


@pytest.mark.parametrize("by", ["model", "key", "day"])
def test_each_line_has_its_list_price(cast: Cast, by: str) -> None:
    on_plan(cast.tenant, "team")
    use(cast.tenant, 41, model="a", key_id=cast.key.row.id)
    use(cast.tenant, 1_000, model="b")
    text, price = read(cast, f"/usage?by={by}"), plan_of("team").unit_price
    assert money.exact(1_041 * price) == "$0.3123" and "$0.3123" in text
    assert by == "day" or ("$0.0123" in text and "$0.30" in text)


def test_without_prices_there_is_no_price(cast: Cast) -> None:
    use(cast.tenant, 41)
    text = read(cast)
    assert "List price" not in text and "41 used, no limit" in text


def test_a_month_that_is_over_shows_no_limits(cast: Cast) -> None:
    on_plan(cast.tenant, "free")
    from apps.dashboard.views.usage import _months

    assert "Rate now" not in read(cast, f"/usage?month={_months()[1][0]}")


def test_near_the_limit_it_says_how_much_is_left(cast: Cast) -> None:
    on_plan(cast.tenant, "free")
    use(cast.tenant, 9_000)
    text = read(cast)
    assert "90% of the plan's units are used." in text and "After 1,000 more, calls get 402" in text


def test_a_viewer_sees_limits_and_prices_but_no_way_to_change_them(cast: Cast) -> None:
    on_plan(cast.tenant, "team")
    use(cast.tenant, 10)
    page = browser_for(cast.viewer).get("/usage")
    assert "List price" in plain(page) and 'href="/billing"' not in page.content.decode()


def test_another_organisation_sees_nothing_of_it(cast: Cast) -> None:
    on_plan(cast.tenant, "team")
    on_plan(cast.other, "team")
    use(cast.tenant, 54_321)
    assert "54,321" not in plain(browser_for(cast.stranger).get("/usage"))


def test_the_export_is_there_for_what_is_shown(cast: Cast) -> None:
    use(cast.tenant, 54_321)
    page = browser_for(cast.owner).get("/usage").content.decode()
    address = page.split('download="usage-')[0].rsplit('href="', 1)[1].split('"')[0].replace("&amp;", "&")
    answer = browser_for(cast.owner).get(address)
    assert answer.status_code == 200 and "54321" in b"".join(answer).decode()
