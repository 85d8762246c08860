"""The pages and the files of static/, under a strict Content-Security-Policy. The pages get their data over the API."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from app.api.routing import route
from app.api.site import HASH_LENGTH, MODULES, Content, Site, language_of
from app.specs.operations import MANIFEST
from app.wire.encoding import encode
from app.wire.requests import is_identifier

_INSTALLED = Path(__file__).parents[1] / "static"
STATIC = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "static"
"""The pages' files: inside an installed package, at the top of the source tree."""

PAGES = {
    "/": "home/index.html",
    "/watch/{performerId}": "watch/watch.html",
    "/panel": "panel/panel.html",
    "/overlay/{performerId}": "overlay/overlay.html",
    "/admin": "admin/admin.html",
    "/docs": "docs/docs.html",
}

FRAMED = frozenset({"watch/watch.html", "overlay/overlay.html"})
"""Pages that any site may show in a frame. On any other page a foreign site could steer a person's clicks."""

FRAMED_BY_SITES = frozenset({"panel/panel.html"})
"""Pages that the origins of ALLOWED_ORIGINS may show in a frame: they embed the panel and renew its token."""

NOT_FOUND = "home/not-found.html"
NO_PAGES = ("/v1/", "/static/", "/sandbox/")
"""Paths below these are for programs: a browser, too, gets a problem document for one that does not exist."""

WORKERS = {"watch/worker.js": "/watch/"}
"""Service workers, each with its scope: the addresses that it may answer for."""

MANIFEST_PATH = "/watch/{performerId}/manifest.webmanifest"
ICONS = (("icon-192", 192, "any"), ("icon-512", 512, "any"), ("maskable-512", 512, "maskable"))

ALWAYS_ASK = "no-cache"
FOR_EVER = "public, max-age=31536000, immutable"
FOR_HOST_SITES = "public, max-age=600, stale-while-revalidate=604800"
"""A browser uses the module of its cache at once, and renews that in the background."""

_HASHED = re.compile(rf"([0-9a-f]{{{HASH_LENGTH}}})/(.+)")
_OWN_ONLY = "script-src 'self'; style-src 'self'"
_POLICY = (
    "default-src 'none'; {own}; img-src 'self' data:; connect-src 'self' ws: wss:; media-src 'self';"
    " manifest-src 'self'; worker-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self';"
    " frame-ancestors {framing}"
)

CurrentSite = Callable[[], Site]


def current_site(*, reload: bool) -> CurrentSite:
    """A function that returns the site, which is read now; with `reload` it is read again after a file has changed."""

    def site() -> Site:
        return site_of(_newest_change() if reload else 0)

    # Now: to compress every file takes a second of CPU, which at the first request would delay all others.
    site()
    return site


def routes(site: CurrentSite, origins: Sequence[str] = ()) -> list[BaseRoute]:
    """The routes of every page and file. `origins`: of the sites that may frame the panel."""

    def page(path: str, name: str) -> Route:
        async def answer(request: Request) -> Response:
            return page_response(request, site(), name, origins)

        return route(path, GET=answer)

    async def file(request: Request) -> Response:
        return _file_response(request, site())

    async def manifest(request: Request) -> Response:
        return _manifest_response(request, site())

    async def missing(request: Request) -> Response:
        return page_response(request, site(), NOT_FOUND, status=404)

    pages = [page(path, name) for path, name in PAGES.items()]
    return [
        *pages,
        route(MANIFEST_PATH, GET=manifest),
        route("/static/{path:path}", GET=file),
        _MissingPage("/", missing),
    ]


class _MissingPage(Route):
    """Matches a browser's requests for a page that does not exist. Programs get a problem document."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"].startswith(NO_PAGES):
            return Match.NONE, {}
        if "text/html" not in Headers(scope=scope).get("accept", ""):
            return Match.NONE, {}
        return Match.FULL, {"endpoint": self.endpoint, "path_params": {}}


def page_response(
    request: Request, site: Site, name: str, origins: Sequence[str] = (), *, status: int = 200
) -> Response:
    """The response with a page in its reader's language."""
    response = respond(
        request, site.pages[name, asked_language(request, site)], ALWAYS_ASK, status, framing=_framing(name, origins)
    )
    response.headers["vary"] = "Accept-Encoding, Accept-Language"
    return response


