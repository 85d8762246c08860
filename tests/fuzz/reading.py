"""RFC 9112's reading of the bytes that a client sends: which requests they are, and how the connection goes on.

Written from the RFC and from nothing that the service uses. Where the RFC lets a server be lenient, it is; a server may
be stricter, and then refuses and closes. It may never see a request where this reading sees none.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb")( +)([^ \t\r\n\x00]+)( +)HTTP/1\.([0-9])")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([^\r\n\x00]*)")
_LENGTH = re.compile(rb"[0-9]+(?:[ \t]*,[ \t]*[0-9]+)*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n]*)?")
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_PLAIN_VALUE = re.compile(rb"[\x20-\x7e]*")

PLAIN_METHODS = {b"GET", b"POST", b"PATCH", b"PUT", b"DELETE", b"HEAD", b"OPTIONS"}

LARGEST_PLAIN_BODY = 60_000
"""Bytes that any server takes."""


class End(StrEnum):
    """The state of the connection after the last request."""

    OPEN = "open"
    """More may come: of a request that has begun, or a new one."""
    CLOSED = "closed"
    """The last request was to be the last one."""
    REFUSED = "refused"
    """The bytes behind it are no request."""
    UPGRADED = "upgraded"
    """The bytes behind it are of another protocol, if the server takes the offer."""


@dataclass(slots=True)
class Asked:
    """A request with a valid head."""

    method: bytes
    request_id: bytes | None
    is_whole: bool = False
    """Its body is, too."""


@dataclass(slots=True)
class Reading:
    requests: list[Asked] = field(default_factory=list)
    end: End = End.OPEN
    is_plain: bool = True
    """Nothing in it may be refused by a server that is stricter than it has to be."""


class _Incomplete(Exception):
    """The request is not complete yet."""


class _Invalid(Exception):
    """The bytes are not HTTP."""


def read(data: bytes, *, with_offers: bool = True) -> Reading:
    """`with_offers`: a server may take an offer of another protocol; False if it has not."""
    return _Reader(data, with_offers).read()


class _Reader:
    def __init__(self, data: bytes, with_offers: bool) -> None:
        self._data = data
        self._with_offers = with_offers
        self._at = 0
        self._reading = Reading()

    def read(self) -> Reading:
        reading = self._reading
        try:
            while reading.end is End.OPEN:
                reading.end = self._request()
        except _Incomplete:
            reading.end = End.OPEN
        except _Invalid:
            reading.end = End.REFUSED
        return reading

    def _request(self) -> End:
        while (line := self._line()) == b"":
            self._reading.is_plain = False
        start = _REQUEST_LINE.fullmatch(line)
        if start is None:
            raise _Invalid
        method, before, target, behind, minor = start.groups()
        is_path = target.startswith(b"/") and _PLAIN_VALUE.fullmatch(target) is not None and len(target) < 1000
        self._plain(method in PLAIN_METHODS and minor == b"1" and is_path and len(before + behind) == 2)
        fields = self._fields()
        self._check_host(fields, minor)
        ids = fields.get(b"x-request-id", [None])
        asked = Asked(method, ids[0])
        length = self._length(fields)
        in_chunks = self._is_in_chunks(fields, length)
        self._reading.requests.append(asked)
        options = {option.strip().lower() for value in fields.get(b"connection", []) for option in value.split(b",")}
        upgrades = [value.strip().lower() for value in fields.get(b"upgrade", [])]
        is_offer = method == b"GET" and minor != b"0" and b"upgrade" in options and b"websocket" in upgrades
        if method == b"CONNECT" or is_offer:
            self._plain(False)
            if self._with_offers:
                return End.UPGRADED
        if in_chunks:
            self._chunks()
        else:
            self._take(length or 0)
        asked.is_whole = True
        return End.CLOSED if b"close" in options or minor == b"0" else End.OPEN

    def _plain(self, is_plain: bool) -> None:
        self._reading.is_plain &= is_plain

    # Fields

    def _fields(self) -> dict[bytes, list[bytes]]:
        fields: dict[bytes, list[bytes]] = {}
        while (line := self._line()) != b"":
            match = _FIELD.fullmatch(line)
            if match is None:
                raise _Invalid
            name, value = match[1].lower(), match[2].strip(b" \t")
            self._plain(_PLAIN_VALUE.fullmatch(value) is not None and name not in (b"upgrade", b"expect"))
            fields.setdefault(name, []).append(value)
        self._plain(sum(map(len, fields.values())) <= 100)
        return fields

    def _check_host(self, fields: dict[bytes, list[bytes]], minor: bytes) -> None:
        """RFC 9112 section 3.2."""
        hosts = fields.get(b"host", [])
        if (minor != b"0" and len(hosts) != 1) or len(hosts) > 1 or not all(map(_HOST.fullmatch, hosts)):
            raise _Invalid

    def _length(self, fields: dict[bytes, list[bytes]]) -> int | None:
        """RFC 9112 section 6.3, rule 5."""
        values = fields.get(b"content-length")
        if values is None:
            return None
        if not all(map(_LENGTH.fullmatch, values)):
            raise _Invalid
        numbers = {int(number) for value in values for number in value.split(b",")}
        if len(numbers) != 1:
            raise _Invalid
        self._plain(len(values) == 1 and values[0].isdigit() and len(values[0]) < 6)
        return numbers.pop()

    def _is_in_chunks(self, fields: dict[bytes, list[bytes]], length: int | None) -> bool:
        """RFC 9112 sections 6.1 and 6.3, rules 3 and 4."""
        values = fields.get(b"transfer-encoding")
        if values is None:
            return False
        codings = [coding.strip().lower() for value in values for coding in value.split(b",")]
        if length is not None or codings.pop() != b"chunked" or b"chunked" in codings:
            raise _Invalid
        self._plain(not codings)
        return True

    # Bytes

    def _line(self) -> bytes:
        """A line up to LF or CRLF (RFC 9112 section 2.2)."""
        end = self._data.find(b"\n", self._at)
        if end < 0:
            if b"\r" in self._data[self._at : -1]:
                raise _Invalid
            raise _Incomplete
        line, self._at = self._data[self._at : end], end + 1
        if line.endswith(b"\r"):
            line = line[:-1]
        else:
            self._plain(False)
        if b"\r" in line:
            raise _Invalid
        return line

    def _take(self, size: int) -> None:
        if self._at + size > len(self._data):
            raise _Incomplete
        self._at += size
        self._plain(size < LARGEST_PLAIN_BODY)

    def _chunks(self) -> None:
        """RFC 9112 section 7.1; no lenience about the ends of lines here."""
        total = 0
        while True:
            match = _CHUNK.fullmatch(self._strict_line())
            if match is None:
                raise _Invalid
            self._plain(match[0].isalnum())
            size = int(match[1], 16)
            if not size:
                self._plain(not self._fields())
                return
            total += size
            self._plain(total < LARGEST_PLAIN_BODY)
            self._take(size)
            self._expect(b"\r\n")

    def _strict_line(self) -> bytes:
        end = self._data.find(b"\n", self._at)
        if end < 0:
            raise _Incomplete
        line, self._at = self._data[self._at : end], end + 1
        if not line.endswith(b"\r"):
            raise _Invalid
        return line[:-1]

    def _expect(self, what: bytes) -> None:
        came = self._data[self._at : self._at + len(what)]
        if not what.startswith(came):
            raise _Invalid
        self._take(len(what))
