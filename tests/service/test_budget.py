"""One account of memory: what fits, what is refused, what is kept for small requests."""

from __future__ import annotations

import pytest

from service.budget import SMALL_BYTES, Account, Budget
from service.errors import TooManyBytes
from service.exchange import Exchange
from service.settings import MiB, parse

LIMIT = 16 * SMALL_BYTES


def test_large_requests_leave_an_eighth_to_small_ones():
    budget = Budget(LIMIT)
    large = [Exchange(str(i), budget) for i in range(8)]
    for each in large[:7]:
        each.hold(2 * SMALL_BYTES)
    with pytest.raises(TooManyBytes) as caught:
        large[7].hold(2 * SMALL_BYTES)
    assert caught.value.retry_after_s == 1
    small = [Exchange(str(i), budget) for i in range(3)]
    small[0].hold(SMALL_BYTES)
    small[1].hold(SMALL_BYTES)
    with pytest.raises(TooManyBytes):
        small[2].hold(1)
    assert budget.held == LIMIT
    for each in (*large, *small):
        each.release()
    assert budget.held == 0


def test_a_request_that_grows_is_not_small_for_ever():
    """A body in chunks takes its bytes in small pieces."""
    budget = Budget(LIMIT)
    first, second = Exchange("a", budget), Exchange("b", budget)
    first.hold(13 * SMALL_BYTES)
    second.hold(SMALL_BYTES // 2)
    second.hold(SMALL_BYTES // 2)
    with pytest.raises(TooManyBytes):
        second.hold(SMALL_BYTES // 2)
    assert second.body_bytes == SMALL_BYTES
    first.release()
    second.release()
    assert budget.held == 0


def test_an_account_says_what_it_holds_and_keeps_that_when_there_is_no_more():
    budget = Budget(LIMIT)
    account, other = Account(budget), Account(budget)
    account.take(100)
    account.take(300)
    other.take(LIMIT // 2)
    assert (account.held, budget.held) == (300, LIMIT // 2 + 300)
    with pytest.raises(TooManyBytes):
        account.take(LIMIT // 2)
    assert (account.held, budget.held) == (300, LIMIT // 2 + 300)
    account.owe(LIMIT)  # what is there already is counted, whatever room there is
    assert budget.held == LIMIT + LIMIT // 2
    account.owe(0)
    other.take(0)
    assert budget.held == 0
    free = Account(None)
    free.take(LIMIT)
    assert free.held == 0


def test_the_default_fits_the_largest_request():
    settings = parse((), {})
    assert settings.max_in_flight_bytes is None
    turned = 8 * settings.max_image_pixels + settings.max_body_bytes
    Exchange("a", budget := Budget(settings.budget_bytes)).hold(1)  # so that none is alone
    assert budget.has_room(turned - 1)
    assert not budget.has_room(budget.limit)
    assert parse(("--max-image-pixels", "1000000"), {}).budget_bytes == 256 * MiB
    assert parse(("--max-in-flight-bytes", "1000"), {}).budget_bytes == 1000
    more = parse(("--max-body-bytes", str(1024 * MiB)), {})
    assert more.budget_bytes > 1024 * MiB
