"""A live socket that the service or a proxy before it refuses: one sentence, and a hint for the developer."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx2
import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_embed import Site, host_site
from tests.support.browsing import Room, Windows, wait_for

UNAVAILABLE = "The service answers, but no live connection comes about. This page keeps trying."
REFUSED = "The service takes no connections from this page’s address"


@contextmanager
def without_upgrades(url: str) -> Iterator[str]:
    """The address of a proxy that forwards requests to the service, but no WebSocket upgrades."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_upgrade = self.headers.get("Upgrade") is not None
            answer = None if is_upgrade else httpx2.get(url + self.path, timeout=20, trust_env=False)
            body = answer.content if answer else b""
            self.send_response(answer.status_code if answer else 502)
            for name in ("Content-Type", "Content-Security-Policy"):
                if answer and name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: object) -> None:
            """Log nothing."""

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}"
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join(10)


def lines_of(page: Page) -> list[str]:
    """The lines of the page's console from now on."""
    said: list[str] = []
    page.on("console", lambda line: said.append(line.text))
    return said


@pytest.fixture
def site() -> Iterator[Site]:
    with host_site() as site:
        yield site


def test_each_page_says_in_one_sentence_that_no_socket_comes_about(room: Room, windows: Windows) -> None:
    with without_upgrades(room.server.url) as proxy:
        for address, words in (
            (room.watch_url("ada"), UNAVAILABLE),
            (room.panel_url, UNAVAILABLE),
            (room.overlay_url, UNAVAILABLE),
            (f"{room.watch_url()}?lang=de", "es kommt keine Live-Verbindung zustande"),
        ):
            page = windows.blank()
            said = lines_of(page)
            page.goto(address.replace(room.server.url, proxy))
            expect(page.get_by_text(words)).to_be_visible()
            expect(page.get_by_role("heading", level=2)).to_have_count(0)
            assert len([line for line in said if "Does a proxy before the service" in line]) == 1


def test_a_sandboxed_frame_without_an_origin_shows_that_it_is_refused(room: Room, site: Site, windows: Windows) -> None:
    frames = "".join(
        f'<iframe sandbox="allow-scripts" src="{url}" width="600" height="300"></iframe>'
        for url in (room.watch_url("ada"), room.overlay_url)
    )
    site.shows(frames)
    page = windows.blank()
    said = lines_of(page)
    page.goto(site.origin)
    for number in range(2):
        expect(page.frame_locator("iframe").nth(number).get_by_text(REFUSED)).to_be_visible()
    assert len([line for line in said if "it needs allow-same-origin" in line]) == 2


def test_a_client_of_a_refused_origin_has_one_problem_with_a_hint_and_tries_ever_more_seldom(
    room: Room, site: Site, windows: Windows
) -> None:
    site.shows(
        f"""<script type="module">
          import {{ QueueClient }} from "{room.server.url}/static/v1/queue-client.js";
          window.problems = [];
          window.client = new QueueClient({{ performerId: "{room.performer}", server: "{room.server.url}" }});
          client.addEventListener("problem", ({{ detail }}) => problems.push([detail.code, detail.hint]));
          client.connect();
        </script>"""
    )
    page = windows.blank()
    said = lines_of(page)
    page.goto(site.origin)
    wait_for(page, lambda: page.evaluate("window.problems?.length > 0"))
    hint = f"Add {site.origin} to ALLOWED_ORIGINS of the service."
    # One more attempt is refused, and says nothing new.
    with page.expect_websocket():
        page.evaluate("client.retry()")
    with page.expect_websocket(timeout=60_000) as again:
        pass
    assert re.search("/queue/live$", again.value.url)
    assert page.evaluate("problems") == [["FORBIDDEN", hint]]
    assert page.evaluate("[client.problem.hint, client.connection.status]") == [hint, "connecting"]
    assert len([line for line in said if hint in line]) == 1
