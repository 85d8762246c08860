"""Presence: whether a performer is online, whichever processes have their panels and however these end."""

import asyncio
import logging
import random

import pytest

from app.domain.command import SetPresence
from app.domain.event import EventName, PauseReason
from app.domain.room import Room
from app.live.presence import LEASE, Presence
from app.store import Store, leases
from tests.support.builders import PERFORMER
from tests.support.processes import Process, no_room, running
from tests.support.stores import (
    Database,
    HandClock,
    assert_consistent,
    build_writer,
    intake_of,
    queue_item,
    send,
    stored_events,
    stored_room,
)
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import postgres_database_fixture as postgres_database_fixture
from tests.support.stores import store_fixture as store_fixture

STAR = PERFORMER.id


def reported(store: Store) -> list[EventName]:
    """The events of the room about its performer's presence, in order."""
    names = (EventName.PERFORMER_ONLINE, EventName.PERFORMER_OFFLINE)
    return [event.name for event in stored_events(store) if event.name in names]


def held(store: Store) -> list[tuple[str, str]]:
    with store.reading() as connection:
        return leases.lapsed_presence(connection, HandClock().now + 1000 * LEASE, 100)


async def settled(process: Process) -> None:
    """Wait until the process has done everything that it began by itself: each report is two jobs of the lane in a row,
    and these jobs come between and after them."""
    for _ in range(50):
        await process.lanes.run(lambda connection: None)


async def test_the_first_panel_and_the_last_are_reported_and_those_between_are_not(database: Database) -> None:
    store = database.open()
    queue_item(build_writer(store))
    async with running(store, HandClock()) as process:
        presence = process.presence
        await presence.arrived(STAR)
        await presence.arrived(STAR)
        assert stored_room(store).settings.performer_online
        await presence.left(STAR)
        assert reported(store) == [EventName.PERFORMER_ONLINE]
        await presence.left(STAR)
        assert reported(store) == [EventName.PERFORMER_ONLINE, EventName.PERFORMER_OFFLINE]
        room = assert_consistent(store)
        assert (room.settings.paused, room.settings.pause_reason) == (True, PauseReason.PERFORMER_DISCONNECTED)
        assert held(store) == []


async def test_a_room_that_is_created_while_its_performer_waits_gets_their_presence(database: Database) -> None:
    store = database.open()
    async with running(store, HandClock()) as process:
        await process.presence.arrived(STAR)
        assert assert_consistent(store).version == 0
        await process.lanes.send(STAR, intake_of())
        await settled(process)
        assert reported(store) == [EventName.PERFORMER_ONLINE]
        await process.lanes.send(STAR, intake_of())
        await settled(process)
        assert reported(store) == [EventName.PERFORMER_ONLINE]


async def test_a_room_made_by_another_process_gets_its_performers_presence_at_the_next_look(
    postgres_database: Database,
) -> None:
    store = postgres_database.open()
    async with running(store, HandClock()) as process:
        await process.presence.arrived(STAR)
        queue_item(build_writer(postgres_database.open()))
        assert reported(store) == []
        await process.presence.keep()
        assert reported(store) == [EventName.PERFORMER_ONLINE]


async def test_a_performer_with_panels_on_two_processes_is_gone_when_both_are(postgres_database: Database) -> None:
    one_store, two_store = postgres_database.open(), postgres_database.open()
    queue_item(build_writer(one_store))
    async with running(one_store, HandClock(), "one") as one, running(two_store, HandClock(), "two") as two:
        await one.presence.arrived(STAR)
        await two.presence.arrived(STAR)
        await one.presence.left(STAR)
        assert reported(one_store) == [EventName.PERFORMER_ONLINE]
        await two.presence.left(STAR)
        assert reported(one_store) == [EventName.PERFORMER_ONLINE, EventName.PERFORMER_OFFLINE]


async def test_a_panel_that_comes_back_in_time_is_all_the_room_ends_up_with(database: Database) -> None:
    store = database.open()
    queue_item(build_writer(store))
    chance = random.Random(7)
    async with running(store, HandClock()) as process:
        panels = 0
        visits = []
        for _ in range(60):
            if panels == 0 or chance.random() < 0.5:
                panels += 1
                visits.append(asyncio.create_task(process.presence.arrived(STAR)))
            else:
                panels -= 1
                visits.append(asyncio.create_task(process.presence.left(STAR)))
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        await asyncio.gather(*visits)
        await settled(process)
        assert stored_room(store).settings.performer_online is (panels > 0)
        assert bool(held(store)) is (panels > 0)
        for _ in range(panels):
            await process.presence.left(STAR)
        assert not stored_room(store).settings.performer_online
        assert_consistent(store)


