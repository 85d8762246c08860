"""The limit on this process's file descriptors, and the number of connections that it allows."""

import resource
from dataclasses import dataclass

LARGEST_LIMIT = 1_048_576
"""The most descriptors that are asked for, even if the hard limit is higher."""
RESERVED = 256
"""Descriptors for everything but connections: the database, Redis, the wallet, files; and connections that are being
closed."""


@dataclass(frozen=True, slots=True)
class Capacity:
    descriptors: int
    connections: int
    """TCP connections of all kinds."""
    sockets: int
    """WebSockets among them: some connections are left for HTTP, so that viewers do not starve intake."""

    def __str__(self) -> str:
        return f"{self.sockets} live sockets ({self.descriptors} file descriptors)"


def raise_limit() -> None:
    """Raise the soft limit to the hard one. Processes started from here on inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = LARGEST_LIMIT if hard == resource.RLIM_INFINITY else min(hard, LARGEST_LIMIT)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # macOS refuses more than kern.maxfilesperproc
        return


def capacity() -> Capacity:
    """The capacity of this process, from its soft limit."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = LARGEST_LIMIT if soft == resource.RLIM_INFINITY else min(soft, LARGEST_LIMIT)
    connections = max(descriptors - RESERVED, descriptors // 2)
    return Capacity(descriptors, connections, connections * 9 // 10)
