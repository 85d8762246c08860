"""Every record comes back exactly as it was written, through the real tables of both databases."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import Connection, select, update

from app.domain.command import Actor, Mode, Role
from app.domain.decision import decide
from app.domain.event import Event, EventName, PauseReason, RoomSettings
from app.domain.item import Clock, Item, Reason, Status, WalletStatus
from app.domain.operation import Operation, OperationKind, OperationStatus
from app.domain.room import Policy, Room, apply
from app.store import Store, event_log, reading, records, wallet_operations
from app.store.compact import derived_params
from app.store.tables import EPOCH, EVENTS, ITEMS, MILLISECOND, milliseconds
from app.store.writing import Changes, save
from app.wire.encoding import decode, encode
from app.wire.requests import LARGEST_INTEGER
from tests.support.builders import PERFORMER, build_item, moment
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import first_event, intake_of
from tests.support.stores import store_fixture as store_fixture

# Every example has a transaction of its own, undone at its end, so the database can serve all of them.
thorough = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=80)
whole_milliseconds = st.integers(-(70 * 365 * 86_400_000), 253_402_300_799_999)
instants = whole_milliseconds.map(lambda at: EPOCH + at * MILLISECOND)  # 1900 to the end of 9999
amounts = st.integers(1, LARGEST_INTEGER)
seconds = st.floats(0, 1e12)
positions = st.lists(st.integers(1, 1000), max_size=10, unique=True).map(tuple)
json_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
)
json_objects = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.recursive(json_scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)),
    max_size=4,
)
clocks = st.builds(Clock, used_seconds=seconds, since=st.none() | instants)
actors = st.builds(Actor, role=st.sampled_from(Role), id=texts)
statuses = st.sampled_from(Status)

items = st.builds(
    Item,
    item_id=texts,
    performer_id=st.just("star"),
    user_id=texts,
    source_feature=texts,
    source_event_id=texts,
    escrow_transaction_id=texts,
    idempotency_key=texts,
    tokens=amounts,
    title=texts,
    description=texts,
    duration_seconds=st.none() | st.integers(1, 86_400),
    metadata=json_objects,
    queue_mode=st.sampled_from(Mode).map(str),
    pass_through_mode=st.booleans(),
    status=statuses,
    paused=st.booleans(),
    created_at=instants,
    updated_at=instants,
    started_at=st.none() | instants,
    finished_at=st.none() | instants,
    abandoned_at=st.none() | instants,
    refunded_at=st.none() | instants,
    abandon_reason=st.none() | st.sampled_from(Reason),
    refund_reason=st.none() | st.sampled_from(Reason),
    wallet_status=st.sampled_from(WalletStatus),
    settled=st.booleans(),
    settled_at=st.none() | instants,
    settlement_transaction_id=st.none() | texts,
    settled_tokens=st.none() | amounts,
    refunded_tokens=st.none() | amounts,
    refund_transaction_id=st.none() | texts,
    clock=clocks,
    notified=positions,
    quoted_wait_seconds=st.none() | seconds,
    quoted_position=st.none() | st.integers(1, 1001),
    quoted_low_seconds=st.none() | seconds,
    quoted_high_seconds=st.none() | seconds,
)
room_settings = st.builds(
    RoomSettings,
    mode=st.sampled_from(Mode),
    accepting=st.booleans(),
    paused=st.booleans(),
    pause_reason=st.none() | st.sampled_from(PauseReason),
    strict_fifo=st.booleans(),
    max_depth=st.none() | st.integers(1, 1000),
    max_per_user=st.none() | st.integers(1, 1000),
    max_wait_seconds=st.none() | st.integers(1, 86_400),
    notify_positions=st.none() | positions,
    announcement=st.none() | texts,
    performer_online=st.booleans(),
    offline_since=st.none() | instants,
)
events = st.builds(
    Event,
    performer_id=st.just("star"),
    version=st.integers(1, 2**62),
    name=st.sampled_from(EventName),
    at=instants,
    actor=actors,
    item=st.none() | items,
    position=st.integers(0, 1000),
    settings=st.none() | room_settings,
    from_status=st.none() | statuses,
    reason=st.none() | texts,
    params=json_objects,
)
operations = st.builds(
    Operation,
    operation_id=texts,
    item_id=texts,
    performer_id=texts,
    user_id=texts,
    escrow_transaction_id=texts,
    kind=st.sampled_from(OperationKind),
    settle_tokens=amounts,
    refund_tokens=amounts,
    reason=texts,
    status=st.sampled_from(OperationStatus),
    attempts=st.integers(0, 1000),
    next_attempt_at=instants,
    last_problem=st.none() | texts,
    created_at=instants,
    updated_at=instants,
)

FIXED_AT_INTAKE = frozenset(
    {
        "item_id",
        "performer_id",
        "user_id",
        "source_feature",
        "source_event_id",
        "escrow_transaction_id",
        "idempotency_key",
        "tokens",
        "title",
        "description",
        "duration_seconds",
        "metadata",
        "queue_mode",
        "pass_through_mode",
        "created_at",
        "quoted_wait_seconds",
        "quoted_position",
        "quoted_low_seconds",
        "quoted_high_seconds",
    }
)


@contextmanager
def passing(store: Store) -> Iterator[Connection]:
    """A write transaction that is rolled back."""
    with store.engines.writer.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


@thorough
@given(item=items)
def test_an_item_comes_back_as_it_was(store: Store, item: Item) -> None:
    with passing(store) as connection:
        save(connection, Changes(new_items={item.item_id: item}))
        assert reading.find_item(connection, item.item_id) == item


@thorough
@given(item=items)
def test_an_item_that_takes_its_place_is_written_without_what_is_the_same_in_all(store: Store, item: Item) -> None:
    waiting = replace(item, **records.FRESH_ITEM)
    assert records.is_fresh(waiting)
    assert records.is_fresh(item) is (item == waiting)
    with passing(store) as connection:
        save(connection, Changes(new_items={waiting.item_id: waiting}))
        assert reading.find_item(connection, waiting.item_id) == waiting


def test_the_rows_of_an_intake_are_written_by_the_short_statement() -> None:
    decision = decide(Room(performer_id=PERFORMER.id, policy=Policy()), intake_of(), moment())
    assert decision.item is not None
    assert records.is_fresh(decision.item)
    assert [records.is_arrival(event) for event in decision.events] == [True]


@thorough
@given(before=items, after=items)
def test_whatever_may_change_about_an_item_is_written_again(store: Store, before: Item, after: Item) -> None:
    fixed: dict[str, Any] = {name: getattr(before, name) for name in FIXED_AT_INTAKE}
    after = replace(after, **fixed)
    with passing(store) as connection:
        save(connection, Changes(new_items={before.item_id: before}))
        save(connection, Changes(items={after.item_id: after}))
        assert reading.find_item(connection, after.item_id) == after


def with_its_item(event: Event) -> Changes:
    """The event and, as it always has one, its item's row."""
    return Changes(events=[event], new_items={event.item.item_id: event.item} if event.item else {})


