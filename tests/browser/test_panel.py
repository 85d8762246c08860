"""The performer's panel in a real browser: two windows, the keyboard, the room's settings, and payments."""

import re

import pytest
from playwright.sync_api import Locator, Page, WebSocketRoute, expect

from tests.support.browsing import ALARMS, HIDES, NARROW, PHONE, RUNS_OVER, Room, Till, Windows, has_keyboard, wait_for
from tests.support.wallet_harness import AWAY

TONES = """() => {
  window.tones = [];
  const note = () => {
    for (const line of document.querySelectorAll("[data-testid=money]")) {
      const { tone } = line.dataset;
      if (tone && window.tones.at(-1) !== tone) window.tones.push(tone);
    }
  };
  new MutationObserver(note).observe(document.body, { subtree: true, childList: true, attributes: true });
}"""
"""Writes down every tone that a line about money takes on."""


def named(page: Page | Locator, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def on_stage(page: Page) -> Locator:
    return page.get_by_test_id("now-card")


def confirm(page: Page) -> None:
    page.get_by_role("dialog").locator("button[value=yes]").click()


# Two windows


def test_two_panels_of_one_performer_agree(room: Room, windows: Windows) -> None:
    room.request(title="Dance")
    room.request(title="Juggle")
    one, other = windows.open(room.panel_url), windows.open(room.panel_url)
    named(one, "Start next").click()
    for panel in (one, other):
        expect(on_stage(panel)).to_contain_text("Dance")
        expect(named(panel, "Finish")).to_be_enabled()
    named(other, "Pause").click()
    expect(named(one, "Resume")).to_be_visible()
    named(one, "Resume").click()
    expect(named(other, "Pause")).to_be_visible()
    named(other, "Finish").click()
    for panel in (one, other):
        expect(on_stage(panel)).to_contain_text("Juggle")
        expect(panel.get_by_test_id("queue-item")).to_have_count(1)
        expect(panel.get_by_test_id("recent-item")).to_contain_text("Dance")
        expect(panel.get_by_test_id("today-served")).to_have_text("1")


@pytest.mark.parametrize("who", ["you", "moderator"])
def test_the_answer_to_a_command_that_comes_too_late_says_who_did_what_meanwhile(
    room: Room, windows: Windows, who: str
) -> None:
    item = room.request(userId="ada", title="Dance")
    panel = windows.open(room.panel_url)
    named(on_stage(panel), "Abandon").click()
    expect(panel.get_by_role("dialog")).to_be_visible()
    token, words = {
        "you": (room.server.performer(room.performer), "you, in another window"),
        "moderator": (room.server.token("moderator", "mo", room.performer), "moderator mo"),
    }[who]
    room.as_other(token, "refund", item, {"reason": "technical_error"})
    expect(panel.get_by_test_id("queue-item")).to_have_count(0)
    confirm(panel)
    toast = panel.get_by_text(re.compile(rf"Too late: “Dance” is now “Refunded” \({words}, \d\d:\d\d:\d\d\)"))
    expect(toast).to_be_visible()


# The keyboard


def test_a_request_is_performed_with_the_keyboard_alone(room: Room, windows: Windows) -> None:
    item = room.request(title="Dance")
    panel = windows.open(room.panel_url)
    expect(named(panel, "Start next")).to_be_enabled()
    for _ in range(12):
        panel.keyboard.press("Tab")
        if named(panel, "Start next").evaluate("button => button === document.activeElement"):
            break
    panel.keyboard.press("Enter")
    # The one button has become another one, and the focus has stayed with it.
    has_keyboard(named(panel, "Finish"))
    panel.keyboard.press("p")
    expect(named(panel, "Resume")).to_be_visible()
    panel.keyboard.press("p")
    expect(named(panel, "Pause")).to_be_visible()
    panel.keyboard.press("Enter")
    expect(panel.get_by_test_id("recent-item")).to_contain_text("Dance")
    assert room.item(item)["status"] == "finished"


def test_single_letters_are_shortcuts_and_question_mark_shows_them(room: Room, windows: Windows) -> None:
    first, second = room.request(title="Dance"), room.request(title="Juggle")
    panel = windows.open(room.panel_url)
    expect(named(panel, "Start next")).to_be_enabled()
    panel.keyboard.press("?")
    help_ = panel.get_by_role("dialog", name="Shortcuts and options")
    for words in ("Start next", "Finish", "Pause or resume", "Abandon", "Refund"):
        expect(help_).to_contain_text(words)
    panel.keyboard.press("s")
    panel.keyboard.press("Escape")
    expect(help_).to_have_count(0)
    assert room.item(first)["status"] == "created"
    panel.keyboard.press("s")
    expect(on_stage(panel)).to_contain_text("Dance")
    expect(named(panel, "Finish")).to_be_enabled()
    panel.keyboard.press("f")
    expect(on_stage(panel)).to_contain_text("Juggle")
    panel.keyboard.press("a")
    dialog = panel.get_by_role("dialog")
    expect(dialog).to_contain_text("Juggle")
    dialog.get_by_role("combobox").focus()
    panel.keyboard.press("ArrowDown")
    panel.keyboard.press("Tab")
    panel.keyboard.press("Tab")
    panel.keyboard.press("Enter")
    expect(panel.get_by_test_id("queue-item")).to_have_count(0)
    assert room.item(first)["status"] == "finished"
    assert room.item(second)["abandonReason"] == "technical_error"


def test_single_letters_can_be_switched_off_and_do_nothing_in_fields(room: Room, windows: Windows) -> None:
    item = room.request()
    panel = windows.open(room.panel_url)
    expect(named(panel, "Start next")).to_be_enabled()
    field = panel.get_by_label("Announcement")
    field.focus()
    panel.keyboard.type("spar? f")
    expect(field).to_have_value("spar? f")
    expect(panel.get_by_role("dialog")).to_have_count(0)
    field.blur()
    panel.keyboard.press("?")
    letters = panel.get_by_role("switch", name="Single-letter shortcuts")
    letters.focus()
    panel.keyboard.press("Space")
    expect(letters).not_to_be_checked()
    panel.keyboard.press("Escape")
    panel.keyboard.press("s")
    panel.keyboard.press("r")
    # The window has answered to what was pressed before once it shows what comes in afterwards.
    room.request()
    expect(panel.get_by_test_id("queue-item")).to_have_count(2)
    expect(panel.get_by_role("dialog")).to_have_count(0)
    assert room.item(item)["status"] == "created"
    panel.reload()
    expect(named(panel, "Start next")).to_be_enabled()
    panel.keyboard.press("?")
    expect(letters).not_to_be_checked()


def test_a_row_has_a_menu_that_opens_and_closes_by_keyboard(room: Room, windows: Windows) -> None:
    room.request(title="Dance")
    second = room.request(title="Juggle")
    panel = windows.open(room.panel_url)
    more = named(panel, "Actions for “Juggle”")
    more.focus()
    panel.keyboard.press("Enter")
    has_keyboard(panel.get_by_role("menuitem", name="Start now"))
    panel.keyboard.press("End")
    has_keyboard(panel.get_by_role("menuitem", name="Refund…"))
    panel.keyboard.press("Escape")
    has_keyboard(more)
    panel.keyboard.press("Enter")
    has_keyboard(panel.get_by_role("menuitem", name="Start now"))
    panel.keyboard.press("Enter")
    expect(on_stage(panel)).to_contain_text("Juggle")
    assert room.item(second)["status"] == "started"


# Money


def test_an_unconfirmed_payment_is_never_shown_as_done(till: Till, windows: Windows) -> None:
    till.wallet.faults.rates = AWAY
    panel = windows.open(till.room.panel_url)
    panel.evaluate(TONES)
    till.request()
    named(panel, "Start next").click()
    named(panel, "Finish").click()
    money = panel.get_by_test_id("recent-item").get_by_test_id("money")
    expect(money).to_contain_text("Settling is taking longer; trying again")
    assert set(panel.evaluate("tones")) <= {"busy", "warn"}
    till.recovers()
    expect(money).to_have_attribute("data-tone", "good")
    expect(money).to_contain_text("Settled")
    expect(money).to_contain_text("Ref. ")
    assert panel.evaluate("tones.filter(tone => tone === 'good').length") == 1
    assert till.wallet.books.earned == 100
    expect(panel.get_by_test_id("today-settled")).to_have_text("100")


def test_a_payment_that_has_failed_for_good_is_red_with_its_reference(till: Till, windows: Windows) -> None:
    till.wallet.faults.rates = AWAY
    panel = windows.open(till.room.panel_url)
    panel.evaluate(TONES)
    item = till.request()
    till.room.command("refund", item, {"reason": "technical_error"})
    money = panel.get_by_test_id("recent-item").get_by_test_id("money")
    expect(money).to_contain_text("Returning 100 tokens is taking longer; trying again")
    till.clock.wait(5)
    expect(money).to_have_attribute("data-tone", "bad")
    expect(money).to_contain_text("Payment needs attention")
    expect(money.get_by_title(item["escrowTransactionId"])).to_contain_text(item["escrowTransactionId"][-8:])
    assert "good" not in panel.evaluate("tones")
    expect(panel.get_by_test_id("today-refunded")).to_have_text("0")


def test_finishing_can_split_the_tokens(till: Till, windows: Windows) -> None:
    panel = windows.open(till.room.panel_url)
    item = till.request(title="Dance", tokens=100)
    named(panel, "Start next").click()
    named(panel, "Split…").click()
    dialog = panel.get_by_role("dialog")
    expect(dialog).to_contain_text("Dance")
    amount = dialog.get_by_label("Tokens back to the viewer")
    amount.fill("100")
    expect(dialog).to_contain_text("Between 1 and 99")
    confirm(panel)
    assert till.room.item(item)["status"] == "started"
    amount.fill("30")
    expect(dialog).to_contain_text("30 to the viewer, 70 to you")
    confirm(panel)
    money = panel.get_by_test_id("recent-item").get_by_test_id("money")
    expect(money).to_contain_text("Split: 70 settled, 30 returned")
    assert (till.wallet.books.earned, till.wallet.books.available) == (70, 30)
    expect(panel.get_by_test_id("today-settled")).to_have_text("70")
    expect(panel.get_by_test_id("today-refunded")).to_have_text("30")


def test_emptying_the_queue_needs_the_number_typed(room: Room, windows: Windows) -> None:
    items = [room.request(tokens=100) for _ in range(3)]
    panel = windows.open(room.panel_url)
    named(panel, "Empty the queue…").click()
    dialog = panel.get_by_role("dialog")
    expect(dialog).to_contain_text("3 requests end and 300 tokens go back to their viewers")
    yes = dialog.locator("button[value=yes]")
    typed = dialog.get_by_label("Type 3 to confirm")
    for wrong in ("", "2", "33", "all"):
        typed.fill(wrong)
        expect(yes).to_be_disabled()
    typed.fill("3")
    expect(yes).to_have_text("Return all 300 tokens")
    yes.click()
    expect(panel.get_by_text("3 of 3 requests returned")).to_be_visible()
    assert {room.item(item)["status"] for item in items} == {"refunded"}


# The room


def test_a_performers_settings_are_seen_by_everybody_at_once(room: Room, windows: Windows) -> None:
    room.request(userId="ada")
    panel, ada = windows.open(room.panel_url), windows.open(room.watch_url("ada"), size=PHONE)
    expect(ada.get_by_text("Online")).to_be_visible()
    panel.get_by_label("Announcement").fill("Back at nine")
    named(panel, "Publish").click()
    expect(ada.get_by_text("Back at nine")).to_be_visible()
    named(panel, "Take down").click()
    expect(ada.get_by_text("Back at nine")).to_be_hidden()

    note = ada.get_by_test_id("room-note")
    expect(note).to_have_count(0)
    for switch, key in (
        ("Accepting requests", "closedServing"),
        ("Take a break", "paused"),
        ("Use the queue", "modeOffServing"),
    ):
        panel.get_by_role("switch", name=switch).click()
        expect(note).to_have_attribute("data-note", key)
        panel.get_by_role("switch", name=switch).click()
        expect(note).to_have_count(0)
    expect(panel.get_by_text("Viewers can join the queue.")).to_be_visible()
    panel.get_by_role("switch", name="Accepting requests").click()
    expect(panel.get_by_text("1 in line still gets a turn.")).to_be_visible()
    panel.get_by_label("Places in line").fill("1")
    panel.get_by_label("Places in line").press("Enter")
    expect(panel.get_by_test_id("room-note")).to_contain_text("The queue is full (1 of 1)")


def test_the_clock_turns_amber_and_red_and_counts_on(till: Till, windows: Windows) -> None:
    panel = windows.open(till.room.panel_url)
    till.request(durationSeconds=120)
    named(panel, "Start next").click()
    time = on_stage(panel).locator(".now-time")
    expect(time).to_contain_text("of 2:00")
    assert time.get_attribute("data-over") is None
    for seconds, colour, face in ((123, "amber", "2:0"), (20, "red", "2:2")):
        till.clock.wait(seconds)
        till.room.settings(announcement=f"{seconds} seconds later")
        expect(time).to_have_attribute("data-over", colour)
        expect(time.locator(".timer")).to_contain_text(face)
    expect(time).to_contain_text("over")


def test_time_in_which_the_performer_was_cut_off_is_not_counted(till: Till, windows: Windows) -> None:
    lines: list[WebSocketRoute] = []
    panel = windows.blank()
    panel.route_web_socket(re.compile("/queue/live"), lambda line: lines.append(line.connect_to_server()))
    panel.goto(till.room.panel_url)
    item = till.request(durationSeconds=300)
    named(panel, "Start next").click()
    expect(on_stage(panel).locator(".timer")).to_have_text(re.compile(r"^0:0\d$"))
    till.clock.wait(30)
    till.room.settings(announcement="Thirty seconds later")
    expect(panel.get_by_label("Announcement")).to_have_value("Thirty seconds later")
    lines[0].close()
    wait_for(panel, lambda: till.room.state()["paused"])
    till.clock.wait(60)
    panel.evaluate("dispatchEvent(new Event('online'))")
    wait_for(panel, lambda: not till.room.state()["paused"])
    expect(named(panel, "Finish")).to_be_enabled()
    expect(on_stage(panel).locator(".timer")).to_have_text(re.compile(r"^0:[34]\d$"))
    assert till.room.item(item)["status"] == "started"


def test_the_time_on_stage_is_the_same_on_every_screen_also_on_one_that_is_opened_late(
    till: Till, windows: Windows
) -> None:
    panel = windows.open(till.room.panel_url)
    item = till.request(durationSeconds=300, userId="ada")
    named(panel, "Start next").click()
    expect(on_stage(panel).locator(".timer")).to_have_text(re.compile(r"^0:0\d$"))
    till.clock.wait(60)
    till.room.command("pause", item)
    expect(on_stage(panel)).to_contain_text("paused")
    till.clock.wait(600)
    late = [windows.open(url) for url in (till.room.panel_url, till.room.watch_url("ada"), till.room.watch_url())]
    shown = [on_stage(page).locator(".timer") for page in (panel, *late)]
    for timer in shown:
        expect(timer).to_have_text(re.compile(r"^1:0\d$"))
    assert len({timer.inner_text() for timer in shown}) == 1
    till.room.command("resume", item)
    till.clock.wait(60)
    overlay = windows.open(till.room.overlay_url)
    expect(overlay.locator("#current-detail")).to_have_text(re.compile(r"2:0\d of 5:00$"))
    expect(windows.open(till.room.panel_url).get_by_test_id("now-card").locator(".timer")).to_have_text(
        re.compile(r"^2:0\d$")
    )


def test_an_arrival_in_an_empty_queue_is_alerted_where_that_is_switched_on(room: Room, windows: Windows) -> None:
    panel = windows.blank()
    panel.add_init_script(ALARMS)
    panel.goto(room.panel_url)
    expect(on_stage(panel)).to_contain_text("All quiet")
    first = room.request(title="Dance", tokens=250)
    expect(on_stage(panel)).to_contain_text("Dance")
    assert panel.evaluate("alarms") == {"asked": 0, "shown": [], "tones": 0}
    room.command("abandon", first)

    named(panel, "Sound and notifications").click()
    expect(panel.get_by_text("You’ll be told when a request arrives in an empty queue.")).to_be_visible()
    wait_for(panel, lambda: panel.evaluate("alarms.tones") > 0)
    assert panel.evaluate("alarms.asked") == 1
    tones = panel.evaluate("alarms.tones")
    panel.evaluate(HIDES, True)
    room.request(title="Juggle", tokens=250)
    wait_for(panel, lambda: panel.evaluate("alarms.shown.length") == 1)
    assert panel.evaluate("alarms.shown") == [["A new request is waiting", "Juggle · 250 tokens"]]
    assert panel.evaluate("alarms.tones") > tones
    room.request(title="Dance")
    expect(panel.get_by_test_id("queue-item")).to_have_count(2)
    assert panel.evaluate("[alarms.shown.length, alarms.asked]") == [1, 1]


# Narrow


def test_a_dock_of_320_pixels_is_wide_enough(room: Room, windows: Windows) -> None:
    for _ in range(2):
        room.request(title="Donaudampfschifffahrtsgesellschaftskapitänsmütze", description="x" * 400, tokens=1_000_000)
    room.settings(announcement="y" * 280)
    room.start_next()
    panel = windows.open(room.panel_url, size=NARROW)
    expect(named(panel, "Finish")).to_be_visible()
    assert panel.evaluate(RUNS_OVER) <= 0
    panel.get_by_test_id("queue-item").last.get_by_role("button").click()
    expect(panel.get_by_role("menu")).to_be_visible()
    assert panel.evaluate(RUNS_OVER) <= 0
    panel.keyboard.press("Escape")
    for open_dialog in (
        named(panel, "Shortcuts and options"),
        named(panel, "Empty the queue…"),
        named(panel, "Split…"),
    ):
        open_dialog.click()
        expect(panel.get_by_role("dialog")).to_be_visible()
        assert panel.evaluate(RUNS_OVER) <= 0
        panel.keyboard.press("Escape")
        expect(panel.get_by_role("dialog")).to_have_count(0)
