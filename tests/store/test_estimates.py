"""The waits that were told, counted by the places ahead against what came."""

from typing import Any

from app.domain.item import Item, Status
from app.store import Store
from app.store.estimates import PLACES_AHEAD, ToldWaits, told_waits
from app.store.reading import first_id
from app.store.writing import Changes, save
from tests.support.builders import PERFORMER, build_item, moment
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import store_fixture as store_fixture

START, END = moment(1000), moment(5000)


def waited(number: int, seconds: float, *, ahead: int, told: float, **fields: Any) -> Item:
    """A finished item that came at the start of the span."""
    values = {
        "item_id": f"{first_id(START)}-7{number:03x}-8000-000000000000",
        "created_at": START,
        "started_at": moment(1000 + seconds),
        "finished_at": moment(1000 + seconds + 10),
        "status": Status.FINISHED,
        "quoted_wait_seconds": told,
        "quoted_position": ahead + 1,
    }
    return build_item(number, **{**values, **fields})


def counted(store: Store, items: list[Item], performer_id: str | None = None) -> list[ToldWaits]:
    with store.engines.writer.begin() as connection:
        save(connection, Changes(new_items={item.item_id: item for item in items}))
        return told_waits(connection, START, END, performer_id)


def test_nothing_told_is_nothing_known_for_each_number_ahead(store: Store) -> None:
    assert [(each.ahead_from, each.ahead_to) for each in counted(store, [])] == list(PLACES_AHEAD)
    assert {(each.count, each.bias_seconds, each.ranged) for each in counted(store, [])} == {(0, None, 0)}


def test_waits_are_counted_where_their_item_stood_when_it_came(store: Store) -> None:
    places = [0, 1, 2, 3, 4, 6, 7, 10, 11, 49]
    items = [waited(number, 100, ahead=ahead, told=90) for number, ahead in enumerate(places)]
    assert [each.count for each in counted(store, items)] == [1, 1, 2, 2, 2, 2]


def test_error_bias_and_range_are_those_of_what_was_told(store: Store) -> None:
    low_high = {"quoted_low_seconds": 80.0, "quoted_high_seconds": 130.0}
    items = [
        waited(1, 100, ahead=1, told=90, **low_high),
        waited(2, 100, ahead=1, told=130),
        waited(3, 200, ahead=1, told=170, **low_high),
    ]
    assert counted(store, items)[1] == ToldWaits(
        ahead_from=1, ahead_to=1, count=3, mean_absolute_seconds=70 / 3, bias_seconds=10 / 3, ranged=2, inside=1
    )


def test_only_starts_of_the_span_and_of_the_room_count_and_nothing_that_was_told_no_wait(store: Store) -> None:
    items = [
        waited(1, 100, ahead=1, told=90),
        waited(2, 4000, ahead=1, told=90),  # the end of a span is the next one's
        waited(3, 100, ahead=1, told=90, performer_id="another"),
        waited(4, 0, ahead=0, told=0, pass_through_mode=True),
    ]
    items.append(waited(5, 200, ahead=1, told=100, finished_at=None, status=Status.STARTED))
    assert sum(each.count for each in counted(store, items)) == 3
    with store.engines.reader.begin() as connection:
        assert sum(each.count for each in told_waits(connection, START, END, PERFORMER.id)) == 2
        assert sum(each.count for each in told_waits(connection, START, END, "nobody")) == 0
