"""The demo as a user runs it: started as a command, read over HTTP, stopped with Ctrl-C."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import jwt
import pytest
import uvicorn
from starlette.applications import Starlette

from app.server.draining_server import DrainingServer
from app.settings import InvalidSettings
from app.simulate.demo import DRIVEN, ROOMS, VISITOR, YOURS, database, demo_settings

LINKS = 8
START_SECONDS = 60.0
MOVE_SECONDS = 30.0

SETTINGS = ("DATABASE_URL", "PORT", "ENVIRONMENT", "ROPE_DROP_SECONDS", "WALLET_URL", "AUTH_JWKS_URL", "HOST")


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


pytestmark = pytest.mark.usefixtures("no_settings")


def unheard(line: str) -> None:
    pytest.fail(f"not expected: {line}")


# Its settings


def test_nobody_is_hurried_or_sent_home_unless_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "0")
    settings = demo_settings("sqlite:///x.db", unheard)
    assert (settings.rope_drop_seconds, settings.disconnect_grace_seconds) == (0, 0)
    monkeypatch.setenv("ROPE_DROP_SECONDS", "90")
    assert demo_settings("sqlite:///x.db", unheard).rope_drop_seconds == 90


def test_the_wallet_is_always_the_sandbox_and_the_tokens_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALLET_URL", "https://wallet.example")
    monkeypatch.setenv("AUTH_JWKS_URL", "https://site.example/keys")
    settings = demo_settings("sqlite:///x.db", lambda line: None)
    assert (settings.wallet_url, settings.auth_jwks_url) == ("sandbox:", None)


def test_the_demo_does_not_run_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    with pytest.raises(InvalidSettings, match="ENVIRONMENT: the demo"):
        demo_settings("sqlite:///x.db", unheard)


def test_a_port_that_is_taken_is_passed_over_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("PORT", str(port))
        said: list[str] = []
        settings = demo_settings("sqlite:///x.db", said.append)
    assert settings.port > port
    assert said == [f"Port {port} is taken; this demo is on port {settings.port}."]


def test_the_database_is_gone_afterwards_unless_it_is_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with database(keep=False) as url:
        folder = Path(url.removeprefix("sqlite:///")).parent
        assert folder.is_dir()
    assert not folder.exists()
    with database(keep=True) as url:
        assert url == "sqlite:///demo.db"
    monkeypatch.setenv("DATABASE_URL", "sqlite:///mine.db")
    for keep in (False, True):
        with database(keep=keep) as url:
            assert url == "sqlite:///mine.db"


# The whole of it


def test_a_ctrl_c_that_comes_while_the_server_starts_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    server = DrainingServer(uvicorn.Config(Starlette()))
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: signal.raise_signal(signal.SIGINT))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        server.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert server.should_exit


@dataclass
class RunningDemo:
    process: "subprocess.Popen[str]"
    lines: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def link(self, page: str, sub: str | None = None) -> str:
        """The printed link to a page for this person."""
        return next(
            link for link in self.links if urlsplit(link).path == page and (sub is None or claims(link)["sub"] == sub)
        )


@contextmanager
def demo(temporary: Path) -> Iterator[RunningDemo]:
    """Started with nothing but a free port; `temporary` is its folder for temporary files."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PORT": "0", "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
    )
    running = RunningDemo(process)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            running.lines.append(line)
            running.links += re.findall(r"http://\S+", line)
            if len(running.links) == LINKS:
                break
        assert len(running.links) == LINKS, "".join(running.lines)
        yield running
    finally:
        process.kill()
        process.communicate()


def token(link: str) -> str:
    return urlsplit(link).fragment.removeprefix("token=")


def claims(link: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token(link), options={"verify_signature": False})
    return found


def bearer(link: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(link)}"}


def test_the_demo_shows_moving_queues_at_once_and_stops_without_a_trace(tmp_path: Path) -> None:
    began = time.monotonic()
    with demo(tmp_path) as running, httpx2.Client(trust_env=False, timeout=20) as http:
        assert time.monotonic() - began < START_SECONDS
        site = "{0.scheme}://{0.netloc}".format(urlsplit(running.links[0]))

        # The links: each page is there, with a token in the fragment for whoever it is for.
        for link in running.links:
            assert http.get(link.partition("#")[0]).status_code == 200, link
        assert claims(running.link(f"/watch/{DRIVEN[0]}"))["sub"] == VISITOR
        for performer_id in ROOMS:
            assert claims(running.link("/panel", performer_id))["role"] == "performer"
        assert claims(running.link("/admin"))["role"] == "admin"
        assert claims(running.link("/admin"))["exp"] > time.time() + 24 * 3600

        # Every room has items at the first look, one of them the visitor's; somebody is on stage but in the one room.
        panels = {performer_id: running.link("/panel", performer_id) for performer_id in ROOMS}

        def room(performer_id: str) -> Any:
            path = f"{site}/v1/performers/{performer_id}/queue"
            return http.get(path, headers=bearer(panels[performer_id])).json()

        first = {performer_id: room(performer_id) for performer_id in ROOMS}
        for queue in first.values():
            # They have begun to move before this look.
            assert len(queue["items"]) >= 2
            assert VISITOR in {item["userId"] for item in queue["items"]}
        assert [item["status"] for item in first[YOURS]["items"]] == ["created"] * len(first[YOURS]["items"])
        assert not first[YOURS]["room"]["performerOnline"]

        # They move by themselves.
        end = time.monotonic() + MOVE_SECONDS
        performing: set[str] = set()
        moved = 0
        while (performing < set(DRIVEN) or not moved) and time.monotonic() < end:
            for performer_id in DRIVEN:
                queue = room(performer_id)
                moved += queue["room"]["version"] - first[performer_id]["room"]["version"]
                if queue["items"] and queue["items"][0]["status"] == "started" and queue["room"]["performerOnline"]:
                    performing.add(performer_id)
        assert performing == set(DRIVEN)
        assert moved
        assert room(YOURS)["items"][0]["status"] == "created"

        # The one room is the visitor's to drive.
        yours = bearer(panels[YOURS])
        started = http.post(f"{site}/v1/performers/{YOURS}/queue/start-next", headers=yours).json()
        assert started["status"] == "started"
        finished = http.post(f"{site}/v1/queue/items/{started['itemId']}/complete", headers=yours).json()
        assert finished["status"] == "finished"

        # The tokens of queued items are held at the wallet, and its ledger balances.
        # The demo's wallet fails now and then on purpose, and whoever asks it asks again.
        path = f"/sandbox/wallets/{started['userId']}/escrow/{started['escrowTransactionId']}"
        asked = (http.get(site + path) for _ in range(20))
        escrow = next(answer.json() for answer in asked if answer.status_code == 200)
        assert (escrow["amount"], escrow["status"]) == (started["tokens"], "held")
        books = http.get(f"{site}/sandbox/books").json()
        assert books["balanced"]
        assert books["escrow"] >= started["tokens"]

        running.process.send_signal(signal.SIGINT)
        output, _ = running.process.communicate(timeout=30)
    assert running.process.returncode == 0
    assert "Stopped. The books balance" in output
    assert "Traceback" not in "".join(running.lines) + output
    assert list(tmp_path.glob("performance-queue-demo-*")) == []
