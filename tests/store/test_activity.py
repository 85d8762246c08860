"""The counted log and the items' own rows give the same figures, however much of the log has been counted."""

from collections.abc import Mapping
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import text

from app.api import analytics
from app.domain import activity as kinds
from app.domain import command as do
from app.domain.activity import bucket, duration
from app.domain.command import Mode
from app.domain.item import Item, Reason
from app.domain.operation import Operation, OperationStatus, Receipt
from app.engine.writer import Writer
from app.store import Store, activity, pruning, reading
from app.store.tables import milliseconds
from app.wire.report_shapes import Analytics
from tests.support.builders import NOON, PERFORMER, moment
from tests.support.stores import (
    Database,
    HandClock,
    build_writer,
    queue_item,
    send,
    start_of,
)
from tests.support.stores import database_fixture as database_fixture

SPAN = activity.SPAN_MS / 1000
ALL = (moment(-86_400), moment(86_400))


def count(store: Store, *, at_most: int = activity.EVENTS_AT_ONCE) -> None:
    while True:
        with store.reading() as connection:
            batch = activity.next_batch(connection, at_most)
        if batch is None:
            return
        with store.writing() as connection:
            assert activity.add(connection, batch)


def counted(store: Store, start: float, end: float) -> Analytics:
    """The figures of the log, between two times in seconds after noon."""
    first, last = moment(start), moment(end)
    with store.reading() as connection:
        total = activity.total(connection, milliseconds(first), milliseconds(last))
    assert total is not None
    return analytics.report(total, first, last, None)


def of_items(store: Store, start: float, end: float) -> Analytics:
    first, last = moment(start), moment(end)
    with store.reading() as connection:
        total = analytics.total_of(activity.lives(connection, first, last, None), first, last)
    return analytics.report(total, first, last, None)


def assert_alike(one: Analytics, other: Analytics) -> None:
    """Check that two figures are equal, except for rounded durations."""
    exact, rounded = flat(one), flat(other)
    assert exact.keys() == rounded.keys()
    for name, value in exact.items():
        if "Seconds.p" in name and isinstance(value, float):
            assert rounded[name] == pytest.approx(value, rel=0.011, abs=0.011), name
        else:
            assert rounded[name] == value, name


def flat(value: object, name: str = "") -> dict[str, object]:
    if isinstance(value, Mapping):
        return {k: v for key, each in value.items() for k, v in flat(each, f"{name}.{key}").items()}
    if isinstance(value, list):
        return {k: v for number, each in enumerate(value) for k, v in flat(each, f"{name}.{number}").items()}
    return {name: float(value) if isinstance(value, int) else value}


