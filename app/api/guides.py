"""The guides: Markdown files of static/docs/guides/, rendered to pages at /docs/guides/NAME.

The same files are read in the repository, so links between them are relative (`operate.md#backups`); here they are
rewritten to the pages' own addresses.
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
from starlette.routing import BaseRoute, Route

from app.api.pages import ALWAYS_ASK, STATIC, CurrentSite, respond
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

_GUIDE_LINK = re.compile(r"(?:\./)?([a-z]+)\.md(#.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """A rendered guide: its title as text, its body as HTML, and its second-level headings as (id, text)."""

    name: str
    title: str
    body: str
    sections: tuple[tuple[str, str], ...]


def routes(site: CurrentSite) -> list[BaseRoute]:
    async def index(request: Request) -> Response:
        body = f"<h1>Guides</h1>\n{_list_of_guides()}"
        return respond(request, _rendered(_template(site()), "Guides", _contents(None), body), ALWAYS_ASK)

    async def page(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ORDER:
            raise HTTPException(404)
        found = guide(name)
        return respond(request, _rendered(_template(site()), found.title, _contents(found), found.body), ALWAYS_ASK)

    return [
        Route("/docs/guides", index, methods=["GET"]),
        Route("/docs/guides/{name}", page, methods=["GET"]),
    ]


@cache
def guide(name: str) -> Guide:
    """The guide of this name, which must be one of `ORDER`."""
    markdown = MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse((FOLDER / f"{name}.md").read_text(encoding="utf-8"))
    title, sections = name, []
    for heading, inline in pairwise(tokens):
        if heading.type != "heading_open":
            continue
        text = _text_of(inline)
        heading.attrSet("id", slug(text))
        if heading.tag == "h1":
            title = text
        elif heading.tag == "h2":
            sections.append((slug(text), text))
    for token in tokens:
        for child in token.children or ():
            if child.type == "link_open":
                child.attrSet("href", _address(str(child.attrGet("href"))))
    # Code may be wider than the page: it scrolls, by the keyboard, too.
    body = markdown.renderer.render(tokens, markdown.options, {}).replace("<pre>", '<pre tabindex="0">')
    return Guide(name=name, title=title, body=body, sections=tuple(sections))


def slug(heading: str) -> str:
    """The id of a heading, as GitHub makes it: lower case, spaces to hyphens, other punctuation left out."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _text_of(inline: Token) -> str:
    return "".join(child.content for child in inline.children or ())


def _address(href: str) -> str:
    link = _GUIDE_LINK.fullmatch(href)
    return f"/docs/guides/{link[1]}{link[2] or ''}" if link else href


def _list_of_guides() -> str:
    rows = (f'<li><a href="/docs/guides/{name}">{html.escape(guide(name).title)}</a></li>' for name in ORDER)
    return f"<ul>{''.join(rows)}</ul>"


def _contents(shown: Guide | None) -> str:
    """The navigation: every guide, and below the one that is shown its sections."""
    lines = []
    for name in ORDER:
        current = ' aria-current="page"' if shown is not None and name == shown.name else ""
        lines.append(f'<a href="/docs/guides/{name}"{current}>{html.escape(guide(name).title)}</a>')
        if shown is not None and name == shown.name:
            lines += [f'<a class="section" href="#{id}">{html.escape(text)}</a>' for id, text in shown.sections]
    return "\n".join(lines)


def _template(site: Site) -> Content:
    return site.pages["docs/guide.html", "en"]


@lru_cache(maxsize=2 * len(ORDER))
def _rendered(template: Content, title: str, contents: str, body: str) -> Content:
    filled = Template(template.body.decode()).substitute(title=html.escape(title), contents=contents, body=body)
    return Content.of(filled.encode(), template.type, template.policy)
