"""Nothing is written behind the end of an answer, and a connection is kept for the next request."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from app.server.limits import Limits, Rate
from app.server.response_transport import ResponseTransport
from tests.support.fake_transport import Transport
from tests.support.raw_socket import tcp
from tests.support.server import Server, serving

pytestmark = pytest.mark.anyio

HEAD, BODY, MORE = b"HTTP/1.1 200 OK\r\n\r\n", b"{}", b"[]"


def written_through() -> tuple[ResponseTransport, Transport]:
    transport = Transport()
    return ResponseTransport(cast(Any, transport), transport.close), transport


async def test_a_response_is_written_as_it_comes_and_its_close_is_the_connections() -> None:
    response, transport = written_through()
    response.write(HEAD)
    response.write(BODY)
    response.close()
    assert transport.written == [HEAD, BODY]
    assert response.is_closing()


async def test_nothing_is_written_behind_the_end_of_a_half_closed_connection() -> None:
    response, transport = written_through()
    response.write(HEAD)
    response.end()
    response.write(MORE)
    assert transport.written == [HEAD]
    assert response.is_closing()


async def test_nothing_is_written_to_a_connection_that_went_meanwhile() -> None:
    response, transport = written_through()
    transport.closed = True
    response.write(HEAD)
    assert transport.written == []


async def test_a_proxy_may_use_a_connection_again_that_was_idle_for_longer_than_uvicorn_allows_of_itself(
    server: Server,
) -> None:
    async with tcp(server.port) as raw:
        for pause in (6, 0):
            await raw.send_bytes(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
            assert b"HTTP/1.1 200" in await raw.head()
            await asyncio.sleep(pause)


CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"


async def test_a_body_that_breaks_off_before_anybody_has_asked_for_it_is_refused_and_no_error(server: Server) -> None:
    """The application would still send `100 Continue`, after the refusal; the fuzzer has found that."""
    head = f"POST /v1/queue/items HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {server.feature()}\r\n"
    async with tcp(server.port) as raw:
        await raw.send_bytes(f"{head}Expect: 100-continue\r\n{CHUNKED}no size\r\n".encode())
        (await raw.answer()).problem(400, "BAD_REQUEST")
        assert await raw.ended()
    assert server.expected_errors() == []


async def test_a_refused_request_is_named_by_its_head_and_not_by_a_trailer(server: Server) -> None:
    async with tcp(server.port) as raw:
        head = "POST /v1/none HTTP/1.1\r\nHost: test\r\nX-Request-ID: mine\r\n"
        await raw.send_bytes(f"{head}{CHUNKED}0\r\nX-Request-ID: other\r\nX-A: a\0b\r\n".encode())
        answer = await raw.answer()
        answer.problem(400, "BAD_REQUEST")
        assert answer.headers["x-request-id"] == "mine"


async def test_a_head_request_is_refused_without_a_body(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"HEAD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.endswith(b"\r\n\r\n")


async def test_http_1_0_gets_no_answer_before_the_answer(server: Server) -> None:
    async with tcp(server.port) as raw:
        head = f"POST /v1/queue/items HTTP/1.0\r\nAuthorization: Bearer {server.feature()}\r\nExpect: 100-continue\r\n"
        await raw.send_bytes(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
        (await raw.answer()).problem(422, "VALIDATION_ERROR")


async def test_the_answer_to_a_head_request_is_out_before_what_follows_is_refused(server: Server) -> None:
    first = f"HEAD /healthz HTTP/1.1\r\nHost: test\r\n\r\nPOST /v1/none HTTP/1.1\r\nHost: test\r\n{CHUNKED}".encode()
    for _ in range(50):
        async with tcp(server.port) as raw:
            await raw.send_bytes(first)
            await raw.send_bytes(b"no size\r\n")
            assert (await raw.head()).startswith(b"HTTP/1.1 200")
    assert server.expected_errors() == []


@pytest.mark.parametrize("padding", ["", "x" * 6_000], ids=["short", "long"])
async def test_requests_that_come_before_their_turn_wait_and_no_others_do(tmp_path: Path, padding: str) -> None:
    """A head that is longer than a slice is not complete when the previous request has been answered."""
    limits = Limits(pipelined_requests=Rate(5, 20))
    request = f"GET /healthz HTTP/1.1\r\nHost: test\r\nX-Padding: {padding}\r\n\r\n".encode()
    with serving(tmp_path, limits=limits) as server:
        loop = asyncio.get_running_loop()
        async with tcp(server.port) as raw, tcp(server.port) as other:
            began = loop.time()
            await raw.send_bytes(request * 15)
            for _ in range(20):
                await other.send_bytes(request)
                assert (await other.answer()).status == 200
            for _ in range(15):
                assert (await raw.answer()).status == 200
            # 14 have come before their turn.
            assert loop.time() - began >= 9 / 20
