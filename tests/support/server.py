"""The real service on a real port, and clients for HTTP and the socket.

`serving` runs uvicorn with the application's own configuration in a thread of this process. An error that the service
logs fails the test that stops it, unless the test has called `expected_errors`.
"""

import itertools
import logging
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.access import auth
from app.domain.command import Role
from app.main import PERIODS, Periods, create_app
from app.parts import utc_now
from app.server.draining_server import DrainingServer
from app.server.limits import Limits
from app.server.run import server_config
from app.settings import Settings
from app.tracing import ClosableTracer
from tests.support.live_socket import LiveSocket, connected

START_SECONDS = 20.0
LOGGERS = ("app", "uvicorn", "asyncio")
"""The loggers whose errors count. Not the root logger, which tests of the command line configure again."""

Json = dict[str, Any]

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
"""The contract's form of times: RFC 3339 in UTC with milliseconds."""
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

PUBLIC_FIELDS = {
    "itemId",
    "status",
    "position",
    "title",
    "sourceFeature",
    "tokens",
    "durationSeconds",
    "paused",
    "clock",
    "createdAt",
    "startedAt",
}
WHOLE_FIELDS = PUBLIC_FIELDS | {
    "idempotencyKey",
    "sourceEventId",
    "performerId",
    "userId",
    "escrowTransactionId",
    "description",
    "metadata",
    "queueMode",
    "passThroughMode",
    "updatedAt",
    "finishedAt",
    "abandonedAt",
    "refundedAt",
    "settled",
    "settledAt",
    "settlementTransactionId",
    "settledTokens",
    "refundedTokens",
    "refundTransactionId",
    "refundReason",
    "abandonReason",
    "walletStatus",
}
ROOM_FIELDS = {
    "performerId",
    "mode",
    "accepting",
    "paused",
    "pauseReason",
    "strictFifo",
    "maxDepth",
    "maxPerUser",
    "maxWaitSeconds",
    "notifyPositions",
    "announcement",
    "performerOnline",
    "depth",
    "version",
    "epoch",
}

_numbers = itertools.count(1)


def fresh(prefix: str) -> str:
    """A name that no other test uses."""
    return f"{prefix}-{uuid4().hex[:12]}"


def intake_body(performer_id: str, **fields: Any) -> Json:
    """A valid intake; fields that the test does not name are unique where they have to be."""
    number = next(_numbers)
    body: Json = {
        "idempotencyKey": f"key-{number}-{uuid4().hex}",
        "sourceFeature": "wheel",
        "sourceEventId": f"spin-{number}",
        "performerId": performer_id,
        "userId": f"user-{number}",
        "escrowTransactionId": f"escrow-{number}-{uuid4().hex}",
        "tokens": 100,
        "title": f"Request {number}",
        "description": "Sing the one about the sea",
    }
    return {**body, **fields}


class ErrorLog(logging.Handler):
    """Collects the errors that one server's thread logs; other servers of this process do not count.

    `is_plain`: the server uses uvicorn's own protocol, which logs an error for every refused handshake; these are
    ignored.
    """

    def __init__(self, thread_name: str, *, is_plain: bool) -> None:
        super().__init__(logging.ERROR)
        self.thread_name = thread_name
        self._is_plain = is_plain
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        is_uvicorns = self._is_plain and record.getMessage().startswith("ASGI callable returned without completing")
        if record.threadName == self.thread_name and not is_uvicorns:
            self.records.append(record)


class _ThreadedServer(DrainingServer):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    def stop(self) -> None:
        self.should_exit = True


