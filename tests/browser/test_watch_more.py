"""The watch page of a spectator, of a waiting viewer with a locked phone, and of a viewer who gets a refund."""

import re

from playwright.sync_api import Route, expect

from tests.support.browsing import ALARMS, DESKTOP, HIDES, PHONE, Room, Till, Windows, has_keyboard, wait_for


def test_a_spectator_sees_the_stage_its_time_the_next_item_and_the_wait_of_a_new_request(
    room: Room, windows: Windows
) -> None:
    for title in ("Jolene", "Dance", "Juggle"):
        room.request(title=title, durationSeconds=600)
    room.start_next()
    guest = windows.open(room.watch_url(), size=PHONE)
    stage, hero = guest.get_by_test_id("now-card"), guest.locator("#hero")
    expect(stage).to_contain_text("Jolene")
    expect(stage).to_contain_text(re.compile(r"of 10:00 · 9:\d\d left"))
    assert guest.evaluate("now.getBoundingClientRect().top < hero.getBoundingClientRect().top")
    expect(guest.get_by_test_id("queue-item").locator(".row-title")).to_contain_text(["Jolene", "Dance", "Juggle"])
    expect(guest.get_by_test_id("new-wait")).to_have_text(re.compile(r"^A new request: about (29|30) min$"))
    expect(hero).to_contain_text("You’re watching as a spectator.")
    expect(guest.get_by_test_id("accuracy")).to_be_hidden()
    room.settings(accepting=False)
    expect(guest.get_by_test_id("new-wait")).to_have_text("")


def test_with_enough_of_a_night_the_page_says_how_good_the_estimates_were(room: Room, windows: Windows) -> None:
    for _ in range(10):
        room.request()
        room.command("complete", room.start_next())
    room.request(userId="ada")
    for url, options in ((room.watch_url(), {}), (room.watch_url("ada"), {"locale": "de-DE"})):
        page = windows.open(url, size=DESKTOP, **options)
        expect(page.get_by_test_id("accuracy")).to_have_text(
            "Schätzungen heute Abend: 9 von 10 auf 1 Min. genau"
            if options
            else "Estimates tonight: 9 of 10 within 1 min"
        )


def test_a_locked_phone_shows_the_item_before_the_own_one_and_the_time_left(room: Room, windows: Windows) -> None:
    first = room.request(title="Dance")
    room.request(title="Jolene", durationSeconds=160)
    room.request(userId="ada", title="Juggle")
    ada = windows.blank(size=PHONE)
    ada.add_init_script(ALARMS)
    ada.goto(room.watch_url("ada"))
    expect(ada.get_by_test_id("position")).to_have_text("3")
    ada.get_by_role("button", name="Notify me").click()
    wait_for(ada, lambda: ada.evaluate("alarms.asked") == 1)
    room.command("complete", room.command("start", first))
    expect(ada.get_by_test_id("position")).to_have_text("2")
    ada.evaluate(HIDES, True)
    shown = ada.evaluate("alarms.shown.length")
    room.start_next()
    wait_for(ada, lambda: ada.evaluate("alarms.shown.length") == shown + 1)
    title, body = ada.evaluate("alarms.shown.at(-1)")
    assert re.fullmatch(r"You’re next after “Jolene”, about [12]:\d\d", title)
    assert body == "Juggle"


def test_a_refund_is_shown_in_plain_words_and_its_reference_is_copied(till: Till, windows: Windows) -> None:
    item = till.request(userId="ada", title="Dance")
    ada = windows.blank(size=PHONE, permissions=["clipboard-read", "clipboard-write"])
    ada.goto(till.room.watch_url("ada"))
    expect(ada.get_by_test_id("position")).to_have_text("1")
    till.room.command("refund", item, {"reason": "technical_error"})
    expect(ada.get_by_test_id("refund")).to_have_text("Your 100 tokens are back in your balance.")
    reference = till.room.item(item)["refundTransactionId"]
    hero = ada.locator("#hero")
    expect(hero).to_contain_text(f"Ref. {reference}")
    copy = hero.get_by_role("button", name="Copy the reference")
    copy.press("Enter")
    expect(ada.get_by_text("Reference copied.")).to_be_visible()
    assert ada.evaluate("navigator.clipboard.readText()") == reference
    # As a page over plain http, which has no clipboard.
    ada.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error()); }")
    ada.evaluate("document.addEventListener('copy', () => (window.copied = String(document.activeElement.value)))")
    copy.click()
    wait_for(ada, lambda: ada.evaluate("window.copied") == reference)
    has_keyboard(copy)


def test_an_end_that_the_history_knows_first_is_the_outcome_all_the_same(till: Till, windows: Windows) -> None:
    item = till.request(userId="ada", title="Dance")
    ada = windows.blank(size=PHONE)
    asked: list[Route] = []

    def history(route: Route) -> None:
        if till.room.item(item)["status"] == "created":
            till.room.command("refund", item, {"reason": "technical_error"})
        route.continue_()

    ada.route("**/v1/users/*/queue/items?*", history)
    ada.route(f"**/v1/queue/items/{item['itemId']}", lambda route: asked.append(route))
    ada.goto(till.room.watch_url("ada"))
    expect(ada.locator("#history")).to_contain_text("Refunded")
    wait_for(ada, lambda: bool(asked))
    for route in asked:
        route.continue_()
    ada.unroute(f"**/v1/queue/items/{item['itemId']}")
    expect(ada.get_by_test_id("refund")).to_have_text("Your 100 tokens are back in your balance.")


def test_a_browser_can_install_the_page_of_a_performer(room: Room, windows: Windows) -> None:
    page = windows.open(room.watch_url())
    page.wait_for_selector("html[data-kept]", state="attached")
    devtools = page.context.new_cdp_session(page)
    manifest = devtools.send("Page.getAppManifest")
    assert manifest["errors"] == []
    assert manifest["url"] == f"{room.watch_url()}/manifest.webmanifest"
    found = devtools.send("Page.getInstallabilityErrors")["installabilityErrors"]
    # The windows of tests are private ones, in which nothing is installed.
    assert [error["errorId"] for error in found if error["errorId"] != "in-incognito"] == []
