"""PUBLIC_ROOMS=false: viewers need a token, over HTTP and on the socket."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.server.limits import Limits
from app.wire.frames import BEARER_PROTOCOL, SUBPROTOCOL
from tests.support.server import PUBLIC_FIELDS, Api, Server, fresh, ok, problem, serving


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("private"), public_rooms=False) as server:
        yield server


@pytest.fixture
async def api(private: Server) -> AsyncIterator[Api]:
    async with private.api() as api:
        yield api


async def test_a_room_is_read_with_a_token_only(api: Api, private: Server, performer_id: str) -> None:
    await api.intake(performer_id)
    for path in (f"/v1/performers/{performer_id}/queue", f"/v1/performers/{performer_id}/queue/depth"):
        problem(await api.get(path), 401, "UNAUTHORIZED")
        for token in (private.viewer("ada"), private.feature(), private.performer(performer_id), private.admin):
            ok(await api.get(path, token))
    (shown,) = (await api.queue(performer_id, private.viewer("ada")))["items"]
    assert set(shown) == PUBLIC_FIELDS


async def test_nothing_is_sent_before_auth(api: Api, private: Server, performer_id: str) -> None:
    item = await api.intake(performer_id)
    async with private.live(performer_id) as live:
        await api.intake(performer_id)
        with pytest.raises(TimeoutError):
            await live.next(0.2)
        await live.send({"type": "auth", "token": private.viewer(item["userId"])})
        assert (await live.next())["type"] == "welcome"
        snapshot = await live.next()
        assert (snapshot["type"], len(snapshot["items"]), len(snapshot["mine"])) == ("snapshot", 2, 1)


async def test_a_token_in_the_header_is_as_good(private: Server, performer_id: str) -> None:
    async with private.live(performer_id, private.viewer("ada")) as live:
        assert [(await live.next())["type"], (await live.next())["type"]] == ["welcome", "snapshot"]


async def test_a_token_in_an_offered_subprotocol_is_as_good(private: Server, performer_id: str) -> None:
    offered = [SUBPROTOCOL, BEARER_PROTOCOL + private.viewer("ada")]
    async with private.live(performer_id, subprotocols=offered) as live:
        assert live.connection.subprotocol == SUBPROTOCOL
        welcome = await live.next()
        assert (welcome["type"], welcome["sub"]) == ("welcome", "ada")
        assert (await live.next())["type"] == "snapshot"


async def test_auth_must_come_within_five_seconds(tmp_path: Path, performer_id: str) -> None:
    assert Limits().auth_seconds == 5
    limits = Limits(auth_seconds=0.1)
    with serving(tmp_path, public_rooms=False, limits=limits) as server:
        async with server.live(performer_id) as live:
            assert await live.closed() == 4500
            assert live.frames == []


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"type": "ping"}, 4500),
        ({"type": "resync"}, 4500),
        ({"type": "start-next", "id": "1"}, 4500),
        ({"type": "auth"}, 4500),
        ({"type": "auth", "token": ""}, 4500),
        ({"type": "auth", "token": 5}, 4500),
        ({"type": "auth", "token": "let-me-in"}, 4500),
        ({"type": "auth", "token": "x", "surprise": 1}, 4500),
        ({"type": "hello"}, 4501),
        ([], 4501),
    ],
    ids=repr,
)
async def test_anything_else_than_a_good_auth_ends_the_connection(
    private: Server, performer_id: str, frame: object, code: int
) -> None:
    async with private.live(performer_id) as live:
        await live.send(frame)
        assert await live.closed() == code
        assert live.frames == []


async def test_a_client_that_leaves_before_auth_is_forgotten(private: Server, performer_id: str) -> None:
    async with private.live(performer_id):
        pass
    async with private.live(performer_id, private.viewer("ada")) as live:
        assert (await live.next())["type"] == "welcome"


async def test_a_private_room_is_resumed_with_the_first_auth(api: Api, private: Server, performer_id: str) -> None:
    viewer = private.viewer(fresh("user"))
    await api.intake(performer_id)
    async with private.live(performer_id, viewer) as live:
        await live.until("snapshot")
    await api.intake(performer_id)
    async with private.live(performer_id, query=f"?epoch={live.epoch}&since={live.version}") as back:
        await back.send({"type": "auth", "token": viewer})
        assert (await back.next())["type"] == "welcome"
        update = await back.next()
        assert (update["type"], update["from"], update["version"], update["recovered"]) == ("update", 1, 2, True)


async def test_many_may_wait_for_their_auth_at_once(api: Api, private: Server, performer_id: str) -> None:
    async def arrive() -> str:
        async with private.live(performer_id) as live:
            await live.send({"type": "auth", "token": private.viewer(fresh("user"))})
            await live.until("snapshot")
            return live.epoch

    assert len(set(await asyncio.gather(*(arrive() for _ in range(20))))) == 1
