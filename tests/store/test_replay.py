"""A room at each of its versions, from its log: the queue that was shown at that time."""

from collections.abc import Callable
from random import Random

import pytest
from sqlalchemy import select, update

from app.domain import command as do
from app.domain.command import Mode
from app.domain.errors import QueueError
from app.domain.item import Reason
from app.domain.room import Room, apply
from app.domain.view import View
from app.engine.writer import Writer
from app.store import Store, compact, pruning
from app.store.replay import PrunedError, room_at
from app.store.tables import EVENTS, ITEMS
from app.wire.encoding import encode
from app.wire.shapes import queue_items, room_shape
from tests.support.builders import ADMIN, PERFORMER
from tests.support.stores import (
    Database,
    HandClock,
    build_writer,
    complete_of,
    intake_of,
    send,
    start_of,
    stored_events,
)
from tests.support.stores import database_fixture as database_fixture


def shown(room: Room) -> list[bytes]:
    """The queue of a room as its performer and as a viewer get it."""
    return [encode([room_shape(room, "epoch"), queue_items(room, view)]) for view in View]


def a_random_night(store: Store, chance: Random, steps: int) -> HandClock:
    clock = HandClock()
    writer = build_writer(store, clock)
    for _ in range(steps):
        clock.wait(chance.choice([0, 0.001, 1.234, 40]))
        try:
            _anything(writer, chance)
        except QueueError:
            continue
    return clock


def _anything(writer: Writer, chance: Random) -> None:
    room = writer.peek(PERFORMER.id)
    commands: list[Callable[[], do.Command]] = [
        lambda: intake_of(title=f"Wish {chance.randrange(1000)}", queue_mode=chance.choice([None, None, Mode.OFF])),
        lambda: do.ChangeSettings(actor=PERFORMER, paused=chance.random() < 0.5),
        lambda: do.ChangeSettings(actor=PERFORMER, announcement=str(chance.randrange(1000))),
        lambda: do.SetPresence(online=chance.random() < 0.5),
    ]
    if room is not None and room.items:
        item = chance.choice(room.items)
        commands += [
            lambda: start_of(item),
            lambda: complete_of(room.items[0]),
            lambda: complete_of(room.items[0]),
            lambda: do.Pause(actor=PERFORMER, item_id=room.items[0].item_id),
            lambda: do.Resume(actor=PERFORMER, item_id=room.items[0].item_id),
            lambda: do.Abandon(actor=PERFORMER, item_id=item.item_id, reason=Reason.PERFORMER_DECLINED),
            lambda: do.Refund(actor=ADMIN, item_id=item.item_id, reason=Reason.ADMIN_REFUND),
        ]
    send(writer, chance.choice([*commands, commands[0], commands[0]])())


def rooms_of(store: Store) -> list[Room]:
    """The room at each version, folded from the beginning."""
    rooms = [Room(performer_id=PERFORMER.id, policy=store.policy)]
    for event in stored_events(store):
        rooms.append(apply(rooms[-1], event))
    return rooms


@pytest.mark.parametrize("seed", range(4))
def test_a_replayed_room_is_the_one_that_was_shown_then(database: Database, seed: int) -> None:
    store = database.open()
    a_random_night(store, Random(seed), 120)
    every_version_replays(store)


def test_events_of_the_earlier_form_replay_also_beside_those_of_todays(database: Database) -> None:
    store = database.open()
    store.compact = False
    a_random_night(store, Random(10), 60)
    with store.writing() as connection:
        # A release that wrote this form knew nothing of the column.
        connection.execute(update(ITEMS).values(first_version=None))
    every_version_replays(store)
    store.compact = True
    a_random_night(store, Random(11), 60)
    with store.reading() as connection:
        forms = connection.execute(select(EVENTS.c.item).where(EVENTS.c.item.is_not(None))).scalars().all()
    assert {text.startswith(compact.MARK) for text in forms} == {False, True}
    every_version_replays(store)


def every_version_replays(store: Store) -> None:
    rooms = rooms_of(store)
    assert len(rooms) > 40
    with store.reading() as connection:
        for room in rooms[1:]:
            replayed = room_at(connection, store.policy, PERFORMER.id, room.version)
            assert replayed is not None
            assert shown(replayed) == shown(room)


def test_an_unknown_version_has_no_room(database: Database) -> None:
    store = database.open()
    send(build_writer(store), intake_of())
    with store.reading() as connection:
        assert [room_at(connection, store.policy, PERFORMER.id, version) for version in (-1, 0, 2)] == [None] * 3
        assert room_at(connection, store.policy, "nobody", 1) is None


def test_a_pruned_room_replays_from_where_its_log_is_gapless_and_says_where_that_is(database: Database) -> None:
    store = database.open()
    a_random_night(store, Random(5), 150)
    rooms = rooms_of(store)
    middle = rooms[len(rooms) // 2].last_at
    assert middle is not None
    with store.writing() as connection:
        # No wallet runs here: as if it had confirmed at once.
        connection.exec_driver_sql("UPDATE wallet_operations SET status = 'done'")
        assert pruning.prune_items(connection, middle, at_most=1000) is None
    with store.reading() as connection:
        with pytest.raises(PrunedError) as pruned:
            room_at(connection, store.policy, PERFORMER.id, 1)
        floor = pruned.value.floor
        assert 10 < floor < len(rooms)
        for room in rooms[floor:]:
            replayed = room_at(connection, store.policy, PERFORMER.id, room.version)
            assert replayed is not None
            assert shown(replayed) == shown(room)
