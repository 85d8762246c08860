"""Payments that an administrator ends: retried now, all at once, settled, refunded, written off."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.sandbox.ledger import HoldStatus
from app.store.engines import open_engines
from app.store.migrating import migrate
from tests.support.server import Json, fresh, ok, problem
from tests.support.stores import HandClock
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
PATH = "/v1/admin/wallet-operations"


@pytest.fixture
def performer_id() -> str:
    return fresh("star")


@pytest.fixture(params=["sqlite", "postgresql"])
async def site(
    request: pytest.FixtureRequest, tmp_path: Path, wallet: WalletServer, clock: HandClock
) -> AsyncIterator[Money]:
    settings: dict[str, Any] = {"wallet_max_attempts": 1}
    if request.param == "postgresql":
        settings["database_url"] = url = request.getfixturevalue("postgres_url")
        engines = open_engines(url)
        migrate(engines.writer)
        engines.dispose()
    async with money(tmp_path, wallet, clock, **settings) as site:
        yield site


async def given_up(site: Money, performer_id: str, *, abandon: bool = False, refund_tokens: int | None = None) -> Json:
    """An item whose operation has used its only attempt while the wallet was away; the wallet works again."""
    async with site.watching(performer_id) as screen:
        site.wallet.faults.rates = AWAY
        if abandon:
            item = await site.api.command("abandon", await site.started(performer_id))
        else:
            item = await site.finished(performer_id, refund_tokens=refund_tokens)
        await screen.sees(item, walletStatus="dead")
        site.wallet.faults.rates = WELL
    return item


async def resolve(site: Money, item: Json, resolution: str, **options: Any) -> Any:
    operation = await site.operation(item)
    body = {"resolution": resolution, "reason": "the user has been told"}
    return await site.api.post(f"{PATH}/{operation['id']}/resolve", site.server.admin, body, **options)


async def events_of(site: Money, item: Json) -> list[Json]:
    log = ok(await site.api.get(f"/v1/events?performerId={item['performerId']}&limit=100", site.server.admin))
    return [event for event in log["events"] if event["itemId"] == item["itemId"]]


@pytest.mark.parametrize("ordered", ["settle", "refund", "partial"])
@pytest.mark.parametrize("resolution", ["settle", "refund"])
async def test_a_dead_operation_over_a_held_escrow_ends_as_it_was_resolved(
    site: Money, performer_id: str, ordered: str, resolution: str
) -> None:
    dead = await given_up(
        site, performer_id, abandon=ordered == "refund", refund_tokens=30 if ordered == "partial" else None
    )
    async with site.watching(performer_id) as screen:
        operation = ok(await resolve(site, dead, resolution))
        assert operation["kind"] == resolution
        after = await screen.sees(dead, walletStatus="done")
    books = site.wallet.books
    if resolution == "settle":
        assert (after["settled"], after["settledTokens"], after["refundedTokens"]) == (True, 100, None)
        assert (books.earned, books.available) == (100, 0)
    else:
        assert (after["status"], after["settled"], after["refundedTokens"]) == ("refunded", False, 100)
        assert (books.earned, books.available) == (0, 100)
    assert (await site.operation(dead))["status"] == "done"


async def test_a_resolution_is_an_event_and_a_line_of_the_audit_trail_with_who_and_why(
    site: Money, performer_id: str
) -> None:
    dead = await given_up(site, performer_id)
    ok(await resolve(site, dead, "written_off"))
    event = (await events_of(site, dead))[-1]
    assert event["params"]["resolution"] == "written_off"
    trail = ok(await site.api.get(f"/v1/queue/items/{dead['itemId']}/transitions", site.server.admin))["transitions"]
    assert trail[-1] == {
        "from": "finished",
        "to": "finished",
        "at": event["at"],
        "actorRole": "admin",
        "actorId": trail[-1]["actorId"],
        "reason": "the user has been told",
        "roomVersion": event["version"],
    }


async def test_writing_off_ends_it_and_changes_nothing_at_the_wallet(site: Money, performer_id: str) -> None:
    dead = await given_up(site, performer_id)
    operation = ok(await resolve(site, dead, "written_off"))
    assert (operation["status"], operation["lastProblem"]) == ("done", "written off: the user has been told")
    item = await site.item(dead)
    assert (item["walletStatus"], item["settled"], item["status"]) == ("written_off", False, "finished")
    assert site.wallet.escrow(dead).status is HoldStatus.HELD
    for resolution in ("settle", "refund", "written_off"):
        problem(await resolve(site, dead, resolution), 409, "INVALID_STATE_TRANSITION")
    problem(await site.retry(operation), 409, "INVALID_STATE_TRANSITION")


@pytest.mark.parametrize("resolution", ["settle", "refund", "written_off"])
async def test_an_escrow_resolved_meanwhile_is_confirmed_as_it_is(
    site: Money, performer_id: str, resolution: str
) -> None:
    dead = await given_up(site, performer_id)
    site.wallet.resolve(dead, settle=0, refund=100)
    operation = ok(await resolve(site, dead, resolution))
    assert (operation["status"], operation["kind"]) == ("done", "refund")
    item = await site.item(dead)
    assert (item["status"], item["walletStatus"], item["refundedTokens"]) == ("refunded", "done", 100)
    assert item["settled"] is False


async def test_while_the_wallet_cannot_be_asked_nothing_is_resolved(site: Money, performer_id: str) -> None:
    dead = await given_up(site, performer_id)
    site.wallet.faults.rates = AWAY
    refusal = problem(await resolve(site, dead, "written_off"), 503, "UNAVAILABLE")
    assert refusal["retryAfterSeconds"] > 0
    assert (await site.item(dead))["walletStatus"] == "dead"


async def test_a_done_or_pending_operation_is_not_resolved(
    tmp_path: Path, wallet: WalletServer, clock: HandClock, performer_id: str
) -> None:
    async with money(tmp_path, wallet, clock, settle_delay_seconds=3600) as site:
        pending = await site.finished(performer_id)
        problem(await resolve(site, pending, "refund"), 409, "INVALID_STATE_TRANSITION")
        problem(await site.retry(await site.operation(pending)), 409, "INVALID_STATE_TRANSITION")
        async with site.watching(performer_id) as screen:
            clock.wait(3600)
            await screen.sees(pending, "queue.item.settled")
        problem(await resolve(site, pending, "refund"), 409, "INVALID_STATE_TRANSITION")


async def test_a_retrying_operation_is_resolved_or_tried_at_once(
    tmp_path: Path, wallet: WalletServer, clock: HandClock, performer_id: str
) -> None:
    slow = {"wallet_max_attempts": 10, "wallet_retry_base_seconds": 200, "wallet_retry_max_seconds": 3600}
    async with money(tmp_path, wallet, clock, **slow) as site, site.watching(performer_id) as screen:
        site.wallet.faults.rates = AWAY
        first, second = await site.finished(performer_id), await site.finished(performer_id)
        for item in (first, second):
            await screen.sees(item, walletStatus="retrying")
        site.wallet.faults.rates = WELL
        ok(await resolve(site, first, "refund"))
        assert (await screen.sees(first, walletStatus="done"))["status"] == "refunded"
        retried = ok(await site.retry(await site.operation(second)))
        assert retried["status"] in ("retrying", "done")
        await screen.sees(second, "queue.item.settled")
    assert (wallet.books.available, wallet.books.earned) == (100, 100)


async def test_all_dead_operations_are_tried_again_with_one_request(site: Money, performer_id: str) -> None:
    dead = [await given_up(site, performer_id) for _ in range(3)]
    key = fresh("key")
    async with site.watching(performer_id) as screen:
        options: dict[str, Any] = {"key": key}
        assert ok(await site.api.post(f"{PATH}/retry", site.server.admin, {"status": "dead"}, **options)) == {
            "retried": 3
        }
        for item in dead:
            await screen.sees(item, "queue.item.settled")
    again = await site.api.post(f"{PATH}/retry", site.server.admin, {"status": "dead"}, **options)
    assert (again.json(), again.headers["Idempotent-Replayed"]) == ({"retried": 3}, "true")
    assert ok(await site.api.post(f"{PATH}/retry", site.server.admin, {"status": "dead"})) == {"retried": 0}
    assert site.wallet.books.earned == 300


async def test_a_resolution_is_answered_once_for_its_key(site: Money, performer_id: str) -> None:
    dead = await given_up(site, performer_id)
    key = fresh("key")
    first, again = await resolve(site, dead, "written_off", key=key), await resolve(site, dead, "written_off", key=key)
    assert ok(first) == ok(again)
    assert again.headers["Idempotent-Replayed"] == "true"
    problem(await resolve(site, dead, "refund", key=key), 422, "DUPLICATE_IDEMPOTENCY_KEY")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"resolution": "settle"},
        {"resolution": "keep", "reason": "x"},
        {"resolution": "settle", "reason": ""},
        {"resolution": "settle", "reason": "x" * 501},
        {"resolution": "settle", "reason": "x", "tokens": 5},
    ],
)
async def test_a_resolution_that_says_too_little_or_too_much_is_refused(
    site: Money, performer_id: str, body: Json
) -> None:
    dead = await given_up(site, performer_id)
    path = f"{PATH}/{(await site.operation(dead))['id']}/resolve"
    problem(await site.api.post(path, site.server.admin, body), 422, "VALIDATION_ERROR")
    problem(await site.api.post(path, site.server.feature(), {"resolution": "settle", "reason": "x"}), 403, "FORBIDDEN")
    problem(await site.api.post(f"{PATH}/retry", site.server.admin, {"status": "done"}), 422, "VALIDATION_ERROR")
    problem(
        await site.api.post(f"{PATH}/unknown/resolve", site.server.admin, {"resolution": "settle", "reason": "x"}),
        404,
        "NOT_FOUND",
    )
    assert (await site.item(dead))["walletStatus"] == "dead"
