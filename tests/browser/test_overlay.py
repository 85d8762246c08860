"""The overlay in a real browser, as a source of a stream: stable, transparent, and hidden rather than outdated. And
which pages other sites may frame."""

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.support.browsing import HIDES, Room, Windows, room_of
from tests.support.ports import free_port
from tests.support.server import Server, fresh, serving

BACKGROUND = "node => getComputedStyle(node).backgroundColor"


def on_another_site(page: Page, server: Server, body: str) -> None:
    """Go to a page of another origin: this machine by its other name."""
    page.goto(f"http://localhost:{server.port}/healthz")
    page.evaluate("body => (document.body.innerHTML = body)", body)


def test_it_hides_after_ten_seconds_without_a_connection_and_comes_back(room: Room, windows: Windows) -> None:
    first = room.request(title="Dance")
    overlay = windows.blank()
    overlay.clock.install()
    overlay.goto(room.overlay_url)
    expect(overlay.get_by_text("Dance")).to_be_visible()
    overlay.context.set_offline(True)
    # The page finds out at the next ping, at the latest; what is left of the ten seconds then runs by the page's clock.
    connection = overlay.get_by_test_id("connection")
    expect(connection).to_have_text("Connecting…")
    expect(overlay.get_by_text("Dance")).to_be_visible()
    overlay.clock.fast_forward(10_000)
    expect(overlay.locator("#overlay")).to_be_hidden()
    room.command("abandon", first)
    room.request(title="Juggle")
    overlay.context.set_offline(False)
    expect(overlay.locator("#overlay")).to_be_visible()
    expect(overlay.get_by_text("Juggle")).to_be_visible()
    expect(overlay.get_by_text("Dance")).to_have_count(0)


def test_the_address_says_how_many_and_what_is_shown_and_how(room: Room, windows: Windows) -> None:
    for number in range(7):
        room.request(title=f"Wish {number}", tokens=100 + number, sourceFeature="song_menu", durationSeconds=60)
    room.start_next()
    overlay = windows.open(room.overlay_url)
    expect(overlay.get_by_test_id("queue-item")).to_have_count(4)
    expect(overlay.get_by_test_id("now-card")).to_contain_text("Song menu · 100 tokens · 0:0")
    expect(overlay.locator("#next")).to_contain_text("6 waiting")
    assert overlay.locator("body").evaluate(BACKGROUND) == "rgba(0, 0, 0, 0)"
    dark = overlay.locator("#next").evaluate(BACKGROUND)

    overlay.goto(f"{room.overlay_url}?max=2&theme=light&hide=tokens,feature,time,count")
    expect(overlay.get_by_test_id("queue-item")).to_have_count(2)
    expect(overlay.get_by_test_id("queue-item").first).to_be_visible()
    expect(overlay.get_by_test_id("now-card")).to_have_text(
        re.compile(r"^\s*On stage\s*Wish 0\s*$"), use_inner_text=True
    )
    expect(overlay.locator("#next")).to_have_text(
        re.compile(r"^Up next\s*2\s*Wish 1\s*3\s*Wish 2$"), use_inner_text=True
    )
    assert overlay.locator("#next").evaluate(BACKGROUND) != dark
    assert overlay.locator("body").evaluate(BACKGROUND) == "rgba(0, 0, 0, 0)"

    overlay.goto(f"{room.overlay_url}?max=99&theme=clear&hide=now")
    expect(overlay.get_by_test_id("queue-item")).to_have_count(6)
    expect(overlay.get_by_test_id("now-card")).to_be_hidden()
    assert overlay.locator("#next").evaluate(BACKGROUND) == "rgba(0, 0, 0, 0)"

    overlay.goto(f"{room.overlay_url}?hide=next&max=nonsense&theme=nonsense")
    expect(overlay.get_by_test_id("now-card")).to_be_visible()
    expect(overlay.locator("#next")).to_be_hidden()


def test_the_rooms_announcement_can_be_shown_or_hidden(room: Room, windows: Windows) -> None:
    room.settings(announcement="Back at nine")
    overlay = windows.open(room.overlay_url)
    expect(overlay.get_by_text("Back at nine")).to_be_visible()
    for settings, words in (
        ({"announcement": None}, "Requests are open"),
        ({"accepting": False}, "Requests are closed for now"),
        ({"accepting": True, "mode": "off"}, ""),
    ):
        room.settings(**settings)
        expect(overlay.locator("#message")).to_have_text(re.compile(words if words else "^$"))
    room.settings(announcement="Back at ten", mode="on")
    overlay.goto(f"{room.overlay_url}?hide=message")
    expect(overlay.get_by_test_id("connection")).to_have_text("Up to date")
    expect(overlay.locator("#message")).to_be_hidden()


