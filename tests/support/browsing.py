"""Shared parts of browser tests: a room of the service, and browser windows of separate people.

Everything is synchronous: Playwright's own loop runs in the test's thread.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from playwright.sync_api import Browser, BrowserContext, Locator, Page, ViewportSize

from app.main import Periods
from tests.support.builders import API_TOKEN, QUEUE_SECRET
from tests.support.server import Json, Server, fresh, intake_body, serving
from tests.support.stores import HandClock
from tests.support.wallet_harness import WELL, WalletServer, real_clock, wallet_serving

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
        """Post an intake."""
        body = intake_body(self.performer, **fields)
        return self._send("POST", "/v1/queue/items", self.server.feature(body["sourceFeature"]), body)

    def start_next(self) -> Json:
        path = f"/v1/performers/{self.performer}/queue/start-next"
        return self._send("POST", path, self.server.performer(self.performer))

    def command(self, name: str, item: Json, body: Json | None = None) -> Json:
        """A command of the performer."""
        return self.as_other(self.server.performer(self.performer), name, item, body)

    def as_other(self, token: str, name: str, item: Json, body: Json | None = None) -> Json:
        """A command with this token."""
        return self._send("POST", f"/v1/queue/items/{item['itemId']}/{name}", token, body)

    def settings(self, **changes: Any) -> Json:
        path = f"/v1/performers/{self.performer}/queue"
        return self._send("PATCH", path, self.server.performer(self.performer), changes)

    def state(self) -> Json:
        """The room's present state."""
        path = f"/v1/performers/{self.performer}/queue"
        room: Json = self._send("GET", path, self.server.admin)["room"]
        return room

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


RUNS_OVER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
"""JavaScript: by how many pixels the page is wider than its window."""

HIDES = """hidden => {
  const state = hidden ? "hidden" : "visible";
  Object.defineProperty(document, "visibilityState", { get: () => state, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
"""JavaScript: makes the page believe that it is hidden or visible, which a headless window never changes."""

ALARMS = """
window.alarms = { asked: 0, shown: [], tones: 0 };
window.Notification = class {
  static permission = "default";
  static async requestPermission() {
    window.alarms.asked += 1;
    return (this.permission = "granted");
  }
  constructor(title, { body }) {
    window.alarms.shown.push([title, body]);
  }
};
const start = OscillatorNode.prototype.start;
OscillatorNode.prototype.start = function (...given) {
  window.alarms.tones += 1;
  return start.apply(this, given);
};
"""
"""JavaScript: records in `alarms` the page's requests for permission, its notifications and its tones."""


@contextmanager
def room_of(server: Server) -> Iterator[Room]:
    with httpx2.Client(base_url=server.url, timeout=20, trust_env=False) as http:
        yield Room(server, http)


def wait_for(page: Page, is_so: Callable[[], bool]) -> None:
    """Wait until `is_so()`, 15 s at most, while the page runs."""
    for _ in range(150):
        if is_so():
            return
        page.wait_for_timeout(100)
    raise AssertionError("the condition did not become true within 15 s")


def has_keyboard(locator: Locator) -> None:
    """Wait until the keyboard acts on this element.

    Playwright's `to_be_focused` also wants the window to be in front, which another window of the browser may be.
    """
    active = "element => element.getRootNode().activeElement === element"
    wait_for(locator.page, lambda: bool(locator.evaluate(active)))


@dataclass(frozen=True)
class Till:
    """A room whose tokens are held in a wallet that can be made to fail."""

    room: Room
    wallet: WalletServer
    clock: HandClock

    def request(self, *, tokens: int = 100, **fields: Any) -> Json:
        """Hold tokens and post the intake."""
        user_id = fields.pop("userId", None) or fresh("user")
        escrow_id = self.wallet.hold(user_id, tokens)
        return self.room.request(userId=user_id, tokens=tokens, escrowTransactionId=escrow_id, **fields)

    def recovers(self) -> None:
        """Make the wallet work again, and move the clock to the next attempt."""
        self.wallet.faults.rates = WELL
        self.clock.wait(5)


@contextmanager
def till_in(folder: Path, *, max_attempts: int = 2) -> Iterator[Till]:
    """A service for one test with a sandbox wallet; an operation is dead after `max_attempts`."""
    clock = real_clock()
    with (
        wallet_serving(folder, clock) as wallet,
        serving(
            folder,
            clock=clock,
            # The service counts the time that the test's clock skips as time at work, not as a standstill.
            periods=Periods(standstill=10**8),
            wallet_url=wallet.url,
            wallet_api_token=API_TOKEN,
            wallet_queue_secret=QUEUE_SECRET,
            wallet_retry_base_seconds=1,
            wallet_retry_max_seconds=2,
            wallet_max_attempts=max_attempts,
            settle_delay_seconds=0,
            rope_drop_seconds=0,
        ) as server,
        room_of(server) as room,
    ):
        yield Till(room, wallet, clock)


class Windows:
    """Windows of separate people: each has its own browser context, so that they share no storage."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []
        """Errors that scripts have thrown, and violations of the Content-Security-Policy."""

    def open(self, url: str, *, size: ViewportSize = DESKTOP, **options: Any) -> Page:
        """`options` are those of a browser context."""
        page = self.blank(size=size, **options)
        page.goto(url)
        return page

    def blank(self, *, size: ViewportSize = DESKTOP, **options: Any) -> Page:
        """A window of a new person, without a page."""
        context = self._browser.new_context(**{"viewport": size, "locale": "en-GB", **options})
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: self.complaints.append(line.text) if "Content Security" in line.text else None)
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()


def every_page(room: Room) -> list[tuple[str, str]]:
    """The address of each page, and a text that it shows; one request is on stage and Ada's is next."""
    room.request(title="Sing a song")
    room.request(userId="ada", title="Dance")
    room.start_next()
    url = room.server.url
    return [
        (url, "Everybody sees their place"),
        (room.watch_url("ada"), "You’re next, after this one"),
        (room.panel_url, "Finish"),
        (room.overlay_url, "Sing a song"),
        (room.admin_url, room.performer),
        (f"{url}/docs", "Live socket"),
        (f"{url}/docs/guides/embed", "Embed a viewer's place"),
        (f"{url}/nothing", "There is no page here"),
    ]