async def test_a_process_that_died_is_missed_when_its_lease_has_run_out(database: Database) -> None:
    clock = HandClock()
    dead, store = database.open(), database.open()
    queue_item(build_writer(dead))
    async with running(dead, clock, "dead") as process:
        await process.presence.arrived(STAR)
    async with running(store, clock, "alive") as process:
        clock.wait(LEASE.total_seconds() - 0.001)
        await process.presence.keep()
        assert stored_room(store).settings.performer_online
        clock.wait(0.001)
        await process.presence.keep()
        assert reported(store) == [EventName.PERFORMER_ONLINE, EventName.PERFORMER_OFFLINE]
        assert held(store) == []


async def test_a_process_that_lives_keeps_its_leases(database: Database) -> None:
    clock, store = HandClock(), database.open()
    queue_item(build_writer(store))
    async with running(store, clock) as process:
        await process.presence.arrived(STAR)
        for _ in range(5):
            clock.wait(LEASE.total_seconds() / 2)
            await process.presence.keep()
        assert reported(store) == [EventName.PERFORMER_ONLINE]


async def test_a_lapsed_lease_does_not_matter_while_the_performer_is_here(database: Database) -> None:
    clock, store = HandClock(), database.open()
    queue_item(build_writer(store))
    async with running(database.open(), clock, "dead") as process:
        await process.presence.arrived(STAR)
    async with running(store, clock, "alive") as process:
        await process.presence.arrived(STAR)
        clock.wait(LEASE.total_seconds() * 2)
        await process.presence.keep()
        assert reported(store) == [EventName.PERFORMER_ONLINE]
        assert held(store) == [("alive", STAR)]


async def test_a_process_that_failed_between_lease_and_room_is_put_right(database: Database) -> None:
    """The lease is gone, but the room still shows the performer online."""
    store = database.open()
    writer = build_writer(store)
    queue_item(writer)
    send(writer, SetPresence(online=True))
    async with running(store, HandClock()) as process:
        await process.presence.keep()
        assert reported(store) == [EventName.PERFORMER_ONLINE, EventName.PERFORMER_OFFLINE]
        await process.presence.keep()
        assert len(reported(store)) == 2


async def test_a_room_whose_performer_is_wrongly_offline_is_put_right(postgres_database: Database) -> None:
    """A process that stood still was counted as dead; its panel is still connected."""
    store = postgres_database.open()
    queue_item(build_writer(store))
    async with running(store, HandClock()) as process:
        await process.presence.arrived(STAR)
        send(build_writer(postgres_database.open()), SetPresence(online=False))
        await process.presence.keep()
        assert [name.rpartition(".")[2] for name in reported(store)] == ["online", "offline", "online"]


async def test_a_panel_is_welcome_although_nothing_can_be_written_and_is_reported_later(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    store = database.open()
    queue_item(build_writer(store))
    async with running(store, HandClock()) as process:
        with caplog.at_level(logging.WARNING), no_room(process.lanes):
            await process.presence.arrived(STAR)
        assert reported(store) == []
        assert "presence of star was not reported (UNAVAILABLE)" in caplog.text
        await process.presence.keep()
        assert reported(store) == [EventName.PERFORMER_ONLINE]
        with no_room(process.lanes):
            await process.presence.left(STAR)
        assert reported(store) == [EventName.PERFORMER_ONLINE]
        process.clock.wait(LEASE.total_seconds())
        await process.presence.keep()
        assert reported(store) == [EventName.PERFORMER_ONLINE, EventName.PERFORMER_OFFLINE]


async def test_a_panel_that_does_not_renew_its_token_in_time_has_left(database: Database) -> None:
    store = database.open()
    queue_item(build_writer(store))
    async with running(store, HandClock()) as process:
        presence = Presence(process.lanes, "two", process.clock, expired_panel_seconds=0.05)
        await presence.arrived(STAR)
        presence.expired(STAR)
        await presence.arrived(STAR)
        await asyncio.sleep(0.1)  # longer than the renewal may take
        assert reported(store) == [EventName.PERFORMER_ONLINE]
        presence.expired(STAR)
        while len(reported(store)) < 2:  # noqa: ASYNC110 - it is the log that says so
            await asyncio.sleep(0.01)
        assert reported(store)[-1] is EventName.PERFORMER_OFFLINE


async def test_an_empty_look_changes_nothing(database: Database) -> None:
    store = database.open()
    async with running(store, HandClock()) as process:
        await process.presence.keep()
    assert stored_room(store) == Room(performer_id=STAR, policy=store.policy)
    assert process.outcomes == []
