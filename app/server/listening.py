"""Binds the sockets that the service listens on: before anything else starts, so that a refusal is one line."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from errno import EADDRNOTAVAIL, EAFNOSUPPORT


class AddressRefusedError(Exception):
    """HOST and PORT cannot be listened on; `str()` is one line that says why."""


@contextmanager
def bound(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Sockets on every address of the host, all on one port (0: a free one); they listen once they are served.

    `::` takes IPv4 as well. Raises AddressRefusedError.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as problem:
        raise AddressRefusedError(f"HOST: {host} cannot be resolved: {problem.strerror}") from None
    missing: OSError | None = None
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        for family, kind, protocol, _, address in dict.fromkeys(found):
            chosen = port or (sockets[0].getsockname()[1] if sockets else 0)
            try:
                listener = opened.enter_context(socket.socket(family, kind, protocol))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
                listener.bind((address[0], chosen, *address[2:]))
            except OSError as problem:
                if problem.errno in (EADDRNOTAVAIL, EAFNOSUPPORT):
                    # A name may have addresses of a kind that this machine does not have.
                    missing = problem
                    continue
                raise AddressRefusedError(f"PORT: {host}:{chosen} cannot be listened on: {problem.strerror}") from None
            listener.set_inheritable(True)
            sockets.append(listener)
        if not sockets:
            reason = missing.strerror if missing is not None else "it has no address"
            raise AddressRefusedError(f"HOST: {host} cannot be listened on: {reason}")
        yield sockets


def url(sockets: Sequence[socket.socket], host: str) -> str:
    """The address that a browser takes: `host` as it was given, with the port that is really listened on."""
    port = sockets[0].getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
