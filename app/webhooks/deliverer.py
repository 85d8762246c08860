"""Delivers the event log to webhook endpoints: at least once, and in the log's order for each room.

Progress is a cursor in the database for each endpoint, so that a restart loses nothing. One process at a time claims an
endpoint, for the time of a lease; another one may claim it when the lease ends. Each endpoint with due events has its
own task, so that a slow one does not delay others. Within a page of the log, up to ROOMS_AT_ONCE rooms are delivered in
parallel, the events of a room one after the other. A failure ends the page; the next attempt begins at the first event
that is not delivered.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

from msgspec.structs import replace
from sqlalchemy import Connection

from app.domain.errors import QueueError
from app.domain.event import Logged
from app.domain.webhook import ADMINISTRATORS, Delivery, Endpoint, EndpointStatus
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.store import event_log, webhooks
from app.webhooks.notes import Key, Notes
from app.webhooks.sender import Attempt, Message, Sender
from app.wire.encoding import encode
from app.wire.shapes import logged_event

PAGE = 100
ROOMS_AT_ONCE = 8
POLL_SECONDS = 2.0
"""Between two reads of the database while nothing wakes the deliverer: events of other processes, and retries."""
SOON_SECONDS = 0.1
"""Between two reads of the log while events are committed, so that one read serves many events."""
PAGE_SECONDS = 20.0
"""No event of a page is begun after this time, so that the lease is renewed before it ends."""
LEASE = timedelta(seconds=60)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Pauses in seconds: they double from `base` to `most`; each is drawn at random from the upper half."""

    base: float = 1.0
    most: float = 3600.0
    parked_after: float = 86_400.0
    """An endpoint that has failed for this long is parked."""

    def pause(self, failures: int, random: Random) -> float:
        """Seconds until the next attempt; `failures` counts the failures before the last one."""
        return min(self.most, self.base * 2.0 ** min(failures, 30)) * random.uniform(0.5, 1)


@dataclass(slots=True)
class _PageResult:
    delivered: set[str] = field(default_factory=set)
    """Cursors."""
    attempts: list[Delivery] = field(default_factory=list)
    failed: Attempt | None = None


