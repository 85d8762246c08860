"""The fixtures of the browser tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browsing import Room, Till, Windows, room_of, till_in
from tests.support.server import Server

expect.set_options(timeout=15_000)


@pytest.fixture
def room(server: Server) -> Iterator[Room]:
    """A room that no other test uses, on the service that most tests share."""
    with room_of(server) as room:
        yield room


@pytest.fixture
def windows(browser: Browser) -> Iterator[Windows]:
    """Windows for people. Fails if a script in them has failed or the Content-Security-Policy was violated."""
    windows = Windows(browser)
    yield windows
    windows.close()
    assert windows.complaints == []


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    with till_in(tmp_path) as till:
        yield till
