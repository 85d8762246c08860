"""The comparison with the wallet on request: in parts, within a time limit, one at a time; its result is a metric."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import isnan
from pathlib import Path
from typing import Any

import pytest

from app.domain import command as do
from app.domain.errors import InvalidRequest, Unavailable
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.store import Store
from app.wallet.answers import Escrow, EscrowAnswer, EscrowStatus, NoEscrow, Retry
from app.wallet.breaker import Breaker
from app.wallet.comparison import REQUESTS_AT_ONCE
from app.wallet.wallet_check import Part, WalletChecks
from tests.support.builders import PERFORMER
from tests.support.server import Json, fresh, ok, problem
from tests.support.stores import HandClock, build_writer, new_id, queue_item, send, start_of
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import store_fixture as store_fixture
from tests.support.wallet_harness import (  # noqa: F401 - fixtures
    AWAY,
    WELL,
    Money,
    WalletServer,
    clock_fixture,
    money,
    wallet_fixture,
)

pytestmark = pytest.mark.anyio
PATH = "/v1/admin/wallet-check"
ITEMS = 40
"""Three steps of REQUESTS_AT_ONCE."""

Answer = Callable[[str, str], Awaitable[EscrowAnswer]]


class Asked:
    """A wallet with the answers to look-ups that a test wants."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.under_way = 0
        self.most_at_once = 0

    async def escrow(self, user_id: str, escrow_id: str) -> EscrowAnswer:
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        await asyncio.sleep(0)
        try:
            return await self.answer(user_id, escrow_id)
        finally:
            self.under_way -= 1


def held(user_id: str, escrow_id: str, status: EscrowStatus = EscrowStatus.HELD) -> Escrow:
    return Escrow(escrow_id=escrow_id, user_id=user_id, amount=100, status=status)


async def agrees(user_id: str, escrow_id: str) -> EscrowAnswer:
    return held(user_id, escrow_id)


@asynccontextmanager
async def checking(store: Store, wallet: Asked, **options: Any) -> AsyncIterator[WalletChecks]:
    clock = HandClock()
    async with Lanes(store, clock, new_id, lambda outcomes: None) as lanes:
        queries = Queries(store, lanes)
        settings = {"breaker": Breaker(), "seconds": 5.0, **options}
        yield WalletChecks(queries=queries, lanes=lanes, wallet=wallet, clock=clock, **settings)
        queries.close()


async def all_parts(checks: WalletChecks) -> list[Part]:
    parts = [await checks.part(None)]
    while (place := parts[-1].next) is not None:
        parts.append(await checks.part(str(place)))
    return parts


async def test_a_long_comparison_comes_in_parts_and_is_recorded_at_its_end(store: Store) -> None:
    writer = build_writer(store)
    items = [queue_item(writer, tokens=100, performer_id=f"star-{number}") for number in range(ITEMS)]
    unknown = {items[3].escrow_transaction_id, items[-1].escrow_transaction_id}

    async def answer(user_id: str, escrow_id: str) -> EscrowAnswer:
        return NoEscrow() if escrow_id in unknown else held(user_id, escrow_id)

    wallet = Asked(answer)
    async with checking(store, wallet, most_differences=0) as checks:
        parts = await all_parts(checks)
        assert [part.examined for part in parts] == [16, 32, 40]
        assert [part.different for part in parts] == [1, 1, 2]
        assert [each.item.item_id for part in parts for each in part.differences] == [
            items[3].item_id,
            items[-1].item_id,
        ]
        last = await checks.last()
        assert last is not None
        assert (last.examined, last.different) == (40, 2)
    assert wallet.most_at_once <= REQUESTS_AT_ONCE


async def test_nothing_is_recorded_before_the_last_part(store: Store) -> None:
    writer = build_writer(store)
    for number in range(ITEMS):
        queue_item(writer, performer_id=f"star-{number}")
    async with checking(store, Asked(agrees), most_differences=0) as checks:
        assert (await checks.part(None)).next is not None
        assert await checks.last() is None


async def test_an_item_that_ends_while_the_wallet_is_asked_is_no_difference(store: Store) -> None:
    writer = build_writer(store)
    item = queue_item(writer, tokens=100)

    async def answer(user_id: str, escrow_id: str) -> EscrowAnswer:
        if item.status == "created" and not ended:
            ended.append(send(writer, start_of(item)))
            send(writer, do.Complete(actor=PERFORMER, item_id=item.item_id))
        return held(user_id, escrow_id, EscrowStatus.SETTLED)

    ended: list[object] = []
    async with checking(store, Asked(answer)) as checks:
        part = await checks.part(None)
    assert (part.examined, part.different) == (1, 0)