class Deliverer:
    """`run` delivers until it is cancelled. Used from the event loop only."""

    def __init__(
        self,
        *,
        queries: Queries,
        lanes: Lanes,
        sender: Sender,
        clock: Callable[[], datetime],
        random: Random,
        retries: RetryPolicy | None = None,
    ) -> None:
        self._queries = queries
        self._lanes = lanes
        self._sender = sender
        self._clock = clock
        self._random = random
        self._retries = retries or RetryPolicy()
        self._wake = asyncio.Event()
        self._has_endpoints = True
        """Whether there was an active endpoint at the last look."""
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._seen: Notes[str] = Notes()
        """The cursor up to which the log holds nothing for an endpoint; in memory only."""
        self._sent: Notes[set[str]] = Notes()
        """Cursors delivered beyond an endpoint's own cursor, because an earlier event of another room failed."""
        self.delivered = 0
        self.failed = 0

    def wake(self) -> None:
        """A hint that an endpoint is new or has been resumed."""
        self._wake.set()

    def committed(self) -> None:
        """A hint that there are new events."""
        # To look for endpoints at each commit while there are none would take a tenth more CPU for an intake that 1,000
        # sockets watch (`bench --without endpoints`).
        if self._has_endpoints:
            self._wake.set()

    async def run(self) -> None:
        """Deliver due events until cancelled. Attempts that this cancels are made again after the lease."""
        try:
            while True:
                self._wake.clear()
                found = await self._begin_due()
                await asyncio.sleep(SOON_SECONDS)
                if not found:
                    await self._until_woken()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _until_woken(self) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _begin_due(self) -> bool:
        """Start a task for every endpoint with events to deliver; returns whether there was one."""
        now = self._clock()

        def look(connection: Connection) -> tuple[list[Endpoint], bool]:
            due = webhooks.due_endpoints(connection, now)
            return due, bool(due) or webhooks.has_active(connection)

        due, self._has_endpoints = await self._queries.run(look)
        begun = False
        for endpoint in due:
            key = endpoint.owner, endpoint.name
            if key in self._tasks:
                continue
            page, end = await self._page(endpoint)
            if not page:
                if end is not None:
                    self._seen.put(key, end)
                continue
            task = asyncio.create_task(self._deliver(key))
            self._tasks[key] = task
            task.add_done_callback(lambda _, key=key: self._ended(key))  # type: ignore[misc]
            begun = True
        return begun

    def _ended(self, key: Key) -> None:
        task = self._tasks.pop(key)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, QueueError):
            log.error("delivering to a webhook endpoint failed", exc_info=error)

    async def _deliver(self, key: Key) -> None:
        """Claim an endpoint and deliver to it page by page, until a failure or the end of the log."""
        now = self._clock()
        claimed = await self._lanes.run(lambda connection: webhooks.claim_endpoint(connection, *key, now, now + LEASE))
        while claimed is not None:
            page, end = await self._page(claimed)
            result = await self._send(claimed, page)
            claimed = await self._record(claimed, page, end, result)

    async def _page(self, endpoint: Endpoint) -> tuple[list[Logged], str | None]:
        """The next events for an endpoint, and the cursor of the log's end if this page reaches it."""
        key = endpoint.owner, endpoint.name
        seen = self._seen.get(key)
        after = seen if seen is not None and event_log.is_behind(endpoint.cursor, seen) else endpoint.cursor

        def read(connection: Connection) -> tuple[list[Logged], str | None]:
            feature = None if endpoint.owner == ADMINISTRATORS else endpoint.owner
            page, end = event_log.log_page(connection, after=after, limit=PAGE, source_feature=feature)
            wanted = endpoint.events
            return [each for each in page if wanted is None or each.event.name in wanted], end

        return await self._queries.run(read)

    async def _send(self, endpoint: Endpoint, page: Sequence[Logged]) -> _PageResult:
        result = _PageResult()
        sent = self._sent.get((endpoint.owner, endpoint.name)) or set()
        rooms: defaultdict[str, list[Logged]] = defaultdict(list)
        for logged in page:
            if logged.cursor in sent:
                result.delivered.add(logged.cursor)
            else:
                rooms[logged.event.performer_id].append(logged)
        places = asyncio.Semaphore(ROOMS_AT_ONCE)
        loop = asyncio.get_running_loop()
        until = loop.time() + PAGE_SECONDS

        async def send_room(events: Sequence[Logged]) -> None:
            async with places:
                for logged in events:
                    if result.failed is not None or loop.time() > until:
                        return
                    attempt = await self._sender.send(endpoint, message_of(logged))
                    result.attempts.append(attempt.delivery)
                    if not attempt.delivery.is_delivered:
                        result.failed = attempt
                        return
                    result.delivered.add(logged.cursor)

        async with asyncio.TaskGroup() as group:
            for events in rooms.values():
                group.create_task(send_room(events))
        return result

    async def _record(
        self, claimed: Endpoint, page: Sequence[Logged], end: str | None, result: _PageResult
    ) -> Endpoint | None:
        """Store the result of a page. Returns the endpoint, still claimed, if the next page may begin at once."""
        undelivered = [logged.cursor for logged in page if logged.cursor not in result.delivered]
        key = claimed.owner, claimed.name
        delivered_in_order = []
        for logged in page:
            if logged.cursor not in result.delivered:
                break
            delivered_in_order.append(logged.cursor)
        cursor = claimed.cursor
        if not undelivered and end is not None:
            cursor = end
        elif delivered_in_order:
            cursor = delivered_in_order[-1]
        self.delivered += sum(each.is_delivered for each in result.attempts)
        self.failed += result.failed is not None
        after = self._after_failure(claimed, result.failed) if result.failed else self._after_success(claimed, result)
        goes_on = bool(page) and result.failed is None
        after = replace(after, cursor=cursor, lease_until=self._clock() + LEASE if goes_on else None)
        is_claimed = await self._lanes.run(
            lambda connection: webhooks.record_progress(connection, claimed, after, result.attempts)
        )
        self._sent.drop(key)
        if is_claimed and undelivered and (beyond := result.delivered - set(delivered_in_order)):
            self._sent.put(key, beyond)
        self._seen.drop(key)
        return after if is_claimed and goes_on else None

    def _after_success(self, endpoint: Endpoint, result: _PageResult) -> Endpoint:
        if not result.attempts:
            return endpoint
        return replace(
            endpoint, failures=0, failing_since=None, last_problem=None, last_delivered_at=result.attempts[-1].at
        )

    def _after_failure(self, endpoint: Endpoint, attempt: Attempt) -> Endpoint:
        now, policy = self._clock(), self._retries
        since = endpoint.failing_since or now
        pause = max(policy.pause(endpoint.failures, self._random), min(attempt.retry_after_seconds or 0.0, policy.most))
        parked = attempt.is_gone or now - since >= timedelta(seconds=policy.parked_after)
        if parked:
            log.error("webhook endpoint %s/%s is parked: %s", endpoint.owner, endpoint.name, attempt.delivery.problem)
        return replace(
            endpoint,
            status=EndpointStatus.PARKED if parked else endpoint.status,
            failures=endpoint.failures + 1,
            failing_since=since,
            last_problem=attempt.delivery.problem,
            next_attempt_at=now + timedelta(seconds=pause),
        )


def message_of(logged: Logged) -> Message:
    """The event as a webhook: Standard Webhooks' `type`, `timestamp` and `data`, which is the log's own shape."""
    event = logged.event
    body = {"type": event.name, "timestamp": event.at, "data": logged_event(logged)}
    return Message(
        message_id=f"evt_{logged.cursor}",
        event=event.name,
        performer_id=event.performer_id,
        version=event.version,
        body=encode(body),
    )