def test_the_time_of_a_paused_performance_stands_still(room: Room, windows: Windows) -> None:
    room.request(title="Dance", durationSeconds=60)
    room.command("pause", room.start_next())
    overlay = windows.open(room.overlay_url)
    expect(overlay.get_by_test_id("now-card")).to_contain_text("Dance")
    expect(overlay.locator("#current-detail")).to_have_text("Wheel · 100 tokens · 0:00 of 1:00")


def test_another_site_can_frame_it_and_the_browser_may_deny_it_storage(room: Room, windows: Windows) -> None:
    room.request(title="Dance")
    site = windows.blank()
    on_another_site(site, room.server, f'<iframe src="{room.overlay_url}" width="600" height="300"></iframe>')
    overlay = site.frame_locator("iframe")
    expect(overlay.get_by_text("Dance")).to_be_visible()
    room.start_next()
    expect(overlay.get_by_test_id("now-card")).to_contain_text("Dance")


def test_it_is_right_after_a_time_in_which_nobody_saw_it(room: Room, windows: Windows) -> None:
    room.request(title="Dance")
    overlay = windows.open(room.overlay_url)
    expect(overlay.get_by_text("Dance")).to_be_visible()
    overlay.evaluate(HIDES, True)
    room.start_next()
    room.request(title="Juggle")
    overlay.evaluate(HIDES, False)
    expect(overlay.get_by_test_id("now-card")).to_contain_text("Dance")
    expect(overlay.get_by_test_id("queue-item")).to_have_text(re.compile("Juggle"))
    expect(overlay.locator("#overlay")).to_be_visible()


def test_it_never_scrolls_and_never_asks(room: Room, windows: Windows) -> None:
    for _ in range(10):
        room.request(title="A very long wish " * 11, tokens=1_000_000_000)
    room.settings(announcement=fresh("x" * 200))
    room.start_next()
    overlay = windows.open(f"{room.overlay_url}?max=10", size={"width": 320, "height": 120})
    expect(overlay.get_by_test_id("queue-item")).to_have_count(9)
    bars = "[innerWidth - document.documentElement.clientWidth, innerHeight - document.documentElement.clientHeight]"
    assert overlay.evaluate(bars) == [0, 0]
    overlay.mouse.wheel(200, 200)
    overlay.keyboard.press("End")
    assert overlay.evaluate("[scrollX, scrollY]") == [0, 0]
    assert overlay.locator("dialog, button, input, a, [tabindex]").count() == 0


def test_the_element_shows_a_place_in_a_page_of_another_site(windows: Windows, tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, port=port, allowed_origins=f"http://localhost:{port}") as server, room_of(server) as room:
        first, _ = room.request(), room.request(userId="ada", title="Dance")
        site = windows.blank()
        on_another_site(
            site,
            server,
            f"""<performance-queue-position performer="{room.performer}" style="--queue-accent: rgb(1, 2, 3)">
            </performance-queue-position>""",
        )
        site.add_script_tag(url=f"{server.url}/static/position-element.js", type="module")
        place = site.locator("performance-queue-position")
        ahead = place.locator("[part=ahead]")
        expect(ahead).to_have_text("2 requests in line")
        place.evaluate(
            """(place, token) => {
              window.heard_events = [];
              const note = ({ type, detail }) => heard_events.push([type, detail.position ?? detail.text]);
              for (const name of ["position", "notice", "ended"]) document.addEventListener(`queue-${name}`, note);
              place.token = token;
            }""",
            server.viewer("ada"),
        )
        expect(ahead).to_have_text("1 ahead of you")
        expect(place.locator("[part=position]")).to_have_css("color", "rgb(1, 2, 3)")
        room.command("abandon", first)
        expect(ahead).to_have_text("You’re next")
        item = room.start_next()
        expect(ahead).to_have_text("You’re on stage now")
        room.command("complete", item)
        expect(ahead).to_have_text("That was yours")
        heard_events = site.evaluate("heard_events")
        assert [detail for name, detail in heard_events if name == "queue-position"] == [2, 1, 1]
        assert ["queue-notice", "You’re next. Get ready!"] in heard_events
        assert heard_events[-1][0] == "queue-ended"
