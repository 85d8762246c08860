"""The reference page: it shows the whole interface, under the strict policy and without third parties."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from app.api.pages import STATIC
from app.specs.asyncapi import SERVER_FRAMES
from app.specs.operations import OPERATIONS
from app.wire.websocket import CloseCode
from tests.support.browsing import room_of
from tests.support.server import Server


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page of a phone's size."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    yield context.new_page()
    context.close()


def test_the_page_shows_every_operation_and_every_frame(page: Page, server: Server) -> None:
    complaints: list[str] = []
    hosts: set[str] = set()
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    response = page.goto(f"{server.url}/docs")
    assert response is not None
    assert "script-src 'self'" in response.headers["content-security-policy"]
    for operation in OPERATIONS:
        summary = page.locator(f"details#{operation.name} > summary")
        expect(summary).to_contain_text(operation.method)
        expect(summary).to_contain_text(operation.path)
    for name in SERVER_FRAMES:
        expect(page.locator(f"details#frame-{name}")).to_be_visible()
    for code in map(int, CloseCode):
        expect(page.locator("#live")).to_contain_text(str(code))
    assert complaints == []
    assert hosts == {urlsplit(server.url).netloc}
    ids: list[str] = page.evaluate("[...document.querySelectorAll('[id]')].map(({ id }) => id)")
    assert len(ids) == len(set(ids)), "a link into the page is to one place"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off on a phone"


def test_a_link_into_the_page_opens_what_it_names(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/docs#intake")
    intake = page.locator("details#intake")
    expect(intake.get_by_text("QUEUE_FULL")).to_be_visible()
    intake.get_by_role("link", name="IntakeRequest").click()
    expect(page.locator("#schema-IntakeRequest").get_by_text("escrowTransactionId")).to_be_in_viewport()


def test_a_search_leaves_the_entries_with_all_of_its_words(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/docs")
    everything = page.locator("details:visible")
    expect(page.locator("details#intake")).to_be_visible()
    before = everything.count()
    page.get_by_role("searchbox").fill("refundTokens COMPLETE")
    expect(page.locator("details#complete")).to_be_visible()
    expect(page.locator("details#frame-complete")).to_be_visible()
    expect(page.locator("details#intake")).to_be_hidden()
    expect(page.locator("section#about-users")).to_be_hidden()
    expect(page.get_by_role("status")).to_have_text(f"{everything.count()} found")
    page.get_by_role("searchbox").fill("")
    expect(everything).to_have_count(before)


def test_a_search_leads_into_the_guides_also_from_one_of_them(page: Page, server: Server) -> None:
    complaints: list[str] = []
    page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
    page.goto(f"{server.url}/docs/guides/operate")
    page.get_by_role("searchbox", name="Search the interface and the guides").fill("OBS browser source")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{server.url}/docs?q=OBS+browser+source")
    found = page.locator("#in-guides")
    link = found.get_by_role("link", name="Embed a viewer's place · The overlay for a stream")
    expect(found).to_contain_text("browser source")
    page.get_by_role("searchbox").fill("zzzz")
    expect(found).to_be_hidden()
    page.get_by_role("searchbox").fill("obs browser source")
    link.click()
    expect(page).to_have_url(f"{server.url}/docs/guides/embed#the-overlay-for-a-stream")
    assert complaints == []


def test_a_link_to_an_entry_that_a_search_has_hidden_shows_it(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/docs")
    page.get_by_role("searchbox").fill("healthz")
    page.evaluate("location.hash = 'intake'")
    expect(page.locator("details#intake").get_by_text("QUEUE_FULL")).to_be_visible()


def test_the_page_describes_authentication(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/docs#authentication")
    expect(page.locator("#authentication")).to_contain_text("Authorization: Bearer")
    page.locator("#authentication").get_by_role("link", name="Embed").click()
    expect(page).to_have_url(f"{server.url}/docs/guides/embed")


def test_a_page_whose_description_cannot_be_had_says_so(page: Page, server: Server) -> None:
    page.route("**/openapi.json", lambda route: route.fulfill(status=503, body="{}"))
    page.goto(f"{server.url}/docs")
    expect(page.get_by_role("alert")).to_contain_text("503")


def test_the_page_speaks_german_and_says_what_is_english(browser: Browser, server: Server) -> None:
    context = browser.new_context(locale="de-DE", viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"{server.url}/docs")
    expect(page.get_by_role("heading", level=1)).to_have_text("Schnittstelle")
    expect(page).to_have_title("Schnittstelle · Performance Queue")
    expect(page.locator("#generated")).to_contain_text("auf Englisch")
    for section in (
        "Anmeldung",
        "Beispiele",
        "Element für die eigene Seite",
        "Overlay für einen Stream",
        "Live-Socket",
    ):
        expect(page.get_by_role("heading", level=2, name=section)).to_be_visible()
    page.get_by_role("searchbox", name="Schnittstelle und Anleitungen durchsuchen").fill("healthz")
    expect(page.get_by_role("status").first).to_contain_text("gefunden")
    page.get_by_role("searchbox").fill("browserquelle")
    link = page.get_by_role("link", name="Den Platz eines Zuschauers einbetten · Das Overlay für einen Stream")
    expect(link).to_have_attribute("href", "/docs/guides/embed#the-overlay-for-a-stream")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()


def test_the_element_on_the_page_is_alive_and_the_overlay_is_shown(page: Page, server: Server) -> None:
    with room_of(server) as room:
        room.request(title="Dance")
        page.goto(f"{server.url}/docs#element")
        page.get_by_label("Performer").fill(room.performer)
        page.get_by_label("Performer").press("Enter")
        element = page.locator("performance-queue-position").first
        expect(element).to_contain_text("1")
        # It is loaded when somebody comes near it.
        page.locator("#overlay-options iframe").scroll_into_view_if_needed()
        expect(page.frame_locator("#overlay-options iframe").get_by_text("Dance")).to_be_visible()
        room.request(title="Sing")
        expect(element).to_contain_text("2")


def test_the_page_lists_the_options_of_the_overlay_that_its_guide_does(page: Page, server: Server) -> None:
    guide = (STATIC / "docs/guides/embed.md").read_text().split("## The overlay")[1].split("\n## ")[0]
    page.goto(f"{server.url}/docs")
    options = page.locator("#overlay-options td:first-child")
    expect(options.first).to_be_visible()
    assert options.all_inner_texts() == re.findall(r"^\| `(\w+)` \|", guide, re.MULTILINE)


def test_every_closing_code_says_whether_a_client_may_come_back(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/docs")
    for code in CloseCode:
        row = page.locator("#live tr").filter(has=page.get_by_text(str(int(code)), exact=True))
        expect(row.locator("td").last).to_have_text("come back" if code.may_return else "do not come back")


def test_the_examples_of_the_page_do_what_they_say(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/docs")
    environment = {**os.environ, "FEATURE_TOKEN": server.admin, "NO_PROXY": "*"}

    def run(name: str) -> dict[str, Any]:
        program = page.locator(f"#example-{name}").inner_text()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", program], capture_output=True, check=True, env=environment
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    queued = run("intake")
    assert run("intake")["itemId"] == queued["itemId"]
    assert "items" in run("queue") or run("queue")["code"] == "PERFORMER_NOT_FOUND"
    program = page.locator("#example-client").inner_text().replace("console.log(", "globalThis.seen = (")
    browser = page.context.browser
    assert browser is not None
    # The page's own policy would rightly keep a foreign script out.
    context = browser.new_context(bypass_csp=True)
    elsewhere = context.new_page()
    elsewhere.goto(f"{server.url}/docs")
    elsewhere.add_script_tag(content=program, type="module")
    elsewhere.wait_for_function("Array.isArray(globalThis.seen)")
    context.close()


def test_a_search_finds_the_text_of_the_page_itself(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/docs")
    expect(page.locator("details#intake")).to_be_visible()
    page.get_by_role("searchbox").fill("OBS browser source")
    expect(page.locator("section#overlay-options")).to_be_visible()
    expect(page.locator("section#about-users")).to_be_hidden()


ELEMENT = (STATIC / "position-element.js").read_text()
OFFERS = """() => {
  const groups = [...document.querySelectorAll("#element .block")];
  const cells = (group, number) =>
    [...group.querySelectorAll(`td:nth-child(${number})`)].map((cell) => cell.textContent);
  return groups.map((group) => [cells(group, 1), cells(group, 2)]);
}"""
"""The page's lists of the element: names and meanings by table."""


