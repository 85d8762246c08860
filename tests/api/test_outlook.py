"""The outlook for viewers: the wait of a new request, and the accuracy of recent estimates."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from app.api.outlook import Accuracies, accuracy
from app.store import Store, tables
from app.store.estimates import estimate_errors
from tests.support.builders import PERFORMER, moment
from tests.support.server import Api, fresh, ok, problem
from tests.support.stores import HandClock, build_writer, complete_of, queue_item, send, start_of
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import postgres_database_fixture as postgres_database_fixture
from tests.support.stores import sqlite_database_fixture as sqlite_database_fixture
from tests.support.stores import store_fixture as store_fixture


def path_of(performer_id: str) -> str:
    return f"/v1/performers/{performer_id}/queue/outlook"


async def test_a_new_request_waits_for_all_the_others(api: Api, performer_id: str) -> None:
    await api.intake(performer_id, durationSeconds=90)
    await api.intake(performer_id, durationSeconds=60)
    outlook = ok(await api.get(path_of(performer_id)))
    assert outlook == {
        "performerId": performer_id,
        "estimatedWaitSeconds": 150,
        "estimatedWaitRange": None,
        "accuracy": None,
    }


async def test_an_unknown_room_has_no_outlook(api: Api) -> None:
    problem(await api.get(path_of(fresh("star"))), 404, "PERFORMER_NOT_FOUND")


async def test_after_a_nights_show_the_room_reports_how_good_its_estimates_were(api: Api, performer_id: str) -> None:
    for _ in range(10):
        await api.command("complete", await api.command("start", await api.intake(performer_id)))
    answer = ok(await api.get(path_of(performer_id)))["accuracy"]
    assert set(answer) == {"since", "count", "share", "withinSeconds"}
    assert (answer["count"], answer["share"]) == (10, 0.9)
    assert 0 <= answer["withinSeconds"] < 20
    # Kept for a minute.
    await api.command("complete", await api.command("start", await api.intake(performer_id)))
    assert ok(await api.get(path_of(performer_id)))["accuracy"] == answer


@pytest.mark.parametrize(
    ("errors", "within"),
    [
        ([float(size) for size in range(9)], None),
        ([float(size) for size in range(1, 11)], 9),
        ([-170.2, 400.0, *[30.0] * 8], 171),
        ([1.0] * 100, 1),
    ],
)
def test_nine_in_ten_waits_came_within(errors: list[float], within: int | None) -> None:
    answer = accuracy(errors, moment())
    assert (answer and answer["withinSeconds"]) == within


def test_a_rooms_accuracy_is_kept_for_a_minute_and_those_of_so_many_rooms() -> None:
    kept = Accuracies(limit=3)
    for number in range(5):
        kept.keep(f"star-{number}", moment(), None)
    assert [kept.is_known(f"star-{number}", moment(59)) for number in range(5)] == [False, False, True, True, True]
    assert not kept.is_known("star-4", moment(60))


def test_the_errors_are_those_of_the_last_items_that_were_on_stage_and_had_been_shown_a_wait(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    items = [queue_item(writer, duration_seconds=60) for _ in range(4)]
    for item in items:
        send(writer, start_of(item))
        clock.wait(70)
        send(writer, complete_of(item))
    queue_item(writer)
    with store.writing() as connection:
        without_estimate = tables.ITEMS.c.item_id == items[3].item_id
        connection.execute(update(tables.ITEMS).where(without_estimate).values(quoted_wait_seconds=None))
    with store.reading() as connection:
        night = estimate_errors(connection, PERFORMER.id, since=clock.now - timedelta(hours=12), at_most=100)
        last = estimate_errors(connection, PERFORMER.id, since=clock.now - timedelta(seconds=150), at_most=100)
        newest = estimate_errors(connection, PERFORMER.id, since=clock.now - timedelta(hours=12), at_most=2)
        nothing = estimate_errors(connection, "nobody", since=clock.now - timedelta(hours=12), at_most=100)
    # Told 0, 60 and 120 seconds; came after 0, 70 and 140.
    assert night == [20, 10, 0]
    assert (last, newest, nothing) == ([20, 10], [20], [])
