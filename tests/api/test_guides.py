"""The guides: their pages and links, and every example in them run against the service."""

import html
import os
import re
import sys
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import anyio
import httpx2
import pytest

from app.api.guides import CODE, FENCED, FOLDER, ORDER, WORDS, slug, text_of
from tests.support.cluster import until
from tests.support.guides import EXAMPLES, TEXTS
from tests.support.recording_http import Received, recording
from tests.support.server import Api, Server, fresh, ok, problem

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

INTERPRETERS = {
    "feature.sh": ["bash", "-euo", "pipefail"],
    "feature.py": [sys.executable],
    "feature.mjs": ["node"],
}


def headings(text: str) -> set[str]:
    return {slug(heading.replace("`", "")) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def test_every_guide_in_the_folder_is_in_the_table_of_contents() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == set(ORDER)
    assert set(re.findall(r"static/docs/guides/(\w+)\.md", README)) == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
async def test_a_guide_is_a_page_with_its_title_and_its_sections(api: Api, name: str) -> None:
    response = await api.get(f"/docs/guides/{name}")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "'unsafe" not in response.headers["Content-Security-Policy"]
    title = re.findall(r"^# (.*)$", TEXTS[name], re.MULTILINE)[0]
    assert f"<title>{html.escape(title)} · Performance Queue</title>" in response.text
    for heading in re.findall(r"^## (.*)$", TEXTS[name], re.MULTILINE):
        assert f'id="{slug(heading)}"' in response.text
    assert ".md" not in "".join(re.findall(r'href="([^"]*)"', response.text))


async def test_the_guides_have_a_page_that_lists_them(api: Api) -> None:
    response = await api.get("/docs/guides")
    assert re.findall(r'<li><a href="/docs/guides/(\w+)"', response.text) == list(ORDER)


async def test_a_guide_that_is_not_there_is_not_found(api: Api) -> None:
    problem(await api.get("/docs/guides/nothing"), 404, "NOT_FOUND")


TRANSLATIONS = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("*/*.md"))


def shape(text: str) -> list[str]:
    """The structure of a guide in any language: levels of headings, list items, programs, and rows of tables."""
    prose = FENCED.sub(CODE, text)
    lines = [re.match(r"#+ |- |\d\. |<!-- code -->|\|( `[\w-]+`)?", line) for line in prose.splitlines()]
    return [found[0] for found in lines if found]


def codes(text: str) -> list[str]:
    """The code in running text, independent of line breaks. A link's address is not code."""
    found = re.findall(r"`([^`]+)`", FENCED.sub("", text))
    return sorted({" ".join(each.split()).replace("ADRESSE", "ADDRESS") for each in found})


def test_every_guide_is_in_every_language_of_the_pages() -> None:
    assert set(TRANSLATIONS) == {f"{language}/{name}" for language in WORDS.keys() - {"en"} for name in ORDER}


@pytest.mark.parametrize("path", TRANSLATIONS)
def test_a_translation_has_all_that_the_english_guide_has(path: str) -> None:
    language, name = path.split("/")
    translated = (FOLDER / f"{path}.md").read_text()
    assert shape(translated) == shape(TEXTS[name])
    assert codes(translated) == codes(TEXTS[name])
    assert FENCED.findall(text_of(name, language)[0]) == FENCED.findall(TEXTS[name])
    for file in re.findall(r"\]\(([\w./]+\.md)", translated):
        assert (FOLDER / language / file).exists(), file


@pytest.mark.parametrize("path", TRANSLATIONS)
async def test_a_guide_is_shown_in_its_readers_language_with_the_same_addresses(api: Api, path: str) -> None:
    language, name = path.split("/")
    response = await api.send("GET", f"/docs/guides/{name}", headers={"Accept-Language": language})
    assert f'<article class="guide" lang="{language}">' in response.text
    assert response.headers["Vary"] == "Accept-Encoding, Accept-Language"
    english = await api.get(f"/docs/guides/{name}")
    assert '<article class="guide" lang="en">' in english.text
    ids = re.compile(r'<h\d id="([^"]+)"')
    assert ids.findall(response.text) == ids.findall(english.text) != []


def test_where_there_is_no_translation_the_guide_is_the_english_one() -> None:
    assert text_of(ORDER[0], "fr") == (TEXTS[ORDER[0]], "en")


@pytest.mark.parametrize("name", ORDER)
def test_every_link_between_guides_leads_somewhere(name: str) -> None:
    for file, anchor in re.findall(r"\]\((?:\./)?(\w+\.md)?(?:#([\w-]+))?\)", TEXTS[name]):
        target = file.removesuffix(".md") or name
        assert target in TEXTS
        assert not anchor or anchor in headings(TEXTS[target])


@pytest.mark.parametrize("name", ORDER)
def test_every_file_that_a_guide_names_is_there(name: str) -> None:
    named = re.findall(r"`((?:app|static|tests|\.ci|\.github)/[\w./-]*)`", TEXTS[name])
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_readme_and_the_guide_show_the_same_snippet_for_embedding() -> None:
    shown = [re.findall(r"<!-- embed -->\n(```html\n.*?```)", text, re.DOTALL) for text in (README, TEXTS["embed"])]
    assert shown[0] == shown[1] != []


