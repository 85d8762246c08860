"""A response in one message: the bytes that uvicorn writes for it in two, in one write; and its refusals."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.server.whole_response import WHOLE_RESPONSE, Endpoint, with_whole_responses
from tests.support.fake_transport import Transport

pytestmark = pytest.mark.anyio


class Exchange:
    """One request, answered by uvicorn's cycle."""

    def __init__(self, method: str = "GET", *, keep_alive: bool = True) -> None:
        self.transport = Transport()
        self.flow = FlowControl(cast(Any, self.transport))
        self.completed = 0
        log = logging.getLogger(__name__)
        self.cycle = RequestResponseCycle(
            scope=cast(Any, {"type": "http", "method": method, "path": "/", "headers": [], "extensions": {}}),
            transport=cast(Any, self.transport),
            flow=self.flow,
            logger=log,
            access_logger=log,
            access_log=False,
            default_headers=[(b"server", b"test")],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self._complete,
        )

    def _complete(self) -> None:
        self.completed += 1

    async def written(self, app: ASGIApp, *, whole: bool = True) -> list[bytes]:
        await self.cycle.run_asgi(cast(Any, with_whole_responses(app, self.cycle) if whole else app))
        return self.transport.written


def endpoint(response: Response) -> Endpoint:
    async def handle(request: Request) -> Response:
        return response

    return Endpoint(handle)


RESPONSES = [
    Response(b'{"a":1}', 201, {"Location": "/there"}, "application/json"),
    Response(b"", 200, media_type="application/json"),
    Response(status_code=204),
    Response(status_code=304, headers={"ETag": '"a"'}),
    Response(b"{}", 413, {"Connection": "close"}, "application/problem+json"),
]


@pytest.mark.parametrize("response", RESPONSES, ids=lambda response: str(response.status_code))
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("keep_alive", [True, False])
async def test_one_write_has_the_bytes_of_uvicorns_two(response: Response, method: str, keep_alive: bool) -> None:
    whole, usual = Exchange(method, keep_alive=keep_alive), Exchange(method, keep_alive=keep_alive)
    written = await whole.written(endpoint(response))
    assert len(written) == 1
    assert _lines(written) == _lines(await usual.written(endpoint(response), whole=False))
    assert (whole.transport.closed, whole.completed) == (usual.transport.closed, usual.completed)
    assert whole.cycle.response_complete


def _lines(written: Iterable[bytes]) -> tuple[list[bytes], bytes]:
    """The head's lines in an order of their own, and the body."""
    head, _, body = b"".join(written).partition(b"\r\n\r\n")
    return sorted(head.split(b"\r\n")), body


async def test_other_responses_are_sent_as_ever() -> None:
    async def pieces() -> Any:
        yield b"one"
        yield b"two"

    assert (await Exchange().written(endpoint(StreamingResponse(pieces()))))[-1] == b"0\r\n\r\n"
    assert len(await Exchange().written(PlainTextResponse("text"))) == 2


async def test_nothing_is_written_for_a_caller_that_has_gone() -> None:
    exchange = Exchange()
    exchange.cycle.disconnected = True
    assert await exchange.written(endpoint(Response(b"{}"))) == []
    assert exchange.completed == 0


async def test_a_response_waits_while_the_caller_does_not_read() -> None:
    exchange = Exchange()
    exchange.flow.pause_writing()
    answering = asyncio.create_task(exchange.written(endpoint(Response(b"{}"))))
    await asyncio.sleep(0.01)
    assert exchange.transport.written == []
    exchange.flow.resume_writing()
    assert len(await answering) == 1


async def test_a_header_that_would_end_the_head_is_not_written(caplog: pytest.LogCaptureFixture) -> None:
    response = Response(b"{}", headers={"Location": "/there\r\nSet-Cookie: a=b"})
    written = await Exchange().written(endpoint(response))
    assert b"Set-Cookie" not in b"".join(written)
    assert b"Invalid HTTP header value" in caplog.text.encode()


async def test_a_second_response_to_a_request_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def twice(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            await endpoint(Response(b"{}"))(scope, receive, send)

    assert len(await Exchange().written(twice)) == 1
    assert "after the response had begun" in caplog.text


async def test_another_server_gets_the_two_messages_of_asgi() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await endpoint(Response(b"{}"))({"type": "http"}, cast(Any, None), send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert not any(WHOLE_RESPONSE in message for message in sent)
