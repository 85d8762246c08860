"""The middleware around the endpoints, called over ASGI: bodies in pieces, refusals, and failures half-way."""

import logging
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Scope

from app.domain.errors import QueueError, QueueFull
from app.server.middleware import LARGEST_BODY, ErrorMiddleware, Service, body_of
from app.server.problems import problem_response

pytestmark = pytest.mark.anyio

Headers = list[tuple[bytes, bytes]]


async def echo(request: Request) -> Response:
    return Response(await body_of(request), 201, {"Location": "/there"}, "application/json")


async def refused(request: Request) -> Response:
    raise QueueFull("No room.")


async def half_an_answer(request: Request) -> Response:
    class Broken(Response):
        async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise QueueFull("No room, but it is too late to say so.")

    return Broken()


class Caller:
    """Sends one request with a body in pieces; a piece of None: the client disconnects."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, int]] = []
        self.app = Service(
            routes=[
                Route(f"/{handle.__name__}", handle, methods=["POST"]) for handle in (echo, refused, half_an_answer)
            ]
        )
        self.app.add_middleware(
            ErrorMiddleware, observe=lambda *seen: self.seen.append(seen[:3]), refuse=self.refuse, admit=self.admit
        )

    def admit(self, client: str | None) -> int | None:
        return 3 if client == "busy" else None

    async def refuse(self, scope: Scope, refusal: QueueError) -> Response:
        return problem_response(refusal)

    async def post(self, path: str, pieces: Iterable[bytes | None] = (b"",), headers: Headers | None = None) -> Any:
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers or []}
        left = list(pieces)
        sent: list[Message] = []

        async def receive() -> Message:
            piece = left.pop(0)
            if piece is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": piece, "more_body": bool(left)}

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        return sent


def status_of(sent: list[Message]) -> int:
    return int(sent[0]["status"])


async def test_an_answer_has_its_headers_and_its_requests_id() -> None:
    caller = Caller()
    start, body = await caller.post("/echo", [b"{}"], [(b"x-request-id", b"mine")])
    assert start["status"] == 201
    assert start["headers"] == [
        (b"location", b"/there"),
        (b"content-length", b"2"),
        (b"content-type", b"application/json"),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
        (b"x-request-id", b"mine"),
    ]
    assert body["body"] == b"{}"
    assert caller.seen == [("POST", "/echo", 201)]


async def test_a_body_in_pieces_is_one_body() -> None:
    sent = await Caller().post("/echo", [b"[1", b",", b"2]"])
    assert sent[1]["body"] == b"[1,2]"


@pytest.mark.parametrize("headers", [[], [(b"transfer-encoding", b"chunked"), (b"content-length", b"3")]])
async def test_a_body_without_a_length_that_holds_is_counted_as_it_comes(headers: Headers) -> None:
    piece = b"x" * (LARGEST_BODY // 2)
    assert status_of(await Caller().post("/echo", [piece, piece], headers)) == 201
    assert status_of(await Caller().post("/echo", [piece, piece, b"x"], headers)) == 413


async def test_a_body_that_says_that_it_is_too_large_is_not_even_received() -> None:
    sent = await Caller().post("/echo", [], [(b"content-length", b"%d" % (LARGEST_BODY + 1))])
    assert status_of(sent) == 413


@pytest.mark.parametrize("pieces", [[b""], [b"{}", b""]])
async def test_a_body_that_did_not_arrive_as_it_was_announced_is_refused(pieces: list[bytes]) -> None:
    sent = await Caller().post("/echo", pieces, [(b"content-length", b"20")])
    assert status_of(sent) == 400
    assert b"BAD_REQUEST" in sent[1]["body"]


async def test_a_client_that_went_away_before_the_end_of_its_request_gets_no_answer() -> None:
    caller = Caller()
    assert await caller.post("/echo", [b"{", None]) == []
    assert caller.seen == []


@pytest.mark.parametrize(("path", "status"), [("/refused", 409), ("/nowhere", 404)])
async def test_a_refusal_is_one_problem_document_wherever_it_comes_from(path: str, status: int) -> None:
    start, _ = await Caller().post(path)
    assert start["status"] == status
    assert (b"content-type", b"application/problem+json") in start["headers"]


async def test_a_failure_after_the_answer_has_begun_is_logged_and_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caller = Caller()
    with caplog.at_level(logging.ERROR), pytest.raises(QueueFull):
        await caller.post("/half_an_answer")
    assert "a request failed" in caplog.text
    assert caller.seen == [("POST", "/half_an_answer", 200)]
