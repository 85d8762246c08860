"""A stream server on the loopback whose connections end with it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


@asynccontextmanager
async def listening(serve: Serve, port: int = 0, *, backlog: int = 100) -> AsyncIterator[asyncio.Server]:
    """`serve` may leave the ends that a client makes, an early one and a broken one, as they come.

    At the end of the block all connections are closed. One that stays open is a ResourceWarning later, in whichever
    test the garbage collector finds it.
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
        await asyncio.sleep(0)  # what has just been accepted begins
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0)  # what has been closed is let go of
