"""The element on a host site's page: another origin, the README's snippet, tokens that expire."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Locator, Page, expect

from app.api.guides import FOLDER
from app.api.library import declared_names
from app.api.module_syntax import imports_of
from app.api.pages import STATIC
from app.api.site import MODULES
from tests.support.browsing import Room, Windows, has_keyboard, room_of, wait_for
from tests.support.server import Server, serving

SNIPPETS: dict[str, str] = {
    name: re.findall(r"<!-- embed -->\n```html\n(.*?)```", path.read_text(), re.DOTALL)[0]
    for name, path in (("README", Path(__file__).parents[2] / "README.md"), ("guide", FOLDER / "embed.md"))
}


class Site:
    """A host site on its own origin: one page, and an address that signs tokens."""

    def __init__(self) -> None:
        self.page = ""
        self.token = ""
        self.tokens_asked = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_token = self.path == "/queue-token"
                site.tokens_asked += is_token
                body = (site.token if is_token else site.page).encode()
                self.send_response(200 if is_token or self.path == "/" else 404)
                self.send_header("Content-Type", "text/plain" if is_token else "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *values: object) -> None:
                """Log nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.http.server_port}"

    def shows(self, markup: str) -> None:
        self.page = (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Site</title><body>{markup}</body></html>'
        )


