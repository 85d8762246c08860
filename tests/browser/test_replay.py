"""The administration's replay of a room's night in a real browser: by keyboard, with few requests, on a phone."""

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from playwright.sync_api import Page, Route, expect

from tests.support.browsing import NARROW, RUNS_OVER, Room, Till, Windows, has_keyboard, wait_for
from tests.support.server import Json


def night_of(till: Till) -> list[Json]:
    """Three items arrive; the second overtakes, the first is refunded and the third performed."""
    first = till.request(title="First", userId="ada", tokens=100, durationSeconds=90)
    second = till.request(title="Second", userId="bo", tokens=200)
    third = till.request(title="Third", userId="cy", tokens=300)
    till.room.command("start", second)
    till.room.command("complete", second)
    till.room.command("refund", first, {"reason": "performer_declined"})
    return [first, second, third]


def open_replay(till: Till, windows: Windows, **options: object) -> Page:
    admin = windows.open(till.room.admin_url, **options)  # type: ignore[arg-type]
    admin.get_by_test_id("rooms").get_by_role("link", name=f"Replay {till.room.performer}").click()
    expect(admin.get_by_role("slider", name="Moment of the night")).to_be_visible()
    return admin


def asked_versions(page: Page) -> list[str]:
    """The versions that the page requests from now on."""
    versions: list[str] = []
    page.on(
        "request", lambda request: versions.append(urlsplit(request.url).query) if "version=" in request.url else None
    )
    return versions


def test_the_slider_shows_every_place_every_shown_wait_the_money_and_the_reasons(till: Till, windows: Windows) -> None:
    first, second, _ = night_of(till)
    wait_for_settled(till, windows, second, first)
    admin = open_replay(till, windows)
    slider = admin.get_by_role("slider", name="Moment of the night")
    line = admin.get_by_test_id("replay-line").locator("tbody tr")
    step = admin.get_by_test_id("replay-step")
    expect(line).to_have_count(1)
    expect(admin.get_by_test_id("replay-totals")).to_contain_text("600")
    slider.focus()
    admin.keyboard.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"\d\d:\d\d:\d\d, Came · First"))
    expect(line).to_have_count(1)
    expect(step).to_contain_text(first["sourceFeature"])
    for _ in range(2):
        admin.keyboard.press("ArrowRight")
    expect(line).to_have_count(3)
    expect(line.nth(1).locator("[data-title=Viewer]")).to_have_text("bo")
    expect(line.nth(1).locator("[data-title=Told]")).to_have_text("2 min")
    expect(admin.get_by_test_id("replay-summary")).to_have_text("3 in line · 600 tokens")
    admin.keyboard.press("ArrowRight")
    expect(step).to_contain_text("On stage · Second")
    expect(step).to_contain_text("the performer · overtook 1 other")
    expect(line.first).to_contain_text("Second")
    admin.get_by_role("button", name="Refunded · First").first.click()
    expect(step).to_contain_text("Declined by the performer")
    has_keyboard(admin.locator(".step[aria-current]"))
    admin.get_by_role("button", name="One step back").click()
    admin.keyboard.press("Tab")


def wait_for_settled(till: Till, windows: Windows, finished: Json, refunded: Json) -> None:
    page = windows.blank()
    wait_for(page, lambda: till.room.item(finished)["settled"] is True)
    wait_for(page, lambda: till.room.item(refunded)["walletStatus"] == "done")


def test_money_counts_up_to_the_moment(till: Till, windows: Windows) -> None:
    first, second, _ = night_of(till)
    wait_for_settled(till, windows, second, first)
    admin = open_replay(till, windows)
    totals = admin.get_by_test_id("replay-totals").locator("dd")
    expect(totals).to_have_text(["600", "200", "100"])
    admin.get_by_role("slider").press("Home")
    expect(totals).to_have_text(["100", "0", "0"])


