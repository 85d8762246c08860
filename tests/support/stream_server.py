"""A stream server on loopback that closes its connections when it ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


@asynccontextmanager
async def listening(serve: Serve, port: int = 0, *, backlog: int = 100) -> AsyncIterator[asyncio.Server]:
    """Run a server inside the block. `serve` need not handle connections that the client ends early or breaks.

    At the end of the block all connections are closed: an open one would cause a ResourceWarning in a later test.
    """
    running: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=backlog)
    try:
        yield server
    finally:
        server.close()
        await asyncio.sleep(0)  # the tasks of connections that were just accepted begin
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0)  # the transports of closed connections end
