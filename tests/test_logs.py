"""The log lines on standard error: everything that an operator needs, in both formats, and no data of callers."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from app import logs
from app.engine.queries import Queries
from app.settings import Environment
from tests.support.server import Api, Server, problem

log = logging.getLogger("app.somewhere")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Restore the logging of the process for the other tests."""
    root, ours = logging.getLogger(), logging.getLogger("app")
    before = (root.handlers[:], root.level, ours.level)
    # The handlers are only set aside: those of the tests themselves must not be closed.
    root.handlers.clear()
    yield
    root.handlers[:], level, own_level = before
    root.setLevel(level)
    ours.setLevel(own_level)


def written(environment: Environment) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(environment, stream)
    return stream


def fail_with_a_secret() -> None:
    secret = "the-token"
    raise ValueError(len(secret))


def test_in_production_a_line_is_a_json_object() -> None:
    stream = written(Environment.PRODUCTION)
    log.warning("operation %s is late", "op-1", extra={"request_id": "r-1", "seconds": 1.5})
    (line,) = stream.getvalue().splitlines()
    entry: dict[str, Any] = json.loads(line)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "app.somewhere",
        "message": "operation op-1 is late",
        "request_id": "r-1",
        "seconds": 1.5,
    }


def test_in_development_a_line_can_be_read() -> None:
    stream = written(Environment.DEVELOPMENT)
    log.warning("operation %s is late", "op-1", extra={"request_id": "r-1"})
    (line,) = stream.getvalue().splitlines()
    assert "warning" in line
    assert "operation op-1 is late" in line
    assert "request_id=r-1" in line
    assert "\x1b" not in line, "no colours in what is no terminal"


@pytest.mark.parametrize("environment", Environment)
def test_a_line_of_the_callers_making_stays_one_line(environment: Environment) -> None:
    stream = written(environment)
    log.warning("looked for %s", "a\nb", extra={"performer": "c\nd"})
    # In development, on a terminal, a sentence may break; a record for a machine never does.
    assert len(stream.getvalue().splitlines()) == (1 if environment is Environment.PRODUCTION else 2)


@pytest.mark.parametrize("environment", Environment)
def test_a_traceback_shows_no_values(environment: Environment) -> None:
    stream = written(environment)
    try:
        fail_with_a_secret()
    except ValueError:
        log.exception("it failed")
    text = stream.getvalue()
    assert "fail_with_a_secret" in text
    assert "ValueError: 9" in text
    assert "the-token" not in text


def test_libraries_are_heard_only_when_something_is_wrong() -> None:
    stream = written(Environment.PRODUCTION)
    for name in ("alembic.runtime.migration", "uvicorn.error", "sqlalchemy.engine"):
        logging.getLogger(name).info("by the way")
    log.info("one of ours")
    log.debug("too much")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    messages = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert messages == ["one of ours", "Invalid HTTP request received."]


def test_configuring_again_replaces_what_was() -> None:
    first, second = written(Environment.PRODUCTION), written(Environment.PRODUCTION)
    log.warning("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_values_without_a_json_form_are_written_as_text() -> None:
    stream = written(Environment.PRODUCTION)
    log.warning("odd", extra={"kind": Environment, "path": {1, 2}})
    assert json.loads(stream.getvalue())["message"] == "odd"


# Requests


async def test_a_request_that_the_service_could_not_answer_is_logged_by_its_route(
    api: Api, server: Server, performer_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = written(Environment.PRODUCTION)

    async def away(self: Queries, performer_id: str) -> Any:
        raise ConnectionError("away")

    with monkeypatch.context() as patch:
        server.replace(patch, Queries, "room", away)
        path = f"/v1/performers/{performer_id}/queue"
        response = await api.send("GET", path, server.admin, headers={"X-Request-ID": "find-me"})
        problem(response, 500, "INTERNAL")
    failure, answer = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert failure["level"] == "error"
    assert failure["request_id"] == answer["request_id"] == "find-me"
    assert "ConnectionError" in failure["exception"]
    assert answer["level"] == "warning"
    assert (answer["method"], answer["route"], answer["status"]) == ("GET", "/v1/performers/{performerId}/queue", 500)
    assert answer["milliseconds"] >= 0
    for private in (performer_id, server.admin):
        assert private not in stream.getvalue()
    assert len(server.expected_errors()) == 1


async def test_a_refused_request_leaves_no_line(api: Api, server: Server, performer_id: str) -> None:
    stream = written(Environment.PRODUCTION)
    problem(await api.get("/v1/nowhere"), 404, "NOT_FOUND")
    problem(await api.get("/v1/events", "x.y.z"), 401, "UNAUTHORIZED")
    problem(await api.post("/v1/queue/items", server.admin, {}), 422, "VALIDATION_ERROR")
    await api.intake(performer_id)
    assert stream.getvalue() == ""
