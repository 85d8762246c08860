"""Requests as bytes: what the callers and publishers send."""

import json
import os
from itertools import count

from app.domain.command import Role
from tests.bench.load.callers import Call, Caller
from tests.bench.servers import FEATURE, token


def post(path: str, body: bytes, *, bearer: str | None = None, accept: str = "*/*") -> bytes:
    authorization = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\n{authorization}Accept: {accept}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def get(path: str, *, bearer: str | None = None) -> bytes:
    authorization = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n{authorization}\r\n".encode()


class Intakes:
    """Intake requests, each one new, spread evenly over rooms."""

    def __init__(self, rooms: int, *, prefix: str = "room") -> None:
        self._numbers = count()
        self._rooms = rooms
        self._prefix = prefix
        self._run = os.urandom(4).hex()
        self._bearer = token(Role.FEATURE, FEATURE)

    def next(self, room: str | None = None) -> Call:
        """The next intake, into its turn's room or the given one."""
        number = next(self._numbers)
        key = f"{self._run}-{number}"
        body = {
            "idempotencyKey": key,
            "sourceFeature": FEATURE,
            "sourceEventId": key,
            "performerId": room or f"{self._prefix}-{number % self._rooms}",
            "userId": f"u-{number % 1000}",
            "escrowTransactionId": f"x-{key}",
            "tokens": 120,
            "title": "A song",
            "description": "Anything by Nina Simone",
            "durationSeconds": 180,
        }
        return Call("intake", post("/v1/queue/items", json.dumps(body).encode(), bearer=self._bearer))

    def caller(self) -> Caller:
        """A caller that sends intakes for ever."""
        while True:
            yield self.next()
