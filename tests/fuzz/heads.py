"""Requests over HTTP, each almost right: heads, and bodies whose length or chunks may lie, one behind the other.

Bodies hold requests of their own, which nobody may ever answer: `HIDDEN` stands in their ids.
"""

from dataclasses import dataclass, field
from random import Random

HIDDEN = b"hidden"
METHODS = ["GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS"]
ODD_METHODS = ["CONNECT", "TRACE", "PRI", "get", "G\tT", "", "PROPFIND", "M-SEARCH", "GET ", " GET", "POST\0", "é"]
TARGETS = [
    "/healthz",
    "/v1/queue/items",
    "/v1/queue/items/01a22494-3361-72c4-8198-7a2aa583c94e",
    "/v1/queue/items/x/complete",
    "/v1/performers/fuzz/queue",
    "/v1/performers/fuzz/queue/start-next",
    "/v1/events?after=0&limit=1",
    "/v1/webhooks/fuzz",
    "/panel",
]
ODD_TARGETS = [
    "/v1/performers/%00/queue",
    "/v1/performers/%ff%fe/queue/depth",
    "/v1/events?after=%F0%28%8C%28",
    "/v1/performers/fuzz/queue/live",
    "//",
    "//other/healthz",
    "/..//../etc/passwd",
    "*",
    "http://other/healthz",
    "http://",
    "other:443",
    "healthz",
    "/a b",
    "/a\tb",
    "/é",
    "/#a",
    "/?" + "a=b&" * 50,
    "/" + "x" * 40_000,
    "",
]
ODD_VERSIONS = ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.2", "HTTP/1.10", "HTTP/11", "http/1.1", "HTTP", ""]
FIELDS = [
    "Accept: application/json",
    "Content-Type: application/json",
    "Idempotency-Key: fuzz",
    "Last-Event-ID: x",
    "Range: bytes=0-1",
    "If-None-Match: *",
    "Accept-Encoding: gzip, br",
    "Cookie: a=b",
    "Origin: http://[::1",
    "X-Forwarded-For: 192.0.2.1",
    "Connection: keep-alive",
]
ODD_FIELDS = [
    "Connection: close",
    "Connection: close, upgrade",
    "Connection: upgrade\r\nUpgrade: websocket",
    "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    "Upgrade: websocket",
    "Expect: 100-continue",
    "Expect: 200-maybe",
    "Host: other",
    "Host: a b",
    "X A: b",
    "X-A : b",
    ": b",
    "no colon",
    "X-A: b\r\n folded",
    " X-A: b",
    "X-A: a\0b",
    "X-A: a\rb",
    "X-A: a\nX-B: b",
    "X-A: é\x0b\x7f",
    "X-A:" + " " * 500,
    "X-A: " + "x" * 9000,
    "\r\nX-A: b",
    *["X-A: b"] * 2,
]
LENGTHS = ["{0}, {0}", "{0}\r\nContent-Length: {0}", "0{0}", "{0} ", "\t{0}"]
WRONG_LENGTHS = [
    "{1}",
    "{0}\r\nContent-Length: {1}",
    "{0}, {1}",
    "+{0}",
    "-{0}",
    "0x{0}",
    "{0}.0",
    "1e1",
    "",
    "18446744073709551616",
    "99999999999999999999999",
    "{0} {0}",
    "{0}\0",
    "{0}\r\nTransfer-Encoding: chunked",
]
CODINGS = [
    "Chunked",
    "gzip, chunked",
    "chunked, gzip",
    "chunked, chunked",
    "chunked\r\nTransfer-Encoding: chunked",
    "identity\r\nTransfer-Encoding: chunked",
    "chunked\r\nTransfer-Encoding: identity",
    "identity",
    "xchunked",
    "chunked;q=1",
    "\tchunked",
    "\r\n chunked",
    "\x0bchunked",
    "chunked ",
    ", chunked",
    "chunked,",
    "",
    '"chunked"',
]
ODD_NAMES = ["Transfer-Encoding ", "Transfer_Encoding", "transfer-encoding", "Transfer-Encoding\0", " TE"]
SIZES = ["{0:X}", "000{0:x}", "{0:x};a=b", '{0:x};a="b;\\"c"', "{0:x} ;a", "{0:x};"]
WRONG_SIZES = [
    "{1:x}",
    "0x{0:x}",
    "-{0:x}",
    "+{0:x}",
    "{0:x} ",
    " {0:x}",
    "{0:x}g",
    "",
    "fffffffffffffffff",
    "10000000000000000{0:x}",
    "{0:x};a\n",
    "{0:x}\n",
    "{0:x};a\rb",
    "{0:x}\0",
]
TRAILERS = ["X-A: b", "Content-Length: 5", "Transfer-Encoding: chunked", "Host: other", "X-Request-ID: hidden"]
ODD_TRAILERS = ["X-A : b", "no colon", " folded: x", "X-A: a\0b", "GET /healthz HTTP/1.1", "X-A: b\nX-B: c"]
BODIES = [
    b"",
    b"{}",
    b"[]",
    b'{"a":1',
    b'{"refundTokens":60}',
    b'{"accepting":true}',
    b"\xff\xfe\r\n\r\n",
    b"0\r\n\r\n",
    b"x" * 100,
    b'{"a":' * 500,
    b"x" * 70_000,
]


