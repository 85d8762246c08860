"""The principal of a socket: verifies its token, counts its sockets, and closes the socket when the token expires."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from app.access.auth import Authenticator, Principal
from app.domain.command import Role
from app.domain.errors import QueueError, TokenExpired, Unauthorized
from app.live.frame_reader import CloseConnection
from app.wire.websocket import CloseCode


class Identity:
    """The identity of one connection: an anonymous viewer until `authenticate`, which may be called again."""

    def __init__(
        self,
        authenticator: Authenticator,
        clock: Callable[[], datetime],
        connected: Counter[str],
        close: Callable[[int, str], None],
        *,
        most_sockets: int,
    ) -> None:
        """`connected`: the number of sockets of each principal in this process, at most `most_sockets`. `close` ends
        the connection with a code."""
        self._authenticator = authenticator
        self._clock = clock
        self._connected = connected
        self._close = close
        self._most_sockets = most_sockets
        self._expiry: asyncio.TimerHandle | None = None
        self.principal: Principal | None = None
        self.has_expired = False
        """Whether the connection ends because its token has run out."""

    @property
    def role(self) -> Role:
        return self.principal.role if self.principal else Role.VIEWER

    @property
    def sub(self) -> str | None:
        return self.principal.sub if self.principal else None

    @property
    def expires_at(self) -> datetime | None:
        return self.principal.expires_at if self.principal else None

    def is_performer(self, performer_id: str) -> bool:
        """Whether the principal is this room's performer."""
        return self.role is Role.PERFORMER and self.sub == performer_id

    async def authenticate(self, token: str) -> None:
        """Take the token's principal, until the token expires. Raises CloseConnection."""
        try:
            principal = await self._authenticator.principal(token)
        except TokenExpired:
            raise CloseConnection(CloseCode.TOKEN_EXPIRED, "token expired") from None
        except Unauthorized:
            raise CloseConnection(CloseCode.BAD_TOKEN, "bad token") from None
        except QueueError:
            raise CloseConnection(CloseCode.OVERLOADED, "tokens cannot be checked right now") from None
        self.release()
        name = _name(principal)
        self._connected[name] += 1
        self.principal = principal
        if self._connected[name] > self._most_sockets:
            raise CloseConnection(CloseCode.TOO_MANY_CONNECTIONS, "too many connections")
        remaining = (principal.expires_at - self._clock()).total_seconds()
        self._expiry = asyncio.get_running_loop().call_later(max(0.0, remaining), self._expire)

    def _expire(self) -> None:
        self.has_expired = True
        self._close(CloseCode.TOKEN_EXPIRED, "token expired")

    def release(self) -> None:
        """Become anonymous again, and uncount the socket."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self.principal is None:
            return
        name = _name(self.principal)
        self._connected[name] -= 1
        if not self._connected[name]:
            del self._connected[name]
        self.principal = None


def _name(principal: Principal) -> str:
    return f"{principal.role}:{principal.sub}"
