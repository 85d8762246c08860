"""The pages and files of static/, made ready to be sent: assembled, hashed and compressed once.

A page is one document: its modules, styles and messages are inside, so it is live one round trip after it has come, and
it never has parts of two releases. Its Content-Security-Policy allows its inline scripts and styles by their hashes. A
file is served at its own address, where a client asks whether it has changed, and at /static/HASH/NAME, where it never
changes. The two modules that host sites load are each one file as well.
"""

import base64
import gzip
import hashlib
import mimetypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import brotli

from app.api.library import library
from app.api.linking import link
from app.api.module_syntax import stripped

MODULES = ("queue-client.js", "position-element.js")
"""The files that host sites load: at /static/NAME, and at /static/v1/NAME, where their interface stays."""

HASH_LENGTH = 16
LEAST_COMPRESSED = 300
"""Bytes below which compression gains nothing."""
THOROUGH, QUICK = 11, 5
"""Brotli's effort. The modules of host sites take 50 ms of CPU at a start and are 8 % shorter for it
(`bench --without thorough`); all pages would take 1.5 s."""

_TYPES = {
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "ts": "text/plain; charset=utf-8",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}

_MESSAGES = re.compile(r'<meta name="queue-messages" content="([^"]*)">\n?')
_STYLE = re.compile(r'<link rel="stylesheet" href="/static/([^"]+)">\n?')
_MODULE = re.compile(r'<script type="module" src="/static/([^"]+)"></script>')
_SCRIPT = re.compile(r'<script src="/static/([^"]+)"></script>')
_ADDRESS = re.compile(r'(?<=["(])/static/([\w./-]+)(?<!\.js)(?=[")])')
"""A file named in a page, a style or a script, other than a script: a service worker keeps its address."""


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes ready to be sent, of a text also in compressed form."""

    body: bytes
    type: str
    compressed: tuple[tuple[str, bytes], ...]
    """Content codings with the bytes, the preferred one first."""
    tag: str
    """The hash of the bytes: an entity tag without its quotes."""
    policy: str = ""
    """`script-src` and `style-src` of a page."""

    @classmethod
    def of(cls, body: bytes, type: str, policy: str = "", effort: int = QUICK) -> "Content":
        compressed: tuple[tuple[str, bytes], ...] = ()
        if _is_text(type) and len(body) >= LEAST_COMPRESSED:
            compressed = ("br", brotli.compress(body, quality=effort)), ("gzip", gzip.compress(body, 9, mtime=0))
        return cls(body, type, compressed, hashlib.sha256(body).hexdigest()[:HASH_LENGTH], policy)


class Site:
    """Everything below a folder, read once. `files` by path below /static/, `pages` by source and language."""

    def __init__(self, folder: Path) -> None:
        self._sources = {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
        self.languages = sorted(
            name.removeprefix("messages/").removesuffix("-core.js")
            for name in self._sources
            if name.startswith("messages/") and name.endswith("-core.js")
        )
        self.files = {name: Content.of(body, _type(name)) for name, body in self._sources.items()}
        for name in MODULES:
            module = Content.of(library(name, self._text).encode(), _type(name), effort=THOROUGH)
            self.files[name] = self.files[f"v1/{name}"] = module
        self.pages = {
            (name, language): self._page(name, language)
            for name in self._sources
            if name.endswith(".html")
            for language in self.languages
        }

    def hashed(self, name: str) -> str:
        """The address of a file that never changes. Raises KeyError if there is no such file."""
        return f"/static/{self.files[name].tag}/{name}"

    def _text(self, name: str) -> str | None:
        body = self._sources.get(name)
        return None if body is None else body.decode()

    def _page(self, name: str, language: str) -> Content:
        html = self._sources[name].decode()
        named = _MESSAGES.search(html)
        catalogue = _catalogue(named[1].split() if named else [], language)
        html = _MESSAGES.sub("", html).replace('<html lang="en"', f'<html lang="{language}"', 1)
        scripts: list[str] = []
        styles: list[str] = []

        def read(path: str) -> str | None:
            return catalogue if path == "lib/catalogue.js" else self._text(path)

        def script(kind: str, source: str) -> str:
            # To JavaScript it is the same in strings and templates; to HTML it would be the end of the script.
            text = "\n" + self._with_addresses(source.replace("</script", "<\\/script"))
            scripts.append(_digest(text))
            return f"<script{kind}>{text}</script>"

        def module(match: re.Match[str]) -> str:
            return script(' type="module"', link(match[1], read))

        def style(match: re.Match[str]) -> str:
            if styles:
                return ""
            sheets = (self._sources[sheet].decode() for sheet in _STYLE.findall(html))
            text = self._with_addresses("".join(_stripped_css(sheet) for sheet in sheets))
            styles.append(_digest(text))
            return f"<style>{text}</style>\n"

        page = _STYLE.sub(style, html)
        page = _SCRIPT.sub(lambda match: script("", stripped(self._sources[match[1]].decode())), page)
        page = self._with_addresses(page)
        page = _MODULE.sub(module, page)
        allowed = (("script-src", scripts), ("style-src", styles))
        policy = "; ".join(" ".join((directive, "'self'", *hashes)) for directive, hashes in allowed)
        return Content.of(page.encode(), _TYPES["html"], policy)

    def _with_addresses(self, text: str) -> str:
        """The text with the files that it names at addresses that never change."""
        return _ADDRESS.sub(lambda match: self.hashed(match[1]) if match[1] in self.files else match[0], text)


def _catalogue(parts: list[str], language: str) -> str:
    """A module that joins the messages a page names, as `core` and `watch`; `shared` are those of several pages."""
    names = [
        f"../messages/{language}.js" if part == "shared" else f"../messages/{language}-{part}.js" for part in parts
    ]
    imports = "".join(f'import part{number} from "{name}";\n' for number, name in enumerate(names))
    joined = ", ".join(f"...part{number}" for number in range(len(names)))
    return f"{imports}export default {{ {joined} }};\n"


def language_of(accepted: str, wanted: str | None, languages: list[str]) -> str:
    """The language to serve: `wanted`, or without it the first of an Accept-Language header; else English."""
    asked = [wanted] if wanted else [tag for tag, _ in sorted(_weighed(accepted), key=lambda pair: -pair[1])]
    known = (tag.strip().lower().split("-")[0] for tag in asked)
    return next((language for language in known if language in languages), "en")


def _weighed(header: str) -> Iterator[tuple[str, float]]:
    for part in header.split(","):
        tag, _, weight = part.partition(";q=")
        try:
            yield tag, float(weight or 1)
        except ValueError:
            continue


def _type(name: str) -> str:
    return _TYPES.get(name.rpartition(".")[2]) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def _is_text(type: str) -> bool:
    return type.startswith("text/") or type in (_TYPES["svg"], _TYPES["webmanifest"])


def _stripped_css(source: str) -> str:
    return re.sub(r"\s*\n\s*", "\n", re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL)).strip() + "\n"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