@dataclass(kw_only=True)
class Server:
    """A running service."""

    port: int
    settings: Settings
    stop: Callable[[], None]
    """Begin an orderly end, as SIGTERM does; returns at once."""
    _errors: ErrorLog
    _tokens: dict[tuple[str, str, str | None], str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self, role: Role | str, sub: str, performer_id: str | None = None) -> str:
        known = self._tokens.get((role, sub, performer_id))
        return known or self._tokens.setdefault((role, sub, performer_id), self.sign(role, sub, performer_id))

    def sign(self, role: Role | str, sub: str, performer_id: str | None = None, *, ttl_seconds: float = 3600) -> str:
        return auth.sign(
            self.settings.auth_secret,
            Role(role),
            sub,
            now=utc_now(),
            performer_id=performer_id,
            ttl_seconds=ttl_seconds,
        )

    @property
    def admin(self) -> str:
        return self.token(Role.ADMIN, "ops")

    def feature(self, name: str = "wheel") -> str:
        return self.token(Role.FEATURE, name)

    def viewer(self, user_id: str) -> str:
        return self.token(Role.VIEWER, user_id)

    def performer(self, performer_id: str) -> str:
        return self.token(Role.PERFORMER, performer_id)

    def replace(self, patch: pytest.MonkeyPatch, kind: type, name: str, ours: Callable[..., Any]) -> None:
        """Replace a method by `ours` for calls from this server's event loop. Other servers of this process still call
        the original, because no test expects their errors."""
        theirs, thread_name = getattr(kind, name), self._errors.thread_name

        def either(*args: Any, **options: Any) -> Any:
            return (ours if threading.current_thread().name == thread_name else theirs)(*args, **options)

        patch.setattr(kind, name, either)

    def expected_errors(self) -> list[str]:
        """Return the errors that have been logged so far, and forget them: they no longer fail the test."""
        messages = [record.getMessage() + str(record.exc_info or "") for record in self._errors.records]
        self._errors.records.clear()
        return messages

    @asynccontextmanager
    async def api(self) -> AsyncIterator["Api"]:
        async with httpx2.AsyncClient(base_url=self.url, timeout=20, trust_env=False) as http:
            yield Api(self, http)

    @asynccontextmanager
    async def live(
        self, performer_id: str, token: str | None = None, *, query: str = "", **options: Any
    ) -> AsyncIterator[LiveSocket]:
        """A socket in the room; `token` goes into the Authorization header. `options` are those of `connected`."""
        url = f"ws://127.0.0.1:{self.port}/v1/performers/{performer_id}/queue/live{query}"
        async with connected(url, token, **options) as live:
            yield live


@contextmanager
def serving(
    folder: Path,
    *,
    protocol: Any = None,
    ping_seconds: float | None = None,
    port: int = 0,
    clock: Callable[[], datetime] = utc_now,
    periods: Periods = PERIODS,
    limits: Limits = Limits(),
    tracer: ClosableTracer | None = None,
    **settings: Any,
) -> Iterator[Server]:
    """Run the service on a database in `folder`, which is made if it does not exist. `protocol`: one of uvicorn's
    WebSocket classes, used with uvicorn's HTTP class and limits in place of our own. `port` 0: any free port. `clock`:
    the service's clock, in whole milliseconds. `periods`: those of its background loops."""
    defaults = {
        "database_url": f"sqlite:///{folder}/queue.db",
        "user_intakes_per_minute": 0,
        "sockets_per_address": 0,
        "settle_delay_seconds": 3600,
        "coalesce_ms": 0,
    }
    chosen = Settings(**{**defaults, **settings})
    config = server_config(create_app(chosen, clock, periods=periods, limits=limits, tracer=tracer), chosen)
    if protocol is not None:
        config.http, config.ws, config.ws_max_size = HttpToolsProtocol, protocol, 16 * 1024 * 1024
    if ping_seconds is not None:
        config.ws_ping_interval = config.ws_ping_timeout = ping_seconds
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    server = _ThreadedServer(config)
    port = listener.getsockname()[1]
    name = f"server-{port}"
    errors = ErrorLog(name, is_plain=protocol is not None)
    # Not the server's own `run`: signals belong to a program's main thread.
    thread = threading.Thread(target=uvicorn.Server.run, args=(server, [listener]), name=name, daemon=True)
    for logger in LOGGERS:
        logging.getLogger(logger).addHandler(errors)
    try:
        thread.start()
        assert server.ready.wait(START_SECONDS), "the server did not start"
        yield Server(port=port, settings=chosen, stop=server.stop, _errors=errors)
    finally:
        server.stop()
        thread.join(START_SECONDS)
        listener.close()
        for logger in LOGGERS:
            logging.getLogger(logger).removeHandler(errors)
    assert not thread.is_alive(), "the server did not stop"
    messages = [logging.Formatter().format(record) for record in errors.records]
    assert messages == [], "the service has logged errors:\n" + "\n".join(messages)


