"""Leases that a wrong clock has given, and leases of a process that is known to be gone: on operations, on webhook
endpoints and on the sending of push notifications."""

from datetime import timedelta

import pytest
from sqlalchemy import Table, select, update

from app.domain import command as do
from app.domain.webhook import Endpoint, EndpointStatus
from app.store import Store, heartbeat, push, webhooks, writing
from app.store.push_tables import PUSH_PROGRESS
from app.store.tables import OPERATIONS
from app.store.webhooks import ENDPOINTS
from tests.support.builders import NOON, PERFORMER, moment
from tests.support.stores import build_writer, queue_item, send, start_of
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import store_fixture as store_fixture

HOUR = timedelta(hours=1)
LEASED = (OPERATIONS, ENDPOINTS, PUSH_PROGRESS)


def lease_all(store: Store) -> None:
    """Lease one of each for an hour."""
    writer = build_writer(store)
    item = queue_item(writer)
    send(writer, start_of(item))
    send(writer, do.Complete(actor=PERFORMER, item_id=item.item_id))
    endpoint = Endpoint(
        owner="wheel",
        name="main",
        url="https://a.example",
        events=None,
        secret="whsec",
        status=EndpointStatus.ACTIVE,
        cursor=None,
        next_attempt_at=NOON,
        created_at=NOON,
        updated_at=NOON,
        lease_until=NOON + HOUR,
    )
    with store.writing() as connection:
        assert writing.claim_operations(connection, now=moment(10**6), lease_until=NOON + HOUR, limit=10)
        webhooks.save_endpoint(connection, endpoint)
        assert push.claim(connection, "process", NOON, NOON + HOUR)


@pytest.mark.parametrize("table", LEASED, ids=lambda table: table.name)
def test_a_lease_that_ends_too_late_is_found_and_shortened_wherever_it_is(store: Store, table: Table) -> None:
    lease_all(store)
    with store.writing() as connection:
        for other in LEASED:
            if other is not table:
                connection.execute(update(other).values(lease_until=NOON))
        assert heartbeat.are_leases_ahead(connection, moment(3599))
        assert not heartbeat.are_leases_ahead(connection, moment(3600))
        heartbeat.shorten_leases(connection, moment(60), moment(3600))
        assert connection.execute(select(table.c.lease_until)).scalars().all() == [NOON + HOUR]
        heartbeat.shorten_leases(connection, moment(60), moment(3599))
        assert connection.execute(select(table.c.lease_until)).scalars().all() == [moment(60)]


def test_a_process_that_owns_its_database_ends_the_leases_of_the_one_before(store: Store) -> None:
    lease_all(store)
    with store.writing() as connection:
        writing.release_claims(connection)
        for table in (OPERATIONS, ENDPOINTS):
            assert connection.execute(select(table.c.lease_until)).scalars().all() == [None]
        assert push.claim(connection, "the next process", NOON, NOON + HOUR)
