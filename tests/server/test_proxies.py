"""The service behind nginx, HAProxy and Caddy, configured as in the guide "Operate", works as without them."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import pytest

from tests.conftest import provided
from tests.support import proxies
from tests.support.raw_socket import raw_live, tcp, upgrade
from tests.support.server import Server, fresh, intake_body, ok, serving

SOCKETS = 3
"""That one address may have."""


@dataclass(frozen=True, slots=True)
class Behind:
    service: Server
    proxy: Server
    """The service as its clients reach it."""


@pytest.fixture(scope="module", params=proxies.KINDS)
def behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    program = provided(request, proxies.KINDS[request.param].program)
    folder = tmp_path_factory.mktemp(request.param)
    with (
        serving(folder, trusted_proxies="127.0.0.1", sockets_per_address=SOCKETS) as service,
        proxies.proxying(request.param, program, folder, service.port) as port,
    ):
        yield Behind(service, replace(service, port=port))


async def test_commands_are_answered_with_their_request_id(behind: Behind) -> None:
    room, key = fresh("star"), {"Idempotency-Key": fresh("key"), "X-Request-ID": "asked-by-me"}
    body = intake_body(room)
    del body["idempotencyKey"]
    async with behind.proxy.api() as api:
        first = await api.post("/v1/queue/items", api.server.feature(), body, headers=key)
        assert first.status_code == 201
        assert first.headers["X-Request-ID"] == "asked-by-me"
        again = await api.post("/v1/queue/items", api.server.feature(), body, headers=key)
        assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
        started = await api.command("start", first.json())
        assert (await api.command("complete", started, {"refundTokens": 40}))["status"] == "finished"
        refused = await api.post(f"/v1/performers/{room}/queue/start-next", api.server.performer(room))
        assert (refused.status_code, refused.json()["code"]) == (409, "QUEUE_EMPTY")
        assert refused.headers["X-Request-ID"]


async def test_a_page_of_the_sites_own_gets_a_live_socket_and_another_sites_does_not(behind: Behind) -> None:
    room, host = fresh("star"), f"site.example:{behind.proxy.port}"
    for origin, is_let_in in ((f"http://{host}", True), ("http://elsewhere.example", False)):
        request = upgrade(room, None, f"Origin: {origin}").replace(b"Host: test", f"Host: {host}".encode())
        async with tcp(behind.proxy.port, "127.0.0.31") as raw:
            await raw.send_bytes(request)
            head = await raw.head()
            assert head.startswith(b"HTTP/1.1 101" if is_let_in else b"HTTP/1.1 403"), head
            assert b"x-request-id" in head.lower()
            if is_let_in:
                assert (await raw.next_json())["type"] == "welcome"
                assert (await raw.next_json())["type"] == "snapshot"


async def test_events_reach_the_socket_and_the_stream_at_once(behind: Behind) -> None:
    room = fresh("star")
    async with behind.proxy.api() as api, behind.proxy.live(room, behind.proxy.performer(room)) as live:
        await live.until("snapshot")
        headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {behind.proxy.performer(room)}"}
        async with api.http.stream("GET", "/v1/events", headers=headers) as stream:
            chunks = stream.aiter_raw()
            assert (await anext(chunks)).startswith(b"retry:")
            item = await api.intake(room)
            assert (await live.until("update"))["events"][0]["itemId"] == item["itemId"]
            assert item["itemId"].encode() in await anext(chunks)
        ack = await live.command("start", itemId=item["itemId"])
        assert ack["type"] == "ack"
        ok(await api.get(f"/v1/queue/items/{item['itemId']}", api.server.performer(room)))


async def test_limits_count_the_clients_and_not_the_proxy_whatever_they_say_of_themselves(behind: Behind) -> None:
    room, port = fresh("star"), behind.proxy.port
    async with AsyncExitStack() as stack:
        for number in range(SOCKETS):
            lie = f"X-Forwarded-For: 192.0.2.{number}"
            raw = await stack.enter_async_context(raw_live(port, room, None, lie, source="127.0.0.32"))
            assert (await raw.next_json())["type"] == "welcome"
        async with raw_live(port, room, None, "X-Forwarded-For: 192.0.2.9", source="127.0.0.32") as raw:
            assert await raw.close_code() == 4504
        async with raw_live(port, room, source="127.0.0.33") as raw:
            assert (await raw.next_json())["type"] == "welcome", "another address has places of its own"
