"""A viewer's page on a slow network: round trips, requests and bytes until it is live."""

import json
import re

import jwt
import pytest
from playwright.sync_api import CDPSession, Page, WebSocket, expect

from tests.support.browsing import PHONE, Room, Windows, wait_for

LATENCY_MS = 3_000
"""Long beside whatever a busy machine needs to draw, so that round trips can be counted in it."""
COLD_BYTES = 40_000

LIVE_AT = """
new MutationObserver(() => {
  if (document.documentElement.dataset.connection === "live") window.liveAt ??= performance.now();
}).observe(document, { attributes: true, subtree: true });
"""


class Traffic:
    """The bytes and requests of a page, as the browser counts them."""

    def __init__(self, page: Page, *, latency_ms: int) -> None:
        self.requests: list[str] = []
        self.bytes = 0
        session: CDPSession = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.send(
            "Network.emulateNetworkConditions",
            {"offline": False, "latency": latency_ms, "downloadThroughput": 200_000, "uploadThroughput": 90_000},
        )
        session.on("Network.requestWillBeSent", lambda event: self.requests.append(event["request"]["url"]))
        session.on("Network.loadingFinished", lambda event: self._add(event["encodedDataLength"]))
        session.on("Network.webSocketFrameReceived", lambda event: self._add(len(event["response"]["payloadData"])))

    def _add(self, count: float) -> None:
        self.bytes += int(count)


def live_after(page: Page) -> float:
    """The time from the start of the navigation until the page is live, in round trips."""
    page.wait_for_selector("html[data-connection=live]", state="attached")
    return float(page.evaluate("liveAt")) / LATENCY_MS


def test_a_first_visit_is_live_after_two_round_trips_and_a_second_after_one(room: Room, windows: Windows) -> None:
    for number in range(5):
        room.request(title=f"Wish {number}")
    page = windows.blank(size=PHONE)
    page.add_init_script(LIVE_AT)
    traffic = Traffic(page, latency_ms=LATENCY_MS)
    page.goto(room.watch_url())
    assert 1 < live_after(page) < 3
    documents = [url for url in traffic.requests if not re.search(r"favicon|^data:|^wss?:", url)]
    assert documents[:1] == [room.watch_url()]
    assert not [url for url in documents if url.endswith((".js", ".css"))]
    assert traffic.bytes < COLD_BYTES
    page.wait_for_selector("html[data-kept]", state="attached")
    page.goto("about:blank")
    page.goto(room.watch_url())
    assert live_after(page) < 2
    expect(page.get_by_test_id("queue-item")).to_have_count(5)


def test_an_owners_page_is_live_with_the_first_frames_it_gets_also_after_an_outage(
    room: Room, windows: Windows
) -> None:
    """The token is part of the handshake: a frame for it would cost another round trip, and an anonymous snapshot."""
    room.request()
    room.request(userId="ada")
    page = windows.blank(size=PHONE)
    lines: list[list[str]] = []

    def opened(line: WebSocket) -> None:
        frames: list[str] = []
        lines.append(frames)
        line.on("framesent", lambda text: frames.append("sent"))
        line.on("framereceived", lambda text: frames.append(json.loads(text)["type"]))

    page.on("websocket", opened)
    page.goto(room.watch_url("ada"))
    expect(page.get_by_test_id("position")).to_have_text("2")
    page.context.set_offline(True)
    expect(page.get_by_test_id("connection")).to_contain_text("Reconnecting")
    room.start_next()
    page.context.set_offline(False)
    expect(page.get_by_test_id("ahead")).to_have_text("You’re next, after this one")
    assert lines[0][:2] == ["welcome", "snapshot"]
    assert lines[-1][:3] == ["welcome", "update", "position"]


@pytest.mark.parametrize(("length", "first"), [(800, ["welcome", "snapshot"]), (2_000, ["sent"])])
def test_a_token_that_is_too_long_for_the_handshake_goes_in_a_frame(
    room: Room, windows: Windows, length: int, first: list[str]
) -> None:
    """Tokens that a host site signs are longer than the queue's own."""
    room.request(userId="ada")
    secret, short = room.server.settings.auth_secret, room.server.viewer("ada")
    claims = jwt.decode(short, secret, ["HS256"])
    token = jwt.encode({**claims, "pad": "x" * ((length - len(short) - 20) * 3 // 4)}, secret)
    assert length - 30 < len(token) <= length
    page = windows.blank(size=PHONE)
    frames: list[str] = []

    def opened(line: WebSocket) -> None:
        line.on("framesent", lambda text: frames.append("sent"))
        line.on("framereceived", lambda text: frames.append(json.loads(text)["type"]))

    page.on("websocket", opened)
    page.goto(f"{room.watch_url()}#token={token}")
    expect(page.get_by_test_id("position")).to_have_text("1")
    assert frames[: len(first)] == first
    assert frames.count("sent") <= 1


def test_the_token_is_sent_as_a_frame_to_a_service_that_ignores_it_in_the_handshake(
    room: Room, windows: Windows
) -> None:
    page = windows.blank(size=PHONE)
    types_sent: list[str] = []
    page.route_web_socket(
        re.compile("/queue/live"),
        lambda line: line.on_message(lambda text: types_sent.append(json.loads(text)["type"])),
    )
    page.goto(room.watch_url("ada"))
    wait_for(page, lambda: types_sent[:1] == ["auth"])


def test_a_newer_page_replaces_the_kept_one_from_the_visit_after(room: Room, windows: Windows) -> None:
    page = windows.open(room.watch_url())
    page.wait_for_selector("html[data-kept]", state="attached")
    old = """async () => {
      const cache = await caches.open("queue-watch");
      const headers = { "Content-Type": "text/html" };
      await cache.put("/watch/?lang=", new Response("<!doctype html><title>old</title>", { headers }));
    }"""
    page.evaluate(old)
    page.reload()
    expect(page).to_have_title("old")
    for _ in range(20):
        page.reload()
        if page.title() != "old":
            break
        page.wait_for_timeout(100)
    expect(page).to_have_title(room.performer)