class Api:
    """An HTTP client of the service. A method with a command's name requires success and returns the answer's JSON."""

    def __init__(self, server: Server, http: httpx2.AsyncClient) -> None:
        self.server = server
        self.http = http

    async def send(
        self,
        method: str,
        path: str,
        token: str | None = None,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        content: Any = None,
    ) -> httpx2.Response:
        """Send a request; `content` is a raw body, `key` an Idempotency-Key."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if key is not None:
            sent["Idempotency-Key"] = key
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
            return await self.http.request(method, path, headers=sent, content=content)
        return await self.http.request(method, path, headers=sent, json=body)

    async def get(self, path: str, token: str | None = None) -> httpx2.Response:
        return await self.send("GET", path, token)

    async def post(self, path: str, token: str | None = None, body: Any = None, **options: Any) -> httpx2.Response:
        return await self.send("POST", path, token, body, **options)

    # Requests of a feature, a performer and a viewer

    async def intake(self, performer_id: str, **fields: Any) -> Json:
        body = intake_body(performer_id, **fields)
        return ok(await self.post("/v1/queue/items", self.server.feature(body["sourceFeature"]), body), 201)

    async def command(self, name: str, item: Json, body: Json | None = None) -> Json:
        """A command of the item's performer."""
        performer = self.server.performer(item["performerId"])
        return ok(await self.post(f"/v1/queue/items/{item['itemId']}/{name}", performer, body))

    async def start_next(self, performer_id: str) -> Json:
        return ok(
            await self.post(f"/v1/performers/{performer_id}/queue/start-next", self.server.performer(performer_id))
        )

    async def change(self, performer_id: str, **settings: Any) -> Json:
        performer = self.server.performer(performer_id)
        return ok(await self.send("PATCH", f"/v1/performers/{performer_id}/queue", performer, settings))

    async def queue(self, performer_id: str, token: str | None = None) -> Json:
        return ok(await self.get(f"/v1/performers/{performer_id}/queue", token))

    async def version(self, performer_id: str) -> int:
        """The room's version; 0 if the room does not exist."""
        response = await self.get(f"/v1/performers/{performer_id}/queue")
        return 0 if response.status_code == 404 else int(ok(response)["room"]["version"])


def ok(response: httpx2.Response, status: int = 200) -> Json:
    """The JSON of a response that must have this status."""
    assert response.status_code == status, f"{response.status_code} {response.text}"
    assert response.headers["Content-Type"] == "application/json"
    document: Json = response.json()
    return document


def problem(response: httpx2.Response, status: int, code: str) -> Json:
    """The problem document of a response, which must be this refusal in the common shape of all refusals."""
    assert (response.status_code, response.json().get("code")) == (status, code), response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Request-ID"]
    document: Json = response.json()
    assert document["status"] == status
    assert document["type"]
    assert document["title"]
    assert isinstance(document["detail"], str)
    assert set(document) <= {"type", "title", "status", "detail", "code", "errors", "retryAfterSeconds", "item"}
    for wrong in document.get("errors", []):
        assert set(wrong) == {"field", "message"}
    return document


@asynccontextmanager
async def nothing_changes(api: Api, performer_id: str) -> AsyncIterator[None]:
    """The room has the same version and the same items after the block as before."""
    admin = api.server.admin
    path = f"/v1/performers/{performer_id}/queue"
    before = await api.get(path, admin)
    yield
    after = await api.get(path, admin)
    assert after.json() == before.json()
