"""A viewer's page in a real browser: outages, notices, and every state of the room."""

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, WebSocketRoute, expect

from tests.support.browsing import ALARMS, HIDES, PHONE, Room, Till, Windows, wait_for
from tests.support.server import Json, fresh

NOTES_OUTAGE = """() => {
  const root = document.documentElement;
  addEventListener("offline", () => (window.cutAt = performance.now()));
  new MutationObserver(() => (window.staleAt ??= root.hasAttribute("data-stale") ? performance.now() : undefined))
    .observe(root, { attributes: true });
}"""
COLOUR = "node => getComputedStyle(node).color"


def queue(room: Room, *owners: str) -> list[Json]:
    return [room.request(userId=owner, title=f"{owner}’s wish") for owner in owners]


def serve(room: Room, count: int) -> None:
    for _ in range(count):
        room.command("complete", room.start_next())


def cut(*pages: Page) -> None:
    """Take the network away, and wait until the pages show that."""
    for page in pages:
        page.context.set_offline(True)
    for page in pages:
        expect(page.get_by_test_id("connection")).to_contain_text("Reconnecting")


def reconnect(*pages: Page) -> None:
    for page in pages:
        page.context.set_offline(False)


# Cut off and back


def test_an_outage_dims_the_page_and_stops_nobody_and_the_return_says_what_changed(
    room: Room, windows: Windows
) -> None:
    queue(room, "x", "y", "ada")
    ada = windows.open(room.watch_url("ada"), size=PHONE)
    figure, cancel = ada.get_by_test_id("position"), ada.get_by_role("button", name="Cancel request…")
    expect(figure).to_have_text("3")
    expect(cancel).to_be_enabled()
    colour = figure.evaluate(COLOUR)
    ada.evaluate(NOTES_OUTAGE)
    cut(ada)
    # A short loss is nobody's business.
    assert ada.evaluate("staleAt - cutAt") >= 2_000
    expect(ada.get_by_test_id("connection")).to_have_text(re.compile(r"^Reconnecting… as of \d\d:\d\d:\d\d$"))
    expect(ada.get_by_test_id("connection")).to_have_role("status")
    expect(ada.get_by_role("dialog")).to_have_count(0)
    expect(figure).to_have_text("3")
    assert figure.evaluate(COLOUR) != colour
    expect(cancel).to_be_disabled()
    serve(room, 1)
    reconnect(ada)
    expect(ada.get_by_test_id("connection")).to_have_text("Up to date · moved 3 → 2")
    expect(figure).to_have_text("2")
    expect(figure).to_have_css("color", colour)
    expect(cancel).to_be_enabled()


def test_a_milestone_missed_while_cut_off_is_shown_only_if_it_still_holds(room: Room, windows: Windows) -> None:
    queue(room, "w", "x", "y", "ben", "ada")
    ada, ben = (windows.open(room.watch_url(user)) for user in ("ada", "ben"))
    expect(ada.get_by_test_id("position")).to_have_text("5")
    expect(ben.get_by_test_id("position")).to_have_text("4")
    cut(ada, ben)
    serve(room, 2)
    reconnect(ada, ben)
    expect(ada.get_by_test_id("connection")).to_contain_text("moved 5 → 3")
    expect(ben.get_by_test_id("connection")).to_contain_text("moved 4 → 2")
    expect(ada.get_by_test_id("notice")).to_have_text("You’re third in line. Stay close!")
    expect(ben.get_by_test_id("notice")).to_have_count(0)
    serve(room, 1)
    expect(ada.get_by_test_id("position")).to_have_text("2")
    expect(ada.get_by_test_id("notice")).to_have_count(0)
    expect(ben.get_by_test_id("notice")).to_have_text("You’re next. Get ready!")


def test_a_page_on_a_slow_connection_is_right(room: Room, windows: Windows) -> None:
    queue(room, "x", "ada")
    ada = windows.blank(size=PHONE)
    line = ada.context.new_cdp_session(ada)
    line.send("Network.enable")
    slow = {"offline": False, "latency": 200, "downloadThroughput": 100_000, "uploadThroughput": 20_000}
    line.send("Network.emulateNetworkConditions", slow)
    ada.goto(room.watch_url("ada"))
    expect(ada.get_by_test_id("position")).to_have_text("2")
    serve(room, 1)
    expect(ada.get_by_test_id("position")).to_have_text("1")
    expect(ada.get_by_test_id("connection")).to_have_text("Up to date")


