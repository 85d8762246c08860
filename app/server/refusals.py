"""Answers that a protocol class gives by itself, before or without the application: complete HTTP responses.

They have the shape of every other error (RFC 9457) and a request id.
"""

from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus

from app.domain.errors import QueueError
from app.server.problems import REQUEST_ID, problem_response, request_id_of


class BadRequest(QueueError):
    """What has come is not an HTTP request, or not a WebSocket handshake."""

    code, status, title = "BAD_REQUEST", 400, "Not a valid request"


class BodyIncomplete(BadRequest):
    """Less of a body has come than was announced."""

    title = "The body is not whole"


class RequestTimeout(QueueError):
    code, status, title = "REQUEST_TIMEOUT", 408, "The request did not come in time"


class UriTooLong(QueueError):
    code, status, title = "URI_TOO_LONG", 414, "The address is too long"


class HeadersTooLarge(QueueError):
    code, status, title = "HEADERS_TOO_LARGE", 431, "The request's headers are too large"


def response_bytes(
    refusal: QueueError,
    request_headers: Iterable[tuple[bytes, bytes]] = (),
    extra: Iterable[tuple[bytes, bytes]] = (),
    *,
    with_body: bool = True,
) -> bytes:
    """A whole response, after which the connection is closed. `with_body`: not for the answer to a HEAD request."""
    response = problem_response(refusal)
    head = [
        b"HTTP/1.1 %d %s" % (refusal.status, HTTPStatus(refusal.status).phrase.encode()),
        b"date: " + formatdate(usegmt=True).encode(),
        *(name + b": " + value for name, value in (*response.raw_headers, *extra)),
        REQUEST_ID.lower().encode() + b": " + request_id_of(request_headers).encode(),
        b"connection: close",
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + (bytes(response.body) if with_body else b"")