class Night:
    """A performer's night with every kind of event of an item."""

    def __init__(self, store: Store, seed: int = 1) -> None:
        self.clock = HandClock()
        self.random = Random(seed)
        self.writer: Writer = build_writer(store, self.clock)
        self.owed: list[tuple[Item, Operation]] = []
        self.arrived = 0
        self.waiting: list[Item] = []
        self.on_stage: Item | None = None

    def arrive(self, **fields: Any) -> Item:
        self.arrived += 1
        item_id = f"{reading.first_id(self.clock())}-7000-8000-{self.arrived:012x}"
        return queue_item(self.writer, self.arrived, item_id=item_id, **fields)

    def live(self, steps: int) -> None:
        waiting = self.waiting
        for _ in range(steps):
            self.clock.wait(self.random.choice([0.1, 3, 20, 70, 250]))
            kind = self.random.choice(["wheel", "dice", "song"])
            chance = self.random.random()
            if chance < 0.4 or not waiting:
                waiting.append(self.arrive(source_feature=kind))
            elif chance < 0.45:
                self.arrive(source_feature=kind, queue_mode=Mode.OFF)
            elif self.on_stage is None and chance < 0.6:
                self.on_stage = waiting.pop(0)
                send(self.writer, start_of(self.on_stage))
            elif self.on_stage is not None and chance < 0.75:
                split = self.random.choice([None, 30])
                self.end(do.Complete(actor=PERFORMER, item_id=self.on_stage.item_id, refund_tokens=split))
                self.on_stage = None
            elif chance < 0.85:
                item = waiting.pop(self.random.randrange(len(waiting)))
                self.end(do.Refund(actor=PERFORMER, item_id=item.item_id, reason=Reason.USER_CANCELLED))
            elif chance < 0.9:
                self.end(do.Abandon(actor=PERFORMER, item_id=waiting.pop().item_id, reason=Reason.TECHNICAL_ERROR))
            elif self.owed:
                self.confirm(self.owed.pop(self.random.randrange(len(self.owed))))

    def end(self, command: do.Complete | do.Refund | do.Abandon) -> None:
        outcome = send(self.writer, command)
        assert outcome.item is not None
        assert outcome.operation is not None
        self.owed.append((outcome.item, outcome.operation))

    def confirm(self, owed: tuple[Item, Operation]) -> None:
        item, operation = owed
        done = replace(operation, status=OperationStatus.DONE, attempts=1, updated_at=self.clock())
        receipt = Receipt(
            settled_tokens=operation.settle_tokens, refunded_tokens=operation.refund_tokens, transaction_id="receipt"
        )
        send(self.writer, do.Confirm(item_id=item.item_id, operation=done, receipt=receipt))


STORED = {
    # kind, number: value
    ("created", 0): 90,
    ("started", 0): 80,
    ("finished", 0): 70,
    ("abandoned", 0): 9,
    ("refunded", 0): 14,
    ("settled", 0): 65,
    ("left_finished", 0): 60,
    ("left_abandoned", 0): 25,
    ("left_refunded", 0): 15,
    ("settled_tokens", 0): 6500,
    ("refunded_tokens", 0): 1400,
    ("estimates", -1): 10,
    ("estimate_error", -1): 0,
    ("estimate_error_size", -1): 0,
    ("estimates", 2): 30,
    ("estimate_error", 2): -60_000,
    ("estimate_error_size", 2): 120_000,
    ("ranged", 2): 20,
    ("inside", 2): 15,
    ("wait", 242): 80,
    ("service", 0): 70,
}
"""Rows as every release since the first that counted has left them in databases."""


def test_figures_that_an_earlier_release_has_counted_are_still_reported(database: Database) -> None:
    store = database.open()
    Night(store).arrive()
    count(store)
    span = milliseconds(moment(6 * SPAN)) // activity.SPAN_MS
    names = ("kind", "number", "value")
    rows = [dict(zip(names, (*key, value), strict=True)) for key, value in STORED.items()]
    with store.writing() as connection:
        connection.execute(
            text(f"INSERT INTO activity VALUES ({span}, 'wheel', :kind, :number, :value)"),
            rows,
        )
    figures = counted(store, 6 * SPAN, 7 * SPAN)
    assert figures["counts"] == {
        "created": 90,
        "started": 80,
        "finished": 70,
        "abandoned": 9,
        "refunded": 14,
        "settled": 65,
    }
    assert (figures["abandonRate"], figures["refundRate"]) == (0.25, 0.15)
    assert figures["tokens"] == {"settled": 6500, "refunded": 1400}
    assert figures["waitSeconds"] == {"p50": 60.385, "p90": 60.385}
    assert figures["serviceSeconds"] == {"p50": 0.005, "p90": 0.005}
    assert figures["estimateError"] == {"count": 40, "meanAbsoluteSeconds": 3, "biasSeconds": -1.5}
    assert figures["estimateByAhead"][2] == {
        "aheadFrom": 2,
        "aheadTo": 3,
        "count": 30,
        "meanAbsoluteSeconds": 4,
        "biasSeconds": -2,
        "rangeRate": 2 / 3,
        "insideRate": 3 / 4,
    }