@contextmanager
def host_site() -> Iterator[Site]:
    site = Site()
    thread = Thread(target=site.http.serve_forever, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.http.shutdown()
        site.http.server_close()
        thread.join(10)


@pytest.fixture
def site() -> Iterator[Site]:
    with host_site() as site:
        yield site


@pytest.fixture
def allowing(site: Site, tmp_path: Path) -> Iterator[Server]:
    """A service that allows the site's origin."""
    with serving(tmp_path, allowed_origins=(site.origin,)) as server:
        yield server


@pytest.fixture
def mira(allowing: Server) -> Iterator[Room]:
    with room_of(allowing) as room:
        room.performer = "mira"
        yield room


def element(page: Page) -> Locator:
    return page.locator("performance-queue-position")


def snippet(name: str, server: Server) -> str:
    """The snippet of the documentation, with the address of this service."""
    return SNIPPETS[name].replace("https://queue.example", server.url)


def test_the_front_page_shows_the_snippet_of_the_readme(server: Server, windows: Windows) -> None:
    page = windows.open(server.url)
    expect(page.locator("#snippet")).to_have_text(snippet("README", server).strip())


@pytest.mark.parametrize("name", SNIPPETS)
def test_the_snippet_works_as_it_stands_cold_and_warm_and_after_the_token_has_run_out(
    name: str, mira: Room, site: Site, windows: Windows
) -> None:
    mira.request(userId="other")
    mira.request(userId="ada", title="Sing a song")
    site.shows(snippet(name, mira.server))
    site.token = mira.server.sign("viewer", "ada", ttl_seconds=5)
    page = windows.blank()
    logged: list[str] = []
    page.on("console", lambda line: logged.append(line.text))
    page.goto(site.origin)
    expect(element(page)).to_contain_text("1 ahead of you")
    expect(element(page)).to_contain_text("Sing a song")
    for _ in range(2):
        page.reload()
        expect(element(page)).to_contain_text("1 ahead of you")
    wait_for(page, lambda: any("position" in line for line in logged))
    site.token = mira.server.sign("viewer", "ada", ttl_seconds=3600)
    asked = site.tokens_asked
    wait_for(page, lambda: site.tokens_asked > asked)
    mira.start_next()
    expect(element(page)).to_contain_text("You’re next, after this one")
    assert page.evaluate("place => Object.keys(document.querySelector('performance-queue-position'))") == []


def test_no_module_in_the_scope_that_host_sites_load_hides_a_name_of_the_browser_from_the_others(
    windows: Windows,
) -> None:
    ahead, names = list(MODULES), set[str]()
    for path in ahead:
        source = (STATIC / path).read_text()
        names |= set(declared_names(source))
        ahead += [each for each in imports_of(path, source)[0] if each not in ahead]
    assert {"QueueClient", "request"} <= names
    assert windows.blank().evaluate("names => names.filter((name) => name in globalThis)", sorted(names)) == []


def test_properties_that_were_set_before_the_element_was_defined_are_kept(
    mira: Room, site: Site, windows: Windows
) -> None:
    mira.request(userId="ada")
    site.token = mira.server.viewer("ada")
    site.shows(
        f"""<performance-queue-position performer="mira"></performance-queue-position>
        <script>
          const place = document.querySelector("performance-queue-position");
          place.token = "{site.token}";
          place.refreshToken = () => "fresh";
          place.strings = {{ "hero.next": "It is your turn next" }};
        </script>
        <script type="module" src="{mira.server.url}/static/v1/position-element.js"></script>"""
    )
    page = windows.open(site.origin)
    expect(element(page)).to_contain_text("It is your turn next")
    assert page.evaluate("[Object.keys(place).length, place.refreshToken(), place.token.length > 20]") == [
        0,
        "fresh",
        True,
    ]


def test_an_item_is_cancelled_in_two_steps_and_its_outcome_is_shown(mira: Room, site: Site, windows: Windows) -> None:
    mira.request(userId="other")
    item = mira.request(userId="ada", title="Sing a song", tokens=120)
    site.token = mira.server.viewer("ada")
    site.shows(snippet("README", mira.server))
    page = windows.open(site.origin)
    page.evaluate(
        """() => {
          window.told = [];
          for (const name of ["queue-ended", "queue-outcome"])
            document.addEventListener(name, ({ detail }) => told.push([name, detail.itemId ?? detail.item.itemId]));
        }"""
    )
    place = element(page)
    place.get_by_role("button", name="Cancel request…").click()
    has_keyboard(place.get_by_role("button", name="Cancel and return 120 tokens"))
    place.get_by_role("button", name="Keep it").click()
    has_keyboard(place.get_by_role("button", name="Cancel request…"))
    assert mira.item(item)["status"] == "created"
    place.get_by_role("button", name="Cancel request…").click()
    place.get_by_role("button", name="Cancel and return 120 tokens").click()
    expect(place).to_contain_text("You cancelled your request")
    expect(place).to_contain_text("120 tokens returned")
    assert mira.item(item)["refundReason"] == "user_cancelled"
    ended = [["queue-ended", item["itemId"]], ["queue-outcome", item["itemId"]]]
    wait_for(page, lambda: [told for told in ended if told in page.evaluate("told")] == ended)
    has_keyboard(place.get_by_role("button", name="Close"))
    place.get_by_role("button", name="Close").click()
    expect(place).to_contain_text("Nothing of yours is waiting here.")


def test_the_element_speaks_the_language_of_its_page_and_hides_the_parts_in_hide(
    mira: Room, site: Site, windows: Windows
) -> None:
    mira.request(userId="ada", title="Sing a song")
    site.token = mira.server.viewer("ada")
    markup = snippet("README", mira.server).replace(
        'performer="mira"', 'performer="mira" lang="de" hide="cancel, title"'
    )
    site.shows(markup)
    page = windows.open(site.origin)
    expect(element(page)).to_contain_text("Du bist als Nächstes dran")
    expect(element(page).locator(".title")).to_be_hidden()
    expect(element(page).get_by_role("button")).to_have_count(0)
    page.evaluate("document.querySelector('performance-queue-position').lang = 'en'")
    expect(element(page)).to_contain_text("You’re next")


def test_a_site_whose_origin_is_not_allowed_is_shown_the_reason_and_the_remedy(
    server: Server, room: Room, site: Site, windows: Windows
) -> None:
    site.shows(
        f"""<performance-queue-position performer="{room.performer}"></performance-queue-position>
        <script>
          window.problems = [];
          addEventListener("queue-problem", ({{ detail }}) => problems.push(detail));
        </script>
        <script type="module" src="{server.url}/static/position-element.js"></script>"""
    )
    page = windows.open(site.origin)
    wait_for(page, lambda: page.evaluate("problems.length") > 0)
    problem = page.evaluate("problems[0]")
    assert problem["code"] == "FORBIDDEN"
    assert problem["hint"] == f"Add {site.origin} to ALLOWED_ORIGINS of the service."
    expect(element(page)).to_contain_text("This site can’t show the queue.")
    expect(element(page).get_by_role("button")).to_have_count(0)


@pytest.mark.parametrize(
    ("seconds", "suffix", "hint"),
    [
        (2, "", "The token has expired: set refreshToken to a function that returns a new one."),
        (60, "x", "The token was refused: check its key, role and exp."),
    ],
    ids=["expired", "refused"],
)
def test_a_refused_token_is_a_problem_with_a_hint(
    mira: Room, site: Site, windows: Windows, seconds: float, suffix: str, hint: str
) -> None:
    site.token = mira.server.sign("viewer", "ada", ttl_seconds=seconds) + suffix
    site.shows(
        f"""<performance-queue-position performer="mira"></performance-queue-position>
        <script>
          window.problems = [];
          addEventListener("queue-problem", ({{ detail }}) => problems.push(detail.hint));
          document.querySelector("performance-queue-position").token = "{site.token}";
        </script>
        <script type="module" src="{mira.server.url}/static/v1/position-element.js"></script>"""
    )
    page = windows.open(site.origin)
    wait_for(page, lambda: hint in page.evaluate("problems"))
    expect(element(page)).to_contain_text("Not connected")


def test_two_performers_on_one_page_know_nothing_of_each_other(mira: Room, site: Site, windows: Windows) -> None:
    with room_of(mira.server) as other:
        other.performer = "nora"
        mira.request(userId="ada")
        for _ in range(2):
            other.request()
        other.request(userId="ada")
        mira.start_next()
        other.start_next()
        one = snippet("README", mira.server)
        second = '<performance-queue-position performer="nora"></performance-queue-position>'
        site.token = mira.server.viewer("ada")
        script = f"<script>document.querySelectorAll('[performer]')[1].token = '{site.token}';</script>"
        site.shows(one + second + script)
        page = windows.open(site.origin)
        expect(element(page).first).to_contain_text("You’re on stage now")
        expect(element(page).nth(1)).to_contain_text("2 ahead of you")
        assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]


def test_a_client_is_ready_with_its_first_state_and_commands_wait_for_the_connection(
    mira: Room, site: Site, windows: Windows
) -> None:
    item = mira.request(userId="ada")
    site.shows("")
    page = windows.open(site.origin)
    answer = page.evaluate(
        """async ([url, token]) => {
          const { QueueClient } = await import(`${url}/static/v1/queue-client.js`);
          const client = new QueueClient({ performerId: "mira", server: url, token });
          const pending = [];
          client.addEventListener("pending", ({ detail }) => pending.push(detail.commands.map(({ type }) => type)));
          await client.command("start-next").catch((error) => pending.push(error.code));
          client.connect();
          const started = client.command("start-next");
          const { items } = await client.ready;
          const { itemId, status } = await started;
          client.close();
          return { seen: items.length, itemId, status, pending };
        }""",
        [mira.server.url, mira.server.performer("mira")],
    )
    assert answer == {
        "seen": 1,
        "itemId": item["itemId"],
        "status": "started",
        "pending": ["DISCONNECTED", ["start-next"], []],
    }
