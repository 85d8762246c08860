"""The expiry of a panel's link in a real browser: the warning before it, the renewals, and the end."""

import json
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, Route, expect

from tests.support.browsing import Room, Windows, room_of, wait_for
from tests.support.ports import free_port
from tests.support.server import serving

GIVES = """([wrong, right]) => {
  window.asked = [];
  addEventListener("message", ({ data, source }) => {
    asked.push(data);
    for (const token of [wrong, right]) source.postMessage({ type: "queue-token", token }, "*");
  });
}"""
"""Has a site answer whoever asks for a token, first with another performer's."""


def link(room: Room, *, seconds: float, more: str = "") -> str:
    token = room.server.sign("performer", room.performer, ttl_seconds=seconds)
    return f"{room.server.url}/panel#token={token}{more}"


def tokens_sent(page: Page) -> Callable[[], list[str]]:
    """The tokens with which the page and its frames authenticate from now on."""
    sent: list[str] = []

    def note(text: str | bytes) -> None:
        frame = json.loads(text)
        if frame["type"] == "auth":
            sent.append(frame["token"])

    page.on("websocket", lambda line: line.on("framesent", note))
    return lambda: sent


def test_a_link_that_ends_soon_says_so_and_a_fresh_one_goes_on_without_a_reload(room: Room, windows: Windows) -> None:
    room.request(title="Dance")
    panel = windows.open(link(room, seconds=400))
    warning = panel.get_by_test_id("link-life")
    expect(warning).to_contain_text("Your link ends in 7 min. Open a fresh one before then")
    panel.evaluate("window.isSame = true")
    panel.evaluate("token => (location.hash = `#token=${token}`)", room.server.performer(room.performer))
    expect(warning).to_be_hidden()
    panel.get_by_role("button", name="Start next").click()
    expect(panel.get_by_role("button", name="Finish")).to_be_enabled()
    assert panel.evaluate("isSame && location.hash === ''")


def test_a_link_that_has_ended_says_so_and_offers_no_connection_that_cannot_be(room: Room, windows: Windows) -> None:
    panel = windows.open(link(room, seconds=2))
    expect(panel.get_by_text("This link has expired.")).to_be_visible()
    expect(panel.get_by_role("button", name="Reconnect")).to_have_count(0)
    renewal = "https://site.example/renew?show=1"
    more = f"&renew={renewal.replace('?', '%3F')}"
    early = windows.open(link(room, seconds=300, more=more)).get_by_test_id("link-life")
    expect(early.get_by_role("link", name="Get a fresh link")).to_have_attribute("href", renewal)
    other = windows.open(link(room, seconds=2, more=more))
    expect(other.locator("#stopped").get_by_role("link", name="Get a fresh link")).to_have_attribute("href", renewal)
    evil = windows.open(link(room, seconds=2, more="&renew=javascript:alert(1)"))
    expect(evil.get_by_text("This link has expired.")).to_be_visible()
    expect(evil.get_by_role("link", name="Get a fresh link")).to_have_count(0)


def test_a_site_of_the_allowed_origins_frames_the_panel_and_hands_it_a_fresh_token_of_the_same_performer(
    windows: Windows, tmp_path: Path
) -> None:
    port = free_port()
    with serving(tmp_path, port=port, allowed_origins=f"http://localhost:{port}") as server, room_of(server) as room:
        right, wrong = server.performer(room.performer), server.performer("somebody-else")
        site = windows.blank()
        sent = tokens_sent(site)
        site.goto(f"http://localhost:{port}/healthz")
        site.evaluate(GIVES, [wrong, right])
        frame = f'<iframe src="{link(room, seconds=300)}" width="600" height="600"></iframe>'
        site.evaluate("html => (document.body.innerHTML = html)", frame)
        wait_for(site, lambda: right in sent())
        panel = site.frame_locator("iframe")
        expect(panel.get_by_text("Up to date")).to_be_visible()
        expect(panel.get_by_test_id("link-life")).to_be_hidden()
        assert wrong not in sent()
        asked = site.evaluate("asked[0]")
        assert (asked["type"], sorted(asked)) == ("queue-token-needed", ["expiresAt", "type"])


def test_two_performers_panels_in_one_page_each_show_their_own_room_also_after_a_reload(
    windows: Windows, tmp_path: Path
) -> None:
    port = free_port()
    with (
        serving(tmp_path, port=port, allowed_origins=f"http://localhost:{port}") as server,
        room_of(server) as mira,
        room_of(server) as nora,
    ):
        site = windows.blank()
        site.goto(f"http://localhost:{port}/healthz")
        rooms = (mira, nora)
        frames = "".join(f'<iframe src="{room.panel_url}" width="600" height="600"></iframe>' for room in rooms)
        site.evaluate("html => (document.body.innerHTML = html)", frames)
        for number, room in enumerate(rooms):
            panel = site.frame_locator("iframe").nth(number)
            expect(panel.locator("#performer")).to_have_text(room.performer)
            room.request(title=f"For {room.performer}")
            expect(panel.get_by_test_id("now-card")).to_contain_text(f"For {room.performer}")
        for number, room in enumerate(rooms):
            frame = site.locator("iframe").nth(number).element_handle().content_frame()
            assert frame is not None
            assert "token" not in frame.url
            with site.expect_event("framenavigated", lambda loaded, frame=frame: loaded == frame):
                frame.evaluate("setTimeout(() => location.reload())")
            expect(frame.locator("#performer")).to_have_text(room.performer)
            expect(frame.get_by_test_id("now-card")).to_contain_text(f"For {room.performer}")


def test_a_renewal_address_of_the_same_origin_is_asked_by_itself(room: Room, windows: Windows) -> None:
    right = room.server.performer(room.performer)
    panel = windows.blank()
    sent = tokens_sent(panel)
    asked: list[str | None] = []

    def answer(route: Route) -> None:
        asked.append(route.request.headers.get("authorization"))
        if len(asked) > 1:
            route.fulfill(json={"token": right})
        else:
            route.fulfill(status=500)

    panel.route("**/renew", answer)
    panel.goto(link(room, seconds=300, more="&renew=/renew"))
    warning = panel.get_by_test_id("link-life")
    warning.get_by_role("button", name="Get a fresh link").click()
    wait_for(panel, lambda: right in sent())
    expect(warning).to_be_hidden()
    assert len(asked) == 2
