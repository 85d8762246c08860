"""Money over HTTP and sockets: the wallet executes the queue's decisions, and all clients and both databases agree."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.sandbox.faults import FaultRates
from app.sandbox.ledger import HoldStatus
from app.sandbox.ledger_audit import LedgerTotals
from tests.support.server import Json, fresh, intake_body, ok, problem, serving
from tests.support.stores import HandClock
from tests.support.wallet_harness import AWAY, WELL, Money, WalletServer, money
from tests.support.wallet_harness import clock_fixture as clock_fixture
from tests.support.wallet_harness import wallet_fixture as wallet_fixture

pytestmark = pytest.mark.anyio


@pytest.fixture
async def site(tmp_path: Path, wallet: WalletServer, clock: HandClock) -> AsyncIterator[Money]:
    async with money(tmp_path, wallet, clock, wallet_max_attempts=2) as site:
        yield site


def books(*, available: int = 0, escrow: int = 0, earned: int = 0) -> LedgerTotals:
    return LedgerTotals(granted=available + escrow + earned, available=available, escrow=escrow, earned=earned)


# The three ways an escrow can go


async def test_a_performance_is_settled(site: Money, performer_id: str) -> None:
    async with site.watching(performer_id) as screen:
        item = await site.finished(performer_id)
        assert (item["status"], item["settled"], item["walletStatus"]) == ("finished", False, "pending")
        settled = await screen.sees(item, "queue.item.settled")
        assert settled["settled"]
        assert (settled["settledTokens"], settled["refundedTokens"], settled["walletStatus"]) == (100, None, "done")
        assert settled["settlementTransactionId"]
        assert settled["settledAt"]
        assert await site.item(item) == settled
    assert site.wallet.books == books(earned=100)
    assert site.wallet.escrow(item).queue_item_id == item["itemId"]
    operation = await site.operation(item)
    assert (operation["kind"], operation["status"], operation["attempts"]) == ("settle", "done", 1)
    assert (operation["lastProblem"], operation["nextAttemptAt"]) == (None, None)


async def test_a_part_of_a_performance_is_split(site: Money, performer_id: str) -> None:
    async with site.watching(performer_id) as screen:
        item = await site.finished(performer_id, refund_tokens=30)
        split = await screen.sees(item, "queue.item.settled")
    assert (split["status"], split["settled"], split["settledTokens"], split["refundedTokens"]) == (
        "finished",
        True,
        70,
        30,
    )
    assert split["settlementTransactionId"] == split["refundTransactionId"]
    assert site.wallet.books == books(available=30, earned=70)


async def test_an_abandoned_item_is_refunded_when_the_wallet_has_confirmed(site: Money, performer_id: str) -> None:
    async with site.watching(performer_id) as screen:
        item = await site.queued(performer_id)
        site.wallet.faults.rates = AWAY
        abandoned = await site.api.command("abandon", item, {"reason": "technical_error"})
        assert (abandoned["status"], abandoned["refundedAt"], abandoned["walletStatus"]) == (
            "abandoned",
            None,
            "pending",
        )
        await screen.sees(item, walletStatus="retrying")
        assert (await site.item(item))["status"] == "abandoned"
        site.wallet.faults.rates = WELL
        site.clock.wait(5)
        refunded = await screen.sees(item, "queue.item.refunded")
    assert (refunded["status"], refunded["walletStatus"], refunded["refundedTokens"]) == ("refunded", "done", 100)
    assert (refunded["abandonReason"], refunded["refundReason"]) == ("technical_error", "technical_error")
    assert refunded["refundTransactionId"]
    assert site.wallet.books == books(available=100)


@pytest.mark.parametrize("status", ["created", "started"])
async def test_a_refund_by_name_is_immediate_and_the_wallet_follows(
    site: Money, performer_id: str, status: str
) -> None:
    async with site.watching(performer_id) as screen:
        item = await (site.queued(performer_id) if status == "created" else site.started(performer_id))
        site.wallet.faults.rates = AWAY
        refunded = await site.refund(item, "technical_error")
        assert (refunded["status"], refunded["walletStatus"], refunded["refundedTokens"]) == (
            "refunded",
            "pending",
            None,
        )
        await screen.sees(item, walletStatus="retrying", status="refunded")
        site.wallet.faults.rates = WELL
        site.clock.wait(5)
        confirmed = await screen.sees(item, walletStatus="done")
    assert (confirmed["status"], confirmed["refundedTokens"]) == ("refunded", 100)
    assert confirmed["refundReason"] == "technical_error"
    assert confirmed["refundedAt"] == refunded["refundedAt"]
    assert site.wallet.books == books(available=100)


async def test_an_abandoned_item_may_be_refunded_by_name_and_is_paid_back_once(site: Money, performer_id: str) -> None:
    async with site.watching(performer_id) as screen:
        item = await site.queued(performer_id)
        site.wallet.faults.rates = AWAY
        await site.api.command("abandon", item)
        await screen.sees(item, walletStatus="retrying")
        refunded = await site.refund(item)
        assert (refunded["status"], refunded["refundReason"]) == ("refunded", "admin_refund")
        site.wallet.faults.rates = WELL
        site.clock.wait(5)
        await screen.sees(item, walletStatus="done")
    assert site.wallet.books == books(available=100)


async def test_items_that_pass_through_are_settled(site: Money, performer_id: str) -> None:
    async with site.watching(performer_id) as screen:
        item = await site.queued(performer_id, queueMode="off")
        await screen.sees(item, "queue.item.settled")
    assert site.wallet.books == books(earned=100)


# The window in which a finished item may still be refunded


async def test_within_the_delay_a_refund_takes_the_settlements_place(
    tmp_path: Path, wallet: WalletServer, clock: HandClock, performer_id: str
) -> None:
    async with money(tmp_path, wallet, clock, settle_delay_seconds=60) as site, site.watching(performer_id) as screen:
        item = await site.finished(performer_id)
        clock.wait(59)
        assert (await site.item(item))["walletStatus"] == "pending"
        settlement = await site.operation(item)
        assert (settlement["kind"], settlement["attempts"]) == ("settle", 0)
        refunded = await site.refund(item)
        assert (refunded["status"], refunded["settled"], refunded["refundReason"]) == (
            "refunded",
            False,
            "admin_refund",
        )
        await screen.sees(item, walletStatus="done")
        clock.wait(120)
        # The same row, so that nothing is left that could still settle.
        refund = await site.operation(item)
        assert (refund["id"], refund["kind"], refund["status"]) == (settlement["id"], "refund", "done")
    assert wallet.books == books(available=100)


async def test_after_the_delay_it_is_settled_and_no_longer_refunded(
    tmp_path: Path, wallet: WalletServer, clock: HandClock, performer_id: str
) -> None:
    async with money(tmp_path, wallet, clock, settle_delay_seconds=60) as site, site.watching(performer_id) as screen:
        item = await site.finished(performer_id)
        wallet.faults.rates = AWAY
        clock.wait(60)
        await screen.sees(item, walletStatus="retrying")
        path = f"/v1/queue/items/{item['itemId']}/refund"
        refusal = problem(
            await site.api.post(path, site.server.admin, {"reason": "admin_refund"}), 409, "INVALID_STATE_TRANSITION"
        )
        assert "already been sent to the wallet" in refusal["detail"]
        wallet.faults.rates = WELL
        clock.wait(5)
        settled = await screen.sees(item, "queue.item.settled")
        assert settled["status"] == "finished"
        problem(
            await site.api.post(path, site.server.admin, {"reason": "admin_refund"}), 409, "INVALID_STATE_TRANSITION"
        )
    assert wallet.books == books(earned=100)


# Dead letters


@pytest.fixture
async def dead(site: Money, performer_id: str) -> Json:
    """A finished item whose settlement is dead because the wallet failed; the escrow is still held."""
    return await given_up(site, performer_id, AWAY)


async def given_up(site: Money, performer_id: str, rates: FaultRates) -> Json:
    async with site.watching(performer_id) as screen:
        item = await site.started(performer_id)
        site.wallet.faults.rates = rates
        await site.api.command("complete", item)
        await screen.sees(item, walletStatus="retrying")
        site.clock.wait(5)
        item = await screen.sees(item, walletStatus="dead")
    site.wallet.faults.rates = WELL
    return item


async def test_a_dead_operation_is_listed_with_its_problem(site: Money, dead: Json) -> None:
    assert (dead["status"], dead["settled"]) == ("finished", False)
    listing = ok(await site.api.get("/v1/admin/wallet-operations?status=dead", site.server.admin))
    (operation,) = listing["operations"]
    assert listing["total"] == 1
    assert (operation["itemId"], operation["escrowTransactionId"]) == (dead["itemId"], dead["escrowTransactionId"])
    assert (operation["status"], operation["attempts"], operation["nextAttemptAt"]) == ("dead", 2, None)
    assert operation["lastProblem"].startswith("the wallet answered ")
    assert site.wallet.escrow(dead).status is HoldStatus.HELD


async def test_a_dead_operation_whose_escrow_is_still_held_is_sent_again(
    site: Money, performer_id: str, dead: Json
) -> None:
    async with site.watching(performer_id) as screen:
        operation = await site.operation(dead)
        retried = ok(await site.retry(operation))
        assert retried["id"] == operation["id"]
        await screen.sees(dead, "queue.item.settled")
    assert (await site.operation(dead))["status"] == "done"
    assert site.wallet.books == books(earned=100)


async def test_a_retry_is_one_under_its_key(site: Money, performer_id: str, dead: Json) -> None:
    async with site.watching(performer_id) as screen:
        operation, key = await site.operation(dead), fresh("key")
        first = await site.retry(operation, key=key)
        again = await site.retry(operation, key=key)
        assert (first.status_code, again.status_code) == (200, 200)
        assert "Idempotent-Replayed" not in first.headers
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.json()["id"] == operation["id"]
        await screen.sees(dead, "queue.item.settled")
        ok(await site.retry(operation, key=key))
    problem(await site.retry(operation), 409, "INVALID_STATE_TRANSITION")
    assert site.wallet.books == books(earned=100)


async def test_an_escrow_resolved_our_way_meanwhile_is_confirmed_and_not_ordered_again(
    site: Money, performer_id: str
) -> None:
    # The wallet executes the order, and all its answers are lost.
    dead = await given_up(site, performer_id, FaultRates(lost_answer=1.0))
    assert site.wallet.escrow(dead).status is HoldStatus.SETTLED
    # Were it sent again, it would fail; a look-up is all that is needed.
    requests = sum(site.wallet.faults.injected.values())
    operation = ok(await site.retry(await site.operation(dead)))
    assert operation["status"] == "done"
    settled = await site.item(dead)
    assert (settled["settled"], settled["walletStatus"], settled["settledTokens"]) == (True, "done", 100)
    # The escrow's status does not tell under which transaction.
    assert settled["settlementTransactionId"] is None
    assert sum(site.wallet.faults.injected.values()) == requests
    assert site.wallet.books == books(earned=100)


async def test_an_operation_whose_escrow_was_resolved_another_way_stays_dead(site: Money, dead: Json) -> None:
    site.wallet.resolve(dead, settle=0, refund=100)
    refusal = problem(await site.retry(await site.operation(dead)), 409, "INVALID_STATE_TRANSITION")
    assert "resolved another way" in refusal["detail"]
    assert refusal["item"]["itemId"] == dead["itemId"]
    assert (await site.operation(dead))["status"] == "dead"
    assert site.wallet.books == books(available=100)


async def test_a_retry_while_the_wallet_is_away_waits_like_any_other(
    site: Money, performer_id: str, dead: Json
) -> None:
    async with site.watching(performer_id) as screen:
        site.wallet.faults.rates = AWAY
        operation = ok(await site.retry(await site.operation(dead)))
        assert operation["attempts"] in (0, 1)
        await screen.sees(dead, walletStatus="pending")
        await screen.sees(dead, walletStatus="retrying")
        site.wallet.faults.rates = WELL
        site.clock.wait(5)
        await screen.sees(dead, "queue.item.settled")
    assert site.wallet.books == books(earned=100)


# The hold check; the rest of it is in the tests of `actions`


async def test_an_escrow_that_has_been_resolved_holds_nothing_any_more(
    tmp_path: Path, wallet: WalletServer, clock: HandClock, performer_id: str
) -> None:
    async with money(tmp_path, wallet, clock, wallet_verify_holds=True) as site:
        body = intake_body(performer_id, userId="ada", escrowTransactionId=wallet.hold("ada", 100))
        wallet.resolve({**body, "itemId": "another"}, settle=0, refund=100)
        refused = await site.api.post("/v1/queue/items", site.server.feature(), body)
        problem(refused, 422, "ESCROW_NOT_FOUND")
        item = await site.queued(performer_id)
        wallet.faults.rates = AWAY
        unsure = intake_body(performer_id, userId="ada", escrowTransactionId=wallet.hold("ada", 100))
        problem(await site.api.post("/v1/queue/items", site.server.feature(), unsure), 503, "UNAVAILABLE")
        assert [each["itemId"] for each in (await site.api.queue(performer_id))["items"]] == [item["itemId"]]
        wallet.faults.rates = WELL
        ok(await site.api.post("/v1/queue/items", site.server.feature(), unsure), 201)


# A wallet that is away for long


async def test_while_the_breaker_is_open_the_queue_goes_on_and_everybody_can_see_it(
    tmp_path: Path, wallet: WalletServer, clock: HandClock, performer_id: str
) -> None:
    # Pauses have full jitter: one of less than a millisecond would be a further failure before the last of the five.
    pauses = {"wallet_retry_base_seconds": 50, "wallet_retry_max_seconds": 50}
    async with (
        money(tmp_path, wallet, clock, wallet_max_attempts=3, **pauses) as site,
        site.watching(performer_id) as screen,
    ):
        assert await health(site) == (200, "ok", "ok", "closed")
        items = [await site.finished(performer_id) for _ in range(3)]
        for item in items:
            await screen.sees(item, "queue.item.settled")
        wallet.faults.rates = AWAY
        items = [await site.finished(performer_id) for _ in range(5)]
        for item in items:
            await screen.sees(item, walletStatus="retrying")
        # Five failures in a row have opened it: the process is well, what it needs is not.
        assert await health(site) == (200, "degraded", "degraded", "open")
        waiting = await site.finished(performer_id)
        assert (await site.queued(performer_id))["status"] == "created"
        assert (await site.operation(waiting))["attempts"] == 0
        assert sum(wallet.faults.injected.values()) == 5

        wallet.faults.rates = WELL
        clock.wait(60)
        for item in (*items, waiting):
            await screen.sees(item, "queue.item.settled")
        assert await health(site) == (200, "ok", "ok", "closed")
    assert wallet.books == books(escrow=100, earned=900)


async def health(site: Money) -> tuple[int, str, str, str]:
    """The status of /readyz, its words as a whole and about the wallet, and the breaker's state in /metrics."""
    ready = await site.api.get("/readyz")
    document = ready.json()
    lines = (await site.api.get("/metrics")).text.splitlines()
    (state,) = [line for line in lines if line.startswith("queue_wallet_breaker{") and line.endswith(" 1.0")]
    return ready.status_code, document["status"], document["checks"]["wallet"], state.split('"')[1]


