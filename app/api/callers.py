"""The caller of a request: its token checked, and kept in the request's scope for a refusal that shows an item."""

from starlette.requests import Request
from starlette.types import Scope

from app.access.auth import Authenticator, Principal
from app.domain.errors import Unauthorized


class Callers:
    def __init__(self, authenticator: Authenticator, *, public_rooms: bool) -> None:
        self._authenticator = authenticator
        self._public_rooms = public_rooms

    async def principal(self, request: Request) -> Principal:
        """The caller, who must have a valid token. Raises Unauthorized, or Unavailable if keys cannot be had."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("A bearer token is needed (Authorization: Bearer …).")
        principal = await self._authenticator.principal(token.strip())
        request.scope["state"]["principal"] = principal
        return principal

    async def viewer(self, request: Request) -> Principal | None:
        """The caller who reads a room; None without a token, which public rooms allow."""
        if self._public_rooms and "authorization" not in request.headers:
            return None
        return await self.principal(request)


def known_principal(scope: Scope) -> Principal | None:
    """The caller of a request, if its token has been checked already."""
    principal: Principal | None = scope["state"].get("principal")
    return principal
