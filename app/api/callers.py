"""Finds the caller of a request by its token, and keeps it in the request's scope for an error that shows an item."""

from hmac import compare_digest

from starlette.requests import Request
from starlette.types import Scope

from app.access import rights
from app.access.auth import Authenticator, Principal
from app.domain.errors import Unauthorized
from app.settings.checks import is_loopback

FORWARDED = ("x-forwarded-for", "forwarded", "x-real-ip", "via")
"""Headers by which a proxy says that it speaks for somebody else."""


class Callers:
    def __init__(self, authenticator: Authenticator, *, public_rooms: bool, metrics_token: str | None = None) -> None:
        """`metrics_token`: a bearer token that `check_operator` accepts."""
        self._authenticator = authenticator
        self._public_rooms = public_rooms
        self._metrics_token = metrics_token

    async def principal(self, request: Request) -> Principal:
        """The caller, who must have a valid token. Raises Unauthorized, or Unavailable if its key cannot be fetched."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("A bearer token is needed (Authorization: Bearer …).")
        principal = await self._authenticator.principal(token.strip())
        request.scope["state"]["principal"] = principal
        return principal

    async def viewer(self, request: Request) -> Principal | None:
        """The caller who reads a room; None for one without a token in public rooms. Raises as `principal`."""
        if self._public_rooms and "authorization" not in request.headers:
            return None
        return await self.principal(request)

    async def check_operator(self, request: Request) -> None:
        """Raises Unauthorized or Forbidden unless the caller may see the metrics and the details of readiness: a
        program of this machine that no proxy speaks for, a bearer of the metrics token, an administrator."""
        client = request.client
        if client is not None and is_loopback(client.host) and not any(name in request.headers for name in FORWARDED):
            return
        _, _, token = request.headers.get("authorization", "").partition(" ")
        if self._metrics_token is not None and compare_digest(token.strip().encode(), self._metrics_token.encode()):
            return
        rights.may_administer(await self.principal(request))


def known_principal(scope: Scope) -> Principal | None:
    """The caller of a request, if its token has been verified already."""
    principal: Principal | None = scope["state"].get("principal")
    return principal
