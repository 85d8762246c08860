"""Complete HTTP responses to requests that a protocol class refuses without the application.

They have the shape of every other error (RFC 9457) and a request id.
"""

from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus

from app.domain.errors import QueueError
from app.server.problems import REQUEST_ID_HEADER, problem_response, request_id_of


def response_bytes(
    refusal: QueueError,
    request_headers: Iterable[tuple[bytes, bytes]] = (),
    extra: Iterable[tuple[bytes, bytes]] = (),
    *,
    with_body: bool = True,
) -> bytes:
    """A whole response, after which the connection is closed. `with_body`: False for the answer to a HEAD request."""
    response = problem_response(refusal)
    head = [
        b"HTTP/1.1 %d %s" % (refusal.status, HTTPStatus(refusal.status).phrase.encode()),
        b"date: " + formatdate(usegmt=True).encode(),
        *(name + b": " + value for name, value in (*response.raw_headers, *extra)),
        REQUEST_ID_HEADER + b": " + request_id_of(request_headers).encode(),
        b"connection: close",
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + (bytes(response.body) if with_body else b"")