@pytest.mark.parametrize("at_once", [7, 5000])
def test_the_counted_log_gives_the_figures_of_the_items(database: Database, at_once: int) -> None:
    store = database.open()
    night = Night(store)
    random = Random(2)
    for number in range(3):
        store.compact = number != 1  # both layouts of events in one log
        night.live(70)
        count(store, at_most=at_once)
    night.live(20)  # has not been counted yet
    seconds = (night.clock() - NOON).total_seconds()
    assert seconds > 6 * SPAN
    spans = [(0.0, seconds + 1), (SPAN, 4 * SPAN), (SPAN + 1, SPAN + 90)]
    for _ in range(10):
        start = random.uniform(0, seconds)
        spans.append((start, random.uniform(start + 1, seconds + 2)))
    for start, end in spans:
        assert_alike(of_items(store, start, end), counted(store, start, end))


def test_every_kind_has_been_there(database: Database) -> None:
    store = database.open()
    Night(store).live(500)
    with store.reading() as connection:
        total = activity.total(connection, *map(milliseconds, ALL))
    assert total is not None
    assert {kind for _, kind, _ in total} == {
        value for name, value in vars(kinds).items() if name.isupper() and isinstance(value, str)
    }
    assert {number for _, kind, number in total if kind == kinds.ESTIMATES} > {0, 1, 2}


def test_a_refund_that_is_confirmed_after_it_was_counted_is_added_where_it_belongs(database: Database) -> None:
    store = database.open()
    night = Night(store)
    item = night.arrive(tokens=70)
    night.end(do.Refund(actor=PERFORMER, item_id=item.item_id, reason=Reason.USER_CANCELLED))
    count(store)
    assert counted(store, 0, SPAN)["tokens"]["refunded"] == 0
    night.clock.wait(3 * SPAN)
    night.confirm(night.owed.pop())
    for _ in range(2):
        assert counted(store, 0, SPAN)["tokens"]["refunded"] == 70
        assert counted(store, SPAN, 4 * SPAN)["tokens"]["refunded"] == 0
        count(store)


def test_of_two_processes_that_count_the_same_one_is_too_late(database: Database) -> None:
    store = database.open()
    night = Night(store)
    for _ in range(2):
        night.live(20)
        with store.reading() as connection:
            batch = activity.next_batch(connection)
        assert batch is not None
        added = []
        for _ in range(2):
            with store.writing() as connection:
                added.append(activity.add(connection, batch))
        assert added == [True, False]
    seconds = (night.clock() - NOON).total_seconds()
    assert_alike(of_items(store, 0, seconds + 1), counted(store, 0, seconds + 1))


def test_items_removed_by_retention_stay_counted(database: Database) -> None:
    store = database.open()
    night = Night(store)
    night.live(100)
    while night.owed:
        night.confirm(night.owed.pop())
    count(store)
    hours = (night.clock() - NOON).total_seconds() // SPAN * SPAN + SPAN
    before = counted(store, 0, hours)
    with store.writing() as connection:
        pruning.prune_items(connection, night.clock() + timedelta(days=1), at_most=1000)
        assert connection.execute(text("SELECT count(*) FROM items")).scalar_one() < 30
    assert counted(store, 0, hours) == before
    night.arrive()
    count(store)
    assert counted(store, 0, hours + SPAN)["counts"]["created"] == before["counts"]["created"] + 1


def test_a_log_that_has_hardly_been_counted_is_not_answered_from(database: Database) -> None:
    store = database.open()
    Night(store).live(50)
    with store.reading() as connection:
        assert activity.total(connection, *map(milliseconds, ALL), longest_tail=10) is None
    count(store)
    with store.reading() as connection:
        assert activity.total(connection, *map(milliseconds, ALL), longest_tail=10) is not None


@pytest.mark.parametrize("at", [0, 1, 12, 499, 1000, 60_000, 3_599_999, 86_400_000])
def test_a_duration_is_kept_to_one_per_cent_and_five_milliseconds(at: int) -> None:
    assert duration(bucket(at)) == pytest.approx(at, rel=0.01, abs=5.5 + 0.01 * at)
