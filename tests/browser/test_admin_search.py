"""The administration in a real browser: overdue items, and the search for items."""

import re

from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.test_admin import dead_letter, go, look_again
from tests.support.browsing import Till, Windows, wait_for

TABLET: ViewportSize = {"width": 768, "height": 1024}


def look_up(page: Page, words: str) -> None:
    page.get_by_role("searchbox").fill(words)
    page.get_by_role("button", name="Look up").click()


def test_an_item_is_found_by_viewer_escrow_amount_and_by_the_reference_that_a_page_shows(
    till: Till, windows: Windows
) -> None:
    done = till.request(title="Dance", userId="ada", tokens=1_234)
    till.request(title="Juggle", userId="ada")
    till.room.command("complete", till.room.start_next())
    panel = windows.open(till.room.panel_url)
    money = panel.get_by_test_id("recent-item").get_by_test_id("money")
    expect(money).to_contain_text("Ref. ")
    shown = money.inner_text().split("Ref. ")[1]
    settlement = till.room.item(done)["settlementTransactionId"]
    admin = windows.open(till.room.admin_url)
    go(admin, "Item")
    for words in (shown, settlement, done["escrowTransactionId"], done["sourceEventId"], "1234"):
        look_up(admin, words)
        expect(admin.locator("#item-body h3")).to_have_text("Dance")
        admin.evaluate("location.hash = '#item'")
        expect(admin.locator("#item-body h3")).to_have_count(0)
    look_up(admin, "ada")
    found = admin.get_by_test_id("found").locator("tbody tr")
    expect(found).to_have_count(2)
    found.filter(has_text="Dance").get_by_role("link").click()
    expect(admin.locator("#item-body h3")).to_have_text("Dance")
    payment = admin.get_by_test_id("payment")
    expect(payment).to_contain_text("Done")
    expect(payment).to_contain_text("Attempts1")
    expect(payment).to_contain_text("To the performer1,234")
    look_up(admin, "nobody-knows")
    expect(admin.get_by_text("There is nothing by this name")).to_be_visible()


def test_a_room_on_a_break_needs_no_look_and_this_devices_clock_does_not_count(till: Till, windows: Windows) -> None:
    till.request(durationSeconds=60)
    till.room.start_next()
    admin = windows.blank()
    admin.clock.install(time=till.clock.now.timestamp() + 86_400)
    admin.goto(till.room.admin_url)
    rooms = admin.get_by_test_id("rooms").locator("tbody tr")
    expect(rooms).to_contain_text("1 / 50")
    expect(admin.get_by_test_id("stuck")).to_be_hidden()


def test_an_old_item_is_not_flagged_while_its_room_is_on_a_break(till: Till, windows: Windows) -> None:
    till.clock.wait(-2_400)
    till.request(title="Dance", tokens=250)
    till.clock.wait(2_400)
    admin = windows.open(till.room.admin_url)
    stuck = admin.get_by_test_id("stuck")
    expect(stuck).to_contain_text("Dance")
    expect(stuck).to_contain_text("250")
    till.room.settings(paused=True)
    look_again(admin)
    expect(stuck).to_be_hidden()
    expect(admin.get_by_test_id("rooms")).to_contain_text("On a break")


def test_rooms_are_sorted_by_a_click_and_lead_to_their_panels(till: Till, windows: Windows) -> None:
    till.request(tokens=250)
    admin = windows.open(till.room.admin_url)
    rooms = admin.get_by_test_id("rooms")
    expect(rooms.locator("tbody tr")).to_contain_text("250")
    by_tokens = rooms.get_by_role("columnheader", name="Tokens in line")
    by_tokens.get_by_role("button").click()
    expect(by_tokens).to_have_attribute("aria-sort", "descending")
    by_tokens.get_by_role("button").click()
    expect(by_tokens).to_have_attribute("aria-sort", "ascending")
    with admin.context.expect_page() as opened:
        rooms.get_by_role("button", name=f"Panel {till.room.performer}").click()
    panel = opened.value
    expect(panel.get_by_role("button", name="Start next")).to_be_enabled()
    assert "token" not in panel.url


def test_retry_is_on_the_screen_and_the_focus_stays_with_the_table(till: Till, windows: Windows) -> None:
    admin = windows.open(till.room.admin_url, size=TABLET)
    go(admin, "Payments")
    item = dead_letter(till, admin)
    admin.get_by_role("button", name="Dead letters").click()
    retry = admin.get_by_test_id("wallet-operations").get_by_role("button", name="Retry")
    expect(retry).to_be_visible()
    place = retry.bounding_box()
    assert place is not None
    assert place["x"] + place["width"] <= TABLET["width"]
    till.recovers()
    retry.focus()
    admin.keyboard.press("Enter")
    wait_for(admin, lambda: till.room.item(item)["walletStatus"] == "done")
    look_again(admin)
    expect(retry).to_have_count(0)
    wait_for(admin, lambda: admin.evaluate("document.activeElement !== document.body"))
    expect(admin.get_by_test_id("wallet-operations")).to_have_text(re.compile("No dead letters"))