@thorough
@given(event=events, compact=st.booleans(), params_follow=st.booleans())
def test_an_event_comes_back_as_it_was(store: Store, event: Event, compact: bool, params_follow: bool) -> None:
    if params_follow and event.item is not None:
        derived = derived_params(event.item.title, event.item.tokens, event.item.source_feature, event.position)
        event = replace(event, params={**derived, **event.params, **derived})
    with passing(store) as connection:
        save(connection, with_its_item(event), compact=compact)
        found = event_log.find_event(connection, event.performer_id, event.version)
        assert found == event
        assert list(found.params) == list(event.params)


def test_a_compact_event_holds_nothing_of_the_fixed_part_of_its_item(store: Store) -> None:
    item = build_item(title="A long title", description="A long description", metadata={"a": "long value"})
    event = replace(first_event(PERFORMER.id), item=item)
    with passing(store) as connection:
        save(connection, with_its_item(event))
        (row,) = connection.execute(select(EVENTS.c.item, EVENTS.c.params))
        assert "long" not in row.item + row.params
        assert len(row.item) < 40


def test_a_compact_event_holds_nothing_that_its_item_has_for_good(store: Store) -> None:
    event = settled_event()
    with passing(store) as connection:
        save(connection, with_its_item(event))
        (row,) = connection.execute(select(EVENTS.c.name, EVENTS.c.item))
        assert row.name == "settled"
        assert row.item == '~sfdtin{"w":"done","c":[12.5]}'
        assert event_log.find_event(connection, event.performer_id, event.version) == event


