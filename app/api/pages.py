"""The pages: static files under a strict Content-Security-Policy. What they show comes over the API."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

_INSTALLED = Path(__file__).parents[1] / "static"
STATIC = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "static"
"""The pages' files: inside an installed package, at the top of the source tree."""

SECURITY_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:;"
        b" media-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors *",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    # A page and its modules are of one release: always ask, and be told "not modified".
    (b"cache-control", b"no-cache"),
)

ANY_SITE = (b"access-control-allow-origin", b"*")
"""A host site's page may load the client module and the element from here; neither holds anything secret."""


class _Files(StaticFiles):
    """Static files with the same headers as the pages."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *SECURITY_HEADERS, ANY_SITE]
            await send(message)

        await super().__call__(scope, receive, send_with_headers)


def _serve(file: str, path: str) -> Route:
    async def page(request: Request) -> Response:
        headers = {name.decode(): value.decode() for name, value in SECURITY_HEADERS}
        return FileResponse(STATIC / file, headers=headers)

    return Route(path, page, methods=["GET"], name=file)


def routes() -> list[BaseRoute]:
    return [
        _serve("home/index.html", "/"),
        _serve("watch/watch.html", "/watch/{performerId}"),
        _serve("panel/panel.html", "/panel"),
        _serve("overlay/overlay.html", "/overlay/{performerId}"),
        _serve("admin/admin.html", "/admin"),
        _serve("docs/docs.html", "/docs"),
        Mount("/static", _Files(directory=STATIC), name="static"),
    ]
