"""The event log as it grows: live readers over HTTP (server-sent events), each from its own cursor in the database.

A stream reads one page of the durable log, sends it, and reads the next from its cursor. A commit that this process
makes, or hears of over the bus, wakes it; a slow poll finds any other. So no event is skipped or repeated, and a slow
reader costs the memory of one page. A stream ends when its token expires, when its reader takes nothing for long, and
at once when the process stops; the reader comes back with the cursor of the last event that it got.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Send

from app.domain.errors import RateLimitExceeded, Unavailable
from app.domain.event import Event, Logged
from app.engine.queries import Queries
from app.server.http_protocol import Abort
from app.store import event_log
from app.wire.encoding import encode
from app.wire.shapes import logged_event

PAGE = 100
MOST_STREAMS = 200
STREAMS_A_READER = 20
"""The streams of one feature, performer, moderator or administrator, so that none can use up MOST_STREAMS."""
READS_AT_ONCE = 2
"""The threads of the database readers that all streams together may keep busy."""

EXAMINED_AT_MOST = 1_000
"""The readers by the page of whom it is remembered how far they have looked in vain."""

HEARTBEAT_SECONDS = 15.0
POLL_SECONDS = 2.0
SOON_SECONDS = 0.05
"""The first pause before another read; the pauses double up to POLL_SECONDS. On a shared database a commit's events can
be read only once all older transactions have ended, which may be after the first read."""
LAST_MOMENT_SECONDS = 0.5
"""Seconds that a reader has to take its last page when the process stops."""
RETRY_MILLISECONDS = 2000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How much a process streams and how long it waits. Times in seconds."""

    page: int = PAGE
    streams: int = MOST_STREAMS
    heartbeat: float = HEARTBEAT_SECONDS
    soon: float = SOON_SECONDS
    poll: float = POLL_SECONDS
    last_moment: float = LAST_MOMENT_SECONDS
    stalled: float = 30.0
    """How long a reader may take nothing before it is cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The part of the log that a reader gets; None does not narrow it."""

    performer_id: str | None
    source_feature: str | None

    def takes(self, event: Event) -> bool:
        """Whether an event is in this part of the log."""
        return self.performer_id in (None, event.performer_id) and (
            self.source_feature is None or (event.item is not None and event.item.source_feature == self.source_feature)
        )