def asked_language(request: Request, site: Site) -> str:
    """The reader's language, or the nearest that there is."""
    accepted = request.headers.get("accept-language", "")
    return language_of(accepted, request.query_params.get("lang"), site.languages)


def respond(
    request: Request, content: Content, cache_control: str, status: int = 200, *, framing: str = "'none'"
) -> Response:
    """The response with a content, compressed if the client takes that; a 304 if the client has it already. `framing`:
    the sources that may show it in a frame (CSP `frame-ancestors`)."""
    headers = {
        "content-security-policy": _POLICY.format(own=content.policy or _OWN_ONLY, framing=framing),
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": cache_control,
        "vary": "Accept-Encoding",
        # Weak: the same for the compressed bytes.
        "etag": f'W/"{content.tag}"',
    }
    if status == 200 and content.tag in re.findall(r'"([^"]*)"', request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    body = content.body
    for coding, compressed in content.compressed:
        if _takes(request, coding):
            body, headers["content-encoding"] = compressed, coding
            break
    return Response(body, status, {**headers, "content-type": content.type})


def _framing(name: str, origins: Sequence[str]) -> str:
    if name in FRAMED:
        return "*"
    return " ".join(("'self'", *origins)) if name in FRAMED_BY_SITES and origins else "'none'"


def _file_response(request: Request, site: Site) -> Response:
    path = request.path_params["path"]
    hashed = _HASHED.fullmatch(path)
    name = hashed[2] if hashed else path
    content = site.files.get(name)
    # An address with another release's hash is not found, so that no page gets files of two releases.
    if content is None or (hashed and hashed[1] != content.tag):
        raise HTTPException(404)
    for_host_sites = name.removeprefix("v1/") in MODULES
    response = respond(request, content, FOR_EVER if hashed else FOR_HOST_SITES if for_host_sites else ALWAYS_ASK)
    # A host site's page may load the modules and the messages from here; nothing below static/ is secret.
    response.headers["access-control-allow-origin"] = "*"
    if name in WORKERS:
        response.headers["service-worker-allowed"] = WORKERS[name]
    return response


def _manifest_response(request: Request, site: Site) -> Response:
    """The web app manifest of this performer's page for viewers."""
    performer_id = request.path_params["performerId"]
    if not is_identifier(performer_id):
        raise HTTPException(404)
    address = f"/watch/{performer_id}"
    manifest = {
        "id": address,
        "start_url": address,
        "scope": address,
        "name": f"{performer_id} · Performance Queue",
        "short_name": performer_id,
        "display": "standalone",
        "background_color": "#f5f4f0",
        "theme_color": "#f5f4f0",
        "icons": [
            {
                "src": site.hashed(f"icons/{name}.png"),
                "sizes": f"{size}x{size}",
                "type": "image/png",
                "purpose": purpose,
            }
            for name, size, purpose in ICONS
        ],
    }
    return respond(request, Content.of(encode(manifest), MANIFEST), ALWAYS_ASK)


def _takes(request: Request, coding: str) -> bool:
    accepted = request.headers.get("accept-encoding", "").lower()
    return re.search(rf"\b{coding}\b(?!\s*;\s*q=0(?:\.0*)?(?:,|\s|$))", accepted) is not None


# Saves more than 99 % of a page's CPU (`bench --without site`).
@lru_cache(maxsize=1)
def site_of(change: int) -> Site:
    """The site; read once for all applications of the process, and again for a later `change` of its files."""
    return Site(STATIC)


def _newest_change() -> int:
    """When something below static/ was last changed, in nanoseconds; a folder changes when a file of it goes."""
    return max(path.stat().st_mtime_ns for path in (STATIC, *STATIC.rglob("*")))