def test_an_event_of_the_first_compact_layout_is_read(store: Store) -> None:
    event = settled_event()
    with passing(store) as connection:
        save(connection, with_its_item(event))
        earlier = {
            "name": "queue.item.settled",
            "item": '~{"s":-20000,"f":-7500,"w":"done","d":true,"da":0,"dt":"receipt","dn":120,"c":[12.5,null]}',
        }
        connection.execute(update(EVENTS).values(earlier))
        assert event_log.find_event(connection, event.performer_id, event.version) == event


def settled_event() -> Event:
    at = moment(60)
    item = build_item(
        tokens=120,
        status=Status.FINISHED,
        updated_at=at,
        started_at=moment(40),
        finished_at=moment(52.5),
        wallet_status=WalletStatus.DONE,
        settled=True,
        settled_at=at,
        settlement_transaction_id="receipt",
        settled_tokens=120,
        clock=Clock(used_seconds=12.5),
    )
    params = derived_params(item.title, item.tokens, item.source_feature, 0)
    return replace(first_event(PERFORMER.id), name=EventName.ITEM_SETTLED, at=at, item=item, position=0, params=params)


def test_names_and_fields_of_a_newer_release_are_carried_and_passed_over(store: Store) -> None:
    event = replace(first_event(PERFORMER.id), settings=RoomSettings())
    assert event.item is not None
    with passing(store) as connection:
        save(connection, with_its_item(event), compact=False)
        (row,) = connection.execute(select(EVENTS.c.item, EVENTS.c.settings))
        newer = {
            "name": "queue.item.applauded",
            "to_status": "applauded",
            "actor_role": "choir",
            "item": orjson.dumps({**orjson.loads(row.item), "encores": 3, "wallet_status": "overdrawn"}).decode(),
            "settings": orjson.dumps({**orjson.loads(row.settings), "lights": "dim"}).decode(),
        }
        connection.execute(update(EVENTS).values(newer))
        found = event_log.find_event(connection, event.performer_id, event.version)
        assert (found.name, found.actor.role) == ("queue.item.applauded", "choir")
        assert found.item is not None
        assert found.item.wallet_status == "overdrawn"
        assert replace(found.item, wallet_status=WalletStatus.NONE) == event.item
        assert found.settings == event.settings
        assert apply(Room(performer_id=PERFORMER.id, policy=Policy()), found).depth == 1
        assert found.template is None


@thorough
@given(event=events, item=items)
def test_an_arrival_is_written_without_what_is_the_same_in_all(store: Store, event: Event, item: Item) -> None:
    arrival = replace(
        event,
        name=EventName.ITEM_CREATED,
        item=replace(item, status=Status.CREATED),
        from_status=None,
        reason=None,
        settings=None,
    )
    assert records.is_arrival(arrival)
    unlike: list[dict[str, Any]] = [
        {"name": EventName.ITEM_STARTED},
        {"item": None},
        {"item": replace(item, status=Status.FINISHED)},
        {"from_status": Status.CREATED},
        {"reason": "why"},
        {"settings": RoomSettings()},
    ]
    all_of_them = [arrival, *(replace(arrival, **difference) for difference in unlike)]
    assert [records.is_arrival(each) for each in all_of_them] == [True] + [False] * len(unlike)
    for each in all_of_them:
        with passing(store) as connection:
            save(connection, with_its_item(each))
            assert event_log.find_event(connection, each.performer_id, each.version) == each