def offers_of_the_source(page: Page) -> list[list[str]]:
    """Attributes, properties, events, parts and custom properties, from the element's own source and shadow tree."""
    element = "document.querySelector('performance-queue-position')"
    attributes: list[str] = page.evaluate(f"{element}.constructor.observedAttributes")
    parts: list[str] = page.evaluate(
        f"[...{element}.shadowRoot.querySelectorAll('[part]')].map(({{ part }}) => part.value)"
    )
    accessors = set(re.findall(r"^  (?:get|set) (\w+)\(", ELEMENT, re.MULTILINE))
    events = set(re.findall(r'#emit\("([\w-]+)"', ELEMENT))
    custom = set(re.findall(r"var\((--[\w-]+),", (STATIC / "lib/element-style.js").read_text()))
    return [sorted(names) for names in (attributes, accessors, events, parts, custom)]


@pytest.mark.parametrize("locale", ["en-GB", "de-DE"])
def test_the_page_and_the_guide_list_all_that_the_element_offers(browser: Browser, server: Server, locale: str) -> None:
    context = browser.new_context(locale=locale)
    page = context.new_page()
    page.goto(f"{server.url}/docs#element")
    page.wait_for_selector("#element .block")
    listed = page.evaluate(OFFERS)
    offered = offers_of_the_source(page)
    assert [sorted(names) for names, _ in listed] == offered
    for names, meanings in listed:
        assert all(meaning and not meaning.startswith("docs.") for meaning in meanings), names
    guide = (STATIC / "docs/guides/embed.md").read_text().split("## What there is")[1].split("\n## ")[0]
    tables = [sorted(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) for table in guide.split("|---|---|")[1:]]
    custom, parts = re.findall(r"Custom properties: (.*?)\. Parts for `::part\(\)`: (.*?)\.\n", guide, re.DOTALL)[0]
    assert [*tables, *(sorted(re.findall(r"`([\w-]+)`", text)) for text in (parts, custom))] == offered
    context.close()


