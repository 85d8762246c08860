"""The beginning of a live socket and its caller: origin, subprotocol, welcome, snapshot, tokens and their refresh."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from sqlalchemy.engine import make_url
from websockets.exceptions import InvalidStatus

from app.live.hub import Hub
from app.parts import utc_now
from app.store.engines import open_engines
from app.store.migrating import migrate
from tests.support.server import (
    INSTANT,
    PUBLIC_FIELDS,
    ROOM_FIELDS,
    WHOLE_FIELDS,
    Api,
    Server,
    fresh,
    serving,
)

SUBPROTOCOL = "performance-queue.v1"


def brief(server: Server, role: str, sub: str, seconds: float) -> str:
    """A token that expires within a moment."""
    claims = {"role": role, "sub": sub, "exp": time.time() + seconds}
    return jwt.encode(claims, server.settings.auth_secret)


# The first frames


async def test_the_first_frames_are_a_welcome_and_the_room_as_it_is(
    api: Api, server: Server, performer_id: str
) -> None:
    items = [await api.intake(performer_id) for _ in range(3)]
    await api.command("start", items[1])
    async with server.live(performer_id) as live:
        welcome, snapshot = await live.next(), await live.next()
    assert set(welcome) == {"type", "role", "sub", "epoch", "pingSeconds", "retrySeconds", "expiresAt"}
    assert welcome["expiresAt"] is None
    assert (welcome["type"], welcome["role"], welcome["sub"]) == ("welcome", "viewer", None)
    assert welcome["pingSeconds"] > 0
    low, high = welcome["retrySeconds"]
    assert 0 < low < high
    assert set(snapshot) == {"type", "epoch", "version", "serverTime", "room", "items", "mine", "recovered"}
    assert (snapshot["type"], snapshot["recovered"], snapshot["mine"]) == ("snapshot", False, [])
    assert INSTANT.fullmatch(snapshot["serverTime"])
    queue = await api.queue(performer_id)
    assert set(snapshot["room"]) == ROOM_FIELDS
    assert (snapshot["room"], snapshot["items"]) == (queue["room"], queue["items"])
    assert all(set(item) == PUBLIC_FIELDS for item in snapshot["items"])
    assert snapshot["version"] == snapshot["room"]["version"] == 4
    assert snapshot["epoch"] == snapshot["room"]["epoch"] == welcome["epoch"]


@pytest.mark.parametrize("way", ["in the header", "in the first frame"])
@pytest.mark.parametrize("role", ["feature", "viewer", "performer", "moderator", "admin"])
async def test_the_caller_decides_which_fields_are_sent(
    api: Api, server: Server, performer_id: str, role: str, way: str
) -> None:
    other, own = await api.intake(performer_id), await api.intake(performer_id)
    sub = {"viewer": own["userId"], "performer": performer_id}.get(role, "somebody")
    token = server.token(role, sub, performer_id if role == "moderator" else None)
    async with server.live(performer_id, token if way == "in the header" else None) as live:
        if way == "in the first frame":
            await live.auth(token)
        else:
            await live.until("snapshot")
        welcome, snapshot = live.of("welcome")[-1], live.of("snapshot")[-1]
    assert (welcome["role"], welcome["sub"]) == (role, sub)
    whole = role in ("performer", "moderator", "admin")
    queue = await api.queue(performer_id, token)
    assert {**queue["room"], "version": 0, "performerOnline": False} == {
        **snapshot["room"],
        "version": 0,
        "performerOnline": False,
    }
    assert snapshot["items"] == queue["items"]
    assert all(set(item) == (WHOLE_FIELDS if whole else PUBLIC_FIELDS) for item in snapshot["items"])
    assert [item["itemId"] for item in snapshot["mine"]] == ([own["itemId"]] if role == "viewer" else [])
    if role == "viewer":
        (mine,) = snapshot["mine"]
        assert {name: mine[name] for name in own} == own
        assert (mine["position"], mine["ahead"], mine["totalInQueue"]) == (2, 1, 2)
        assert (mine["estimatedWaitSeconds"], mine["estimatedWaitRange"]) == (60, None)
    assert other["itemId"] in live.items


async def test_a_performer_or_moderator_of_another_room_sees_the_public_shape(
    api: Api, server: Server, performer_id: str
) -> None:
    await api.intake(performer_id)
    for token in (server.performer(fresh("star")), server.token("moderator", "max", fresh("star"))):
        async with server.live(performer_id, token) as live:
            await live.until("snapshot")
            assert [set(item) for item in live.items.values()] == [PUBLIC_FIELDS]


async def test_a_socket_may_wait_in_a_room_that_does_not_exist_yet(api: Api, server: Server, performer_id: str) -> None:
    async with server.live(performer_id) as live:
        snapshot = await live.until("snapshot")
        assert (snapshot["version"], snapshot["items"], snapshot["room"]["depth"]) == (0, [], 0)
        assert set(snapshot["room"]) == ROOM_FIELDS
        item = await api.intake(performer_id)
        update = await live.next()
        assert (update["from"], update["version"]) == (0, 1)
        assert live.room == (await api.queue(performer_id))["room"]
        assert list(live.items) == [item["itemId"]]


async def test_looking_at_a_room_does_not_make_it(api: Api, server: Server, performer_id: str) -> None:
    for token in (None, server.performer(performer_id)):
        async with server.live(performer_id, token) as live:
            await live.until("snapshot")
    assert await api.version(performer_id) == 0


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(None, None), ([SUBPROTOCOL], SUBPROTOCOL), (["chat", SUBPROTOCOL], SUBPROTOCOL), (["chat"], None)],
)
async def test_the_subprotocol_is_optional(
    server: Server, performer_id: str, offered: list[str] | None, chosen: str | None
) -> None:
    async with server.live(performer_id, subprotocols=offered) as live:
        assert live.connection.subprotocol == chosen
        assert (await live.next())["type"] == "welcome"


async def test_ping_is_answered_with_the_servers_time(server: Server, performer_id: str) -> None:
    async with server.live(performer_id) as live:
        await live.until("snapshot")
        await live.send({"type": "ping"})
        pong = await live.next()
        assert set(pong) == {"type", "serverTime"}
        assert INSTANT.fullmatch(pong["serverTime"])
        await (await live.connection.ping())


async def test_resync_sends_the_room_again(api: Api, server: Server, performer_id: str) -> None:
    item = await api.intake(performer_id)
    async with server.live(performer_id, server.viewer(item["userId"])) as live:
        first = await live.until("snapshot")
        await live.send({"type": "resync"})
        again = await live.next()
        assert {**again, "serverTime": 0} == {**first, "serverTime": 0}


# Tokens


async def test_a_socket_may_become_somebody_else(api: Api, server: Server, performer_id: str) -> None:
    first, second = await api.intake(performer_id), await api.intake(performer_id)
    async with server.live(performer_id) as live:
        await live.until("snapshot")
        for item in (first, second):
            await live.auth(server.viewer(item["userId"]))
            assert list(live.mine) == [item["itemId"]]
        await live.auth(server.performer(performer_id))
        assert all(set(item) == WHOLE_FIELDS for item in live.items.values())
        await live.auth(server.viewer(first["userId"]))
        assert all(set(item) == PUBLIC_FIELDS for item in live.items.values())
        assert (await live.command("start-next"))["code"] == "FORBIDDEN"
        await api.intake(performer_id)
        update = await live.until(lambda frame: frame["type"] == "update" and frame["events"][0]["itemId"] not in ("",))
        assert all(set(event["item"]) == PUBLIC_FIELDS for event in update["events"] if event["item"])


@pytest.mark.parametrize("way", ["in the header", "in a subprotocol", "in a frame"])
async def test_a_bad_token_ends_the_connection_for_good(server: Server, performer_id: str, way: str) -> None:
    for token in (
        "let-me-in",
        server.performer(performer_id)[:-3],
        jwt.encode({"sub": performer_id}, server.settings.auth_secret),
    ):
        offered = [SUBPROTOCOL, f"bearer.{token}"] if way == "in a subprotocol" else None
        async with server.live(performer_id, token if way == "in the header" else None, subprotocols=offered) as live:
            if way == "in a frame":
                await live.until("snapshot")
                await live.send({"type": "auth", "token": token})
            assert await live.closed() == 4500


@pytest.mark.parametrize("way", ["in the header", "in a subprotocol", "in a frame"])
async def test_an_expired_token_ends_the_connection_for_a_refresh(server: Server, performer_id: str, way: str) -> None:
    token = brief(server, "viewer", "ada", -60)
    offered = [SUBPROTOCOL, f"bearer.{token}"] if way == "in a subprotocol" else None
    async with server.live(performer_id, token if way == "in the header" else None, subprotocols=offered) as live:
        if way == "in a frame":
            await live.until("snapshot")
            await live.send({"type": "auth", "token": token})
        assert await live.closed() == 4002


async def test_a_connection_ends_when_its_token_does(server: Server, performer_id: str) -> None:
    async with server.live(performer_id, brief(server, "viewer", "ada", 0.2)) as live:
        await live.until("snapshot")
        assert await live.closed() == 4002


async def test_a_refresh_in_time_keeps_the_connection(api: Api, server: Server, performer_id: str) -> None:
    async with server.live(performer_id, brief(server, "viewer", "ada", 0.3)) as live:
        await live.auth(server.viewer("ada"))
        with pytest.raises(TimeoutError):
            await live.next(0.5)
        await api.intake(performer_id)
        assert (await live.next())["type"] == "update"


async def test_the_welcome_says_until_when_the_token_is_valid(server: Server, performer_id: str) -> None:
    async with server.live(performer_id, brief(server, "viewer", "ada", 900)) as live:
        await live.until("snapshot")
        (welcome,) = live.of("welcome")
        left = datetime.fromisoformat(welcome["expiresAt"]) - datetime.now(UTC)
        assert timedelta(seconds=880) < left <= timedelta(seconds=900)
        await live.auth(brief(server, "viewer", "ada", 1800))
        assert live.of("welcome")[-1]["expiresAt"] > welcome["expiresAt"]


async def test_a_token_lasts_by_the_clock_that_has_checked_it_and_not_by_the_databases(
    tmp_path: Path, postgres_url: str
) -> None:
    engines = open_engines(postgres_url)
    await asyncio.to_thread(migrate, engines.writer)
    engines.dispose()
    url = make_url(postgres_url).render_as_string(False)
    with serving(tmp_path, database_url=url, clock=lambda: utc_now() - timedelta(minutes=10)) as server:
        token = brief(server, "performer", "mira", -300)
        headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {token}"}
        async with server.api() as api, server.live("mira", token) as live:
            await live.until("snapshot")
            async with api.http.stream("GET", "/v1/events", headers=headers) as stream:
                chunks = stream.aiter_raw()
                assert (await anext(chunks)).startswith(b"retry:")
                item = await api.intake("mira")
                assert item["itemId"].encode() in await anext(chunks)
            assert (await live.until("update"))["events"][0]["itemId"] == item["itemId"]


async def test_a_panel_whose_token_runs_out_is_not_absent_and_comes_back_unnoticed(
    api: Api, server: Server, performer_id: str
) -> None:
    await api.intake(performer_id)
    async with server.live(performer_id) as viewer:
        await viewer.until("snapshot")
        async with server.live(performer_id, brief(server, "performer", performer_id, 0.5)) as panel:
            await viewer.until_state(lambda live: live.room["performerOnline"])
            assert await panel.closed() == 4002
        async with server.live(performer_id, server.performer(performer_id)) as panel:
            await panel.until("snapshot")
            await viewer.settled()
            seen = [event["event"] for frame in viewer.of("update") for event in frame["events"]]
            assert seen == ["queue.performer.online"]


async def test_a_refresh_may_also_shorten_it(server: Server, performer_id: str) -> None:
    async with server.live(performer_id, server.viewer("ada")) as live:
        await live.auth(brief(server, "viewer", "ada", 0.2))
        assert await live.closed() == 4002


async def test_a_malformed_auth_is_an_error_and_changes_nothing(api: Api, server: Server, performer_id: str) -> None:
    item = await api.intake(performer_id)
    async with server.live(performer_id, server.viewer(item["userId"])) as live:
        await live.until("snapshot")
        for frame in ({"type": "auth"}, {"type": "auth", "token": 5}, {"type": "auth", "token": "", "id": "1"}):
            await live.send(frame)
            assert (await live.next())["code"] == "VALIDATION_ERROR"
        await api.command("start", item)
        assert (await live.until("position"))["itemId"] == item["itemId"]


async def test_a_refresh_is_no_coming_and_going_of_the_performer(api: Api, server: Server, performer_id: str) -> None:
    await api.change(performer_id, accepting=True)
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until_state(lambda live: bool(live.room.get("performerOnline")))
        version = live.version
        for _ in range(3):
            await live.auth(server.performer(performer_id))
        await live.settled()
        assert (live.version, live.room["performerOnline"], live.room["paused"]) == (version, True, False)
        assert await api.version(performer_id) == version


async def test_a_performer_is_online_while_a_panel_is_connected(api: Api, server: Server, performer_id: str) -> None:
    await api.change(performer_id, accepting=True)
    async with server.live(performer_id) as viewer:
        await viewer.until("snapshot")
        async with server.live(performer_id, server.performer(performer_id)) as panel:
            update = await viewer.next()
            assert [event["event"] for event in update["events"]] == ["queue.performer.online"]
            assert viewer.room["performerOnline"] is True
            await panel.until("snapshot")
            async with server.live(performer_id, server.performer(performer_id)) as second:
                await second.until("snapshot")
            async with server.live(performer_id, server.token("moderator", "max", performer_id)) as moderator:
                await moderator.until("snapshot")
            await viewer.settled()
            assert viewer.version == 2
        update = await viewer.next()
        assert [event["event"] for event in update["events"]] == ["queue.performer.offline"]
        assert (viewer.room["performerOnline"], viewer.room["pauseReason"]) == (False, "performer_disconnected")


async def test_a_panel_that_no_longer_is_the_performers_counts_no_more(
    api: Api, server: Server, performer_id: str
) -> None:
    await api.change(performer_id, accepting=True)
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until_state(lambda live: bool(live.room.get("performerOnline")))
        await live.auth(server.viewer("ada"))
        await live.until_state(lambda live: not live.room["performerOnline"])


# Refusals before the first frame


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://", "http://[::1", "file://", "http://127.0.0.1"]
)
async def test_a_foreign_origin_is_refused_with_403(server: Server, performer_id: str, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with server.live(performer_id, server.performer(performer_id), origin=origin):
            pass
    response = refused.value.response
    assert response.status_code == 403
    assert response.headers["Content-Type"] == "application/problem+json"
    assert b'"code":"FORBIDDEN"' in (response.body or b"")
    assert response.headers["X-Request-ID"]


async def test_the_services_own_origin_is_welcome(server: Server, performer_id: str) -> None:
    async with server.live(performer_id, origin=server.url) as live:
        assert (await live.next())["type"] == "welcome"


async def test_a_room_that_cannot_be_is_refused_with_404(server: Server) -> None:
    for performer_id in ("x" * 65, "a%20b", "%C3%A4"):
        with pytest.raises(InvalidStatus) as refused:
            async with server.live(performer_id):
                pass
        response = refused.value.response
        assert response.status_code == 404
        assert b'"code":"PERFORMER_NOT_FOUND"' in (response.body or b"")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    origins = "https://site.example,https://other.example:8443"
    with serving(tmp_path_factory.mktemp("origins"), allowed_origins=origins) as server:
        yield server


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("https://site.example", True),
        ("https://other.example:8443", True),
        ("https://other.example", False),
        ("http://site.example", False),
        ("https://sub.site.example", False),
        ("https://site.example.evil.example", False),
        ("https://SITE.example", False),
    ],
)
async def test_listed_origins_are_allowed_exactly(
    shared: Server, performer_id: str, origin: str, is_allowed: bool
) -> None:
    if is_allowed:
        async with shared.live(performer_id, origin=origin) as live:
            assert (await live.next())["type"] == "welcome"
    else:
        with pytest.raises(InvalidStatus):
            async with shared.live(performer_id, origin=origin):
                pass


# Unexpected failures


async def test_a_room_that_cannot_be_read_asks_the_client_to_come_back(
    server: Server, performer_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def join(*args: object, **options: object) -> None:
        raise OSError("the disk is on fire")

    server.replace(monkeypatch, Hub, "join", join)
    async with server.live(performer_id) as live:
        assert await live.closed() == 1013
    assert "disk" not in "".join(live.texts)
    (logged,) = server.expected_errors()
    assert "OSError" in logged
    monkeypatch.undo()
    async with server.live(performer_id) as live:
        await live.until("snapshot")
