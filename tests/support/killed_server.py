"""The service as a process on a SQLite file, with clients that cause load; tests kill it at any moment."""

import http.client
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from app.access import auth
from app.domain.command import Role
from tests.support.ports import free_port

START_SECONDS = 60
ROOT = Path(__file__).parents[2]
SECRET = secrets.token_hex()
PERFORMERS = ["ada", "bo", "cleo"]
FEATURES = 4
"""Connections that queue items; each performer has one that starts and ends them."""

Json = dict[str, Any]


@dataclass(eq=False)
class Request:
    """One POST, and its answer if one came before the server was killed."""

    path: str
    body: Json
    key: str
    token: str
    status: int = 0
    answer: Json = field(default_factory=dict)
    replayed: bool = False

    @property
    def is_acknowledged(self) -> bool:
        return self.status in (200, 201)


class Client:
    """One connection. A request without an answer raises OSError or HTTPException and is not changed."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def send(self, request: Request) -> None:
        headers = {"Authorization": f"Bearer {request.token}", "Idempotency-Key": request.key}
        self._connection.request("POST", request.path, json.dumps(request.body), headers)
        response = self._connection.getresponse()
        request.answer = json.loads(response.read())
        request.replayed = response.headers.get("Idempotent-Replayed") == "true"
        request.status = response.status

    def get(self, path: str, token: str) -> Json:
        self._connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = self._connection.getresponse()
        answer: Json = json.loads(response.read())
        assert response.status == 200, answer
        return answer

    def close(self) -> None:
        self._connection.close()


def token(role: Role, sub: str) -> str:
    return auth.sign(SECRET, role, sub, now=datetime.now(UTC))


def intake(name: str, performer_id: str, feature: str) -> Request:
    body = {
        "sourceFeature": feature,
        "sourceEventId": name,
        "performerId": performer_id,
        "userId": f"viewer-{name}",
        "escrowTransactionId": f"escrow-{name}",
        "tokens": 10,
        "title": f"Request {name}",
        "description": "A song",
    }
    return Request("/v1/queue/items", body, f"key-{name}", token(Role.FEATURE, feature))


@contextmanager
def server(path: Path) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """The service on a free port; it is killed at the end of the block, unless it has ended before."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": f"sqlite:///{path}",
        "AUTH_SECRET": SECRET,
        "USER_INTAKES_PER_MINUTE": "0",
        "MAX_QUEUE_DEPTH": "1000",
    }
    with path.with_suffix(".log").open("ab") as log:
        for _ in range(3):
            port = free_port()
            process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve"], cwd=ROOT, env=environment | {"PORT": str(port)}, stderr=log
            )
            if _is_ready(port, process):
                break
        else:
            pytest.fail(f"the server did not start: {path.with_suffix('.log').read_text()[-2000:]}")
    try:
        yield port, process
    finally:
        process.kill()
        process.wait()


def _is_ready(port: int, process: "subprocess.Popen[bytes]") -> bool:
    """Wait until the service is ready; False if it has ended, for instance because its port was taken meanwhile."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with closing(Client(port)) as client:
                # Another server on this port does not have the key of this token.
                client.get("/v1/admin/rooms", token(Role.ADMIN, "admin"))
        except (OSError, http.client.HTTPException, AssertionError):
            time.sleep(0.05)
        else:
            return True
    process.kill()
    process.wait()
    return False


class Load:
    """Several connections that send requests until the server is gone."""

    def __init__(self, port: int, round_number: int) -> None:
        self.sent: list[Request] = []
        self.failed: list[Request] = []
        """Requests that were answered with 5xx."""
        self._acknowledged = threading.Semaphore(0)
        self._over = False
        self._port = port
        self._round = round_number
        workers = [(self._queue_items, number) for number in range(FEATURES)]
        self._threads = [threading.Thread(target=work, args=[number]) for work, number in workers]
        self._threads += [threading.Thread(target=self._perform, args=[name]) for name in PERFORMERS]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        for thread in self._threads:
            thread.join()

    def _queue_items(self, number: int) -> None:
        with closing(Client(self._port)) as client:
            for at in count():
                name = f"{self._round}-{number}-{at}"
                if not self._send(client, intake(name, PERFORMERS[at % len(PERFORMERS)], f"feature-{number}")):
                    return

    def _perform(self, performer_id: str) -> None:
        own_token = token(Role.PERFORMER, performer_id)
        with closing(Client(self._port)) as client:
            for at in count():
                key = f"{self._round}-{at}"
                start = Request(f"/v1/performers/{performer_id}/queue/start-next", {}, f"start-{key}", own_token)
                if not self._send(client, start):
                    return
                # The refusal for an item that is started already, by a request without an answer, names that item.
                item_id = start.answer.get("itemId") or start.answer.get("item", {}).get("itemId")
                if item_id is None:
                    continue
                end = "complete" if at % 3 else "abandon"
                if not self._send(client, Request(f"/v1/queue/items/{item_id}/{end}", {}, f"{end}-{key}", own_token)):
                    return

    def _send(self, client: Client, request: Request) -> bool:
        """Send a request; returns whether an answer came and the load goes on."""
        self.sent.append(request)
        try:
            client.send(request)
        except (OSError, http.client.HTTPException):
            return False
        if request.is_acknowledged:
            self._acknowledged.release()
        elif request.status >= 500:
            self.failed.append(request)
        return not self._over

    def wait_for_acknowledgements(self, number: int) -> None:
        for _ in range(number):
            assert self._acknowledged.acquire(timeout=START_SECONDS)
