"""Every error has one shape, every answer its request id, and neither shows anything internal."""

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

from app.engine.queries import Queries
from app.main import create_app
from app.settings import Settings
from tests.support.server import UUID7, Api, Server, fresh, intake_body, ok, problem, serving

ITEMS = "/v1/queue/items"


async def test_a_problem_says_what_it_is_in_machine_and_human_words(api: Api) -> None:
    response = await api.get("/v1/events")
    refusal = problem(response, 401, "UNAUTHORIZED")
    assert set(refusal) == {"type", "title", "status", "detail", "code"}
    assert refusal["type"] == "urn:performance-queue:unauthorized"
    assert refusal["title"] != refusal["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/v1",
        "/v1/",
        "/v1/queue",
        "/v1/queue/items/a/b",
        "/v2/queue/items",
        "/v1/performers//queue",
        "/V1/queue/items",
        "/static/nothing.js",
        "/static/%2e%2e/app/main.py",
        "/static/",
        "/.env",
        "/healthz/x",
        "/%ff",
        "/v1/performers/star/queue/live",
    ],
)
async def test_an_unknown_path_is_not_found_whatever_the_method(api: Api, server: Server, path: str) -> None:
    for method in ("GET", "POST", "PATCH", "DELETE"):
        response = await api.send(method, path, server.admin)
        if path.startswith("/static/") and method != "GET":
            problem(response, 405, "METHOD_NOT_ALLOWED")
        else:
            problem(response, 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (ITEMS, {"POST"}),
        (f"{ITEMS}/some-item", {"GET", "HEAD"}),
        (f"{ITEMS}/some-item/position", {"GET", "HEAD"}),
        (f"{ITEMS}/some-item/transitions", {"GET", "HEAD"}),
        (f"{ITEMS}/some-item/start", {"POST"}),
        (f"{ITEMS}/some-item/resume", {"POST"}),
        ("/v1/performers/star/queue", {"GET", "HEAD", "PATCH"}),
        ("/v1/performers/star/queue/depth", {"GET", "HEAD"}),
        ("/v1/performers/star/queue/start-next", {"POST"}),
        ("/v1/performers/star/queue/history", {"GET", "HEAD"}),
        ("/v1/users/ada/queue/items", {"GET", "HEAD"}),
        ("/v1/events", {"GET", "HEAD"}),
        ("/v1/admin/rooms", {"GET", "HEAD"}),
        ("/v1/admin/wallet-check", {"GET", "HEAD", "POST"}),
        ("/v1/admin/items?q=100", {"GET", "HEAD"}),
        ("/healthz", {"GET", "HEAD"}),
        ("/", {"GET", "HEAD"}),
        ("/panel", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_refused_with_the_right_ones(
    api: Api, server: Server, path: str, allowed: set[str]
) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - allowed:
        response = await api.send(method, path, server.admin)
        problem(response, 405, "METHOD_NOT_ALLOWED")
        assert {name.strip() for name in response.headers["Allow"].split(",")} == allowed


async def test_a_problem_answers_head_without_a_body(api: Api) -> None:
    response = await api.send("HEAD", "/nothing")
    assert (response.status_code, response.content) == (404, b"")


# Request ids


@pytest.mark.parametrize("request_id", ["a", "trace-1:2.3_4", "0" * 128, "01a20bda-2fcc-776b-a1f3-44c4687cb2bd"])
async def test_a_sane_request_id_comes_back(api: Api, server: Server, request_id: str) -> None:
    for path in ("/healthz", "/nothing", "/v1/events", "/panel", "/static/lib/style.css"):
        response = await api.send("GET", path, headers={"X-Request-ID": request_id})
        assert response.headers["X-Request-ID"] == request_id


@pytest.mark.parametrize(
    "request_id",
    ["", "0" * 129, "a b", "a,b", "<script>", "a;b", 'a"b', "a/b", "%0d%0aSet-Cookie", "\u00e9".encode("latin-1")],
    ids=repr,
)
async def test_any_other_is_replaced_by_one_of_ours(api: Api, request_id: str | bytes) -> None:
    raw = request_id.encode() if isinstance(request_id, str) else request_id
    response = await api.http.get("/healthz", headers=[(b"X-Request-ID", raw)])
    assert UUID7.fullmatch(response.headers["X-Request-ID"])


async def test_every_request_has_an_id_of_its_own(api: Api) -> None:
    given = [(await api.get("/healthz")).headers["X-Request-ID"] for _ in range(10)]
    assert len(set(given)) == 10


async def test_every_answer_carries_its_id_once(api: Api, server: Server, performer_id: str) -> None:
    responses = [
        await api.post(ITEMS, server.feature(), content=b"x" * 70_000),
        await api.post(ITEMS, None, {}),
        await api.get(f"/v1/performers/{performer_id}/queue"),
        await api.send("DELETE", ITEMS),
        await api.get("/watch/star"),
    ]
    for response in responses:
        assert len(response.headers.get_list("X-Request-ID")) == 1


# Health


async def test_the_service_says_that_it_is_alive_and_ready(api: Api) -> None:
    assert ok(await api.get("/healthz")) == {"status": "ok"}
    ready = ok(await api.get("/readyz"))
    assert ready["status"] == "ok"
    assert ready["checks"]["database"] == "ok"


# Unexpected failures


class Secret(Exception):
    """Holds a value that must not leave the process."""


SECRET = "postgresql://queue:hunter2@db.internal/queue"


@pytest.fixture
def broken(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def room(self: Queries, performer_id: str) -> None:
        raise Secret(SECRET)

    server.replace(monkeypatch, Queries, "room", room)


async def test_an_unexpected_failure_is_named_by_its_request_id_only(
    api: Api, server: Server, performer_id: str, broken: None
) -> None:
    response = await api.send("GET", f"/v1/performers/{performer_id}/queue", headers={"X-Request-ID": "trace-me"})
    refusal = problem(response, 500, "INTERNAL")
    assert "trace-me" in refusal["detail"]
    assert response.headers["X-Request-ID"] == "trace-me"
    for internal in (SECRET, "Secret", "Traceback", "reader", ".py"):
        assert internal not in response.text
    (logged,) = server.expected_errors()
    assert "Secret" in logged


async def test_the_connection_outlives_a_failure(api: Api, server: Server, performer_id: str, broken: None) -> None:
    for _ in range(3):
        problem(await api.get(f"/v1/performers/{performer_id}/queue"), 500, "INTERNAL")
        ok(await api.get("/healthz"))
    assert len(server.expected_errors()) == 3


async def test_a_database_that_cannot_be_asked_makes_the_service_unready_but_not_dead(
    api: Api, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(self: Queries, question: object) -> None:
        raise OperationalError(SECRET, None, Exception(SECRET))

    server.replace(monkeypatch, Queries, "run", ask)
    response = await api.get("/readyz")
    assert response.status_code == 503
    assert response.json()["status"] == "unavailable"
    assert response.json()["checks"]["database"] != "ok"
    assert SECRET not in response.text
    ok(await api.get("/healthz"))
    monkeypatch.undo()
    ok(await api.get("/readyz"))
    # The service's own loops have met the same, and said so.
    server.expected_errors()


async def test_a_command_that_cannot_be_committed_is_refused_and_changes_nothing(
    api: Api, server: Server, performer_id: str
) -> None:
    item = await api.intake(performer_id)

    def fail(connection: Connection) -> None:
        raise OperationalError(SECRET, None, Exception(SECRET))

    event.listen(Engine, "commit", fail)
    try:
        response = await api.post(f"{ITEMS}/{item['itemId']}/start", server.performer(performer_id))
    finally:
        event.remove(Engine, "commit", fail)
    refusal = problem(response, 503, "UNAVAILABLE")
    assert SECRET not in response.text
    assert response.headers["Retry-After"] == str(refusal["retryAfterSeconds"])
    assert (await api.start_next(performer_id))["itemId"] == item["itemId"]
    # Last: a loop of the service may have met the same, and says so a moment later.
    server.expected_errors()


# Callers that misbehave


async def test_a_caller_that_goes_away_in_mid_body_is_no_failure(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        f"POST {ITEMS} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {server.feature()}\r\n"
        "Content-Length: 100\r\n\r\n{".encode()
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with server.api() as api:
        ok(await api.get("/healthz"))
    assert server.expected_errors() == []


async def test_a_caller_that_goes_away_does_not_undo_what_was_accepted(server: Server, performer_id: str) -> None:
    body = json.dumps(intake_body(performer_id)).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        f"POST {ITEMS} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {server.feature()}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await writer.drain()
    writer.close()
    async with server.live(performer_id) as live:
        await live.reach(1)
        assert len(live.items) == 1


# Another origin


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("origins"), allowed_origins="https://site.example") as server:
        yield server


async def test_an_allowed_origin_may_ask_from_a_browser_and_no_other(shared: Server, performer_id: str) -> None:
    async with shared.api() as api:
        for origin, allowed in (("https://site.example", "https://site.example"), ("https://evil.example", None)):
            response = await api.send("GET", f"/v1/performers/{performer_id}/queue", headers={"Origin": origin})
            problem(response, 404, "PERFORMER_NOT_FOUND")
            assert response.headers.get("Access-Control-Allow-Origin") == allowed
            large = await api.send("POST", ITEMS, headers={"Origin": origin}, content=b"x" * 2_000_000)
            problem(large, 413, "PAYLOAD_TOO_LARGE")
            assert large.headers.get("Access-Control-Allow-Origin") == allowed
            preflight = {
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,idempotency-key,content-type",
            }
            response = await api.send("OPTIONS", ITEMS, headers=preflight)
            assert response.headers.get("Access-Control-Allow-Origin") == allowed
            assert response.status_code == (200 if allowed else 400)


# Without a server in between


async def test_the_application_answers_over_plain_asgi_too(tmp_path: Path) -> None:
    app = create_app(Settings(database_url=f"sqlite:///{tmp_path}/queue.db"))
    transport = httpx2.ASGITransport(app=app)
    async with (
        httpx2.AsyncClient(transport=transport, base_url="http://test") as client,
        app.router.lifespan_context(app),
    ):
        problem(await client.get("/nothing"), 404, "NOT_FOUND")
        problem(await client.get(f"/v1/performers/{fresh('performer_id')}/queue"), 404, "PERFORMER_NOT_FOUND")