async def test_only_one_comparison_is_under_way_and_its_time_is_bounded(store: Store) -> None:
    queue_item(build_writer(store))
    asked = asyncio.Event()

    async def silent(user_id: str, escrow_id: str) -> EscrowAnswer:
        asked.set()
        await asyncio.Event().wait()
        return NoEscrow()

    async with checking(store, Asked(silent), seconds=0.3) as checks:
        first = asyncio.create_task(checks.part(None))
        await asked.wait()
        with pytest.raises(Unavailable, match="under way"):
            await checks.part(None)
        with pytest.raises(Unavailable, match="wallet cannot be asked"):
            await first
        assert await checks.last() is None
        with pytest.raises(Unavailable, match="wallet cannot be asked"):
            await checks.part(None)


async def test_a_wallet_that_is_away_is_no_difference(store: Store) -> None:
    queue_item(build_writer(store))

    async def away(user_id: str, escrow_id: str) -> EscrowAnswer:
        return Retry(problem="no connection")

    async with checking(store, Asked(away)) as checks:
        with pytest.raises(Unavailable):
            await checks.part(None)
        assert await checks.last() is None


@pytest.mark.parametrize("place", ["", "1.2.3", "a.b.c.d", "1.2.3.4.5", "1.2.3." + "x" * 65, "9" * 200])
async def test_a_place_that_was_not_given_is_refused(store: Store, place: str) -> None:
    async with checking(store, Asked(agrees)) as checks:
        with pytest.raises(InvalidRequest):
            await checks.part(place)


# Over HTTP


async def gauges(site: Money) -> dict[str, float]:
    text = (await site.api.get("/metrics")).text
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("queue_wallet_"))
    return {name: float(value) for name, value in pairs}


async def test_administrators_compare_and_every_scrape_shows_the_result_with_its_age(
    tmp_path: Path, wallet: WalletServer, clock: HandClock
) -> None:
    async with money(tmp_path, wallet, clock) as site:
        item = await site.queued(fresh("star"))
        never: Json = {"comparedAt": None, "examined": None, "different": None}
        assert ok(await site.api.get(PATH, site.server.admin)) == never
        assert isnan((await gauges(site))["queue_wallet_differences"])
        agreed = ok(await site.api.post(PATH, site.server.admin, {}))
        assert agreed == {"differences": [], "examined": 1, "different": 0, "next": None}
        assert (await gauges(site))["queue_wallet_differences"] == 0
        wallet.resolve(item, settle=0, refund=100)
        differs = ok(await site.api.post(PATH, site.server.admin, {}))
        (difference,) = differs["differences"]
        assert difference == {
            "itemId": item["itemId"],
            "performerId": item["performerId"],
            "escrowTransactionId": item["escrowTransactionId"],
            "problem": "created, payment none here, refunded at the wallet",
        }
        clock.wait(90)
        shown = await gauges(site)
        assert shown["queue_wallet_differences"] == 1
        assert shown["queue_wallet_check_age_seconds"] == pytest.approx(90, abs=1)
        last = ok(await site.api.get(PATH, site.server.admin))
        assert (last["examined"], last["different"]) == (1, 1)


async def test_a_comparison_that_cannot_be_made_keeps_the_last_result(
    tmp_path: Path, wallet: WalletServer, clock: HandClock
) -> None:
    async with money(tmp_path, wallet, clock) as site:
        await site.queued(fresh("star"))
        ok(await site.api.post(PATH, site.server.admin, {}))
        wallet.faults.rates = AWAY
        refusal = problem(await site.api.post(PATH, site.server.admin, {}), 503, "UNAVAILABLE")
        assert refusal["retryAfterSeconds"] >= 1
        assert (await gauges(site))["queue_wallet_differences"] == 0
        wallet.faults.rates = WELL
        problem(await site.api.post(PATH, site.server.admin, {"next": "nonsense"}), 422, "VALIDATION_ERROR")
        for token in (None, site.server.feature(), site.server.performer("mira")):
            response = await site.api.post(PATH, token, {})
            assert response.status_code in (401, 403)
