"""The pages as people use them, in a real browser against the real service."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browsing import NARROW, PHONE, Room, Windows, room_of
from tests.serverside import Server, serving

expect.set_options(timeout=15_000)


@pytest.fixture
def room(server: Server) -> Iterator[Room]:
    with room_of(server) as room:
        yield room


@pytest.fixture
def windows(browser: Browser) -> Iterator[Windows]:
    windows = Windows(browser)
    yield windows
    windows.close()
    assert windows.complaints == []


def test_two_viewers_watch_their_places_move_while_the_performer_works(room: Room, windows: Windows) -> None:
    room.request(userId="ada", title="Sing a song")
    room.request(userId="ben", title="Spin the wheel")
    ada, ben = (windows.open(room.watch_url(user), size=PHONE) for user in ("ada", "ben"))
    panel = windows.open(room.panel_url)
    expect(ada.get_by_test_id("position")).to_have_text("1")
    expect(ben.get_by_test_id("position")).to_have_text("2")

    panel.get_by_role("button", name="Start next").click()
    expect(panel.get_by_test_id("now-card")).to_contain_text("Sing a song")
    for viewer in (ada, ben):
        expect(viewer.get_by_test_id("now-card")).to_contain_text("Sing a song")
    expect(ben.get_by_test_id("ahead")).to_contain_text("1")

    panel.get_by_role("button", name="Finish").click()
    expect(ben.get_by_test_id("position")).to_have_text("1")
    expect(ada.get_by_test_id("outcome")).to_be_visible()
    panel.get_by_role("button", name="Start next").click()
    expect(ben.get_by_test_id("now-card")).to_contain_text("Spin the wheel")


def test_the_performer_pauses_and_resumes_what_is_on_stage(room: Room, windows: Windows) -> None:
    item = room.request()
    panel = windows.open(room.panel_url)
    panel.get_by_role("button", name="Start next").click()
    panel.get_by_role("button", name="Pause", exact=True).click()
    resume = panel.get_by_role("button", name="Resume", exact=True)
    expect(resume).to_be_visible()
    assert room.item(item)["paused"] is True
    resume.click()
    expect(panel.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    assert room.item(item)["paused"] is False


@pytest.mark.parametrize(("button", "status"), [("Abandon", "abandoned"), ("Refund", "refunded")])
def test_abandoning_and_refunding_ask_first_and_name_what_it_costs(
    room: Room, windows: Windows, button: str, status: str
) -> None:
    item = room.request(title="Dance", tokens=250)
    panel = windows.open(room.panel_url)
    panel.get_by_role("button", name="Start next").click()
    panel.get_by_test_id("now-card").get_by_role("button", name=button).click()
    dialog = panel.get_by_role("dialog")
    expect(dialog).to_contain_text("Dance")
    expect(dialog).to_contain_text("250")
    assert room.item(item)["status"] == "started"
    dialog.get_by_role("combobox").select_option("technical_error")
    dialog.locator("button[value=yes]").click()
    expect(panel.get_by_role("button", name="Start next")).to_be_visible()
    answer = room.item(item)
    # What is abandoned is refunded by itself a moment later.
    assert answer["status"] in (status, "refunded")
    assert "technical_error" in (answer["abandonReason"], answer["refundReason"])


def test_a_viewer_cancels_a_waiting_request(room: Room, windows: Windows) -> None:
    room.request(userId="ada")
    item = room.request(userId="ben", title="Juggle")
    ben = windows.open(room.watch_url("ben"), size=PHONE)
    expect(ben.get_by_test_id("position")).to_have_text("2")
    ben.get_by_role("button", name="Cancel").first.click()
    ben.get_by_role("dialog").locator("button[value=yes]").click()
    expect(ben.get_by_test_id("outcome")).to_be_visible()
    answer = room.item(item)
    assert (answer["status"], answer["refundReason"]) == ("refunded", "user_cancelled")


def test_a_page_says_that_it_is_cut_off_and_is_right_again_afterwards(
    browser: Browser, windows: Windows, tmp_path: Path
) -> None:
    with serving(tmp_path) as server:
        port = server.port
        with room_of(server) as room:
            performer = room.performer
            first, _ = room.request(userId="ada"), room.request(userId="ben")
            ben = windows.open(room.watch_url("ben"))
            expect(ben.get_by_test_id("position")).to_have_text("2")
    expect(ben.get_by_test_id("connection")).to_contain_text("Reconnecting")
    with serving(tmp_path, port=port) as server, room_of(server) as room:
        room.performer = performer
        room.command("abandon", first)
        expect(ben.get_by_test_id("position")).to_have_text("1")
        expect(ben.get_by_test_id("connection")).to_contain_text("Up to date")


def test_what_people_write_is_text_and_never_markup(room: Room, windows: Windows) -> None:
    evil = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'
    room.settings(announcement=evil[:280])
    room.request(userId="ada", title=evil, description=evil)
    room.request(userId="ada", title=evil, description=evil)
    panel = windows.open(room.panel_url)
    panel.get_by_role("button", name="Start next").click()
    pages = [panel, windows.open(room.watch_url("ada")), windows.open(room.overlay_url), windows.open(room.admin_url)]
    for page in pages[:3]:
        expect(page.get_by_text(evil).first).to_be_attached()
    for page in pages:
        assert page.title() != "owned"
        assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("name", ["watch", "panel", "overlay", "admin", "index"])
def test_nothing_runs_over_the_edge_of_a_narrow_window(room: Room, windows: Windows, name: str) -> None:
    for number in range(4):
        room.request(userId="ada", title=f"A rather long request that somebody has typed on a phone, number {number}")
    room.start_next()
    url = {
        "watch": room.watch_url("ada"),
        "panel": room.panel_url,
        "overlay": room.overlay_url,
        "admin": room.admin_url,
        "index": room.server.url,
    }[name]
    page = windows.open(url, size=NARROW)
    page.wait_for_load_state("networkidle")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) <= 0


def test_a_spectator_sees_the_queue_without_a_token(room: Room, windows: Windows) -> None:
    room.request(title="Sing a song")
    page = windows.open(room.watch_url())
    expect(page.get_by_test_id("queue-item")).to_have_count(1)
    expect(page.get_by_test_id("queue-list")).to_contain_text("Sing a song")
