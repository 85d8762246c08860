"""The clocks that end items by themselves, over HTTP and sockets, at the service's own injected time.

That something does not happen is shown beside something that does: a canary in another room falls due a moment before,
and when it has been dealt with, the item that must live has been looked at too.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Json, fresh, ok
from tests.support.stores import HandClock
from tests.support.wallet_harness import Money, WalletServer, money
from tests.support.wallet_harness import clock_fixture as clock_fixture
from tests.support.wallet_harness import wallet_fixture as wallet_fixture

pytestmark = pytest.mark.anyio

ROPE_DROP = 600
STARTED = 300
GRACE = 120
MOMENT = 0.001


def open_site(tmp_path: Path, wallet: WalletServer, clock: HandClock, **settings: Any) -> Any:
    chosen = {
        "rope_drop_seconds": ROPE_DROP,
        "started_timeout_seconds": STARTED,
        "disconnect_grace_seconds": GRACE,
        **settings,
    }
    return money(tmp_path, wallet, clock, **chosen)


@pytest.fixture
async def site(tmp_path: Path, wallet: WalletServer, clock: HandClock) -> AsyncIterator[Money]:
    async with open_site(tmp_path, wallet, clock) as site:
        yield site


@asynccontextmanager
async def canary(site: Money, *, started: bool = False, seconds: float) -> AsyncIterator[None]:
    """An item that must be abandoned `seconds` after the block begins; its end waits for that."""
    room = fresh("canary")
    item = await (site.started(room, durationSeconds=1) if started else site.queued(room))
    begun = site.clock.now
    async with site.watching(room) as screen:
        yield
        assert (site.clock.now - begun).total_seconds() == seconds, "this canary does not fall due here"
        await screen.sees(item, "queue.item.abandoned")


async def lives(site: Money, item: Json) -> bool:
    return (await site.item(item))["status"] in ("created", "started")


# Rope drop


async def test_the_next_item_must_be_started_in_time_and_then_the_one_after_it(site: Money, performer_id: str) -> None:
    async with site.watching(performer_id) as screen:
        async with canary(site, seconds=ROPE_DROP):
            site.clock.wait(MOMENT)
            first, second = await site.queued(performer_id), await site.queued(performer_id)
            site.clock.wait(ROPE_DROP - MOMENT)
        assert await lives(site, first)
        site.clock.wait(MOMENT)
        abandoned = await screen.sees(first, "queue.item.abandoned")
        assert abandoned["abandonReason"] == "timeout"
        refunded = await screen.sees(first, "queue.item.refunded")
        assert (refunded["refundReason"], refunded["walletStatus"]) == ("timeout", "done")
        # Its own time begins only now.
        site.clock.wait(ROPE_DROP - MOMENT)
        assert await lives(site, second)
        site.clock.wait(MOMENT)
        await screen.sees(second, "queue.item.abandoned")
    trail = ok(await site.api.get(f"/v1/queue/items/{first['itemId']}/transitions", site.server.admin))
    assert [(step["to"], step["actorRole"], step["actorId"]) for step in trail["transitions"]] == [
        ("created", "feature", "wheel"),
        ("abandoned", "system", "timer"),
        ("refunded", "system", "wallet"),
    ]


async def test_while_somebody_is_started_the_next_ones_clock_stands(site: Money, performer_id: str) -> None:
    started = await site.started(performer_id, durationSeconds=3600)
    waiting = await site.queued(performer_id)
    async with canary(site, seconds=ROPE_DROP):
        site.clock.wait(ROPE_DROP)
    assert await lives(site, waiting)
    async with site.watching(performer_id) as screen:
        await site.api.command("complete", started)
        site.clock.wait(ROPE_DROP)
        await screen.sees(waiting, "queue.item.abandoned", abandonReason="timeout")


async def test_a_paused_room_stops_the_clock_of_the_next_item(site: Money, performer_id: str) -> None:
    item = await site.queued(performer_id)
    site.clock.wait(ROPE_DROP - 10)
    paused = await site.api.change(performer_id, paused=True)
    assert paused["pauseReason"] == "requested"
    async with canary(site, seconds=ROPE_DROP):
        site.clock.wait(ROPE_DROP)
    assert await lives(site, item)
    await site.api.change(performer_id, paused=False)
    async with site.watching(performer_id) as screen:
        site.clock.wait(10 - MOMENT)
        assert await lives(site, item)
        site.clock.wait(MOMENT)
        await screen.sees(item, "queue.item.abandoned")


# Too long in service


async def test_a_started_item_may_take_its_duration_and_the_limit(site: Money, performer_id: str) -> None:
    async with site.watching(performer_id) as screen:
        item = await site.started(performer_id, durationSeconds=60)
        async with canary(site, started=True, seconds=STARTED + 1):
            site.clock.wait(STARTED + 1)
        site.clock.wait(59 - MOMENT)
        assert await lives(site, item)
        site.clock.wait(MOMENT)
        abandoned = await screen.sees(item, "queue.item.abandoned")
        assert (abandoned["abandonReason"], abandoned["walletStatus"]) == ("timeout", "pending")
        await screen.sees(item, "queue.item.refunded", walletStatus="done")


@pytest.mark.parametrize("what", ["item", "room"])
async def test_a_pause_stops_the_clock_of_the_started_item(site: Money, performer_id: str, what: str) -> None:
    item = await site.started(performer_id, durationSeconds=60)
    site.clock.wait(350)
    await (site.api.command("pause", item) if what == "item" else site.api.change(performer_id, paused=True))
    async with canary(site, started=True, seconds=STARTED + 1):
        site.clock.wait(STARTED + 1)
    assert await lives(site, item)
    await (site.api.command("resume", item) if what == "item" else site.api.change(performer_id, paused=False))
    async with site.watching(performer_id) as screen:
        site.clock.wait(10 - MOMENT)
        assert await lives(site, item)
        site.clock.wait(MOMENT)
        await screen.sees(item, "queue.item.abandoned", abandonReason="timeout")


# The performer goes away


@asynccontextmanager
async def panel(site: Money, performer_id: str) -> AsyncIterator[None]:
    async with site.server.live(performer_id, site.server.performer(performer_id)) as live:
        await live.until("snapshot")
        yield


async def test_after_the_grace_everything_is_abandoned(site: Money, performer_id: str) -> None:
    started, waiting = await site.started(performer_id), await site.queued(performer_id)
    async with site.watching(performer_id) as screen:
        async with panel(site, performer_id):
            await screen.sees_room(performerOnline=True, paused=False)
        offline = await screen.sees_room(performerOnline=False)
        assert (offline["paused"], offline["pauseReason"]) == (True, "performer_disconnected")
        site.clock.wait(GRACE - MOMENT)
        late = await site.queued(performer_id)
        assert await lives(site, started)
        site.clock.wait(MOMENT)
        for item in (started, waiting):
            abandoned = await screen.sees(item, "queue.item.abandoned")
            assert abandoned["abandonReason"] == "performer_disconnected"
            await screen.sees(item, "queue.item.refunded", walletStatus="done")
        # An item that came during the absence has the whole grace.
        assert await lives(site, late)
        site.clock.wait(GRACE - MOMENT)
        await screen.sees(late, "queue.item.abandoned", abandonReason="performer_disconnected")


async def test_coming_back_in_time_resumes_everything(site: Money, performer_id: str) -> None:
    item = await site.started(performer_id, durationSeconds=60)
    async with site.watching(performer_id) as screen:
        async with panel(site, performer_id):
            await screen.sees_room(performerOnline=True)
            site.clock.wait(350)
        await screen.sees_room(performerOnline=False)
        site.clock.wait(GRACE - MOMENT)
        async with panel(site, performer_id):
            back = await screen.sees_room(performerOnline=True)
            assert (back["paused"], back["pauseReason"]) == (False, None)
            # The clock stood meanwhile: of 360 seconds 350 have been used.
            async with canary(site, started=True, seconds=STARTED + 1):
                await site.api.command("pause", item)
                site.clock.wait(STARTED + 1)
                assert await lives(site, item)
            await site.api.command("resume", item)
            site.clock.wait(10)
            await screen.sees(item, "queue.item.abandoned", abandonReason="timeout")


async def test_one_panel_of_two_that_goes_is_no_reason(site: Money, performer_id: str) -> None:
    item = await site.queued(performer_id)
    async with site.watching(performer_id) as screen, panel(site, performer_id):
        await screen.sees_room(performerOnline=True)
        async with panel(site, performer_id):
            pass
        async with canary(site, seconds=ROPE_DROP):
            site.clock.wait(MOMENT)
            await site.api.change(performer_id, paused=True)
            site.clock.wait(ROPE_DROP - MOMENT)
        assert await lives(site, item)
        assert screen.live.room["performerOnline"]


async def test_a_room_driven_over_http_alone_is_not_subject_to_it(
    tmp_path: Path, wallet: WalletServer, clock: HandClock, performer_id: str
) -> None:
    async with open_site(tmp_path, wallet, clock, rope_drop_seconds=0) as site:
        waiting, started = await site.queued(performer_id), await site.started(fresh("star"), durationSeconds=3600)
        async with canary(site, started=True, seconds=STARTED + 1):
            site.clock.wait(STARTED + 1)
        assert await lives(site, waiting)
        assert await lives(site, started)
        assert not (await site.api.queue(performer_id))["room"]["performerOnline"]


# Through a restart


async def test_a_restart_neither_loses_a_deadline_nor_fires_it_twice(
    tmp_path: Path, wallet: WalletServer, clock: HandClock, performer_id: str
) -> None:
    async with open_site(tmp_path, wallet, clock) as site:
        overdue, waiting = await site.queued(performer_id), await site.queued(performer_id)
        async with canary(site, started=True, seconds=STARTED + 1):
            clock.wait(STARTED + 1)
    # While nobody serves the room its clocks stand.
    clock.wait(1500)
    async with open_site(tmp_path, wallet, clock) as site:
        clock.wait(ROPE_DROP - (STARTED + 1) - MOMENT)
        assert await lives(site, overdue)
        clock.wait(MOMENT)
        await until_status(site, overdue, "refunded")
        assert await lives(site, waiting)
    async with open_site(tmp_path, wallet, clock) as site:
        async with canary(site, seconds=ROPE_DROP):
            await site.api.change(performer_id, paused=True)
            clock.wait(ROPE_DROP)
        trail = ok(await site.api.get(f"/v1/queue/items/{overdue['itemId']}/transitions", site.server.admin))
        assert [step["to"] for step in trail["transitions"]] == ["created", "abandoned", "refunded"]
        assert await lives(site, waiting)
    assert wallet.escrow(overdue).refunded_amount == 100


async def test_a_restart_takes_the_panel_away_and_the_grace_begins_anew(
    tmp_path: Path, wallet: WalletServer, clock: HandClock, performer_id: str
) -> None:
    async with open_site(tmp_path, wallet, clock) as site:
        item = await site.queued(performer_id)
        async with site.watching(performer_id) as screen, panel(site, performer_id):
            await screen.sees_room(performerOnline=True)
            site.server.stop()
            assert await screen.live.closed() == 1012
    clock.wait(1500)
    async with open_site(tmp_path, wallet, clock) as site, site.watching(performer_id) as screen:
        assert (screen.live.room["performerOnline"], screen.live.room["paused"]) == (False, True)
        clock.wait(GRACE - MOMENT)
        assert await lives(site, item)
        clock.wait(MOMENT)
        await screen.sees(item, "queue.item.abandoned", abandonReason="performer_disconnected")


async def until_status(site: Money, item: Json, status: str) -> None:
    """Wait until the item has this status, on a client that may connect after the event."""
    async with site.watching(item["performerId"]) as screen:
        if (await site.item(item))["status"] != status:
            await screen.sees(item, status=status)
