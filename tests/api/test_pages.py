"""The pages and their files over HTTP."""

import base64
import hashlib
import re
import struct

import pytest

from app.api import pages
from app.api.pages import STATIC
from tests.support.server import Api, problem

PAGES = ("/", "/watch/star", "/panel", "/overlay/star", "/admin", "/docs", "/docs/guides/embed")
FILES = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file())
LARGEST_MODULE = 12_000
"""Bytes, as they are sent to a browser."""
INLINE = re.compile(r"<(script|style)(?: type=\"module\")?>(.*?)</\1>", re.DOTALL)


def policy(header: str) -> dict[str, list[str]]:
    return {name: values for name, *values in (directive.split() for directive in header.split(";"))}


async def test_every_page_and_file_is_served_under_a_strict_policy(api: Api) -> None:
    for path in (*PAGES, *(f"/static/{name}" for name in FILES)):
        response = await api.get(path)
        assert response.status_code == 200
        directives = policy(response.headers["Content-Security-Policy"])
        assert directives["default-src"] == directives["base-uri"] == ["'none'"]
        assert directives["form-action"] == ["'self'"]
        assert directives["connect-src"] == ["'self'", "ws:", "wss:"]
        assert "unsafe" not in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        for header in ("Content-Security-Policy", "X-Content-Type-Options", "Cache-Control"):
            assert len(response.headers.get_list(header)) == 1


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_has_only_scripts_and_styles_whose_hash_is_in_its_policy(api: Api, path: str) -> None:
    response = await api.get(path)
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    inline: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in INLINE.findall(response.text):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        inline[kind].append(f"'sha256-{digest}'")
    directives = policy(response.headers["Content-Security-Policy"])
    assert sorted(directives["script-src"]) == sorted(["'self'", *inline["script"]])
    assert directives["style-src"] == ["'self'", *inline["style"]]
    markup = INLINE.sub("", response.text)
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:", markup)


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_one_document_and_the_files_that_it_names_exist_and_never_change(api: Api, path: str) -> None:
    markup = INLINE.sub("", (await api.get(path)).text)
    assert not re.search(r'rel="(?:stylesheet|modulepreload)"|<script', markup)
    wanted = set(re.findall(r'(?:src|href)="(/static/[^"#]+)"', markup))
    assert wanted
    for address in wanted:
        response = await api.get(address)
        assert response.status_code == 200, address
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert (await api.get("/static/" + address.split("/", 3)[3])).content == response.content


async def test_a_page_comes_in_its_readers_language(api: Api) -> None:
    for accepted, query, language in (
        ("de-AT,de;q=0.9,en;q=0.8", "", "de"),
        ("fr, de;q=0.2, en;q=0.7", "", "en"),
        ("ja", "", "en"),
        ("", "", "en"),
        ("x;q=fast,de;q=", "", "de"),
        ("en", "?lang=de", "de"),
        ("de", "?lang=xx", "en"),
    ):
        response = await api.send("GET", f"/watch/star{query}", headers={"Accept-Language": accepted})
        assert f'<html lang="{language}">' in response.text, accepted
        assert response.headers["Vary"] == "Accept-Encoding, Accept-Language"


async def test_text_is_compressed_for_clients_that_accept_it(api: Api) -> None:
    for path in ("/watch/star", "/static/queue-client.js", "/static/lib/style.css", "/docs/guides/embed"):
        sizes, codings = {}, {}
        for accepted in ("gzip, deflate, br", "gzip", "identity", "gzip;q=0", "br;q=0, GZIP;q=0.5"):
            async with api.http.stream("GET", path, headers={"Accept-Encoding": accepted}) as response:
                sizes[accepted] = len(b"".join([piece async for piece in response.aiter_raw()]))
                codings[accepted] = response.headers.get("Content-Encoding")
                assert "Accept-Encoding" in response.headers["Vary"]
        assert list(codings.values()) == ["br", "gzip", None, None, "gzip"]
        assert sizes["gzip, deflate, br"] < sizes["gzip"] == sizes["br;q=0, GZIP;q=0.5"] < sizes["identity"] / 2
        assert sizes["gzip;q=0"] == sizes["identity"]


