"""The watch page in all states of a room: one message at a time, and a stable layout."""

import re

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.support.browsing import DESKTOP, PHONE, Room, Windows, has_keyboard
from tests.support.server import fresh

SHIFTS = """
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""
MOVES = 13


def live(page: Page) -> Page:
    page.wait_for_selector("html[data-connection=live]", state="attached")
    return page


def test_the_page_of_an_unknown_room_promises_nothing(room: Room, windows: Windows) -> None:
    page = live(windows.open(f"{room.server.url}/watch/{fresh('mira')}"))
    expect(page.get_by_test_id("room-note")).to_contain_text("Is the name spelled right?")
    expect(page.locator("#hero")).to_contain_text("No queue of this name")
    for promise in ("right away", "is served first", "starts soon"):
        expect(page.locator("main")).not_to_contain_text(promise)
    for part in ("#presence", "#now", "[data-testid=waiting]"):
        expect(page.locator(part)).to_be_hidden()


def test_while_the_performer_is_away_nobody_is_promised_a_time(room: Room, windows: Windows) -> None:
    room.request(durationSeconds=300)
    room.request(userId="ada")
    page = live(windows.open(room.watch_url("ada")))
    expect(page.get_by_test_id("eta")).to_have_text(f"Wait: until {room.performer} is back")
    expect(page.locator(".hero-wait .muted")).to_have_text("")
    expect(page.get_by_test_id("now-card")).to_contain_text(f"It goes on when {room.performer} is back.")
    panel = windows.open(room.panel_url)
    expect(page.get_by_test_id("eta")).to_have_text(re.compile(r"^Wait: .*min"))
    expect(page.get_by_test_id("now-card")).to_contain_text("starts soon")
    panel.close()


def test_the_page_says_that_those_who_wait_are_still_served_while_the_queue_is_switched_off(
    room: Room, windows: Windows
) -> None:
    room.request()
    room.request(userId="ada")
    room.settings(mode="off")
    ada, guest = live(windows.open(room.watch_url("ada"))), live(windows.open(room.watch_url()))
    for page in (ada, guest):
        expect(page.locator("[data-note=modeOffServing]")).to_contain_text("will still be served")
        expect(page.locator("main")).not_to_contain_text("nobody waits in line")
    expect(ada.get_by_test_id("position")).to_have_text("2")
    expect(guest.get_by_test_id("waiting")).to_have_text("2")


def test_a_break_is_no_time_on_stage(room: Room, windows: Windows) -> None:
    item = room.request(userId="ada", durationSeconds=60)
    room.start_next()
    room.settings(paused=True)
    page = live(windows.open(room.watch_url("ada")))
    expect(page.get_by_test_id("ahead")).to_have_text("You’re on stage. The clock stands still for a moment.")
    expect(page.locator("#hero")).not_to_contain_text("Enjoy")
    expect(page.get_by_test_id("now-card")).to_contain_text("paused")
    room.settings(paused=False)
    expect(page.get_by_test_id("ahead")).to_have_text("You’re on stage now")
    assert room.item(item)["status"] == "started"


def test_a_title_from_right_to_left_turns_no_amount_around(room: Room, windows: Windows) -> None:
    title = "شغّل أغنية"
    room.request(userId="ada", title=title, tokens=120)
    page = live(windows.open(room.watch_url("ada")))
    box = """([node, word]) => {
      const range = document.createRange(), text = node.firstChild;
      range.setStart(text, text.data.indexOf(word));
      range.setEnd(text, text.data.indexOf(word) + word.length);
      return range.getBoundingClientRect().x;
    }"""
    line = page.locator(".hero-item").element_handle()
    assert page.evaluate(box, [line, title]) < page.evaluate(box, [line, "120"]) < page.evaluate(box, [line, "tokens"])


def test_a_title_as_long_as_may_be_pushes_nothing_off_the_first_screen(room: Room, windows: Windows) -> None:
    room.request()
    room.request(userId="ada", title="Sing it loud and long " * 9, tokens=1_000_000_000)
    page = live(windows.open(room.watch_url("ada"), size=PHONE))
    place = page.get_by_role("button", name="Cancel request…").bounding_box()
    row = page.get_by_test_id("queue-item").last.bounding_box()
    assert place is not None
    assert row is not None
    assert place["y"] + place["height"] <= PHONE["height"]
    assert row["height"] < 140


def test_after_a_cancel_the_keyboard_goes_on_at_the_outcome(room: Room, windows: Windows) -> None:
    room.request(userId="ada")
    page = live(windows.open(room.watch_url("ada")))
    page.get_by_role("button", name="Cancel request…").press("Enter")
    page.get_by_role("dialog").locator("button[value=yes]").press("Enter")
    expect(page.get_by_test_id("outcome")).to_be_visible()
    has_keyboard(page.locator("#hero"))


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("user", ["ada", None], ids=["owner", "spectator"])
def test_nothing_jumps_when_the_page_opens_nor_while_the_queue_moves(
    room: Room, windows: Windows, size: ViewportSize, user: str | None
) -> None:
    for number in range(MOVES):
        room.request(title=f"Wish {number}")
    room.request(userId="ada")
    page = windows.blank(size=size)
    page.add_init_script(SHIFTS)
    page.goto(room.watch_url(user))
    live(page)
    expect(page.get_by_test_id("queue-item")).to_have_count(MOVES + 1)
    assert page.evaluate("shifted") < 0.05
    page.evaluate("shifted = 0")
    for left in range(MOVES, 0, -1):
        item = room.start_next()
        expect(page.locator("#now")).to_have_attribute("data-kind", "stage")
        room.command("complete", item)
        expect(page.get_by_test_id("queue-item")).to_have_count(left)
    assert page.evaluate("shifted") < 0.1
