"""The guides: Markdown files of static/docs/guides/, rendered to pages at /docs/guides/NAME in their reader's language.

The same files are read in the repository, so links between them are relative (`operate.md#backups`); here they are
rewritten to the pages' own addresses. A translation lies in a folder named after its language. It has the headings of
the English guide in the same order, which get the same ids, and `<!-- code -->` in place of each of its programs.
"""

import html
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from string import Template

from markdown_it import MarkdownIt
from markdown_it.token import Token
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.api.pages import ALWAYS_ASK, STATIC, CurrentSite, asked_language, respond
from app.api.routing import route
from app.api.site import Content, Site

FOLDER = STATIC / "docs" / "guides"

ORDER = (
    "integrate",
    "embed",
    "protocol",
    "operate",
    "scale",
    "waits",
    "guarantees",
    "design",
    "comparison",
)
"""The guides' names, in the order of the table of contents."""

ORIGINAL = "en"
WORDS = {
    "en": {
        "interface": "Interface",
        "guides": "Guides",
        "documents": "Documents",
        "search": "Search",
        "search_label": "Search the interface and the guides",
    },
    "de": {
        "interface": "Schnittstelle",
        "guides": "Anleitungen",
        "documents": "Dokumente",
        "search": "Suchen",
        "search_label": "Schnittstelle und Anleitungen durchsuchen",
    },
}
"""The words of the page around a guide, by language."""

CODE = "<!-- code -->"
"""The place of the English guide's next program in a translation."""
FENCED = re.compile(r"(?:^<!-- [^\n]* -->\n)?^```.*?^```$", re.MULTILINE | re.DOTALL)
"""A program with the comment above it that names it."""

_GUIDE_LINK = re.compile(r"(?:\.{1,2}/)?([a-z]+)\.md(#.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """A rendered guide: its title as text, its body as HTML, and its second-level headings as (id, text)."""

    name: str
    language: str
    """The language of its text: the reader's, or English if there is no translation."""
    title: str
    body: str
    sections: tuple[tuple[str, str], ...]


def routes(site: CurrentSite) -> list[BaseRoute]:
    async def index(request: Request) -> Response:
        language = asked_language(request, site())
        title = WORDS[language]["guides"]
        body = f"<h1>{title}</h1>\n{_list_of_guides(language)}"
        return answer(request, language, language, title, _contents(None, language), body)

    async def page(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ORDER:
            raise HTTPException(404)
        language = asked_language(request, site())
        found = guide(name, language)
        return answer(request, language, found.language, found.title, _contents(found, language), found.body)

    def answer(request: Request, language: str, written: str, title: str, contents: str, body: str) -> Response:
        content = _rendered(_template(site(), language), language, written, title, contents, body)
        response = respond(request, content, ALWAYS_ASK)
        response.headers["vary"] = "Accept-Encoding, Accept-Language"
        return response

    return [
        route("/docs/guides", GET=index),
        route("/docs/guides/{name}", GET=page),
    ]


def text_of(name: str, language: str) -> tuple[str, str]:
    """The Markdown of a guide, and the language of its text: `language`, or English if there is no translation."""
    original = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    translation = FOLDER / language / f"{name}.md"
    if language == ORIGINAL or not translation.exists():
        return original, ORIGINAL
    programs = iter(FENCED.findall(original))
    text = re.sub(re.escape(CODE), lambda _: next(programs), translation.read_text(encoding="utf-8"))
    return text, language


# Saves more than 99 % of a guide page's CPU (`bench --without guides`).
@cache
def guide(name: str, language: str = ORIGINAL) -> Guide:
    """The guide of this name, which must be one of `ORDER`."""
    text, written = text_of(name, language)
    markdown = MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse(text)
    ids = iter(_heading_ids(text_of(name, ORIGINAL)[0]))
    title, sections = name, []
    for heading, inline in pairwise(tokens):
        if heading.type != "heading_open":
            continue
        id = next(ids)
        heading.attrSet("id", id)
        if heading.tag == "h1":
            title = _plain_text(inline)
        elif heading.tag == "h2":
            sections.append((id, _plain_text(inline)))
    for token in tokens:
        for child in token.children or ():
            if child.type == "link_open":
                child.attrSet("href", _address(str(child.attrGet("href"))))
    # Code may be wider than the page: it scrolls, by the keyboard, too.
    body = markdown.renderer.render(tokens, markdown.options, {}).replace("<pre>", '<pre tabindex="0">')
    return Guide(name=name, language=written, title=title, body=body, sections=tuple(sections))


def _heading_ids(text: str) -> list[str]:
    tokens = MarkdownIt("commonmark").parse(text)
    return [slug(_plain_text(inline)) for heading, inline in pairwise(tokens) if heading.type == "heading_open"]


def slug(heading: str) -> str:
    """The id of a heading, as GitHub makes it: lower case, spaces to hyphens, other punctuation left out."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _plain_text(inline: Token) -> str:
    return "".join(child.content for child in inline.children or ())


def _address(href: str) -> str:
    link = _GUIDE_LINK.fullmatch(href)
    return f"/docs/guides/{link[1]}{link[2] or ''}" if link else href


def _list_of_guides(language: str) -> str:
    rows = (f"<li>{_link_to(name, language)}</li>" for name in ORDER)
    return f"<ul>{''.join(rows)}</ul>"


def _link_to(name: str, language: str, attributes: str = "") -> str:
    found = guide(name, language)
    tongue = "" if found.language == language else f' lang="{found.language}"'
    return f'<a href="/docs/guides/{name}"{attributes}{tongue}>{html.escape(found.title)}</a>'


def _contents(shown: Guide | None, language: str) -> str:
    """The navigation: all guides, with the sections of the one that is shown."""
    lines = []
    for name in ORDER:
        is_shown = shown is not None and name == shown.name
        lines.append(_link_to(name, language, ' aria-current="page"' if is_shown else ""))
        if shown is not None and is_shown:
            lines += [f'<a class="section" href="#{id}">{html.escape(text)}</a>' for id, text in shown.sections]
    return "\n".join(lines)


def _template(site: Site, language: str) -> Content:
    return site.pages["docs/guide.html", language]


# Saves 97 % of a guide page's CPU, most of it compression (`bench --without filled-in`).
@lru_cache(maxsize=4 * len(ORDER))
def _rendered(template: Content, language: str, written: str, title: str, contents: str, body: str) -> Content:
    words = {name: html.escape(text) for name, text in WORDS[language].items()}
    filled = Template(template.body.decode()).substitute(
        words, title=html.escape(title), contents=contents, body=body, written=written
    )
    return Content.of(filled.encode(), template.type, template.policy)
