"""The event log as a live stream over HTTP: its content, resuming, and its end."""

import asyncio
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from app.server.limits import Limits
from tests.support.server import Api, Json, Server, fresh, ok, problem, serving

WAIT_SECONDS = 10


class Stream:
    """A reader of server-sent events, written from the standard alone."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()
        self.last_id: str | None = None

    async def next(self) -> Json | None:
        """The next event's data; None at the end of the stream. Skips comments and `retry`."""
        data: str | None = None
        async with asyncio.timeout(WAIT_SECONDS):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if name == "id":
                    self.last_id = value
                elif name == "data":
                    assert data is None, "one line of data an event"
                    data = value
                elif not line and data is not None:
                    event: Json = json.loads(data)
                    assert event["cursor"] == self.last_id
                    return event
        return None

    async def take(self, count: int) -> list[Json]:
        events = [await self.next() for _ in range(count)]
        assert None not in events, "the stream ended"
        return [event for event in events if event is not None]

    async def comment(self) -> str:
        """The next comment; skips events before it."""
        async with asyncio.timeout(WAIT_SECONDS):
            async for line in self._lines:
                if line.startswith(":"):
                    return line
        raise AssertionError("the stream ended")


@asynccontextmanager
async def streamed(api: Api, token: str | None, query: str = "", last_id: str | None = None) -> AsyncIterator[Stream]:
    headers = {"Accept": "text/event-stream"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    async with api.http.stream("GET", f"/v1/events{query}", headers=headers) as response:
        if response.status_code != 200:
            await response.aread()
        yield Stream(response)


async def paged(api: Api, token: str, query: str = "") -> list[Json]:
    events: list[Json] = []
    after = ""
    while page := ok(await api.get(f"/v1/events?limit=1000{query}{after}", token))["events"]:
        events += page
        after = f"&after={page[-1]['cursor']}"
    return events


# Over HTTP


async def test_a_stream_has_past_events_and_then_new_ones(api: Api, server: Server, performer_id: str) -> None:
    item = await api.intake(performer_id)
    async with streamed(api, server.performer(performer_id)) as stream:
        assert stream.response.headers["Content-Type"].startswith("text/event-stream")
        assert stream.response.headers["Cache-Control"] == "no-store"
        assert stream.response.headers["X-Request-ID"]
        was = await stream.take(1)
        await api.command("start", item)
        await api.command("complete", item)
        came = await stream.take(2)
    assert [event["event"] for event in was + came] == [
        "queue.item.created",
        "queue.item.started",
        "queue.item.finished",
    ]
    assert was + came == await paged(api, server.performer(performer_id))


async def test_an_event_is_sent_as_soon_as_it_is_committed(api: Api, server: Server, performer_id: str) -> None:
    async with streamed(api, server.performer(performer_id)) as stream:
        for number in range(1, 6):
            await api.intake(performer_id)
            (event,) = await stream.take(1)
            assert event["version"] == number


async def test_a_stream_goes_on_after_the_last_event_seen(api: Api, server: Server, performer_id: str) -> None:
    for _ in range(4):
        await api.intake(performer_id)
    performer = server.performer(performer_id)
    events = await paged(api, performer)
    cursors = [event["cursor"] for event in events]
    async with streamed(api, performer, f"?after={cursors[0]}") as stream:
        assert await stream.take(3) == events[1:]
    async with streamed(api, performer, last_id=cursors[2]) as stream:
        assert await stream.take(1) == events[3:]
    # A reader that comes back repeats its address.
    async with streamed(api, performer, f"?after={cursors[0]}", last_id=cursors[1]) as stream:
        assert await stream.take(2) == events[2:]


async def test_a_reader_sees_only_what_it_may(api: Api, server: Server) -> None:
    one, other = fresh("star"), fresh("star")
    feature = fresh("wheel")
    await api.intake(one, sourceFeature=feature)
    await api.intake(other, sourceFeature=feature)
    await api.intake(one)
    async with AsyncExitStack() as stack:
        room = await stack.enter_async_context(streamed(api, server.performer(one)))
        admin = await stack.enter_async_context(streamed(api, server.admin, f"?performerId={other}"))
        own = await stack.enter_async_context(streamed(api, server.feature(feature)))
        await api.change(other, announcement="Hello")
        await api.intake(other)
        await api.intake(one, sourceFeature=feature)
        assert [event["performerId"] for event in await room.take(3)] == [one] * 3
        assert [event["performerId"] for event in await admin.take(3)] == [other] * 3
        assert [event["item"]["sourceFeature"] for event in await own.take(3)] == [feature] * 3


async def test_a_caller_who_may_not_read_the_log_may_not_stream_it(api: Api, server: Server, performer_id: str) -> None:
    for token, query, status, code in (
        (None, "", 401, "UNAUTHORIZED"),
        (server.viewer("ada"), "", 403, "FORBIDDEN"),
        (server.performer(performer_id), "?performerId=another", 403, "FORBIDDEN"),
        (server.admin, "?performerId=a%20b", 422, "VALIDATION_ERROR"),
        (server.admin, "?after=yesterday", 422, "VALIDATION_ERROR"),
    ):
        async with streamed(api, token, query) as stream:
            problem(stream.response, status, code)
    async with streamed(api, server.admin, last_id="yesterday") as stream:
        refusal = problem(stream.response, 422, "VALIDATION_ERROR")
        assert refusal["errors"][0]["field"] == "Last-Event-ID"


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/*", ""])
async def test_a_request_that_does_not_accept_an_event_stream_gets_a_page(
    api: Api, server: Server, accept: str
) -> None:
    token = f"Bearer {server.admin}"
    response = await api.http.get("/v1/events?limit=1", headers={"Authorization": token, "Accept": accept})
    assert set(ok(response)) == {"events", "next"}


async def test_the_head_of_a_stream_is_that_of_a_page(api: Api, server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.admin}", "Accept": "text/event-stream"}
    response = await api.http.head("/v1/events", headers=headers)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"


async def test_nothing_is_skipped_or_repeated_however_often_the_reader_comes_back(api: Api, server: Server) -> None:
    chance = random.Random(7)
    stars = [fresh("star") for _ in range(3)]
    feature = fresh("wheel")

    async def work(performer_id: str) -> None:
        for _ in range(20):
            item = await api.intake(performer_id, sourceFeature=feature, queueMode=chance.choice(["on", "off"]))
            if item["status"] == "created":
                await api.command("abandon", item)

    seen: list[Json] = []
    last_id: str | None = None
    async with asyncio.TaskGroup() as group:
        for performer_id in stars:
            group.create_task(work(performer_id))
        while len(seen) < 120:
            async with streamed(api, server.feature(feature), last_id=last_id) as stream:
                seen += await stream.take(min(chance.randint(1, 15), 120 - len(seen)))
                last_id = stream.last_id
    # The log goes on: the wallet confirms the refunds.
    assert seen == (await paged(api, server.feature(feature)))[: len(seen)]


async def test_a_stream_ends_when_its_token_does(api: Api, server: Server, performer_id: str) -> None:
    token = server.sign("performer", performer_id, ttl_seconds=2)
    async with streamed(api, token) as stream:
        assert await stream.next() is None


# The end


async def test_a_stopping_service_ends_its_streams_and_waits_for_none(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(serving(tmp_path))
        async with server.api() as api:
            await api.intake("mira")
            async with streamed(api, server.admin) as one, streamed(api, server.admin) as other:
                for stream in (one, other):
                    await stream.take(1)
                began = time.monotonic()
                stopping = asyncio.create_task(asyncio.to_thread(stack.close))
                # A clean end, where a connection that is cut would raise.
                assert await one.next() is None
                assert await other.next() is None
                await stopping
    assert time.monotonic() - began < 4


@dataclass
class Deaf:
    """A client that requests a stream and then reads nothing of it."""

    server: Server
    connection: socket.socket = field(default_factory=socket.socket)

    def __enter__(self) -> "Deaf":
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.connection.connect(("127.0.0.1", self.server.port))
        request = (
            f"GET /v1/events HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {self.server.admin}\r\n"
            "Accept: text/event-stream\r\n\r\n"
        )
        self.connection.sendall(request.encode())
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


async def fill(api: Api, megabytes: int) -> None:
    """Make a history that is larger than the kernel's buffers."""
    metadata = {"padding": "x" * 8000}
    for _ in range(megabytes):
        # Created, started and finished in one step: three events with the whole item in each.
        await asyncio.gather(*(api.intake("mira", queueMode="off", metadata=metadata) for _ in range(42)))


async def streams(api: Api) -> int:
    (line,) = [
        line for line in (await api.get("/metrics")).text.splitlines() if line.startswith("queue_event_streams ")
    ]
    return round(float(line.rpartition(" ")[2]))


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await holds():
            pass


async def test_a_reader_that_takes_nothing_is_cut_off(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(write_seconds=2.0)) as server:
        async with server.api() as api:
            await fill(api, 8)
            with Deaf(server):
                await until(lambda: has(api, 1))
                async with streamed(api, server.admin) as honest:
                    # A client that reads gets everything meanwhile.
                    assert len(await honest.take(300)) == 300
                await until(lambda: has(api, 0))


async def has(api: Api, count: int) -> bool:
    return await streams(api) == count


async def test_a_stopping_service_does_not_wait_for_a_reader_that_takes_nothing(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(serving(tmp_path))
        async with server.api() as api:
            await fill(api, 8)
            with Deaf(server):
                await until(lambda: has(api, 1))
                began = time.monotonic()
                await asyncio.to_thread(stack.close)
    assert time.monotonic() - began < 4
