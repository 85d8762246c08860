"""The pages as people use them, in a real browser against the real service."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browsing import NARROW, PHONE, RUNS_OVER, Room, Windows, room_of
from tests.support.server import fresh, serving

PAGES = ["watch", "panel", "overlay", "admin", "index"]


def _address(room: Room, name: str) -> str:
    return {
        "watch": room.watch_url("ada"),
        "panel": room.panel_url,
        "overlay": room.overlay_url,
        "admin": room.admin_url,
        "index": room.server.url,
    }[name]


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
    expect(ben.get_by_test_id("ahead")).to_have_text("You’re next, after this one")

    panel.get_by_role("button", name="Finish").click()
    expect(ben.get_by_test_id("position")).to_have_text("1")
    expect(ada.get_by_test_id("outcome")).to_be_visible()
    panel.get_by_role("button", name="Start next").click()
    expect(ben.get_by_test_id("now-card")).to_contain_text("Spin the wheel")


def test_the_performer_pauses_and_resumes_the_item_on_stage(room: Room, windows: Windows) -> None:
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
    # An abandoned item is refunded by itself a moment later.
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
            ben, panel = windows.open(room.watch_url("ben")), windows.open(room.panel_url)
            expect(ben.get_by_test_id("position")).to_have_text("2")
            start = panel.get_by_role("button", name="Start next")
            expect(start).to_be_enabled()
    for page in (ben, panel):
        expect(page.get_by_test_id("connection")).to_contain_text("Reconnecting… as of")
    expect(start).to_be_disabled()
    with serving(tmp_path, port=port) as server, room_of(server) as room:
        room.performer = performer
        room.command("abandon", first)
        expect(ben.get_by_test_id("position")).to_have_text("1")
        for page in (ben, panel):
            expect(page.get_by_test_id("connection")).to_contain_text("Up to date")
        expect(start).to_be_enabled()


def test_user_text_is_text_and_never_markup(room: Room, windows: Windows) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\">"
    words = f"{evil}<script>document.title='owned'</script>"
    room.settings(announcement=words)
    fields = {"title": words, "description": words, "sourceFeature": evil, "sourceEventId": words}
    for _ in range(2):
        room.request(userId="ada", metadata={words: [words]}, **fields)
    ended = room.request(userId="ada", escrowTransactionId=f"{fresh('escrow')}{evil}", **fields)
    room.command("refund", ended, {"reason": "technical_error"})
    panel = windows.open(room.panel_url)
    panel.get_by_role("button", name="Start next").click()
    expect(panel.get_by_role("button", name="Finish")).to_be_visible()
    pages = [panel, windows.open(room.watch_url("ada")), windows.open(room.overlay_url)]
    admin = windows.open(room.admin_url)
    admin.goto(f"{room.server.url}/admin#item/{ended['itemId']}")
    for page in (*pages, admin):
        expect(page.get_by_text(words).first).to_be_attached()
    panel.get_by_test_id("now-card").get_by_role("button", name="Refund").click()
    expect(panel.get_by_role("dialog")).to_contain_text(words)
    for page in (*pages, admin):
        assert page.title() != "owned"
        assert page.locator("img[src=x]").count() == 0


def test_a_spectator_sees_the_queue_without_a_token(room: Room, windows: Windows) -> None:
    room.request(title="Sing a song")
    page = windows.open(room.watch_url())
    expect(page.get_by_test_id("queue-item")).to_have_count(1)
    expect(page.get_by_test_id("queue-list")).to_contain_text("Sing a song")


LIGHT_BYTES = 40_000

LOADED = """() => performance.getEntries().filter(({ entryType, name }) =>
    entryType === "navigation" || (entryType === "resource" && name.includes("/static/"))
  ).map(({ initiatorType, encodedBodySize }) => [initiatorType, encodedBodySize])"""
"""How a page's files were asked for, with their bytes on the wire."""

WORDS = """() => {
  const words = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) words.push(walker.currentNode.data.trim());
  return words;
}"""


ONLY_IN = {"en": "{n} tokens", "de": "{n} Token"}


@pytest.mark.parametrize("language", ["en-GB", "de-AT"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_light_fits_a_narrow_window_and_speaks_its_readers_language_alone(
    room: Room, windows: Windows, name: str, language: str
) -> None:
    for number in range(4):
        room.request(userId="ada", title=f"A rather long request that somebody has typed on a phone, number {number}")
    room.start_next()
    page = windows.open(_address(room, name), size=NARROW, locale=language)
    page.wait_for_load_state("networkidle")
    assert page.evaluate(RUNS_OVER) <= 0
    spoken, other = language[:2], "de" if language == "en-GB" else "en"
    assert page.locator("html").get_attribute("lang") == spoken
    loaded = page.evaluate(LOADED)
    assert {kind for kind, _ in loaded} <= {"navigation", "img", "css", "other"}
    assert 5_000 < sum(size for _, size in loaded) < LIGHT_BYTES
    source = page.content()
    assert ONLY_IN[spoken] in source
    assert ONLY_IN[other] not in source
    # A message that a catalogue lacks is shown by its key.
    assert [word for word in page.evaluate(WORDS) if re.fullmatch(r"[a-zA-Z]+(\.\w+)+", word)] == []


CATALOGUES = """async (names) => {
  const read = async (file) => (await import(`/static/messages/${file}.js`)).default;
  const shape = (message) =>
    typeof message === "string"
      ? [...new Set(message.match(/\\{\\w+\\}/g))].sort().join()
      : Object.fromEntries(Object.entries(message).map(([form, text]) => [form, shape(text)]));
  const shapes = (catalogue) => Object.fromEntries(Object.entries(catalogue).map(([key, text]) => [key, shape(text)]));
  const both = async (name) => [name, shapes(await read(`en${name}`)), shapes(await read(`de${name}`))];
  return Promise.all(names.map(both));
}"""
"""The keys of each catalogue and the values it fills in, without the words."""


def test_every_message_is_there_in_german(room: Room, windows: Windows) -> None:
    page = windows.open(room.server.url)
    for name, english, german in page.evaluate(CATALOGUES, ["", "-core", "-place", *(f"-{page}" for page in PAGES)]):
        assert german == english, name
        assert english
