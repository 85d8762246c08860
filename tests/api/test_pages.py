"""The pages and their files, as a browser gets them."""

import posixpath
import re

import pytest

from app.api.pages import STATIC
from tests.support.server import Api, problem

PAGES = ("/", "/watch/star", "/panel", "/overlay/star", "/admin")
FILES = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file())


def policy(header: str) -> dict[str, str]:
    return dict(directive.strip().split(" ", 1) for directive in header.split(";"))


async def test_every_page_and_file_is_served_under_a_strict_policy(api: Api) -> None:
    for path in (*PAGES, *(f"/static/{name}" for name in FILES)):
        response = await api.get(path)
        assert response.status_code == 200
        directives = policy(response.headers["Content-Security-Policy"])
        assert directives["default-src"] == directives["base-uri"] == "'none'"
        assert directives["script-src"] == directives["style-src"] == directives["form-action"] == "'self'"
        assert directives["connect-src"] == "'self' ws: wss:"
        assert "unsafe" not in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        for header in ("Content-Security-Policy", "X-Content-Type-Options", "Cache-Control"):
            assert len(response.headers.get_list(header)) == 1


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_has_no_inline_script_or_style(api: Api, path: str) -> None:
    response = await api.get(path)
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:", response.text)


@pytest.mark.parametrize("path", PAGES)
async def test_whatever_a_page_asks_for_is_there_and_ours(api: Api, path: str) -> None:
    page = (await api.get(path)).text
    wanted = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert any(address.endswith(".js") for address in wanted)
    for address in wanted:
        assert address.startswith("/")
        response = await api.get(address)
        assert response.status_code == 200, address


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_asks_for_its_modules_in_one_go(api: Api, path: str) -> None:
    page = (await api.get(path)).text
    named = set(re.findall(r'(?:<script type="module" src|rel="modulepreload" href)="/static/([\w./-]+)"', page))
    needed, unread = set[str](), set(re.findall(r'<script type="module" src="/static/([\w./-]+)">', page))
    while unread:
        needed.add(name := unread.pop())
        imports = re.findall(
            r'^(?:import|export) [^;]*? from "(\.\.?/[\w./-]+)";', (STATIC / name).read_text(), re.MULTILINE
        )
        unread |= {posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) for path in imports} - needed
    assert named == needed


async def test_modules_and_styles_have_a_type_a_browser_runs(api: Api) -> None:
    for name in FILES:
        kind = (await api.get(f"/static/{name}")).headers["Content-Type"].partition(";")[0]
        expected = {"js": "text/javascript", "css": "text/css", "html": "text/html", "svg": "image/svg+xml"}
        assert kind == expected.get(name.rpartition(".")[2], kind)


async def test_a_file_that_has_not_changed_is_not_sent_again(api: Api) -> None:
    first = await api.get("/static/lib/style.css")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await api.send("GET", "/static/lib/style.css", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/static/nothing.js", "/static/", "/static/%2e%2e/app/main.py", "/static/..%2fREADME.md"]
)
async def test_a_file_that_is_not_there_is_a_problem_document(api: Api, path: str) -> None:
    problem(await api.get(path), 404, "NOT_FOUND")
