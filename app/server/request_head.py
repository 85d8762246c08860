"""Heads of requests: bounds of a handshake's head, and heads given anew, to the WebSocket library or to the parser."""

from collections.abc import Sequence

import websockets.datastructures
from websockets.http11 import Request

from app.domain.errors import BadRequest, HeadersTooLarge, QueueError, UriTooLong
from app.server.admission import Cause

Headers = Sequence[tuple[bytes, bytes]]

LARGEST_HANDSHAKE_LISTS = 1024
"""Bytes of these together. The WebSocket library takes 20 ms for lists that fill a head; browsers send 100 bytes."""
_HANDSHAKE_LISTS = frozenset({b"connection", b"sec-websocket-extensions", b"sec-websocket-protocol"})


def uri_too_long() -> UriTooLong:
    return UriTooLong("The request's address is too long.")


def handshake_refusal(url: bytes, headers: Headers, *, line_bytes: int) -> tuple[QueueError, Cause] | None:
    """The error of a handshake whose head is too large, or that announces a body.
    `line_bytes`: of the request line, or of one header."""
    if len(url) > line_bytes - len("GET  HTTP/1.1"):
        return uri_too_long(), Cause.HEAD_SIZE
    if any(len(name) + len(value) + 2 > line_bytes for name, value in headers):
        return HeadersTooLarge(f"A header can be at most {line_bytes} bytes."), Cause.HEAD_SIZE
    if sum(len(value) for name, value in headers if name in _HANDSHAKE_LISTS) > LARGEST_HANDSHAKE_LISTS:
        return HeadersTooLarge("The handshake offers too much."), Cause.HEAD_SIZE
    if _announces_body(headers):
        return BadRequest("A WebSocket handshake has no body."), Cause.HANDSHAKE
    return None


def handshake(url: bytes, headers: Headers) -> Request:
    """A handshake as the WebSocket library's parser would give it, without parsing it again. httptools has refused
    every address and name of a header that is not ASCII."""
    texts = [(name.decode("ascii"), value.decode("latin-1")) for name, value in headers]
    return Request(url.decode("ascii"), websockets.datastructures.Headers(texts))


def written(method: str, url: bytes, version: str, headers: Headers) -> bytes:
    """The head as a client would send it."""
    lines = [b"%s %s HTTP/%s" % (method.encode(), url, version.encode())]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def without_offer(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers without their offer of another protocol."""
    kept = []
    for name, value in headers:
        if name == b"connection":
            tokens = [token.strip() for token in value.split(b",")]
            value = b", ".join(token for token in tokens if token.lower() not in (b"upgrade", b"http2-settings"))
        if value and name not in (b"upgrade", b"http2-settings"):
            kept.append((name, value))
    return kept


def _announces_body(headers: Headers) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" 0")) for name, value in headers
    )
