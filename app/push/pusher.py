"""Sends push notifications to subscribers, driven by the event log.

One process at a time holds the lease. It reads the log after a cursor in the database, stores a notice for each
subscription in one transaction with the new cursor, and sends the notices. A restart continues at the cursor; attempts
under way are made again, and a browser shows one notification per item. The text of a notice is made when it is sent,
from the item's state at that time; a notice that is no longer true is dropped. A push service that is slow or away
takes only AT_ONE_ORIGIN of the AT_ONCE places. A notice expires within minutes, one about tokens within an hour.
"""

import asyncio
import base64
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random
from traceback import format_tb
from typing import NamedTuple

from app.domain.errors import ItemNotFound, QueueError
from app.domain.push import STALE_AFTER, Moment, Notice, Subscription
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.push.encryption import Encryption
from app.push.words import Text, text_of
from app.store import push
from app.store.push import Progress
from app.webhooks.deliverer import RetryPolicy
from app.webhooks.posting import Answer, Posting
from app.wire.encoding import encode

AT_ONCE = 64
"""Attempts under way at a time."""
AT_ONE_ORIGIN = 8
"""The attempts of these that may go to one push service."""
POLL_SECONDS = 2.0
"""Between two reads of the log while nothing wakes the pusher: events of other processes, and retries."""
SOON_SECONDS = 0.1
"""Between two reads of the log while events are committed, so that one read serves many events."""
LEASE = timedelta(seconds=30)
RETRIES = RetryPolicy(base=2.0, most=300.0)
GONE = (404, 410)
"""The browser has ended the subscription (RFC 8030 section 7.3)."""
AGAIN = (408, 425, 429)
"""Tried again, as is any 5xx."""

log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """The outcome of a notice, or of an attempt."""

    DELIVERED = "delivered"
    RETRIED = "retried"
    """To be sent later: the push service is away or busy."""
    EXPIRED = "expired"
    OUTDATED = "outdated"
    """No longer true, and not sent."""
    GONE = "gone"
    """Removed together with its subscription."""
    REFUSED = "refused"
    """Refused by the push service, or not sendable."""


class _Flight(NamedTuple):
    """An attempt under way."""

    task: asyncio.Task[None]
    origin: str