async def test_a_waiting_operation_survives_a_restart_and_is_settled_once(
    tmp_path: Path, wallet: WalletServer, clock: HandClock, performer_id: str
) -> None:
    async with money(tmp_path, wallet, clock) as site, site.watching(performer_id) as screen:
        wallet.faults.rates = FaultRates(lost_answer=1.0)
        item = await site.finished(performer_id)
        await screen.sees(item, walletStatus="retrying")
        attempts = (await site.operation(item))["attempts"]
    wallet.faults.rates = WELL
    async with money(tmp_path, wallet, clock) as site, site.watching(performer_id) as screen:
        before = await site.operation(item)
        assert before["attempts"] >= attempts
        clock.wait(5)
        if (await site.item(item))["walletStatus"] != "done":
            await screen.sees(item, "queue.item.settled")
        settled = await site.item(item)
    assert settled["settlementTransactionId"]
    assert wallet.books == books(earned=100)


# The wallet that is built in


async def test_with_the_sandbox_built_in_made_up_escrows_settle_and_refund(tmp_path: Path, performer_id: str) -> None:
    with serving(tmp_path, settle_delay_seconds=0) as server:
        async with server.api() as api, server.live(performer_id, server.admin) as live:
            await live.until("snapshot")
            sung = await api.intake(performer_id, userId="ada")
            missing = await api.get(f"/sandbox/wallets/ada/escrow/{sung['escrowTransactionId']}")
            assert missing.status_code == 404
            await api.command("complete", await api.command("start", sung))
            await live.until(lambda frame: shows(frame, sung, settled=True))
            given_up = await api.intake(performer_id, userId="ada", tokens=40)
            await api.command("abandon", given_up)
            await live.until(lambda frame: shows(frame, given_up, status="refunded"))
            shown = ok(await api.get("/sandbox/books"))
            assert shown == {"granted": 140, "available": 40, "escrow": 0, "earned": 100, "balanced": True}
            assert ok(await api.get("/sandbox/users/ada"))["availableBalance"] == 40


def shows(frame: Json, item: Json, **fields: object) -> bool:
    return any(
        event["itemId"] == item["itemId"] and fields.items() <= event["item"].items()
        for event in frame.get("events", ())
    )