async def test_the_modules_for_host_sites_are_one_small_file_each_at_both_addresses(api: Api) -> None:
    for name in ("queue-client.js", "position-element.js"):
        promised = await api.get(f"/static/v1/{name}")
        assert (await api.get(f"/static/{name}")).content == promised.content
        assert promised.headers["Access-Control-Allow-Origin"] == "*"
        assert "stale-while-revalidate" in promised.headers["Cache-Control"]
        assert not re.search(r"^import |\bimport\(", promised.text, re.MULTILINE)
        for coding in ("br", "gzip"):
            async with api.http.stream("GET", f"/static/v1/{name}", headers={"Accept-Encoding": coding}) as response:
                assert response.headers["Content-Encoding"] == coding
                assert len(b"".join([piece async for piece in response.aiter_raw()])) <= LARGEST_MODULE


async def test_files_of_another_release_are_not_there(api: Api) -> None:
    page = (await api.get("/watch/star")).text
    address = re.findall(r"/static/([0-9a-f]{16})/favicon\.svg", page)[0]
    problem(await api.get(f"/static/{address[::-1]}/favicon.svg"), 404, "NOT_FOUND")
    problem(await api.get(f"/static/{address}/lib/style.css"), 404, "NOT_FOUND")


async def test_modules_and_styles_have_a_type_a_browser_runs(api: Api) -> None:
    for name in FILES:
        kind = (await api.get(f"/static/{name}")).headers["Content-Type"].partition(";")[0]
        expected = {
            "js": "text/javascript",
            "css": "text/css",
            "html": "text/html",
            "svg": "image/svg+xml",
            "md": "text/markdown",
        }
        assert kind == expected.get(name.rpartition(".")[2], kind)


@pytest.mark.parametrize("path", ["/static/lib/style.css", "/watch/star", "/docs/guides/embed"])
async def test_an_unchanged_file_is_not_sent_again(api: Api, path: str) -> None:
    first = await api.get(path)
    assert first.headers["Cache-Control"] == "no-cache"
    for known in (first.headers["ETag"], first.headers["ETag"].removeprefix("W/"), f'"x", {first.headers["ETag"]}'):
        again = await api.send("GET", path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]
    assert (await api.send("GET", path, headers={"If-None-Match": '"x"'})).status_code == 200
    head = await api.send("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    "path", ["/static/nothing.js", "/static/", "/static/%2e%2e/app/main.py", "/static/..%2fREADME.md"]
)
async def test_a_file_that_is_not_there_is_a_problem_document(api: Api, path: str) -> None:
    problem(await api.get(path), 404, "NOT_FOUND")


async def test_a_missing_page_is_a_page_to_a_browser_and_a_problem_to_a_program(api: Api) -> None:
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    page = await api.send("GET", "/nothing", headers=browser)
    assert (page.status_code, page.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    problem(await api.get("/nothing"), 404, "NOT_FOUND")
    problem(await api.send("POST", "/nothing", headers=browser), 404, "NOT_FOUND")
    problem(await api.send("POST", "/panel", headers=browser), 405, "METHOD_NOT_ALLOWED")
    problem(await api.send("GET", "/v1/queue/items", headers=browser), 405, "METHOD_NOT_ALLOWED")
    problem(await api.send("GET", "/static/nothing.js", headers=browser), 404, "NOT_FOUND")


async def test_a_performers_page_has_a_manifest_with_icons_of_the_sizes_that_it_says(api: Api) -> None:
    response = await api.get("/watch/star:1/manifest.webmanifest")
    assert response.headers["Content-Type"] == "application/manifest+json"
    manifest = response.json()
    assert manifest["start_url"] == manifest["scope"] == manifest["id"] == "/watch/star:1"
    assert manifest["name"].startswith("star:1")
    for icon in manifest["icons"]:
        image = await api.get(icon["src"])
        assert image.headers["Content-Type"] == icon["type"] == "image/png"
        width, height = struct.unpack(">II", image.content[16:24])
        assert icon["sizes"] == f"{width}x{height}"
    assert {icon["purpose"] for icon in manifest["icons"]} == {"any", "maskable"}
    problem(await api.get("/watch/%22/manifest.webmanifest"), 404, "NOT_FOUND")


def test_the_site_is_read_before_anybody_asks_for_a_page() -> None:
    pages.site_of.cache_clear()
    pages.current_site(reload=True)
    assert pages.site_of.cache_info().currsize == 1
