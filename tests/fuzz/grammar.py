"""One case: the bytes of one connection, made from a seed."""

import struct
from random import Random

from tests.fuzz.heads import Requests

NAMES = [
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Upgrade",
    "Expect",
    "Authorization",
    "Origin",
    "X-Request-ID",
    "X-Forwarded-For",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
    "X A",
    "",
]
VALUES = [
    "test",
    "0",
    "5",
    "70000",
    "-1",
    "chunked",
    "close",
    "keep-alive",
    "Upgrade",
    "Upgrade, HTTP2-Settings",
    "websocket",
    "h2c",
    "100-continue",
    "Bearer x",
    "Bearer " + "x" * 3000,
    "null",
    "http://[::1",
    "13",
    "dGhlIHNhbXBsZSBub25jZQ==",
    "performance-queue.v1",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_max_window_bits=8",
    "é" * 20,
    "",
    " \t ",
    "a\x00b",
    "a\x0bb",
    "x" * 9000,
]
FRAMES = [
    b'{"type":"ping"}',
    b'{"type":"resync"}',
    b'{"type":"auth","token":"x"}',
    b'{"type":"start","id":"1","itemId":"x"}',
    b'{"type":"settings","id":"1","maxDepth":-1}',
    b'{"type":1}',
    b"{}",
    b"[]",
    b"null",
    b'{"type":"ping","type":"ping"}',
    b"[" * 2000,
    b'{"type":"complete","id":"1","itemId":"x","refundTokens":1e400}',
    b"\xed\xa0\x80",
    b"",
    b"x" * 126,
    b"x" * 65536,
]
HANDSHAKE = (
    b"GET /v1/performers/fuzz/queue/live HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def case(seed: int, token: str) -> list[bytes]:
    """The pieces that a connection sends, one after the other. `token` is an administrator's."""
    random = Random(seed)
    match random.randrange(5):
        case 0 | 1:
            data = Requests(random, seed, token).all()
        case 2 | 3:
            data = _socket(random)
        case _:
            data = _almost_handshake(random)
    if random.random() < 0.15:
        data = _mutated(data, random)
    return _cut(data, random)


def _almost_handshake(random: Random) -> bytes:
    extra = b"".join(
        f"{random.choice(NAMES)}: {random.choice(VALUES)}\r\n".encode("latin-1", "replace")
        for _ in range(random.randrange(3))
    )
    lines = HANDSHAKE.split(b"\r\n")
    if random.random() < 0.5:
        lines.pop(random.randrange(1, len(lines) - 1))
    return b"\r\n".join(lines) + extra + b"\r\n" + _frame(random)


def _socket(random: Random) -> bytes:
    query = random.choice([b"", b"", b"?epoch=x&since=1", b"?since=-1", b"?epoch=%ff"])
    head = HANDSHAKE.replace(b"/live", b"/live" + query)
    return head + b"\r\n" + b"".join(_frame(random) for _ in range(random.choice([1, 3, 10, 200])))


def _frame(random: Random) -> bytes:
    opcode = random.choice([1, 1, 1, 1, 2, 0, 8, 9, 9, 10, random.randrange(16)])
    payload = (
        random.choice(FRAMES) if opcode < 8 else random.choice([b"", b"\x03\xe8", b"\x03", b"\x00\x00", b"x" * 125])
    )
    first = (
        (0x80 if random.random() < 0.85 else 0) | (random.randrange(8) << 4 if random.random() < 0.05 else 0) | opcode
    )
    length = len(payload) if random.random() < 0.95 else random.choice([0, 1, 125, 126, 65536, 2**32, 2**63, 2**64 - 1])
    form = random.choice([0, 0, 0, 126, 127])
    if length < 126 and not form:
        size = bytes([length])
    elif length < 65536 and form != 127:
        size = b"\x7e" + struct.pack(">H", length)
    else:
        size = b"\x7f" + struct.pack(">Q", length)
    if random.random() < 0.03:
        return bytes([first]) + size + payload
    mask = random.randbytes(4)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([first, size[0] | 0x80]) + size[1:] + mask + body


def _mutated(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice([1, 2, 8])):
        at = random.randrange(len(changed) + 1)
        match random.randrange(3):
            case 0:
                changed[at:at] = random.randbytes(random.choice([1, 1, 4, 64]))
            case 1:
                del changed[at : at + random.choice([1, 1, 4, 64])]
            case 2:
                changed[at : at + 1] = random.randbytes(1)
    return bytes(changed)


def _cut(data: bytes, random: Random) -> list[bytes]:
    if random.random() < 0.6:
        return [data]
    places = sorted(random.randrange(len(data) + 1) for _ in range(random.choice([1, 3, 10])))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
