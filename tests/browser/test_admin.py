"""The administration in a real browser: failing payments, an item's details, exports, dependencies."""

import csv
import io
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.support.browsing import NARROW, RUNS_OVER, Room, Till, Windows, till_in, wait_for
from tests.support.server import Json
from tests.support.wallet_harness import AWAY


def go(page: Page, view: str) -> None:
    page.get_by_role("link", name=view, exact=True).click()


def look_again(page: Page) -> None:
    """Make the page refresh at once, as when the network has come back."""
    page.evaluate("dispatchEvent(new Event('online'))")


def exported(page: Page, name: str) -> list[dict[str, str]]:
    """The file that the view's button saves, as the values of its cells."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Export CSV").click()
    assert download.value.suggested_filename == f"{name}.csv"
    saved = Path(download.value.path()).read_text("utf-8-sig")
    return list(csv.DictReader(io.StringIO(saved)))


def dead_letter(till: Till, page: Page) -> Json:
    """A refund that is dead after two failed attempts."""
    till.wallet.faults.rates = AWAY
    item = till.request(title="Dance")
    till.room.command("refund", item, {"reason": "technical_error"})
    wait_for(page, lambda: till.room.item(item)["walletStatus"] == "retrying")
    till.clock.wait(5)
    wait_for(page, lambda: till.room.item(item)["walletStatus"] == "dead")
    return item


def test_a_dead_letter_is_listed_exported_and_sent_again(till: Till, windows: Windows) -> None:
    admin = windows.open(till.room.admin_url)
    go(admin, "Payments")
    expect(admin.get_by_text("No dead letters. Every payment is done or on its way.")).to_be_visible()
    item = dead_letter(till, admin)
    admin.get_by_role("button", name="Dead letters").click()
    row = admin.get_by_test_id("wallet-operations").locator("tbody tr")
    expect(row).to_have_count(1)
    for words in ("Dead letter", "Refund", till.room.performer, item["itemId"][-8:]):
        expect(row).to_contain_text(words)
    (record,) = exported(admin, "wallet-operations")
    assert record["itemId"] == item["itemId"]
    assert (record["kind"], record["status"], record["attempts"]) == ("refund", "dead", "2")
    assert record["lastProblem"]
    assert record["escrowTransactionId"] == item["escrowTransactionId"]

    till.recovers()
    row.get_by_role("button", name="Retry").click()
    expect(admin.get_by_text("Queued for another attempt.")).to_be_visible()
    wait_for(admin, lambda: till.room.item(item)["walletStatus"] == "done")
    admin.get_by_role("button", name="All", exact=True).click()
    expect(row).to_contain_text("Done")
    expect(row.get_by_role("button", name="Retry")).to_have_count(0)
    assert till.wallet.books.available == 100


def test_queue_and_wallet_are_compared_at_the_push_of_a_button(till: Till, windows: Windows) -> None:
    admin = windows.open(till.room.admin_url)
    go(admin, "Payments")
    state, table = admin.get_by_test_id("wallet-check-state"), admin.get_by_test_id("wallet-check")
    expect(state).to_contain_text("have not been compared")
    expect(table).to_be_hidden()
    item = till.request(title="Dance")
    admin.get_by_role("button", name="Compare now").click()
    expect(state).to_contain_text("all as the wallet has them")
    expect(table).to_be_hidden()

    till.wallet.resolve(item, settle=0, refund=100)
    admin.get_by_role("button", name="Compare now").click()
    expect(state).to_contain_text("escrows 1, of these different from the wallet: 1")
    row = table.locator("tbody tr")
    expect(row).to_have_count(1)
    for words in (till.room.performer, item["itemId"][-8:], "refunded at the wallet"):
        expect(row).to_contain_text(words)

    till.wallet.faults.rates = AWAY
    admin.get_by_role("button", name="Compare now").click()
    expect(admin.locator("#toasts")).not_to_be_empty()
    expect(state).to_contain_text("different from the wallet: 1")


def test_a_wallet_that_is_away_shows_in_the_state_of_the_service(till: Till, windows: Windows) -> None:
    admin = windows.open(till.room.admin_url)
    health = admin.locator("#health")
    breaker = health.locator("li").filter(has_text="breaker")
    expect(breaker).to_contain_text("closed")
    expect(health.locator("li").filter(has_text="database")).to_contain_text("ok")
    expect(health.locator("li").filter(has_text="wallet").first).to_contain_text("ok")
    till.wallet.faults.rates = AWAY
    items = [till.room.command("refund", till.request(), {"reason": "technical_error"}) for _ in range(5)]
    wait_for(admin, lambda: all(till.room.item(item)["walletStatus"] == "retrying" for item in items))
    admin.reload()
    expect(breaker).to_contain_text("open")
    expect(breaker.locator(".tag")).to_have_class("tag bad")


def test_an_items_whole_story_ends_with_a_forced_refund(till: Till, windows: Windows) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\">"
    item = till.request(title=evil, description=evil, metadata={evil: evil}, sourceFeature=evil, sourceEventId=evil)
    till.room.start_next()
    admin = windows.open(till.room.admin_url)
    go(admin, "Item")
    admin.get_by_role("searchbox").fill(item["itemId"])
    admin.get_by_role("button", name="Look up").click()
    expect(admin.locator("#item-body h3")).to_have_text(evil)
    expect(admin.locator("pre")).to_contain_text("<img src=x")
    assert admin.locator("img[src=x]").count() == 0
    steps = admin.get_by_test_id("timeline").locator("li")
    expect(steps).to_have_count(2)
    expect(steps.nth(0)).to_contain_text("Waiting")
    expect(steps.nth(1)).to_contain_text("On stage")
    expect(steps.nth(1)).to_contain_text("the performer")

    admin.get_by_role("button", name="Force a refund…").click()
    dialog = admin.get_by_role("dialog")
    expect(dialog).to_contain_text(evil)
    expect(dialog).to_contain_text(item["userId"])
    dialog.get_by_role("combobox").select_option("timeout")
    dialog.get_by_role("button", name="Return 100 tokens").click()
    expect(steps).to_have_count(3)
    expect(steps.nth(2)).to_contain_text("Refunded Took too long")
    expect(steps.nth(2)).to_contain_text("administrator ops")
    expect(admin.get_by_role("button", name="Force a refund…")).to_have_count(0)
    wait_for(admin, lambda: till.room.item(item)["walletStatus"] == "done")
    admin.reload()
    after = till.room.item(item)
    assert (after["status"], after["refundReason"]) == ("refunded", "timeout")
    money = admin.locator(".money")
    expect(money).to_have_attribute("data-tone", "good")
    expect(money).to_contain_text(f"Ref. {after['refundTransactionId']}")
    admin.get_by_role("searchbox").fill("nobody-knows")
    admin.get_by_role("button", name="Look up").click()
    expect(admin.get_by_text("There is nothing by this name")).to_be_visible()


def test_rooms_and_analytics_are_shown_and_exported(till: Till, windows: Windows) -> None:
    room = till.room
    # The page counts from its own time of the day.
    till.clock.wait(-2_400)
    till.request(durationSeconds=60)
    till.request()
    room.command("complete", room.start_next())
    till.clock.wait(2_400)
    admin = windows.open(room.admin_url)
    rooms = admin.get_by_test_id("rooms").locator("tbody tr")
    for words in (room.performer, "1 / 50", "40 min"):
        expect(rooms).to_contain_text(words)
    expect(admin.get_by_test_id("stuck")).to_contain_text("Waiting very long")
    (record,) = exported(admin, "rooms")
    assert (record["performerId"], record["depth"], record["accepting"]) == (room.performer, "1", "true")

    go(admin, "Analytics")
    expect(admin.locator("#analytics-body .totals")).to_contain_text("Performed1")
    expect(admin.locator(".plot svg")).to_have_count(4)
    expect(admin.locator(".plot rect")).to_have_count(1)
    records = exported(admin, "analytics-day")
    assert len(records) == 12
    assert sum(int(record["finished"]) for record in records) == 1
    promised = admin.get_by_test_id("promises").locator("tbody tr")
    expect(promised).to_have_count(1)
    expect(promised.locator("[data-title=Ahead]")).to_have_text("0")
    expect(promised.locator("[data-title=Waits]")).to_have_text("1")
    admin.locator(".plot-picture").nth(1).focus()
    admin.keyboard.press("End")
    expect(admin.locator(".plot-reading").nth(1)).to_contain_text("performed 1")


def test_a_room_shows_how_many_watch_it_and_how_many_of_them_lag(till: Till, windows: Windows) -> None:
    room = till.room
    room.settings(announcement="Hello")
    for user in ("ada", "bo"):
        expect(windows.open(room.watch_url(user)).get_by_text("Hello")).to_be_visible()
    admin = windows.open(room.admin_url, size=NARROW)
    cells = admin.get_by_test_id("rooms").locator("tbody tr")
    sockets, lagging = cells.locator("[data-title=Sockets]"), cells.locator("[data-title=Lagging]")
    expect(sockets).to_have_text("2")
    expect(lagging).to_have_text("0")
    assert admin.evaluate(RUNS_OVER) <= 0
    slow = {"performerId": room.performer, "sockets": 1200, "laggingSockets": 3, "longestLagSeconds": 14.2}
    everywhere = {"audiences": [slow], "sockets": 34000, "laggingSockets": 12}
    admin.route("**/v1/admin/audiences?*", lambda route: route.fulfill(json=everywhere))
    look_again(admin)
    health = admin.locator("#health li")
    expect(health.filter(has_text="Sockets").first).to_contain_text("34,000")
    expect(health.filter(has_text="agging")).to_contain_text("12")
    expect(sockets).to_have_text("1,200")
    expect(lagging).to_have_text("3 (0:14)")
    assert admin.evaluate(RUNS_OVER) <= 0
    admin.route("**/v1/admin/audiences?*", lambda route: route.fulfill(status=503, json={"code": "UNAVAILABLE"}))
    look_again(admin)
    expect(sockets).to_have_text("–")
    expect(lagging).to_have_text("–")


def test_the_page_says_so_to_anybody_but_an_administrator(room: Room, windows: Windows) -> None:
    page = windows.open(f"{room.server.url}/admin#token={room.server.performer(room.performer)}")
    expect(page.get_by_text("This link doesn’t give access to the administration")).to_be_visible()
    expect(page.locator("#desk")).to_be_hidden()
    assert "token" not in page.url


def test_payments_that_stick_are_one_sentence_and_are_resolved_or_retried_all_at_once(
    till: Till, windows: Windows
) -> None:
    item = dead_letter(till, windows.open(till.room.admin_url))
    till.recovers()
    admin = windows.open(till.room.admin_url)
    go(admin, "Payments")
    trouble = admin.get_by_test_id("wallet-trouble")
    expect(trouble).to_contain_text(re.compile(r"^\s*1 payment, 100 tokens, stuck since .+: \S.+"))
    for view in ("Rooms", "Item", "Payments"):
        go(admin, view)
        expect(trouble).to_be_visible()
    admin.get_by_test_id("wallet-operations").get_by_role("button", name="Resolve…").click()
    dialog = admin.get_by_role("dialog")
    dialog.get_by_role("combobox").select_option("written_off")
    dialog.get_by_role("textbox").fill("The viewer has been told.")
    dialog.get_by_role("button", name="End it").click()
    expect(admin.get_by_text("Ended by hand.")).to_be_visible()
    assert till.room.item(item)["walletStatus"] == "written_off"
    expect(trouble).to_be_hidden()

    other = dead_letter(till, admin)
    till.recovers()
    look_again(admin)
    trouble.get_by_role("button", name="Retry all").click()
    wait_for(admin, lambda: till.room.item(other)["walletStatus"] == "done")
    admin.set_viewport_size({"width": 360, "height": 780})
    assert admin.evaluate(RUNS_OVER) <= 0


def test_payments_that_fail_for_a_while_are_one_sentence_that_leads_to_them(tmp_path: Path, windows: Windows) -> None:
    with till_in(tmp_path, max_attempts=50) as till:
        till.wallet.faults.rates = AWAY
        admin = windows.open(till.room.admin_url)
        trouble = admin.get_by_test_id("wallet-trouble")
        till.clock.wait(-600)
        item = till.request(title="Dance")
        till.room.command("refund", item, {"reason": "technical_error"})
        till.clock.wait(600)
        wait_for(admin, lambda: till.room.item(item)["walletStatus"] == "retrying")
        look_again(admin)
        words = re.compile(r"^\s*1 payment, 100 tokens, delayed since .+: \S.+ It is tried again by itself\.")
        expect(trouble).to_contain_text(words)
        expect(trouble.get_by_role("button", name="Retry all")).to_be_hidden()
        trouble.get_by_role("link", name="Show").click()
        row = admin.get_by_test_id("wallet-operations").locator("tbody tr")
        expect(row).to_contain_text("Retrying")
        expect(row.locator("[data-title=Tokens]")).to_have_text("100")
        till.recovers()
        row.get_by_role("button", name="Retry").click()
        expect(trouble).to_be_hidden()
