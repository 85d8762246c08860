"""Heads, bodies, deadlines and upgrades over low-level HTTP: every error gets an answer, or ends the connection."""

import asyncio
import contextlib
import gc
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.server.limits import Limits
from tests.support.raw_socket import RawSocket, tcp
from tests.support.server import Api, Server, intake_body, serving

pytestmark = pytest.mark.anyio

SOON = Limits(head_seconds=0.8, body_seconds=0.3, write_seconds=0.5, close_seconds=0.3)
HEAD = b"GET /healthz HTTP/1.1\r\nHost: test\r\n"
HANDSHAKE = (
    b"GET /v1/performers/mira/queue/live HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture(scope="module")
def hasty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose deadlines are short."""
    with serving(tmp_path_factory.mktemp("hasty"), limits=SOON) as server:
        yield server


@pytest.fixture
async def raw(server: Server) -> AsyncIterator[RawSocket]:
    async with tcp(server.port) as raw:
        yield raw


@pytest.fixture
async def hasty(hasty_server: Server) -> AsyncIterator[RawSocket]:
    async with tcp(hasty_server.port) as raw:
        yield raw


async def send_until_refused(raw: RawSocket, pieces: int, piece: bytes) -> None:
    """Send until the other side takes no more."""
    try:
        for _ in range(pieces):
            await raw.send_bytes(piece)
    except ConnectionError:
        return


# Sizes


@pytest.mark.parametrize(
    ("beginning", "piece", "status", "code"),
    [
        (HEAD, b"X-A: b\r\n" * 512, 431, "HEADERS_TOO_LARGE"),
        (HEAD + b"X-Long: ", b"x" * 4096, 431, "HEADERS_TOO_LARGE"),
        (HEAD, b"x" * 4096, 431, "HEADERS_TOO_LARGE"),
        (b"GET /", b"x" * 4096, 414, "URI_TOO_LONG"),
    ],
    ids=["many headers", "a long value", "a long name", "a long address"],
)
async def test_a_head_that_never_ends_is_refused(
    raw: RawSocket, beginning: bytes, piece: bytes, status: int, code: str
) -> None:
    await raw.send_bytes(beginning)
    await send_until_refused(raw, 12, piece)
    (await raw.answer()).problem(status, code)
    assert await raw.ended()


async def test_a_head_of_32_kib_is_taken_and_a_larger_one_is_not(server: Server) -> None:
    for size, status in ((30_000, 200), (33_000, 431)):
        async with tcp(server.port) as raw:
            values = [b"X-%d: " % number + b"x" * (size // 4) + b"\r\n" for number in range(4)]
            await raw.send_bytes(HEAD + b"".join(values) + b"\r\n")
            assert (await raw.answer()).status == status


async def test_a_head_has_at_most_128_headers(raw: RawSocket) -> None:
    await raw.send_bytes(HEAD + b"".join(b"X-%d: a\r\n" % number for number in range(128)) + b"\r\n")
    (await raw.answer()).problem(431, "HEADERS_TOO_LARGE")


async def test_a_query_has_at_most_256_parameters(raw: RawSocket) -> None:
    await raw.send_bytes(b"GET /?" + b"a=b&" * 256 + b" HTTP/1.1\r\nHost: test\r\n\r\n")
    (await raw.answer()).problem(414, "URI_TOO_LONG")


@pytest.mark.parametrize(
    "chunk",
    [b"10000\r\n" + b"x" * 65536 + b"\r\n", b"1;" + b"e" * 65536 + b"\r\nx\r\n", b"1\r\nx\r\n" * 16384],
    ids=["large chunks", "long extensions", "tiny chunks"],
)
async def test_a_body_in_chunks_that_never_ends_is_refused(server: Server, raw: RawSocket, chunk: bytes) -> None:
    head = f"POST /v1/queue/items HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {server.feature()}\r\n"
    await raw.send_bytes(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
    await send_until_refused(raw, 12, chunk)
    (await raw.answer()).problem(413, "PAYLOAD_TOO_LARGE")
    assert await raw.ended()


async def test_trailers_are_no_headers_of_the_request(server: Server, raw: RawSocket) -> None:
    body = json.dumps(intake_body("mira")).encode()
    head = b"POST /v1/queue/items HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body)
    trailer = f"Authorization: Bearer {server.feature()}\r\n".encode()
    await raw.send_bytes(head + body + b"\r\n0\r\n" + trailer + b"\r\n")
    (await raw.answer()).problem(401, "UNAUTHORIZED")


# Requests that are none


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n",
    ],
    ids=lambda request: repr(request[:30]),
)
async def test_bytes_that_are_no_request_are_answered_once_and_not_logged(
    raw: RawSocket, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        await raw.send_bytes(request_bytes)
        (await raw.answer()).problem(400, "BAD_REQUEST")
        assert await raw.ended()
    assert "Invalid HTTP request" not in caplog.text


async def test_connect_is_not_possible(raw: RawSocket) -> None:
    await raw.send_bytes(b"CONNECT test:443 HTTP/1.1\r\nHost: test\r\n\r\n")
    (await raw.answer()).problem(405, "METHOD_NOT_ALLOWED")


async def test_bytes_after_a_good_request_do_not_spoil_its_answer(raw: RawSocket) -> None:
    await raw.send_bytes(HEAD + b"\r\n" + b"garbage\r\n\r\n")
    assert (await raw.answer()).status == 200
    # The second is answered or not, depending on whether the first was by then; the connection ends in any case.
    if not await raw.ended():
        (await raw.answer()).problem(400, "BAD_REQUEST")
        assert await raw.ended()


async def test_hundreds_of_requests_in_one_go_are_answered_in_order_and_others_get_their_turn(
    server: Server, api: Api
) -> None:
    requests = [b"GET /v1/none/%d HTTP/1.1\r\nHost: test\r\n\r\n" % number for number in range(300)]
    async with tcp(server.port) as raw:
        sending = asyncio.create_task(raw.send_bytes(b"".join(requests)))
        for number in range(300):
            answer = await raw.answer()
            assert json.loads(answer.body)["detail"] == f"There is nothing at /v1/none/{number}."
            if number == 150:
                assert (await api.get("/healthz")).status_code == 200
        await sending


# Deadlines


async def test_a_connection_that_says_nothing_is_ended(hasty: RawSocket) -> None:
    assert await hasty.ended()


@pytest.mark.parametrize("beginning", [b"G", b"GET / HT", HEAD, HEAD + b"X-A: "])
async def test_half_a_head_is_answered_when_its_time_is_over(hasty: RawSocket, beginning: bytes) -> None:
    await hasty.send_bytes(beginning)
    (await hasty.answer()).problem(408, "REQUEST_TIMEOUT")
    assert await hasty.ended()


async def test_dripping_a_head_does_not_make_its_time_longer(hasty: RawSocket) -> None:
    async def drip() -> None:
        for byte in HEAD + b"X-Long: " + b"x" * 500:
            await hasty.send_bytes(bytes([byte]))
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    (await hasty.answer()).problem(408, "REQUEST_TIMEOUT")
    dripping.cancel()


async def test_the_second_head_on_a_connection_has_a_deadline_too(hasty: RawSocket) -> None:
    await hasty.send_bytes(HEAD + b"\r\n")
    assert (await hasty.answer()).status == 200
    await hasty.send_bytes(HEAD)
    (await hasty.answer()).problem(408, "REQUEST_TIMEOUT")


async def test_half_a_body_is_answered_when_its_time_is_over(hasty_server: Server, hasty: RawSocket) -> None:
    head = f"POST /v1/queue/items HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {hasty_server.feature()}\r\n"
    await hasty.send_bytes(head.encode() + b'Content-Length: 500\r\n\r\n{"half": ')
    (await hasty.answer()).problem(408, "REQUEST_TIMEOUT")
    assert await hasty.ended()


async def test_a_body_that_nobody_reads_has_to_come_all_the_same(hasty: RawSocket) -> None:
    await hasty.send_bytes(HEAD + b"Content-Length: 10\r\n\r\n12345")
    assert (await hasty.answer()).status == 200
    assert await hasty.ended()


async def test_a_peer_that_reads_no_answer_is_dropped(hasty_server: Server, hasty: RawSocket) -> None:
    large = b"GET /openapi.json HTTP/1.1\r\nHost: test\r\n\r\n"

    with contextlib.suppress(ConnectionError):
        for _ in range(200):
            await hasty.send_bytes(large * 10)
        # It has been dropped when nothing more can be sent; only then may the test read.
        async with asyncio.timeout(10):
            while True:
                await hasty.send_bytes(b"G")


# Upgrades


@pytest.mark.parametrize("offer", ["h2c", "TLS/1.0, HTTP/1.1", "foo/2", "websocket"])
async def test_the_body_of_a_request_counts_whatever_it_offers_besides(
    api: Api, server: Server, performer_id: str, raw: RawSocket, offer: str
) -> None:
    item = await api.intake(performer_id, tokens=100)
    await api.command("start", item)
    body = b'{"refundTokens": 60}'
    lines = [
        f"POST /v1/queue/items/{item['itemId']}/complete HTTP/1.1",
        "Host: test",
        f"Authorization: Bearer {server.performer(performer_id)}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: Upgrade, HTTP2-Settings",
        f"Upgrade: {offer}",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
    ]
    await raw.send_bytes("\r\n".join(lines).encode() + b"\r\n\r\n" + body + HEAD + b"\r\n")
    done = json.loads((await raw.answer()).body)
    assert (done["status"], done["refundedTokens"]) == ("finished", 60) or done["walletStatus"] in ("pending", "none")
    admin = server.admin
    operations = (await api.get("/v1/admin/wallet-operations?limit=100", admin)).json()["operations"]
    assert [one["kind"] for one in operations if one["itemId"] == item["itemId"]] in ([], ["partial"])
    # The connection goes on.
    assert (await raw.answer()).status == 200


async def test_an_offer_comes_byte_by_byte_as_well(raw: RawSocket) -> None:
    request = (
        b"POST /v1/none HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}"
    )
    for byte in request + HEAD + b"\r\n":
        await raw.send_bytes(bytes([byte]))
    (await raw.answer()).problem(404, "NOT_FOUND")
    assert (await raw.answer()).status == 200


# Descriptors and addresses


async def test_near_the_limit_the_oldest_silent_connections_go_first(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(tmp_path_factory.mktemp("few"), limits=Limits(connections=20)) as server:
        async with AsyncExitStack() as stack, server.live("mira") as live:
            await live.until("snapshot")
            half = await stack.enter_async_context(tcp(server.port))
            await half.send_bytes(HEAD)
            silent = [await stack.enter_async_context(tcp(server.port)) for _ in range(40)]
            async with server.api() as api:
                assert (await api.get("/healthz")).status_code == 200
            assert await half.ended()
            for raw in silent[:20]:
                assert await raw.ended()
            # The last to come is still there, and so is who has a socket.
            await silent[-1].send_bytes(HEAD + b"\r\n")
            assert (await silent[-1].answer()).status == 200
            await live.settled()


async def test_sockets_that_are_turned_away_and_stay_take_no_place(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("turned-away")
    with serving(folder, limits=Limits(connections=10), sockets_per_address=2) as server:
        async with AsyncExitStack() as stack, server.live("mira") as one, server.live("mira") as two:
            for live in (one, two):
                await live.until("snapshot")
            for _ in range(15):
                raw = await stack.enter_async_context(tcp(server.port))
                await raw.send_bytes(HANDSHAKE)
                assert (await raw.answer()).status == 101
            async with server.api() as api:
                assert (await api.get("/healthz")).status_code == 200
            for live in (one, two):
                await live.settled()


async def test_a_connection_without_a_place_is_answered_with_retry_after(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with serving(tmp_path_factory.mktemp("none"), limits=Limits(connections=2)) as server:
        async with server.live("mira") as one, server.live("mira") as two, tcp(server.port) as raw:
            await one.until("snapshot")
            await two.until("snapshot")
            answer = await raw.answer()
            answer.problem(503, "UNAVAILABLE")
            assert int(answer.headers["retry-after"]) > 0


async def get(port: int, source: str, **headers: str) -> Any:
    async with tcp(port, source) as raw:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        await raw.send_bytes(HEAD + lines.encode() + b"\r\n")
        return await raw.answer()


async def test_an_address_may_ask_so_often_in_a_second(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(
        tmp_path_factory.mktemp("rate"), requests_per_address=5, trusted_proxies="127.0.0.3, 10.0.0.0/8"
    ) as server:
        answers = [await get(server.port, "127.0.0.2") for _ in range(8)]
        refused = [answer for answer in answers if answer.status == 429]
        assert len(refused) in (2, 3)
        refused[0].problem(429, "RATE_LIMIT_EXCEEDED")
        assert refused[0].headers["retry-after"] == "1"
        # A client with its own X-Forwarded-For counts by its address; behind a proxy each client counts by its own.
        assert (await get(server.port, "127.0.0.2", X_Forwarded_For="192.0.2.9")).status == 429
        for number in range(8):
            forwarded = f"198.51.100.1, 192.0.2.{number}, 10.1.2.3"
            assert (await get(server.port, "127.0.0.3", X_Forwarded_For=forwarded)).status == 200
        answers = [await get(server.port, "127.0.0.3", X_Forwarded_For="x, 192.0.2.1:99") for _ in range(8)]
        assert 429 in [answer.status for answer in answers]


async def test_an_answer_without_a_body_leaves_before_the_connection_ends(raw: RawSocket) -> None:
    await raw.send_bytes(b"HEAD /healthz HTTP/1.1\r\nHost: test\r\n\r\ngarbage\r\n\r\n")
    assert (await raw.head()).startswith(b"HTTP/1.1 200")


async def test_requests_behind_a_last_answer_get_none(raw: RawSocket) -> None:
    last = HEAD + b"Connection: close\r\n\r\n"
    await raw.send_bytes(HEAD + b"\r\n" + last + HEAD + b"\r\n" + HEAD + b"Content-Length: 9\r\n\r\n")
    for _ in range(2):
        assert (await raw.answer()).status == 200
    assert await raw.ended()


async def test_a_broken_request_waits_for_the_answers_before_it(server: Server, raw: RawSocket) -> None:
    intake = json.dumps(intake_body("mira")).encode()
    head = f"POST /v1/queue/items HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {server.feature()}\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(intake) + intake
    await raw.send_bytes(
        request + HEAD + b"\r\n" + b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    )
    assert (await raw.answer()).status == 201
    assert (await raw.answer()).status == 200
    assert await raw.ended()


def waiting_requests() -> int:
    """The unanswered requests of all connections of this process."""
    return sum(isinstance(each, RequestResponseCycle) and not each.response_complete for each in gc.get_objects())


async def test_of_requests_that_come_at_once_few_wait_here_and_they_go_with_their_connection(server: Server) -> None:
    gc.collect()
    before, most = waiting_requests(), 0
    gc.disable()
    try:
        async with tcp(server.port) as raw:
            sending = asyncio.create_task(raw.send_bytes(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n" * 5000))
            for _ in range(100):
                assert (await raw.answer()).status == 200
                most = max(most, waiting_requests())
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            raw.reset()
        async with asyncio.timeout(10):
            while waiting_requests() > before + 5:  # noqa: ASYNC110 - the server's loop gives no signal here
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
    assert most < before + 300, "no more than one slice holds"
