"""The real server on a SQLite file, killed at work: everything it had acknowledged exists afterwards.

KILL_ROUNDS says how often; it is killed and started again on the same file each time.
"""

import os
import random
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from app.domain.command import Role
from app.domain.room import Policy
from app.store import Store, event_log, wallet_operations
from app.store.engines import open_engines
from tests.support.killed_server import PERFORMERS, Client, Load, Request, server, token
from tests.support.stores import assert_consistent

ROUNDS = int(os.environ.get("KILL_ROUNDS", "3"))


@pytest.mark.timeout(60 + 30 * ROUNDS)
def test_a_server_that_is_killed_has_lost_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    path, chance = tmp_path / "queue.db", random.Random()
    everything: list[Request] = []
    for round_number in range(ROUNDS):
        with server(path) as (port, process):
            retry_what_was_not_answered(port, everything)
            check_what_is_served(port, everything)
            with Load(port, round_number) as load:
                load.wait_for_acknowledgements(chance.randrange(1, 250))
                time.sleep(chance.uniform(0, 0.02))  # the moment is meant to be any
                process.send_signal(signal.SIGKILL)
        assert load.failed == []
        everything += load.sent
        check_what_is_stored(path, everything)
    with server(path) as (port, _):
        retry_what_was_not_answered(port, everything)
        assert all(request.is_acknowledged for request in everything if request.path == "/v1/queue/items")
        check_what_is_served(port, everything)
    check_what_is_stored(path, everything)


def retry_what_was_not_answered(port: int, sent: list[Request]) -> None:
    """Repeat requests without an answer, with the same key and body. Repeat the last answered ones as well: they must
    get the same answer."""
    with closing(Client(port)) as client:
        for request in sent:
            if not request.status:
                client.send(request)
                assert request.status in (200, 201, 409), request.answer
        for request in [request for request in sent if request.is_acknowledged][-20:]:
            again = Request(request.path, request.body, request.key, request.token)
            client.send(again)
            assert (again.status, again.replayed) == (200, True)
            assert again.answer["itemId"] == request.answer["itemId"]


def check_what_is_served(port: int, sent: list[Request]) -> None:
    """Check that every queue is in order, with the right positions."""
    admin = token(Role.ADMIN, "admin")
    # A server that is killed early has rooms of those only whom an intake has reached.
    intakes = [request for request in sent if request.is_acknowledged and "performerId" in request.body]
    with closing(Client(port)) as client:
        for performer_id in {str(request.body["performerId"]) for request in intakes}:
            queue = client.get(f"/v1/performers/{performer_id}/queue", admin)
            items = queue["items"]
            assert [item["position"] for item in items] == list(range(1, queue["room"]["depth"] + 1))
            assert [item["status"] for item in items[1:]] == ["created"] * len(items[1:])
            waiting = [item["itemId"] for item in items if item["status"] == "created"]
            assert waiting == sorted(waiting)


def check_what_is_stored(path: Path, sent: list[Request]) -> None:
    """Check that every acknowledged command is in the log once, that the log has no gap, and that the tables agree with
    it."""
    store = Store(open_engines(f"sqlite:///{path}"), Policy(max_depth=1000))
    try:
        happened: set[tuple[str, str, str | None]] = set()
        items = 0
        with store.reading() as connection:
            for entry in event_log.log_events(connection, after=None, limit=10**9):
                item = entry.event.item
                if item is not None:
                    happened.add((item.item_id, item.status, entry.event.from_status))
                    items += entry.event.from_status is None
            operations = wallet_operations.operations_page(connection, status=None, limit=10**6, skip=0).rows
        for performer_id in PERFORMERS:
            assert_consistent(store, performer_id)
    finally:
        store.engines.dispose()
    befores = {"created": None, "started": "created", "finished": "started", "abandoned": "started"}
    acknowledged = [request for request in sent if request.is_acknowledged]
    for request in acknowledged:
        status = request.answer["status"]
        assert (request.answer["itemId"], status, befores[status]) in happened
    assert len({escrow_of(request) for request in sent if "sourceFeature" in request.body}) >= items
    assert len({operation.escrow_transaction_id for operation in operations}) == len(operations)


def escrow_of(request: Request) -> str:
    return str(request.body["escrowTransactionId"])