def test_a_phone_that_slept_for_an_hour_finds_its_connection_dead_and_is_right_at_once(
    room: Room, windows: Windows
) -> None:
    """The old connection is silent and does not close, as if the server had given it up."""
    lines: list[WebSocketRoute] = []
    dead: set[int] = set()

    def connect(line: WebSocketRoute) -> None:
        number = len(lines)
        lines.append(line)
        service = line.connect_to_server()
        service.on_message(lambda data: None if number in dead else line.send(data))

    queue(room, "x", "y", "ada")
    ada = windows.blank(size=PHONE)
    ada.clock.install()
    ada.route_web_socket(re.compile(r"/queue/live"), connect)
    ada.goto(room.watch_url("ada"))
    expect(ada.get_by_test_id("position")).to_have_text("3")
    dead.add(0)
    serve(room, 2)
    ada.clock.fast_forward("01:00:00")
    expect(ada.get_by_test_id("position")).to_have_text("1")
    expect(ada.get_by_test_id("connection")).to_contain_text("Up to date")
    assert len(lines) == 2


# Notices


def test_the_tab_says_the_place(room: Room, windows: Windows) -> None:
    items = queue(room, "x", "y", "ada")
    ada = windows.open(room.watch_url("ada"))
    expect(ada).to_have_title(f"(#3) {room.performer}")
    icon = ada.locator("link[rel=icon]")
    expect(icon).to_have_attribute("href", re.compile(r"^data:image/svg\+xml,.*%3E3%3C"))
    room.command("abandon", items[0])
    expect(ada).to_have_title(f"(#2) {room.performer}")
    expect(icon).to_have_attribute("href", re.compile(r"^data:image/svg\+xml,.*%3E2%3C"))
    room.command("abandon", items[2])
    expect(ada).to_have_title(room.performer)
    expect(icon).to_have_attribute("href", re.compile(r"^/static/[0-9a-f]{16}/favicon\.svg$"))


def test_a_viewer_who_switched_alerts_on_is_notified_at_the_milestone(room: Room, windows: Windows) -> None:
    queue(room, "w", "x", "y", "z", "ada")
    ada = windows.blank(size=PHONE)
    ada.add_init_script(ALARMS)
    ada.goto(room.watch_url("ada"))
    expect(ada.get_by_test_id("position")).to_have_text("5")
    assert ada.evaluate("alarms") == {"asked": 0, "shown": [], "tones": 0}
    ada.get_by_role("button", name="Notify me").click()
    expect(ada.get_by_text("We’ll tell you when it’s nearly your turn.")).to_be_visible()
    wait_for(ada, lambda: ada.evaluate("alarms.tones") > 0)
    tones = ada.evaluate("alarms.tones")
    assert ada.evaluate("alarms.asked") == 1
    ada.evaluate(HIDES, True)
    serve(room, 1)
    expect(ada.get_by_test_id("position")).to_have_text("4")
    assert ada.evaluate("alarms.shown") == []
    serve(room, 1)
    expect(ada.get_by_test_id("notice")).to_have_text("You’re third in line. Stay close!")
    assert ada.evaluate("alarms.shown") == [["You’re third in line. Stay close!", "ada’s wish"]]
    assert ada.evaluate("alarms.tones") > tones
    ada.get_by_role("button", name="Notifications on").click()
    serve(room, 2)
    expect(ada.get_by_test_id("notice")).to_have_text("You’re next. Get ready!")
    assert ada.evaluate("[alarms.shown.length, alarms.asked]") == [1, 1]


def test_without_notifications_only_a_sound_is_promised(room: Room, windows: Windows) -> None:
    queue(room, "x", "ada")
    ada = windows.blank(size=PHONE)
    ada.add_init_script("delete window.Notification;")
    ada.goto(room.watch_url("ada"))
    ada.get_by_role("button", name="Notify me").click()
    expect(ada.get_by_text("We’ll play a sound when it’s nearly your turn.")).to_be_visible()
    expect(ada.get_by_role("button", name="Sound on")).to_be_visible()
    expect(ada.get_by_text("We’ll tell you")).to_have_count(0)


