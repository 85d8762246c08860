"""The panel on a phone: buttons that keep their place, and a break that is easy to see."""

import re

from playwright.sync_api import FloatRect, Page, expect

from tests.support.browsing import PHONE, RUNS_OVER, Room, Windows, wait_for
from tests.support.server import fresh


def box(page: Page, name: str) -> FloatRect:
    found = page.get_by_test_id("now-card").get_by_role("button", name=name, exact=True).bounding_box()
    assert found is not None
    return found


def test_the_main_button_never_moves_whatever_a_viewer_has_written(room: Room, windows: Windows) -> None:
    room.request(title="Sing", description="x", durationSeconds=60)
    room.request(title="Sing it loud and long " * 9, description="Please! " * 200, tokens=1_000_000_000)
    panel = windows.open(room.panel_url, size=PHONE)
    expect(panel.get_by_role("button", name="Start next")).to_be_enabled()
    places = [box(panel, "Start next")]
    for number in range(2):
        panel.get_by_role("button", name="Start next").click()
        expect(panel.get_by_role("button", name="Finish")).to_be_enabled()
        places.append(box(panel, "Finish"))
        for quiet in ("Abandon", "Refund", "Split…"):
            apart = box(panel, quiet)
            assert apart["y"] + apart["height"] < places[0]["y"], quiet
        panel.get_by_role("button", name="Pause", exact=True).click()
        expect(panel.get_by_role("button", name="Resume", exact=True)).to_be_enabled()
        places.append(box(panel, "Finish"))
        panel.get_by_role("button", name="Finish").click()
        expect(panel.get_by_role("button", name="Start next")).to_be_visible()
        places.append(box(panel, "Start next"))
        assert panel.evaluate(RUNS_OVER) <= 0, number
    assert {tuple(place.values()) for place in places} == {tuple(places[0].values())}
    assert places[0]["y"] + places[0]["height"] <= PHONE["height"]


def test_a_break_is_loud_says_that_the_clock_stands_and_ends_at_one_touch(room: Room, windows: Windows) -> None:
    room.request(title="Dance", durationSeconds=60)
    panel = windows.open(room.panel_url, size=PHONE)
    loud = panel.get_by_test_id("break")
    expect(panel.get_by_role("button", name="Start next")).to_be_enabled()
    expect(loud).to_be_hidden()
    panel.get_by_role("button", name="Break", exact=True).click()
    expect(loud).to_contain_text("You’re on a break")
    expect(panel).to_have_title(re.compile("On a break"))
    panel.get_by_role("button", name="End the break, start next").click()
    expect(panel.get_by_role("button", name="Finish")).to_be_enabled()
    expect(loud).to_be_hidden()
    assert room.state()["paused"] is False
    room.settings(paused=True)
    expect(panel.get_by_test_id("now-card")).to_contain_text("stopped for your break")
    loud.get_by_role("button", name="Resume").click()
    expect(loud).to_be_hidden()
    expect(panel.get_by_test_id("now-card")).not_to_contain_text("stopped")


def test_break_and_accepting_are_at_hand_above_a_long_queue(room: Room, windows: Windows) -> None:
    for _ in range(20):
        room.request(description="Please")
    panel = windows.open(room.panel_url, size=PHONE)
    expect(panel.get_by_test_id("queue-item")).to_have_count(20)
    for name in ("Accepting requests", "Take a break"):
        place = panel.get_by_role("switch", name=name).bounding_box()
        assert place is not None
        assert place["y"] + place["height"] < box(panel, "Start next")["y"], name


def test_switches_say_nothing_before_the_state_is_there(room: Room, windows: Windows) -> None:
    room.settings(accepting=False, paused=True)
    panel = windows.blank()
    panel.route_web_socket(re.compile("/queue/live"), lambda line: None)
    panel.goto(room.panel_url)
    expect(panel.get_by_text("Take a break")).to_be_visible()
    expect(panel.get_by_role("switch")).to_have_count(0)
    other = windows.open(room.panel_url)
    expect(other.get_by_role("switch", name="Take a break")).to_be_checked()
    expect(other.get_by_role("switch", name="Accepting requests")).not_to_be_checked()


def test_a_performers_name_is_whole_on_a_narrow_phone_while_all_is_well(room: Room, windows: Windows) -> None:
    room.performer = fresh("mira-and-nora")
    panel = windows.open(room.panel_url, size={"width": 360, "height": 740})
    name = panel.locator("#performer")
    expect(name).to_have_text(room.performer)
    expect(panel.get_by_test_id("connection")).to_have_text("Up to date")
    is_whole = "name => name.scrollWidth <= name.clientWidth && name.scrollHeight <= name.clientHeight"
    wait_for(panel, lambda: bool(name.evaluate(is_whole)))
    assert panel.evaluate(RUNS_OVER) <= 0
    refused = windows.open(f"{room.panel_url}x", size={"width": 360, "height": 740})
    expect(refused.get_by_text("This link isn’t valid any more.")).to_be_visible()
    assert refused.locator("#performer").evaluate(is_whole)
    panel.context.set_offline(True)
    pill = panel.get_by_test_id("connection")
    expect(pill).to_contain_text("Reconnecting")
    box = pill.locator("span").bounding_box()
    assert box is not None
    assert box["width"] > 100
