"""The panel during a show: glance mode, buttons to hold, limits, the overlay's link."""

import base64
import re

from playwright.sync_api import Page, expect

from tests.support.browsing import ALARMS, NARROW, RUNS_OVER, Room, Windows, wait_for

WAKES = """
window.locks = { taken: 0, held: 0 };
Object.defineProperty(navigator, "wakeLock", { value: { request: async () => {
  locks.taken += 1;
  locks.held += 1;
  return { release: async () => { locks.held -= 1; } };
} } });
"""
"""Counts the wake locks in `locks`: without a screen there is none to keep on."""

MEAN_COLOUR = """async (png) => {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  const picture = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const context = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, picture.width, picture.height);
  return [0, 1, 2].map((channel) => {
    let sum = 0;
    for (let at = channel; at < data.length; at += 4) sum += data[at];
    return sum / (data.length / 4);
  });
}"""


def test_glance_mode_fills_the_screen_with_title_time_and_one_button_and_keeps_it_on(
    room: Room, windows: Windows
) -> None:
    room.request(title="Sing it loud and long " * 9, userId="ada", durationSeconds=300)
    panel = windows.blank(size=NARROW)
    panel.add_init_script(WAKES)
    panel.goto(room.panel_url)
    panel.get_by_role("button", name="Glance mode").click()
    glance = panel.get_by_test_id("glance")
    glance.get_by_role("button", name="Start next").click()
    expect(glance).to_contain_text(re.compile(r"4:5\d"))
    expect(glance).to_contain_text("ada")
    expect(glance.get_by_role("button", name="Finish")).to_be_enabled()
    place = glance.get_by_role("button", name="Finish").bounding_box()
    assert place is not None
    assert place["y"] + place["height"] <= NARROW["height"]
    assert panel.evaluate(RUNS_OVER) <= 0
    assert panel.evaluate("locks") == {"taken": 1, "held": 1}
    room.settings(paused=True)
    glance.get_by_role("button", name="Resume").click()
    glance.get_by_role("button", name="Finish").click()
    expect(glance).to_contain_text("All quiet")
    glance.get_by_role("button", name="Close").click()
    expect(glance).to_have_count(0)
    wait_for(panel, lambda: panel.evaluate("locks.held") == 0)


def test_finish_can_be_a_button_to_hold(room: Room, windows: Windows) -> None:
    item = room.request(title="Dance")
    room.start_next()
    panel = windows.open(room.panel_url)
    panel.get_by_role("button", name="Shortcuts and options").click()
    panel.get_by_role("switch", name="Hold to finish").click()
    panel.keyboard.press("Escape")
    hold = panel.get_by_role("button", name="Hold to finish")
    hold.click()
    panel.keyboard.press("Enter")
    panel.keyboard.press("f")
    expect(panel.get_by_text("Hold the button to finish.")).to_be_visible()
    assert room.item(item)["status"] == "started"
    hold.hover()
    panel.mouse.down()
    expect(panel.get_by_text("All quiet")).to_be_visible()
    panel.mouse.up()
    assert room.item(item)["status"] == "finished"


def await_tones(panel: Page, count: int) -> None:
    wait_for(panel, lambda: bool(panel.evaluate("alarms.tones") == count))


def test_each_arrival_has_a_sound_where_that_is_switched_on(room: Room, windows: Windows) -> None:
    panel = windows.blank()
    panel.add_init_script(ALARMS)
    panel.clock.install()
    panel.goto(room.panel_url)
    arrived = panel.get_by_test_id("queue-item")
    room.request()
    expect(arrived).to_have_count(1)
    panel.get_by_role("button", name="Shortcuts and options").click()
    wanted = panel.get_by_role("switch", name="Sound for each request")
    expect(wanted).to_have_attribute("aria-checked", "false")
    assert panel.evaluate("alarms.tones") == 0
    wanted.click()
    panel.keyboard.press("Escape")
    for number in (2, 3):
        # Requests within half a second are one sound.
        panel.clock.fast_forward(1_000)
        tones = panel.evaluate("alarms.tones")
        room.request()
        expect(arrived).to_have_count(number)
        await_tones(panel, tones + 1)
    assert panel.evaluate("[alarms.asked, alarms.shown.length]") == [0, 0]
    panel.reload()
    expect(arrived).to_have_count(3)
    panel.get_by_role("button", name="Shortcuts and options").click()
    expect(wanted).to_have_attribute("aria-checked", "true")
    tones = panel.evaluate("alarms.tones")
    wanted.click()
    room.request()
    expect(arrived).to_have_count(4)
    assert panel.evaluate("alarms.tones") == tones


