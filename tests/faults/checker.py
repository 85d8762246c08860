"""Reads the clients' histories, the database and the wallet's ledger after a run; a contradiction is a violation."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from app.domain.room import Policy
from app.sandbox.ledger_audit import audit, read_totals
from app.store import Store
from app.store.checking import check_database
from app.store.compact import full_name
from app.store.engines import open_engines
from tests.faults.clients import Site, Watcher
from tests.faults.history import Call, Json
from tests.faults.scene import COMMAND_SECONDS, SLACK_SECONDS

NAMES = {"start-next": "started", "complete": "finished", "abandon": "abandoned", "refund": "refunded"}
EXPECTED = {
    "intake": (201, 200, 409),
    "start-next": (200, 409),
    "complete": (200, 409),
    "abandon": (200, 409),
    "refund": (200, 409),
    "pause": (200, 409),
    "resume": (200, 409),
    "retry": (200, 409),
    "retry all": (200,),
}
"""The answers for good that a command may get here; those of other operations are looked at where they are asked."""


@dataclass(frozen=True, slots=True)
class Violation:
    at: float | None
    """When it happened; None: it was found at the end."""
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The service's database at the end."""

    items: dict[str, Json]
    """By id."""
    events: dict[str, list[Json]]
    """By room, in order of their versions."""
    versions: dict[str, int]
    findings: list[str]
    """Of `python -m app check`."""


def read_books(database_url: str) -> Books:
    engines = open_engines(database_url)
    store = Store(engines, Policy())
    try:
        with store.reading() as connection:
            items = [dict(row) for row in connection.execute(text("SELECT * FROM items")).mappings()]
            rows = connection.execute(
                text(
                    "SELECT performer_id, version, name, item_id, to_status, actor_role, reason FROM events"
                    " ORDER BY performer_id, version"
                )
            ).mappings()
            events: defaultdict[str, list[Json]] = defaultdict(list)
            for row in rows:
                events[row["performer_id"]].append({**row, "name": full_name(row["name"])})
            versions = {row[0]: row[1] for row in connection.execute(text("SELECT performer_id, version FROM rooms"))}
        findings = [
            f"check: {result.rule}: {finding}" for result in check_database(store) for finding in result.findings
        ]
    finally:
        engines.dispose()
    return Books(
        items={item["item_id"]: item for item in items}, events=dict(events), versions=versions, findings=findings
    )


def check(site: Site, watchers: Sequence[Watcher], queues: dict[tuple[int, str, bool], Json]) -> list[Violation]:
    """`queues`: by process, room and whether an administrator asked, the queue as it is when all is calm."""
    books = read_books(site.scene.database_url)
    late = [
        *(Violation(at, what) for at, what in site.history.wrong),
        *(Violation(call.began, what) for call in site.history.calls for what in _wrong_with(site, call)),
    ]
    found = [
        *books.findings,
        *_versions(books),
        *_lost_intakes(site, books),
        *_lost_commands(site, books),
        *_intake_order(site, books),
        *_turns(books),
        *_timers(books),
        *_money(site, books),
        *_pictures(site, watchers, queues),
    ]
    return [*late, *(Violation(None, what) for what in found)]


def _wrong_with(site: Site, call: Call) -> Iterator[str]:
    """The problems of one call: a failure, a wrong answer, or none in time."""
    name = f"{call.operation} {call.key} at process {call.node}"
    if call.ended is None:
        return
    if call.status is not None and call.status >= 500 and call.status != 503:
        yield f"{name}: answered with {call.status} {call.body}"
    if call.status is not None and call.problem:
        yield f"{name}: {call.problem}"
    expected = EXPECTED.get(call.operation)
    if expected is not None and call.status is not None and call.status < 500 and call.status not in expected:
        yield f"{name}: answered with {call.status} {call.body.get('code')} {call.body.get('detail')}"
    history = site.history
    seconds = call.ended - call.began
    if history.was_at_rest(call.node, call.began, call.ended, SLACK_SECONDS):
        return
    # A client that stands still itself neither takes an answer nor sees how long it took.
    allowed = COMMAND_SECONDS + SLACK_SECONDS + (lag := history.lag(call.began, call.ended))
    if call.status is None and (not lag or seconds > allowed):
        yield f"{name}: no answer from a process at work after {seconds:.1f} s ({call.problem})"
    elif call.status is not None and seconds > allowed:
        yield f"{name}: answered with {call.status} after {seconds:.1f} s"


def _versions(books: Books) -> Iterator[str]:
    for room, events in books.events.items():
        if [event["version"] for event in events] != list(range(1, books.versions.get(room, 0) + 1)):
            yield f"the versions of room {room} have a gap"


def _lost_intakes(site: Site, books: Books) -> Iterator[str]:
    by_key: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for item in books.items.values():
        by_key[item["source_feature"], item["idempotency_key"]].append(item["item_id"])
    for call in site.history.calls:
        if call.operation not in ("intake", "replay") or not call.is_acknowledged:
            continue
        stored = by_key[call.client, call.key]
        if stored != [call.body["itemId"]]:
            yield f"intake {call.key} was acknowledged as {call.body['itemId']}, stored are {stored}"


