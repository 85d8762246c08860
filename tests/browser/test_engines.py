"""Other browsers and conditions: plain http, engines that are too old, addresses without a page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browsing import Room, Windows

OLD = """
CSS.supports = () => false;
"""


@pytest.fixture
def on_plain_http(browser: Browser, browser_program: Path) -> Iterator[Windows]:
    """Windows in which the name queue.lan resolves to this machine; that is not a secure context, as on a local
    network."""
    rules = ["--host-resolver-rules=MAP queue.lan 127.0.0.1"]
    lan = browser.browser_type.launch(executable_path=browser_program, args=rules)
    windows = Windows(lan)
    yield windows
    windows.close()
    lan.close()
    assert windows.complaints == []


def test_everything_works_on_plain_http(room: Room, on_plain_http: Windows) -> None:
    item = room.request(userId="ada", title="Dance")
    here, there = room.server.url, f"http://queue.lan:{room.server.port}"
    panel = on_plain_http.open(room.panel_url.replace(here, there))
    assert panel.evaluate("[isSecureContext, typeof crypto.randomUUID]") == [False, "undefined"]
    panel.get_by_role("button", name="Start next").click()
    expect(panel.get_by_role("button", name="Finish")).to_be_visible()
    assert room.item(item)["status"] == "started"
    cancelled = room.request(userId="ada")
    ada = on_plain_http.open(room.watch_url("ada").replace(here, there))
    ada.get_by_role("button", name="Cancel “Request").click()
    ada.get_by_role("dialog").locator("button[value=yes]").click()
    row = f"[data-testid='history-item'][data-item-id='{cancelled['itemId']}']"
    expect(ada.locator(row)).to_contain_text("Cancelled by the viewer")


@pytest.mark.parametrize("path", ["/watch/mira", "/", "/panel", "/admin", "/overlay/mira", "/docs", "/wach"])
def test_an_engine_that_is_too_old_shows_a_sentence(room: Room, windows: Windows, path: str) -> None:
    page = windows.blank()
    page.add_init_script(OLD)
    page.goto(room.server.url + path)
    expect(page.get_by_text("This page needs a newer browser: Chrome 111, Safari 16.4, Firefox 113")).to_be_visible()
    page = windows.open(room.server.url + path)
    expect(page.locator("#old-engine")).to_be_hidden()


def test_an_address_without_a_page_is_a_page_to_people(room: Room, windows: Windows) -> None:
    page = windows.open(f"{room.server.url}/wach/mira", locale="de-DE")
    expect(page.get_by_role("heading", level=1)).to_have_text("Hier ist keine Seite")
    page.get_by_role("link", name="Zur Startseite").click()
    expect(page).to_have_url(f"{room.server.url}/")
