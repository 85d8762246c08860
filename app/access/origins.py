"""The check of a page's origin before it may open a live socket: our own pages may, and those of ALLOWED_ORIGINS.

A browser sends the `Origin` of the page. It is our own if its host is the one in the request's `Host` header. A proxy
that does not pass `Host` on makes every page look foreign; the log then names the remedy.
"""

import logging
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

HINT_SECONDS = 60.0
"""The shortest time between two log lines about refused origins."""
LONGEST_SHOWN = 100
"""Characters of a header in a log line."""

log = logging.getLogger(__name__)


class Origins:
    """The origins whose pages may connect; logs the refused ones."""

    def __init__(self, allowed: Sequence[str] = (), *, clock: Callable[[], float] = time.monotonic) -> None:
        """`allowed`: origins exactly as a browser sends them."""
        self._allowed = frozenset(allowed)
        self._clock = clock
        self._hinted_at: float | None = None
        self._refused = 0

    def allows(self, origin: str | None, host: str | None) -> bool:
        """Whether a page of this origin may connect. A client without an Origin is no browser, and may."""
        if origin is None or origin in self._allowed:
            return True
        try:
            is_own = urlsplit(origin).netloc == host
        except ValueError:
            is_own = False
        if not is_own:
            self._refuse(origin, host)
        return is_own

    def _refuse(self, origin: str, host: str | None) -> None:
        self._refused += 1
        now = self._clock()
        if self._hinted_at is not None and now - self._hinted_at < HINT_SECONDS:
            return
        self._hinted_at = now
        about = {"origin": origin[:LONGEST_SHOWN], "host": (host or "")[:LONGEST_SHOWN], "refused": self._refused}
        log.warning(
            "a page was refused because its origin is not the host that was asked; if it is ours, the proxy must pass "
            "the Host header on (see Behind a proxy in the guide Operate), else list it in ALLOWED_ORIGINS",
            extra=about,
        )