def test_the_elements_interface_can_be_tried_on_the_page(page: Page, server: Server) -> None:
    with room_of(server) as room:
        room.request(title="Dance")
        mine = room.request(title="Sing", userId="ada")
        page.goto(f"{server.url}/docs#element")
        page.get_by_label("Performer").fill(room.performer)
        page.get_by_label("Performer").press("Enter")
        live, sample = page.locator("performance-queue-position").first, page.locator("#element-parts")
        expect(live).to_contain_text("2 requests in line")
        element = page.locator("#element")

        def row(name: str) -> Locator:
            return element.locator("tr").filter(has=page.get_by_text(name, exact=True))

        expect(row("ready")).to_contain_text("version")
        element.get_by_label("strings").fill("{n} in line")
        expect(live).to_contain_text("2 in line")
        element.get_by_label("token").fill(server.viewer("ada"))
        expect(live).to_contain_text("1 ahead of you")
        expect(row("queue-position")).to_contain_text(mine["itemId"])
        element.get_by_label("lang").select_option("de")
        expect(live).to_contain_text("vor dir")
        element.get_by_label("hide").fill("cancel")
        expect(live.get_by_role("button")).to_have_count(0)
        element.get_by_label("--queue-accent").fill("rgb(1, 2, 3)")
        for shown in (live, sample):
            expect(shown.locator(".position")).to_have_css("color", "rgb(1, 2, 3)")
        row("confirm").get_by_role("button").click()
        expect(sample.locator(".confirm")).to_have_css("outline-style", "dashed")
        row("confirm").get_by_role("button").click()
        expect(sample.locator(".confirm")).to_have_css("outline-style", "none")
