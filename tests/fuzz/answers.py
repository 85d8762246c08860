"""Checks whether a server's answers fit the requests: complete HTTP, our shape, and one answer per request."""

import json
import re
from dataclasses import dataclass
from http import HTTPStatus

from tests.fuzz.heads import HIDDEN
from tests.fuzz.reading import Asked, End, Reading

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [\x20-\x7e]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\x20-\x7e\x80-\xff]*)")
_SANE_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    fields: dict[bytes, bytes]
    body: bytes

    @property
    def request_id(self) -> bytes:
        return self.fields.get(b"x-request-id", b"")

    def fault(self) -> str | None:
        """The faults of the answer by itself."""
        if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return f"{self.status}"
        if not _SANE_ID.fullmatch(self.request_id):
            return f"{self.status} without an X-Request-ID"
        if self.status < HTTPStatus.BAD_REQUEST or not self.body:
            return None
        if self.fields.get(b"content-type") != b"application/problem+json":
            return f"{self.status} as {self.fields.get(b'content-type')!r}"
        problem = json.loads(self.body)
        is_ours = {"type", "title", "detail", "code"} <= set(problem) and problem["status"] == self.status
        return None if is_ours else f"{self.status} with {problem}"


class NotHttp(Exception):
    """The bytes are no answer; the message says why."""


def answers_of(data: bytes, reading: Reading) -> tuple[list[Answer], bytes]:
    """The whole answers at the beginning of `data`, and the rest. Raises NotHttp."""
    answers: list[Answer] = []
    while b"\r\n\r\n" in data:
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        status = _STATUS_LINE.fullmatch(first)
        matches = [_FIELD.fullmatch(line) for line in lines]
        if status is None or None in matches:
            raise NotHttp(f"no answer: {head[:200]!r}")
        pairs = [(match[1].lower(), match[2]) for match in matches if match]
        fields = dict(pairs)
        number = int(status[1])
        if number == HTTPStatus.CONTINUE:
            data = rest
            continue
        if len(fields) != len(pairs) or (b"transfer-encoding" in fields and b"content-length" in fields):
            raise NotHttp(f"a field stands twice: {head[:400]!r}")
        asked = reading.requests[len(answers)] if len(answers) < len(reading.requests) else None
        size = _size(number, fields, asked, rest)
        if len(rest) < size:
            return answers, data
        answers.append(Answer(number, fields, rest[:size]))
        data = rest[size:]
        if number == HTTPStatus.SWITCHING_PROTOCOLS:
            break
    return answers, data


def _size(status: int, fields: dict[bytes, bytes], asked: Asked | None, rest: bytes) -> int:
    """The length of the body that belongs to these header fields."""
    if status in (HTTPStatus.SWITCHING_PROTOCOLS, HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return 0
    if b"content-length" not in fields:
        raise NotHttp(f"{status} without a length")
    # A server may refuse a head before it has read the method.
    is_head = asked is None or asked.method == b"HEAD"
    if is_head and (b"connection" not in fields or not rest.startswith(b"{")):
        return 0
    return int(fields[b"content-length"])


def faults(reading: Reading, answers: list[Answer], rest: bytes, *, ended: bool, is_reset: bool = False) -> list[str]:
    """The faults of the answers to these bytes; `ended`: the server has closed the connection; `is_reset`: and the
    kernel has dropped what was not read by then. RFC 9112 section 9.6: that can happen to a client that sends more
    behind its last request."""
    found = [fault for answer in answers if (fault := answer.fault())]
    if answers and answers[-1].status == HTTPStatus.SWITCHING_PROTOCOLS:
        return found if reading.end is End.UPGRADED else [*found, "an upgrade that nobody has asked for"]
    may_be_lost = is_reset and reading.end is End.CLOSED
    if rest and not may_be_lost:
        found.append(f"behind the answers: {rest[:60]!r}")
    for number, answer in enumerate(answers):
        asked = reading.requests[number] if number < len(reading.requests) else None
        if asked is not None and _fits(answer, asked):
            continue
        # A broken head may have swallowed a head that was meant to be hidden, and its id.
        is_broken_head = reading.end is End.REFUSED and number == len(reading.requests)
        if answer.request_id == HIDDEN and not is_broken_head:
            found.append(f"{answer.status} for what is no request but a body")
        if not _is_last_word(answer) or number != len(answers) - 1 or (reading.is_plain and reading.end is End.CLOSED):
            found.append(f"answer {number + 1} is {answer.status} to {answer.request_id!r}, of {reading}")
    whole = sum(asked.is_whole for asked in reading.requests)
    is_owed = not ended or (reading.is_plain and reading.end is not End.REFUSED and not may_be_lost)
    if len(answers) < whole and is_owed:
        found.append(f"{len(answers)} answers to {reading}")
    if reading.end in (End.CLOSED, End.REFUSED) and not ended:
        found.append(f"not closed after {reading}")
    return found


def _fits(answer: Answer, asked: Asked) -> bool:
    has_id = asked.request_id is not None and _SANE_ID.fullmatch(asked.request_id)
    return answer.request_id == asked.request_id if has_id else not answer.request_id.startswith(b"fuzz-")


def _is_last_word(answer: Answer) -> bool:
    return answer.status >= HTTPStatus.BAD_REQUEST and answer.fields.get(b"connection") == b"close"
