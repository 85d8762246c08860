"""The page that shows the interface: all of it, under the strict policy, without a third party."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from app.specs.asyncapi import SERVER_FRAMES
from app.specs.operations import OPERATIONS
from app.wire.websocket import CloseCode
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
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off on a phone"


def test_a_link_into_the_page_opens_what_it_names(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/docs#intake")
    intake = page.locator("details#intake")
    expect(intake.get_by_text("QUEUE_FULL")).to_be_visible()
    intake.get_by_role("link", name="IntakeRequest").click()
    expect(page.locator("#schema-IntakeRequest").get_by_text("escrowTransactionId")).to_be_in_viewport()


def test_a_search_leaves_what_holds_all_of_its_words(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/docs")
    everything = page.locator("details:visible")
    expect(page.locator("details#intake")).to_be_visible()
    before = everything.count()
    page.get_by_role("searchbox").fill("refundTokens COMPLETE")
    expect(page.locator("details#complete")).to_be_visible()
    expect(page.locator("details#frame-complete")).to_be_visible()
    expect(page.locator("details#intake")).to_be_hidden()
    expect(page.locator("section#users")).to_be_hidden()
    expect(page.get_by_role("status")).to_have_text(f"{everything.count()} found")
    page.get_by_role("searchbox").fill("")
    expect(everything).to_have_count(before)


def test_a_link_to_an_entry_that_a_search_has_hidden_shows_it(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/docs")
    page.get_by_role("searchbox").fill("healthz")
    page.evaluate("location.hash = 'intake'")
    expect(page.locator("details#intake").get_by_text("QUEUE_FULL")).to_be_visible()


def test_the_page_says_how_a_caller_is_known(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/docs#authentication")
    expect(page.locator("#authentication")).to_contain_text("Authorization: Bearer")
    page.locator("#authentication").get_by_role("link", name="Embed").click()
    expect(page).to_have_url(f"{server.url}/docs/guides/embed")


def test_a_page_whose_description_cannot_be_had_says_so(page: Page, server: Server) -> None:
    page.route("**/openapi.json", lambda route: route.fulfill(status=503, body="{}"))
    page.goto(f"{server.url}/docs")
    expect(page.get_by_role("alert")).to_contain_text("503")
