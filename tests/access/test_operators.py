"""Answers for operators alone, headers that guard pages and answers, and pages of other sites."""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.access.origins import HINT_SECONDS, Origins
from app.store.engines import DatabaseRefusedError, open_engines
from app.store.migrating import migrate
from tests.support.server import Api, Server, ok, problem, serving

TOKEN = "9d1f3a9c07be1d245869b7e02c9d48f6"
STRANGER = {"X-Forwarded-For": "192.0.2.7"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("guarded"), metrics_token=TOKEN) as server:
        yield server


async def test_metrics_are_for_this_machine_the_metrics_token_and_administrators(guarded: Server) -> None:
    async with guarded.api() as api:
        assert (await api.get("/metrics")).status_code == 200
        problem(await api.send("GET", "/metrics", headers=STRANGER), 401, "UNAUTHORIZED")
        for name, value in (("Forwarded", "for=192.0.2.7"), ("X-Real-IP", "192.0.2.7"), ("Via", "1.1 proxy")):
            problem(await api.send("GET", "/metrics", headers={name: value}), 401, "UNAUTHORIZED")
        problem(await api.send("GET", "/metrics", TOKEN + "0", headers=STRANGER), 401, "UNAUTHORIZED")
        problem(await api.send("GET", "/metrics", guarded.viewer("ada"), headers=STRANGER), 403, "FORBIDDEN")
        for token in (TOKEN, guarded.admin):
            assert "queue_info" in (await api.send("GET", "/metrics", token, headers=STRANGER)).text


async def test_without_a_metrics_token_none_is_accepted(api: Api) -> None:
    problem(await api.send("GET", "/metrics", headers={**STRANGER, "Authorization": "Bearer"}), 401, "UNAUTHORIZED")


async def test_a_stranger_learns_whether_the_service_is_ready_and_not_why(guarded: Server) -> None:
    async with guarded.api() as api:
        assert ok(await api.send("GET", "/readyz", headers=STRANGER)) == {"status": "ok"}
        assert ok(await api.send("GET", "/readyz", guarded.viewer("ada"), headers=STRANGER)) == {"status": "ok"}
        for answer in (
            await api.get("/readyz"),
            await api.send("GET", "/readyz", TOKEN, headers=STRANGER),
            await api.send("GET", "/readyz", guarded.admin, headers=STRANGER),
        ):
            assert ok(answer)["checks"]["database"] == "ok"


# Headers


@pytest.mark.parametrize(
    ("path", "may_be_framed"),
    [
        ("/", False),
        ("/panel", False),
        ("/admin", False),
        ("/docs", False),
        ("/docs/guides", False),
        ("/docs/guides/operate", False),
        ("/watch/mira", True),
        ("/overlay/mira", True),
    ],
)
async def test_only_the_pages_for_other_sites_may_be_framed(api: Api, path: str, may_be_framed: bool) -> None:
    policy = (await api.get(path)).headers["Content-Security-Policy"]
    assert policy.endswith("frame-ancestors *" if may_be_framed else "frame-ancestors 'none'")


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/events", "/v1/nowhere", "/v1/performers/x/queue"]
)
async def test_answers_of_the_interface_are_neither_sniffed_nor_kept(api: Api, path: str) -> None:
    headers = (await api.get(path)).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


async def test_a_page_is_kept_as_it_says_itself(api: Api) -> None:
    assert (await api.get("/panel")).headers.get_list("Cache-Control") == ["no-cache"]
    assert (await api.get("/panel")).headers.get_list("X-Content-Type-Options") == ["nosniff"]


# Files


def modes_of(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.glob("queue.db*")}


async def test_the_database_is_readable_by_its_owner_alone_also_one_that_was_not(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        for _ in range(2):
            with serving(tmp_path) as server:
                async with server.api() as api:
                    await api.intake("mira")
                modes = modes_of(tmp_path)
                assert {"queue.db", "queue.db-wal", "queue.db-shm"} <= set(modes)
                assert set(modes.values()) == {0o600}
            (tmp_path / "queue.db").chmod(0o644)
    finally:
        os.umask(before)


def test_a_folder_that_is_named_as_the_database_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    with pytest.raises(DatabaseRefusedError):
        migrate(open_engines(f"sqlite:///{folder}").writer)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


# Pages of other sites


def test_a_foreign_origin_is_named_once_a_minute_with_the_host_that_was_asked(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    origins = Origins(["https://friend.example"], clock=lambda: now)
    assert origins.allows(None, "queue.example")
    assert origins.allows("https://queue.example", "queue.example")
    assert origins.allows("https://friend.example", "queue.example")
    assert caplog.records == []
    for _ in range(10):
        assert not origins.allows("https://queue.example", "127.0.0.1:8000")
    assert not origins.allows("https://[", "queue.example")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "Host" in record.getMessage()
    assert (record.__dict__["origin"], record.__dict__["host"]) == ("https://queue.example", "127.0.0.1:8000")
    now += HINT_SECONDS
    assert not origins.allows("https://" + "x" * 10_000, None)
    assert len(caplog.records[1].__dict__["origin"]) <= 100
    assert caplog.records[1].__dict__["refused"] == 12
