"""No page, in any state and either theme, breaks a rule of axe (WCAG 2.2 AA included)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.support.browsing import PHONE, RUNS_OVER, Room, Windows, room_of
from tests.support.server import Server, serving

THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SIZES: tuple[ViewportSize, ...] = (
    {"width": 360, "height": 740},
    {"width": 768, "height": 1024},
    {"width": 1440, "height": 900},
)
# Colours change over a moment, even a very short one: axe is to read those the reader is left with.
SETTLED = """async () => {
  await new Promise(requestAnimationFrame);
  await Promise.all(document.getAnimations().map((animation) => animation.finished));
  await new Promise(requestAnimationFrame);
}"""
State = Callable[[Room, Callable[[str], Page]], None]


def _nobody(room: Room, look: Callable[[str], Page]) -> None:
    look(room.watch_url("ada"))


def _waiting(room: Room, look: Callable[[str], Page]) -> None:
    room.request()
    room.request(userId="ada")
    room.settings(announcement="Back at nine")
    expect(look(room.watch_url("ada")).get_by_test_id("position")).to_have_text("2")


def _on_stage(room: Room, look: Callable[[str], Page]) -> None:
    room.request(userId="ada", title="Sing a song")
    room.start_next()
    expect(look(room.watch_url("ada")).get_by_test_id("now-card")).to_contain_text("Sing a song")


def _ended_and_closed(room: Room, look: Callable[[str], Page]) -> None:
    room.command("abandon", room.request(userId="ada"))
    room.settings(accepting=False, paused=True)
    expect(look(room.watch_url("ada")).get_by_test_id("history-item")).to_have_count(1)


def _spectator(room: Room, look: Callable[[str], Page]) -> None:
    room.request()
    expect(look(room.watch_url()).get_by_test_id("queue-item")).to_have_count(1)


def _long_words(room: Room) -> None:
    """A request with the longest title and description, before twelve others."""
    room.request(userId="ada", title="Sing it loud and long " * 9, description="Please! " * 200, tokens=1_000_000_000)
    for number in range(12):
        room.request(title=f"Wish {number}", durationSeconds=60 * number or None)
    room.start_next()


def _long_words_watched(room: Room, look: Callable[[str], Page]) -> None:
    _long_words(room)
    expect(look(room.watch_url("ada")).get_by_test_id("queue-item")).to_have_count(13)


def _unknown_room(room: Room, look: Callable[[str], Page]) -> None:
    expect(look(room.watch_url()).get_by_test_id("room-note")).to_contain_text("spelled right")


def _switched_off(room: Room, look: Callable[[str], Page]) -> None:
    room.request(userId="ada")
    room.settings(mode="off")
    expect(look(room.watch_url("ada")).locator("[data-note=modeOffServing]")).to_be_visible()


def _cut_off(room: Room, look: Callable[[str], Page]) -> None:
    room.request(userId="ada")
    page = look(room.watch_url("ada"))
    expect(page.get_by_test_id("position")).to_have_text("1")
    page.context.set_offline(True)
    expect(page.get_by_test_id("connection")).to_contain_text("Reconnecting")


def _panel_with_long_words(room: Room, look: Callable[[str], Page]) -> None:
    _long_words(room)
    expect(look(room.panel_url).get_by_role("button", name="Finish")).to_be_visible()


def _panel_expired(room: Room, look: Callable[[str], Page]) -> None:
    token = room.server.sign("performer", room.performer, ttl_seconds=1)
    expect(look(f"{room.server.url}/panel#token={token}").get_by_text("This link has expired.")).to_be_visible()


def _panel_without_a_link(room: Room, look: Callable[[str], Page]) -> None:
    look(f"{room.server.url}/panel").wait_for_selector("html[data-connection], .note:visible, .gate:visible")


def _panel_idle(room: Room, look: Callable[[str], Page]) -> None:
    room.request()
    expect(look(room.panel_url).get_by_role("button", name="Start next")).to_be_visible()


def _panel_busy(room: Room, look: Callable[[str], Page]) -> None:
    room.request()
    room.start_next()
    expect(look(room.panel_url).get_by_role("button", name="Finish")).to_be_visible()


def _panel_asking(room: Room, look: Callable[[str], Page]) -> None:
    room.request()
    room.start_next()
    panel = look(room.panel_url)
    panel.get_by_test_id("now-card").get_by_role("button", name="Refund").click()
    expect(panel.get_by_role("dialog")).to_be_visible()


def _panel_on_a_break(room: Room, look: Callable[[str], Page]) -> None:
    room.request()
    room.settings(paused=True)
    panel = look(room.panel_url.replace(room.server.performer(room.performer), _short_lived(room)))
    expect(panel.get_by_test_id("break")).to_be_visible()
    expect(panel.get_by_test_id("link-life")).to_be_visible()


def _short_lived(room: Room) -> str:
    return room.server.sign("performer", room.performer, ttl_seconds=500)


def _panel_at_a_glance(room: Room, look: Callable[[str], Page]) -> None:
    room.request()
    room.start_next()
    panel = look(room.panel_url)
    panel.get_by_role("button", name="Glance mode").click()
    expect(panel.get_by_test_id("glance").get_by_role("button", name="Finish")).to_be_enabled()


def _panel_with_the_overlays_link(room: Room, look: Callable[[str], Page]) -> None:
    panel = look(room.panel_url)
    panel.get_by_role("button", name="Copy overlay link…").click()
    expect(panel.get_by_label("Link")).to_have_value(room.overlay_url)


def _overlay(room: Room, look: Callable[[str], Page]) -> None:
    room.request(title="Dance")
    expect(look(room.overlay_url).get_by_text("Dance")).to_be_visible()


def _overlay_on_stage(room: Room, look: Callable[[str], Page]) -> None:
    _long_words(room)
    expect(look(room.overlay_url).locator("#current-detail")).to_be_visible()


def _admin(room: Room, look: Callable[[str], Page]) -> None:
    room.request()
    expect(look(room.admin_url).get_by_text(room.performer)).to_be_visible()


def _admin_replay(room: Room, look: Callable[[str], Page]) -> None:
    room.request(title="Dance")
    room.start_next()
    admin = look(room.admin_url)
    admin.evaluate(f"location.hash = 'replay/{room.performer}'")
    expect(admin.get_by_test_id("replay-summary")).to_contain_text("1 in line")


def _admin_analytics(room: Room, look: Callable[[str], Page]) -> None:
    room.request()
    room.start_next()
    admin = look(room.admin_url)
    admin.get_by_role("link", name="Analytics", exact=True).click()
    expect(admin.get_by_test_id("promises").locator("tbody tr")).to_have_count(1)


def _front(room: Room, look: Callable[[str], Page]) -> None:
    look(room.server.url)


def _missing(room: Room, look: Callable[[str], Page]) -> None:
    expect(look(f"{room.server.url}/wach").get_by_role("heading", level=1)).to_be_visible()


def _guide(room: Room, look: Callable[[str], Page]) -> None:
    expect(look(f"{room.server.url}/docs/guides/embed").get_by_role("heading", level=1)).to_be_visible()


def _api_reference(room: Room, look: Callable[[str], Page]) -> None:
    expect(look(f"{room.server.url}/docs").get_by_text("/v1/queue/items").first).to_be_visible()


STATES: list[State] = [
    _nobody,
    _waiting,
    _on_stage,
    _ended_and_closed,
    _spectator,
    _long_words_watched,
    _unknown_room,
    _switched_off,
    _cut_off,
    _panel_without_a_link,
    _panel_expired,
    _panel_with_long_words,
    _panel_idle,
    _panel_busy,
    _panel_asking,
    _panel_on_a_break,
    _panel_at_a_glance,
    _panel_with_the_overlays_link,
    _overlay,
    _overlay_on_stage,
    _admin,
    _admin_replay,
    _admin_analytics,
    _front,
    _missing,
    _guide,
    _api_reference,
]
"""Every page in every state that looks different. `gallery` makes pictures of them."""


@pytest.fixture
def windows(browser: Browser) -> Iterator[Windows]:
    windows = Windows(browser)
    yield windows
    windows.close()


@pytest.fixture(scope="module", autouse=True)
def _described(running_server: Server) -> None:
    """Make the service read its own sources now: in Python 3.11 two threads must not parse at the same time."""
    httpx2.get(f"{running_server.url}/openapi.json", timeout=60, trust_env=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A service for one test: the admin page shows all rooms."""
    with serving(tmp_path) as server:
        yield server


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__.strip("_"))
def test_axe_finds_nothing(server: Server, windows: Windows, state: State) -> None:
    opened: list[Page] = []

    def look(url: str) -> Page:
        # axe is a script of its own, which the pages' policy would rightly keep out.
        opened.append(windows.open(url, size=PHONE, reduced_motion="reduce", bypass_csp=True))
        return opened[-1]

    with room_of(server) as room:
        state(room, look)
        (page,) = opened
        page.wait_for_load_state("networkidle")
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            page.evaluate(SETTLED)
            found = Axe().run(page).response["violations"]
            assert [(theme, rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []
        for size in SIZES:
            page.set_viewport_size(size)
            assert page.evaluate(RUNS_OVER) <= 0, size