class Pusher:
    """`run` sends until it is cancelled. Used from the event loop only."""

    def __init__(
        self,
        *,
        queries: Queries,
        lanes: Lanes,
        posting: Posting,
        encryption: Encryption,
        clock: Callable[[], datetime],
        random: Random,
        holder: str,
    ) -> None:
        """`clock`: the clock of the rooms. `holder`: this process's name in the lease."""
        self._queries = queries
        self._lanes = lanes
        self._posting = posting
        self._encryption = encryption
        self._clock = clock
        self._random = random
        self._holder = holder
        self._wake = asyncio.Event()
        self._progress: Progress | None = None
        """None unless this process holds the lease. Its cursor may be ahead of the database's."""
        self._flights: dict[tuple[str, str, str, str], _Flight] = {}
        self.outcomes: Counter[str] = Counter(dict.fromkeys(map(str, Outcome), 0))

    def wake(self) -> None:
        """A hint that there may be something to send."""
        self._wake.set()

    async def run(self) -> None:
        """Send due notices until cancelled. Attempts that this cancels are made again by the next holder."""
        try:
            while True:
                self._wake.clear()
                is_end = True
                if await self._holds_lease():
                    is_end = await self._read()
                    await self._begin_due()
                await asyncio.sleep(SOON_SECONDS)
                if is_end:
                    await self._until_woken()
        finally:
            flights = [flight.task for flight in self._flights.values()]
            for task in flights:
                task.cancel()
            await asyncio.gather(*flights, return_exceptions=True)
            await self._release()

    async def _until_woken(self) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _holds_lease(self) -> bool:
        """Return whether this process holds the lease. Takes or renews it; each time, removes expired rows as well."""
        now, held = self._clock(), self._progress
        if held is not None and held.lease_until - now > LEASE / 2:
            return True
        known = await self._queries.run(push.progress)
        if known is not None and known.holder not in ("", self._holder) and known.lease_until > now:
            self._progress = None
            return False
        if held is None:
            self._progress = await self._lanes.run(
                lambda connection: push.claim(connection, self._holder, now, now + LEASE)
            )
        else:
            await self._advance(held.cursor, [], now)
        if self._progress is None:
            return False
        expired = await self._lanes.run(lambda connection: push.clear(connection, now, now - STALE_AFTER))
        self.outcomes[Outcome.EXPIRED] += expired
        return True

    async def _release(self) -> None:
        """End the lease, so that another process can continue at once."""
        held, self._progress = self._progress, None
        if held is None:
            return
        try:
            await self._lanes.run(lambda connection: push.release(connection, self._holder, held.cursor))
        except QueueError:
            return  # the lease ends by itself

    async def _read(self) -> bool:
        """Store the notices of the next events; returns whether the end of the log was reached."""
        held, now = self._progress, self._clock()
        if held is None:
            return True
        news = await self._queries.run(lambda connection: push.read_news(connection, held.cursor, now))
        if news.notices:
            await self._advance(news.cursor, news.notices, now)
        else:
            self._progress = replace(held, cursor=news.cursor)
        return news.is_end

    async def _advance(self, cursor: str | None, notices: Sequence[Notice], now: datetime) -> None:
        until = now + LEASE
        is_held = await self._lanes.run(
            lambda connection: push.advance(connection, self._holder, cursor, until, notices, now)
        )
        self._progress = Progress(cursor=cursor, holder=self._holder, lease_until=until) if is_held else None

    async def _begin_due(self) -> None:
        """Start an attempt for each due notice, up to AT_ONCE and AT_ONE_ORIGIN."""
        if self._progress is None or len(self._flights) >= AT_ONCE:
            return
        now = self._clock()
        flying = Counter(flight.origin for flight in self._flights.values())
        full = [origin for origin, number in flying.items() if number >= AT_ONE_ORIGIN]
        # An attempt may end while the query runs, which then still finds its notice due.
        under_way = set(self._flights)
        due = await self._queries.run(
            lambda connection: push.due_notices(connection, now, limit=2 * AT_ONCE, without=full)
        )
        for notice, subscription in due:
            if len(self._flights) >= AT_ONCE:
                return
            if notice.key in under_way or flying[subscription.origin] >= AT_ONE_ORIGIN:
                continue
            flying[subscription.origin] += 1
            task = asyncio.create_task(self._attempt(notice, subscription))
            self._flights[notice.key] = _Flight(task, subscription.origin)
            task.add_done_callback(lambda _, notice=notice: self._ended(notice))  # type: ignore[misc]

    def _ended(self, notice: Notice) -> None:
        task = self._flights.pop(notice.key).task
        if not task.cancelled() and (error := task.exception()) is not None:
            _log_failure(notice, error)
        self.wake()

    async def _attempt(self, notice: Notice, subscription: Subscription) -> None:
        try:
            try:
                await self._send(notice, subscription)
            except (ValueError, TypeError, LookupError) as error:
                # An error in this code would happen again at every attempt.
                _log_failure(notice, error)
                await self._finish(notice, Outcome.REFUSED)
        except QueueError as refusal:
            log.warning("a push notification about item %s waits (%s)", notice.item_id, refusal.code)
            # The flight goes on during the pause: the message may have been sent, and only the record failed.
            await asyncio.sleep(RETRIES.pause(notice.attempts + 1, self._random))

    async def _send(self, notice: Notice, subscription: Subscription) -> None:
        text = await self._text(notice, subscription)
        if text is None:
            await self._finish(notice, Outcome.OUTDATED)
            return
        lasts = max(1, int((notice.expires_at - self._clock()).total_seconds()))
        headers, body = self._encryption.encrypted(_payload(notice, text), subscription, lasts)
        headers |= {"urgency": "normal" if notice.moment is Moment.ENDED else "high", "topic": _topic(notice)}
        await self._record(notice, subscription, await self._posting.post(subscription.endpoint, headers, body))

    async def _text(self, notice: Notice, subscription: Subscription) -> Text | None:
        try:
            item, room = await self._queries.item(notice.item_id)
        except ItemNotFound:
            return None
        return text_of(notice.moment, item, room, self._clock(), subscription.language)

    async def _record(self, notice: Notice, subscription: Subscription, answer: Answer) -> None:
        if answer.problem is None:
            await self._finish(notice, Outcome.DELIVERED)
        elif answer.status in GONE:
            user_id, name, endpoint = subscription.user_id, subscription.name, subscription.endpoint
            await self._lanes.run(lambda connection: push.delete_subscription(connection, user_id, name, endpoint))
            self.outcomes[Outcome.GONE] += 1
        elif answer.status is None or answer.status >= 500 or answer.status in AGAIN:
            pause = RETRIES.pause(notice.attempts, self._random)
            again_at = self._clock() + timedelta(seconds=max(pause, answer.retry_after_seconds or 0.0))
            if again_at >= notice.expires_at:
                await self._finish(notice, Outcome.EXPIRED)
            else:
                await self._lanes.run(lambda connection: push.postpone(connection, notice, again_at))
                self.outcomes[Outcome.RETRIED] += 1
        else:
            log.warning(
                "a push service refused the notice about item %s: it answered %s", notice.item_id, answer.status
            )
            await self._finish(notice, Outcome.REFUSED)

    async def _finish(self, notice: Notice, outcome: Outcome) -> None:
        await self._lanes.run(lambda connection: push.finish(connection, notice))
        self.outcomes[outcome] += 1


def _log_failure(notice: Notice, error: BaseException) -> None:
    """Log without the error's own text, which may hold the endpoint."""
    trace = "".join(format_tb(error.__traceback__))
    log.error("a push notification about item %s failed: %s\n%s", notice.item_id, type(error).__name__, trace)


def _payload(notice: Notice, text: Text) -> bytes:
    """The message for the page's service worker. A browser shows the latest notification with a given tag."""
    return encode(
        {
            "title": text.title,
            "body": text.body,
            "tag": notice.item_id,
            "moment": str(notice.moment),
            "performerId": notice.performer_id,
        }
    )


def _topic(notice: Notice) -> str:
    """The item's topic: a push service keeps only the last message of a topic for a browser that is away (RFC 8030
    section 5.4). It is a hash, so that the service does not learn the item's id."""
    return base64.urlsafe_b64encode(hashlib.sha256(notice.item_id.encode()).digest()[:24]).decode()