def _lost_commands(site: Site, books: Books) -> Iterator[str]:
    reached: defaultdict[str, set[str]] = defaultdict(set)
    for events in books.events.values():
        for event in events:
            if event["item_id"] is not None:
                reached[event["item_id"]].add(event["to_status"])
                reached[event["item_id"]].add(event["name"].rpartition(".")[2])
    for call in site.history.calls:
        if not call.is_acknowledged or "itemId" not in call.body:
            continue
        item_id = call.body["itemId"]
        status = NAMES.get(
            call.operation, {"pause": "paused", "resume": "resumed", "cancel": "refunded"}.get(call.operation)
        )
        if status is not None and status not in reached[item_id]:
            yield f"{call.operation} {call.key} was acknowledged, item {item_id} was never {status}"


def _intake_order(site: Site, books: Books) -> Iterator[str]:
    """Check that an intake which began after another was acknowledged is behind it."""
    began: dict[tuple[str, str], float] = {}
    intakes: defaultdict[str, list[tuple[float, float, int]]] = defaultdict(list)
    created = {
        event["item_id"]: event["version"]
        for events in books.events.values()
        for event in events
        if event["name"] == "queue.item.created"
    }
    for call in site.history.calls:
        if call.operation != "intake":
            continue
        began.setdefault((call.client, call.key), call.began)
        item = books.items.get(call.body.get("itemId", ""))
        if call.is_acknowledged and call.ended is not None and item is not None:
            first = began[call.client, call.key]
            intakes[item["performer_id"]].append((first, call.ended, created[item["item_id"]]))
    for room, known in intakes.items():
        ends, newest, at = sorted((ended, version) for _, ended, version in known), 0, 0
        for first, _, version in sorted(known):
            while at < len(ends) and ends[at][0] < first:
                newest = max(newest, ends[at][1])
                at += 1
            if version < newest:
                yield f"room {room}: an intake stands before one that was acknowledged earlier ({version} < {newest})"


def _turns(books: Books) -> Iterator[str]:
    """Check each start: start-next must take the first item, while no other is on stage."""
    for room, events in books.events.items():
        waiting: list[str] = []
        on_stage: str | None = None
        for event in events:
            item_id, name = event["item_id"], event["name"]
            if name == "queue.item.created":
                waiting.append(item_id)
            elif name == "queue.item.started":
                if on_stage is not None:
                    yield f"room {room}: {item_id} was started while {on_stage} was on stage"
                if not waiting or waiting[0] != item_id:
                    yield f"room {room}: {item_id} was started out of turn"
                on_stage = item_id
            if name != "queue.item.created" and event["to_status"] != "created" and item_id in waiting:
                waiting.remove(item_id)
            if item_id is not None and item_id == on_stage and event["to_status"] not in (None, "started"):
                on_stage = None


def _timers(books: Books) -> Iterator[str]:
    """Check that neither downtime nor a wrong clock has ended an item."""
    for room, events in books.events.items():
        for event in events:
            if event["name"] == "queue.item.abandoned" and event["actor_role"] == "system":
                yield f"room {room}: {event['item_id']} was abandoned by a timer ({event['reason']})"


def _money(site: Site, books: Books) -> Iterator[str]:
    wallet = site.scene.wallet
    yield from (f"ledger: {finding}" for finding in audit(wallet.engine))
    if not read_totals(wallet.engine).balanced:
        yield "ledger: the books do not balance"
    escrows, resolutions = wallet.escrows(), wallet.resolutions()
    queued: set[str] = set()
    for item in books.items.values():
        escrow_id, item_id = item["escrow_transaction_id"], item["item_id"]
        queued.add(escrow_id)
        if len(orders := wallet.orders[escrow_id]) > 1:
            yield f"escrow {escrow_id} of item {item_id} was ordered in several ways: {sorted(orders)}"
        yield from _escrow_of(item, escrows[escrow_id], resolutions.get(escrow_id, 0))
    for escrow_id, (status, *_) in escrows.items():
        if escrow_id not in queued and status != "held":
            yield f"escrow {escrow_id} is {status}, and no item has it"


def _escrow_of(item: Json, escrow: tuple[Any, int, int], resolutions: int) -> Iterator[str]:
    status, settled, refunded = escrow
    name = f"item {item['item_id']}, {item['status']}, payment {item['wallet_status']}"
    if item["status"] in ("created", "started"):
        if status != "held" or resolutions:
            yield f"{name}: its escrow is {status}"
        return
    if resolutions != 1:
        yield f"{name}: its escrow was resolved {resolutions} times"
    expected = (item["settled_tokens"] or 0, item["refunded_tokens"] or 0)
    if (settled, refunded) != expected or sum(expected) != item["tokens"]:
        yield f"{name}: settled and refunded {expected} of {item['tokens']} here, {(settled, refunded)} at the wallet"


def _pictures(site: Site, watchers: Sequence[Watcher], queues: dict[tuple[int, str, bool], Json]) -> Iterator[str]:
    for watcher in watchers:
        name = f"socket in {watcher.room} at process {watcher.node}"
        if watcher.final is None:
            version = None if watcher.live is None else watcher.live.version
            yield f"{name} is at version {version} and could not be asked any more"
            continue
        queue = queues.get((watcher.node, watcher.room, watcher.token is not None))
        if queue is None:
            yield f"the queue of {watcher.room} cannot be read at process {watcher.node}"
            continue
        if watcher.final["items"] != queue["items"]:
            yield f"{name} shows other items than the queue"
        if {**watcher.final["room"], "version": 0} != {**queue["room"], "version": 0}:
            yield f"{name} shows another room than the queue: {watcher.final['room']} {queue['room']}"
