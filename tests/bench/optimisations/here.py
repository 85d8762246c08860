"""The operations that need no service: they are carried out in the benchmark's own process."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import uvloop
from starlette.applications import Starlette

from app.api import descriptions, guides, linking, module_syntax, pages, site
from app.api.library import library
from app.domain import command as do
from app.domain.item import Item
from app.domain.room import Policy
from app.engine.jobs import Envelope, Idempotency
from app.engine.writer import Writer
from app.main import create_app
from app.parts import new_id, utc_now
from app.settings import read_settings
from app.specs import asyncapi, openapi, typescript
from app.store import Store, reading
from app.store.engines import open_engines
from app.store.migrating import migrate
from tests.bench import servers
from tests.bench.bench import Bench
from tests.bench.load.requests import Intakes
from tests.bench.optimisations.measuring import Begin, Drive, Operation, Switch

Work = Callable[[], object]
START = datetime(2026, 1, 1, tzinfo=UTC)
SERVICES = 120
BATCH = 32
AT_ONCE = 64
ROOM = "room-0"
ADMIN = do.Actor(role=do.Role.ADMIN, id="bench")


def _here(times: int, ready: Callable[[Bench], AbstractContextManager[Work]]) -> Begin:
    """`times`: how often an operation is carried out at a time."""

    @contextmanager
    def begin(bench: Bench) -> Iterator[tuple[Drive, Switch]]:
        with ExitStack() as entered, ready(bench) as work:

            def drive() -> float:
                before = time.process_time()
                for _ in range(times):
                    work()
                return (time.process_time() - before) / times * 1e6

            yield drive, _switch(entered)

    return begin


def _switch(entered: ExitStack) -> Switch:
    # The catalogue names the operations below.
    from tests.bench.optimisations.catalogue import ALL

    def switch(name: str | None) -> None:
        entered.close()
        if name is not None:
            entered.enter_context(ALL[name].plain())

    return switch


@contextmanager
def _modules(bench: Bench) -> Iterator[tuple[Drive, Switch]]:
    """The bytes of the modules that host sites load, as they are sent."""
    with ExitStack() as entered:
        sources = {path.relative_to(pages.STATIC).as_posix(): path.read_text() for path in pages.STATIC.rglob("*.js")}

        def size() -> float:
            texts = (library(name, sources.get) for name in site.MODULES)
            contents = [site.Content.of(text.encode(), "text/javascript", effort=site.THOROUGH) for text in texts]
            return float(sum(len(content.compressed[0][1]) for content in contents))

        yield size, _switch(entered)


@contextmanager
def _site(bench: Bench) -> Iterator[Work]:
    caches = (linking._body, module_syntax.imports_of)

    def assemble() -> None:
        for cache in caches:
            cache.cache_clear()
        site.Site(pages.STATIC)

    yield assemble


@contextmanager
def _documents(bench: Bench) -> Iterator[Work]:
    yield lambda: [
        descriptions._answers(document) for document in (openapi.document, asyncapi.document, typescript.declarations)
    ]


def _views(path: str) -> Callable[[Bench], AbstractContextManager[Work]]:
    @contextmanager
    def ready(bench: Bench) -> Iterator[Work]:
        current = pages.current_site(reload=False)
        app = Starlette(routes=[*guides.routes(current), *pages.routes(current)])
        headers = [(b"accept-encoding", b"br"), (b"accept-language", b"de")]
        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None:
            assert message.get("status", 200) == 200

        loop = asyncio.new_event_loop()
        try:
            yield lambda: loop.run_until_complete(app(dict(scope), receive, send))
        finally:
            loop.close()

    return ready


@contextmanager
def _room(bench: Bench) -> Iterator[Work]:
    with servers.data_folder(bench.data) as folder:
        engines = open_engines(f"sqlite:///{folder / servers.DATABASE}")
        try:
            migrate(engines.patient_writer)
            store = Store(engines, Policy())
            _live_through(Writer(store, _minutes(), new_id))

            def load() -> None:
                with store.reading() as connection:
                    reading.load_rooms(connection, store.policy, [ROOM])

            yield load
        finally:
            engines.dispose()


def _minutes() -> Callable[[], datetime]:
    """A clock that moves on by a minute with each look."""
    numbers = count()
    return lambda: START + timedelta(minutes=next(numbers))


@contextmanager
def _batches(bench: Bench) -> Iterator[Work]:
    """Of BATCH intakes into as many rooms, decided and committed on a disk."""
    with servers.data_folder(bench.data) as folder:
        engines = open_engines(f"sqlite:///{folder / servers.DATABASE}")
        try:
            migrate(engines.patient_writer)
            writer = Writer(Store(engines, Policy(max_depth=100_000)), utc_now, new_id)

            def commit() -> None:
                batch = [
                    Envelope(
                        performer_id=item.performer_id,
                        command=do.Intake(actor=ADMIN, item=item),
                        idempotency=Idempotency(
                            scope=f"intake:{item.source_feature}", key=item.idempotency_key, fingerprint="f" * 32
                        ),
                    )
                    for item in (_item(f"room-{number}") for number in range(BATCH))
                ]
                if failed := [each for each in writer.process(batch) if isinstance(each, Exception)]:
                    raise failed[0]

            yield commit
        finally:
            engines.dispose()


@contextmanager
def _requests(bench: Bench) -> Iterator[Work]:
    """AT_ONCE intakes at a time into as many rooms, over ASGI."""
    with servers.data_folder(bench.data) as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        app = create_app(
            read_settings(
                database_url=f"sqlite:///{folder / servers.DATABASE}",
                user_intakes_per_minute=0,
                max_queue_depth=1_000,
            )
        )
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        intakes = Intakes(AT_ONCE)

        async def take(request: bytes) -> None:
            head, _, body = request.partition(b"\r\n\r\n")
            first, *lines = head.split(b"\r\n")
            pairs = (line.split(b": ", 1) for line in lines)
            method, path, _ = first.decode().split()
            scope = {
                "type": "http",
                "method": method,
                "path": path,
                "query_string": b"",
                "headers": [(name.lower(), value) for name, value in pairs],
                "client": ("127.0.0.1", 1),
            }

            async def receive() -> Any:
                return {"type": "http.request", "body": body, "more_body": False}

            async def send(message: Any) -> None:
                if message.get("status", 201) != 201:
                    raise ConnectionError(f"an intake was answered with {message['status']}")

            await app(scope, receive, send)

        async def together(requests: list[bytes]) -> None:
            await asyncio.sleep(0)  # the loop's time has stood since the last turn
            await asyncio.gather(*map(take, requests))

        yield lambda: runner.run(together([intakes.next().request for _ in range(AT_ONCE)]))
        runner.run(lifespan.__aexit__(None, None, None))


def _item(room: str) -> Item:
    number = next(_NUMBERS)
    return Item(
        item_id=new_id(),
        performer_id=room,
        user_id=f"u-{number}",
        source_feature="bench",
        source_event_id=f"e-{number}",
        escrow_transaction_id=f"x-{number}",
        idempotency_key=f"k-{number}",
        tokens=120,
        title="A song",
        description="Anything by Nina Simone",
        duration_seconds=180,
        created_at=START,
        updated_at=START,
    )


_NUMBERS = count()


def _live_through(writer: Writer) -> None:
    def send(command: do.Command) -> None:
        (outcome,) = writer.process([Envelope(performer_id=ROOM, command=command)])
        if isinstance(outcome, Exception):
            raise outcome

    for item in (_item(ROOM) for _ in range(SERVICES)):
        send(do.Intake(actor=ADMIN, item=item))
        send(do.Start(actor=ADMIN, item_id=item.item_id))
        send(do.Complete(actor=ADMIN, item_id=item.item_id))


COMMIT = Operation(name=f"committing {BATCH} intakes", pairs=200, begin=_here(1, _batches))
REQUEST = Operation(name=f"answering {AT_ONCE} intakes", pairs=60, begin=_here(1, _requests))
START_OF_SITE = Operation(name="making the pages ready", pairs=5, begin=_here(1, _site))
MODULES = Operation(name="a host site's modules", unit="bytes", pairs=1, begin=_modules)
DOCUMENTS = Operation(name="making an application's documents", pairs=5, begin=_here(1, _documents))
PAGE = Operation(name="a page", pairs=5, begin=_here(1, _views("/watch/aria")))
GUIDE = Operation(name="a page of a guide", pairs=5, begin=_here(3, _views("/docs/guides/operate")))
ROOM_LOAD = Operation(name="loading a room that has learnt its waits", begin=_here(50, _room))