class EventLog:
    """The log, by the page and as a stream. Used from the event loop only."""

    def __init__(self, queries: Queries, clock: Callable[[], datetime], pace: Pace = Pace()) -> None:
        """`clock`: the one by which tokens, and with them streams, end."""
        self._pace = pace
        self._queries = queries
        self._clock = clock
        self._reads = asyncio.Semaphore(READS_AT_ONCE)
        self._streams: dict[_Stream, asyncio.Task[Any]] = {}
        """Each stream with the task that sends it, until its last byte has been taken."""
        self._beginning: Counter[str | None] = Counter()
        """By reader, streams whose first page is being read."""
        self._examined: OrderedDict[tuple[Selection, str | None], str | None] = OrderedDict()
        """The cursor up to which the log has nothing for a reader that goes on from another one: a feature with few
        events that asks again and again does not make the database look through those of all others each time."""
        self._stopping = False

    @property
    def streams(self) -> int:
        return len(self._streams)

    def wake(self, events: Sequence[Event]) -> None:
        """Wake the streams that these events, just committed, belong to."""
        for stream in self._streams:
            if any(stream.selection.takes(event) for event in events):
                stream.wake.set()

    async def page(self, selection: Selection, after: str | None, limit: int) -> list[Logged]:
        """The events after a cursor. Raises ValueError for a cursor that this log cannot have given."""
        begin = self._examined.get((selection, after), after)
        page, end = await self._read(selection, begin, limit)
        if not page and end != begin:
            self._examined[selection, after] = end
            self._examined.move_to_end((selection, after))
            if len(self._examined) > EXAMINED_AT_MOST:
                self._examined.popitem(last=False)
        return page

    async def _read(self, selection: Selection, after: str | None, limit: int) -> tuple[list[Logged], str | None]:
        """The events after a cursor, and the cursor to go on from."""
        return await self._queries.run(
            lambda connection: event_log.log_page(
                connection,
                after=after,
                limit=limit,
                performer_id=selection.performer_id,
                source_feature=selection.source_feature,
            )
        )

    async def stream(
        self,
        selection: Selection,
        after: str | None,
        *,
        until: datetime,
        sub: str | None = None,
        abort: Abort | None = None,
    ) -> Response:
        """The events after a cursor and the later ones as they come. `until`: the end of the stream. `sub`: its reader.
        `abort` drops the connection.

        Raises ValueError as `page` does, RateLimitExceeded if the reader has too many streams, and Unavailable if there
        are too many in all, or the process stops.
        """
        if self._stopping:
            raise Unavailable("This process is shutting down; try again.", retry_after_seconds=1)
        if len(self._streams) + self._beginning.total() >= self._pace.streams:
            raise Unavailable("Too many streams are open here; try again later.", retry_after_seconds=10)
        own = sum(stream.sub == sub for stream in self._streams) + self._beginning[sub]
        if sub is not None and own >= STREAMS_A_READER:
            raise RateLimitExceeded("You have too many streams open; end one first.", retry_after_seconds=10)
        self._beginning[sub] += 1
        try:
            first, after = await self._read(selection, after, self._pace.page)
        finally:
            self._beginning[sub] -= 1
            self._beginning = +self._beginning  # without zeros
        stream = _Stream(selection, after, until, sub, abort)
        return _StreamResponse(stream, self._chunks(stream, first), self._streams, self._pace.stalled)

    async def _chunks(self, stream: "_Stream", page: Sequence[Logged]) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        try:
            yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
            beat = loop.time() + self._pace.heartbeat
            pause = self._pace.soon
            while not self._stopping and self._clock() < stream.until:
                if page:
                    yield b"".join(map(_block, page))
                    beat = loop.time() + self._pace.heartbeat
                elif loop.time() >= beat:
                    yield b":\n\n"
                    beat = loop.time() + self._pace.heartbeat
                if len(page) < self._pace.page:
                    woken = await stream.rest(min(pause, max(0.0, beat - loop.time())))
                    pause = self._pace.soon if woken or page else min(self._pace.poll, 2 * pause)
                async with self._reads:
                    page, stream.after = await self._read(stream.selection, stream.after, self._pace.page)
        except Exception:
            # After any failure, perhaps of the database, the reader comes back and goes on from its last event.
            log.warning("a stream of the event log ended early", exc_info=True)

    def disconnect(self, sub: str | None, performer_id: str | None) -> int:
        """Drop the streams that a `sub` reads, or all of a performer's events; returns how many."""
        found = [stream for stream in self._streams if stream.belongs_to(sub, performer_id)]
        for stream in found:
            stream.cut_off()
        return len(found)

    async def stop(self) -> None:
        """End all streams; a reader that does not take its last page in time is cut off."""
        self._stopping = True
        for stream in self._streams:
            stream.wake.set()
        if self._streams:
            await asyncio.wait(self._streams.values(), timeout=self._pace.last_moment)
        for stream in self._streams:
            stream.cut_off()


@dataclass(eq=False, slots=True)
class _Stream:
    selection: Selection
    after: str | None
    """The cursor after which the next page begins: the last event that was read, of this selection or not."""
    until: datetime
    sub: str | None
    abort: Abort | None
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def rest(self, seconds: float) -> bool:
        """Wait until woken, for at most these seconds; returns whether it was woken."""
        try:
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        except TimeoutError:
            return False
        self.wake.clear()
        return True

    def belongs_to(self, sub: str | None, performer_id: str | None) -> bool:
        is_theirs = sub is not None and self.sub == sub
        return is_theirs or (performer_id is not None and self.selection.performer_id == performer_id)

    def cut_off(self) -> None:
        if self.abort is not None:
            self.abort()


class _StreamResponse(StreamingResponse):
    media_type = "text/event-stream"

    def __init__(
        self,
        stream: _Stream,
        chunks: AsyncGenerator[bytes, None],
        streams: "dict[_Stream, asyncio.Task[Any]]",
        stalled_seconds: float,
    ) -> None:
        """`streams` holds the stream while it is being sent."""
        # No proxy on the way may buffer events until there are more of them.
        super().__init__(chunks, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._stream = stream
        self._chunks = chunks
        self._streams = streams
        self._stalled_seconds = stalled_seconds

    async def stream_response(self, send: Send) -> None:
        loop = asyncio.get_running_loop()

        async def send_in_time(message: Message) -> None:
            watchdog = loop.call_later(self._stalled_seconds, self._stream.cut_off)
            try:
                await send(message)
            finally:
                watchdog.cancel()

        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is a coroutine
        self._streams[self._stream] = task
        try:
            async with aclosing(self._chunks):
                await super().stream_response(send_in_time)
        finally:
            del self._streams[self._stream]


def _block(logged: Logged) -> bytes:
    return b"id: %s\ndata: %s\n\n" % (logged.cursor.encode(), encode(logged_event(logged)))