@thorough
@given(before=room_settings, after=room_settings, version=st.integers(1, 2**62), at=instants, later=instants)
def test_a_rooms_settings_come_back_as_they_were_set_last(
    store: Store, before: RoomSettings, after: RoomSettings, version: int, at: datetime, later: datetime
) -> None:
    old = Room(performer_id="star", policy=store.policy, version=1, last_at=moment(), settings=before)
    new = Room(performer_id="star", policy=store.policy, version=version, last_at=at, settings=after)
    with passing(store) as connection:
        save(connection, Changes(rooms={"star": old}, renewed={"star"}))
        save(connection, Changes(rooms={"star": new}, renewed={"star"}))
        assert reading.load_rooms(connection, store.policy, ["star"]) == {"star": new}
        moved = replace(new, version=version + 1, last_at=later)
        save(connection, Changes(rooms={"star": moved}))
        assert reading.load_rooms(connection, store.policy, ["star"]) == {"star": moved}


@thorough
@given(before=operations, after=operations)
def test_an_operation_comes_back_as_it_was_written_last(store: Store, before: Operation, after: Operation) -> None:
    after = replace(after, operation_id=before.operation_id)
    with passing(store) as connection:
        save(connection, Changes(operations={before.item_id: before}))
        assert wallet_operations.operation_of(connection, before.item_id) == (before, False)
        save(connection, Changes(operations={after.item_id: after}))
        assert wallet_operations.find_operation(connection, after.operation_id) == after
        assert wallet_operations.operation_of(connection, after.item_id) == (after, False)


def test_the_largest_legal_item_comes_back(store: Store) -> None:
    metadata = decode(encode({"nested": [[[{"deep": "\U0001f3a4" * 1000}]]], "big": 2**64 - 1, "small": 5e-324}))
    item = build_item(
        title="\U0001f469\u200d\U0001f3a4" * 60,
        description="\u202eright to left\u202c \\ ' \" %s :name " * 50,
        tokens=LARGEST_INTEGER,
        duration_seconds=86_400,
        metadata=metadata,
        settled_tokens=LARGEST_INTEGER,
    )
    with passing(store) as connection:
        save(connection, Changes(new_items={item.item_id: item}))
        assert reading.find_item(connection, item.item_id) == item


def test_a_time_is_kept_to_the_millisecond_and_ordered_as_a_number(store: Store) -> None:
    times = [datetime(1, 1, 1, tzinfo=UTC), moment(-0.001), moment(), moment(0.001), datetime(9999, 12, 31, tzinfo=UTC)]
    with passing(store) as connection:
        for number, at in enumerate(times):
            item = build_item(number, created_at=at)
            save(connection, Changes(new_items={item.item_id: item}))
        ordered = select(ITEMS.c.created_at).order_by(ITEMS.c.created_at)
        assert list(connection.execute(ordered).scalars()) == times
        later = select(ITEMS.c.created_at).where(ITEMS.c.created_at > moment()).order_by(ITEMS.c.created_at)
        assert list(connection.execute(later).scalars()) == times[3:]


def test_an_ended_item_has_the_time_of_its_end_and_a_due_one_its_deadline() -> None:
    at = milliseconds(moment(1))
    assert records.item_values(build_item(), moment(1))["due_at"] == at
    assert records.item_values(build_item(), None)["due_at"] is None
    assert records.item_values(build_item(), None)["ended_at"] is None
    ended = [build_item(finished_at=moment(1)), build_item(abandoned_at=moment(1)), build_item(refunded_at=moment(1))]
    assert [records.item_values(item, None)["ended_at"] for item in ended] == [at] * 3
    # A finished item that is refunded afterwards keeps its place in the history.
    both = build_item(finished_at=moment(1), refunded_at=moment(3600))
    assert records.item_values(both, None)["ended_at"] == at
