"""Retention waits for webhook endpoints with undelivered events, for a limited time."""

from datetime import timedelta
from typing import Any

import pytest

from app.domain.webhook import ADMINISTRATORS, Endpoint, EndpointStatus
from app.store import Store, event_log, pruning, webhooks
from app.store.pruning import LONGEST_HOLD
from app.store.webhooks import EVENTS_REMOVED
from tests.support.builders import NOON, moment
from tests.support.stores import HandClock, build_writer, queue_item
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import store_fixture as store_fixture

DAY = 86_400


def endpoint(owner: str, cursor: str | None, **fields: Any) -> Endpoint:
    values: dict[str, Any] = {
        "name": "main",
        "url": "https://a.example",
        "events": None,
        "secret": "whsec",
        "status": EndpointStatus.PARKED,
        "next_attempt_at": NOON,
        "created_at": NOON,
        "updated_at": NOON,
    }
    return Endpoint(owner=owner, cursor=cursor, **{**values, **fields})


def held_back(store: Store, days: float) -> float:
    """The cutoff for items when one `days` after noon is requested; in days after noon."""
    with store.writing() as connection:
        return (pruning.held_back(connection, moment(days * DAY)) - NOON) / timedelta(days=1)


@pytest.fixture(name="cursors")
def cursors_fixture(store: Store) -> list[str]:
    """An event of `wheel` and one of `dice` on each of three days, and the cursors of all six."""
    clock = HandClock()
    writer = build_writer(store, clock)
    for _ in range(3):
        for feature in ("wheel", "dice"):
            queue_item(writer, source_feature=feature)
        clock.wait(DAY)
    with store.reading() as connection:
        return [logged.cursor for logged in event_log.log_events(connection, after=None, limit=10)]


def keep(store: Store, *endpoints: Endpoint) -> None:
    with store.writing() as connection:
        for each in endpoints:
            webhooks.save_endpoint(connection, each)


@pytest.mark.parametrize(("given", "held"), [(0, 1), (1, 1), (2, 2), (3, 2)])
def test_events_that_a_parked_endpoint_has_not_got_are_kept(
    store: Store, cursors: list[str], given: int, held: int
) -> None:
    keep(store, endpoint("wheel", cursors[given]))
    assert held_back(store, 2.5) == held
    assert held_back(store, 0.5) == 0.5


def test_an_endpoint_that_fails_counts_and_one_that_only_has_no_events_does_not(
    store: Store, cursors: list[str]
) -> None:
    keep(store, endpoint("wheel", cursors[0], status=EndpointStatus.ACTIVE), endpoint("song", None))
    assert held_back(store, 2.5) == 2.5
    keep(store, endpoint(ADMINISTRATORS, cursors[1], status=EndpointStatus.ACTIVE, failing_since=NOON))
    assert held_back(store, 2.5) == 1


def test_retention_waits_for_a_bounded_time_and_then_says_what_it_has_done(store: Store, cursors: list[str]) -> None:
    keep(store, endpoint("wheel", cursors[0]), endpoint("dice", cursors[-1]))
    longest = LONGEST_HOLD / timedelta(days=1)
    assert held_back(store, longest + 1) == 1
    assert held_back(store, longest + 1.5) == 1.5
    with store.reading() as connection:
        problems = {each.owner: each.last_problem for each in webhooks.endpoints(connection)}
    assert problems == {"wheel": EVENTS_REMOVED, "dice": None}