def test_sliding_makes_few_requests_one_at_a_time_and_ends_with_the_slider_s_step(till: Till, windows: Windows) -> None:
    for number in range(40):
        till.request(title=f"Wish {number}")
    admin = open_replay(till, windows)
    slider = admin.get_by_role("slider")
    expect(admin.get_by_test_id("replay-summary")).to_contain_text("40 in line")
    under_way, most = [0], [0]
    sliding, held = [True], []

    def slowly(route: Route) -> None:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        if sliding[0]:
            held.append(route)
        else:
            answer(route)

    def answer(route: Route) -> None:
        response = route.fetch()
        under_way[0] -= 1
        route.fulfill(response=response)

    admin.route("**/queue?version=*", slowly)
    asked = asked_versions(admin)
    slider.focus()
    for _ in range(30):
        admin.keyboard.press("ArrowLeft")
    sliding[0] = False
    for route in held:
        answer(route)
    expect(admin.get_by_test_id("replay-summary")).to_contain_text("10 in line")
    assert asked[-1] == "version=10"
    assert len(asked) <= 3
    assert most[0] == 1
    known = len(asked)
    admin.keyboard.press("ArrowLeft")
    expect(admin.get_by_test_id("replay-summary")).to_contain_text("9 in line")
    admin.keyboard.press("ArrowRight")
    expect(admin.get_by_test_id("replay-summary")).to_contain_text("10 in line")
    assert len(asked) == known + 1, "what has been seen is not asked for again"


def test_a_night_without_events_an_unknown_room_and_the_nights_beside_it(till: Till, windows: Windows) -> None:
    till.request()
    admin = open_replay(till, windows)
    message = admin.get_by_test_id("replay-message")
    admin.get_by_role("button", name="Night before").click()
    expect(message).to_have_text("Nothing happened in this night.")
    admin.get_by_role("button", name="Night after").click()
    expect(admin.get_by_role("slider")).to_be_visible()
    admin.get_by_label("Performer id").last.fill("nobody-at-all")
    admin.get_by_role("button", name="Show").click()
    expect(message).to_have_text("There is no such performer’s room.")


def test_the_last_night_is_shown_of_a_room_that_is_empty_now(till: Till, windows: Windows) -> None:
    till.clock.wait(-3 * 86_400)
    item = till.request()
    till.room.command("refund", item, {"reason": "user_cancelled"})
    till.clock.wait(3 * 86_400)
    admin = open_replay(till, windows)
    then = datetime.fromisoformat(item["createdAt"]).astimezone(UTC)
    day = (then - timedelta(hours=12)).date()
    assert abs(datetime.fromisoformat(admin.get_by_label("Night of").input_value()).date() - day) <= timedelta(days=1)
    expect(admin.get_by_test_id("replay-summary")).to_contain_text("in line")


def test_an_unavailable_version_is_reported_and_sliding_goes_on(till: Till, windows: Windows) -> None:
    till.request()
    till.request()
    admin = open_replay(till, windows)
    expect(admin.get_by_test_id("replay-summary")).to_contain_text("2 in line")
    pruned = {"code": "NOT_FOUND", "status": 404}
    admin.route("**/queue?version=1", lambda route: route.fulfill(status=404, json=pruned))
    admin.get_by_role("slider").press("Home")
    expect(admin.get_by_test_id("replay-line")).to_be_hidden()
    admin.get_by_role("slider").press("End")
    expect(admin.get_by_test_id("replay-summary")).to_contain_text("2 in line")
    expect(admin.get_by_test_id("replay-line")).to_be_visible()


def test_it_fits_a_phone_and_speaks_german(room: Room, windows: Windows) -> None:
    room.request(title="Ein sehr langer Wunsch mit vielen Wörtern, der nirgends hinausragen darf", userId="ada")
    room.start_next()
    admin = windows.open(f"{room.admin_url}", size=NARROW, locale="de-DE")
    admin.evaluate(f"location.hash = 'replay/{room.performer}'")
    expect(admin.get_by_role("slider", name="Zeitpunkt der Nacht")).to_be_visible()
    expect(admin.get_by_test_id("replay-summary")).to_contain_text("1 in der Schlange")
    assert admin.evaluate(RUNS_OVER) <= 0
