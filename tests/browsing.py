"""What browser tests share: a room with people in it, and windows that look at it.

Everything is synchronous: Playwright's own loop runs in the test's thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize

from tests.serverside import Json, Server, fresh, intake_body

PHONE: ViewportSize = {"width": 390, "height": 844}
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
NARROW: ViewportSize = {"width": 320, "height": 640}


class Room:
    """A performer's room on a running service, driven over HTTP."""

    def __init__(self, server: Server, http: httpx2.Client) -> None:
        self.server = server
        self.performer = fresh("mira")
        self._http = http

    def _send(self, method: str, path: str, token: str, body: Any = None) -> Json:
        headers = {"Authorization": f"Bearer {token}"}
        response = self._http.request(method, path, json=body or {}, headers=headers)
        assert response.is_success, response.text
        answer: Json = response.json()
        return answer

    def request(self, **fields: Any) -> Json:
        """A paid request comes in."""
        return self._send("POST", "/v1/queue/items", self.server.feature(), intake_body(self.performer, **fields))

    def start_next(self) -> Json:
        path = f"/v1/performers/{self.performer}/queue/start-next"
        return self._send("POST", path, self.server.performer(self.performer))

    def command(self, name: str, item: Json, body: Json | None = None) -> Json:
        path = f"/v1/queue/items/{item['itemId']}/{name}"
        return self._send("POST", path, self.server.performer(self.performer), body)

    def settings(self, **changes: Any) -> Json:
        path = f"/v1/performers/{self.performer}/queue"
        return self._send("PATCH", path, self.server.performer(self.performer), changes)

    def item(self, item: Json) -> Json:
        return self._send("GET", f"/v1/queue/items/{item['itemId']}", self.server.admin)

    def watch_url(self, user_id: str | None = None) -> str:
        token = f"#token={self.server.viewer(user_id)}" if user_id else ""
        return f"{self.server.url}/watch/{self.performer}{token}"

    @property
    def panel_url(self) -> str:
        return f"{self.server.url}/panel#token={self.server.performer(self.performer)}"

    @property
    def overlay_url(self) -> str:
        return f"{self.server.url}/overlay/{self.performer}"

    @property
    def admin_url(self) -> str:
        return f"{self.server.url}/admin#token={self.server.admin}"


@contextmanager
def room_of(server: Server) -> Iterator[Room]:
    with httpx2.Client(base_url=server.url, timeout=20, trust_env=False) as http:
        yield Room(server, http)


class Windows:
    """Windows of separate people: each its own context, so that nobody shares storage."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []
        """Errors that scripts threw, and what the Content-Security-Policy has blocked."""

    def open(self, url: str, *, size: ViewportSize = DESKTOP, **options: Any) -> Page:
        context = self._browser.new_context(viewport=size, locale="en-GB", **options)
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: self.complaints.append(line.text) if "Content Security" in line.text else None)
        page.goto(url)
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()
