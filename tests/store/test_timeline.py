"""Finding a span of time in a room's log by its versions."""

import pytest
from msgspec.structs import replace

from app.domain.event import EventName
from app.domain.room import Policy, Room
from app.store import Store
from app.store.timeline import events_of_span
from app.store.writing import Changes, save
from tests.support.builders import PERFORMER, moment
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import first_event
from tests.support.stores import store_fixture as store_fixture

TIMES = [10, 20, 20, 20, 30, 50, 80]


@pytest.mark.parametrize("begin", [0, 10, 15, 20, 25, 30, 80, 81])
@pytest.mark.parametrize("first", [1, 40])
def test_the_span_begins_with_its_first_event_also_where_the_log_has_been_pruned(
    store: Store, begin: int, first: int
) -> None:
    events = [
        replace(first_event(PERFORMER.id), version=first + n, at=moment(at), name=EventName.ROOM_CHANGED, item=None)
        for n, at in enumerate(TIMES)
    ]
    room = Room(performer_id=PERFORMER.id, policy=Policy(), version=events[-1].version, last_at=events[-1].at)
    with store.engines.writer.begin() as connection:
        save(connection, Changes(events=events, rooms={room.performer_id: room}, renewed={room.performer_id}))
        found, more = events_of_span(connection, PERFORMER.id, moment(begin), moment(80), after=None, limit=100)
        assert [event.at for event in found] == [moment(at) for at in TIMES if begin <= at < 80]
        assert not more
        cut, more = events_of_span(connection, PERFORMER.id, moment(begin), moment(100), after=None, limit=1)
        inside = [at for at in TIMES if at >= begin]
        assert [event.at for event in cut] == [moment(at) for at in inside[:1]]
        assert more == (len(inside) > 1)


def test_an_unknown_room_has_no_events(store: Store) -> None:
    with store.engines.reader.begin() as connection:
        assert events_of_span(connection, "nobody", moment(), moment(9), after=None, limit=9) == ([], False)
