"""WebSocket bytes and numbers: how a text frame is written, plain and compressed, and the codes that end a connection.

Compression is permessage-deflate (RFC 7692) without context takeover: a message depends on none before it, so one
compressed frame serves every connection that has negotiated it.
"""

import zlib
from enum import IntEnum

DEFLATE_WINDOW_BITS = 12
"""The window of our compressed frames: no client offers less by default, and a larger one gains nothing at 15 KB."""
_DEFLATE_LEVEL = 6
_DEFLATE_MEMORY = 5
_END_OF_FLUSH = b"\x00\x00\xff\xff"
"""The bytes that end a flush, left out at the end of a message (RFC 7692 section 7.2.1)."""
_TEXT = 0x81
_COMPRESSED_TEXT = 0xC1


class CloseCode(IntEnum):
    """Why the service closes a connection. 4000 to 4499: the client may come back; 4500 to 4999: it must not."""

    meaning: str
    may_return: bool

    def __new__(cls, code: int, meaning: str) -> "CloseCode":
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        member.may_return = code < 4500
        return member

    RESTARTING = 1012, "The service restarts: come back after a pause picked at random from `retrySeconds`."
    OVERLOADED = 1013, "Overloaded: come back later."
    TOO_SLOW = 4000, "Too slow: the client did not catch up in time."
    TOKEN_EXPIRED = 4002, "The token has expired: refresh it, then come back."
    NO_PONG = 4003, "No pong came."
    BAD_TOKEN = 4500, "The token is not valid, or `auth` did not come in time."
    BAD_FRAME = 4501, "Not a frame of this protocol."
    FORBIDDEN = 4503, "An administrator has ended the connection."
    TOO_MANY_CONNECTIONS = 4504, "Too many connections of one principal or one address."
    TOO_MANY_FRAMES = 4529, "More frames, or more bytes, than a client may send."


def text_frame(payload: bytes) -> bytes:
    """A complete, unfragmented, unmasked text frame (RFC 6455 section 5.2), valid on every server-side connection."""
    return _header(_TEXT, len(payload)) + payload


def deflated(payload: bytes) -> bytes:
    """A part of a compressed message that refers to nothing outside itself; parts may be joined in any order."""
    compressor = zlib.compressobj(_DEFLATE_LEVEL, zlib.DEFLATED, -DEFLATE_WINDOW_BITS, _DEFLATE_MEMORY)
    return compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)


def compressed_frame(*parts: bytes) -> bytes:
    """A text frame of `deflated` parts, valid on every connection that has negotiated permessage-deflate."""
    data = b"".join(parts).removesuffix(_END_OF_FLUSH)
    return _header(_COMPRESSED_TEXT, len(data)) + data


def _header(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")