# Own requests


def test_one_of_two_requests_is_cancelled(room: Room, windows: Windows) -> None:
    eva = fresh("eva")
    first, second = room.request(userId=eva, title="Dance"), room.request(userId=eva, title="Juggle")
    page = windows.open(room.watch_url(eva), size=PHONE)
    expect(page.get_by_test_id("own-item")).to_have_count(2)
    page.get_by_role("button", name="Cancel “Juggle”…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Juggle")
    dialog.get_by_role("button", name="Go back").click()
    expect(dialog).to_have_count(0)
    assert room.item(second)["status"] == "created"
    page.get_by_role("button", name="Cancel “Juggle”…").click()
    dialog.get_by_role("button", name="Cancel and return 100 tokens").click()
    expect(page.get_by_test_id("history-item")).to_contain_text("Juggle")
    expect(page.get_by_test_id("history-item")).to_contain_text("Cancelled by the viewer")
    expect(page.get_by_test_id("position")).to_have_text("1")
    assert [room.item(item)["status"] for item in (first, second)] == ["created", "refunded"]


def test_a_refunded_item_has_its_reference_in_the_history(till: Till, windows: Windows) -> None:
    item = till.request(userId="ada", title="Dance")
    ada = windows.open(till.room.watch_url("ada"), size=PHONE)
    expect(ada.get_by_test_id("position")).to_have_text("1")
    till.room.command("abandon", item, {"reason": "technical_error"})
    money = ada.get_by_test_id("history-item").get_by_test_id("money")
    for _ in ("as it happens", "looked up later"):
        expect(money).to_have_attribute("data-tone", "good")
        reference = till.room.item(item)["refundTransactionId"]
        assert reference
        expect(money).to_have_text(f"100 tokens returnedRef. {reference}")
        expect(ada.get_by_test_id("history-item")).to_contain_text("Technical problem")
        ada.reload()


# The states of the room


def _full(room: Room) -> None:
    room.settings(maxDepth=1)
    room.request()


def _ended(room: Room, command: str, body: Json | None = None) -> None:
    room.settings(mode="on")
    item = room.request(userId="ada")
    room.command("start", item)
    room.command(command, item, body)


def _left_waiting(room: Room, panel: Page) -> None:
    room.request(userId="ada")
    panel.close()


def test_every_state_has_words_of_its_own(room: Room, windows: Windows) -> None:
    ada, panel = windows.open(room.watch_url("ada"), size=PHONE), windows.open(room.panel_url)
    nobody, note, outcome = ada.locator("#queue-empty"), ada.get_by_test_id("room-note"), ada.locator("#hero")
    room.settings(announcement=None)
    expect(ada.get_by_text("Online")).to_be_visible()
    steps: list[tuple[Callable[[], object], Locator, str]] = [
        (lambda: None, nobody, "Nobody is waiting. The next request is served first."),
        (lambda: room.settings(accepting=False), note, "isn’t taking requests right now."),
        (lambda: room.settings(accepting=True, paused=True), note, "is taking a break. Everybody keeps their place."),
        (lambda: room.settings(paused=False, mode="off"), note, "requests are performed straight away"),
        (lambda: _ended(room, "complete"), outcome, "That was yours"),
        (lambda: _ended(room, "abandon", {"reason": "timeout"}), outcome, "Why: Took too long"),
        (lambda: _ended(room, "refund", {"reason": "technical_error"}), outcome, "Why: Technical problem"),
        (lambda: _full(room), note, "The queue is full (1 of 1)."),
        (lambda: room.settings(accepting=False), note, "Everybody already in line will still be served."),
        (lambda: room.settings(accepting=True, maxDepth=50), note, ""),
        (lambda: _left_waiting(room, panel), note, "Your place is safe: the clocks stand still."),
    ]
    texts = set()
    for change, place, words in steps:
        change()
        if words:
            expect(place).to_contain_text(words)
            texts.add(place.inner_text())
        else:
            expect(place).to_have_count(0)
    assert len(texts) == len([words for _, _, words in steps if words])