def surroundings(server: Server) -> dict[str, str]:
    return {
        **os.environ,
        "QUEUE_URL": server.url,
        "WALLET_URL": f"{server.url}/sandbox",
        "FEATURE_TOKEN": server.feature("wheel"),
        "BOT_TOKEN": server.admin,
    }


def test_the_programs_that_are_run_are_all_there_are() -> None:
    elsewhere = {"export.py": "tests/api/test_guide_commands.py"}
    assert set(EXAMPLES) == {*INTERPRETERS, "chatbot.py", *elsewhere}


def test_a_feature_of_the_guide_has_thirty_lines() -> None:
    assert {name: EXAMPLES[name].count("\n") for name in INTERPRETERS if EXAMPLES[name].count("\n") > 30} == {}


async def feature(name: str, folder: Path, *arguments: str, **environment: str) -> CompletedProcess[bytes]:
    """Run an example of the guide."""
    program = folder / name
    program.write_text(EXAMPLES[name])
    return await anyio.run_process([*INTERPRETERS[name], str(program), *arguments], env=environment, check=False)


async def with_tokens(api: Api) -> str:
    """A user who can pay."""
    user = fresh("user")
    granted = await api.send(
        "POST", "/sandbox/grants", None, {"userId": user, "amount": 500}, headers={"X-Idempotency-Key": fresh("grant")}
    )
    assert granted.status_code < 300
    return user


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("name", INTERPRETERS)
async def test_a_feature_of_the_guide_queues_what_was_paid_for_once(
    server: Server, api: Api, tmp_path: Path, name: str
) -> None:
    spin, user = fresh("spin"), await with_tokens(api)
    # Twice, as a feature does that got no answer.
    runs = [await feature(name, tmp_path, spin, user, **surroundings(server)) for _ in range(2)]
    printed = [run.stdout.decode().strip() for run in runs]
    assert printed[0] == printed[1]
    item = ok(await api.get(f"/v1/queue/items/{printed[0]}", server.admin))
    assert (item["sourceEventId"], item["userId"], item["tokens"]) == (spin, user, 120)
    assert ok(await api.get(f"/v1/users/{user}/queue/items", server.admin))["total"] == 1


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("name", INTERPRETERS)
async def test_a_feature_of_the_guide_repeats_what_was_refused_for_a_time_and_nothing_else(
    server: Server, api: Api, tmp_path: Path, name: str
) -> None:
    spin, user = fresh("spin"), await with_tokens(api)
    refusals = {"hold": [503], "items": [503, 409]}

    def answer(got: Received) -> tuple[int, bytes]:
        if later := refusals[got.path.rpartition("/")[2]]:
            return later.pop(0), b'{"code": "UNAVAILABLE"}'
        response = httpx2.post(f"{server.url}{got.path}", content=got.body, headers=keys(got))
        return response.status_code, response.content

    def keys(got: Received) -> dict[str, str]:
        return {name: got.headers[name] for name in ("authorization", "x-idempotency-key") if name in got.headers}

    with recording(answer) as front:
        environment = {**surroundings(server), "QUEUE_URL": front.url, "WALLET_URL": f"{front.url}/sandbox"}
        refused = await feature(name, tmp_path, spin, user, **environment)
        queued = await feature(name, tmp_path, spin, user, **environment)
    assert refused.returncode != 0
    assert (await api.get(f"/v1/queue/items/{queued.stdout.decode().strip()}", server.admin)).status_code == 200
    hold, items = f"/sandbox/wallets/{user}/escrow/hold", "/v1/queue/items"
    assert [got.path for got in front.received] == [hold, hold, items, items, hold, items]
    for path in (hold, items):
        assert len({(got.body, *keys(got).values()) for got in front.received if got.path == path}) == 1


async def test_the_chat_bot_of_the_guide_repeats_and_misses_nothing_when_it_is_killed(
    server: Server, api: Api, tmp_path: Path, performer_id: str
) -> None:
    program, chat = tmp_path / "chatbot.py", tmp_path / "chat.log"
    program.write_text(EXAMPLES["chatbot.py"])
    titles = [fresh("title") for _ in range(6)]

    def posted() -> list[str]:
        lines = chat.read_text().splitlines() if chat.exists() else []
        return [line.partition("\t")[2].partition(":")[0] for line in lines if line.partition("\t")[2] != ""]

    def ours() -> list[str]:
        return [title for title in posted() if title in titles]

    def is_posted(title: str) -> bool:
        return title in ours()

    for title in titles:
        await api.intake(performer_id, title=title)
        environment = {**surroundings(server), "CHAT_FILE": str(chat)}
        async with await anyio.open_process([sys.executable, str(program)], env=environment) as bot:
            await until(partial(is_posted, title))
            bot.kill()
    assert ours() == titles