@dataclass(slots=True)
class Requests:
    """Makes the requests of one connection. Most of them are valid, so that an odd one follows a good one."""

    random: Random
    seed: int
    token: str
    """Of an administrator, without whom nobody reads a body."""
    _number: int = field(init=False, default=0)

    def all(self) -> bytes:
        """Some requests, the last of which asks for the connection to be closed."""
        count = self.random.choice([1, 1, 2, 3, 6])
        return b"".join(self._request() for _ in range(count)) + self._last()

    def _is_odd(self, probability: float = 0.06) -> bool:
        return self.random.random() < probability

    def _any(self, usual: list[str], odd: list[str]) -> str:
        return self.random.choice(odd if self._is_odd() else usual)

    def _last(self) -> bytes:
        lines = ["GET /healthz HTTP/1.1", "Host: test", f"X-Request-ID: {self._id()}", "Connection: close"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    def _id(self) -> str:
        self._number += 1
        return f"fuzz-{self.seed}-{self._number}"

    def _request(self) -> bytes:
        random = self.random
        method, target = self._any(METHODS, ODD_METHODS), self._any(TARGETS, ODD_TARGETS)
        lines = [f"{method} {target} {self._any(['HTTP/1.1'], ODD_VERSIONS)}"]
        if not self._is_odd(0.02):
            lines.append("Host: test")
        lines.append(f"X-Request-ID: {self._id()}")
        if random.random() < 0.7:
            lines.append(f"Authorization: Bearer {self.token}")
        lines += [self._any(FIELDS, ODD_FIELDS) for _ in range(random.choice([0, 0, 1, 2, 4]))]
        if self._is_odd(0.01):
            lines += ["X-A: b"] * 200
        announced, body = self._body()
        at = random.randrange(1, len(lines) + 1)
        lines[at:at] = announced
        end = "\r\n" if not self._is_odd(0.04) else random.choice(["\n", "\r", "\r\n\r\n", "\n\r"])
        before = random.choice(["\r\n", "\n", "\r\n\r\n\r\n", " ", "\0"]) if self._is_odd(0.02) else ""
        return (before + end.join(lines) + end + end).encode("latin-1") + body

    def _body(self) -> tuple[list[str], bytes]:
        """A body's header fields and its bytes."""
        body = self.random.choice(BODIES) if self.random.random() < 0.7 else self._hidden()
        match self.random.randrange(5):
            case 0:
                return [], b""
            case 1 | 2:
                return [self._length(len(body))], body
            case _:
                name = self._any(["Transfer-Encoding"], ODD_NAMES)
                return [f"{name}: {self._any(['chunked'], CODINGS)}"], self._chunks(body)

    def _hidden(self) -> bytes:
        """Bytes that look like a request to a parser that reads at the wrong place."""
        head = b"POST /healthz HTTP/1.1\r\nHost: test\r\nX-Request-ID: %s\r\nContent-Length: 0\r\n\r\n" % HIDDEN
        return self.random.choice([b"", b"\r\n", b"0\r\n\r\n", b"x\r\n"]) + head

    def _length(self, size: int) -> str:
        forms = ["{0}"] * 6 + LENGTHS
        other = max(0, size + self.random.choice([-1, 1, 2, -size, 40]))
        return "Content-Length: " + self._any(forms, WRONG_LENGTHS).format(size, other)

    def _chunks(self, body: bytes) -> bytes:
        random = self.random
        places = sorted(random.randrange(len(body) + 1) for _ in range(random.choice([0, 0, 1, 3])))
        pieces = [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]
        out = b"".join(self._chunk(piece) for piece in pieces if piece)
        if self._is_odd(0.03):
            return out
        trailers = [self._any(TRAILERS, ODD_TRAILERS) for _ in range(random.choice([0, 0, 0, 1, 2]))]
        lines = "\r\n".join([self._any(["0"] * 3 + ["00", "0;a=b"], WRONG_SIZES).format(0, 1), *trailers])
        return out + lines.encode("latin-1") + (b"\r\n\r\n" if not self._is_odd(0.03) else b"\n\n")

    def _chunk(self, piece: bytes) -> bytes:
        size, other = len(piece), max(0, len(piece) + self.random.choice([-1, 1, 2, 16]))
        line = self._any(["{0:x}"] * 6 + SIZES, WRONG_SIZES).format(size, other)
        end = b"\r\n" if not self._is_odd(0.03) else self.random.choice([b"\n", b"", b"\r", b"\r\n\r\n", b"xx"])
        return line.encode("latin-1") + b"\r\n" + piece + end