def test_a_performer_bounds_the_requests_of_a_viewer_and_the_wait(room: Room, windows: Windows) -> None:
    room.request(tokens=250, durationSeconds=600)
    room.request(tokens=250)
    panel = windows.open(room.panel_url)
    expect(panel.get_by_test_id("load")).to_have_text("500 tokens in line · about 11 min of show left")
    for label, text, field, value, words in (
        ("Requests per viewer", "2", "maxPerUser", 2, "At most 2 in line"),
        ("Longest wait, in minutes", "50", "maxWaitSeconds", 3000, "longer than 50 min"),
    ):
        panel.get_by_label(label).fill(text)
        panel.get_by_label(label).press("Enter")
        expect(panel.get_by_text(words)).to_be_visible()
        assert room.state()[field] == value
        panel.get_by_label(label).fill("")
        panel.get_by_label(label).press("Enter")
        expect(panel.get_by_text(words)).to_have_count(0)
        assert room.state()[field] is None


def test_the_overlays_link_is_put_together_beside_its_picture_and_copied(room: Room, windows: Windows) -> None:
    for number in range(3):
        room.request(title=f"Wish {number}")
    panel = windows.open(room.panel_url, permissions=["clipboard-read", "clipboard-write"])
    panel.get_by_role("button", name="Copy overlay link…").click()
    dialog = panel.get_by_role("dialog", name="Overlay for your stream")
    dialog.get_by_label("Requests shown (max)").fill("2")
    dialog.get_by_label("Look (theme)").select_option("light")
    dialog.get_by_label("Size in % (scale)").fill("150")
    dialog.get_by_label("Tokens").check()
    wanted = f"{room.overlay_url}?max=2&theme=light&scale=150&hide=tokens"
    expect(dialog.get_by_label("Link")).to_have_value(wanted)
    dialog.get_by_role("button", name="Copy overlay link").click()
    expect(dialog.get_by_text("The link is copied.")).to_be_visible()
    assert panel.evaluate("navigator.clipboard.readText()") == wanted
    shown = dialog.frame_locator("iframe")
    expect(shown.get_by_test_id("queue-item")).to_have_count(2)
    expect(shown.get_by_text("100 tokens").first).to_be_hidden()
    plain = windows.open(room.overlay_url).evaluate("parseFloat(getComputedStyle(document.documentElement).fontSize)")
    large = windows.open(wanted).evaluate("parseFloat(getComputedStyle(document.documentElement).fontSize)")
    assert abs(large / plain - 1.5) < 0.01


def test_the_overlay_lies_on_its_sample_picture_in_either_theme(room: Room, windows: Windows) -> None:
    """A frame that is opaque by mistake would cover the picture with white or with the dark theme's ground."""
    picture_alone = "frame => { frame.style.visibility = 'hidden'; }"
    for theme in ("light", "dark"):
        panel = windows.open(room.panel_url, color_scheme=theme)
        panel.get_by_role("button", name="Copy overlay link…").click()
        frame = panel.locator(".overlay-preview iframe")
        expect(frame.content_frame.get_by_text("Requests are open")).to_be_visible()
        with_overlay = middle_of(panel, ".overlay-preview")
        frame.evaluate(picture_alone)
        assert largest_difference(with_overlay, middle_of(panel, ".overlay-preview")) <= 8, theme


def middle_of(page: Page, selector: str) -> list[float]:
    """The mean red, green and blue (0-255) of 80 x 80 pixels from the middle of an element on."""
    place = page.locator(selector).bounding_box()
    assert place is not None
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    picture = page.screenshot(clip={"x": x, "y": y, "width": 80, "height": 80})
    mean: list[float] = page.evaluate(MEAN_COLOUR, base64.b64encode(picture).decode())
    return mean


def largest_difference(one: list[float], other: list[float]) -> float:
    return max(abs(mine - its) for mine, its in zip(one, other, strict=True))


def test_an_overlay_with_nothing_to_show_gives_a_sign_of_life(room: Room, windows: Windows) -> None:
    overlay = windows.open(room.overlay_url)
    expect(overlay.get_by_text("Requests are open")).to_be_visible()
    room.settings(mode="off")
    expect(overlay.get_by_test_id("life")).to_be_visible()
    overlay.goto(f"{room.overlay_url}?hide=life,message")
    expect(overlay.get_by_test_id("connection")).to_have_text("Up to date")
    expect(overlay.get_by_test_id("life")).to_be_hidden()
