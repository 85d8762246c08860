"""Ports for the servers that tests start."""

import secrets
import socket
from contextlib import suppress

FIRST, LAST = 15_000, 32_000


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses.

    It lies below the ports that systems give to connections (from 32768 on Linux): none of the thousands that tests
    open takes it before the server does, nor while the server is restarted.
    """
    while True:
        port = FIRST + secrets.randbelow(LAST - FIRST)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
